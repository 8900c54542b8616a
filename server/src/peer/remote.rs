//! One other member: where it is, what waits for it, and the tasks that keep up the connections.
//!
//! A message takes the first way that is open: the stream of appends, the other stream, a post. Of a member that is not known yet, only posts are to be had.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use detcd_core::ids::MemberId;
use detcd_core::raft::Message;
use detcd_io::boot::url::Url;
use detcd_io::clock::Instant;
use detcd_io::peer::Incoming;
use detcd_io::peer::bounds;
use detcd_io::peer::outbox::Outbox;
use detcd_io::peer::stream::Kind;
use detcd_io::stats::add;
use tokio::sync::{Notify, Semaphore, watch};

use super::counts::Talk;
use super::link::{self, Link, Spoken};
use super::{Shared, dial, post, probe};

/// The member.
#[derive(Debug)]
pub(super) struct Remote {
    id: MemberId,
    pub(super) shared: Arc<Shared>,
    urls: Mutex<Urls>,
    appends: Link,
    messages: Link,
    pub(super) posts: Outbox,
    /// Held while a snapshot is sent.
    pub(super) snapshot: Arc<Semaphore>,
    lost: AtomicBool,
    has_lost: Notify,
    heard: Mutex<Heard>,
    /// What is counted.
    pub(super) talk: Arc<Talk>,
    stop: watch::Sender<bool>,
}

/// Where a member is tried, in turn.
#[derive(Debug)]
struct Urls {
    urls: Vec<Url>,
    picked: usize,
}

/// Streams of the member that are open, and since when there has been one.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    open: usize,
    since: Option<Instant>,
}

/// An open stream of the member's; dropped, it is closed.
pub(super) struct Hearing<'a>(&'a Remote);

impl Drop for Hearing<'_> {
    fn drop(&mut self) {
        let mut heard = self.0.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.open -= 1;
        if heard.open == 0 {
            heard.since = None;
            self.0.talk.on_active(false);
        }
    }
}

impl Remote {
    /// A member that is talked to from now on; a stranger gets posts only.
    pub(super) fn start(id: MemberId, urls: &[String], shared: &Arc<Shared>, is_stranger: bool) -> Arc<Self> {
        let remote = Arc::new(Self {
            id,
            shared: Arc::clone(shared),
            urls: Mutex::new(Urls { urls: parse(urls), picked: 0 }),
            appends: Link::new(Kind::Appends),
            messages: Link::new(Kind::Messages),
            posts: Outbox::new(bounds::PIPELINE_MESSAGES_MAX, bounds::STREAM_BYTES_MAX),
            snapshot: Arc::new(Semaphore::new(1)),
            lost: AtomicBool::new(false),
            has_lost: Notify::new(),
            heard: Mutex::default(),
            talk: if is_stranger { Arc::default() } else { shared.counts.of(id) },
            stop: watch::Sender::new(false),
        });
        if !is_stranger {
            for kind in Kind::ALL {
                tokio::spawn(dial::hear(Arc::clone(&remote), kind, remote.stop.subscribe()));
            }
            tokio::spawn(probe::probe(Arc::clone(&remote), remote.stop.subscribe()));
        }
        for _ in 0..bounds::PIPELINE_WORKERS {
            tokio::spawn(post::work(Arc::clone(&remote), remote.stop.subscribe()));
        }
        tokio::spawn(report(Arc::clone(&remote), remote.stop.subscribe()));
        remote
    }

    pub(super) const fn id(&self) -> MemberId {
        self.id
    }

    /// This member.
    pub(super) fn local(&self) -> MemberId {
        self.shared.directory.member()
    }

    pub(super) const fn link(&self, kind: Kind) -> &Link {
        match kind {
            Kind::Appends => &self.appends,
            Kind::Messages => &self.messages,
        }
    }

    /// Ends its connections after a last flush.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Tells when it is to end.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// It is found elsewhere from now on.
    pub(super) fn move_to(&self, urls: &[String]) {
        let parsed = parse(urls);
        let mut present = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
        if present.urls != parsed {
            *present = Urls { urls: parsed, picked: 0 };
        }
    }

    /// Where to try it now.
    pub(super) fn url(&self) -> Option<Url> {
        let urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
        urls.urls.get(urls.picked).cloned()
    }

    /// It was not there: next time it is tried elsewhere.
    pub(super) fn was_not_at(&self, url: &Url) {
        let mut urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
        if urls.urls.get(urls.picked) == Some(url) {
            urls.picked = (urls.picked + 1) % urls.urls.len();
        }
    }

    /// Sends a message the first way that is open.
    pub(super) fn send(&self, message: Message) {
        let pushed = if self.appends.is_open() && matches!(message, Message::Append { .. }) {
            self.appends.push(message)
        } else if self.messages.is_open() {
            self.messages.push(message)
        } else {
            self.posts.push(message)
        };
        if pushed.is_err() {
            self.report_lost();
        }
    }

    /// Takes the connection on which the member wants to hear a stream.
    pub(super) fn speak(self: &Arc<Self>, kind: Kind) -> Spoken {
        let (opened, spoken) = self.link(kind).open();
        tracing::info!(remote = %self.id, stream = kind.path(), "a stream to a member is open");
        tokio::spawn(link::write(Arc::clone(self), kind, opened, self.stop.subscribe()));
        spoken
    }

    /// The engine is to learn that something did not reach the member.
    pub(super) fn report_lost(&self) {
        add(&self.talk.sent_failures, 1);
        if !self.lost.swap(true, Ordering::AcqRel) {
            self.has_lost.notify_one();
        }
    }

    /// A stream of the member's is open.
    pub(super) fn heard(&self) -> Hearing<'_> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.open += 1;
        if heard.open == 1 {
            self.talk.on_active(true);
        }
        heard.since.get_or_insert_with(Instant::now);
        Hearing(self)
    }

    pub(super) fn active_since(&self) -> Option<Instant> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).since
    }
}

/// Tells the engine of losses, however many, once it has room.
async fn report(remote: Arc<Remote>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = remote.has_lost.notified() => {}
        }
        remote.lost.store(false, Ordering::Release);
        if remote.shared.inbox.deliver(Incoming::Unreachable { member: remote.id }).await.is_err() {
            return;
        }
    }
}

fn parse(urls: &[String]) -> Vec<Url> {
    let parsed = urls.iter().filter_map(|text| {
        let url = Url::parse(text);
        url.inspect_err(|error| tracing::warn!(%error, "a member's URL cannot be used")).ok()
    });
    parsed.collect()
}
