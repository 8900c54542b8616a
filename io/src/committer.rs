//! The committer: sealed batches into the backend, log snapshots into `.snap` files, old log files out of the way. One job at a time, in order; when there is none, the next bit
//! of a defragmentation.
//!
//! It owns a thread in production because its jobs block. A batch that finds no room is kept and tried again; any other failure ends the member.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use detcd_core::ids::Index;
use tokio::sync::mpsc;

use crate::clock::Instant;
use crate::defragmenter::Defragmenter;
use crate::disk::Disk;
use crate::fault::Fault;
use crate::snap::{self, Snapshot};
use crate::stats::CommitStats;
use crate::store::backend::{Backend, Committed, Size};
use crate::store::batch::{Applied, Batch};
use crate::wal;

/// How long a batch waits between two attempts on a full disk.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(500);

/// What the driver asks for.
#[derive(Debug)]
pub enum Job {
    /// Make a batch durable.
    Commit(Arc<Batch>),
    /// Write a `.snap` file; the store is durable at its index or beyond.
    Snapshot(Snapshot),
    /// Remove log files that a durable mark released and `.snap` files, but for the newest ones.
    Purge {
        /// The mark.
        mark: Index,
    },
}

/// What came of it.
#[derive(Debug)]
pub enum Completion {
    /// The batch is durable.
    Committed {
        /// The log position it brought the store to.
        applied: Applied,
        /// The store's size now.
        size: Size,
    },
    /// The disk has no room for the batch; it is tried again.
    StoreFull,
    /// The store lies in another file now.
    Defragmented {
        /// Its size now.
        size: Size,
    },
    /// The disk has no room for the `.snap` file of this index; another one is made later.
    NoRoomToSnapshot {
        /// Its index.
        index: Index,
    },
    /// The `.snap` file of this index is durable.
    Snapshotted {
        /// Its index.
        index: Index,
    },
    /// The machine failed. Nothing follows.
    Failed(Fault),
}

/// Where log files and `.snap` files are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The directory of the log.
    pub wal: PathBuf,
    /// The directory of `.snap` files.
    pub snap: PathBuf,
    /// How many released log files stay.
    pub wals_max: usize,
    /// How many `.snap` files stay.
    pub snaps_max: usize,
    /// The known bug that it carries, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    pub mutant: Option<crate::mutants::Mutant>,
}

/// The task that commits.
pub struct Committer<B, D> {
    backend: B,
    disk: D,
    places: Places,
    jobs: mpsc::Receiver<Job>,
    done: mpsc::Sender<Completion>,
    defragmenter: Defragmenter<B>,
    stats: Arc<CommitStats>,
    /// Files of the log and `.snap` files are removed that nobody needs from this mark on.
    purging: Option<Index>,
}

impl<B: Backend, D: Disk> Committer<B, D> {
    /// A committer fed by `jobs` that reports to `done`.
    #[must_use]
    pub fn new(
        backend: B,
        disk: D,
        places: Places,
        jobs: mpsc::Receiver<Job>,
        done: mpsc::Sender<Completion>,
        defragmenter: Defragmenter<B>,
    ) -> Self {
        Self { backend, disk, places, jobs, done, defragmenter, stats: Arc::default(), purging: None }
    }

    /// What is counted.
    #[must_use]
    pub const fn stats(&self) -> &Arc<CommitStats> {
        &self.stats
    }

    /// Works until its feeder is gone or a job fails.
    pub async fn run(mut self) {
        loop {
            let carried_out = tokio::select! {
                biased;
                job = self.jobs.recv() => match job {
                    Some(job) => self.carry_out(job).await,
                    None => return,
                },
                () = self.defragmenter.due() => self.defragment().await,
                () = std::future::ready(()), if self.purging.is_some() => self.purge().await,
            };
            let completion = match carried_out {
                Ok(Some(completion)) => completion,
                Ok(None) => continue,
                Err(fault) => Completion::Failed(fault),
            };
            let failed = matches!(completion, Completion::Failed(_));
            if self.done.send(completion).await.is_err() || failed {
                return;
            }
        }
    }

    async fn defragment(&mut self) -> Result<Option<Completion>, Fault> {
        let size = self.defragmenter.advance(&self.backend, &self.stats).await?;
        Ok(size.map(|size| Completion::Defragmented { size }))
    }

    async fn carry_out(&mut self, job: Job) -> Result<Option<Completion>, Fault> {
        match job {
            Job::Commit(batch) => self.commit(&batch).await,
            Job::Snapshot(file) => {
                let began = Instant::now();
                let index = file.mark.index;
                match snap::save(&self.disk, &self.places.snap, &file).await {
                    Err(fault) if fault.is_no_room() => {
                        tracing::error!(%fault, "no room for a snapshot file; another one is made later");
                        return Ok(Some(Completion::NoRoomToSnapshot { index }));
                    }
                    saved => saved?,
                }
                self.stats.snap.observe(began.elapsed());
                Ok(Some(Completion::Snapshotted { index }))
            }
            Job::Purge { mark } => {
                self.purging = self.purging.max(Some(mark));
                Ok(None)
            }
        }
    }

    /// Removes a file of the log, or in the end what is too much of the `.snap` files. Jobs go between.
    async fn purge(&mut self) -> Result<Option<Completion>, Fault> {
        let Some(mark) = self.purging else { return Ok(None) };
        if !wal::purge_one(&self.disk, &self.places.wal, self.places.wals_max, mark).await? {
            self.purging = None;
            snap::purge(&self.disk, &self.places.snap, self.places.snaps_max).await?;
        }
        Ok(None)
    }

    /// `None`: nobody waits for it any more.
    async fn commit(&mut self, batch: &Batch) -> Result<Option<Completion>, Fault> {
        #[cfg(mutants)]
        if let Some(first) = crate::mutants::first_part(self.places.mutant, &self.backend, batch)? {
            self.backend.commit(&first).await?;
            let is_index = first.operations() == 0;
            let rest = if !is_index { Batch { applied: batch.applied, ..Batch::default() } } else { batch.clone() };
            self.backend.commit(&rest).await?;
            let size = self.backend.size().await?;
            return Ok(Some(Completion::Committed { applied: batch.applied, size }));
        }
        let mut began = Instant::now();
        while self.backend.commit(batch).await? == Committed::NoRoom {
            if self.done.send(Completion::StoreFull).await.is_err() {
                return Ok(None);
            }
            tokio::time::sleep(NO_ROOM_PAUSE).await;
            began = Instant::now();
        }
        self.stats.commit.observe(began.elapsed());
        self.defragmenter.on_committed(&self.backend, batch).await?;
        let size = self.backend.size().await?;
        Ok(Some(Completion::Committed { applied: batch.applied, size }))
    }
}
