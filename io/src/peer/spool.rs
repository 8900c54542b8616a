//! A store that another member sends, on its way to the disk: written under a temporary name, synced as it grows, whole or gone.
//!
//! The length is known only at the end, so nothing is set aside for it; memory holds no more than what the queue does. One at a time. It owns a thread in production because its calls block.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use detcd_core::ids::Index;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::bounds;
use crate::disk::{Access, Disk, File};
use crate::fault::Fault;

/// What is written between two syncs.
const SYNC_BYTES: u64 = 8 << 20;

/// The way to the spool. Clones share it.
#[derive(Clone, Debug)]
pub struct Spooler {
    jobs: mpsc::Sender<Job>,
    turn: Arc<Semaphore>,
}

/// The task that writes.
#[derive(Debug)]
pub struct Spool<D> {
    disk: D,
    directory: PathBuf,
    jobs: mpsc::Receiver<Job>,
    count: u64,
}

/// Nobody else is served while somebody holds it.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// A file that is not whole yet; dropped, it is gone.
#[derive(Debug)]
pub struct Incoming {
    parts: mpsc::Sender<Part>,
    done: oneshot::Receiver<Result<PathBuf, Fault>>,
    turn: Turn,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum NoFile {
    /// The disk refused it.
    #[error(transparent)]
    Failed(#[from] Fault),
    /// The member is stopping.
    #[error("the member is stopping")]
    Stopping,
}

#[derive(Debug)]
struct Job {
    index: Index,
    parts: mpsc::Receiver<Part>,
    done: oneshot::Sender<Result<PathBuf, Fault>>,
}

#[derive(Debug)]
enum Part {
    Bytes(Bytes),
    End,
}

/// Makes a spool that writes to `directory`, and the way to it.
pub fn spool<D: Disk>(disk: D, directory: &Path) -> (Spool<D>, Spooler) {
    let (sender, jobs) = mpsc::channel(1);
    let spool = Spool { disk, directory: directory.to_owned(), jobs, count: 0 };
    (spool, Spooler { jobs: sender, turn: Arc::new(Semaphore::new(1)) })
}

impl Spooler {
    /// Begins a file for the store as of `index`; `None` while another is under way, or if the member is stopping.
    #[must_use]
    pub fn begin(&self, index: Index) -> Option<Incoming> {
        let turn = Turn(Arc::clone(&self.turn).try_acquire_owned().ok()?);
        let (parts, taken) = mpsc::channel(bounds::SPOOL_PARTS_MAX);
        let (done, is_done) = oneshot::channel();
        self.jobs.try_send(Job { index, parts: taken, done }).ok()?;
        Some(Incoming { parts, done: is_done, turn })
    }
}

impl Incoming {
    /// Adds bytes; waits while too many are on their way to the disk.
    ///
    /// # Errors
    /// The disk refused them or those before.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), NoFile> {
        if self.parts.send(Part::Bytes(bytes)).await.is_ok() {
            return Ok(());
        }
        // It ends early only with a fault.
        (&mut self.done).await.map_err(|_| NoFile::Stopping)?.map(drop).map_err(NoFile::from)
    }

    /// Waits until all of it is durable, its name as well. No other is begun while the turn is held.
    ///
    /// # Errors
    /// The disk refused it.
    pub async fn finish(self) -> Result<(PathBuf, Turn), NoFile> {
        // If it is gone, it says why.
        let _ = self.parts.send(Part::End).await;
        let path = self.done.await.map_err(|_| NoFile::Stopping)??;
        Ok((path, self.turn))
    }
}

impl<D: Disk> Spool<D> {
    /// Works until nobody can ask any more.
    pub async fn run(mut self) {
        while let Some(Job { index, parts, done }) = self.jobs.recv().await {
            self.count += 1;
            let path = self.directory.join(format!("tmp.{:016x}.{}.snap.db", index.0, self.count));
            let written = self.write(&path, parts).await;
            let taken = match written {
                Ok(true) => done.send(Ok(path.clone())).is_ok(),
                Ok(false) => false,
                Err(fault) => {
                    let _ = done.send(Err(fault));
                    false
                }
            };
            if !taken && let Err(error) = self.disk.remove_file(&path).await {
                tracing::warn!(%error, path = %path.display(), "cannot remove what was received of a snapshot");
            }
        }
    }

