//! What is counted and timed: plain atomics and histograms over fixed buckets, read by whoever exports them.
//!
//! Invariant: nothing here decides anything, takes a lock or looks anything up. Counts are told apart by a number that the caller has already. Every bound is
//! etcd's; names and labels belong to the exporter.

pub mod ops;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use detcd_core::apply::{Outcome, Write};

use self::ops::{Op, Operations};

/// The upper ends of `N` buckets, each twice the one before; in nanoseconds.
const fn doubling<const N: usize>(first: u64) -> [u64; N] {
    let mut ends = [first; N];
    let mut at = 1;
    while at < N {
        ends[at] = ends[at - 1] * 2;
        at += 1;
    }
    ends
}

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000 * MICRO;

/// 1 ms to 8.192 s: disks and requests.
pub const DISK: &[u64] = &doubling::<14>(MILLI);
/// 0.1 ms to 52.4288 s: apply and ranges.
pub const APPLY: &[u64] = &doubling::<20>(100 * MICRO);
/// 0.1 s to 409.6 s: defragmentation.
pub const DEFRAGMENT: &[u64] = &doubling::<13>(100 * MILLI);
/// 10 ms to 655.36 s: copies for others.
pub const SNAPSHOT: &[u64] = &doubling::<17>(10 * MILLI);
/// 10 ms to 163.84 s: hashes.
pub const HASH: &[u64] = &doubling::<15>(10 * MILLI);
/// 1 ms to 4096 ms: one step of a sweep.
pub const SWEEP_STEP: &[u64] = &doubling::<13>(MILLI);
/// 100 ms to 819200 ms: a whole sweep.
pub const SWEEP: &[u64] = &doubling::<14>(100 * MILLI);
/// 0.5 ms to 4096 ms: what a sweep does in the index.
pub const SWEEP_INDEX: &[u64] = &doubling::<14>(500 * MICRO);
/// 0.1 s to 51.2 s: stores on their way between members.
pub const STORES: &[u64] = &doubling::<10>(100 * MILLI);
/// 0.1 ms to 3.2768 s: answers of members to probes.
pub const ROUND_TRIP: &[u64] = &doubling::<16>(100 * MICRO);
/// An apply that takes longer than this is slow (the default of `--warning-apply-duration`).
const SLOW_APPLY: Duration = Duration::from_millis(100);

/// How long things took.
#[derive(Debug)]
pub struct Histogram {
    ends: &'static [u64],
    /// One for each end, and one for what is above all of them.
    counts: Box<[AtomicU64]>,
    nanos: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reading {
    /// The upper end of each bucket in nanoseconds, and how many were no longer than it.
    pub buckets: Vec<(u64, u64)>,
    /// How many there were.
    pub count: u64,
    /// How long they took together, in nanoseconds.
    pub nanos: u64,
}

impl Histogram {
    /// An empty one; the upper `ends` of its buckets are nanoseconds in rising order.
    #[must_use]
    pub fn new(ends: &'static [u64]) -> Self {
        let counts = (0..=ends.len()).map(|_| AtomicU64::new(0)).collect();
        Self { ends, counts, nanos: AtomicU64::new(0) }
    }

    /// Something took so long.
    pub fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.ends.partition_point(|end| *end < nanos);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What it holds now. Buckets add up even while others are observing.
    #[must_use]
    pub fn read(&self) -> Reading {
        let mut count = 0;
        let mut sums = self.counts.iter().map(|bucket| {
            count += bucket.load(Ordering::Relaxed);
            count
        });
        let buckets = self.ends.iter().copied().zip(sums.by_ref()).collect();
        let count = sums.next().expect("a bucket above all ends");
        Reading { buckets, count, nanos: self.nanos.load(Ordering::Relaxed) }
    }
}

/// How long things took, apart for those that went well and those that did not.
#[derive(Debug)]
pub struct Outcomes {
    /// They went well.
    pub done: Histogram,
    /// They did not.
    pub failed: Histogram,
}

impl Outcomes {
    /// None so far.
    #[must_use]
    pub fn new(ends: &'static [u64]) -> Self {
        Self { done: Histogram::new(ends), failed: Histogram::new(ends) }
    }

