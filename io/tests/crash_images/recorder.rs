//! What the system was asked to do below a directory, in order.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// Names a file, whatever its path.
pub(crate) type FileId = usize;

/// What a name stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Node {
    File(FileId),
    Directory,
}

/// One thing that was asked for, and done. Paths are below the root.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    /// A file that was not there before.
    MakeFile {
        path: PathBuf,
        file: FileId,
    },
    MakeDirectory {
        path: PathBuf,
    },
    Write {
        file: FileId,
        offset: u64,
        bytes: Vec<u8>,
    },
    /// The end of a write through a descriptor that syncs what it writes, and nothing else.
    Written {
        file: FileId,
        offset: u64,
        length: u64,
    },
    Resize {
        file: FileId,
        size: u64,
    },
    /// At least so long.
    Allocate {
        file: FileId,
        size: u64,
    },
    Sync {
        file: FileId,
    },
    SyncDirectory {
        path: PathBuf,
    },
    /// With what moves.
    Rename {
        from: PathBuf,
        to: PathBuf,
        node: Node,
    },
    Remove {
        path: PathBuf,
    },
    /// Whoever asked was told that what it numbers so is durable.
    Acknowledged {
        number: usize,
    },
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { file, offset, bytes } => {
                write!(f, "Write {{ file: {file}, at: {offset}, {} bytes }}", bytes.len())
            }
            other => write!(f, "{other:?}"),
        }
    }
}

#[derive(Default)]
struct Recording {
    root: PathBuf,
    /// What is there now.
    names: BTreeMap<PathBuf, Node>,
    files: usize,
    calls: Vec<Call>,
}

/// Recordings under way. Tests run side by side, each below a root of its own.
static RECORDINGS: Mutex<Vec<Recording>> = Mutex::new(Vec::new());

fn recordings() -> MutexGuard<'static, Vec<Recording>> {
    RECORDINGS.lock().unwrap()
}

/// A recording under way.
pub(crate) struct Recorder {
    root: PathBuf,
}

impl Recorder {
    /// Records what happens below `root`, which is empty.
    pub(crate) fn start(root: &Path) -> Self {
        let root = root.canonicalize().unwrap();
        recordings().push(Recording { root: root.clone(), ..Recording::default() });
        Self { root }
    }

    /// Records what happens below `root` from now on. What is there already comes first, as calls that made it and made it durable: so many they are.
    pub(crate) fn take_over(root: &Path) -> (Self, usize) {
        let root = root.canonicalize().unwrap();
        let mut recording = Recording { root: root.clone(), ..Recording::default() };
        recording.find(Path::new(""));
        let found = recording.calls.len();
        recordings().push(recording);
        (Self { root }, found)
    }

    pub(crate) fn acknowledge(&self, number: usize) {
        on_calls_below(&self.root, |recording, _| recording.calls.push(Call::Acknowledged { number }));
    }

    pub(crate) fn finish(self) -> Vec<Call> {
        let mut recordings = recordings();
        let place = recordings.iter().position(|recording| recording.root == self.root).unwrap();
        recordings.swap_remove(place).calls
    }
}

impl Recording {
    fn find(&mut self, directory: &Path) {
        let names = fs::read_dir(self.root.join(directory)).unwrap().map(|entry| entry.unwrap().file_name());
        let mut paths: Vec<PathBuf> = names.map(|name| directory.join(name)).collect();
        paths.sort();
        for path in paths.iter().filter(|path| !is_of_this_process_only(path)) {
            let real = self.root.join(path);
            if real.is_dir() {
                self.make_directories(path);
                self.find(path);
            } else {
                let file = self.file(path);
                self.calls.push(Call::Write { file, offset: 0, bytes: fs::read(&real).unwrap() });
                self.calls.push(Call::Sync { file });
            }
        }
        self.calls.push(Call::SyncDirectory { path: directory.to_owned() });
    }

    fn make_directories(&mut self, path: &Path) {
        if path.as_os_str().is_empty() || self.names.contains_key(path) {
            return;
        }
        self.make_directories(path.parent().unwrap());
        self.names.insert(path.to_owned(), Node::Directory);
        self.calls.push(Call::MakeDirectory { path: path.to_owned() });
    }

    fn file(&mut self, path: &Path) -> FileId {
        if let Some(Node::File(file)) = self.names.get(path) {
            return *file;
        }
        self.make_directories(path.parent().unwrap());
        let file = self.files;
        self.files += 1;
        self.names.insert(path.to_owned(), Node::File(file));
        self.calls.push(Call::MakeFile { path: path.to_owned(), file });
        file
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let moved: Vec<PathBuf> = self.names.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            let node = self.names.remove(&path).unwrap();
            let rest = path.strip_prefix(from).unwrap();
            let target = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            self.names.insert(target, node);
        }
        let node = self.names[to];
        self.calls.push(Call::Rename { from: from.to_owned(), to: to.to_owned(), node });
    }
}

/// LMDB's table of readers is of no use to the next process, and is not part of an image.
fn is_of_this_process_only(path: &Path) -> bool {
    path.ends_with("lock.mdb")
}

fn on_calls_below(path: &Path, record: impl FnOnce(&mut Recording, &Path)) {
    if is_of_this_process_only(path) {
        return;
    }
    let mut recordings = recordings();
    let Some(recording) = recordings.iter_mut().find(|recording| path.starts_with(&recording.root)) else { return };
    let below = path.strip_prefix(&recording.root).unwrap().to_owned();
    record(recording, &below);
}

/// The path of an open file or directory now; none once it has lost its name.
pub(crate) fn path_of(fd: i32) -> Option<PathBuf> {
    if recordings().is_empty() {
        return None;
    }
    let path = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    let has_name = !path.as_os_str().as_encoded_bytes().ends_with(b" (deleted)");
    has_name.then_some(path)
}

fn on_file(fd: i32, record: impl FnOnce(&mut Recording, FileId)) {
    let Some(path) = path_of(fd) else { return };
    on_calls_below(&path, |recording, path| {
        let file = recording.file(path);
        record(recording, file);
    });
}

pub(crate) fn on_write(fd: i32, offset: u64, bytes: &[u8], is_synchronous: bool) {
    on_file(fd, |recording, file| {
        recording.calls.push(Call::Write { file, offset, bytes: bytes.to_vec() });
        if is_synchronous {
            recording.calls.push(Call::Written { file, offset, length: bytes.len() as u64 });
        }
    });
}

pub(crate) fn on_resize(fd: i32, size: u64) {
    on_file(fd, |recording, file| recording.calls.push(Call::Resize { file, size }));
}

pub(crate) fn on_allocate(fd: i32, size: u64) {
    on_file(fd, |recording, file| recording.calls.push(Call::Allocate { file, size }));
}

pub(crate) fn on_sync(fd: i32) {
    let Some(path) = path_of(fd) else { return };
    let is_directory = path.is_dir();
    on_calls_below(&path, |recording, path| {
        if is_directory {
            recording.make_directories(path);
            recording.calls.push(Call::SyncDirectory { path: path.to_owned() });
        } else {
            let file = recording.file(path);
            recording.calls.push(Call::Sync { file });
        }
    });
}

pub(crate) fn on_rename(from: &Path, to: &Path) {
    on_calls_below(from, |recording, from| {
        let to = to.strip_prefix(&recording.root).unwrap().to_owned();
        recording.rename(from, &to);
    });
}

pub(crate) fn on_remove(path: &Path) {
    on_calls_below(path, |recording, path| {
        if recording.names.remove(path).is_some() {
            recording.calls.push(Call::Remove { path: path.to_owned() });
        }
    });
}
