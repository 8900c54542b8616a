//! Leases in the store: the replicated table beside the index, and the leader's keeper behind a lock of its own.
//!
//! Apply tells the keeper of every lease while it holds the store's lock, so the two never disagree; whoever renews takes the keeper's
//! lock alone, for one look into a map, and so needs no queue, no wake and no turn of the driver. Invariant: the store's lock is
//! taken before the keeper's, never after it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use detcd_core::apply::Write;
use detcd_core::ids::{LeaseId, Term};
use detcd_core::lease::{Keeper, LeaseRow, LeaseTable, Pace, Renewal};
use detcd_proto::leasepb;
use prost::Message as _;
use tokio::sync::Notify;

use super::Store;
use super::backend::Backend;
use crate::clock::Instant;

/// How a member treats leases.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRules {
    /// The least time to live, in seconds.
    pub ttl_min: i64,
    /// How often the keeper looks at its leases.
    pub tick: Duration,
    /// The keeper's durations.
    pub pace: Pace,
}

/// How often the time left of a long lease is remembered (etcd's interval), in milliseconds.
const CHECKPOINT_INTERVAL: u64 = 300_000;
/// The keeper looks at its leases at least so often (etcd's interval), in milliseconds.
const TICK_MAX: u64 = 500;
/// Leases revoked in a second at most (etcd's rate).
const REVOKES_PER_SECOND: u64 = 1000;
/// Checkpoints in one entry at most (etcd's bound).
const CHECKPOINTS_MAX: usize = 1000;
/// How long a request may take, two election timeouts apart, in milliseconds.
const REQUEST_MILLIS: u64 = 5_000;
/// How long a revocation that may be in the log, or a checkpoint, waits to be asked for again (etcd's interval), in milliseconds.
const RETRY: u64 = 3_000;

impl LeaseRules {
    /// etcd's rules for a member with this heartbeat interval and so many of them in an election timeout.
    #[must_use]
    pub fn new(heartbeat: Duration, election_ticks: u64) -> Self {
        let heartbeat = u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX).max(1);
        let ttl_min = (3 * election_ticks / 2).saturating_mul(heartbeat).div_ceil(1000);
        let tick = heartbeat.min(TICK_MAX);
        let extension = election_ticks.saturating_mul(heartbeat);
        let revokes_max = (REVOKES_PER_SECOND * tick / 1000).max(1);
        let pace = Pace {
            extension,
            gap: tick.saturating_add(heartbeat),
            grace: heartbeat,
            hold: REQUEST_MILLIS.saturating_add(extension.saturating_mul(2)),
            checkpoint_interval: CHECKPOINT_INTERVAL,
            retry: RETRY,
            revokes_max: usize::try_from(revokes_max).unwrap_or(usize::MAX),
            checkpoints_max: CHECKPOINTS_MAX,
            #[cfg(mutants)]
            mutant: None,
        };
        Self { ttl_min: i64::try_from(ttl_min).unwrap_or(i64::MAX), tick: Duration::from_millis(tick), pace }
    }
}

/// The upper ends of the buckets of granted times to live are the powers of two up to this exponent.
pub const TTL_BUCKETS: usize = 24;

/// Counters of leases on this member, since start.
#[derive(Debug, Default)]
pub struct LeaseCounts {
    /// Leases granted by apply.
    pub granted: AtomicU64,
    /// Leases revoked by apply.
    pub revoked: AtomicU64,
    /// Renewals confirmed as the leader.
    pub renewed: AtomicU64,
    /// Leases that this member, as the leader, revoked because they were over.
    pub expired: AtomicU64,
    /// Granted times to live up to 1, 2, 4, … seconds, each grant in the first bucket that holds it; longer ones in none.
    pub ttl_buckets: [AtomicU64; TTL_BUCKETS],
    /// The sum of granted times to live.
    pub ttl_seconds: AtomicU64,
}

