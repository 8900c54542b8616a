//! The history of the keys as laggards read it: chunks of whole revisions, each read in bounded steps, and what a key held before a change.
//!
//! No step holds the lock while it reads the backend, and no transaction of the backend outlives a step. Rows that are committed between two steps move from
//! the overlay to the backend; a step takes from each only what was there when it looked, so no row is missed and none comes twice.

use std::ops::Bound;

use bytes::Bytes;
use detcd_core::apply::EventKind;
use detcd_core::ids::Revision;
use detcd_core::mvcc::KeyValue;
use detcd_core::watch::{Before, Change, Chunk};

use super::backend::{Backend, Slice, Visit};
use super::batch::{self, Row};
use super::buckets::{self, Bucket, RevisionKey, RowKind};
use super::{Store, put_row};
use crate::fault::Fault;

/// How much is read at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChunkSize {
    /// Rows after which a chunk ends with its revision; also the most that one step reads.
    pub rows: usize,
    /// Bytes after which it does.
    pub bytes: usize,
}

/// A chunk on its way.
pub struct HistoryRead<B> {
    store: Store<B>,
    size: ChunkSize,
    from: i64,
    upto: i64,
    /// The next row.
    at: Revision,
    changes: Vec<Change>,
    bytes: usize,
}

/// What a step came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Advance it again.
    More,
    /// The chunk is read.
    Done(Chunk),
    /// A compaction took some of it.
    Compacted,
}

/// Whether a row belongs to the chunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Took {
    Yes,
    No,
}

impl<B: Backend> HistoryRead<B> {
    /// Reads from the revision `from` on, at most to `upto`, which is visible.
    #[must_use]
    pub fn new(store: &Store<B>, from: i64, upto: i64, size: ChunkSize) -> Self {
        assert!(from <= upto && 0 < size.rows, "a chunk holds something");
        let at = Revision::new(from.max(0), 0);
        Self { store: store.clone(), size, from, upto, at, changes: Vec::new(), bytes: 0 }
    }

    /// Reads up to one step's worth of rows.
    ///
    /// # Errors
    /// The backend failed, or holds what is no row.
    pub fn advance(&mut self) -> Result<Step, Fault> {
        let end = Revision::end_of(self.upto);
        let (overlay, first) = {
            let state = self.store.read();
            let first = state.overlay.first();
            let is_above = first.is_some_and(|first| first <= self.at);
            let rows = is_above.then(|| state.overlay.next_rows(self.at, end, self.size.rows));
            (rows, first)
        };
        let step = match overlay {
            Some(rows) => self.take_overlay(rows),
            None => self.take_backend(first.filter(|first| *first <= end))?,
        };
        // A compaction that was decided meanwhile may have taken rows of this step.
        Ok(if self.from < self.store.compacted() { Step::Compacted } else { step })
    }

    fn take_overlay(&mut self, rows: Vec<Row>) -> Step {
        let is_last = rows.len() < self.size.rows;
        for row in rows {
            let (kind, kv) = match row.change {
                batch::Change::Put(kv) => (EventKind::Put, kv),
                batch::Change::Tombstone(key) => (EventKind::Delete, KeyValue { key, ..KeyValue::default() }),
            };
            if self.take(row.revision, kind, kv) == Took::No {
                return self.done();
            }
        }
        if is_last { self.done() } else { Step::More }
    }

