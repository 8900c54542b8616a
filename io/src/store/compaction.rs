//! Compaction: history before a revision is refused at once, and its rows are swept away behind the readers, in bounded steps.
//!
//! Two floors. `compacted` is the rule's: requests below it are refused from the moment the command is applied. `swept` is the store's: rows below it may be gone. Between
//! the two lie the readers that began before the compaction; each holds the *era* it began in, and the sweep waits for the eras before it, though not for ever: a
//! reader that is overtaken finds `swept` above its point. Sweeps run one at a time and in order; each is carried out by [`crate::sweeper`].

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use detcd_core::ids::Revision;
use detcd_core::mvcc::hash::RowKind as HashedKind;
use tokio::sync::oneshot;

use super::Store;
use super::backend::Backend;
use super::buckets::{self, Bucket, RevisionKey};
use super::hash::KeysHash;

/// Sweeps that wait. Beyond it the newest two are made one, which takes no hash. The first one, which may be at work, is left alone.
const SWEEPS_MAX: usize = 64;
/// Hashes of compactions that are remembered, as in etcd.
const HASHES_MAX: usize = 10;

/// The time between two compactions. Who reads holds one.
#[derive(Debug, Default, Eq, PartialEq)]
struct Era;

/// Keeps a compaction that comes later from removing rows, for as long as it may wait.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pin {
    era: Arc<Era>,
}

/// A sweep to be carried out.
#[derive(Debug)]
struct Sweep {
    revision: i64,
    /// The compaction before it, if its hash is wanted.
    hashed_from: Option<i64>,
    readers: Vec<Weak<Era>>,
    waiting: Vec<oneshot::Sender<()>>,
}

/// The next sweep, as its worker sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Due {
    /// The compaction's revision.
    pub revision: i64,
    /// The compaction before it, if a hash is to be taken on the way.
    pub hashed_from: Option<i64>,
}

/// Where compactions stand. Behind the store's lock.
#[derive(Debug)]
pub(super) struct Compactions {
    compacted: i64,
    swept: i64,
    now: Pin,
    queue: VecDeque<Sweep>,
    hashes: VecDeque<KeysHash>,
}

impl Compactions {
    /// As a store tells at start. A sweep that did not end is due again; what it has removed already cannot be hashed any more.
    pub(super) fn restored(scheduled: i64, finished: i64) -> Self {
        let (compacted, mut queue) = (scheduled.max(finished), VecDeque::new());
        if finished < scheduled {
            queue.push_back(Sweep { revision: scheduled, hashed_from: None, readers: Vec::new(), waiting: Vec::new() });
        }
        Self { compacted, swept: compacted, now: Pin::default(), queue, hashes: VecDeque::new() }
    }

    /// The bug: hashes what an earlier sweep has partly removed.
    #[cfg(mutants)]
    pub(super) fn hash_what_is_left(&mut self, finished: i64) {
        if let Some(sweep) = self.queue.front_mut() {
            sweep.hashed_from = Some(finished);
        }
    }

    pub(super) const fn compacted(&self) -> i64 {
        self.compacted
    }

    pub(super) const fn swept(&self) -> i64 {
        self.swept
    }

    pub(super) fn pin(&self) -> Pin {
        self.now.clone()
    }

    /// A compaction at `revision` was applied.
    pub(super) fn on_compacted(&mut self, revision: i64) {
        assert!(self.compacted < revision, "apply lets compactions only go forward");
        let era = std::mem::take(&mut self.now).era;
        let readers = Arc::downgrade(&era);
        let previous = std::mem::replace(&mut self.compacted, revision);
        let is_full = self.queue.len() >= SWEEPS_MAX;
        match self.queue.back_mut() {
            Some(last) if is_full => {
                last.revision = revision;
                last.hashed_from = None;
                last.readers.retain(|era| era.strong_count() > 0);
                last.readers.push(readers);
            }
            _ => self.queue.push_back(Sweep {
                revision,
                hashed_from: Some(previous),
                readers: vec![readers],
                waiting: Vec::new(),
            }),
        }
    }
}

