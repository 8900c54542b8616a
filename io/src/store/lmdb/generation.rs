//! One LMDB environment: a file, its map, its tables. The store moves from one to the next when it is defragmented; whoever still reads the old one keeps it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use heed::types::Bytes as Raw;
use heed::{Database, Env, EnvOpenOptions, MdbError, PutFlags, RwTxn, WithoutTls};

use super::super::backend::{RawRow, Size};
use super::super::batch::Batch;
use super::super::buckets::Bucket;
use super::super::meta;
use crate::disk;
use crate::fault::Fault;

/// Address space to ask for. Halved while the machine refuses.
const MAP_BYTES_WANTED: usize = 1 << 40;
/// Below this a member could not work for long: opening fails instead.
const MAP_BYTES_LEAST: usize = 1 << 30;
/// Read transactions open at once. Each lives for one bounded call on one of a few threads.
const READERS_MAX: u32 = 512;
/// The length of LMDB's lock file: what it knows of itself, and a line of the cache for each reader.
const LOCK_BYTES: u64 = 128 + 64 * READERS_MAX as u64;
/// The file grows in such steps.
const RESERVE_BYTES: u64 = 4 << 20;
/// Pages from a root to a leaf, at the most, and what changing them frees and takes besides.
const PATH_PAGES: u64 = 8;
/// Bytes of a row besides its key and value.
const ROW_BYTES: u64 = 128;

/// Where a new environment is made, in the directory that it is for.
const STAGED: &str = "new";

type Table = Database<Raw, Raw>;

/// The environment in one directory.
pub(super) struct Generation {
    pub(super) env: Env<WithoutTls>,
    tables: [Table; Bucket::ALL.len()],
    file: fs::File,
    page_bytes: u64,
    /// How far the file's room is known to be taken.
    reserved: AtomicU64,
    /// Where it was opened.
    pub(super) directory: PathBuf,
}

/// What a transaction needs at most besides what the file has.
struct Need {
    /// Paths of pages, from a root to a leaf, that may change.
    paths: usize,
    /// Bytes of rows.
    row_bytes: u64,
}

impl Generation {
    /// Opens the environment in `directory`, which exists, and creates its tables where they are missing.
    pub(super) fn open(directory: &Path) -> Result<Self, Fault> {
        let path = directory.join("data.mdb");
        if !disk_has(&path)? {
            make(directory, &path)?;
        }
        meta::check(&path)?;
        take_lock_room(directory)?;
        let env = open_env(directory)?;
        let tables = open_tables(&env)?;
        let file = fs::File::options().read(true).write(true).open(&path).map_err(Fault::disk("open", &path))?;
        let transaction = env.read_txn().map_err(|error| fault("begin read", error))?;
        let page_bytes = u64::from(tables[0].stat(&transaction).map_err(|error| fault("stat", error))?.page_size);
        drop(transaction);
        Ok(Self { env, tables, file, page_bytes, reserved: AtomicU64::new(0), directory: directory.to_owned() })
    }

    /// Closes the environment; the file is left.
    pub(super) fn into_file(self) -> fs::File {
        self.file
    }

    pub(super) fn table(&self, bucket: Bucket) -> &Table {
        let place = Bucket::ALL.iter().position(|each| *each == bucket).expect("every bucket is listed");
        &self.tables[place]
    }

    pub(super) fn reserve_for_batch(&self, batch: &Batch) -> std::io::Result<()> {
        // Every row that goes, and every row of a table, may touch a path of pages of its own; rows in order share theirs.
        let row_bytes = batch.row_bytes as u64 + batch.rows.len() as u64 * ROW_BYTES;
        self.reserve(&Need { paths: batch.dead.len() + batch.tables.len(), row_bytes })
    }

    pub(super) fn reserve_for_rows(&self, rows: &[RawRow]) -> std::io::Result<()> {
        let bytes = |row: &RawRow| row.key.len() as u64 + row.value.as_ref().map_or(0, |value| value.len() as u64);
        let row_bytes = rows.iter().map(|row| bytes(row) + ROW_BYTES).sum();
        self.reserve(&Need { paths: Bucket::ALL.len(), row_bytes })
    }

