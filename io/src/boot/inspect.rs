//! Looks at the directories and says what they are; takes them when the plan says so.
//!
//! Invariant: [`inspect`] changes nothing, so a refused start leaves no trace in the data directory. [`claim`] is the first step of
//! the execution: it makes the directory, takes the one exclusive lock and tries whether a file can be made, in this order, so
//! that a second process on the directory has written nothing when it is turned away. What was seen before the lock was taken may be old:
//! look and plan once more while holding it.

use std::io;
use std::path::{Path, PathBuf};

use super::found::{Found, MemberFound, Presence};
use crate::disk::{Access, Disk, File as _, Kind, Lock};
use crate::fault::Fault;

/// Where a member keeps its things.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Places {
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// `--wal-dir`, or its place inside the data directory.
    pub wal_dir: PathBuf,
}

/// The data directory is ours as long as this lives.
#[derive(Debug)]
pub struct Claim<F> {
    _lock: F,
}

impl Places {
    /// The places of a member whose log may lie apart.
    #[must_use]
    pub fn new(data_dir: PathBuf, wal_dir: Option<PathBuf>) -> Self {
        let wal_dir = wal_dir.unwrap_or_else(|| data_dir.join("member").join("wal"));
        Self { data_dir, wal_dir }
    }

    /// Everything of the member except a log that lies apart.
    #[must_use]
    pub fn member(&self) -> PathBuf {
        self.data_dir.join("member")
    }

    /// Our store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.member().join("lmdb")
    }

    /// Our store while it is made from etcd's.
    #[must_use]
    pub fn staged_store(&self) -> PathBuf {
        self.member().join("lmdb.tmp")
    }

    /// etcd's store.
    #[must_use]
    pub fn etcd_store(&self) -> PathBuf {
        self.snap().join("db")
    }

    /// Snapshot files.
    #[must_use]
    pub fn snap(&self) -> PathBuf {
        self.member().join("snap")
    }

    /// The file whose lock means the whole directory.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.member().join("lock")
    }
}

/// Says what the directories are. Never fails: what cannot be read is `Damaged`.
pub async fn inspect<D: Disk>(disk: &D, places: &Places) -> Found {
    match look(disk, places).await {
        Ok(found) | Err(found) => found,
    }
}

/// Takes the directory for this process.
///
/// # Errors
/// `Locked` or `NotWritable`, to be planned with like any other observation.
pub async fn claim<D: Disk>(disk: &D, places: &Places) -> Result<Claim<D::File>, Found> {
    disk.create_dir_all(&places.member()).await.map_err(|error| not_writable(&places.data_dir, &error))?;
    let path = places.lock();
    let lock = disk.open(&path, Access::WriteOrCreate).await.map_err(|error| not_writable(&path, &error))?;
    match lock.lock().await.map_err(|error| not_writable(&path, &error))? {
        Lock::Taken => {}
        Lock::Elsewhere => return Err(Found::Locked { path: path.display().to_string() }),
    }
    let touched = places.data_dir.join(TOUCH);
    disk.open(&touched, Access::WriteOrCreate).await.map_err(|error| not_writable(&places.data_dir, &error))?;
    disk.remove_file(&touched).await.map_err(|error| not_writable(&places.data_dir, &error))?;
    Ok(Claim { _lock: lock })
}

/// The file that is made and removed to see whether one can be made; etcd uses the same name.
const TOUCH: &str = ".touch";

/// In our store from the moment it has its name until etcd's has another one.
pub(super) const MARKER: &str = "importing";

async fn look<D: Disk>(disk: &D, places: &Places) -> Result<Found, Found> {
    let log = has_segment(disk, &places.wal_dir).await?;
    let Some(names) = list_names(disk, &places.data_dir).await? else {
        return Ok(with_log_apart(log, Found::Absent));
    };
    let has = |name: &str| names.iter().any(|other| other == name);
    let foreign: Vec<String> =
        names.iter().filter(|name| !matches!(name.as_str(), "member" | "proxy" | TOUCH)).cloned().collect();
    match (has("member"), has("proxy")) {
        (true, true) => return Ok(Found::Both),
        (false, true) => return Ok(Found::Proxy),
        (true, false) => {}
        (false, false) if has("lmdb") || (has("wal") && has("snap")) => {
            return Ok(Found::InsideMember { names: foreign });
        }
        (false, false) if foreign.is_empty() => return Ok(with_log_apart(log, Found::Empty)),
        (false, false) => return Ok(with_log_apart(log, Found::Foreign { names: foreign })),
    }
    if names_of(disk, &places.member()).await?.iter().any(|name| name == "lmdb") {
        expect_directory(disk, &places.store()).await?;
    }
    // A directory that holds nothing yet is a store that was never made.
    let in_store = names_of(disk, &places.store()).await?;
    let etcd_store = match disk.stat(&places.etcd_store()).await {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(damaged(&places.snap(), &error.to_string())),
    };
    Ok(Found::Member(MemberFound {
        log,
        store: Presence::when(!in_store.is_empty()),
        etcd_store: Presence::when(etcd_store),
        import_marker: Presence::when(in_store.iter().any(|name| name == MARKER)),
        foreign,
    }))
}