    /// Writes what comes. Answers whether it came to its end.
    async fn write(&self, path: &Path, mut parts: mpsc::Receiver<Part>) -> Result<bool, Fault> {
        // An earlier life may have left one of this name.
        let file = self.disk.open(path, Access::WriteOrCreate).await.map_err(Fault::disk("create", path))?;
        file.set_size(0).await.map_err(Fault::disk("empty", path))?;
        let (mut size, mut synced) = (0, 0);
        while let Some(part) = parts.recv().await {
            match part {
                Part::Bytes(bytes) => {
                    file.write_all_at(&bytes, size).await.map_err(Fault::disk("write", path))?;
                    size += bytes.len() as u64;
                    if SYNC_BYTES <= size - synced {
                        file.sync_data().await.map_err(Fault::disk("sync", path))?;
                        synced = size;
                    }
                }
                Part::End => {
                    file.sync_all().await.map_err(Fault::disk("sync", path))?;
                    self.disk.sync_dir(&self.directory).await.map_err(Fault::disk("sync", &self.directory))?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;
    use crate::wal::fuzz::ready;

    fn spooling(disk: &MemoryDisk) -> Spooler {
        ready(disk.create_dir_all(Path::new("snap"))).unwrap();
        let (spool, spooler) = spool(disk.clone(), Path::new("snap"));
        tokio::spawn(spool.run());
        spooler
    }

    fn files(disk: &MemoryDisk) -> usize {
        ready(disk.list(Path::new("snap"))).unwrap().len()
    }

    #[tokio::test]
    async fn a_file_is_whole_and_synced_when_it_is_named() {
        let disk = MemoryDisk::new();
        let spooler = spooling(&disk);
        let mut incoming = spooler.begin(Index(0x1f)).unwrap();
        assert!(spooler.begin(Index(2)).is_none(), "one at a time");
        for _ in 0..20 {
            incoming.write(Bytes::from(vec![7; 1 << 20])).await.unwrap();
        }
        let (path, turn) = incoming.finish().await.unwrap();
        assert_eq!(path, Path::new("snap/tmp.000000000000001f.1.snap.db"));
        assert_eq!(disk.bytes(&path), Some(vec![7; 20 << 20]));
        assert_eq!(disk.syncs(), 3, "after 8 and 16 MiB, and at its end");
        assert!(spooler.begin(Index(2)).is_none(), "until it is taken over");
        drop(turn);
        assert!(spooler.begin(Index(2)).is_some());
    }

    #[tokio::test]
    async fn what_is_cut_off_or_refused_is_gone() {
        let disk = MemoryDisk::new();
        let spooler = spooling(&disk);
        let mut cut = spooler.begin(Index(1)).unwrap();
        cut.write(Bytes::from_static(b"half")).await.unwrap();
        drop(cut);
        disk.fail_syncs(1);
        let refused = loop {
            // The turn is free at once, the writer a moment later.
            tokio::task::yield_now().await;
            if let Some(incoming) = spooler.begin(Index(1)) {
                break incoming;
            }
        };
        assert!(matches!(refused.finish().await, Err(NoFile::Failed(Fault::Disk { op: "sync", .. }))));
        tokio::task::yield_now().await;
        assert_eq!(files(&disk), 0);
    }

    #[tokio::test]
    async fn who_writes_learns_of_the_fault() {
        let disk = MemoryDisk::new();
        let spooler = spooling(&disk);
        let mut incoming = spooler.begin(Index(1)).unwrap();
        disk.fail_syncs(1);
        let failed = loop {
            if let Err(failed) = incoming.write(Bytes::from(vec![0; 9 << 20])).await {
                break failed;
            }
        };
        assert!(matches!(failed, NoFile::Failed(Fault::Disk { op: "sync", .. })));
    }
}