/// The name under which both compaction marks are stored: a revision without changes.
pub(super) fn mark(revision: i64) -> Bytes {
    Bytes::copy_from_slice(RevisionKey::put(Revision::new(revision, 0)).as_slice())
}

impl<B: Backend> Store<B> {
    /// The newest compaction that has begun to remove rows; -1 if there was none.
    #[must_use]
    pub fn swept(&self) -> i64 {
        self.read().compactions.swept()
    }

    /// The hash that a compaction at exactly `revision` took, if it is still remembered. A restart forgets them all.
    #[must_use]
    pub fn compaction_hash(&self, revision: i64) -> Option<KeysHash> {
        self.read().compactions.hashes.iter().find(|hash| hash.revision == revision).copied()
    }

    /// Waits until every compaction that was applied has been carried out.
    pub async fn compactions_done(&self) {
        let ended = {
            let mut state = self.write();
            let Some(last) = state.compactions.queue.back_mut() else { return };
            let (end, ended) = oneshot::channel();
            last.waiting.push(end);
            ended
        };
        // The other end is dropped only with the store.
        let _ = ended.await;
    }

    /// Waits for a compaction to be applied.
    pub(crate) async fn compaction_applied(&self) {
        self.shared.compacted.notified().await;
    }

    /// The sweep to carry out next.
    pub(crate) fn sweep_due(&self) -> Option<Due> {
        let state = self.read();
        state.compactions.queue.front().map(|sweep| Due { revision: sweep.revision, hashed_from: sweep.hashed_from })
    }

    /// Whether anybody still reads who began before the next sweep's compaction.
    pub(crate) fn has_earlier_readers(&self) -> bool {
        let state = self.read();
        let next = state.compactions.queue.front();
        next.is_some_and(|sweep| sweep.readers.iter().any(|era| era.strong_count() > 0))
    }

    /// From here on rows may go.
    pub(crate) fn begin_sweep(&self, revision: i64) {
        let compactions = &mut self.write().compactions;
        let is_next = compactions.queue.front().is_some_and(|sweep| sweep.revision == revision);
        assert!(is_next && compactions.swept <= revision && revision <= compactions.compacted, "sweeps go forward");
        compactions.swept = revision;
    }

    /// Sweeps the index from the key `from` on, for up to `work_max` keys or rows: the rows that nobody can read any more, and where to go on.
    pub(crate) fn sweep(
        &self,
        revision: i64,
        from: Option<&[u8]>,
        work_max: usize,
    ) -> (Vec<RevisionKey>, Option<Bytes>) {
        let swept = self.write().index.compact(revision, from, work_max);
        let dead = swept.dead.into_iter().map(|(at, kind)| match kind {
            HashedKind::Put => RevisionKey::put(at),
            HashedKind::Tombstone => RevisionKey::tombstone(at),
        });
        (dead.collect(), swept.resume)
    }

    /// Lets these rows go with the batch being filled.
    pub(crate) fn remove(&self, dead: &[RevisionKey]) {
        self.write().overlay.open().dead.extend_from_slice(dead);
    }

    /// Notes that the sweep of `revision` is done. The mark is durable with the batch being filled.
    pub(crate) fn end_sweep(&self, revision: i64, hash: Option<KeysHash>) -> Ended {
        let state = &mut *self.write();
        let place = (Bucket::Meta, Bytes::from_static(buckets::FINISHED_COMPACTION));
        state.overlay.open().tables.insert(place, Some(mark(revision)));
        let compactions = &mut state.compactions;
        let sweep = compactions.queue.pop_front().expect("a sweep is under way");
        assert!(sweep.revision == revision, "one sweep at a time");
        if let Some(hash) = hash {
            if compactions.hashes.len() == HASHES_MAX {
                compactions.hashes.pop_front();
            }
            compactions.hashes.push_back(hash);
        }
        Ended { waiting: sweep.waiting }
    }
}

/// Who waits for a sweep that has ended. Told when this is dropped.
#[must_use]
pub(crate) struct Ended {
    waiting: Vec<oneshot::Sender<()>>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        for waiting in self.waiting.drain(..) {
            let _ = waiting.send(());
        }
    }
}