/// A log in a directory of its own counts even where the data directory is gone: the store is made from it again.
fn with_log_apart(log: Presence, otherwise: Found) -> Found {
    let foreign = match &otherwise {
        Found::Foreign { names } => names.clone(),
        _ => Vec::new(),
    };
    match log {
        Presence::Present => Found::Member(MemberFound { log, foreign, ..MemberFound::default() }),
        Presence::Absent => otherwise,
    }
}

/// Whether a directory holds a segment of a log. This is how etcd tells that a member was initialized.
async fn has_segment<D: Disk>(disk: &D, wal_dir: &Path) -> Result<Presence, Found> {
    let names = list_names(disk, wal_dir).await?.unwrap_or_default();
    Ok(Presence::when(names.iter().any(|name| name.ends_with(".wal"))))
}

async fn names_of<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<String>, Found> {
    Ok(list_names(disk, directory).await?.unwrap_or_default())
}

/// The names in a directory, or `None` where there is no such directory.
async fn list_names<D: Disk>(disk: &D, directory: &Path) -> Result<Option<Vec<String>>, Found> {
    match disk.stat(directory).await {
        Ok(stat) if stat.kind == Kind::Directory => {}
        Ok(_) => return Err(damaged(directory, "not a directory")),
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(damaged(directory, &error.to_string())),
    }
    let names = disk.list(directory).await.map_err(|error| damaged(directory, &error.to_string()))?;
    Ok(Some(names.iter().map(|name| name.to_string_lossy().into_owned()).collect()))
}

async fn expect_directory<D: Disk>(disk: &D, path: &Path) -> Result<(), Found> {
    let stat = disk.stat(path).await.map_err(|error| damaged(path, &error.to_string()))?;
    if stat.kind == Kind::Directory { Ok(()) } else { Err(damaged(path, "not a directory")) }
}

/// Makes the entry of a directory durable, and those of the directories above it, whoever made them: an earlier process may have been
/// killed between making one and syncing it, and nothing shows that.
pub(super) async fn settle<D: Disk>(disk: &D, directory: &Path) -> Result<(), Fault> {
    for parent in directory.ancestors().skip(1) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match disk.sync_dir(parent).await {
            // What this process may not open, no process of this member has made.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            done => done.map_err(Fault::disk("sync", parent))?,
        }
    }
    Ok(())
}

/// A path below something that is no directory is as absent as one that nobody made; the thing in the way is found on its own turn.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn damaged(path: &Path, cause: &str) -> Found {
    Found::Damaged { path: path.display().to_string(), cause: cause.to_owned() }
}

