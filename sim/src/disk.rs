//! A disk that loses what a machine may lose. Its state lies in the [`Machine`](crate::machine::Machine), outside the member.
//!
//! The invariant: it keeps the contract of [`detcd_io::disk`] to the letter and nothing beyond it. Locks go with the life that took them.

pub mod content;
pub mod image;

use std::ffi::OsString;
use std::io;
use std::path::Path;

use detcd_io::disk::{Access, Disk, File, Kind, Lock, Stat};

use self::image::{Inode, Node};
use crate::machine::{Life, Work};

/// The disk as one life of a member sees it.
#[derive(Clone)]
pub struct SimDisk {
    life: Life,
}

/// An open file of a [`SimDisk`].
pub struct SimFile {
    life: Life,
    inode: Inode,
    access: Access,
    handle: u64,
    name: String,
}

impl SimDisk {
    /// The disk of this life.
    #[must_use]
    pub const fn new(life: Life) -> Self {
        Self { life }
    }
}

fn said(what: &str, path: &Path) -> String {
    format!("{what} {}", path.display())
}

impl Disk for SimDisk {
    type File = SimFile;

    async fn open(&self, path: &Path, access: Access) -> io::Result<SimFile> {
        let work = if access == Access::Read { Work::Read } else { Work::Write };
        let opened = self.life.call(
            work,
            || said("open", path),
            |inner| {
                let inode = match (inner.image.node(path), access) {
                    (Ok(Node::Directory(_)), _) => return Err(io::ErrorKind::IsADirectory.into()),
                    (Ok(Node::File(_)), Access::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
                    (Ok(Node::File(inode)), _) => inode,
                    (Err(error), Access::Read | Access::Write) => return Err(error),
                    (Err(_), Access::WriteOrCreate | Access::CreateNew) => inner.image.create(path)?,
                };
                Ok((inode, inner.next_handle()))
            },
        );
        let (inode, handle) = opened.await?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(SimFile { life: self.life.clone(), inode, access, handle, name })
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.life.call(Work::Write, || said("mkdir", path), |inner| inner.image.create_dir_all(path)).await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.life.call(Work::Read, || said("list", path), |inner| inner.image.list(path)).await
    }

    async fn rename(&self, source: &Path, target: &Path) -> io::Result<()> {
        let name = || format!("rename {} to {}", source.display(), target.display());
        let is_received = |path: &Path| path.to_string_lossy().contains("/lmdb.received-");
        let work = match (is_received(source), is_received(target)) {
            (true, _) => Work::Install,
            (_, true) => Work::Receive,
            _ => Work::Rename,
        };
        self.life.call(work, name, |inner| inner.image.rename(source, target)).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.life.call(Work::Write, || said("remove", path), |inner| inner.image.remove_file(path)).await
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.life.call(Work::Write, || said("remove all", path), |inner| inner.image.remove_dir_all(path)).await
    }

    async fn stat(&self, path: &Path) -> io::Result<Stat> {
        let stat = self.life.call(
            Work::Read,
            || said("stat", path),
            |inner| {
                Ok(match inner.image.node(path)? {
                    Node::Directory(_) => Stat { kind: Kind::Directory, size_bytes: 0, mode: 0o700 },
                    Node::File(inode) => {
                        let size_bytes = inner.image.content(inode).bytes().len() as u64;
                        Stat { kind: Kind::File, size_bytes, mode: 0o600 }
                    }
                })
            },
        );
        stat.await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.life.call(Work::Sync, || said("sync directory", path), |inner| inner.image.sync_dir(path)).await
    }
}

impl SimFile {
    /// The file, whatever its name.
    #[must_use]
    pub const fn inode(&self) -> Inode {
        self.inode
    }

    fn expect_writable(&self) -> io::Result<()> {
        if self.access == Access::Read { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    async fn sync(&self, what: &str) -> io::Result<()> {
        let name = || format!("{what} {}", self.name);
        let synced = self.life.sync(
            name,
            |inner| inner.image.content(self.inode).mark(),
            |inner, mark| {
                if inner.trouble.failing_syncs == 0 {
                    inner.image.content(self.inode).sync(mark);
                    return Ok(());
                }
                inner.trouble.failing_syncs -= 1;
                inner.excuse();
                inner.trace.line(|| "the sync failed".to_owned());
                let crate::machine::Inner { image, dice, .. } = inner;
                image.content(self.inode).fail_sync(mark, &mut dice.fate);
                Err(io::Error::other("the device reported an error"))
            },
        );
        synced.await
    }

    async fn resize(&self, what: &str, size_bytes: u64, only_longer: bool) -> io::Result<()> {
        self.expect_writable()?;
        let name = || format!("{what} {} to {size_bytes}", self.name);
        let resized = self.life.call(Work::Write, name, |inner| {
            let size = inner.image.content(self.inode).bytes().len() as u64;
            if only_longer {
                if size_bytes <= size {
                    return Ok(());
                }
                inner.check_room(size_bytes - size)?;
            }
            inner.image.content(self.inode).resize(size_bytes);
            Ok(())
        });
        resized.await
    }
}

impl File for SimFile {
    async fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let name = || format!("read {} at {offset}", self.name);
        let read = self.life.call(Work::Read, name, |inner| {
            let bytes = inner.image.content(self.inode).bytes();
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let count = buffer.len().min(bytes.len() - start);
            buffer[..count].copy_from_slice(&bytes[start..start + count]);
            count
        });
        Ok(read.await)
    }

    async fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.expect_writable()?;
        let name = || format!("write {} bytes to {} at {offset}", bytes.len(), self.name);
        let written = self.life.call(Work::Write, name, |inner| {
            let size = inner.image.content(self.inode).bytes().len() as u64;
            let end = offset + bytes.len() as u64;
            if size < end {
                inner.check_room(end - size)?;
            }
            inner.image.content(self.inode).write(offset, bytes);
            Ok(())
        });
        written.await
    }

    async fn sync_data(&self) -> io::Result<()> {
        self.sync("sync data of").await
    }

    async fn sync_all(&self) -> io::Result<()> {
        self.sync("sync all of").await
    }

    async fn size(&self) -> io::Result<u64> {
        let name = || format!("size of {}", self.name);
        Ok(self.life.call(Work::Read, name, |inner| inner.image.content(self.inode).bytes().len() as u64).await)
    }

    async fn set_size(&self, size_bytes: u64) -> io::Result<()> {
        self.resize("resize", size_bytes, false).await
    }

    async fn allocate(&self, size_bytes: u64) -> io::Result<()> {
        self.resize("allocate", size_bytes, true).await
    }

    async fn lock(&self) -> io::Result<Lock> {
        self.expect_writable()?;
        let name = || format!("lock {}", self.name);
        let locked = self.life.call(Work::Write, name, |inner| {
            let content = inner.image.content(self.inode);
            match content.holder {
                Some(holder) if holder != self.handle => Lock::Elsewhere,
                _ => {
                    content.holder = Some(self.handle);
                    Lock::Taken
                }
            }
        });
        Ok(locked.await)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        // After a crash the lock went with the life, and the number may be anything.
        if self.life.is_alive() {
            let mut inner = self.life.peek();
            let content = inner.image.content(self.inode);
            if content.holder == Some(self.handle) {
                content.holder = None;
            }
        }
    }
}
