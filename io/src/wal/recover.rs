//! From the files of a log back to what a member must not have forgotten.
//!
//! The invariant: what comes back is what some moment of the writer's life had appended – a prefix of its records – or an error that
//! names file and place. Later records overrule earlier ones: the last hard state counts, and an entry replaces everything from its
//! index on. Nothing is changed on the disk before the whole log was read without an error, and then only behind its last good frame.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::{Entry, HardState, Mark};

use super::decoder::{Decoder, Source};
use super::entry::{self, Marked, Metadata};
use super::error::{DecodeError, DecodeErrorKind, WalError};
use super::record::{FRAME_HEAD_BYTES, Kind, Record};
use super::repair::{keep_copy, repair};
use super::segment::{Name, Segment, names, select};
use super::{End, Options, Wal, parent};
use crate::disk::{Access, Disk, File};
use crate::fault::Fault;
use crate::mutants::mutated;

/// What a log says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recovered {
    /// Whose log it is.
    pub metadata: Metadata,
    /// The newest hard state.
    pub hard_state: HardState,
    /// The entries after the mark that reading started from, without a gap.
    pub entries: Vec<Entry>,
}

/// How far a log reaches at least, if it is this member's: what the store of an only voter has applied was in its log before. A log that ends
/// earlier has rotted, however much its end looks like a write that a crash cut off, and nothing of it is cut or wiped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Floor {
    /// The only voter.
    pub member: MemberId,
    /// How far its store is.
    pub applied: Index,
}

impl Floor {
    /// Holds what was read, from `start` on, against it; nothing more can be read behind `offset` of `file`.
    fn check(self, recovered: &Recovered, start: Mark, (file, offset): (&Path, u64)) -> Result<(), WalError> {
        let last = recovered.entries.last().map_or(start.index, |entry| entry.index);
        if recovered.metadata.member != self.member || self.applied <= last {
            return Ok(());
        }
        let kind = DecodeErrorKind::Short { last: last.0, applied: self.applied.0 };
        Err(DecodeError { kind, file: file.to_owned(), offset }.into())
    }
}

/// Reads the snapshot records that may be started from, oldest first, in whatever order they were written: those whose entry is known to be committed. The newest is
/// the one to start from.
///
/// A cut-off last write ends the scan without an error, as it does not concern the records before it.
pub async fn marks<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<Marked>, WalError> {
    let names = names(disk, dir).await?;
    marks_in(disk, dir, &names).await
}

/// The same without files that cannot hold a record of this index or behind it: damage there does not matter to who looks for one.
pub async fn marks_from<D: Disk>(disk: &D, dir: &Path, index: Index) -> Result<Vec<Marked>, WalError> {
    let names = names(disk, dir).await?;
    let first = names.iter().rposition(|name| name.index <= index).unwrap_or(0);
    marks_in(disk, dir, names.get(first..).unwrap_or_default()).await
}

async fn marks_in<D: Disk>(disk: &D, dir: &Path, names: &[Name]) -> Result<Vec<Marked>, WalError> {
    if names.is_empty() {
        return Err(WalError::FileNotFound { dir: dir.to_owned(), index: 0 });
    }
    let mut decoder = Decoder::new(sources(&segments(disk, dir, names, Mode::Read).await?).await?);
    let mut found = Vec::new();
    let mut commit = Index::ZERO;
    loop {
        let record = match decoder.next().await {
            Ok(Some(record)) => record,
            Ok(None) => break,
            Err(error) if error.is_repairable() => break,
            Err(error) => return Err(error),
        };
        match record.kind {
            Kind::Snapshot => found.push(parsed(&decoder, entry::mark(record.data))?),
            Kind::State => commit = parsed(&decoder, entry::state(record.data))?.commit,
            Kind::Metadata | Kind::Entry | Kind::Crc | Kind::Unknown(_) => {}
        }
    }
    found.retain(|marked| marked.mark.index <= commit);
    found.sort_by_key(|marked| marked.mark.index);
    Ok(found)
}

/// Reads a log from `start` on without locking or changing it; a cut-off last write is passed over.
pub async fn read<D: Disk>(disk: &D, dir: &Path, start: Mark) -> Result<Recovered, WalError> {
    read_from(disk, dir, start).await.map(|(recovered, _)| recovered)
}

/// The same from its newest mark on. If that is `believed`, which may be wrong, the log is read once.
pub async fn read_newest<D: Disk>(disk: &D, dir: &Path, believed: Mark) -> Result<Recovered, WalError> {
    if let Ok((recovered, newest)) = read_from(disk, dir, believed).await
        && newest == Some(believed)
    {
        return Ok(recovered);
    }
    let newest = marks(disk, dir).await?.last().map_or(Mark::ZERO, |marked| marked.mark);
    read(disk, dir, newest).await
}