fn not_writable(path: &Path, error: &io::Error) -> Found {
    Found::NotWritable { path: path.display().to_string(), cause: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::disk::MemoryDisk;

    /// The disk in memory never waits.
    fn now<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("the disk in memory never waits"),
        }
    }

    fn places(wal_dir: Option<&str>) -> Places {
        Places::new(PathBuf::from("/d"), wal_dir.map(PathBuf::from))
    }

    /// A disk with these files; a name that ends in `/` is a directory.
    fn disk(files: &[&str]) -> MemoryDisk {
        let disk = MemoryDisk::new();
        for file in files {
            match file.strip_suffix('/') {
                Some(directory) => now(disk.create_dir_all(Path::new(directory))).unwrap(),
                None => disk.put(Path::new(file), b"x".to_vec()),
            }
        }
        disk
    }

    fn member(log: bool, store: bool, etcd_store: bool, foreign: &[&str]) -> Found {
        Found::Member(MemberFound {
            log: Presence::when(log),
            store: Presence::when(store),
            etcd_store: Presence::when(etcd_store),
            import_marker: Presence::Absent,
            foreign: foreign.iter().map(|&name| name.to_owned()).collect(),
        })
    }

    fn not_a_directory(path: &str) -> Found {
        Found::Damaged { path: path.to_owned(), cause: "not a directory".to_owned() }
    }

    const SEGMENT: &str = "/d/member/wal/0000000000000000-0000000000000000.wal";

    #[test]
    fn directories_are_told_apart_by_their_names() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<String>>();
        let rows: Vec<(&[&str], Found)> = vec![
            (&[], Found::Absent),
            (&["/d/"], Found::Empty),
            (&["/d/.touch"], Found::Empty),
            (&["/d/lost+found/", "/d/a"], Found::Foreign { names: names(&["a", "lost+found"]) }),
            (&["/d/member/"], member(false, false, false, &[])),
            (&["/d/member/wal.tmp/0.tmp"], member(false, false, false, &[])),
            (&["/d/member/wal/0.tmp"], member(false, false, false, &[])),
            (&[SEGMENT], member(true, false, false, &[])),
            (&[SEGMENT, "/d/member/lmdb/"], member(true, false, false, &[])),
            (&[SEGMENT, "/d/member/lmdb/data.mdb"], member(true, true, false, &[])),
            (&[SEGMENT, "/d/member/lmdb/data.mdb", "/d/b", "/d/a"], member(true, true, false, &["a", "b"])),
            (&["/d/member/lmdb/data.mdb"], member(false, true, false, &[])),
            (&[SEGMENT, "/d/member/snap/db"], member(true, false, true, &[])),
            (&["/d/member/snap/db"], member(false, false, true, &[])),
            (&[SEGMENT, "/d/member/snap/db", "/d/member/lmdb/data.mdb"], member(true, true, true, &[])),
            (&[SEGMENT, "/d/member/snap/0000000000000001-0000000000000001.snap"], member(true, false, false, &[])),
            (&["/d/proxy/"], Found::Proxy),
            (&["/d/proxy/", SEGMENT], Found::Both),
            (&["/d/wal/0.wal", "/d/snap/db"], Found::InsideMember { names: names(&["snap", "wal"]) }),
            (&["/d/lmdb/data.mdb"], Found::InsideMember { names: names(&["lmdb"]) }),
            (&["/d/wal/"], Found::Foreign { names: names(&["wal"]) }),
            (&["/d"], not_a_directory("/d")),
            (&["/d/member"], not_a_directory("/d/member")),
            (&["/d/member/wal"], not_a_directory("/d/member/wal")),
            (&[SEGMENT, "/d/member/lmdb"], not_a_directory("/d/member/lmdb")),
        ];
        for (files, expected) in rows {
            assert_eq!(now(inspect(&disk(files), &places(None))), expected, "{files:?}");
        }
    }

    #[test]
    fn an_import_that_was_cut_short_shows() {
        let unfinished = |etcd_store: bool| {
            let Found::Member(found) = member(true, true, etcd_store, &[]) else { unreachable!() };
            Found::Member(MemberFound { import_marker: Presence::Present, ..found })
        };
        let rows: Vec<(&[&str], Found)> = vec![
            (&[SEGMENT, "/d/member/snap/db", "/d/member/lmdb.tmp/data.mdb"], member(true, false, true, &[])),
            (&[SEGMENT, "/d/member/snap/db", "/d/member/lmdb.tmp/importing"], member(true, false, true, &[])),
            (&[SEGMENT, "/d/member/snap/db", "/d/member/lmdb/importing"], unfinished(true)),
            (&[SEGMENT, "/d/member/snap/db.imported", "/d/member/lmdb/importing"], unfinished(false)),
            (&[SEGMENT, "/d/member/snap/db.imported", "/d/member/lmdb/data.mdb"], member(true, true, false, &[])),
        ];
        for (files, expected) in rows {
            assert_eq!(now(inspect(&disk(files), &places(None))), expected, "{files:?}");
        }
    }

    #[test]
    fn a_log_apart_counts_and_the_usual_place_does_not() {
        let rows: Vec<(&[&str], Found)> = vec![
            (&["/w/0.wal"], member(true, false, false, &[])),
            (&["/w/0.wal", "/d/"], member(true, false, false, &[])),
            (&["/w/0.wal", "/d/a"], member(true, false, false, &["a"])),
            (&["/w/0.wal", "/d/member/lmdb/data.mdb"], member(true, true, false, &[])),
            (&["/w/", SEGMENT, "/d/member/lmdb/data.mdb"], member(false, true, false, &[])),
            (&["/w"], not_a_directory("/w")),
        ];
        for (files, expected) in rows {
            assert_eq!(now(inspect(&disk(files), &places(Some("/w")))), expected, "{files:?}");
        }
    }

    #[test]
    fn one_process_at_a_time() {
        let disk = disk(&[]);
        let first = now(claim(&disk, &places(None))).expect("nobody is there");
        assert_eq!(now(disk.list(Path::new("/d"))).unwrap(), ["member"], "the touched file is gone");
        let second = now(claim(&disk, &places(None)));
        assert_eq!(second.err(), Some(Found::Locked { path: "/d/member/lock".to_owned() }));
        drop(first);
        assert!(now(claim(&disk, &places(None))).is_ok(), "the lock goes with its holder");
        assert_eq!(now(inspect(&disk, &places(None))), member(false, false, false, &[]), "a lock is no member yet");
    }

    #[test]
    fn a_place_that_takes_no_directory_is_not_writable() {
        let disk = disk(&["/d/member"]);
        assert!(matches!(now(claim(&disk, &places(None))).err(), Some(Found::NotWritable { .. })));
    }
}
