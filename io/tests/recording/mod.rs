//! A disk in memory that notes, in order, every call that changes something or makes it durable.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use detcd_io::disk::{Access, Disk, File, Lock, MemoryDisk, MemoryFile, Stat};

#[derive(Clone, Default)]
pub(crate) struct RecordingDisk {
    pub(crate) memory: MemoryDisk,
    calls: Arc<Mutex<Vec<String>>>,
}

pub(crate) struct RecordingFile {
    file: MemoryFile,
    path: PathBuf,
    disk: RecordingDisk,
}

impl RecordingDisk {
    /// The calls since the last look.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    fn note(&self, call: &str, path: &Path) {
        self.calls.lock().unwrap().push(format!("{call} {}", path.display()));
    }
}

impl Disk for RecordingDisk {
    type File = RecordingFile;

    async fn open(&self, path: &Path, access: Access) -> io::Result<RecordingFile> {
        let is_new = self.memory.stat(path).await.is_err();
        let file = self.memory.open(path, access).await?;
        if is_new {
            self.note("create", path);
        }
        Ok(RecordingFile { file, path: path.to_owned(), disk: self.clone() })
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.note("mkdir", path);
        self.memory.create_dir_all(path).await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.memory.list(path).await
    }

    async fn rename(&self, source: &Path, target: &Path) -> io::Result<()> {
        self.note(&format!("rename {} to", source.display()), target);
        self.memory.rename(source, target).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.note("remove", path);
        self.memory.remove_file(path).await
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.note("remove all", path);
        self.memory.remove_dir_all(path).await
    }

    async fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.memory.stat(path).await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.note("sync", path);
        self.memory.sync_dir(path).await
    }
}

impl File for RecordingFile {
    async fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset).await
    }

    async fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.note("write", &self.path);
        self.file.write_all_at(bytes, offset).await
    }

    async fn sync_data(&self) -> io::Result<()> {
        self.disk.note("sync data", &self.path);
        self.file.sync_data().await
    }

    async fn sync_all(&self) -> io::Result<()> {
        self.disk.note("sync", &self.path);
        self.file.sync_all().await
    }

    async fn size(&self) -> io::Result<u64> {
        self.file.size().await
    }

    async fn set_size(&self, size_bytes: u64) -> io::Result<()> {
        self.disk.note(if size_bytes == 0 { "empty" } else { "cut" }, &self.path);
        self.file.set_size(size_bytes).await
    }

    async fn allocate(&self, size_bytes: u64) -> io::Result<()> {
        self.disk.note("allocate", &self.path);
        self.file.allocate(size_bytes).await
    }

    async fn lock(&self) -> io::Result<Lock> {
        self.file.lock().await
    }
}
