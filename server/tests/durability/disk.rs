//! A disk in memory whose data syncs wait for the test, that remembers what they have made durable, and that counts what it is asked for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use detcd_io::disk::{Access, Disk, File, Lock, MemoryDisk, MemoryFile, Stat};
use tokio::sync::Semaphore;

#[derive(Clone)]
pub(crate) struct GatedDisk {
    pub(crate) memory: MemoryDisk,
    gate: Arc<Gate>,
}

struct Gate {
    is_closed: AtomicBool,
    permits: Semaphore,
    begun: AtomicU64,
    writes: AtomicU64,
    /// The bytes of each file when the newest sync that has returned began.
    durable: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
}

pub(crate) struct GatedFile {
    file: MemoryFile,
    path: PathBuf,
    disk: GatedDisk,
}

impl GatedDisk {
    pub(crate) fn new() -> Self {
        let gate = Gate {
            is_closed: AtomicBool::new(false),
            permits: Semaphore::new(0),
            begun: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            durable: Mutex::default(),
        };
        Self { memory: MemoryDisk::new(), gate: Arc::new(gate) }
    }

    /// From now on every sync waits for a [`Self::let_one_pass`].
    pub(crate) fn close(&self) {
        self.gate.is_closed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn let_one_pass(&self) {
        self.gate.permits.add_permits(1);
    }

    /// Syncs of data that were begun.
    pub(crate) fn syncs_begun(&self) -> u64 {
        self.gate.begun.load(Ordering::SeqCst)
    }

    /// Writes and syncs that were asked for.
    pub(crate) fn changes(&self) -> u64 {
        self.gate.writes.load(Ordering::SeqCst) + self.memory.syncs()
    }

    /// Whether some file would hold these bytes after a power cut.
    pub(crate) fn has_durable(&self, bytes: &[u8]) -> bool {
        let durable = self.gate.durable.lock().unwrap();
        durable.values().any(|file| file.windows(bytes.len()).any(|window| window == bytes))
    }
}

impl Disk for GatedDisk {
    type File = GatedFile;

    async fn open(&self, path: &Path, access: Access) -> io::Result<GatedFile> {
        Ok(GatedFile { file: self.memory.open(path, access).await?, path: path.to_owned(), disk: self.clone() })
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.memory.create_dir_all(path).await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.memory.list(path).await
    }

    async fn rename(&self, source: &Path, target: &Path) -> io::Result<()> {
        self.memory.rename(source, target).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.memory.remove_file(path).await
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.memory.remove_dir_all(path).await
    }

    async fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.memory.stat(path).await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.memory.sync_dir(path).await
    }
}

impl File for GatedFile {
    async fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset).await
    }

    async fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.gate.writes.fetch_add(1, Ordering::SeqCst);
        self.file.write_all_at(bytes, offset).await
    }

    async fn sync_data(&self) -> io::Result<()> {
        let gate = &self.disk.gate;
        gate.begun.fetch_add(1, Ordering::SeqCst);
        let seen = self.disk.memory.bytes(&self.path).unwrap_or_default();
        if gate.is_closed.load(Ordering::SeqCst) {
            gate.permits.acquire().await.unwrap().forget();
        }
        self.file.sync_data().await?;
        gate.durable.lock().unwrap().insert(self.path.clone(), seen);
        Ok(())
    }

    async fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all().await
    }

    async fn size(&self) -> io::Result<u64> {
        self.file.size().await
    }

    async fn set_size(&self, size_bytes: u64) -> io::Result<()> {
        self.file.set_size(size_bytes).await
    }

    async fn allocate(&self, size_bytes: u64) -> io::Result<()> {
        self.file.allocate(size_bytes).await
    }

    async fn lock(&self) -> io::Result<Lock> {
        self.file.lock().await
    }
}
