//! The driver's half of durability: what is on its way to the log, what to the store, and when.
//!
//! The order that a crash cannot break: an entry is durable in the log before it is applied (the engine sees to it), so no batch ever holds more than the log; a log
//! snapshot mark is written only when the store is durable at its index; and only then are log files released.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use detcd_core::ids::Index;
use detcd_core::membership::{Membership, Version};
use detcd_core::raft::{Configuration, Mark, Raft, Sync, Write};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use super::ask::Ask;
use super::{Lines, Settings, bounds};
use crate::applier::Budget;
use crate::clock::Instant;
use crate::committer::{Completion, Job};
use crate::fault::Fault;
use crate::mutants::mutated;
use crate::snap::{self, Snapshot};
use crate::store::Store;
use crate::store::backend::Backend;
use crate::store::batch::Applied;
use crate::store::overlay::OverlayMax;
use crate::wal::{self, Marked, Room};

/// The pause between two looks for room on a full disk.
const ROOM_PAUSE: Duration = Duration::from_millis(500);

/// How long an orderly end waits for the last commit.
const FINISH_PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Durable<B> {
    pub(super) store: Store<B>,
    pub(super) lines: Lines,
    /// Writes that the log writer has not taken yet.
    pub(super) outgoing: wal::Batch,
    /// The request that ended a wait.
    pub(super) first_ask: Option<Ask>,
    /// The newest entry that the engine was allowed to forget.
    pub(super) trimmed: Index,
    settings: Settings,
    /// When the batch being filled is committed at the latest.
    due: Option<Instant>,
    log_room: Room,
    /// When to ask the log writer for room again, while there is none.
    room_due: Option<Instant>,
    store_full: bool,
    flushes: Flushes,
    marking: Marking,
}

/// Who waits until what is applied is durable in the store.
#[derive(Debug, Default)]
struct Flushes {
    /// For the batch being filled.
    open: Vec<oneshot::Sender<()>>,
    /// For the batch that is being committed.
    sealed: Vec<oneshot::Sender<()>>,
}

/// Log snapshots.
#[derive(Debug)]
struct Marking {
    state: MarkState,
    /// The cluster's version when it was last looked at.
    cluster_version: Option<Version>,
    /// One is due once the store is durable here, however few entries there are since the last.
    due_from: Option<Index>,
    /// A membership and its JSON: it seldom changes from one log snapshot to the next.
    written: Option<(Arc<Membership>, Bytes)>,
}

/// Where the next log snapshot stands.
#[derive(Debug)]
enum MarkState {
    /// The newest mark, durable; or the newest that there was no room for.
    At(Index),
    /// The `.snap` file is being written.
    Saving(Marked),
    /// The record in the log is being written.
    Marking,
}

impl Marking {
    fn json(&mut self, membership: Arc<Membership>) -> Bytes {
        if let Some((_, json)) = self.written.as_ref().filter(|(written, _)| *written == membership) {
            return json.clone();
        }
        let json = Bytes::from(snap::membership::json(&membership));
        self.written = Some((membership, json.clone()));
        json
    }
}

impl<B: Backend> Durable<B> {
    pub(super) fn new(store: Store<B>, lines: Lines, settings: Settings) -> Self {
        let cluster_version = store.membership().cluster_version();
        Self {
            store,
            lines,
            outgoing: wal::Batch::default(),
            first_ask: None,
            trimmed: settings.marked,
            due: None,
            log_room: Room::Enough,
            room_due: None,
            store_full: false,
            flushes: Flushes::default(),
            marking: Marking { state: MarkState::At(settings.marked), cluster_version, due_from: None, written: None },
            settings,
        }
    }

    /// Adds a write of the engine.
    pub(super) fn push(&mut self, write: Write) {
        self.outgoing.writes.push(write);
    }

    /// Whether the log writer keeps up, so that new requests may be taken.
    pub(super) fn takes_proposals(&self) -> bool {
        !self.has_pressing_writes()
    }

    /// Whether something waits for the log writer that is worth waking it. A commit index alone is not: it goes with the next
    /// write that must be synced, since a crash may lose it anyway.
    fn has_pressing_writes(&self) -> bool {
        let wal::Batch { writes, mark } = &self.outgoing;
        mark.is_some()
            || bounds::LAZY_WRITES_MAX <= writes.len()
            || writes.iter().any(|write| write.sync == Sync::Required)
    }

    /// Whether the disk has no room for more.
    pub(super) fn is_full(&self) -> bool {
        self.store_full || self.log_room == Room::None
    }

    /// Entries that stay in memory for slow members.
    pub(super) const fn catch_up_entries(&self) -> u64 {
        self.settings.catch_up_entries
    }