    /// Something took so long.
    pub fn observe(&self, well: bool, took: Duration) {
        if well { &self.done } else { &self.failed }.observe(took);
    }
}

/// Adds to a counter.
pub fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// The log's.
#[derive(Debug)]
pub struct LogStats {
    /// Syncs.
    pub sync: Histogram,
    /// Writes, each of one group.
    pub write: Histogram,
    /// Bytes written.
    pub bytes: AtomicU64,
}

impl Default for LogStats {
    fn default() -> Self {
        Self { sync: Histogram::new(DISK), write: Histogram::new(DISK), bytes: AtomicU64::new(0) }
    }
}

/// The committer's.
#[derive(Debug)]
pub struct CommitStats {
    /// Batches made durable.
    pub commit: Histogram,
    /// `.snap` files made durable.
    pub snap: Histogram,
    /// Whole defragmentations.
    pub defragment: Histogram,
    /// One while the store is defragmented.
    pub defragmenting: AtomicU64,
}

impl Default for CommitStats {
    fn default() -> Self {
        Self {
            commit: Histogram::new(DISK),
            snap: Histogram::new(DISK),
            defragment: Histogram::new(DEFRAGMENT),
            defragmenting: AtomicU64::new(0),
        }
    }
}

/// The sweeper's.
#[derive(Debug)]
pub struct SweepStats {
    /// Steps between two pauses.
    pub step: Histogram,
    /// Whole sweeps, pauses included.
    pub sweep: Histogram,
    /// What each sweep did in the index, all of its steps together.
    pub index: Histogram,
    /// Rows removed.
    pub rows: AtomicU64,
    /// When the last sweep ended, in seconds since 1970; zero if none has.
    pub last_seconds: AtomicU64,
}

impl Default for SweepStats {
    fn default() -> Self {
        Self {
            step: Histogram::new(SWEEP_STEP),
            sweep: Histogram::new(SWEEP),
            index: Histogram::new(SWEEP_INDEX),
            rows: AtomicU64::new(0),
            last_seconds: AtomicU64::new(0),
        }
    }
}

/// The store's: what was applied to it and read from it.
#[derive(Debug)]
pub struct StoreStats {
    /// Puts.
    pub puts: AtomicU64,
    /// Range deletes; of a lease that ends, one for each key.
    pub deletes: AtomicU64,
    /// Ranges: asked for, alone or inside transactions, and those for the previous value of a single put or delete.
    pub ranges: AtomicU64,
    /// Commands of more than one of these operations.
    pub txns: AtomicU64,
    /// Bytes of keys and values that were put.
    pub put_bytes: AtomicU64,
    /// Applies that took longer than 100 ms.
    pub slow_applies: AtomicU64,
    /// Applies, from the first slice to the last, by [`Op`].
    pub applies: Box<[Outcomes]>,
    /// Ranges asked for alone.
    pub range: Outcomes,
    /// The sweeper's.
    pub sweeps: SweepStats,
}

impl Default for StoreStats {
    fn default() -> Self {
        let counter = || AtomicU64::new(0);
        Self {
            puts: counter(),
            deletes: counter(),
            ranges: counter(),
            txns: counter(),
            put_bytes: counter(),
            slow_applies: counter(),
            applies: ops::NAMES.iter().map(|_| Outcomes::new(APPLY)).collect(),
            range: Outcomes::new(APPLY),
            sweeps: SweepStats::default(),
        }
    }
}

impl StoreStats {
    /// A command was applied in so long; `before` counts what was read ahead of it.
    pub(crate) fn on_applied(&self, op: Op, before: u64, outcome: &Outcome, took: Duration) {
        let well = matches!(&outcome.reply, Ok(_) | Err(detcd_core::reply::Rejected::Compacted));
        self.applies[op as usize].observe(well, took);
        if took > SLOW_APPLY {
            add(&self.slow_applies, 1);
        }
        let (mut puts, mut tombstones, mut bytes) = (0, 0, 0);
        for write in &outcome.writes {
            match write {
                Write::Row { kv, .. } => {
                    puts += 1;
                    bytes += kv.key.len() + kv.value.len();
                }
                Write::Tombstone { .. } => tombstones += 1,
                _ => {}
            }
        }
        let asked = outcome.reply.as_ref().map_or_else(|_| Operations::default(), Operations::of_reply);
        let deletes = if op == Op::LeaseRevoke { tombstones } else { asked.deletes };
        add(&self.puts, puts);
        add(&self.put_bytes, bytes as u64);
        add(&self.deletes, deletes);
        add(&self.ranges, before);
        // Ranges inside a transaction are counted where they are read.
        if before + puts + deletes + asked.ranges > 1 {
            add(&self.txns, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use detcd_core::ids::Revision;
    use detcd_core::mvcc::KeyValue;
    use detcd_core::reply::{PutReply, Rejected, Reply};

    use super::*;

    #[test]
    fn a_bucket_holds_what_is_no_longer_than_its_end() {
        let histogram = Histogram::new(DISK);
        for micros in [0, 1_000, 1_001, 8_192_000, 8_192_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let read = histogram.read();
        let up_to = |end: u64| read.buckets.iter().find(|bucket| bucket.0 == end * MILLI).expect("an end").1;
        assert_eq!([1, 2, 4_096, 8_192].map(up_to), [2, 3, 3, 4]);
        assert_eq!((read.count, read.nanos), (5, 16_386_002 * MICRO));
    }

    #[test]
    fn the_buckets_are_etcds() {
        let last = |ends: &[u64]| ends.last().copied().expect("ends");
        assert_eq!(last(APPLY), 52_428_800 * MICRO);
        assert_eq!((last(DEFRAGMENT), last(SNAPSHOT), last(HASH)), (409_600 * MILLI, 655_360 * MILLI, 163_840 * MILLI));
        assert_eq!((last(STORES), last(ROUND_TRIP)), (51_200 * MILLI, 3_276_800 * MICRO));
        assert_eq!((last(SWEEP_STEP), last(SWEEP), last(SWEEP_INDEX)), (4_096 * MILLI, 819_200 * MILLI, 4_096 * MILLI));
    }

    fn count(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    #[test]
    fn an_applied_command_counts_its_operations() {
        let stats = StoreStats::default();
        let row = |key: &'static str| Write::Row {
            revision: Revision::new(2, 0),
            kv: KeyValue { key: key.into(), value: "value".into(), ..KeyValue::default() },
        };
        let put = Reply::Put(PutReply { revision: 2, prev: None });
        let outcome = |reply, writes| Outcome { reply, writes, events: Vec::new() };
        let fast = Duration::from_micros(1);
        stats.on_applied(Op::Put, 0, &outcome(Ok(put.clone()), vec![row("k")]), fast);
        // It looked at what it replaced: two operations.
        stats.on_applied(Op::Put, 1, &outcome(Ok(put), vec![row("key")]), SLOW_APPLY + fast);
        let gone = |key: &'static str| Write::Tombstone { revision: Revision::new(3, 0), key: key.into() };
        stats.on_applied(Op::LeaseRevoke, 0, &outcome(Ok(Reply::Empty), vec![gone("k"), gone("key")]), fast);
        stats.on_applied(Op::Compaction, 0, &outcome(Err(Rejected::Compacted), Vec::new()), fast);
        stats.on_applied(Op::LeaseGrant, 0, &outcome(Err(Rejected::LeaseExists), Vec::new()), fast);
        assert_eq!(
            [&stats.puts, &stats.put_bytes, &stats.deletes, &stats.ranges, &stats.txns].map(count),
            [2, 14, 2, 1, 2]
        );
        assert_eq!(count(&stats.slow_applies), 1);
        let seen =
            |op: Op| (stats.applies[op as usize].done.read().count, stats.applies[op as usize].failed.read().count);
        assert_eq!(
            [Op::Put, Op::LeaseRevoke, Op::Compaction, Op::LeaseGrant].map(seen),
            [(2, 0), (1, 0), (1, 0), (0, 1)]
        );
    }
}
