//! A backend that is durable only when a commit has returned, on the machine's terms.
//!
//! A commit is one transaction: a crash leaves all of it or nothing. The tables live in the machine and belong to a file of the store's directory, whatever its name: if a power
//! cut undoes the name, they are gone, and if it undoes a rename, the earlier file's tables are the store's again – as with LMDB.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use detcd_io::disk::{Access, Disk as _};
use detcd_io::fault::Fault;
use detcd_io::store::backend::{Backend, Committed, Frozen, RawRow, Size, Slice, Visit};
use detcd_io::store::batch::Batch;
use detcd_io::store::buckets::{self, Bucket};

use crate::disk::SimDisk;
use crate::disk::image::Inode;
use crate::machine::{Inner, Life, Work};

/// How the directory of a copy is called, up to its number.
const COPY_PREFIX: &str = "lmdb.copy-";

/// What a row counts for in the size of the store.
pub const ROW_BYTES: u64 = 128;

/// Tables by bucket.
pub type Tables = BTreeMap<Bucket, BTreeMap<Bytes, Bytes>>;

/// The tables of every file that is a store.
pub type Stores = BTreeMap<Inode, Tables>;

/// The store as one life of a member sees it. Clones share it.
#[derive(Clone)]
pub struct SimBackend {
    life: Life,
    home: PathBuf,
    /// The file whose tables these are.
    inode: Arc<AtomicU64>,
    copies: Arc<AtomicU64>,
    /// Whether it carries the bug of [`detcd_io::mutants::Mutant::ReceivedNameNotSynced`].
    #[cfg(mutants)]
    pub forgets_names: bool,
}

/// A copy of the tables.
pub struct SimFrozen(Tables);

impl SimBackend {
    /// Opens the store in `directory`.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn open(life: Life, directory: PathBuf) -> Result<Self, Fault> {
        let (path, disk) = (directory.join("data.mdb"), SimDisk::new(life.clone()));
        let opened = disk.open(&path, Access::WriteOrCreate).await;
        let inode = opened.map_err(Fault::disk("open", &path))?.inode();
        let backend = Self::of(life, directory, inode);
        backend.remove_copies().await?;
        Ok(backend)
    }

    fn of(life: Life, home: PathBuf, inode: Inode) -> Self {
        Self {
            life,
            home,
            inode: Arc::new(inode.into()),
            copies: Arc::default(),
            #[cfg(mutants)]
            forgets_names: false,
        }
    }

    /// Removes what an earlier life left.
    async fn remove_copies(&self) -> Result<(), Fault> {
        let Some(parent) = self.home.parent() else { return Ok(()) };
        let disk = SimDisk::new(self.life.clone());
        for name in disk.list(parent).await.map_err(Fault::disk("list", parent))? {
            if name.to_string_lossy().starts_with(COPY_PREFIX) {
                let path = parent.join(name);
                disk.remove_dir_all(&path).await.map_err(Fault::disk("remove", &path))?;
            }
        }
        Ok(())
    }

    fn inode(&self) -> Inode {
        self.inode.load(Ordering::Relaxed)
    }

    /// Makes a change of the tables, if there is room for so many bytes.
    async fn change(
        &self,
        name: impl FnOnce() -> String,
        bytes: usize,
        change: impl FnOnce(&mut Tables),
    ) -> Result<Committed, Fault> {
        let inode = self.inode();
        let changed = self.life.call(Work::Commit, name, |inner| {
            if inner.check_room(bytes as u64).is_err() {
                return Committed::NoRoom;
            }
            change(inner.stores.entry(inode).or_default());
            Committed::Done
        });
        Ok(changed.await)
    }
}