/// Also tells the newest mark that was read and may be started from.
async fn read_from<D: Disk>(disk: &D, dir: &Path, start: Mark) -> Result<(Recovered, Option<Mark>), WalError> {
    let names = names(disk, dir).await?;
    let selected = select(dir, &names, start.index)?;
    let mut decoder = Decoder::new(sources(&segments(disk, dir, selected, Mode::Read).await?).await?);
    let mut replay = Replay::new(start);
    match replay.run(&mut decoder).await {
        Err(error) if !error.is_repairable() => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let newest = replay.newest();
    Ok((replay.finish(dir)?.0, newest))
}

impl<D: Disk> Wal<D> {
    /// Opens a log for writing and reads it from `start` on. Every file from there on is locked. Damage is an error; of a log that ends
    /// in a write cut off by a crash, [`Wal::open_repairing`] saves what came before.
    pub async fn open(disk: D, options: Options, start: Mark) -> Result<(Self, Recovered), WalError> {
        if !mutated!(options, NamesNotSettled) {
            settle(&disk, &options.dir).await?;
        }
        Self::open_above(disk, options, start, None).await
    }

    /// The same for a log that reaches `floor`.
    async fn open_above(
        disk: D,
        options: Options,
        start: Mark,
        floor: Option<Floor>,
    ) -> Result<(Self, Recovered), WalError> {
        let (wal, recovered, _) = Self::replayed(disk, options, start).await?;
        wal.expect_floor(&recovered, start, floor)?;
        wal.clear_tail().await?;
        Ok((wal, recovered))
    }

    fn expect_floor(&self, recovered: &Recovered, start: Mark, floor: Option<Floor>) -> Result<(), WalError> {
        let end = (&*self.tail().path, self.end.offset);
        let floor = floor.filter(|_| !mutated!(self.options, RottenEndCut));
        floor.map_or(Ok(()), |floor| floor.check(recovered, start, end))
    }

    /// Opens a log at its newest mark. If that is `believed`, which may be wrong, the log is read once, and no file before the one that may hold it;
    /// otherwise it is read whole to find the newest mark, and then from there on, and repaired if it ends in a write cut off by a crash. One that does not reach `floor` is an
    /// error, and left as it is.
    pub async fn open_newest(
        disk: D,
        options: Options,
        believed: Mark,
        floor: Option<Floor>,
    ) -> Result<(Self, Recovered, Mark), WalError> {
        if !mutated!(options, NamesNotSettled) {
            settle(&disk, &options.dir).await?;
        }
        // Whatever is wrong is wrong again below, where it is told as it should be: nothing was changed yet.
        if let Ok((wal, recovered, newest)) = Self::replayed(disk.clone(), options.clone(), believed).await
            && newest == Some(believed)
        {
            wal.expect_floor(&recovered, believed, floor)?;
            wal.clear_tail().await?;
            return Ok((wal, recovered, believed));
        }
        let newest = marks(&disk, &options.dir).await?.last().map_or(Mark::ZERO, |marked| marked.mark);
        let (wal, recovered) = Self::open_repairing(disk, options, newest, floor).await?;
        Ok((wal, recovered, newest))
    }

    /// Reads a log from `start` on, with every file from there on locked and nothing changed. Also tells the newest mark that was read and may be started from.
    async fn replayed(disk: D, options: Options, start: Mark) -> Result<(Self, Recovered, Option<Mark>), WalError> {
        let names = names(&disk, &options.dir).await?;
        let selected = select(&options.dir, &names, start.index)?;
        let segments = segments(&disk, &options.dir, selected, Mode::Write).await?;
        let mut decoder = Decoder::new(sources(&segments).await?);
        #[cfg(mutants)]
        {
            decoder.mutant = options.mutant;
        }
        let mut replay = Replay::new(start);
        replay.run(&mut decoder).await?;
        let (offset, crc) = (decoder.offset(), decoder.crc());
        let newest = replay.newest();
        let (recovered, last) = replay.finish(&options.dir)?;

        let end = End { offset, crc, pending: Vec::new(), needs_sync: false };
        let mut wal = Self::new(disk, options, recovered.metadata, segments, end);
        wal.state = recovered.hard_state;
        wal.last = last;
        wal.newest_mark = newest.map_or(start.index, |newest| newest.index.max(start.index));
        Ok((wal, recovered, newest))
    }

    /// Opens a log; if it ends in a write cut off by a crash, repairs it, once, and opens it again. Not if the rest would not reach `floor`.
    pub async fn open_repairing(
        disk: D,
        options: Options,
        start: Mark,
        floor: Option<Floor>,
    ) -> Result<(Self, Recovered), WalError> {
        match Self::open_above(disk.clone(), options.clone(), start, floor).await {
            Err(WalError::Damaged(error)) if error.kind.is_repairable() => {
                tracing::warn!(%error, "the WAL ends in an unfinished write");
                if let Some(floor) = floor.filter(|_| !mutated!(options, RottenEndCut)) {
                    floor.check(&read(&disk, &options.dir, start).await?, start, (&error.file, error.offset))?;
                }
                repair(&disk, &options.dir).await?;
                Self::open_above(disk, options, start, floor).await
            }
            done => done,
        }
    }

    /// Wipes what follows the last good frame, so that no later reader takes it for records, and takes the file's room again.
    ///
    /// What a crash left of unordered sectors behind a frame head that was not written is lawful there. But so is a head that rotted to
    /// zero, with good records behind it: so a copy is kept of what is wiped, if it is not zeros.
    async fn clear_tail(&self) -> Result<(), Fault> {
        let (offset, tail) = (self.end.offset, self.tail());
        let size = tail.file.size().await.map_err(Fault::disk("read the length of", &tail.path))?;
        assert!(offset <= size, "the last good frame lies in the file");
        if offset == size {
            // What was read may be known only to the system's memory: it counts from now on, so it is synced like the rest.
            return tail.file.sync_all().await.map_err(Fault::disk("sync", &tail.path));
        }
        let is_zero = is_zero_from(&*tail.file, offset).await.map_err(Fault::disk("read", &tail.path))?;
        if !is_zero {
            let copy = keep_copy(&self.disk, &self.options.dir, &tail.file, &tail.path).await?;
            tracing::warn!(path = %tail.path.display(), copy = %copy.display(), offset, "wiped bytes behind the WAL's end");
        }
        if !is_zero || !(size - offset).is_multiple_of(FRAME_HEAD_BYTES) {
            tail.file.set_size(offset).await.map_err(Fault::disk("truncate", &tail.path))?;
        }
        // Room for whole frame heads: fewer zeros than one has would pass for a torn one.
        let size = offset + (size - offset).next_multiple_of(FRAME_HEAD_BYTES);
        match tail.file.allocate(size).await.map_err(Fault::disk("preallocate", &tail.path)) {
            // No record needs the zeros. The next file will not find room either, and then proposals are closed.
            Err(fault) if fault.is_no_room() => tracing::warn!(%fault, "no room for the WAL file's tail"),
            done => done?,
        }
        tail.file.sync_all().await.map_err(Fault::disk("sync", &tail.path))
    }
}

/// Makes the names of the log and its files durable: the process that made them may have been killed before it could, and what is read here is
/// relied on from now on.
async fn settle<D: Disk>(disk: &D, dir: &Path) -> Result<(), Fault> {
    for dir in [dir, parent(dir)] {
        disk.sync_dir(dir).await.map_err(Fault::disk("sync", dir))?;
    }
    Ok(())
}

/// What files are opened for.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Mode {
    Read,
    Write,
}

