//! The store in production: LMDB through heed, under `member/lmdb/`.
//!
//! The map is sized once at open and does not limit the data; the quota is another matter. Read transactions live for one call, but for those of a local copy. The file is checked
//! by [`super::meta`] before LMDB maps it, because LMDB trusts what it maps.

mod generation;
mod replaced;

use std::collections::VecDeque;
use std::fs;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use bytes::Bytes;
use heed::{MdbError, RoTxn, WithoutTls};

use self::generation::{Generation, fault};
use self::replaced::Replaced;
use super::backend::{Backend, Committed, Frozen, RawRow, Release, Size, Slice, Visit};
use super::batch::Batch;
use super::buckets::Bucket;
use crate::fault::Fault;

/// What follows the store's own name in the name of a copy's directory; then comes a number, because one process opens a directory once.
const COPY_SUFFIX: &str = ".copy-";

/// The store. Clones share it.
#[derive(Clone)]
pub struct Lmdb {
    shared: Arc<Shared>,
}

struct Shared {
    /// Where the store is found at the next start.
    home: PathBuf,
    generation: RwLock<Arc<Generation>>,
    copies: AtomicU64,
    /// Those before it that still have room to give back.
    replaced: Mutex<VecDeque<Replaced>>,
}

/// A read transaction, and the environment that it reads.
pub struct LmdbFrozen {
    // In this order: whoever finds the generation unread may rely on no transaction being left of it.
    transaction: RoTxn<'static, WithoutTls>,
    generation: Arc<Generation>,
}

impl Lmdb {
    /// Opens the store in `directory`, which exists, creates its tables where they are missing, and removes copies that an earlier process left.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if the file cannot be one that LMDB wrote; [`Fault::Store`] if LMDB refuses.
    pub fn open(directory: &Path) -> Result<Self, Fault> {
        let opened = Self::over(directory, Generation::open(directory)?);
        opened.remove_copies()?;
        Ok(opened)
    }

    fn over(home: &Path, generation: Generation) -> Self {
        let generation = RwLock::new(Arc::new(generation));
        let home = home.to_owned();
        let shared = Shared { home, generation, copies: AtomicU64::new(0), replaced: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    fn generation(&self) -> Arc<Generation> {
        Arc::clone(&self.shared.generation.read().expect("a panic ends the process"))
    }

    fn replaced(&self) -> MutexGuard<'_, VecDeque<Replaced>> {
        self.shared.replaced.lock().expect("a panic ends the process")
    }

    /// The name of a copy's directory up to its number.
    fn copy_prefix(&self) -> String {
        let name = self.shared.home.file_name().unwrap_or_default().to_string_lossy();
        format!("{name}{COPY_SUFFIX}")
    }

    fn remove_copies(&self) -> Result<(), Fault> {
        let Some(parent) = self.shared.home.parent() else { return Ok(()) };
        let prefix = self.copy_prefix();
        for entry in fs::read_dir(parent).map_err(Fault::disk("list", parent))? {
            let entry = entry.map_err(Fault::disk("list", parent))?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let path = entry.path();
                fs::remove_dir_all(&path).map_err(Fault::disk("remove", &path))?;
            }
        }
        Ok(())
    }
}

