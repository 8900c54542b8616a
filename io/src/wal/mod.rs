//! The write-ahead log: what a member must not forget, in etcd's own files.
//!
//! A log is a run of files in one directory. Each begins with the checksum of the one before, whose log it is, and the newest hard
//! state; entries never span files. The last file is preallocated, so that an append changes no length; the one after it exists
//! already as `0.tmp` or `1.tmp`.
//!
//! The invariants:
//!
//! * Nothing counts as written before `sync` has returned. Appends only fill a buffer; one write and one sync carry many of them.
//! * After any failed write, sync or rename the log is not touched again: nobody knows what is on the disk, and a second sync may say
//!   "fine" about pages that were lost (PostgreSQL's fsyncgate). The member stops and recovers from what is really there.
//! * A file is released only after the snapshot mark that makes it dispensable is durable.
//!
//! Reading order: `record` (bytes), `entry` (what they carry), `segment` (files), `decoder`, `recover`, `repair`, then
//! `writer` (the active part).

mod decoder;
pub mod entry;
mod error;
pub mod fuzz;
pub(crate) mod made;
pub mod record;
mod recover;
mod repair;
mod segment;
mod writer;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use detcd_core::ids::Index;
use detcd_core::raft::{HardState, Mark, Sync, Write};

pub use entry::{Marked, Metadata};
pub use error::{DecodeError, DecodeErrorKind, WalError};
pub use recover::{Floor, Recovered, marks, marks_from, read, read_newest};
pub use repair::{Repaired, repair};
pub use segment::{Name, Room, SEGMENT_BYTES, names, purge, purge_one};
pub use writer::{Batch, Report, Writer};

use crate::clock::Instant;
use crate::disk::{Disk, File};
use crate::fault::Fault;
use crate::mutants::mutated;
use crate::stats::{LogStats, add};
use segment::{Segment, Spare};

/// Records that need no sync wait in memory up to this size.
const LAZY_BYTES_MAX: usize = 128 * 1024;

/// A buffer that grew beyond this is given back.
const BUFFER_BYTES_KEPT: usize = 4 * 1024 * 1024;

/// A log that starts from nothing.
pub const NOTHING: Write = Write { snapshot: None, entries: Vec::new(), hard_state: None, sync: Sync::NotNeeded };

/// Where a log is and how long its files get.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// The directory.
    pub dir: PathBuf,
    /// Length at which a file is cut.
    pub segment_bytes: u64,
    /// The known bug that it carries, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    pub mutant: Option<crate::mutants::Mutant>,
}

impl Options {
    /// A log in this directory, with etcd's file length.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: SEGMENT_BYTES,
            #[cfg(mutants)]
            mutant: None,
        }
    }
}

/// A log that is open for writing: its directory entries, its locks and its end.
pub struct Wal<D: Disk> {
    disk: D,
    options: Options,
    metadata: Metadata,
    /// Files that are still needed, locked, oldest first; the last one is written to.
    segments: VecDeque<Segment<D::File>>,
    spare: Spare<D::File>,
    end: End,
    /// The newest hard state, to be repeated at the head of the next file.
    state: HardState,
    /// The newest entry or mark, which names the next file.
    last: Index,
    /// The newest mark.
    newest_mark: Index,
    /// Whether an I/O call failed, or was given up half-way.
    failed: bool,
    stats: Arc<LogStats>,
}

/// The end of the last file.
struct End {
    /// Place in the file where `pending` will be written.
    offset: u64,
    /// The running checksum after `pending`.
    crc: u32,
    /// Frames that are not in the file yet.
    pending: Vec<u8>,
    /// Whether something in `pending` or the file waits for a sync.
    needs_sync: bool,
}

