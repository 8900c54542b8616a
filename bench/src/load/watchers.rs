//! Many watchers at once: opened, followed and counted on a thread of their own.
//!
//! Nothing may be missing: after a run, the events that came must be exactly as many as were due.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use detcd_proto::etcdserverpb::watch_request::RequestUnion;
use detcd_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use detcd_proto::mvccpb::Event;
use prost::Message;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::apart::{Apart, Ready};
use super::client::Caller;
use super::report::Latency;
use super::requests::{KEY_PREFIX, KEY_PREFIX_END, WrongReply, key};
use super::run::{LoadError, STALL};
use super::stamp;
use super::stream::{Call, Next};

pub(super) const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// How often it is looked whether all events are there.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// What the watchers watch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Aim {
    /// Each of them all keys.
    AllKeys,
    /// Each of them the key of its number.
    OwnKey,
}

/// Which watchers there are.
#[derive(Clone, Copy, Debug)]
pub struct FleetPlan {
    /// The server's client port.
    pub server: SocketAddr,
    /// TCP connections; the streams are spread over them.
    pub connections: usize,
    /// Watch streams; the watchers are spread over them.
    pub streams: usize,
    /// Watchers.
    pub watchers: usize,
    /// What they watch.
    pub aim: Aim,
}

/// The watchers at work.
#[derive(Debug)]
pub struct Fleet {
    plan: FleetPlan,
    seen: Arc<Seen>,
    thread: Apart,
}

/// What the watchers were told.
#[derive(Debug, Default)]
struct Seen {
    events: AtomicU64,
    is_measured: AtomicBool,
    latency: Mutex<Latency>,
}

impl Fleet {
    /// Opens all watchers and waits until the server has confirmed each.
    pub async fn start(plan: FleetPlan) -> Result<Self, LoadError> {
        assert!(1 <= plan.connections && plan.connections <= plan.streams && plan.streams <= plan.watchers);
        let seen = Arc::new(Seen::default());
        let telling = Arc::clone(&seen);
        let thread = Apart::start(move |ready| watch(plan, telling, ready)).await?;
        Ok(Self { plan, seen, thread })
    }

    /// From now on, or no longer, the time from a put's making to its event is recorded.
    pub fn record(&self, is_measured: bool) {
        self.seen.is_measured.store(is_measured, Ordering::Release);
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.seen.events.load(Ordering::Acquire)
    }

    /// Times from the making of a put to its events, of those recorded.
    pub fn latency(&self) -> Latency {
        self.seen.latency.lock().expect("recording does not panic").clone()
    }

    /// Waits until the watchers were told of so many puts, and ends them.
    pub async fn finish(self, puts: u64) -> Result<(), LoadError> {
        let written = puts * if self.plan.aim == Aim::AllKeys { self.plan.watchers as u64 } else { 1 };
        let (mut told, mut since) = (self.events(), Instant::now());
        while told < written && since.elapsed() < STALL {
            sleep(LOOK_INTERVAL).await;
            if told != self.events() {
                (told, since) = (self.events(), Instant::now());
            }
        }
        let told = self.events();
        self.thread.stop()?;
        if told == written { Ok(()) } else { Err(LoadError::Events { told, written }) }
    }
}

impl Seen {
    fn take(&self, events: &[Event]) {
        if self.is_measured.load(Ordering::Acquire) {
            let mut latency = self.latency.lock().expect("recording does not panic");
            let ages = events.iter().filter_map(|event| stamp::age(&event.kv.as_ref()?.value));
            ages.for_each(|age| latency.record(age));
        }
        self.events.fetch_add(events.len() as u64, Ordering::Release);
    }
}

/// A request for a watcher of the keys from `key` to `end` that starts at a revision (0 means now).
pub(super) fn create(key: Bytes, end: Bytes, start_revision: i64) -> WatchRequest {
    let create = WatchCreateRequest { key, range_end: end, start_revision, ..WatchCreateRequest::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

/// The next answer of a watch stream that is to go on.
pub(super) async fn next(call: &mut Call) -> Result<WatchResponse, LoadError> {
    let message = match call.next().await? {
        Next::Message(message) => message,
        Next::Ended(Some(refusal)) => return Err(LoadError::Ended(refusal.to_string())),
        Next::Ended(None) => return Err(LoadError::Ended("without an error".to_owned())),
    };
    let response = WatchResponse::decode(message).map_err(WrongReply::from)?;
    if response.canceled {
        return Err(LoadError::Ended(format!("a watcher was cancelled: {}", response.cancel_reason)));
    }
    Ok(response)
}

async fn watch(plan: FleetPlan, seen: Arc<Seen>, ready: Ready) -> Result<(), LoadError> {
    let mut callers = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        callers.push(Caller::connect(plan.server).await?);
    }
    let created = Arc::new(Semaphore::new(0));
    let mut streams = JoinSet::new();
    for stream in 0..plan.streams {
        let mut call = callers[stream % plan.connections].open(WATCH).await?;
        for watcher in (stream..plan.watchers).step_by(plan.streams) {
            call.send(&match plan.aim {
                Aim::AllKeys => create(KEY_PREFIX.into(), KEY_PREFIX_END.into(), 0),
                Aim::OwnKey => create(Bytes::copy_from_slice(&key(watcher as u64)), Bytes::new(), 0),
            })?;
        }
        streams.spawn(follow(call, Arc::clone(&created), Arc::clone(&seen)));
    }
    let watchers = u32::try_from(plan.watchers).expect("no machine holds billions of watchers");
    tokio::select! {
        ended = streams.join_next() => return ended.expect("there is a stream")?,
        all = created.acquire_many(watchers) => drop(all.expect("it is never closed")),
    }
    ready.tell();
    while let Some(ended) = streams.join_next().await {
        ended??;
    }
    Ok(())
}

async fn follow(mut call: Call, created: Arc<Semaphore>, seen: Arc<Seen>) -> Result<(), LoadError> {
    loop {
        let response = next(&mut call).await?;
        if response.created {
            created.add_permits(1);
        }
        seen.take(&response.events);
    }
}
