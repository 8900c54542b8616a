//! Copies of the store as etcd's database file, for those who take it away: a snapshot is first made here, whole, in a file without a name, and read from there. So nobody's slowness holds a
//! read transaction open, and memory does not grow with the store.
//!
//! One copy is made at a time, in chunks with rests between, each synced, so that little of it is ever in the system's memory for a sync of the log to wait for. What was made is read between the
//! chunks. It owns a thread in production because its calls block.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use detcd_core::ids::Index;
use detcd_core::raft::snapshot::Snapshot;
use tokio::sync::{mpsc, oneshot};

use crate::bbolt::write::Finished;
use crate::clock::Instant;
use crate::disk::shrink::Shrinking;
use crate::disk::{Access, Disk, File};
use crate::driver::ask::Gauges;
use crate::driver::bounds;
use crate::fault::Fault;
use crate::mutants::mutated;
use crate::store::backend::{Backend, Frozen};
use crate::store::copying::{Chunk, Rest};
use crate::store::export::Export;
use crate::store::standing::standing;

/// Why there is no copy, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum NoCopy {
    /// The member is stopping.
    #[error("the member is stopping")]
    Stopping,
    /// Too many wait for theirs.
    #[error("too many copies are asked for")]
    TooMany,
    /// The disk refused it, or the store cannot be read.
    #[error(transparent)]
    Failed(#[from] Fault),
}

type MadeAnswer = oneshot::Sender<Result<Slot, NoCopy>>;

#[derive(Debug)]
enum Ask {
    Make { answer: MadeAnswer },
    Read { id: u64, offset: u64, bytes: usize, answer: oneshot::Sender<Result<Bytes, Fault>> },
}

/// The way to the copier. Clones share it.
#[derive(Clone, Debug)]
pub struct Copies {
    asks: mpsc::Sender<Ask>,
}

/// A copy that was made. Soon after it is dropped its room on the disk is free again.
#[derive(Debug)]
pub struct Copied {
    asks: mpsc::Sender<Ask>,
    slot: Slot,
}

/// The place of one copy, from its making on: nobody who gives up, and no answer that is lost, keeps it.
#[derive(Debug)]
struct Slot {
    ended: mpsc::Sender<u64>,
    id: u64,
    size_bytes: u64,
    snapshot: Snapshot,
}

/// The task that copies.
pub struct Copier<B: Backend, D: Disk> {
    store: B,
    disk: D,
    /// Where its files are for the moment in which they have a name.
    directory: PathBuf,
    /// What is copied between two looks at requests.
    chunk: Chunk,
    asks: mpsc::Receiver<Ask>,
    ended: (mpsc::Sender<u64>, mpsc::Receiver<u64>),
    files: Files<D::File>,
    making: Option<Making<B::Frozen, D::File>>,
    waiting: VecDeque<MadeAnswer>,
    copies: u64,
    writing: Writing,
    /// The known bug that it carries, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    pub mutant: Option<crate::mutants::Mutant>,
}

/// The files of copies that were made.
struct Files<F> {
    made: BTreeMap<u64, F>,
    /// Those that nobody needs any more, and when the next piece of the first one is given back.
    leaving: VecDeque<(Instant, Shrinking<F>)>,
}

impl<F: File> Files<F> {
    fn count(&self) -> usize {
        self.made.len() + self.leaving.len()
    }

    fn due(&self) -> Option<Instant> {
        self.leaving.front().map(|(due, _)| *due)
    }

    async fn on_ended(&mut self, id: u64) {
        if let Some(file) = self.made.remove(&id) {
            self.leave(file).await;
        }
    }

    /// Best effort: where it fails, the room comes back when the file is closed.
    async fn leave(&mut self, file: F) {
        match Shrinking::begin(file).await {
            Ok(shrinking) => self.leaving.push_back((Instant::now(), shrinking)),
            Err(error) => tracing::warn!(%error, "cannot give back the room of a copy bit by bit"),
        }
    }