async fn segments<D: Disk>(
    disk: &D,
    dir: &Path,
    names: &[Name],
    mode: Mode,
) -> Result<VecDeque<Segment<D::File>>, Fault> {
    let mut opened = VecDeque::with_capacity(names.len());
    for name in names {
        opened.push_back(match mode {
            Mode::Write => Segment::open(disk, dir, *name).await?,
            Mode::Read => {
                let path = dir.join(name.to_string());
                let file = disk.open(&path, Access::Read).await.map_err(Fault::disk("open", &path))?;
                Segment { name: *name, path, file: Arc::new(file) }
            }
        });
    }
    Ok(opened)
}

async fn sources<F: File>(segments: &VecDeque<Segment<F>>) -> Result<VecDeque<Source<F>>, Fault> {
    let mut sources = VecDeque::with_capacity(segments.len());
    for segment in segments {
        sources.push_back(Source::new(Arc::clone(&segment.file), segment.path.clone()).await?);
    }
    Ok(sources)
}

async fn is_zero_from<F: File>(file: &F, offset: u64) -> io::Result<bool> {
    const ZEROS: &[u8] = &[0; 128 * 1024];
    let mut chunk = vec![0; ZEROS.len()];
    let mut place = offset;
    // A preallocated tail was never written, and is not read either: it would only fill the system's memory with zeros.
    while let Some(data) = file.data_from(place).await? {
        let read = file.read_at(&mut chunk, data).await?;
        if read == 0 {
            break;
        }
        if chunk[..read] != ZEROS[..read] {
            return Ok(false);
        }
        place = data + read as u64;
    }
    Ok(true)
}

