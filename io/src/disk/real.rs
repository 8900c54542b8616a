//! The machine's own disk: plain system calls that block in place.
//!
//! The invariant: one call of the trait is one thing asked of the system (and its repetition when a signal cut it short); nothing is
//! buffered, retried after an error, or done on another thread.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::{Access, Disk, File, Kind, Lock, Stat};

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// An open file of this machine.
#[derive(Debug)]
pub struct RealFile {
    file: fs::File,
}

impl Disk for RealDisk {
    type File = RealFile;

    async fn open(&self, path: &Path, access: Access) -> io::Result<RealFile> {
        let mut options = fs::OpenOptions::new();
        options.read(true).mode(FILE_MODE);
        match access {
            Access::Read => {}
            Access::Write => {
                options.write(true);
            }
            Access::WriteOrCreate => {
                options.write(true).create(true).truncate(false);
            }
            Access::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(RealFile { file: options.open(path)? })
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    async fn rename(&self, source: &Path, target: &Path) -> io::Result<()> {
        fs::rename(source, target)
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    async fn stat(&self, path: &Path) -> io::Result<Stat> {
        let found = fs::metadata(path)?;
        let kind = match found.file_type() {
            kind if kind.is_file() => Kind::File,
            kind if kind.is_dir() => Kind::Directory,
            _ => Kind::Other,
        };
        Ok(Stat { kind, size_bytes: found.len(), mode: found.mode() & 0o7777 })
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }
}

impl File for RealFile {
    async fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    async fn data_from(&self, offset: u64) -> io::Result<Option<u64>> {
        system::data_from(&self.file, offset)
    }

    async fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    async fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    async fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    async fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    async fn set_size(&self, size_bytes: u64) -> io::Result<()> {
        self.file.set_len(size_bytes)
    }

    async fn allocate(&self, size_bytes: u64) -> io::Result<()> {
        allocate(&self.file, size_bytes)
    }

    async fn lock(&self) -> io::Result<Lock> {
        if let Some(answer) = system::lock(&self.file)? {
            return Ok(answer);
        }
        match self.file.try_lock() {
            Ok(()) => Ok(Lock::Taken),
            Err(fs::TryLockError::WouldBlock) => Ok(Lock::Elsewhere),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Makes a file at least this long, and takes the room for it now where the file system can.
pub(crate) fn allocate(file: &fs::File, size_bytes: u64) -> io::Result<()> {
    if system::allocate(file, size_bytes)? == system::Answer::Unsupported && file.metadata()?.len() < size_bytes {
        file.set_len(size_bytes)?;
    }
    Ok(())
}

/// What the standard library does not offer. etcd locks with open file description locks, which do not see `flock`: to keep an etcd
/// out, and to be kept out by one, the same kind is used here, and `flock` only where a file system lacks it (as etcd does).
#[cfg(target_os = "linux")]
mod system {
    use std::fs;
    use std::io;

    use nix::errno::Errno;
    use nix::fcntl::{FallocateFlags, FcntlArg, fallocate, fcntl};
    use nix::libc;
    use nix::unistd::{Whence, lseek};

    use crate::disk::Lock;

    #[derive(Debug, Eq, PartialEq)]
    pub(super) enum Answer {
        Done,
        Unsupported,
    }

    pub(super) fn allocate(file: &fs::File, size_bytes: u64) -> io::Result<Answer> {
        let size = i64::try_from(size_bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        loop {
            return match fallocate(file, FallocateFlags::empty(), 0, size) {
                Ok(()) => Ok(Answer::Done),
                Err(Errno::EINTR) => continue,
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(Answer::Unsupported),
                Err(errno) => Err(errno.into()),
            };
        }
    }

    /// Room that was taken and never written counts as no data.
    pub(super) fn data_from(file: &fs::File, offset: u64) -> io::Result<Option<u64>> {
        let place = i64::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        match lseek(file, place, Whence::SeekData) {
            Ok(data) => Ok(Some(data.unsigned_abs())),
            Err(Errno::ENXIO) => Ok(None),
            // Not every file system knows.
            Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(Some(offset)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// `None` where this kind of lock does not exist.
    pub(super) fn lock(file: &fs::File) -> io::Result<Option<Lock>> {
        let exclusive = i16::try_from(libc::F_WRLCK).map_err(io::Error::other)?;
        let from_start = i16::try_from(libc::SEEK_SET).map_err(io::Error::other)?;
        let whole = libc::flock { l_type: exclusive, l_whence: from_start, l_start: 0, l_len: 0, l_pid: 0 };
        match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
            Ok(_) => Ok(Some(Lock::Taken)),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(Some(Lock::Elsewhere)),
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::ENOLCK) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Elsewhere neither exists.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::fs;
    use std::io;

    use crate::disk::Lock;

    #[derive(Debug, Eq, PartialEq)]
    pub(super) enum Answer {
        Unsupported,
    }

    pub(super) fn allocate(_: &fs::File, _: u64) -> io::Result<Answer> {
        Ok(Answer::Unsupported)
    }

    pub(super) fn data_from(_: &fs::File, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }

    pub(super) fn lock(_: &fs::File) -> io::Result<Option<Lock>> {
        Ok(None)
    }
}
