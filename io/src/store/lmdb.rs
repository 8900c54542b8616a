//! The store in production: LMDB through heed, under `member/lmdb/`.
//!
//! The map is sized once at open and does not limit the data; the quota is another matter. Read transactions live for one call. The file is checked by [`super::meta`]
//! before LMDB maps it, because LMDB trusts what it maps.

use std::fs;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use heed::types::Bytes as Raw;
use heed::{Database, Env, EnvOpenOptions, MdbError, PutFlags, WithoutTls};

use super::backend::{Backend, Committed, Size, Slice, Visit};
use super::batch::Batch;
use super::buckets::Bucket;
use super::meta;
use crate::disk;
use crate::fault::Fault;

/// Address space to ask for. Halved while the machine refuses.
const MAP_BYTES_WANTED: usize = 1 << 40;
/// Below this a member could not work for long: opening fails instead.
const MAP_BYTES_LEAST: usize = 1 << 30;
/// Read transactions open at once. Each lives for one bounded call on one of a few threads.
const READERS_MAX: u32 = 512;
/// The file grows in such steps.
const RESERVE_BYTES: u64 = 4 << 20;
/// Pages from a root to a leaf, at the most, and what changing them frees and takes besides.
const PATH_PAGES: u64 = 8;
/// Bytes of a row besides its key and value.
const ROW_BYTES: u64 = 128;

type Table = Database<Raw, Raw>;

/// The LMDB environment and its tables.
#[derive(Clone)]
pub struct Lmdb {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env<WithoutTls>,
    tables: [Table; Bucket::ALL.len()],
    file: fs::File,
    page_bytes: u64,
    /// How far the file's room is known to be taken.
    reserved: AtomicU64,
}

impl Lmdb {
    /// Opens the store in `directory`, which exists, and creates its tables where they are missing.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if the file cannot be one that LMDB wrote; [`Fault::Store`] if LMDB refuses.
    pub fn open(directory: &Path) -> Result<Self, Fault> {
        meta::check(&directory.join("data.mdb"))?;
        let env = open_env(directory)?;
        let mut transaction = env.write_txn().map_err(|error| fault("begin", error))?;
        let mut tables = Vec::with_capacity(Bucket::ALL.len());
        for bucket in Bucket::ALL {
            let table = env
                .create_database(&mut transaction, Some(bucket.name()))
                .map_err(|error| fault("create table", error))?;
            tables.push(table);
        }
        transaction.commit().map_err(|error| fault("commit", error))?;
        let tables: [Table; Bucket::ALL.len()] = tables.try_into().expect("one table for each bucket");
        let path = directory.join("data.mdb");
        let file = fs::File::options().read(true).write(true).open(&path).map_err(Fault::disk("open", &path))?;
        let transaction = env.read_txn().map_err(|error| fault("begin read", error))?;
        let page_bytes = u64::from(tables[0].stat(&transaction).map_err(|error| fault("stat", error))?.page_size);
        drop(transaction);
        Ok(Self { inner: Arc::new(Inner { env, tables, file, page_bytes, reserved: AtomicU64::new(0) }) })
    }

    fn table(&self, bucket: Bucket) -> &Table {
        let place = Bucket::ALL.iter().position(|each| *each == bucket).expect("every bucket is listed");
        &self.inner.tables[place]
    }