    async fn shrink(&mut self) {
        let Some((due, first)) = self.leaving.front_mut() else { return };
        match first.advance().await {
            Ok(Some(rest)) => *due = Instant::now() + rest,
            Ok(None) => drop(self.leaving.pop_front()),
            Err(error) => {
                tracing::warn!(%error, "cannot give back the room of a copy bit by bit");
                self.leaving.pop_front();
            }
        }
    }
}

/// Whether anybody writes.
struct Writing {
    gauges: Arc<Gauges>,
    /// What was applied at the last look.
    applied: Index,
    /// When that had changed.
    since: Instant,
}

impl Writing {
    fn rest(&mut self, now: Instant) -> Rest {
        let applied = self.gauges.applied();
        if applied != self.applied {
            (self.applied, self.since) = (applied, now);
        }
        Rest::since(now - self.since)
    }
}

struct Making<R, F> {
    frozen: R,
    snapshot: Snapshot,
    export: Export,
    file: F,
    path: PathBuf,
    due: Instant,
    answer: MadeAnswer,
}

/// Makes a copier and the way to it. It copies a `chunk` at a time.
pub fn copier<B: Backend, D: Disk>(
    store: B,
    disk: D,
    directory: &Path,
    chunk: Chunk,
    gauges: Arc<Gauges>,
) -> (Copier<B, D>, Copies) {
    let (asks, asked) = mpsc::channel(bounds::COPY_ASKS_MAX);
    let copier = Copier {
        store,
        disk,
        directory: directory.to_owned(),
        chunk,
        asks: asked,
        ended: mpsc::channel(bounds::COPIES_MAX),
        files: Files { made: BTreeMap::new(), leaving: VecDeque::new() },
        making: None,
        waiting: VecDeque::new(),
        copies: 0,
        writing: Writing { applied: gauges.applied(), since: Instant::now(), gauges },
        #[cfg(mutants)]
        mutant: None,
    };
    (copier, Copies { asks })
}

impl Copies {
    /// Copies the store as its last committed batch left it, or a later one.
    ///
    /// # Errors
    /// There is no room, or the member is stopping.
    pub async fn make(&self) -> Result<Copied, NoCopy> {
        let (answer, made) = oneshot::channel();
        self.asks.send(Ask::Make { answer }).await.map_err(|_| NoCopy::Stopping)?;
        let slot = made.await.map_err(|_| NoCopy::Stopping)??;
        Ok(Copied { asks: self.asks.clone(), slot })
    }
}

impl Copied {
    /// Its length.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.slot.size_bytes
    }

    /// Where in the log the copied store stands, and who the members were there.
    #[must_use]
    pub const fn snapshot(&self) -> &Snapshot {
        &self.slot.snapshot
    }

    /// So many bytes from `offset` on, or as many as there are.
    ///
    /// # Errors
    /// The disk failed, or the member is stopping.
    pub async fn read(&self, offset: u64, bytes: usize) -> Result<Bytes, NoCopy> {
        let (answer, read) = oneshot::channel();
        let ask = Ask::Read { id: self.slot.id, offset, bytes, answer };
        self.asks.send(ask).await.map_err(|_| NoCopy::Stopping)?;
        Ok(read.await.map_err(|_| NoCopy::Stopping)??)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // There is a place for each copy; if the copier is gone, so are its files.
        let _ = self.ended.try_send(self.id);
    }
}