impl<D: Disk> Wal<D> {
    /// Makes a new log: built in a directory beside its place, synced, and renamed into it. What an interrupted attempt left beside the
    /// place is removed; what is in the place is not touched. What a new member starts from, `founding`, is in it from the first moment, so
    /// that no crash leaves a log without it.
    pub async fn create(disk: D, options: Options, metadata: Metadata, founding: &Write) -> Result<Self, WalError> {
        let dir = options.dir.clone();
        if crate::disk::exists(&disk, &dir).await.map_err(Fault::disk("look for", &dir))? {
            // An empty directory may have been made for us, and is replaced by the rename.
            if !disk.list(&dir).await.map_err(Fault::disk("list", &dir))?.is_empty() {
                return Err(WalError::Exists { dir });
            }
        }
        let staged = beside(&dir, ".tmp");
        if crate::disk::exists(&disk, &staged).await.map_err(Fault::disk("look for", &staged))? {
            disk.remove_dir_all(&staged).await.map_err(Fault::disk("remove", &staged))?;
        }
        disk.create_dir_all(&staged).await.map_err(Fault::disk("create", &staged))?;

        let name = Name { seq: 0, index: Index::ZERO };
        let (mut pending, mut crc) = (Vec::new(), 0);
        record::encode_crc(&mut pending, crc);
        entry::put_metadata(&mut pending, &mut crc, metadata);
        entry::put_mark(&mut pending, &mut crc, &Marked { mark: Mark::default(), conf_state: None });
        for founded in &founding.entries {
            entry::put_entry(&mut pending, &mut crc, founded);
        }
        let state = founding.hard_state.unwrap_or_default();
        if !entry::is_empty(&state) {
            entry::put_state(&mut pending, &mut crc, &state);
        }
        let path = staged.join(name.to_string());
        let file = segment::allocated(&disk, &path, options.segment_bytes).await?;
        file.write_all_at(&pending, 0).await.map_err(Fault::disk("write", &path))?;
        file.sync_all().await.map_err(Fault::disk("sync", &path))?;
        disk.sync_dir(&staged).await.map_err(Fault::disk("sync", &staged))?;
        disk.rename(&staged, &dir).await.map_err(Fault::disk("rename", &staged))?;
        let parent = parent(&dir);
        disk.sync_dir(parent).await.map_err(Fault::disk("sync", parent))?;

        let segment = Segment { name, path: dir.join(name.to_string()), file: Arc::new(file) };
        let end = End { offset: pending.len() as u64, crc, pending: Vec::new(), needs_sync: false };
        let mut wal = Self::new(disk, options, metadata, VecDeque::from([segment]), end);
        wal.state = state;
        wal.last = founding.entries.last().map_or(Index::ZERO, |entry| entry.index);
        Ok(wal)
    }

    fn new(disk: D, options: Options, metadata: Metadata, segments: VecDeque<Segment<D::File>>, end: End) -> Self {
        assert!(!segments.is_empty());
        let (state, last) = (HardState::default(), Index::ZERO);
        let (spare, stats) = (Spare::new(), Arc::default());
        Self { disk, options, metadata, segments, spare, end, state, last, newest_mark: last, failed: false, stats }
    }

    /// The disk it is on.
    pub const fn disk(&self) -> &D {
        &self.disk
    }

    /// What is counted.
    pub const fn stats(&self) -> &Arc<LogStats> {
        &self.stats
    }

    /// The directory it is in.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// Whose log it is.
    pub const fn metadata(&self) -> Metadata {
        self.metadata
    }

    /// Bytes that are not in the file yet.
    pub fn pending_bytes(&self) -> usize {
        self.end.pending.len()
    }

    /// Adds one write to what the next `sync` makes durable: a snapshot that voids what was before it, then entries, then the hard state.
    pub fn append(&mut self, write: &Write) {
        if let Some(snapshot) = &write.snapshot {
            let conf_state = Some(entry::conf_state(&snapshot.configuration));
            let marked = Marked { mark: snapshot.mark, conf_state };
            entry::put_mark(&mut self.end.pending, &mut self.end.crc, &marked);
            (self.last, self.newest_mark) = (snapshot.mark.index, snapshot.mark.index);
        }
        for entry in &write.entries {
            entry::put_entry(&mut self.end.pending, &mut self.end.crc, entry);
            self.last = entry.index;
        }
        let mut needs_sync = write.sync == Sync::Required || !write.entries.is_empty();
        if let Some(state) = &write.hard_state
            && !entry::is_empty(state)
            && !mutated!(self.options, HardStateNotWritten)
        {
            needs_sync |= state.term != self.state.term || state.vote != self.state.vote;
            entry::put_state(&mut self.end.pending, &mut self.end.crc, state);
            self.state = *state;
        }
        self.end.needs_sync |= needs_sync;
    }

    /// Makes everything appended so far durable. Where nothing of it must be, it may stay in memory for a while.
    pub async fn sync(&mut self) -> Result<(), Fault> {
        if self.end.needs_sync {
            return self.sync_now().await;
        }
        if self.end.pending.len() >= LAZY_BYTES_MAX {
            return self.flush().await;
        }
        self.unless_failed()
    }

    /// Records that the log may be read from this mark on, makes that durable with everything before it, and only then releases the
    /// files that no reader needs any more. The caller has made the store durable at the mark or beyond.
    ///
    /// While a store that a leader sent waits to be installed, the present one goes on and has marks made. Behind the newer mark they would say nothing, and to whoever takes the
    /// last one for the newest something wrong.
    pub async fn save_mark(&mut self, marked: &Marked) -> Result<(), Fault> {
        if self.newest_mark <= marked.mark.index {
            entry::put_mark(&mut self.end.pending, &mut self.end.crc, marked);
            self.newest_mark = marked.mark.index;
        }
        self.last = self.last.max(marked.mark.index);
        self.sync_now().await?;
        self.release_to(marked.mark.index);
        Ok(())
    }

    /// Begins the next file if this one has reached its length. Without room for one, this file grows on.
    pub async fn cut_if_full(&mut self) -> Result<(), Fault> {
        if self.end.offset + (self.end.pending.len() as u64) < self.options.segment_bytes {
            return Ok(());
        }
        if self.prepare().await? == Room::None {
            return Ok(());
        }
        self.cut().await
    }

