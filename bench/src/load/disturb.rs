//! What may go on beside a load: compaction, defragmentation, a download, clients that do not read, and so on.
//!
//! Each disturbance begins when it is told to. One that ends tells how long it took and is not repeated, apart from ranges: to
//! repeat it would make more of it the faster a server is.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use detcd_proto::etcdserverpb::{
    CompactionRequest, DefragmentRequest, RangeRequest, SnapshotRequest, SnapshotResponse,
};
use prost::encoding::{DecodeContext, decode_key, skip_field};
use prost::{DecodeError, Message};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::apart::{Apart, Ready};
use super::client::{Answer, Caller};
use super::framing::Refusal;
use super::requests::{KEY_PREFIX, KEY_PREFIX_END, WrongReply};
use super::run::LoadError;
use super::stream::Next;
use super::watchers::{WATCH, create, next};

const COMPACT: &str = "/etcdserverpb.KV/Compact";
const RANGE: &str = "/etcdserverpb.KV/Range";
const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
/// The field of a range's response that has a key and its value.
const PAIRS_FIELD: u32 = 2;
/// gRPC's code for a method that is not there.
const UNIMPLEMENTED: u32 = 12;
/// The time between two large ranges.
const RANGE_INTERVAL: Duration = Duration::from_secs(1);

/// A disturbance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Disturbance {
    /// Everything that was superseded by this revision is removed; it ends when the store has done it.
    Compaction {
        /// The revision.
        revision: i64,
    },
    /// The store is defragmented.
    Defragmentation,
    /// The store is downloaded.
    Snapshot,
    /// Watchers of everything that never read, each with a connection of its own.
    StuckWatchers {
        /// How many.
        watchers: usize,
    },
    /// A watcher of everything that starts in the past.
    LateWatcher {
        /// From this revision
        from: i64,
        /// until it has caught up with this one.
        upto: i64,
    },
    /// Many keys are read at once, every second.
    LargeRange {
        /// How many.
        keys: i64,
    },
}

impl Disturbance {
    /// Whether it comes to an end by itself.
    pub fn ends(self) -> bool {
        !matches!(self, Self::StuckWatchers { .. } | Self::LargeRange { .. })
    }
}

/// A disturbance at work, on a thread of its own.
#[derive(Debug)]
pub struct Disturber {
    thread: Apart,
    go: Arc<Notify>,
    took: Arc<Took>,
}

type Took = Mutex<Vec<Duration>>;

impl Disturber {
    /// Prepares the disturbance.
    pub async fn start(server: SocketAddr, disturbance: Disturbance) -> Result<Self, LoadError> {
        let (go, took) = (Arc::new(Notify::new()), Arc::new(Took::default()));
        let (going, taking) = (Arc::clone(&go), Arc::clone(&took));
        let thread = Apart::start(move |ready| disturb(server, disturbance, ready, going, taking)).await?;
        Ok(Self { thread, go, took })
    }

    /// Lets it begin.
    pub fn begin(&self) {
        self.go.notify_one();
    }

    /// Whether it has come to its end, or failed.
    pub fn is_over(&self) -> bool {
        self.thread.has_ended() || !self.took.lock().expect("adding does not panic").is_empty()
    }

    /// Stops it, and tells how long each that came to its end took.
    pub fn stop(self) -> Result<Vec<Duration>, LoadError> {
        self.thread.stop()?;
        let mut took = self.took.lock().expect("adding does not panic");
        Ok(std::mem::take(&mut took))
    }
}

async fn disturb(
    server: SocketAddr,
    disturbance: Disturbance,
    ready: Ready,
    go: Arc<Notify>,
    took: Arc<Took>,
) -> Result<(), LoadError> {
    if let Disturbance::StuckWatchers { watchers } = disturbance {
        let mut stuck = Vec::with_capacity(watchers);
        for _ in 0..watchers {
            let mut caller = Caller::connect_narrow(server).await?;
            let mut call = caller.open(WATCH).await?;
            call.send(&create(KEY_PREFIX.into(), KEY_PREFIX_END.into(), 0))?;
            if !next(&mut call).await?.created {
                return Err(LoadError::Ended("a watcher was not created".to_owned()));
            }
            stuck.push(call);
        }
        ready.tell();
        return std::future::pending().await;
    }
    let mut caller = Caller::connect(server).await?;
    ready.tell();
    go.notified().await;
    let mut due = interval(RANGE_INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if let Disturbance::LargeRange { .. } = disturbance {
            due.tick().await;
        }
        let began = Instant::now();
        once(&mut caller, disturbance).await?;
        took.lock().expect("adding does not panic").push(began.elapsed());
        if disturbance.ends() {
            return std::future::pending().await;
        }
    }
}

