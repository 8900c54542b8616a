//! A disk in memory, for tests and fuzzing: quick, shared by its clones, and able to be full or to fail one sync.
//!
//! The invariant: it behaves like the real disk as long as nothing crashes (locks between open files included). It loses nothing at a
//! crash; the simulator's disk does.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Access, Disk, File, Kind, Lock, Stat};

/// A disk in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    tree: Arc<Mutex<Tree>>,
}

/// An open file of a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryFile {
    tree: Arc<Mutex<Tree>>,
    content: Arc<Mutex<Content>>,
    access: Access,
    handle: u64,
}

#[derive(Debug, Default)]
struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
    handles: u64,
    syncs: u64,
    allocation_max: Option<u64>,
    failing_syncs: u64,
}

#[derive(Clone, Debug)]
enum Node {
    Directory,
    File(Arc<Mutex<Content>>),
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    holder: Option<u64>,
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on `allocate` beyond this length finds the disk full; `None` lifts that.
    pub fn limit_allocation(&self, bytes_max: Option<u64>) {
        held(&self.tree).allocation_max = bytes_max;
    }

    /// The next `count` syncs of a file fail.
    pub fn fail_syncs(&self, count: u64) {
        held(&self.tree).failing_syncs = count;
    }

    /// How many syncs of files were asked for.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        held(&self.tree).syncs
    }

    /// The bytes of a file, or `None` if there is no such file.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        match held(&self.tree).nodes.get(path) {
            Some(Node::File(content)) => Some(held(content).bytes.clone()),
            Some(Node::Directory) | None => None,
        }
    }

    /// Puts a file with these bytes in place, directories above it included.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut tree = held(&self.tree);
        if let Some(parent) = path.parent() {
            tree.make_directories(parent);
        }
        let content = Content { bytes, holder: None };
        tree.nodes.insert(path.to_owned(), Node::File(Arc::new(Mutex::new(content))));
    }
}

impl Tree {
    fn make_directories(&mut self, path: &Path) {
        for directory in path.ancestors().filter(|directory| !directory.as_os_str().is_empty()) {
            self.nodes.entry(directory.to_owned()).or_insert(Node::Directory);
        }
    }

    fn node(&self, path: &Path) -> io::Result<&Node> {
        self.nodes.get(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn below(&self, path: &Path) -> Vec<PathBuf> {
        self.nodes.keys().filter(|name| name.starts_with(path)).cloned().collect()
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    async fn open(&self, path: &Path, access: Access) -> io::Result<MemoryFile> {
        let mut tree = held(&self.tree);
        let found = match tree.nodes.get(path) {
            Some(Node::Directory) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(Node::File(content)) => Some(Arc::clone(content)),
            None => None,
        };
        let content = match (found, access) {
            (Some(_), Access::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(content), _) => content,
            (None, Access::Read | Access::Write) => return Err(io::ErrorKind::NotFound.into()),
            (None, Access::WriteOrCreate | Access::CreateNew) => {
                let content = Arc::new(Mutex::new(Content::default()));
                if let Some(parent) = path.parent()
                    && !parent.as_os_str().is_empty()
                {
                    tree.node(parent)?;
                }
                tree.nodes.insert(path.to_owned(), Node::File(Arc::clone(&content)));
                content
            }
        };
        tree.handles += 1;
        Ok(MemoryFile { tree: Arc::clone(&self.tree), content, access, handle: tree.handles })
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut tree = held(&self.tree);
        if let Some(Node::File(_)) = tree.nodes.get(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        tree.make_directories(path);
        Ok(())
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let tree = held(&self.tree);
        if let Node::File(_) = tree.node(path)? {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let children = tree.nodes.keys().filter(|name| name.parent() == Some(path));
        Ok(children.filter_map(|name| name.file_name()).map(OsString::from).collect())
    }

    async fn rename(&self, source: &Path, target: &Path) -> io::Result<()> {
        let mut tree = held(&self.tree);
        if let Node::Directory = tree.node(source)?
            && tree.below(target).len() > 1
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        for name in tree.below(source) {
            let rest = name.strip_prefix(source).map_err(io::Error::other)?.to_owned();
            let moved = if rest.as_os_str().is_empty() { target.to_owned() } else { target.join(rest) };
            if let Some(node) = tree.nodes.remove(&name) {
                tree.nodes.insert(moved, node);
            }
        }
        Ok(())
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut tree = held(&self.tree);
        match tree.node(path)? {
            Node::Directory => Err(io::ErrorKind::IsADirectory.into()),
            Node::File(_) => {
                tree.nodes.remove(path);
                Ok(())
            }
        }
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut tree = held(&self.tree);
        tree.node(path)?;
        for name in tree.below(path) {
            tree.nodes.remove(&name);
        }
        Ok(())
    }

    async fn stat(&self, path: &Path) -> io::Result<Stat> {
        Ok(match held(&self.tree).node(path)? {
            Node::Directory => Stat { kind: Kind::Directory, size_bytes: 0, mode: 0o700 },
            Node::File(content) => Stat { kind: Kind::File, size_bytes: held(content).bytes.len() as u64, mode: 0o600 },
        })
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // Where relative paths begin, there is always a directory.
        if path == Path::new(".") {
            return Ok(());
        }
        held(&self.tree).node(path).map(drop)
    }
}

impl MemoryFile {
    fn may_write(&self) -> io::Result<()> {
        if self.access == Access::Read { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }
}

impl File for MemoryFile {
    async fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = held(&self.content);
        let start = content.bytes.len().min(place(offset)?);
        let count = buffer.len().min(content.bytes.len() - start);
        buffer[..count].copy_from_slice(&content.bytes[start..start + count]);
        Ok(count)
    }

    async fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.may_write()?;
        let mut content = held(&self.content);
        let start = place(offset)?;
        let end = start + bytes.len();
        if content.bytes.len() < end {
            content.bytes.resize(end, 0);
        }
        content.bytes[start..end].copy_from_slice(bytes);
        Ok(())
    }

    async fn sync_data(&self) -> io::Result<()> {
        let mut tree = held(&self.tree);
        tree.syncs += 1;
        if tree.failing_syncs > 0 {
            tree.failing_syncs -= 1;
            return Err(io::Error::other("the disk failed"));
        }
        Ok(())
    }

    async fn sync_all(&self) -> io::Result<()> {
        self.sync_data().await
    }

    async fn size(&self) -> io::Result<u64> {
        Ok(held(&self.content).bytes.len() as u64)
    }

    async fn set_size(&self, size_bytes: u64) -> io::Result<()> {
        self.may_write()?;
        held(&self.content).bytes.resize(place(size_bytes)?, 0);
        Ok(())
    }

    async fn allocate(&self, size_bytes: u64) -> io::Result<()> {
        self.may_write()?;
        if held(&self.tree).allocation_max.is_some_and(|bytes_max| size_bytes > bytes_max) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut content = held(&self.content);
        let size = content.bytes.len().max(place(size_bytes)?);
        content.bytes.resize(size, 0);
        Ok(())
    }

    async fn lock(&self) -> io::Result<Lock> {
        self.may_write()?;
        let mut content = held(&self.content);
        if content.holder.is_some_and(|holder| holder != self.handle) {
            return Ok(Lock::Elsewhere);
        }
        content.holder = Some(self.handle);
        Ok(Lock::Taken)
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let mut content = held(&self.content);
        if content.holder == Some(self.handle) {
            content.holder = None;
        }
    }
}

fn held<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nobody panics while holding it")
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