    /// Makes the next file ahead of need, if there is room.
    pub async fn prepare(&mut self) -> Result<Room, Fault> {
        self.unless_failed()?;
        self.spare.prepare(&self.disk, &self.options.dir, self.options.segment_bytes).await
    }

    /// Whether the next file is there.
    pub const fn room(&self) -> Room {
        self.spare.room()
    }

    /// Writes out what waits in memory and removes the file made ahead of need. To be called at a clean stop; without it, nothing that
    /// was promised is lost.
    pub async fn close(mut self) -> Result<(), Fault> {
        self.sync_now().await?;
        if let Some((path, _)) = self.spare.take() {
            segment::remove_if_there(&self.disk, &path).await?;
        }
        Ok(())
    }

    /// Begins the next file, whose room has been taken.
    async fn cut(&mut self) -> Result<(), Fault> {
        self.sync_now().await?;
        let (staged, file) = self.spare.take().expect("cut follows a prepare that found room");
        self.failed = true;
        let dir = self.options.dir.clone();
        let old = self.tail();
        old.file.set_size(self.end.offset).await.map_err(Fault::disk("truncate", &old.path))?;
        old.file.sync_all().await.map_err(Fault::disk("sync", &old.path))?;

        let name = Name { seq: old.name.seq + 1, index: Index(self.last.0.saturating_add(1)) };
        let mut head = Vec::new();
        record::encode_crc(&mut head, self.end.crc);
        entry::put_metadata(&mut head, &mut self.end.crc, self.metadata);
        if !entry::is_empty(&self.state) {
            entry::put_state(&mut head, &mut self.end.crc, &self.state);
        }
        file.write_all_at(&head, 0).await.map_err(Fault::disk("write", &staged))?;
        file.sync_all().await.map_err(Fault::disk("sync", &staged))?;
        add(&self.stats.bytes, head.len() as u64);
        let path = dir.join(name.to_string());
        self.disk.rename(&staged, &path).await.map_err(Fault::disk("rename", &staged))?;
        if !mutated!(self.options, CutWithoutDirSync) {
            self.disk.sync_dir(&dir).await.map_err(Fault::disk("sync", &dir))?;
        }

        tracing::info!(path = %path.display(), "created a new WAL segment");
        self.segments.push_back(Segment { name, path, file });
        self.end.offset = head.len() as u64;
        self.failed = false;
        Ok(())
    }

    async fn sync_now(&mut self) -> Result<(), Fault> {
        self.flush().await?;
        self.failed = true;
        let began = Instant::now();
        let tail = self.tail();
        let mut synced = tail.file.sync_data().await;
        if mutated!(self.options, SyncErrorIgnored) {
            synced = Ok(());
        }
        if synced.is_err() && mutated!(self.options, SyncErrorRetried) {
            synced = tail.file.sync_data().await;
        }
        synced.map_err(Fault::disk("sync", &tail.path))?;
        self.stats.sync.observe(began.elapsed());
        self.failed = false;
        self.end.needs_sync = false;
        Ok(())
    }

    /// Writes what waits in memory to the file, in one call.
    async fn flush(&mut self) -> Result<(), Fault> {
        self.unless_failed()?;
        if self.end.pending.is_empty() {
            return Ok(());
        }
        // Stays set if the call fails, and also if this future is dropped in it.
        self.failed = true;
        let began = Instant::now();
        let tail = self.tail();
        let written = tail.file.write_all_at(&self.end.pending, self.end.offset).await;
        written.map_err(Fault::disk("write", &tail.path))?;
        self.stats.write.observe(began.elapsed());
        add(&self.stats.bytes, self.end.pending.len() as u64);
        self.failed = false;
        self.end.offset += self.end.pending.len() as u64;
        self.end.pending.clear();
        self.end.pending.shrink_to(BUFFER_BYTES_KEPT);
        Ok(())
    }

    /// Gives up the files that cannot hold an entry from `index` on: everything before the one that may hold it.
    fn release_to(&mut self, index: Index) {
        let first_behind = self.segments.iter().position(|segment| segment.name.index >= index);
        let dispensable = first_behind.unwrap_or(self.segments.len()).saturating_sub(1);
        self.segments.drain(..dispensable);
        assert!(!self.segments.is_empty());
    }

    fn unless_failed(&self) -> Result<(), Fault> {
        if self.failed { Err(Fault::AfterFault { path: self.options.dir.clone() }) } else { Ok(()) }
    }

    fn tail(&self) -> &Segment<D::File> {
        self.segments.back().expect("a log has at least one file")
    }
}

/// `dir` with something at the end of its name.
fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(dir);
    name.push(suffix);
    PathBuf::from(name)
}

/// The directory that holds the entry of `dir`.
fn parent(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

#[cfg(test)]
mod tests;
