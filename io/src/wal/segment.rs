//! The files of a log: their names, the one made ahead of need, and the removal of those that are no longer needed.
//!
//! The invariant: sequence numbers in the directory have no gap from the oldest file to the newest, at every moment and after a power
//! cut at every moment. So files appear only by a rename that is synced before anything is written to them for keeps, and go one
//! by one, oldest first, each removal synced before the next.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use detcd_core::ids::Index;

use super::error::WalError;
use super::record::FRAME_HEAD_BYTES;
use crate::disk::{Access, Disk, File, Lock};
use crate::fault::Fault;

/// A file of the log is cut when it has reached this length. Not a power of two: etcd's number.
pub const SEGMENT_BYTES: u64 = 64 * 1000 * 1000;

/// The name of a file of the log: its place in the sequence, and the index of the first entry that may be in it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Name {
    /// Counts from zero, without a gap.
    pub seq: u64,
    /// No entry from here on is in an earlier file, unless it was overwritten later.
    pub index: Index,
}

impl Name {
    /// Reads a file name; `None` if it is none of ours.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (seq, index) = name.strip_suffix(".wal")?.split_once('-')?;
        Some(Self { seq: hex(seq)?, index: Index(hex(index)?) })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.wal", self.seq, self.index.0)
    }
}

/// A file of the log that is open, and locked if the log is open for writing.
pub(crate) struct Segment<F> {
    pub(crate) name: Name,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<F>,
}

impl<F: File> Segment<F> {
    /// Opens a file of the log to append to the log, and takes its lock.
    pub(crate) async fn open<D: Disk<File = F>>(disk: &D, dir: &Path, name: Name) -> Result<Self, Fault> {
        let path = dir.join(name.to_string());
        let file = disk.open(&path, Access::Write).await.map_err(Fault::disk("open", &path))?;
        lock(&file, &path).await?;
        Ok(Self { name, path, file: Arc::new(file) })
    }
}

/// The names of the log's files, oldest first. Files of other names are passed over, with a warning unless they are known to occur.
pub async fn names<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<Name>, Fault> {
    let mut found = Vec::new();
    for name in disk.list(dir).await.map_err(Fault::disk("list", dir))? {
        let Some(parsed) = name.to_str().and_then(Name::parse) else {
            let is_known = name.to_str().is_some_and(|name| name.ends_with(".tmp") || name.ends_with(".broken"));
            if !is_known {
                tracing::warn!(path = %dir.join(&name).display(), "ignored file in WAL directory");
            }
            continue;
        };
        found.push(parsed);
    }
    found.sort();
    Ok(found)
}

/// The files to read when starting from `index`: the newest that can hold it, and all after it.
pub(crate) fn select<'names>(dir: &Path, names: &'names [Name], index: Index) -> Result<&'names [Name], WalError> {
    let Some(first) = names.iter().rposition(|name| name.index <= index) else {
        return Err(WalError::FileNotFound { dir: dir.to_owned(), index: index.0 });
    };
    let selected = &names[first..];
    for pair in selected.windows(2) {
        // etcd's own check does not look behind number zero; a gap there shows in the checksums instead.
        if pair[0].seq != 0 && pair[1].seq != pair[0].seq.wrapping_add(1) {
            return Err(WalError::Sequence { dir: dir.to_owned(), seq: pair[0].seq });
        }
    }
    Ok(selected)
}

/// Whether the disk has room for the next file of the log.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Room {
    /// The next file is ready.
    Enough,
    /// It could not be made: nothing new should be proposed before it can.
    None,
}

/// The next file of the log, made ahead of need so that a full disk shows while there is still room to write.
pub(crate) struct Spare<F> {
    /// Which of the two names comes next: etcd alternates, from zero in each process.
    made: u64,
    ready: Option<(PathBuf, Arc<F>)>,
}

impl<F: File> Spare<F> {
    pub(crate) const fn new() -> Self {
        Self { made: 0, ready: None }
    }

    pub(crate) const fn room(&self) -> Room {
        if self.ready.is_some() { Room::Enough } else { Room::None }
    }

    /// Makes the file, if it is not there yet.
    pub(crate) async fn prepare<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        dir: &Path,
        size_bytes: u64,
    ) -> Result<Room, Fault> {
        if self.ready.is_some() {
            return Ok(Room::Enough);
        }
        let path = dir.join(format!("{}.tmp", self.made % 2));
        match allocated(disk, &path, size_bytes).await {
            Ok(file) => {
                self.ready = Some((path, Arc::new(file)));
                self.made += 1;
                Ok(Room::Enough)
            }
            Err(fault) if fault.is_no_room() => Ok(Room::None),
            Err(fault) => Err(fault),
        }
    }

    pub(crate) fn take(&mut self) -> Option<(PathBuf, Arc<F>)> {
        self.ready.take()
    }
}