/// A number of table `meta`; zero if it is not there.
#[must_use]
pub fn number(tables: &Tables, key: &[u8]) -> u64 {
    let bytes = tables.get(&Bucket::Meta).and_then(|meta| meta.get(key));
    bytes.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// What `batch` makes of `tables`.
///
/// # Panics
/// If a row is written a second time: no backend could take that as it is meant.
pub fn apply_batch(tables: &mut Tables, batch: &Batch) {
    let rows = tables.entry(Bucket::Key).or_default();
    for row in &batch.rows {
        let mut value = Vec::new();
        row.encode_value(&mut value);
        let fresh = rows.insert(Bytes::copy_from_slice(row.key().as_slice()), value.into());
        assert!(fresh.is_none(), "revision {} is written a second time", row.revision);
    }
    for key in &batch.dead {
        assert!(rows.remove(key.as_slice()).is_some(), "a row is removed once");
    }
    for (bucket, key, value) in batch.table_changes() {
        let table = tables.entry(bucket).or_default();
        match value {
            Some(value) => drop(table.insert(Bytes::copy_from_slice(key), value)),
            None => drop(table.remove(key)),
        }
    }
}

impl Backend for SimBackend {
    type Frozen = SimFrozen;

    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let inner = self.life.peek();
        let tables = inner.stores.get(&self.inode());
        Ok(tables.and_then(|tables| tables.get(&bucket)).and_then(|table| table.get(key)).cloned())
    }

    fn scan(&self, slice: Slice<'_>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), Fault> {
        let mut inner = self.life.peek();
        let (mut rows, is_history) = (0, is_history(&slice));
        if let Some(tables) = inner.stores.get(&self.inode()) {
            scan(tables, slice, &mut |key, value| {
                rows += 1;
                visit(key, value)
            });
        }
        if is_history {
            inner.counts.rows_at_once = inner.counts.rows_at_once.max(rows);
        }
        Ok(())
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed, Fault> {
        let name = || format!("commit {} rows at {}", batch.rows.len(), batch.applied.index);
        self.change(name, batch.row_bytes, |tables| apply_batch(tables, batch)).await
    }

    async fn size(&self) -> Result<Size, Fault> {
        let inode = self.inode();
        let measured = |inner: &mut Inner| {
            let tables = inner.stores.get(&inode);
            let rows = tables.map_or(0, |tables| tables.values().map(BTreeMap::len).sum::<usize>()) as u64;
            let bytes = rows * ROW_BYTES;
            inner.recorder.size(tables.map_or(0, |tables| number(tables, buckets::APPLIED_INDEX)), bytes);
            Size { allocated: bytes, in_use: bytes }
        };
        Ok(self.life.call(Work::Read, || "size of the store".to_owned(), measured).await)
    }

    fn freeze(&self) -> Result<SimFrozen, Fault> {
        Ok(SimFrozen(self.life.peek().stores.get(&self.inode()).cloned().unwrap_or_default()))
    }

    async fn load(&self, rows: &[RawRow]) -> Result<Committed, Fault> {
        let bytes = rows.iter().map(|row| row.value.as_ref().map_or(0, Bytes::len)).sum();
        let change = |tables: &mut Tables| {
            for RawRow { bucket, key, value } in rows {
                let table = tables.entry(*bucket).or_default();
                match value {
                    Some(value) => drop(table.insert(key.clone(), value.clone())),
                    None => drop(table.remove(key)),
                }
            }
        };
        self.change(|| format!("load {} rows", rows.len()), bytes, change).await
    }

    async fn beside(&self) -> Result<Self, Fault> {
        let number = self.copies.fetch_add(1, Ordering::Relaxed);
        let directory = self.home.with_file_name(format!("{COPY_PREFIX}{number}"));
        let (path, disk) = (directory.join("data.mdb"), SimDisk::new(self.life.clone()));
        disk.create_dir_all(&directory).await.map_err(Fault::disk("create", &directory))?;
        let opened = disk.open(&path, Access::CreateNew).await;
        let inode = opened.map_err(Fault::disk("open", &path))?.inode();
        Ok(Self::of(self.life.clone(), directory, inode))
    }

    async fn replace(&self, copy: Self) -> Result<(), Fault> {
        let (file, disk) = (copy.home.join("data.mdb"), SimDisk::new(self.life.clone()));
        let renamed = disk.rename(&file, &self.home.join("data.mdb")).await;
        renamed.map_err(Fault::disk("rename", &file))?;
        disk.sync_dir(&self.home).await.map_err(Fault::disk("sync", &self.home))?;
        self.inode.store(copy.inode(), Ordering::Relaxed);
        let _ = disk.remove_dir_all(&copy.home).await;
        Ok(())
    }

    async fn detach(&self, copy: Self, to: &Path) -> Result<(), Fault> {
        let (file, disk) = (copy.home.join("data.mdb"), SimDisk::new(self.life.clone()));
        disk.rename(&file, to).await.map_err(Fault::disk("rename", &file))?;
        let parent = to.parent().unwrap_or(to);
        #[cfg(mutants)]
        if self.forgets_names {
            let _ = disk.remove_dir_all(&copy.home).await;
            return Ok(());
        }
        disk.sync_dir(parent).await.map_err(Fault::disk("sync", parent))?;
        let _ = disk.remove_dir_all(&copy.home).await;
        Ok(())
    }

    async fn discard(&self, copy: Self) {
        let _ = SimDisk::new(self.life.clone()).remove_dir_all(&copy.home).await;
    }
}

impl Frozen for SimFrozen {
    fn scan(&self, slice: Slice<'_>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), Fault> {
        scan(&self.0, slice, visit);
        Ok(())
    }
}

fn scan(tables: &Tables, slice: Slice<'_>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) {
    let Some(table) = tables.get(&slice.bucket) else { return };
    if is_empty(&slice) {
        return;
    }
    for (key, value) in table.range::<[u8], _>((slice.start, slice.end)) {
        if visit(key, value) == Visit::Enough {
            return;
        }
    }
}

/// Whether this is a part of the history, as watchers read it: from one revision to another. (Hashes and starts begin at the first row.)
const fn is_history(slice: &Slice<'_>) -> bool {
    matches!((slice.bucket, slice.start, slice.end), (Bucket::Key, Bound::Included(_), Bound::Excluded(_)))
}

/// A map takes no inverted range.
fn is_empty(slice: &Slice<'_>) -> bool {
    match (slice.start, slice.end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => end < start,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end) | Bound::Included(end)) => end <= start,
    }
}
