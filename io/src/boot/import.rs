//! A directory that etcd wrote becomes ours: its database is copied into a store beside the place, checked there, and renamed into it.
//!
//! What a crash cannot break: until the one rename that names `member/lmdb`, there is only a temporary store, which the next start throws away; from then on
//! there is a whole one with a marker in it, and the next start only finishes: the database gets its other name, and the marker goes. A store with a marker has
//! never run. etcd's log and `.snap` files stay as they are, and so do the bytes of its database. Whatever speaks against the import is found before
//! the first byte is written ([`fitness`]) or, in the rows themselves, before the rename.

mod fitness;
mod source;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use detcd_core::ids::Index;
use detcd_core::membership::Membership;
use detcd_core::raft::snapshot::Snapshot;
use detcd_core::raft::{Configuration, Mark};

use self::source::{Digest, Source};
use super::execute::{BootError, Start};
use super::inspect::{MARKER, Places};
use super::plan::Import;
use crate::disk::{Access, Disk, File as _, Lock, exists, read_all, write_whole};
use crate::fault::Fault;
use crate::store::Store;
use crate::store::backend::{Backend, Committed, RawRow, Slice, Visit};
use crate::store::buckets::Bucket;
use crate::store::leases::LeaseRules;
use crate::wal;

/// Rows in one transaction of the import.
const CHUNK_ROWS_MAX: usize = 10_000;
/// Bytes after which a transaction ends.
const CHUNK_BYTES_MAX: usize = 8 << 20;
/// A marker is one line.
const MARKER_BYTES_MAX: u64 = 4096;

/// What was imported, for the log.
struct Imported {
    digest: Digest,
    keys: usize,
    revision: i64,
    applied: Index,
}

/// Makes the store from etcd's database, or finishes what an earlier start began.
pub(super) async fn import<D, B, F, O>(disk: &D, start: &Start, how: Import, open: &O) -> Result<(), BootError>
where
    D: Disk,
    B: Backend,
    F: Future<Output = Result<B, Fault>>,
    O: Fn(PathBuf) -> F,
{
    let places = &start.places;
    let _log = lock_log(disk, &places.wal_dir).await?;
    if how == Import::Finish {
        check_marker(disk, places).await?;
        return finish(disk, places).await;
    }
    let source = fitness::choose(disk, places).await?;
    fitness::check(disk, start, &source).await?;
    let staged = places.staged_store();
    discard(disk, &staged).await?;
    let imported = match stage(disk, start, &source, open).await {
        Ok(imported) => imported,
        Err(error) => {
            // The failure is what counts; what stays is thrown away by the next start.
            let _ = discard(disk, &staged).await;
            return Err(error);
        }
    };
    let marker = source.identity();
    write_whole(disk, &staged, MARKER, marker.as_bytes()).await.map_err(Fault::disk("write", &staged))?;
    disk.rename(&staged, &places.store()).await.map_err(Fault::disk("rename", &staged))?;
    sync(disk, &places.member()).await?;
    let Imported { digest, keys, revision, applied } = imported;
    tracing::info!(
        from = %source.path().display(), into = %places.store().display(), rows = digest.rows(), hash = format!("{:x}", digest.hash()), keys, revision,
        applied = applied.0, "imported the database of etcd"
    );
    finish(disk, places).await
}

/// Keeps etcd out while its files are read: it locks its log as we do.
async fn lock_log<D: Disk>(disk: &D, wal_dir: &Path) -> Result<Option<D::File>, BootError> {
    let Some(last) = wal::names(disk, wal_dir).await?.last().copied() else { return Ok(None) };
    let path = wal_dir.join(last.to_string());
    let file = disk.open(&path, Access::Write).await.map_err(Fault::disk("open", &path))?;
    match file.lock().await.map_err(Fault::disk("lock", &path))? {
        Lock::Taken => Ok(Some(file)),
        Lock::Elsewhere => Err(Fault::Locked { path }.into()),
    }
}

/// Copies into the temporary store and checks what arrived there. The store is closed when this returns.
async fn stage<D, B, F, O>(disk: &D, start: &Start, source: &Source<D::File>, open: &O) -> Result<Imported, BootError>
where
    D: Disk,
    B: Backend,
    F: Future<Output = Result<B, Fault>>,
    O: Fn(PathBuf) -> F,
{
    let staged = start.places.staged_store();
    disk.create_dir_all(&staged).await.map_err(Fault::disk("create", &staged))?;
    sync(disk, &start.places.member()).await?;
    let backend = open(staged.clone()).await?;
    let copied = copy(source, &backend, &staged).await?;
    let arrived = digest_of(&backend)?;
    if arrived != copied {
        let cause = format!("the import does not hold what was read: {arrived:?} instead of {copied:?}");
        return Err(Fault::Unfit { path: staged, cause }.into());
    }
    let unfit = |cause: String| Fault::Unfit { path: source.path().to_owned(), cause };
    let store =
        Store::load(backend, start.leases).await.map_err(|fault| unfit(format!("cannot be imported: {fault}")))?;
    if store.applied() != source.applied() {
        return Err(unfit("the import lost the applied index".to_owned()).into());
    }
    let (current, applied) = (store.current(), store.applied().index);
    Ok(Imported { digest: copied, keys: store.live_keys(), revision: current, applied })
}