    /// The known bug that the member carries.
    #[cfg(mutants)]
    pub(super) const fn mutant(&self) -> Option<crate::mutants::Mutant> {
        self.settings.mutant
    }

    /// Whether the overlay may grow.
    pub(super) fn has_room_to_apply(&self) -> bool {
        let (operations, bytes) = self.store.pending();
        let OverlayMax { operations: operations_max, bytes: bytes_max } = self.settings.overlay_max;
        operations < operations_max && bytes < bytes_max || mutated!(self.settings, OverlayUnbounded)
    }

    /// What is applied in one turn.
    pub(super) const fn apply_turn(&self) -> Budget {
        self.settings.apply_turn
    }

    /// Tells `answer` when everything that is applied now is durable in the store.
    pub(super) fn flush(&mut self, answer: oneshot::Sender<()>) {
        match self.store.open_batch() {
            (0, false) => drop(answer.send(())),
            (0, true) => self.flushes.sealed.push(answer),
            _ => self.flushes.open.push(answer),
        }
    }

    /// Whether what is applied may be read at once. It may.
    pub(super) fn may_read(&self) -> bool {
        !mutated!(self.settings, ReadsWaitForBatch) || self.due.is_none()
    }

    /// When something here is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        // The committer's completion wakes the driver; until then there is nothing to be early for.
        let (_, committing) = self.store.open_batch();
        [self.due.filter(|_| !committing), self.room_due].into_iter().flatten().min()
    }

    /// Takes a report of the log writer. Returns how many writes became durable.
    pub(super) fn on_report(&mut self, report: Option<wal::Report>) -> Result<Option<u32>, Fault> {
        match report {
            Some(wal::Report::Persisted { writes }) => return Ok(Some(writes)),
            Some(wal::Report::Marked { index }) => {
                self.marking.state = MarkState::At(index);
                self.try_job(Job::Purge { mark: index })?;
            }
            Some(wal::Report::Room(room)) => {
                self.log_room = room;
                self.room_due = (room == Room::None).then(|| Instant::now() + ROOM_PAUSE);
                if room == Room::None {
                    tracing::error!("no room for the next WAL file; proposals are refused until there is");
                }
            }
            Some(wal::Report::Failed(fault)) => return Err(fault),
            None => return Err(Fault::Gone("the log writer")),
        }
        Ok(None)
    }

    /// Takes a completion of the committer.
    pub(super) fn on_completion(&mut self, completion: Option<Completion>) -> Result<(), Fault> {
        match completion {
            Some(Completion::Committed { applied, size }) => {
                if !mutated!(self.settings, OverlayDroppedAtSeal) {
                    self.store.retire(size);
                }
                self.store_full = false;
                for flushed in self.flushes.sealed.drain(..) {
                    let _ = flushed.send(());
                }
                let behind = mutated!(self.settings, MarkBeforeStoreDurable);
                self.consider_mark(if behind { self.store.applied() } else { applied })?;
            }
            Some(Completion::StoreFull) => {
                if !self.store_full {
                    tracing::error!("no room for the store's next batch; proposals are refused until there is");
                }
                self.store_full = true;
            }
            Some(Completion::Defragmented { size }) => self.store.tell_size(size),
            // The next one is as far away as ever; until then the log is longer.
            Some(Completion::NoRoomToSnapshot { index }) => self.marking.state = MarkState::At(index),
            Some(Completion::Snapshotted { index }) => {
                if let MarkState::Saving(marked) = std::mem::replace(&mut self.marking.state, MarkState::Marking) {
                    assert!(marked.mark.index == index, "one snapshot at a time");
                    self.outgoing.mark = Some(marked);
                }
            }
            Some(Completion::Failed(fault)) => return Err(fault),
            None => return Err(Fault::Gone("the committer")),
        }
        Ok(())
    }

    /// Hands on what gathered: writes to the log, a batch to the committer if it is time.
    pub(super) fn hand_on(&mut self, raft: &Raft, now: Instant) -> Result<(), Fault> {
        if self.has_pressing_writes() {
            match self.lines.log.try_reserve().map(|permit| permit.send(std::mem::take(&mut self.outgoing))) {
                Ok(()) | Err(TrySendError::Full(())) => {}
                Err(TrySendError::Closed(())) => return Err(self.last_words_of_log_writer()),
            }
        }
        if self.room_due.is_some_and(|due| due <= now) {
            self.room_due = Some(now + ROOM_PAUSE);
            // An empty batch asks the log writer to look again. A full queue of others does as well.
            let _ = self.lines.log.try_send(wal::Batch::default());
        }
        self.seal_if_due(raft, now)
    }

    fn seal_if_due(&mut self, raft: &Raft, now: Instant) -> Result<(), Fault> {
        let (operations, committing) = self.store.open_batch();
        let pending = self.store.applied();
        if operations == 0 {
            self.due = None;
            return Ok(());
        }
        let due = *self.due.get_or_insert(now + self.settings.batch_interval);
        let wanted = operations >= self.settings.batch_operations
            || due <= now
            || !self.flushes.open.is_empty()
            || !self.has_room_to_apply();
        if committing {
            self.due = Some(due.max(now + self.settings.batch_interval));
            return Ok(());
        }
        if wanted {
            assert!(pending.index <= raft.commit(), "only what is committed is applied");
            self.due = None;
            let batch = self.store.seal();
            self.flushes.sealed = std::mem::take(&mut self.flushes.open);
            if mutated!(self.settings, OverlayDroppedAtSeal) {
                self.store.retire(self.store.size());
            }
            self.try_job(Job::Commit(batch))?;
        }
        Ok(())
    }

    /// Starts a log snapshot if enough was applied since the last one. The store is durable at `applied`.
    fn consider_mark(&mut self, applied: Applied) -> Result<(), Fault> {
        self.look_at_version();
        let MarkState::At(last) = self.marking.state else { return Ok(()) };
        let membership = self.store.membership();
        let is_due = self.marking.due_from.is_some_and(|from| from <= applied.index);
        if !is_due && applied.index.distance_from(last) <= self.settings.snapshot_entries {
            return Ok(());
        }
        self.marking.due_from = None;
        let mark = Mark { index: applied.index, term: applied.term };
        let conf_state = wal::entry::conf_state(&Configuration::of(&membership));
        self.marking.state = MarkState::Saving(Marked { mark, conf_state: Some(conf_state.clone()) });
        let data = self.marking.json(membership);
        self.try_job(Job::Snapshot(Snapshot { mark, conf_state, data }))
    }

    /// A cluster that becomes older makes a log snapshot due: members of that version may read the log from there on.
    fn look_at_version(&mut self) {
        let version = self.store.membership().cluster_version();
        if version < self.marking.cluster_version {
            tracing::info!("Cluster version downgrade detected, forcing snapshot");
            self.marking.due_from = Some(self.store.applied().index);
        }
        self.marking.cluster_version = version;
    }

    /// The committer's queue has room for one job of each kind, so it is never full.
    fn try_job(&mut self, job: Job) -> Result<(), Fault> {
        self.lines.jobs.try_send(job).map_err(|_| self.last_words_of_committer())
    }

    /// Why the log writer is gone: a report that nobody has read yet tells more than its absence.
    fn last_words_of_log_writer(&mut self) -> Fault {
        let mut reports = std::iter::from_fn(|| self.lines.reports.try_recv().ok());
        let failed = reports.find_map(|report| match report {
            wal::Report::Failed(fault) => Some(fault),
            _ => None,
        });
        failed.unwrap_or(Fault::Gone("the log writer"))
    }

    /// Why the committer is gone.
    fn last_words_of_committer(&mut self) -> Fault {
        let mut completions = std::iter::from_fn(|| self.lines.completions.try_recv().ok());
        let failed = completions.find_map(|completion| match completion {
            Completion::Failed(fault) => Some(fault),
            _ => None,
        });
        failed.unwrap_or(Fault::Gone("the committer"))
    }

    /// An orderly end: what is applied is committed, so that the next start has little to replay. Its absence loses nothing.
    pub(super) async fn finish(mut self) -> Result<(), Fault> {
        // A full queue drops no more than a crash would.
        let _ = self.lines.log.try_send(std::mem::take(&mut self.outgoing));
        let patience = tokio::time::sleep(FINISH_PATIENCE);
        tokio::pin!(patience);
        loop {
            let (operations, committing) = self.store.open_batch();
            if !committing && operations == 0 {
                return Ok(());
            }
            if !committing {
                let batch = self.store.seal();
                self.try_job(Job::Commit(batch))?;
            }
            tokio::select! {
                biased;
                completion = self.lines.completions.recv() => match completion {
                    Some(Completion::Committed { size, .. }) => self.store.retire(size),
                    Some(Completion::Failed(fault)) => return Err(fault),
                    Some(Completion::StoreFull) | None => return Ok(()),
                    Some(
                        Completion::Snapshotted { .. }
                        | Completion::NoRoomToSnapshot { .. }
                        | Completion::Defragmented { .. },
                    ) => {}
                },
                () = &mut patience => return Ok(()),
            }
        }
    }
}