impl LeaseCounts {
    fn on_granted(&self, ttl: i64) {
        self.granted.fetch_add(1, Ordering::Relaxed);
        let ttl = u64::try_from(ttl).unwrap_or(0);
        self.ttl_seconds.fetch_add(ttl, Ordering::Relaxed);
        if let Some(bucket) = self.ttl_buckets.iter().enumerate().find(|(exponent, _)| ttl <= 1 << exponent) {
            bucket.1.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The member's keeper and what it needs.
#[derive(Debug)]
pub(super) struct Keeping {
    pub(super) rules: LeaseRules,
    keeper: Mutex<Keeper>,
    counts: LeaseCounts,
    /// Told of every grant.
    granted: Notify,
    /// The keeper's clock counts from here.
    epoch: Instant,
}

impl Keeping {
    pub(super) fn new(rules: LeaseRules) -> Self {
        let keeper = Mutex::new(Keeper::new(rules.pace));
        Self { rules, keeper, counts: LeaseCounts::default(), granted: Notify::new(), epoch: Instant::now() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().expect("a panic ends the process")
    }

    /// Apply wrote something: `table`, whose lock is held, and the keeper follow.
    pub(super) fn on_write(&self, table: &mut LeaseTable, write: &Write) {
        match write {
            Write::Lease(row) => {
                if table.get(row.id).is_none() {
                    self.counts.on_granted(row.ttl);
                }
                let mut keeper = self.keeper();
                keeper.on_lease(*row, self.now());
                self.granted.notify_one();
            }
            Write::LeaseRemoved(id) => {
                self.counts.revoked.fetch_add(1, Ordering::Relaxed);
                self.keeper().on_removed(*id);
            }
            #[cfg(mutants)]
            Write::Row { kv, .. } if self.mutates(kv.lease) => return,
            _ => {}
        }
        table.on_write(write);
    }

    #[cfg(mutants)]
    fn mutates(&self, lease: LeaseId) -> bool {
        self.rules.pace.mutant == Some(detcd_core::lease::Mutant::AttachmentKept) && lease == LeaseId(0)
    }
}

impl<B: Backend> Store<B> {
    /// How leases are treated.
    #[must_use]
    pub fn lease_rules(&self) -> &LeaseRules {
        &self.shared.keeping.rules
    }

    /// Counters of leases.
    #[must_use]
    pub fn lease_counts(&self) -> &LeaseCounts {
        &self.shared.keeping.counts
    }

    /// A lease that exists.
    #[must_use]
    pub fn lease(&self, id: LeaseId) -> Option<LeaseRow> {
        self.read().leases.get(id)
    }

    /// The next keys of a lease after `after`, in key order, at most so many.
    #[must_use]
    pub fn lease_keys(&self, id: LeaseId, after: Option<&[u8]>, max: usize) -> Vec<Bytes> {
        self.read().leases.keys(id, after, max)
    }

    /// All leases: the one that ends first in front where this member leads, by their ids elsewhere.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseId> {
        let by_deadline = self.shared.keeping.keeper().by_deadline();
        by_deadline.unwrap_or_else(|| self.read().leases.rows().map(|row| row.id).collect())
    }

    /// What a lease that exists has left, in milliseconds; `None` also where this member does not keep leases.
    #[must_use]
    pub fn lease_left(&self, id: LeaseId) -> Option<u64> {
        let keeping = &self.shared.keeping;
        let keeper = keeping.keeper();
        keeper.remaining(id, keeping.now())
    }

    /// Whether this member keeps the leases, as their leader.
    #[must_use]
    pub fn keeps_leases(&self) -> bool {
        self.shared.keeping.keeper().leading().is_some()
    }

    /// Renews a lease, if it may be: see [`Renewal`].
    #[must_use]
    pub fn renew_lease(&self, id: LeaseId) -> Renewal {
        let keeping = &self.shared.keeping;
        let mut keeper = keeping.keeper();
        let renewal = keeper.renew(id, keeping.now());
        drop(keeper);
        if matches!(renewal, Renewal::Renewed { .. }) {
            keeping.counts.renewed.fetch_add(1, Ordering::Relaxed);
        }
        renewal
    }

    /// The keeper's time: when a proof of leadership is asked for, it counts from here.
    #[must_use]
    pub fn lease_time(&self) -> u64 {
        self.shared.keeping.now()
    }

    /// Leadership in `term` was proved by a question asked at `asked`.
    pub fn on_leadership_proved(&self, term: Term, asked: u64) {
        let state = self.read();
        let keeping = &self.shared.keeping;
        let mut keeper = keeping.keeper();
        if keeper.on_proof(term, asked) {
            keeper.promote(term, asked, keeping.now(), state.leases.rows());
        }
    }

    /// Waits until a lease is granted, or was since somebody waited last. One may wait.
    pub(crate) async fn lease_granted(&self) {
        self.shared.keeping.granted.notified().await;
    }

    /// Does something with the keeper and its time, under its lock. Nothing of the store may be touched meanwhile.
    pub(crate) fn with_keeper<T>(&self, act: impl FnOnce(&mut Keeper, u64) -> T) -> T {
        let keeping = &self.shared.keeping;
        let mut keeper = keeping.keeper();
        act(&mut keeper, keeping.now())
    }
}

/// The key of a lease's row.
#[must_use]
pub fn lease_key(id: LeaseId) -> Bytes {
    Bytes::copy_from_slice(&id.0.to_be_bytes())
}

/// The value of a lease's row, `leasepb.Lease`.
#[must_use]
pub fn encode_lease(row: &LeaseRow) -> Bytes {
    leasepb::Lease { id: row.id.0, ttl: row.ttl, remaining_ttl: row.remaining }.encode_to_vec().into()
}

/// Reads a lease's row.
///
/// # Errors
/// These are no such bytes; the text says why.
pub fn decode_lease(key: &[u8], value: &[u8]) -> Result<LeaseRow, String> {
    let lease = leasepb::Lease::decode(value).map_err(|error| error.to_string())?;
    let row = LeaseRow { id: LeaseId(lease.id), ttl: lease.ttl, remaining: lease.remaining_ttl };
    if lease_key(row.id) == key { Ok(row) } else { Err("the row is about another lease".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_etcds() {
        let facts = |heartbeat, ticks| {
            let LeaseRules { ttl_min, tick, pace } = LeaseRules::new(Duration::from_millis(heartbeat), ticks);
            (ttl_min, tick.as_millis(), pace.extension, pace.revokes_max)
        };
        assert_eq!(facts(100, 10), (2, 100, 1_000, 100));
        assert_eq!(facts(1_000, 5), (7, 500, 5_000, 500));
        assert_eq!(facts(100, 6), (1, 100, 600, 100));
    }

    #[test]
    fn each_grant_counts_in_its_bucket() {
        let counts = LeaseCounts::default();
        for ttl in [1, 2, 3, 8_388_608, 8_388_609] {
            counts.on_granted(ttl);
        }
        let buckets = counts.ttl_buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        assert_eq!((&buckets[..3], buckets[TTL_BUCKETS - 1], buckets.iter().sum()), (&[1, 1, 1][..], 1, 4));
        assert_eq!(counts.granted.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn rows_are_etcds() {
        let row = LeaseRow { id: LeaseId(-2), ttl: 60, remaining: 7 };
        let bytes = encode_lease(&row);
        assert_eq!(bytes.as_ref(), b"\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\x3c\x18\x07");
        assert_eq!(lease_key(row.id).as_ref(), b"\xff\xff\xff\xff\xff\xff\xff\xfe");
        assert_eq!(decode_lease(&lease_key(row.id), &bytes), Ok(row));
        assert_eq!(decode_lease(&lease_key(LeaseId(1)), &bytes), Err("the row is about another lease".to_owned()));
        assert!(decode_lease(&lease_key(row.id), b"\xff").is_err());
    }
}