    /// Takes the room for a transaction before LMDB writes a byte of it: LMDB calls a write that a full disk cut short an I/O error, which nobody could tell from a failing disk.
    fn reserve(&self, need: &Need) -> std::io::Result<()> {
        let last = self.env.info().last_page_number as u64;
        let paths = (need.paths + 8) as u64 * PATH_PAGES;
        let needed = (last + 1 + paths) * self.page_bytes + 2 * need.row_bytes;
        if needed <= self.reserved.load(Ordering::Relaxed) {
            return Ok(());
        }
        let rounded = needed.next_multiple_of(RESERVE_BYTES);
        let taken = match disk::allocate(&self.file, rounded) {
            Ok(()) => rounded,
            // There may be just enough.
            Err(_) => disk::allocate(&self.file, needed).map(|()| needed)?,
        };
        self.reserved.store(taken, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn write_batch(&self, batch: &Batch) -> Result<(), heed::Error> {
        let mut transaction = self.env.write_txn()?;
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

    pub(super) fn write_rows(&self, rows: &[RawRow]) -> Result<(), heed::Error> {
        let mut transaction = self.env.write_txn()?;
        for RawRow { bucket, key, value } in rows {
            let table = self.table(*bucket);
            match value {
                Some(value) => append_or_put(table, &mut transaction, key, value)?,
                None => drop(table.delete(&mut transaction, key)?),
            }
        }
        transaction.commit()
    }

    pub(super) fn size(&self) -> Result<Size, Fault> {
        let info = self.env.info();
        let transaction = self.env.read_txn().map_err(|error| fault("begin read", error))?;
        // The two meta pages and the root of the table of tables.
        let mut pages = 3;
        for table in &self.tables {
            let stat = table.stat(&transaction).map_err(|error| fault("stat", error))?;
            pages += (stat.branch_pages + stat.leaf_pages + stat.overflow_pages) as u64;
        }
        let allocated = (info.last_page_number as u64 + 1) * self.page_bytes;
        Ok(Size { allocated, in_use: pages * self.page_bytes })
    }
}

/// Rows in order fill their pages; one that comes out of order finds its place.
fn append_or_put(table: &Table, transaction: &mut RwTxn<'_>, key: &[u8], value: &[u8]) -> Result<(), heed::Error> {
    match table.put_with_flags(transaction, PutFlags::APPEND, key, value) {
        Err(heed::Error::Mdb(MdbError::KeyExist)) => table.put(transaction, key, value),
        written => written,
    }
}

/// Opens the tables and makes those that are missing.
fn open_tables(env: &Env<WithoutTls>) -> Result<[Table; Bucket::ALL.len()], Fault> {
    let mut transaction = env.write_txn().map_err(|error| fault("begin", error))?;
    let mut tables = Vec::with_capacity(Bucket::ALL.len());
    for bucket in Bucket::ALL {
        let table =
            env.create_database(&mut transaction, Some(bucket.name())).map_err(|error| fault("create table", error))?;
        tables.push(table);
    }
    transaction.commit().map_err(|error| fault("commit", error))?;
    Ok(tables.try_into().expect("one table for each bucket"))
}

/// Whether there is a file with anything in it.
fn disk_has(path: &Path) -> Result<bool, Fault> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.len() > 0),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Fault::disk("stat", path)(error)),
    }
}

/// Makes an environment with its tables, durable, and only then names it `path`. LMDB writes a new file's first pages in place: a power cut there leaves a file that
/// no start can tell from a damaged one.
fn make(directory: &Path, path: &Path) -> Result<(), Fault> {
    let staged = directory.join(STAGED);
    match fs::remove_dir_all(&staged) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(Fault::disk("remove", &staged)(error)),
        Ok(()) | Err(_) => {}
    }
    fs::create_dir(&staged).map_err(Fault::disk("create", &staged))?;
    take_lock_room(&staged)?;
    let env = open_env(&staged)?;
    open_tables(&env)?;
    // The last handle closes it.
    drop(env);
    fs::rename(staged.join("data.mdb"), path).map_err(Fault::disk("rename", path))?;
    // Nothing but LMDB's lock file is left there; if it stays, the next store that is made here removes it.
    let _ = fs::remove_dir_all(staged);
    Ok(())
}

/// Takes the room of LMDB's lock file. LMDB would make it with holes and write it through its map: on a full disk that is a signal that ends the process, not an error.
fn take_lock_room(directory: &Path) -> Result<(), Fault> {
    let path = directory.join("lock.mdb");
    let mut options = fs::File::options();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(Fault::disk("open", &path))?;
    disk::allocate(&file, LOCK_BYTES).map_err(Fault::disk("take room for", &path))
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
    matches!(error, heed::Error::Io(error) if error.kind() == ErrorKind::OutOfMemory)
}

pub(super) fn fault(action: &'static str, error: heed::Error) -> Fault {
    Fault::Store { action, cause: error.to_string() }
}
