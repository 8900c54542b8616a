//! The active part of the log: takes what waits, writes it at once, syncs at most once for all of it, and says how much is durable.
//!
//! The invariants: a write is reported only after the sync that covers it; reports count writes in the order they were asked for; and
//! after a failure there is one report of it and never another call on the log.
//!
//! While a sync runs, more batches gather in the queue: the slower the disk, the larger the groups.

use tokio::sync::mpsc;

use detcd_core::ids::Index;
use detcd_core::raft::Write;

use super::{Marked, Room, Wal};
use crate::disk::Disk;
use crate::fault::Fault;
use crate::mutants::mutated;

/// No more than this is gathered for one sync, so that no reply waits for an endless group.
const GATHER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What the driver asks for at once. An empty batch asks again whether there is room.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// What the engine wants written, in its order.
    pub writes: Vec<Write>,
    /// A mark to be written behind them. The store is durable at its index or beyond.
    pub mark: Option<Marked>,
}

/// What the log answers.
#[derive(Debug)]
pub enum Report {
    /// The oldest `writes` writes are durable.
    Persisted {
        /// How many.
        writes: u32,
    },
    /// A mark is durable, and the files before it are released.
    Marked {
        /// Its index.
        index: Index,
    },
    /// There is no room for the next file (nothing new should be proposed), or there is again.
    Room(Room),
    /// The log failed. This is its last report.
    Failed(Fault),
}

/// The log and its queues. The owner of the other ends never waits to hand in a batch while it leaves reports unread.
pub struct Writer<D: Disk> {
    wal: Wal<D>,
    batches: mpsc::Receiver<Batch>,
    reports: mpsc::Sender<Report>,
    room: Room,
}

/// The other end of the reports is gone: nobody needs this log any more.
struct Unheard;

impl<D: Disk> Writer<D> {
    /// A writer of this log. It reads batches until their senders are gone.
    pub const fn new(wal: Wal<D>, batches: mpsc::Receiver<Batch>, reports: mpsc::Sender<Report>) -> Self {
        Self { wal, batches, reports, room: Room::Enough }
    }

    /// Serves until the senders of batches are gone, then closes the log; or until the log fails, which is reported.
    pub async fn run(mut self) {
        // Ahead of the first batch: a member that starts on a full disk learns it before it proposes.
        if self.look_for_room().await.is_err() {
            return;
        }
        while let Some(first) = self.batches.recv().await {
            if self.serve(first).await.is_err() {
                return;
            }
        }
        if let Err(fault) = self.wal.close().await {
            let _ = self.reports.send(Report::Failed(fault)).await;
        }
    }

    /// One group: what waits is appended, synced and reported.
    async fn serve(&mut self, first: Batch) -> Result<(), Unheard> {
        let mut writes = 0;
        let mut marked = None;
        match self.persist(first, &mut writes, &mut marked).await {
            Ok(()) => {}
            Err(fault) => return self.fail(fault).await,
        }
        if writes > 0 {
            self.report(Report::Persisted { writes }).await?;
        }
        if let Some(index) = marked {
            self.report(Report::Marked { index }).await?;
        }
        self.look_for_room().await
    }

    async fn persist(&mut self, first: Batch, writes: &mut u32, marked: &mut Option<Index>) -> Result<(), Fault> {
        let mut next = Some(first);
        while let Some(batch) = next {
            for write in &batch.writes {
                self.wal.append(write);
                self.wal.cut_if_full().await?;
                *writes += 1;
            }
            if let Some(mark) = &batch.mark {
                self.wal.save_mark(mark).await?;
                *marked = Some(mark.mark.index);
            }
            let is_full = self.wal.pending_bytes() >= GATHER_BYTES_MAX;
            next = if is_full { None } else { self.batches.try_recv().ok() };
        }
        if mutated!(self.wal.options, ReportBeforeSync) && *writes > 0 {
            self.wal.flush().await?;
            let _ = self.report(Report::Persisted { writes: std::mem::take(writes) }).await;
        }
        self.wal.sync().await
    }

    /// Makes the next file ahead of need, after the replies are on their way, and tells when that begins or ceases to fail.
    async fn look_for_room(&mut self) -> Result<(), Unheard> {
        let room = match self.wal.prepare().await {
            Ok(room) => room,
            Err(fault) => return self.fail(fault).await,
        };
        if room != self.room {
            self.room = room;
            match room {
                Room::Enough => tracing::info!("there is room for the next WAL file again"),
                Room::None => tracing::warn!("no room for the next WAL file"),
            }
            self.report(Report::Room(room)).await?;
        }
        Ok(())
    }

    async fn fail(&self, fault: Fault) -> Result<(), Unheard> {
        tracing::error!(%fault, "the WAL failed; it is not written any more");
        self.report(Report::Failed(fault)).await?;
        Err(Unheard)
    }

    async fn report(&self, report: Report) -> Result<(), Unheard> {
        self.reports.send(report).await.map_err(|_| Unheard)
    }
}