impl Backend for Lmdb {
    type Frozen = LmdbFrozen;

    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if key.is_empty() {
            return Ok(None);
        }
        let generation = self.generation();
        let transaction = generation.env.read_txn().map_err(|error| fault("begin read", error))?;
        let found = generation.table(bucket).get(&transaction, key).map_err(|error| fault("get", error))?;
        Ok(found.map(Bytes::copy_from_slice))
    }

    fn scan(&self, slice: Slice<'_>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), Fault> {
        let generation = self.generation();
        let transaction = generation.env.read_txn().map_err(|error| fault("begin read", error))?;
        scan(&generation, &transaction, slice, visit)
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed, Fault> {
        let generation = self.generation();
        committed(generation.reserve_for_batch(batch), || generation.write_batch(batch))
    }

    async fn size(&self) -> Result<Size, Fault> {
        self.generation().size()
    }

    fn freeze(&self) -> Result<LmdbFrozen, Fault> {
        let generation = self.generation();
        let transaction = generation.env.clone().static_read_txn().map_err(|error| fault("begin read", error))?;
        Ok(LmdbFrozen { transaction, generation })
    }

    async fn load(&self, rows: &[RawRow]) -> Result<Committed, Fault> {
        let generation = self.generation();
        committed(generation.reserve_for_rows(rows), || generation.write_rows(rows))
    }

    async fn beside(&self) -> Result<Self, Fault> {
        let number = self.shared.copies.fetch_add(1, Ordering::Relaxed);
        let home = &self.shared.home;
        let directory = home.with_file_name(format!("{}{number}", self.copy_prefix()));
        fs::create_dir(&directory).map_err(Fault::disk("create", &directory))?;
        let opened = Generation::open(&directory);
        if opened.is_err() {
            let _ = fs::remove_dir_all(&directory);
        }
        Ok(Self::over(&directory, opened?))
    }

    async fn replace(&self, copy: Self) -> Result<(), Fault> {
        let next = copy.generation();
        let (file, home) = (next.directory.join("data.mdb"), &self.shared.home);
        fs::rename(&file, home.join("data.mdb")).map_err(Fault::disk("rename", &file))?;
        let sync = fs::File::open(home).and_then(|directory| directory.sync_all());
        sync.map_err(Fault::disk("sync", home))?;
        let directory = next.directory.clone();
        // Readers wait for the exchange, and not for what becomes of the earlier one.
        let before = std::mem::replace(&mut *self.shared.generation.write().expect("a panic ends the process"), next);
        self.replaced().push_back(Replaced::Read(before));
        // Nothing but LMDB's lock file is left there, and the next start would remove it too.
        let _ = fs::remove_dir_all(directory);
        Ok(())
    }

    async fn release(&self) -> Release {
        let Some(oldest) = self.replaced().pop_front() else { return Release::Done };
        match oldest.release() {
            Ok((release, left)) => {
                let mut others = self.replaced();
                others.extend(left);
                if release == Release::Done && !others.is_empty() { Release::More } else { release }
            }
            Err(error) => {
                // Nothing in it counts any more; the system takes the rest when it is closed.
                tracing::warn!(%error, "cannot give back the room of the earlier store bit by bit");
                Release::More
            }
        }
    }

    async fn detach(&self, copy: Self, to: &Path) -> Result<(), Fault> {
        let directory = copy.generation().directory.clone();
        // The last handle closes the environment.
        drop(copy);
        let file = directory.join("data.mdb");
        fs::rename(&file, to).map_err(Fault::disk("rename", &file))?;
        let parent = to.parent().unwrap_or(to);
        let sync = fs::File::open(parent).and_then(|directory| directory.sync_all());
        sync.map_err(Fault::disk("sync", parent))?;
        let _ = fs::remove_dir_all(directory);
        Ok(())
    }

    async fn discard(&self, copy: Self) {
        let directory = copy.generation().directory.clone();
        drop(copy);
        // The next start removes what cannot be removed now.
        let _ = fs::remove_dir_all(directory);
    }
}

impl Frozen for LmdbFrozen {
    fn scan(&self, slice: Slice<'_>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), Fault> {
        scan(&self.generation, &self.transaction, slice, visit)
    }
}

fn scan(
    generation: &Generation,
    transaction: &RoTxn<'_, WithoutTls>,
    slice: Slice<'_>,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
) -> Result<(), Fault> {
    if is_empty(&slice) {
        return Ok(());
    }
    let range = (from_first_key(slice.start), slice.end);
    let rows = generation.table(slice.bucket).range(transaction, &range).map_err(|error| fault("scan", error))?;
    for row in rows {
        let (key, value) = row.map_err(|error| fault("scan", error))?;
        if visit(key, value) == Visit::Enough {
            break;
        }
    }
    Ok(())
}

/// What came of a transaction whose room was taken, or not.
fn committed(
    reserved: std::io::Result<()>,
    write: impl FnOnce() -> Result<(), heed::Error>,
) -> Result<Committed, Fault> {
    if let Err(error) = reserved {
        return if is_full(&error) { Ok(Committed::NoRoom) } else { Err(fault("grow", heed::Error::Io(error))) };
    }
    match write() {
        Ok(()) => Ok(Committed::Done),
        Err(error) if is_no_room(&error) => Ok(Committed::NoRoom),
        Err(error) => Err(fault("commit", error)),
    }
}

/// LMDB writes pages before the meta page: running out of room leaves the last committed state in force.
fn is_no_room(error: &heed::Error) -> bool {
    match error {
        heed::Error::Io(error) => is_full(error),
        heed::Error::Mdb(MdbError::MapFull) => true,
        _ => false,
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// No key is empty, and LMDB refuses an empty one as a bound.
fn from_first_key(start: Bound<&[u8]>) -> Bound<&[u8]> {
    match start {
        Bound::Included(b"") | Bound::Excluded(b"") => Bound::Unbounded,
        start => start,
    }
}

/// LMDB asserts on inverted ranges in some versions; an empty slice needs no look.
fn is_empty(slice: &Slice<'_>) -> bool {
    match (slice.start, slice.end) {
        (_, Bound::Included(b"") | Bound::Excluded(b"")) => true,
        (Bound::Included(start), Bound::Included(end)) => end < start,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end) | Bound::Included(end)) => end <= start,
        _ => false,
    }
}
