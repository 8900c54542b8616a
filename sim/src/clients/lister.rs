//! Lists before it watches, as Kubernetes' clients do: page by page at the revision of the first one. What comes behind that is a watcher's.

use std::time::Duration;

use bytes::Bytes;
use detcd_proto::etcdserverpb as pb;

use super::link::Link;
use super::{NO_ANSWER, PATIENCE, failed};
use crate::film::Scene;
use crate::record::{Answer, Ask, Outcome, Recorder, Trace};

/// The first number of such a client among those that ask for keys.
const FIRST: u64 = 300;
/// More pages than any list has. One that does not end is a page that repeats itself.
const PAGES_MAX: usize = 10_000;
/// What a client waits before it begins anew, as long as its list goes wrong.
const PAUSE: Duration = Duration::from_millis(100);

/// A client's lists.
pub struct Lister {
    id: u64,
    /// Keys on a page.
    page: i64,
    recorder: Recorder,
    trace: Trace,
}

impl Lister {
    /// The lists of a client that watches.
    #[must_use]
    pub const fn new(watcher: u64, page: i64, recorder: Recorder, trace: Trace) -> Self {
        Self { id: FIRST + watcher, page, recorder, trace }
    }

    /// Lists a range to its end, and says at which revision. Whatever goes wrong – nobody there, a compaction of that revision – makes it nothing, after a pause.
    pub async fn list(&self, link: &Link, key: Bytes, range_end: Bytes) -> Option<i64> {
        let mut request = pb::RangeRequest { key, range_end, limit: self.page, ..pb::RangeRequest::default() };
        for _ in 0..PAGES_MAX {
            let Some(response) = self.ask(link, &request).await else {
                tokio::time::sleep(PAUSE).await;
                return None;
            };
            if request.revision == 0 {
                request.revision = response.header.map_or(0, |header| header.revision);
            }
            let Some(last) = response.kvs.last().filter(|_| response.more) else { return Some(request.revision) };
            request.key = [&last.key, &b"\0"[..]].concat().into();
        }
        unreachable!("a list of {PAGES_MAX} pages")
    }

    /// One page, which is an operation like any other.
    async fn ask(&self, link: &Link, request: &pb::RangeRequest) -> Option<pb::RangeResponse> {
        let (ask, invoked, client) = (Ask::Range(request.clone()), self.recorder.begin(), self.id);
        self.trace.note(&[client, invoked, ask.digest()], || format!("lister {client} asks {invoked}: {ask:?}"));
        self.trace.show(|| Scene::Asked { client, invoked, text: ask.sketch() });
        let (outcome, response) = match tokio::time::timeout(PATIENCE, link.range(request)).await {
            Ok(Ok(response)) => (Outcome::Answered(Answer::Range(response.clone())), Some(response)),
            Ok(Err(status)) => (failed(&status), None),
            Err(_) => (Outcome::Uncertain(NO_ANSWER.to_owned()), None),
        };
        self.trace.note(&[client, invoked, outcome.digest()], || format!("lister {client} got {invoked}: {outcome:?}"));
        self.trace.show(|| Scene::Answered { invoked, text: outcome.sketch() });
        self.recorder.end((client, link.place()), ask, invoked, outcome);
        response
    }
}
