//! Clients, each with its own requests and memory: the real generated ones in whole-server runs, callers of the same services in engine runs ([`link`]).
//!
//! A client has one operation under way at a time; what it saw goes into the history, with nothing left out.

pub mod archivist;
pub mod keys;
pub mod lease;
pub mod link;
pub mod lister;
pub mod steward;
mod unlawful;
pub mod watcher;
pub mod workload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use detcd_io::entropy::Entropy;
use detcd_proto::etcdserverpb as pb;
use madsim::time::Instant;
use tonic::{Code, Status};

use self::link::{Link, is_elsewhere};
use self::workload::Workload;
use crate::film::Scene;
use crate::options::{Load, Options, PATIENCE_MILLIS, chance};
use crate::record::{Answer, Ask, NO_SPACE, Outcome, Recorder, Trace};

/// How long those wait who are no clients of the load.
const PATIENCE: Duration = Duration::from_millis(PATIENCE_MILLIS);
/// How long a client waits for a sweep: all that a run can have written, three rows at a time with ten milliseconds between, takes less.
const SWEEP_PATIENCE: Duration = Duration::from_secs(60);
/// What is recorded for an operation that its client gave up early, on purpose.
pub const GIVEN_UP: &str = "given up";
/// What is recorded for an operation that got no answer although its client waited.
pub const NO_ANSWER: &str = "no answer";
/// The longest that an impatient client waits, in milliseconds.
const IMPATIENCE_MILLIS_MAX: u64 = 20;

/// One client.
pub struct Client {
    id: u64,
    link: Link,
    workload: Workload,
    load: Load,
    has_quota: bool,
    dice: Entropy,
    recorder: Recorder,
    trace: Trace,
}

impl Client {
    /// Client `id` of a run.
    #[must_use]
    pub fn new(id: u64, link: Link, options: &Options, recorder: Recorder, trace: Trace) -> Self {
        let (seed, load) = (options.seed, &options.load);
        let mut dice = Entropy::seeded(seed.wrapping_add(id.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let workload = Workload::new(id, dice.draw(0, u64::MAX), load);
        let has_quota = options.member.quota_bytes > 0;
        Self { id, link, workload, load: load.clone(), has_quota, dice, recorder, trace }
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Works until it is told to end. (A flag and no channel: tokio's `watch` wakes its receivers in an order of its own.)
    pub async fn run(mut self, is_over: Arc<AtomicBool>) {
        // A gap of 0 to `widest` between two beginnings: half of it in the mean.
        let widest = 2 * self.load.clients * 1_000_000 / self.load.rate;
        let mut next = Instant::now();
        while !is_over.load(Ordering::Relaxed) {
            next = (next + Duration::from_micros(self.dice.draw(0, widest))).max(Instant::now());
            tokio::time::sleep_until(next).await;
            self.operate().await;
        }
    }

    /// So many operations, one after the other.
    pub async fn run_some(mut self, count: u64) {
        for _ in 0..count {
            tokio::time::sleep(Duration::from_millis(2)).await;
            self.operate().await;
        }
    }

    /// One operation, from its draw to its record.
    pub async fn operate(&mut self) {
        let ask = self.workload.draw();
        let is_impatient = chance(&mut self.dice, self.load.impatience);
        let patience = if is_impatient {
            Duration::from_millis(self.dice.draw(1, IMPATIENCE_MILLIS_MAX))
        } else if matches!(&ask, Ask::Compact(request) if request.physical) {
            // It is answered when all of the sweep is done.
            SWEEP_PATIENCE
        } else {
            Duration::from_millis(self.load.patience_millis)
        };
        let invoked = self.recorder.begin();
        let id = self.id;
        self.trace.note(&[id, invoked, ask.digest()], || format!("client {id} asks {invoked}: {ask:?}"));
        self.trace.show(|| Scene::Asked { client: id, invoked, text: ask.sketch() });
        let answered = tokio::time::timeout(patience, self.send(&ask)).await;
        let outcome = match answered {
            Ok(Ok(answer)) => Outcome::Answered(answer),
            Ok(Err(status)) => failed_under(self.has_quota, &status),
            Err(_) if is_impatient => Outcome::Uncertain(GIVEN_UP.to_owned()),
            Err(_) => Outcome::Uncertain(NO_ANSWER.to_owned()),
        };
        self.trace.note(&[id, invoked, outcome.digest()], || format!("client {id} got {invoked}: {outcome:?}"));
        self.trace.show(|| Scene::Answered { invoked, text: outcome.sketch() });
        self.workload.learn(&ask, &outcome);
        self.recorder.end((id, self.link.place()), ask, invoked, outcome);
    }

    async fn send(&self, ask: &Ask) -> Result<Answer, Status> {
        Ok(match ask {
            Ask::Put(request) => Answer::Put(self.link.put(request).await?),
            Ask::Range(request) => Answer::Range(self.link.range(request).await?),
            Ask::Delete(request) => Answer::Delete(self.link.delete_range(request).await?),
            Ask::Txn(request) => Answer::Txn(self.link.txn(request).await?),
            Ask::HashKv(request) => Answer::HashKv(self.link.hash_kv(request).await?),
            Ask::Compact(request) => Answer::Compact(self.link.compact(request).await?),
            Ask::Stream(request) => Answer::Range(self.stream(request).await?),
        })
    }

    /// Reads a stream to its end and puts its chunks together, as protobuf merges messages.
    async fn stream(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        let mut stream = self.link.range_stream(request).await?;
        let mut merged = pb::RangeResponse::default();
        while let Some(chunk) = stream.message().await? {
            let chunk = chunk.range_response.unwrap_or_default();
            merged.kvs.extend(chunk.kvs);
            if chunk.header.is_some() {
                (merged.header, merged.count, merged.more) = (chunk.header, chunk.count, chunk.more);
            }
        }
        // A stream that ended early has no header; the service would have sent one.
        if merged.header.is_none() {
            return Err(Status::unknown("the stream ended without its last chunk"));
        }
        Ok(merged)
    }
}

/// The same where the member has a quota: who is told that there is no room may have written all the same.
fn failed_under(has_quota: bool, status: &Status) -> Outcome {
    match failed(status) {
        Outcome::Refused(text) if has_quota && text == NO_SPACE => Outcome::Uncertain(text),
        outcome => outcome,
    }
}

fn failed(status: &Status) -> Outcome {
    let text = status.message().to_owned();
    if is_elsewhere(status) {
        return Outcome::Refused(text);
    }
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::NotFound | Code::FailedPrecondition | Code::Unimplemented => {
            Outcome::Rejected(status.code(), text)
        }
        Code::ResourceExhausted => Outcome::Refused(text),
        Code::Unknown if text == "etcdserver: too many requests" => Outcome::Refused(text),
        _ => Outcome::Uncertain(text),
    }
}