/// The state of reading a log.
struct Replay {
    start: Mark,
    is_start_found: bool,
    metadata: Option<Metadata>,
    hard_state: HardState,
    entries: Vec<Entry>,
    marks: Vec<Mark>,
    /// The last entry that was passed over because it stands at the start or before it.
    before: Option<Mark>,
    last: Index,
}

impl Replay {
    const fn new(start: Mark) -> Self {
        let hard_state = HardState { term: Term(0), vote: None, commit: Index::ZERO };
        Self {
            start,
            is_start_found: false,
            metadata: None,
            hard_state,
            entries: Vec::new(),
            marks: Vec::new(),
            before: None,
            last: Index::ZERO,
        }
    }

    async fn run<F: File>(&mut self, decoder: &mut Decoder<F>) -> Result<(), WalError> {
        while let Some(record) = decoder.next().await? {
            self.on_record(decoder, record)?;
        }
        Ok(())
    }

    fn on_record<F: File>(&mut self, decoder: &Decoder<F>, record: Record) -> Result<(), WalError> {
        match record.kind {
            Kind::Metadata => {
                let metadata = parsed(decoder, entry::metadata(record.data))?;
                if self.metadata.is_some_and(|before| before != metadata) {
                    return Err(decoder.wrong(DecodeErrorKind::MetadataConflict));
                }
                self.metadata = Some(metadata);
            }
            Kind::Entry => {
                let entry = parsed(decoder, entry::entry(record.data))?;
                self.on_entry(entry).map_err(|kind| decoder.wrong(kind))?;
            }
            Kind::State => self.hard_state = parsed(decoder, entry::state(record.data))?,
            Kind::Snapshot => {
                let mark = parsed(decoder, entry::mark(record.data))?.mark;
                if mark.index == self.start.index {
                    if mark.term != self.start.term {
                        return Err(decoder.wrong(DecodeErrorKind::SnapshotMismatch));
                    }
                    self.is_start_found = true;
                }
                self.on_mark(mark);
            }
            Kind::Crc => {}
            Kind::Unknown(number) => return Err(decoder.wrong(DecodeErrorKind::UnknownType(number))),
        }
        Ok(())
    }

    /// A mark of an entry that was read only says that the store has it. Any other one came from a leader with the store, and what was read before it is void.
    fn on_mark(&mut self, mark: Mark) {
        let is_own = mark != self.start || mark == Mark::ZERO || self.before == Some(mark);
        if !is_own {
            self.entries.clear();
        }
        self.last = if is_own { self.last.max(mark.index) } else { mark.index };
        self.marks.push(mark);
    }

    fn on_entry(&mut self, entry: Entry) -> Result<(), DecodeErrorKind> {
        self.last = entry.index;
        if entry.index <= self.start.index {
            self.before = Some(entry.mark());
            // Whatever was read behind it was overwritten with it. etcd keeps that, and would start with entries of an older term behind
            // the snapshot.
            self.entries.clear();
            return Ok(());
        }
        let place = entry.index.distance_from(self.start.index) - 1;
        if place > self.entries.len() as u64 {
            let last = self.start.index.plus(self.entries.len() as u64);
            return Err(DecodeErrorKind::Gap { index: entry.index.0, last: last.0 });
        }
        self.entries.truncate(place as usize);
        self.entries.push(entry);
        Ok(())
    }

    /// The newest mark that was read and whose entry is known to be committed.
    fn newest(&self) -> Option<Mark> {
        let known = self.marks.iter().filter(|mark| mark.index <= self.hard_state.commit);
        known.max_by_key(|mark| mark.index).copied()
    }

    /// What was read, and the index that names the next file.
    fn finish(self, dir: &Path) -> Result<(Recovered, Index), WalError> {
        let Some(metadata) = self.metadata else {
            return Err(WalError::NoMetadata { dir: dir.to_owned() });
        };
        if !self.is_start_found {
            return Err(WalError::SnapshotNotFound { dir: dir.to_owned(), index: self.start.index.0 });
        }
        Ok((Recovered { metadata, hard_state: self.hard_state, entries: self.entries }, self.last))
    }
}

fn parsed<T, F: File>(decoder: &Decoder<F>, read: Result<T, String>) -> Result<T, WalError> {
    read.map_err(|cause| decoder.wrong(DecodeErrorKind::Malformed(cause)))
}