impl<B: Backend, D: Disk> Copier<B, D> {
    /// Works until nobody can ask any more.
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                Some(id) = self.ended.1.recv() => self.files.on_ended(id).await,
                ask = self.asks.recv() => match ask {
                    Some(Ask::Make { answer }) => self.on_make(answer),
                    Some(Ask::Read { id, offset, bytes, answer }) => {
                        // Whoever gave up a reading and dropped the copy waits for no answer.
                        let Some(file) = self.files.made.get(&id) else { continue };
                        let read = read(file, offset, bytes).await.map_err(Fault::disk("read", &self.directory));
                        let _ = answer.send(read);
                    }
                    None => return,
                },
                () = due(self.files.due()) => self.files.shrink().await,
                () = due(self.making.as_ref().map(|making| making.due)) => self.advance().await,
            }
            self.begin_next().await;
        }
    }

    fn on_make(&mut self, answer: MadeAnswer) {
        self.waiting.retain(|waiting| !waiting.is_closed());
        if self.waiting.len() == bounds::COPY_ASKS_MAX {
            return drop(answer.send(Err(NoCopy::TooMany)));
        }
        if self.files.made.len() == bounds::COPIES_MAX {
            tracing::warn!(copies = bounds::COPIES_MAX, "a snapshot waits until a client has taken another one");
        }
        self.waiting.push_back(answer);
    }

    /// Begins a copy if somebody waits for one and there is a place for it.
    async fn begin_next(&mut self) {
        while self.making.is_none() && self.files.count() < bounds::COPIES_MAX {
            let Some(answer) = self.waiting.pop_front() else { return };
            // Whoever asked may be gone.
            if answer.is_closed() {
                continue;
            }
            match self.begin().await {
                Ok((frozen, snapshot, file, path)) => {
                    #[cfg_attr(not(mutants), expect(unused_mut, reason = "changed in builds with mutants"))]
                    let mut export = Export::default();
                    #[cfg(mutants)]
                    {
                        export.mutant = self.mutant;
                    }
                    let due = Instant::now();
                    self.making = Some(Making { frozen, snapshot, export, file, path, due, answer });
                }
                Err(fault) => drop(answer.send(Err(fault.into()))),
            }
        }
    }

    /// A file that nobody sees, and nothing of which is left when the process ends.
    async fn begin(&mut self) -> Result<(B::Frozen, Snapshot, D::File, PathBuf), Fault> {
        self.copies += 1;
        let path = self.directory.join(format!("tmp.snapshot-{}", self.copies));
        let file = self.disk.open(&path, Access::WriteOrCreate).await.map_err(Fault::disk("create", &path))?;
        self.disk.remove_file(&path).await.map_err(Fault::disk("remove", &path))?;
        file.set_size(0).await.map_err(Fault::disk("empty", &path))?;
        let frozen = self.store.freeze()?;
        let snapshot = standing(&frozen)?;
        Ok((frozen, snapshot, file, path))
    }

    /// Copies a chunk.
    async fn advance(&mut self) {
        let Some(mut making) = self.making.take() else { return };
        if making.answer.is_closed() {
            return self.files.leave(making.file).await;
        }
        let began = Instant::now();
        if mutated!(self, CopyOfAMovingStore)
            && let Ok(frozen) = self.store.freeze()
        {
            making.frozen = frozen;
        }
        match making.advance(self.chunk).await {
            Ok(None) => {
                let now = Instant::now();
                making.due = now + self.writing.rest(now).after(now - began);
                self.making = Some(making);
            }
            Ok(Some(size_bytes)) => {
                let id = self.copies;
                self.files.made.insert(id, making.file);
                let slot = Slot { ended: self.ended.0.clone(), id, size_bytes, snapshot: making.snapshot };
                // Nobody there: it comes back, is dropped, and so told to have ended.
                let _ = making.answer.send(Ok(slot));
            }
            Err(fault) => drop(making.answer.send(Err(fault.into()))),
        }
    }
}

async fn read<F: File>(file: &F, offset: u64, bytes: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; bytes];
    let mut read = 0;
    while read < bytes {
        match file.read_at(&mut buffer[read..], offset + read as u64).await? {
            0 => break,
            count => read += count,
        }
    }
    buffer.truncate(read);
    Ok(buffer.into())
}

/// Waits until the next chunk is due.
async fn due(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl<R: Frozen, F: File> Making<R, F> {
    /// Copies a chunk. Answers the file's length at its end.
    async fn advance(&mut self, chunk: Chunk) -> Result<Option<u64>, Fault> {
        let finished = self.export.advance(&self.frozen, chunk)?;
        let (offset, pages) = self.export.take();
        self.file.write_all_at(&pages, offset).await.map_err(Fault::disk("write", &self.path))?;
        if let Some(Finished { metas, size_bytes }) = finished {
            self.file.write_all_at(&metas, 0).await.map_err(Fault::disk("write", &self.path))?;
            return Ok(Some(size_bytes));
        }
        self.file.sync_data().await.map_err(Fault::disk("sync", &self.path))?;
        Ok(None)
    }
}