async fn once(caller: &mut Caller, disturbance: Disturbance) -> Result<(), LoadError> {
    match disturbance {
        Disturbance::Compaction { revision } => {
            expect(caller.ask(COMPACT, &CompactionRequest { revision, physical: true }).await?).map(drop)
        }
        Disturbance::Defragmentation => expect(caller.ask(DEFRAGMENT, &DefragmentRequest {}).await?).map(drop),
        Disturbance::Snapshot => download(caller).await,
        Disturbance::LateWatcher { from, upto } => {
            let mut call = caller.open(WATCH).await?;
            call.send(&create(KEY_PREFIX.into(), KEY_PREFIX_END.into(), from))?;
            loop {
                let events = next(&mut call).await?.events;
                let last = events.last().and_then(|event| event.kv.as_ref()).map_or(0, |pair| pair.mod_revision);
                if upto <= last {
                    return Ok(());
                }
            }
        }
        Disturbance::LargeRange { keys } => {
            let (key, range_end) = (KEY_PREFIX.into(), KEY_PREFIX_END.into());
            let request = RangeRequest { key, range_end, limit: keys, ..RangeRequest::default() };
            let message = expect(caller.ask(RANGE, &request).await?)?;
            let found = count_pairs(message).map_err(WrongReply::from)?;
            if found as i64 == keys { Ok(()) } else { Err(WrongReply::NotFound { found, value_bytes: 0 }.into()) }
        }
        Disturbance::StuckWatchers { .. } => unreachable!("they do nothing, which was begun before"),
    }
}

/// How many keys and values a range's response has. They are not looked into: that would take the processors that the server is measured on for longer than the server takes them.
fn count_pairs(mut message: Bytes) -> Result<usize, DecodeError> {
    let mut pairs = 0;
    while !message.is_empty() {
        let (field, wire) = decode_key(&mut message)?;
        skip_field(wire, field, &mut message, DecodeContext::default())?;
        pairs += usize::from(field == PAIRS_FIELD);
    }
    Ok(pairs)
}

async fn download(caller: &mut Caller) -> Result<(), LoadError> {
    let mut call = caller.open(SNAPSHOT).await?;
    call.send(&SnapshotRequest {})?;
    call.close()?;
    let (mut bytes, mut remaining) = (0, 0);
    loop {
        match call.next().await? {
            Next::Message(message) => {
                let piece = SnapshotResponse::decode(message).map_err(WrongReply::from)?;
                bytes += piece.blob.len() as u64;
                remaining = piece.remaining_bytes;
            }
            Next::Ended(Some(refusal)) => return Err(refused(refusal)),
            Next::Ended(None) if 0 < bytes && remaining == 0 => return Ok(()),
            Next::Ended(None) => {
                return Err(LoadError::Ended(format!("a snapshot after {bytes} bytes, {remaining} before its end")));
            }
        }
    }
}

fn expect(answer: Answer) -> Result<Bytes, LoadError> {
    match answer {
        Answer::Message(message) => Ok(message),
        Answer::Refused(refusal) => Err(refused(refusal)),
    }
}

fn refused(refusal: Refusal) -> LoadError {
    match refusal.code {
        UNIMPLEMENTED => LoadError::NotServed(refusal),
        _ => LoadError::Refused { count: 1, refusal },
    }
}

#[cfg(test)]
mod tests {
    use detcd_proto::etcdserverpb::{RangeResponse, ResponseHeader};
    use detcd_proto::mvccpb::KeyValue;

    use super::*;

    #[test]
    fn pairs_are_counted_and_nothing_else() {
        let header = Some(ResponseHeader { revision: 7, ..ResponseHeader::default() });
        let response = RangeResponse { header, kvs: vec![KeyValue::default(); 3], more: true, count: 9 };
        let message = Bytes::from(response.encode_to_vec());
        assert_eq!(count_pairs(message.clone()), Ok(3));
        assert!(count_pairs(message.slice(..message.len() - 1)).is_err());
    }
}