/// All rows, in bounded transactions.
async fn copy<F: crate::disk::File, B: Backend>(
    source: &Source<F>,
    backend: &B,
    staged: &Path,
) -> Result<Digest, Fault> {
    let (mut digest, mut chunk, mut bytes) = (Digest::default(), Vec::new(), 0);
    for bucket in Bucket::ALL {
        let mut rows = source.rows(bucket);
        while let Some((key, value)) = rows.next().await? {
            digest.add(bucket, &key, &value);
            bytes += key.len() + value.len();
            chunk.push(RawRow { bucket, key, value: Some(value) });
            if chunk.len() == CHUNK_ROWS_MAX || bytes >= CHUNK_BYTES_MAX {
                load(backend, &chunk, staged).await?;
                chunk.clear();
                bytes = 0;
            }
        }
    }
    load(backend, &chunk, staged).await?;
    Ok(digest)
}

async fn load<B: Backend>(backend: &B, rows: &[RawRow], staged: &Path) -> Result<(), Fault> {
    match backend.load(rows).await? {
        Committed::Done => Ok(()),
        Committed::NoRoom => Err(Fault::disk("import into", staged)(std::io::ErrorKind::StorageFull.into())),
    }
}

fn digest_of<B: Backend>(backend: &B) -> Result<Digest, Fault> {
    let mut digest = Digest::default();
    for bucket in Bucket::ALL {
        let all = Slice { bucket, start: std::ops::Bound::Unbounded, end: std::ops::Bound::Unbounded };
        backend.scan(all, &mut |key, value| {
            digest.add(bucket, key, value);
            Visit::More
        })?;
    }
    Ok(digest)
}

/// Fills an empty store from a file that a leader sent, which must stand where the leader said, with the members it said.
///
/// # Errors
/// The file is damaged, about something else, or of a store that cannot be taken over yet; or the machine failed.
pub(crate) async fn receive<D: Disk, B: Backend>(
    disk: &D,
    path: &Path,
    store: &B,
    rules: LeaseRules,
    snapshot: &Snapshot,
) -> Result<Arc<Membership>, Fault> {
    let source = Source::open(disk, path.to_owned()).await?;
    let Snapshot { mark, configuration } = snapshot;
    let applied = source.applied();
    if Mark::new(applied.index, applied.term) != *mark {
        let cause = format!("the store ends at index {} of term {}, not at {mark}", applied.index, applied.term);
        return Err(source.unfit(cause));
    }
    let copied = copy(&source, store, path).await?;
    if digest_of(store)? != copied {
        return Err(source.unfit("what was copied is not what was read".to_owned()));
    }
    let loaded = Store::load(store.clone(), rules).await?;
    let membership = loaded.membership();
    let members = Configuration::of(&membership);
    if members != *configuration {
        return Err(source.unfit(format!("its members are {members}, the snapshot's {configuration}")));
    }
    Ok(membership)
}

/// Throws away what an import left that was cut short.
async fn discard<D: Disk>(disk: &D, staged: &Path) -> Result<(), Fault> {
    if exists(disk, staged).await.map_err(Fault::disk("look for", staged))? {
        disk.remove_dir_all(staged).await.map_err(Fault::disk("remove", staged))?;
    }
    Ok(())
}

/// The database must still be the one that was imported: an etcd may have run on it between two starts of ours.
async fn check_marker<D: Disk>(disk: &D, places: &Places) -> Result<(), BootError> {
    if !exists(disk, &places.etcd_store()).await.map_err(Fault::disk("look for", &places.etcd_store()))? {
        return Ok(());
    }
    let marker = places.store().join(MARKER);
    let told = read_all(disk, &marker, MARKER_BYTES_MAX).await.map_err(Fault::disk("read", &marker))?;
    let source = fitness::choose(disk, places).await?;
    if told == source.identity().as_bytes() {
        return Ok(());
    }
    let cause = format!(
        "is an unfinished import of an earlier state of {}; move it away to import the database as it is now",
        source.path().display()
    );
    Err(Fault::Unfit { path: places.store(), cause }.into())
}

/// Gives the database its other name, and only then lets the store be one like any other.
async fn finish<D: Disk>(disk: &D, places: &Places) -> Result<(), BootError> {
    // An earlier start may have been killed between the rename and its sync.
    sync(disk, &places.member()).await?;
    let database = places.etcd_store();
    if exists(disk, &database).await.map_err(Fault::disk("look for", &database))? {
        let kept = kept_name(disk, &database).await?;
        disk.rename(&database, &kept).await.map_err(Fault::disk("rename", &database))?;
        tracing::info!(path = %kept.display(), "kept the database of etcd under another name");
    }
    sync(disk, &places.snap()).await?;
    let marker = places.store().join(MARKER);
    disk.remove_file(&marker).await.map_err(Fault::disk("remove", &marker))?;
    Ok(sync(disk, &places.store()).await?)
}

/// `db.imported`, or a numbered one if that is taken.
async fn kept_name<D: Disk>(disk: &D, database: &Path) -> Result<PathBuf, Fault> {
    let mut number = 0_u64;
    loop {
        let mut name = database.as_os_str().to_owned();
        name.push(if number == 0 { ".imported".to_owned() } else { format!(".{number}.imported") });
        let candidate = PathBuf::from(name);
        if !exists(disk, &candidate).await.map_err(Fault::disk("look for", &candidate))? {
            return Ok(candidate);
        }
        number += 1;
    }
}

async fn sync<D: Disk>(disk: &D, directory: &Path) -> Result<(), Fault> {
    disk.sync_dir(directory).await.map_err(Fault::disk("sync", directory))
}
