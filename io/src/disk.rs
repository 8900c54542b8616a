//! What a disk can do. Everything below the data directory goes through these two traits, so that the simulator can stand in for the
//! machine and lose what a machine may lose.
//!
//! The contract, which a simulated disk takes at its word:
//!
//! * Bytes are durable only after `sync_data` or `sync_all` of their file has returned without an error. Before that a power cut may
//!   keep all, some or none of them, cut at sector boundaries and in any order.
//! * A directory entry – a file created, renamed or removed – is durable only after `sync_dir` of its directory has returned. Before
//!   that a power cut may undo it, whatever was synced *inside* the file.
//! * Hence the rule of this crate: **whoever relies on a create, rename or remove syncs the directory first**, before the next step
//!   that would be wrong without it, and syncs a file's bytes before the rename that gives them their final name.
//! * After a failed sync nobody knows what is on the disk: the pages may be marked clean although they were lost. The file is not
//!   written or synced again.
//!
//! The methods are async because the simulator must be able to pause inside them. The real disk blocks in place: its callers that
//! write much (the log, the store) own a thread in production, given to them at the composition root.

mod memory;
mod real;
pub mod shrink;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

pub use memory::{MemoryDisk, MemoryFile};
pub(crate) use real::allocate;
pub use real::{RealDisk, RealFile};

/// How a file is opened.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Access {
    /// To read; the file must exist.
    Read,
    /// To read and write; the file must exist.
    Write,
    /// To read and write; made (mode 0600) if there is none, otherwise opened as it is.
    WriteOrCreate,
    /// To read and write; made (mode 0600), and an error if the name is taken.
    CreateNew,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else: a socket, a device, a dangling link.
    Other,
}

/// What is known of a name without opening it. Links are followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Length in bytes, of a file.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
}

/// The answer to a request for a file's lock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lock {
    /// It is ours until the file is dropped.
    Taken,
    /// Somebody else – another process, or another open file of this one – has it.
    Elsewhere,
}

/// Files and directory entries.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: File;

    /// Opens a file.
    fn open(&self, path: &Path, access: Access) -> impl Future<Output = io::Result<Self::File>> + Send;

    /// Makes a directory with mode 0700, and those above it that are missing.
    fn create_dir_all(&self, path: &Path) -> impl Future<Output = io::Result<()>> + Send;

    /// The names in a directory, sorted.
    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<OsString>>> + Send;

    /// Gives a file or directory another name, replacing a file of that name.
    fn rename(&self, source: &Path, target: &Path) -> impl Future<Output = io::Result<()>> + Send;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> impl Future<Output = io::Result<()>> + Send;

    /// Removes a directory and everything in it.
    fn remove_dir_all(&self, path: &Path) -> impl Future<Output = io::Result<()>> + Send;

    /// What a name stands for; `NotFound` if there is no such name.
    fn stat(&self, path: &Path) -> impl Future<Output = io::Result<Stat>> + Send;

    /// Makes the entries of a directory durable.
    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> + Send;
}

/// One open file. Its lock, if it was taken, is dropped with it.
pub trait File: Send + Sync + 'static {
    /// Reads up to `buffer.len()` bytes; zero means the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> impl Future<Output = io::Result<usize>> + Send;

    /// The first place from `offset` on at which there may be another byte than zero, as far as that is known without reading; `None` if there is none.
    fn data_from(&self, offset: u64) -> impl Future<Output = io::Result<Option<u64>>> + Send {
        async move { Ok(Some(offset)) }
    }

    /// Writes all the bytes, making the file longer where needed.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> impl Future<Output = io::Result<()>> + Send;

    /// Makes the bytes, and the length needed to read them back, durable.
    fn sync_data(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Makes the bytes and everything else known of the file durable.
    fn sync_all(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// The length in bytes.
    fn size(&self) -> impl Future<Output = io::Result<u64>> + Send;

    /// Cuts the file, or makes it longer with zeros that need no room yet.
    fn set_size(&self, size_bytes: u64) -> impl Future<Output = io::Result<()>> + Send;

    /// Makes the file at least this long, with zeros, and takes the room for it now: a full disk is an error here and not later.
    fn allocate(&self, size_bytes: u64) -> impl Future<Output = io::Result<()>> + Send;

    /// Tries to take the exclusive lock, without waiting. The file must be open for writing.
    fn lock(&self) -> impl Future<Output = io::Result<Lock>> + Send;
}

/// Reads a whole file that must not be longer than `bytes_max`.
pub async fn read_all<D: Disk>(disk: &D, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Access::Read).await?;
    let size = file.size().await?;
    if size > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("{size} bytes are more than the {bytes_max} that such a file may have"),
        ));
    }
    let mut bytes = vec![0; usize::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?];
    let mut read = 0;
    while read < bytes.len() {
        let count = file.read_at(&mut bytes[read..], read as u64).await?;
        if count == 0 {
            break;
        }
        read += count;
    }
    bytes.truncate(read);
    Ok(bytes)
}

/// Writes a file whole or not at all: under a temporary name, synced, renamed, and the directory synced.
///
/// A left-over temporary file starts with `tmp`, as etcd's do, and may be removed at any start.
pub async fn write_whole<D: Disk>(disk: &D, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let staged = dir.join(format!("tmp.{name}"));
    let file = disk.open(&staged, Access::WriteOrCreate).await?;
    file.set_size(0).await?;
    file.write_all_at(bytes, 0).await?;
    file.sync_all().await?;
    drop(file);
    disk.rename(&staged, &dir.join(name)).await?;
    disk.sync_dir(dir).await
}

/// Whether there is anything of that name.
pub async fn exists<D: Disk>(disk: &D, path: &Path) -> io::Result<bool> {
    match disk.stat(path).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where a damaged file may be set aside: `<name>.broken`, as etcd does, or a numbered one if that is taken.
pub async fn free_name<D: Disk>(disk: &D, path: &Path) -> io::Result<PathBuf> {
    let mut number = 0_u64;
    loop {
        let mut name = OsString::from(path);
        name.push(if number == 0 { ".broken".to_owned() } else { format!(".{number}.broken") });
        let candidate = PathBuf::from(name);
        if !exists(disk, &candidate).await? {
            return Ok(candidate);
        }
        number += 1;
    }
}
