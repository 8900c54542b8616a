//! A snapshot is etcd's database file of one moment of the history, and that moment is not before it was asked for.

use std::path::PathBuf;

use bytes::Bytes;
use detcd_io::bbolt::read::Reader;
use detcd_io::disk::{Access, Disk as _, MemoryDisk};
use detcd_io::fault::Fault;
use detcd_io::store::buckets::{self, Bucket, RevisionKey};
use sha2::{Digest as _, Sha256};

use super::replay::now;
use super::rows::{Table, left_by};
use super::{Promise, Violation};
use crate::clients::archivist::Taken;
use crate::store::Tables;

/// What a snapshot holds.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The newest revision that was known to be there when it was asked for.
    known: i64,
    /// Its rows.
    pub tables: Tables,
}

/// Reads the files.
///
/// # Errors
/// One that is none, or whose pieces or hash do not fit.
pub fn read(taken: &[Taken]) -> Result<Vec<Snapshot>, Violation> {
    let read = |taken: &Taken| {
        let tables = now(tables(file(taken)?)).map_err(|fault| format!("it cannot be read: {fault}"))?;
        Ok(Snapshot { known: taken.known, tables })
    };
    taken.iter().map(read).collect::<Result<_, _>>().map_err(wrong)
}

/// Checks the rows of keys in every snapshot against those of all revisions. The rest is the replay's to check, which goes past all of them.
///
/// # Errors
/// One that is not what was promised.
pub fn check(snapshots: &[Snapshot], history: &Table) -> Result<(), Violation> {
    snapshots.iter().try_for_each(|snapshot| judge(&snapshot.tables, history, snapshot.known)).map_err(wrong)
}

fn wrong(what: String) -> Violation {
    Violation::new(Promise::Snapshot, what)
}

/// The file, once its pieces fit and the hash is theirs.
fn file(taken: &Taken) -> Result<Vec<u8>, String> {
    let Some((hash, pieces)) = taken.pieces.split_last() else { return Err("there is no piece".to_owned()) };
    let file: Vec<u8> = pieces.iter().flat_map(|piece| piece.blob.iter().copied()).collect();
    let mut left = file.len() as u64;
    for piece in pieces {
        left -= piece.blob.len() as u64;
        if piece.remaining_bytes != left {
            return Err(format!("{} bytes remain where {left} do", piece.remaining_bytes));
        }
    }
    if hash.blob.as_ref() != Sha256::digest(&file).as_slice() {
        return Err("the hash is not the file's".to_owned());
    }
    Ok(file)
}

async fn tables(file: Vec<u8>) -> Result<Tables, Fault> {
    let (disk, path) = (MemoryDisk::new(), PathBuf::from("db"));
    disk.put(&path, file);
    let opened = disk.open(&path, Access::Read).await.map_err(Fault::disk("open", &path))?;
    let reader = Reader::open(opened, path).await?;
    let mut tables = Tables::new();
    for found in reader.buckets().await? {
        let Some(bucket) = Bucket::ALL.into_iter().find(|bucket| bucket.name().as_bytes() == found.name) else {
            continue;
        };
        let mut rows = reader.rows(&found);
        while let Some((key, value)) = rows.next().await? {
            tables.entry(bucket).or_default().insert(key, value);
        }
    }
    Ok(tables)
}

fn judge(tables: &Tables, history: &Table, known: i64) -> Result<(), String> {
    let (nothing, none) = (Table::new(), Table::new());
    let rows = tables.get(&Bucket::Key).unwrap_or(&nothing);
    let meta = tables.get(&Bucket::Meta).unwrap_or(&none);
    let main = |key: &Bytes| RevisionKey::parse(key).map_or(0, |(revision, _)| revision.main);
    let current = rows.keys().next_back().map_or(1, main);
    let compacted = meta.get(buckets::SCHEDULED_COMPACTION).map_or(-1, main);
    if current.max(compacted) < known {
        return Err(format!("it ends at {current}, and {known} was known when it was asked for"));
    }
    let then: Table =
        history.iter().filter(|(key, _)| main(key) <= current).map(|(k, v)| (k.clone(), v.clone())).collect();
    if let Some((key, _)) = rows.iter().find(|(key, value)| then.get(*key) != Some(value)) {
        return Err(format!("row {key:?} was never written"));
    }
    // The sweep of the last compaction may be under way, and that of the one before it is over or may be, too.
    if let Some(key) = left_by(&then, compacted).keys().find(|key| !rows.contains_key(*key)) {
        return Err(format!("row {key:?} is missing; compacted at {compacted}, current {current}"));
    }
    let finished = meta.get(buckets::FINISHED_COMPACTION).map_or(-1, main);
    let left = left_by(&then, finished);
    match rows.keys().find(|key| finished > 0 && main(key) <= finished && !left.contains_key(*key)) {
        Some(key) => Err(format!("row {key:?} is there, although the sweep of {finished} has ended")),
        None => Ok(()),
    }
}