    /// Reads rows that are older than the overlay, which begins at `overlay` if it concerns this chunk.
    fn take_backend(&mut self, overlay: Option<Revision>) -> Result<Step, Fault> {
        let start = RevisionKey::put(self.at);
        let end = RevisionKey::put(overlay.unwrap_or_else(|| Revision::new(self.upto + 1, 0)));
        let slice = Slice {
            bucket: Bucket::Key,
            start: Bound::Included(start.as_slice()),
            end: Bound::Excluded(end.as_slice()),
        };
        let (mut visited, mut broken, mut is_full) = (0, None, false);
        let backend = self.store.shared.backend.clone();
        backend.scan(slice, &mut |key, value| {
            match read_row(key, value) {
                Ok((revision, kind, kv)) => is_full = self.take(revision, kind, kv) == Took::No,
                Err(cause) => broken = Some(format!("row {}: {cause}", key.escape_ascii())),
            }
            visited += 1;
            if is_full || broken.is_some() || visited == self.size.rows { Visit::Enough } else { Visit::More }
        })?;
        if let Some(cause) = broken {
            return Err(Fault::Store { action: "read the history", cause });
        }
        if is_full {
            return Ok(self.done());
        }
        Ok(match overlay {
            _ if visited == self.size.rows => Step::More,
            // The rest was in the overlay a moment ago; by the next step it may be in the backend.
            Some(overlay) => {
                self.at = overlay;
                Step::More
            }
            None => self.done(),
        })
    }

    /// Takes a row, unless the chunk is full and the row begins another revision.
    fn take(&mut self, revision: Revision, kind: EventKind, kv: KeyValue) -> Took {
        let is_full = self.size.rows <= self.changes.len() || self.size.bytes <= self.bytes;
        let last = self.changes.last().map(|last| last.kv.modified);
        if is_full && last.is_some_and(|last| last < revision.main) {
            self.upto = revision.main - 1;
            return Took::No;
        }
        let change = Change { kind, kv: KeyValue { modified: revision.main, ..kv }, before: Before::LookUp };
        self.bytes += change.cost_bytes();
        self.changes.push(change);
        self.at = Revision::new(revision.main, revision.sub + 1);
        Took::Yes
    }

    fn done(&mut self) -> Step {
        Step::Done(Chunk { from: self.from, upto: self.upto, changes: std::mem::take(&mut self.changes) })
    }
}

fn read_row(key: &[u8], value: &[u8]) -> Result<(Revision, EventKind, KeyValue), String> {
    let (revision, kind) = RevisionKey::parse(key).ok_or("not a revision")?;
    let kv = buckets::decode_key_value(Bytes::copy_from_slice(value)).map_err(|error| error.to_string())?;
    let kind = match kind {
        RowKind::Put => EventKind::Put,
        RowKind::Tombstone => EventKind::Delete,
    };
    Ok((revision, kind, kv))
}

impl<B: Backend> Store<B> {
    /// What the key of a change held before it. `None` if nothing, or if that is compacted.
    ///
    /// # Errors
    /// The backend failed.
    pub fn before(&self, change: &Change) -> Result<Option<KeyValue>, Fault> {
        let revision = change.kv.modified - 1;
        if change.is_creation() || change.before == Before::Nothing {
            return Ok(None);
        }
        let place = {
            let state = self.read();
            if revision < state.compactions.compacted() {
                return Ok(None);
            }
            let place = match change.before {
                Before::At(place) => Some(place),
                Before::Nothing | Before::LookUp => {
                    let facts = state.index.get(&change.kv.key, Revision::end_of(revision));
                    facts.map(|facts| facts.modified)
                }
            };
            #[cfg(mutants)]
            let place = match self.shared.mutant.get() {
                Some(crate::mutants::Mutant::PrevOneTooOld) => {
                    let older = |place: Revision| Revision::end_of(place.main - 1);
                    place.and_then(|place| Some(state.index.get(&change.kv.key, older(place))?.modified))
                }
                _ => place,
            };
            let Some(place) = place else { return Ok(None) };
            if let Some(row) = state.overlay.row(place) {
                return Ok(Some(put_row(row)));
            }
            place
        };
        let damaged =
            |cause: String| Fault::Store { action: "read a row", cause: format!("revision {place}: {cause}") };
        match self.shared.backend.get(Bucket::Key, RevisionKey::put(place).as_slice())? {
            Some(bytes) => buckets::decode_key_value(bytes).map(Some).map_err(|error| damaged(error.to_string())),
            // Taken by a compaction since the look above.
            None if revision < self.compacted() => Ok(None),
            None => Err(damaged("the index knows it, the store does not".to_owned())),
        }
    }
}
