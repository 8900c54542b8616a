//! The sweeper: removes the rows that a compaction has left behind, without getting into anybody's way.
//!
//! One sweep at a time, in steps: of keys that are looked at, with others' turns between, and of rows that are removed, with a pause after each. Neither the applier nor a client waits for it. On its way it takes the hash
//! that etcd's compactions take, which members compare. A crash in between loses nothing: the decision is in the store, and the next start sweeps again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::clock::{Instant, wall_millis};
use crate::driver::ask::{Asker, Unanswered};
use crate::fault::Fault;
use crate::mutants::mutated;
use crate::stats::add;
use crate::store::Store;
use crate::store::backend::Backend;
use crate::store::buckets::RevisionKey;
use crate::store::compaction::Due;
use crate::store::hash::{HashKeys, Hashed, KeysHash};

/// How long a sweep waits for readers that began before its compaction. Who reads on is told that the revision is compacted.
const READERS_PATIENCE: Duration = Duration::from_secs(5);
/// The pause between two looks at those readers.
const READERS_PAUSE: Duration = Duration::from_millis(10);
/// Keys looked at, or rows found, per step: the index is locked that long, and for one key to its end.
const WORK_PER_STEP: usize = 500;
/// So many steps' worth of rows are taken out of the index at once and put in order. The rows of a key that is written often lie all over the store, and each step would change as many
/// pages as it has rows, over and over.
const STEPS_AT_ONCE: usize = 256;
/// But no more rows than these, however many a step has; the history of the last key comes on top.
const ROWS_AT_ONCE_MAX: usize = 256_000;

/// How fast a sweep goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pace {
    /// Rows hashed or removed between two pauses (`--compaction-batch-limit`).
    pub rows: usize,
    /// The pause (`--compaction-sleep-interval`).
    pub pause: Duration,
}

/// The task that sweeps.
pub struct Sweeper<B> {
    store: Store<B>,
    asker: Asker,
    pace: Pace,
    faults: mpsc::Sender<Fault>,
    /// The known bug that it carries, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    pub mutant: Option<crate::mutants::Mutant>,
}

/// Why a sweep did not come to its end.
enum Ended {
    /// The member is stopping.
    Stopped,
    /// The machine failed.
    Faulted(Fault),
}

impl From<Unanswered> for Ended {
    fn from(_: Unanswered) -> Self {
        Self::Stopped
    }
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Faulted(fault)
    }
}

impl<B: Backend> Sweeper<B> {
    /// A sweeper over `store`, whose driver is asked to make its work durable. A failure of the machine goes to `faults`.
    #[must_use]
    pub fn new(store: Store<B>, asker: Asker, pace: Pace, faults: mpsc::Sender<Fault>) -> Self {
        assert!(0 < pace.rows, "a step without budget would never end");
        Self {
            store,
            asker,
            pace,
            faults,
            #[cfg(mutants)]
            mutant: None,
        }
    }

    /// Works until the driver is gone, or the machine fails.
    pub async fn run(self) {
        loop {
            while let Some(due) = self.store.sweep_due() {
                match self.sweep(due).await {
                    Ok(()) => {}
                    Err(Ended::Stopped) => return,
                    Err(Ended::Faulted(fault)) => {
                        // If the queue is full, another fault is already on its way.
                        let _ = self.faults.try_send(fault);
                        return;
                    }
                }
            }
            tokio::select! {
                biased;
                () = self.asker.stopped() => return,
                () = self.store.compaction_applied() => {}
            }
        }
    }

    async fn sweep(&self, due: Due) -> Result<(), Ended> {
        let began = Instant::now();
        while self.store.has_earlier_readers() && Instant::now() < began + READERS_PATIENCE {
            tokio::time::sleep(READERS_PAUSE).await;
        }
        let hash = match due.hashed_from {
            Some(previous) => Some(self.hash(due.revision, previous).await?),
            None => None,
        };
        let revision = due.revision;
        self.store.begin_sweep(revision);
        let (mut from, mut is_done, mut rows) = (None::<Bytes>, false, 0);
        let stats = &self.store.stats().sweeps;
        let mut in_index = Duration::ZERO;
        while !is_done {
            let mut dead = Vec::new();
            (from, is_done) = self.gather(revision, from, &mut dead, &mut in_index).await;
            // In the order in which they lie in the store: what is next to each other goes together.
            dead.sort_unstable();
            rows += dead.len();
            for part in dead.chunks(if mutated!(self, SweepUnbounded) { usize::MAX } else { self.pace.rows }) {
                let step = Instant::now();
                self.store.remove(part);
                self.asker.flush().await?;
                stats.step.observe(step.elapsed());
                tokio::time::sleep(self.pace.pause).await;
            }
        }
        let step = Instant::now();
        let ended = self.store.end_sweep(revision, hash);
        self.asker.flush().await?;
        drop(ended);
        stats.step.observe(step.elapsed());
        stats.index.observe(in_index);
        stats.sweep.observe(began.elapsed());
        add(&stats.rows, rows as u64);
        stats.last_seconds.store(wall_millis() / 1000, Ordering::Relaxed);
        tracing::info!(
            revision,
            rows,
            took = ?(Instant::now() - began),
            hash = hash.map(|hash| hash.hash),
            "finished scheduled compaction"
        );
        Ok(())
    }

    /// Takes dead rows out of the index, from the key `from` on, until there are enough of them for a while. Says where to go on, and whether that is all.
    async fn gather(
        &self,
        revision: i64,
        mut from: Option<Bytes>,
        dead: &mut Vec<RevisionKey>,
        in_index: &mut Duration,
    ) -> (Option<Bytes>, bool) {
        let floor = if mutated!(self, SweepOneTooFar) { revision + 1 } else { revision };
        let most = self.pace.rows.saturating_mul(STEPS_AT_ONCE).min(ROWS_AT_ONCE_MAX);
        loop {
            // Who asks for small steps gets them.
            let work = WORK_PER_STEP.min(self.pace.rows);
            let visit = Instant::now();
            let (more, resume) = self.store.sweep(floor, from.as_deref(), work);
            *in_index += visit.elapsed();
            dead.extend(more);
            if resume.is_none() || most <= dead.len() {
                let is_done = resume.is_none();
                return (resume, is_done);
            }
            from = resume;
            tokio::task::yield_now().await;
        }
    }

    async fn hash(&self, revision: i64, previous: i64) -> Result<KeysHash, Fault> {
        let mut hashing = HashKeys::of_compaction(&self.store, revision, previous)?;
        loop {
            match hashing.advance(self.pace.rows)? {
                Hashed::Done(hash) => return Ok(hash),
                Hashed::Overtaken => unreachable!("nobody else sweeps"),
                Hashed::More => tokio::time::sleep(self.pace.pause).await,
            }
        }
    }
}
