//! Cuts a write that a crash left unfinished off the end of a log.
//!
//! The invariant: nothing that could still be read is destroyed. The whole file is copied and synced, with its directory entry, before a
//! byte of it is cut; an earlier copy is not replaced; and only what a cut-off write explains is cut. Everything else is left as it is.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::decoder::{Decoder, Source};
use super::error::WalError;
use super::segment::{Segment, names};
use crate::disk::{Access, Disk, File, free_name};
use crate::fault::Fault;

const CHUNK_BYTES: usize = 1024 * 1024;

/// What repair did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Repaired {
    /// The last file is sound in itself; nothing was changed. If the log cannot be read, the damage is in an earlier one.
    Sound,
    /// The last file was cut.
    Cut {
        /// The file.
        file: PathBuf,
        /// Its length now.
        offset: u64,
        /// The copy of what it was.
        copy: PathBuf,
    },
}

/// Repairs the last file of a log, if its end is a write that a crash cut off. Damage of any other kind is the error that is returned.
pub async fn repair<D: Disk>(disk: &D, dir: &Path) -> Result<Repaired, WalError> {
    let Some(name) = names(disk, dir).await?.pop() else {
        return Err(WalError::FileNotFound { dir: dir.to_owned(), index: 0 });
    };
    let Segment { path, file, .. } = Segment::open(disk, dir, name).await?;
    tracing::info!(path = %path.display(), "repairing");
    let source = Source::new(Arc::clone(&file), path.clone()).await?;
    let mut decoder = Decoder::new(VecDeque::from([source]));
    let error = loop {
        match decoder.next().await {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(Repaired::Sound),
            Err(error) => break error,
        }
    };
    if !error.is_repairable() {
        return Err(error);
    }
    let offset = decoder.offset();
    let copy = keep_copy(disk, dir, &file, &path).await?;
    file.set_size(offset).await.map_err(Fault::disk("truncate", &path))?;
    file.sync_all().await.map_err(Fault::disk("sync", &path))?;
    tracing::warn!(path = %path.display(), copy = %copy.display(), offset, %error, "repaired WAL");
    Ok(Repaired::Cut { file: path, offset, copy })
}

/// Makes a durable copy of a file beside it, before something is wiped from it.
pub(super) async fn keep_copy<D: Disk>(disk: &D, dir: &Path, file: &D::File, path: &Path) -> Result<PathBuf, Fault> {
    let copy = free_name(disk, path).await.map_err(Fault::disk("look beside", path))?;
    if let Err(fault) = copy_whole(disk, file, path, &copy).await {
        // Half a copy helps nobody and may be what fills the disk. The file itself is untouched.
        let _ = disk.remove_file(&copy).await;
        return Err(fault);
    }
    disk.sync_dir(dir).await.map_err(Fault::disk("sync", dir))?;
    Ok(copy)
}

async fn copy_whole<D: Disk>(disk: &D, source: &D::File, path: &Path, copy: &Path) -> Result<(), Fault> {
    let target = disk.open(copy, Access::CreateNew).await.map_err(Fault::disk("create", copy))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        let read = source.read_at(&mut chunk, offset).await.map_err(Fault::disk("read", path))?;
        if read == 0 {
            break;
        }
        target.write_all_at(&chunk[..read], offset).await.map_err(Fault::disk("write", copy))?;
        offset += read as u64;
    }
    target.sync_all().await.map_err(Fault::disk("sync", copy))
}