/// A locked file of zeros with its room taken. What an earlier process left under the name is wiped: its bytes behind a shorter head
/// would be read as records. Its length is one at which a frame may end: fewer zeros than a frame's head would pass for a torn one.
pub(crate) async fn allocated<D: Disk>(disk: &D, path: &Path, size_bytes: u64) -> Result<D::File, Fault> {
    let file = disk.open(path, Access::WriteOrCreate).await.map_err(Fault::disk("create", path))?;
    lock(&file, path).await?;
    file.set_size(0).await.map_err(Fault::disk("truncate", path))?;
    if let Err(error) = file.allocate(size_bytes.next_multiple_of(FRAME_HEAD_BYTES)).await {
        // Give back what was taken; the failure itself is what counts.
        let _ = file.set_size(0).await;
        return Err(Fault::disk("preallocate", path)(error));
    }
    Ok(file)
}

/// Removes the oldest file of the log if there are more than `keep_max`, but not one that a reader from `mark` on may need, or that is still in use. Says whether it did.
/// One at a time: each takes a sync of the directory, and who removes many has others waiting.
///
/// The locks alone are not enough: the log's owner gives them back at its end, and this may be under way then.
pub async fn purge_one<D: Disk>(disk: &D, dir: &Path, keep_max: usize, mark: Index) -> Result<bool, Fault> {
    let names = names(disk, dir).await?;
    let is_behind = names.get(1).is_some_and(|next| next.index < mark);
    if names.len() <= keep_max || !is_behind {
        return Ok(false);
    }
    let path = dir.join(names[0].to_string());
    let file = disk.open(&path, Access::Write).await.map_err(Fault::disk("open", &path))?;
    if file.lock().await.map_err(Fault::disk("lock", &path))? == Lock::Elsewhere {
        return Ok(false);
    }
    disk.remove_file(&path).await.map_err(Fault::disk("remove", &path))?;
    disk.sync_dir(dir).await.map_err(Fault::disk("sync", dir))?;
    tracing::info!(path = %path.display(), "purged");
    Ok(true)
}

/// Removes all files that [`purge_one`] would, for who has nobody waiting. Says how many went.
pub async fn purge<D: Disk>(disk: &D, dir: &Path, keep_max: usize, mark: Index) -> Result<usize, Fault> {
    let mut removed = 0;
    while purge_one(disk, dir, keep_max, mark).await? {
        removed += 1;
    }
    Ok(removed)
}

pub(crate) async fn lock<F: File>(file: &F, path: &Path) -> Result<(), Fault> {
    match file.lock().await.map_err(Fault::disk("lock", path))? {
        Lock::Taken => Ok(()),
        Lock::Elsewhere => Err(Fault::Locked { path: path.to_owned() }),
    }
}

/// Removes a file that need not be there.
pub(crate) async fn remove_if_there<D: Disk>(disk: &D, path: &Path) -> Result<(), Fault> {
    match disk.remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Fault::disk("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn hex(digits: &str) -> Option<u64> {
    let is_plain = digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_plain { u64::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_etcd() {
        let name = Name { seq: 26, index: Index(0xabc) };
        assert_eq!(name.to_string(), "000000000000001a-0000000000000abc.wal");
        assert_eq!(Name::parse("000000000000001a-0000000000000abc.wal"), Some(name));
        for other in [
            "0.tmp",
            "1a-abc.wal",
            "000000000000001A-0000000000000abc.wal",
            "000000000000001a-0000000000000abc.wal.broken",
            "-.wal",
            "+00000000000001a-0000000000000abc.wal",
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    #[test]
    fn reading_starts_in_the_newest_file_that_can_hold_the_index() {
        let dir = Path::new("wal");
        let names = [(3, 10), (4, 20), (5, 20), (6, 31)].map(|(seq, index)| Name { seq, index: Index(index) });
        let first = |index| select(dir, &names, Index(index)).map(|selected| selected[0].seq).ok();
        assert_eq!(
            [9, 10, 19, 20, 30, 31, 99].map(first),
            [None, Some(3), Some(3), Some(5), Some(5), Some(6), Some(6)]
        );
    }

    #[test]
    fn a_missing_file_in_the_middle_is_an_error() {
        let dir = Path::new("wal");
        let named =
            |numbers: &[u64]| numbers.iter().map(|seq| Name { seq: *seq, index: Index(*seq) }).collect::<Vec<_>>();
        assert!(matches!(select(dir, &named(&[1, 2, 4]), Index(1)), Err(WalError::Sequence { seq: 2, .. })));
        assert_eq!(select(dir, &named(&[1, 2, 4]), Index(4)).unwrap().len(), 1);
        assert_eq!(select(dir, &named(&[0, 3]), Index(0)).unwrap().len(), 2, "as etcd");
    }
}
