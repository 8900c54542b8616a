//! A backend in memory: for tests, and the durable half of the simulator's crashing store.

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::backend::{Backend, Committed, Frozen, RawRow, Size, Slice, Visit};
use super::batch::Batch;
use super::buckets::Bucket;
use crate::disk::{Access, Disk, File as _, exists, read_all};
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

/// Stores in memory, each of which belongs to a file as LMDB's does: it gets its name and loses it with its directory.
#[derive(Clone, Debug, Default)]
pub struct MemoryStores {
    stores: Arc<Mutex<Vec<MemoryBackend>>>,
}

impl MemoryStores {
    /// Stores of which the first holds `tables`: the one of every file that no store here has made.
    #[must_use]
    pub fn holding(tables: Tables) -> Self {
        Self { stores: Arc::new(Mutex::new(vec![MemoryBackend::holding(tables)])) }
    }

    /// Opens the store in `directory`, or makes one.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn open<D: Disk>(&self, disk: &D, directory: &Path) -> Result<MemoryBackend, Fault> {
        let path = directory.join("data.mdb");
        if exists(disk, &path).await.map_err(Fault::disk("look for", &path))? {
            let bytes = read_all(disk, &path, u64::MAX).await.map_err(Fault::disk("read", &path))?;
            let number =
                bytes.strip_prefix(STORE_FILE).and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
            let stores = self.stores.lock().expect("a panic ends the process");
            return Ok(number
                .and_then(|number: usize| stores.get(number))
                .or_else(|| stores.first())
                .cloned()
                .unwrap_or_default());
        }
        let made = MemoryBackend::default();
        let number = {
            let mut stores = self.stores.lock().expect("a panic ends the process");
            stores.push(made.clone());
            stores.len() - 1
        };
        let bytes = [STORE_FILE, number.to_string().as_bytes()].concat();
        let file = disk.open(&path, Access::WriteOrCreate).await.map_err(Fault::disk("create", &path))?;
        file.write_all_at(&bytes, 0).await.map_err(Fault::disk("write", &path))?;
        Ok(made)
    }
}

/// Before the number of the store that a file stands for.
const STORE_FILE: &[u8] = b"store in memory ";

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

    async fn detach(&self, _: Self, to: &Path) -> Result<(), Fault> {
        // It has no file that could get a name.
        Err(Fault::disk("rename", to)(std::io::ErrorKind::Unsupported.into()))
    }

    async fn discard(&self, _: Self) {}
}
