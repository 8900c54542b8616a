//! What the fuzzer calls, and the stable tests too: any bytes as a database file.
//!
//! The invariants it checks, whatever the bytes: reading ends, without a panic, in rows or in an error that names the place; rows are in order, and not more of them than the
//! bytes can hold; what was read, written as a new file and read again is the same. Since a meta is nothing without its checksum, the bytes are tried as they are and then with metas
//! that check out, for large pages and for small ones.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::page::{ELEMENT_BYTES, HEADER_BYTES};
use super::read::Reader;
use super::write::Writer;
use super::{MAGIC, META_BYTES, VERSION, checksum};
use crate::disk::{Access, Disk, MemoryDisk};
use crate::fault::Fault;
use crate::wal::fuzz::ready;

/// What became of the bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// They are a database.
    Read {
        /// How many buckets.
        buckets: usize,
        /// How many rows in all.
        rows: usize,
    },
    /// They are not, and this is what an operator would read.
    Refused(String),
}

/// Buckets and rows in the order of their file.
pub(crate) type Found = Vec<(Bytes, Vec<(Bytes, Bytes)>)>;

/// Takes the bytes for a database, and answers for them as they are.
///
/// # Panics
/// If one of the promises above is broken: then there is a bug.
#[must_use]
pub fn read(bytes: &[u8]) -> Outcome {
    let outcome = check(bytes.to_vec());
    for page_bytes in [4096, 1024] {
        let _ = check(sealed(bytes, page_bytes));
    }
    outcome
}

/// The bytes with metas that check out, as far as there is room for them.
pub(crate) fn sealed(bytes: &[u8], page_bytes: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let pages = (bytes.len() / page_bytes) as u64;
    for at in [HEADER_BYTES, page_bytes + HEADER_BYTES] {
        let Some(meta) = bytes.get_mut(at..at + META_BYTES) else { continue };
        meta[..4].copy_from_slice(&MAGIC.to_le_bytes());
        meta[4..8].copy_from_slice(&VERSION.to_le_bytes());
        meta[8..12].copy_from_slice(&(page_bytes as u32).to_le_bytes());
        meta[40..48].copy_from_slice(&pages.to_le_bytes());
        let sum = checksum(&meta[..56]);
        meta[56..].copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

fn check(bytes: Vec<u8>) -> Outcome {
    let len = bytes.len();
    let found = match found(bytes) {
        Ok(found) => found,
        Err(Fault::Corrupt { file, offset, cause }) => {
            assert_eq!(file, Path::new("db"));
            assert!(offset <= u64::MAX / 2, "{cause}");
            return Outcome::Refused(cause);
        }
        Err(fault) => panic!("a file in memory can only be damaged: {fault}"),
    };
    let rows = found.iter().map(|(_, rows)| rows.len()).sum::<usize>();
    assert!(found.is_sorted_by(|(one, _), (next, _)| one < next));
    assert!(found.iter().all(|(_, rows)| rows.is_sorted_by(|(one, _), (next, _)| one < next)));
    // Two buckets may name one tree; no bucket has more rows than fit.
    assert!(found.iter().all(|(_, rows)| rows.len() <= len / ELEMENT_BYTES));
    let outcome = Outcome::Read { buckets: found.len(), rows };
    assert_eq!(self::found(written(&found)).expect("we wrote it"), found, "written and read again");
    outcome
}

pub(crate) fn found(bytes: Vec<u8>) -> Result<Found, Fault> {
    let (disk, path) = (MemoryDisk::new(), PathBuf::from("db"));
    disk.put(&path, bytes);
    ready(async {
        let reader = Reader::open(disk.open(&path, Access::Read).await.expect("it is there"), path).await?;
        let mut found = Found::new();
        for bucket in reader.buckets().await? {
            let (mut cursor, mut rows) = (reader.rows(&bucket), Vec::new());
            while let Some(row) = cursor.next().await? {
                rows.push(row);
            }
            found.push((bucket.name.clone(), rows));
        }
        Ok(found)
    })
}

/// The file of these buckets.
pub(crate) fn written(found: &Found) -> Vec<u8> {
    let mut writer = Writer::new();
    for (name, rows) in found {
        writer.bucket(name);
        for (key, value) in rows {
            writer.row(key, value);
        }
    }
    let finished = writer.finish();
    let (offset, pages) = writer.take();
    let mut file = finished.metas;
    file.resize(usize::try_from(offset).expect("a small file"), 0);
    file.extend(pages);
    file
}
