//! A backend in memory: for tests, and the durable half of the simulator's crashing store.

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::backend::{Backend, Committed, Frozen, RawRow, Size, Slice, Visit};
use super::batch::Batch;
use super::buckets::Bucket;
use crate::fault::Fault;

/// Tables as one ordered map.
pub type Tables = BTreeMap<(Bucket, Bytes), Bytes>;

/// A backend whose commits cannot fail. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryBackend {
    tables: Arc<Mutex<Tables>>,
}

impl MemoryBackend {
    /// A backend that holds `tables`.
    #[must_use]
    pub fn holding(tables: Tables) -> Self {
        Self { tables: Arc::new(Mutex::new(tables)) }
    }

    /// A copy of everything it holds.
    #[must_use]
    pub fn tables(&self) -> Tables {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().expect("a panic ends the process")
    }
}

/// What `batch` makes of `tables`.
pub fn apply_batch(tables: &mut Tables, batch: &Batch) {
    for row in &batch.rows {
        let mut value = Vec::new();
        row.encode_value(&mut value);
        let fresh = tables.insert((Bucket::Key, Bytes::copy_from_slice(row.key().as_slice())), value.into());
        assert!(fresh.is_none(), "a revision is written once");
    }
    for key in &batch.dead {
        let dead = tables.remove(&(Bucket::Key, Bytes::copy_from_slice(key.as_slice())));
        assert!(dead.is_some(), "a row is removed once");
    }
    for (bucket, key, value) in batch.table_changes() {
        let place = (bucket, Bytes::copy_from_slice(key));
        match value {
            Some(value) => drop(tables.insert(place, value)),
            None => drop(tables.remove(&place)),
        }
    }
}

/// Shows the rows of `slice`.
pub fn scan_tables(tables: &Tables, slice: Slice<'_>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) {
    for ((bucket, key), value) in tables {
        let inside = *bucket == slice.bucket && RangeBounds::<[u8]>::contains(&(slice.start, slice.end), key.as_ref());
        if inside && visit(key, value) == Visit::Enough {
            return;
        }
    }
}

/// A copy of the tables.
#[derive(Debug)]
pub struct MemoryFrozen(Tables);

impl Frozen for MemoryFrozen {
    fn scan(&self, slice: Slice<'_>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), Fault> {
        scan_tables(&self.0, slice, visit);
        Ok(())
    }
}

impl Backend for MemoryBackend {
    type Frozen = MemoryFrozen;

    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.lock().get(&(bucket, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(&self, slice: Slice<'_>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), Fault> {
        scan_tables(&self.lock(), slice, visit);
        Ok(())
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed, Fault> {
        apply_batch(&mut self.lock(), batch);
        Ok(Committed::Done)
    }

    async fn size(&self) -> Result<Size, Fault> {
        let bytes: usize = self.lock().iter().map(|((_, key), value)| key.len() + value.len()).sum();
        Ok(Size { allocated: bytes as u64, in_use: bytes as u64 })
    }

    fn freeze(&self) -> Result<MemoryFrozen, Fault> {
        Ok(MemoryFrozen(self.tables()))
    }

    async fn load(&self, rows: &[RawRow]) -> Result<Committed, Fault> {
        let mut tables = self.lock();
        for RawRow { bucket, key, value } in rows {
            match value {
                Some(value) => drop(tables.insert((*bucket, key.clone()), value.clone())),
                None => drop(tables.remove(&(*bucket, key.clone()))),
            }
        }
        Ok(Committed::Done)
    }

    async fn beside(&self) -> Result<Self, Fault> {
        Ok(Self::default())
    }

    async fn replace(&self, copy: Self) -> Result<(), Fault> {
        let copied = copy.tables();
        *self.lock() = copied;
        Ok(())
    }

    async fn discard(&self, _: Self) {}
}
