//! What is counted of the talk with each other member, for those who watch.
//!
//! Counts outlive connections and memberships: they only ever grow. Only members are told apart; what strangers say is theirs. Nothing here decides anything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use detcd_core::ids::MemberId;
use detcd_io::stats::{DISK, Histogram, ROUND_TRIP, STORES, add};

/// Bytes of a sign of life on a stream, as etcd counts it.
const HEARTBEAT_BYTES: u64 = 2;

/// All of them.
#[derive(Debug)]
pub(crate) struct Counts {
    members: Mutex<BTreeMap<MemberId, Arc<Talk>>>,
    /// Bytes of signs of life on streams, whoever gave them.
    heartbeats: AtomicU64,
    /// Received stores, from the first byte to the last sync.
    pub(crate) stored: Histogram,
    /// The last sync alone.
    pub(crate) synced: Histogram,
}

/// The talk with one member.
#[derive(Debug)]
pub(crate) struct Talk {
    /// Bytes that left.
    pub(crate) sent_bytes: AtomicU64,
    /// Times that something did not leave.
    pub(crate) sent_failures: AtomicU64,
    /// Bytes that arrived.
    pub(crate) received_bytes: AtomicU64,
    /// Times that what arrived was broken.
    pub(crate) received_failures: AtomicU64,
    /// Times that the member became active, and that it ceased to be.
    activated: AtomicU64,
    deactivated: AtomicU64,
    /// Answers to probes.
    pub(crate) round_trips: Histogram,
    /// Stores on their way to the member.
    pub(crate) shipped: Copies,
    /// Stores on their way from it.
    pub(crate) received: Copies,
}

/// Stores on their way.
#[derive(Debug)]
pub(crate) struct Copies {
    begun: AtomicU64,
    failed: AtomicU64,
    /// Those that came to the end.
    pub(crate) done: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        let (stored, synced) = (Histogram::new(STORES), Histogram::new(DISK));
        Self { members: Mutex::default(), heartbeats: AtomicU64::new(0), stored, synced }
    }
}

impl Counts {
    /// The talk with this member, which is one of the cluster.
    pub(crate) fn of(&self, member: MemberId) -> Arc<Talk> {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(members.entry(member).or_default())
    }

    /// Everybody with whom there was a talk.
    pub(crate) fn all(&self) -> Vec<(MemberId, Arc<Talk>)> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.iter().map(|(member, talk)| (*member, Arc::clone(talk))).collect()
    }

    /// A sign of life arrived.
    pub(crate) fn on_heartbeat(&self) {
        add(&self.heartbeats, HEARTBEAT_BYTES);
    }

    pub(crate) fn heartbeat_bytes(&self) -> u64 {
        self.heartbeats.load(Ordering::Relaxed)
    }
}

impl Default for Talk {
    fn default() -> Self {
        let counter = || AtomicU64::new(0);
        Self {
            sent_bytes: counter(),
            sent_failures: counter(),
            received_bytes: counter(),
            received_failures: counter(),
            activated: counter(),
            deactivated: counter(),
            round_trips: Histogram::new(ROUND_TRIP),
            shipped: Copies::default(),
            received: Copies::default(),
        }
    }
}

impl Default for Copies {
    fn default() -> Self {
        Self { begun: AtomicU64::new(0), failed: AtomicU64::new(0), done: Histogram::new(STORES) }
    }
}

impl Talk {
    /// The first stream of the member is open, or the last one ended.
    pub(crate) fn on_active(&self, is_active: bool) {
        add(if is_active { &self.activated } else { &self.deactivated }, 1);
    }

    /// Whether it was ever active, whether it is now, and how often it ceased to be.
    pub(crate) fn activity(&self) -> (bool, bool, u64) {
        let ceased = self.deactivated.load(Ordering::Relaxed);
        let activated = self.activated.load(Ordering::Relaxed);
        (0 < activated, ceased < activated, ceased)
    }
}

impl Copies {
    /// One sets out.
    pub(crate) fn begin(&self) {
        add(&self.begun, 1);
    }

    /// It got lost.
    pub(crate) fn fail(&self) {
        add(&self.failed, 1);
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// How many set out, how many are on their way, and how many arrived.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let (failed, done) = (self.failures(), self.done.read().count);
        let begun = self.begun.load(Ordering::Relaxed);
        (begun, begun.saturating_sub(failed + done), done)
    }
}
