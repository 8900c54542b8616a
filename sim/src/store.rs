//! A backend that is durable only when a commit has returned, on the machine's terms.
//!
//! A commit is one transaction: a crash leaves all of it or nothing. The tables live in the machine and belong to a file of the store's directory: if a power
//! cut undoes that file's name, they are gone, as LMDB's would be.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use detcd_io::disk::{Access, Disk as _};
use detcd_io::fault::Fault;
use detcd_io::store::backend::{Backend, Committed, Size, Slice, Visit};
use detcd_io::store::batch::Batch;
use detcd_io::store::buckets::Bucket;

use crate::disk::SimDisk;
use crate::machine::{Life, Work};

/// Tables by bucket.
pub type Tables = BTreeMap<Bucket, BTreeMap<Bytes, Bytes>>;

/// The store as one life of a member sees it.
#[derive(Clone)]
pub struct SimBackend {
    life: Life,
}

impl SimBackend {
    /// Opens the store in `directory`.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn open(life: Life, directory: &Path) -> Result<Self, Fault> {
        let path = directory.join("data.mdb");
        let opened = SimDisk::new(life.clone()).open(&path, Access::WriteOrCreate).await;
        opened.map_err(Fault::disk("open", &path))?;
        Ok(Self { life })
    }
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
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.life.peek().tables.get(&bucket).and_then(|table| table.get(key)).cloned())
    }

    fn scan(&self, slice: Slice<'_>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), Fault> {
        let inner = self.life.peek();
        let Some(table) = inner.tables.get(&slice.bucket) else { return Ok(()) };
        if is_empty(&slice) {
            return Ok(());
        }
        for (key, value) in table.range::<[u8], _>((slice.start, slice.end)) {
            if visit(key, value) == Visit::Enough {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed, Fault> {
        let name = format!("commit {} rows at {}", batch.rows.len(), batch.applied.index);
        let committed = self.life.call(Work::Sync, name, |inner| {
            if inner.check_room(batch.row_bytes as u64).is_err() {
                return Committed::NoRoom;
            }
            apply_batch(&mut inner.tables, batch);
            Committed::Done
        });
        Ok(committed.await)
    }

    async fn size(&self) -> Result<Size, Fault> {
        let size = self.life.call(Work::Read, "size of the store".to_owned(), |inner| {
            let rows = inner.tables.values().map(BTreeMap::len).sum::<usize>() as u64;
            Size { allocated: rows * 128, in_use: rows * 128 }
        });
        Ok(size.await)
    }
}

/// A map takes no inverted range.
fn is_empty(slice: &Slice<'_>) -> bool {
    match (slice.start, slice.end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => end < start,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end) | Bound::Included(end)) => end <= start,
    }
}
