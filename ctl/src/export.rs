//! A stopped member's directory as one that etcd 3.7 starts on.
//!
//! The store becomes `member/snap/db`; log and `.snap` files are copied as they are, being etcd's already. What the store had not taken in yet is in the log, and
//! etcd replays it. Of the member's own directory nothing but lock files
//! is written. The output appears by one rename, whole and durable, or not at all.

use std::path::{Path, PathBuf};

use detcd_io::boot::found::{Found, MemberFound, Presence};
use detcd_io::boot::inspect::{Places, inspect};
use detcd_io::disk::{Access, Disk, File as _, Lock, RealDisk, exists};
use detcd_io::fault::Fault;
use detcd_io::store::backend::Backend as _;
use detcd_io::store::buckets::{self, Bucket};
use detcd_io::store::lmdb::Lmdb;
use detcd_io::wal;

use crate::ToolError;
use crate::database::{self, Digest};

/// What was exported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exported {
    /// The rows of the database.
    pub digest: Digest,
    /// The entry up to which it has them; etcd takes the rest from the log.
    pub applied: u64,
    /// How many files of the log.
    pub logs: usize,
    /// How many `.snap` files.
    pub snaps: usize,
}

/// Exports the member at `places` into `output`, which is absent or empty.
///
/// # Errors
/// [`ToolError`]; then there is nothing in the output.
pub async fn export(places: &Places, output: &Path) -> Result<Exported, ToolError> {
    let disk = RealDisk;
    expect_outside(places, output)?;
    let _claim = claim(&disk, places).await?;
    let backend = Lmdb::open(&places.store())?;
    let applied = applied(&backend, places)?;
    let marks = wal::marks(&disk, &places.wal_dir).await?;
    if let Some(mark) = marks.last().filter(|marked| applied < marked.mark.index.0) {
        let mark = mark.mark.index;
        return Err(refused(
            &places.store(),
            format!("the store ends at entry {applied}, before the log's newest mark at {mark}"),
        ));
    }
    expect_nothing(&disk, output).await?;
    let staged = output.join("member.tmp");
    match write(&disk, places, &backend, &staged).await {
        Ok((digest, logs, snaps)) => {
            appear(&disk, &staged, output).await?;
            Ok(Exported { digest, applied, logs, snaps })
        }
        Err(error) => {
            // The failure is what counts.
            let _ = disk.remove_dir_all(&staged).await;
            Err(error)
        }
    }
}

/// Takes the member's directory, if it is one and nobody runs on it.
async fn claim(disk: &RealDisk, places: &Places) -> Result<<RealDisk as Disk>::File, ToolError> {
    let path = places.lock();
    if !exists(disk, &path).await.map_err(Fault::disk("look for", &path))? {
        let database = places.etcd_store();
        let is_etcds = exists(disk, &database).await.map_err(Fault::disk("look for", &database))?;
        let cause = if is_etcds {
            "holds a database of etcd (member/snap/db): it needs no export"
        } else {
            "no member of detcd has run here"
        };
        return Err(refused(&places.data_dir, cause.to_owned()));
    }
    let lock = disk.open(&path, Access::Write).await.map_err(Fault::disk("open", &path))?;
    if lock.lock().await.map_err(Fault::disk("lock", &path))? == Lock::Elsewhere {
        return Err(Fault::Locked { path }.into());
    }
    let cause = match inspect(disk, places).await {
        Found::Member(MemberFound { import_marker: Presence::Present, .. }) => {
            "the import of etcd's database is not finished; start the member once"
        }
        Found::Member(MemberFound { etcd_store: Presence::Present, .. }) => {
            "holds a database of etcd (member/snap/db) already"
        }
        Found::Member(MemberFound { store: Presence::Absent, .. }) => "there is no store (member/lmdb)",
        Found::Member(MemberFound { log: Presence::Absent, .. }) => "there is no log; is --wal-dir missing?",
        Found::Member(_) => return Ok(lock),
        _ => "is no data directory of a member",
    };
    Err(refused(&places.data_dir, cause.to_owned()))
}

fn applied(backend: &Lmdb, places: &Places) -> Result<u64, ToolError> {
    let Some(bytes) = backend.get(Bucket::Meta, buckets::APPLIED_INDEX)? else { return Ok(0) };
    let number = bytes.as_ref().try_into().map(u64::from_be_bytes);
    number.map_err(|_| refused(&places.store(), "consistent_index: not eight bytes".to_owned()))
}

/// An export belongs to nobody's member.
fn expect_outside(places: &Places, output: &Path) -> Result<(), ToolError> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(Fault::disk("find", path));
    let inside = absolute(output)?;
    for place in [&places.data_dir, &places.wal_dir] {
        if inside.starts_with(absolute(place)?) {
            return Err(refused(output, format!("lies in {}", place.display())));
        }
    }
    Ok(())
}

async fn expect_nothing(disk: &RealDisk, output: &Path) -> Result<(), ToolError> {
    if !exists(disk, output).await.map_err(Fault::disk("look for", output))? {
        return Ok(());
    }
    let names = disk.list(output).await.map_err(Fault::disk("list", output))?;
    if names.is_empty() { Ok(()) } else { Err(refused(output, "is not empty".to_owned())) }
}

/// Writes everything below `staged`, durably. Returns the rows, and how many files of the log and `.snap` files there are.
async fn write(
    disk: &RealDisk,
    places: &Places,
    backend: &Lmdb,
    staged: &Path,
) -> Result<(Digest, usize, usize), ToolError> {
    let (log, snap) = (staged.join("wal"), staged.join("snap"));
    for directory in [&log, &snap] {
        disk.create_dir_all(directory).await.map_err(Fault::disk("create", directory))?;
    }
    let digest = database::write(disk, backend, &snap.join("db")).await?;
    let logs = wal::names(disk, &places.wal_dir).await?;
    for name in &logs {
        database::copy(disk, &places.wal_dir.join(name.to_string()), &log.join(name.to_string())).await?;
    }
    let mut snaps = 0;
    let from = places.snap();
    for name in disk.list(&from).await.map_err(Fault::disk("list", &from))? {
        if name.to_str().is_some_and(|name| name.ends_with(".snap")) {
            database::copy(disk, &from.join(&name), &snap.join(&name)).await?;
            snaps += 1;
        }
    }
    for directory in [&log, &snap, &staged.to_owned()] {
        disk.sync_dir(directory).await.map_err(Fault::disk("sync", directory))?;
    }
    Ok((digest, logs.len(), snaps))
}

/// The rename that makes it a directory of etcd's, and everything above it made durable.
async fn appear(disk: &RealDisk, staged: &Path, output: &Path) -> Result<(), Fault> {
    disk.rename(staged, &output.join("member")).await.map_err(Fault::disk("rename", staged))?;
    let absolute = std::path::absolute(output).map_err(Fault::disk("look for", output))?;
    for directory in absolute.ancestors() {
        match disk.sync_dir(directory).await {
            // What we may not open, we have not made.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            done => done.map_err(Fault::disk("sync", directory))?,
        }
    }
    Ok(())
}

fn refused(path: &Path, cause: String) -> ToolError {
    ToolError::Refused { path: PathBuf::from(path), cause }
}
