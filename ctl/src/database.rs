//! A store as a bbolt file, written in one pass and read back before anybody relies on it.

use std::io::ErrorKind;
use std::ops::Bound;
use std::path::Path;

use detcd_io::bbolt::read::Reader;
use detcd_io::disk::{Access, Disk, File};
use detcd_io::fault::Fault;
use detcd_io::store::backend::{Backend, Frozen, Slice, Visit};
use detcd_io::store::buckets::Bucket;
use detcd_io::store::copying::Chunk;
use detcd_io::store::export::Export;

/// What of a store is read before it is written.
const CHUNK: Chunk = Chunk { rows: usize::MAX, bytes: COPY_BYTES };
/// What of a file is copied at once.
const COPY_BYTES: usize = 1 << 20;

/// Rows and their hash, as `snapshot status` has it: over the names of the tables and all rows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Digest {
    /// How many rows.
    pub rows: u64,
    /// The hash.
    pub hash: u32,
}

impl Digest {
    /// Counts a table in.
    pub fn begin(&mut self, name: &[u8]) {
        self.hash = crc32c::crc32c_append(self.hash, name);
    }

    /// Counts a row in.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows += 1;
        self.hash = crc32c::crc32c_append(crc32c::crc32c_append(self.hash, key), value);
    }
}

/// Writes all tables of a store into a new file at `path`, durably but for its name, and reads them back.
///
/// # Errors
/// The store or the disk failed, or the file does not hold what the store does.
pub async fn write<D: Disk, B: Backend>(disk: &D, backend: &B, path: &Path) -> Result<Digest, Fault> {
    let store = backend.freeze()?;
    let file = disk.open(path, Access::CreateNew).await.map_err(Fault::disk("create", path))?;
    let mut export = Export::default();
    let finished = loop {
        let finished = export.advance(&store, CHUNK)?;
        let (offset, pages) = export.take();
        file.write_all_at(&pages, offset).await.map_err(Fault::disk("write", path))?;
        if let Some(finished) = finished {
            break finished;
        }
    };
    file.write_all_at(&finished.metas, 0).await.map_err(Fault::disk("write", path))?;
    file.sync_all().await.map_err(Fault::disk("sync", path))?;
    drop(file);
    let digest = digest_of(&store)?;
    let written = read(disk, path, &mut |_, _, _| Ok(())).await?.1;
    if written != digest {
        let cause = format!("holds {written:?} after it was written, the store {digest:?}");
        return Err(Fault::Unfit { path: path.to_owned(), cause });
    }
    Ok(digest)
}

fn digest_of(store: &impl Frozen) -> Result<Digest, Fault> {
    let mut digest = Digest::default();
    for bucket in Bucket::ALL {
        digest.begin(bucket.name().as_bytes());
        store.scan(Slice { bucket, start: Bound::Unbounded, end: Bound::Unbounded }, &mut |key, value| {
            digest.add(key, value);
            Visit::More
        })?;
    }
    Ok(digest)
}

/// What is called for a row: the table, the key and the value.
pub type OnRow<'a> = dyn FnMut(&[u8], &[u8], &[u8]) -> Result<(), String> + 'a;

/// Reads a bbolt file to its end. Returns its length by its own account, and what is in it.
///
/// # Errors
/// The file cannot be read, is damaged, or a row was refused by `on_row`.
pub async fn read<D: Disk>(disk: &D, path: &Path, on_row: &mut OnRow<'_>) -> Result<(u64, Digest), Fault> {
    let file = disk.open(path, Access::Read).await.map_err(Fault::disk("open", path))?;
    let reader = Reader::open(file, path.to_owned()).await?;
    let mut digest = Digest::default();
    for bucket in reader.buckets().await? {
        digest.begin(&bucket.name);
        let mut rows = reader.rows(&bucket);
        while let Some((key, value)) = rows.next().await? {
            digest.add(&key, &value);
            on_row(&bucket.name, &key, &value).map_err(|cause| Fault::Corrupt {
                file: path.to_owned(),
                offset: rows.offset(),
                cause,
            })?;
        }
    }
    let meta = reader.meta();
    Ok((meta.high_water * u64::from(meta.page_bytes), digest))
}

/// Copies a file to a new one, durably but for its name. Where it is zero nothing is written, but the room is taken.
///
/// # Errors
/// The disk failed.
pub async fn copy<D: Disk>(disk: &D, source: &Path, target: &Path) -> Result<(), Fault> {
    let from = disk.open(source, Access::Read).await.map_err(Fault::disk("open", source))?;
    let to = disk.open(target, Access::CreateNew).await.map_err(Fault::disk("create", target))?;
    let size = from.size().await.map_err(Fault::disk("read", source))?;
    to.allocate(size).await.map_err(Fault::disk("preallocate", target))?;
    let (mut chunk, mut offset) = (vec![0; COPY_BYTES], 0);
    while offset < size {
        let read = from.read_at(&mut chunk, offset).await.map_err(Fault::disk("read", source))?;
        if read == 0 {
            return Err(Fault::disk("read", source)(ErrorKind::UnexpectedEof.into()));
        }
        if chunk[..read].iter().any(|byte| *byte != 0) {
            to.write_all_at(&chunk[..read], offset).await.map_err(Fault::disk("write", target))?;
        }
        offset += read as u64;
    }
    to.sync_all().await.map_err(Fault::disk("sync", target))
}