    /// Takes the room for a batch before LMDB writes a byte of it: LMDB calls a write that a full disk cut short an I/O error, which nobody could tell from a failing disk.
    fn reserve(&self, batch: &Batch) -> std::io::Result<()> {
        let last = self.inner.env.info().last_page_number as u64;
        // Every row and table row may touch a path of pages of its own; rows in order share theirs.
        let paths = (batch.dead.len() + batch.tables.len() + 8) as u64 * PATH_PAGES;
        let rows = 2 * (batch.row_bytes as u64 + batch.rows.len() as u64 * ROW_BYTES);
        let needed = (last + 1 + paths) * self.inner.page_bytes + rows;
        if needed <= self.inner.reserved.load(Ordering::Relaxed) {
            return Ok(());
        }
        let rounded = needed.next_multiple_of(RESERVE_BYTES);
        let taken = match disk::allocate(&self.inner.file, rounded) {
            Ok(()) => rounded,
            // There may be just enough.
            Err(_) => disk::allocate(&self.inner.file, needed).map(|()| needed)?,
        };
        self.inner.reserved.store(taken, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, batch: &Batch) -> Result<(), heed::Error> {
        let mut transaction = self.inner.env.write_txn()?;
        let rows = self.table(Bucket::Key);
        let mut value = Vec::new();
        for row in &batch.rows {
            value.clear();
            row.encode_value(&mut value);
            rows.put_with_flags(&mut transaction, PutFlags::APPEND, row.key().as_slice(), &value)?;
        }
        for key in &batch.dead {
            rows.delete(&mut transaction, key.as_slice())?;
        }
        for (bucket, key, value) in batch.table_changes() {
            match value {
                Some(value) => self.table(bucket).put(&mut transaction, key, &value)?,
                None => drop(self.table(bucket).delete(&mut transaction, key)?),
            }
        }
        transaction.commit()
    }
}

impl Backend for Lmdb {
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if key.is_empty() {
            return Ok(None);
        }
        let transaction = self.inner.env.read_txn().map_err(|error| fault("begin read", error))?;
        let found = self.table(bucket).get(&transaction, key).map_err(|error| fault("get", error))?;
        Ok(found.map(Bytes::copy_from_slice))
    }

    fn scan(&self, slice: Slice<'_>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), Fault> {
        if is_empty(&slice) {
            return Ok(());
        }
        let transaction = self.inner.env.read_txn().map_err(|error| fault("begin read", error))?;
        let range = (from_first_key(slice.start), slice.end);
        let rows = self.table(slice.bucket).range(&transaction, &range).map_err(|error| fault("scan", error))?;
        for row in rows {
            let (key, value) = row.map_err(|error| fault("scan", error))?;
            if visit(key, value) == Visit::Enough {
                break;
            }
        }
        Ok(())
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed, Fault> {
        if let Err(error) = self.reserve(batch) {
            return if is_full(&error) { Ok(Committed::NoRoom) } else { Err(fault("grow", heed::Error::Io(error))) };
        }
        match self.write(batch) {
            Ok(()) => Ok(Committed::Done),
            Err(error) if is_no_room(&error) => Ok(Committed::NoRoom),
            Err(error) => Err(fault("commit", error)),
        }
    }

    async fn size(&self) -> Result<Size, Fault> {
        let info = self.inner.env.info();
        let transaction = self.inner.env.read_txn().map_err(|error| fault("begin read", error))?;
        // The two meta pages and the root of the table of tables.
        let (mut pages, mut page) = (3, 0);
        for table in &self.inner.tables {
            let stat = table.stat(&transaction).map_err(|error| fault("stat", error))?;
            pages += (stat.branch_pages + stat.leaf_pages + stat.overflow_pages) as u64;
            page = u64::from(stat.page_size);
        }
        Ok(Size { allocated: (info.last_page_number as u64 + 1) * page, in_use: pages * page })
    }
}

#[expect(
    unsafe_code,
    reason = "LMDB maps its file; nobody else writes there: boot holds the directory's exclusive lock"
)]
fn open_env(directory: &Path) -> Result<Env<WithoutTls>, Fault> {
    let mut map_bytes = MAP_BYTES_WANTED;
    loop {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(map_bytes).max_readers(READERS_MAX).max_dbs(Bucket::ALL.len() as u32);
        // SAFETY: the directory is locked for this process, and the file's metas and length were checked.
        match unsafe { options.open(directory) } {
            Ok(env) => return Ok(env),
            Err(error) if map_bytes / 2 >= MAP_BYTES_LEAST && is_no_memory(&error) => map_bytes /= 2,
            Err(error) => return Err(fault("open", error)),
        }
    }
}

fn is_no_memory(error: &heed::Error) -> bool {
    matches!(error, heed::Error::Io(error) if error.kind() == std::io::ErrorKind::OutOfMemory)
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

fn fault(action: &'static str, error: heed::Error) -> Fault {
    Fault::Store { action, cause: error.to_string() }
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
