//! The key index: every key's history, in memory, without values.
//!
//! Written only by apply, in revision order; rebuilt at start by one scan of the rows. It answers what a key was at any
//! point from the last compaction on. It is lean, because it holds every live key: a key that was written once costs 20
//! bytes and what of it its neighbours do not begin with (`key_map.rs`); only a second write gives it a history of its own.
//! Keys are copied, since a slice of a request would keep the whole request alive.
//!
//! Invariants: a key's changes are in strictly rising revision order; two tombstones never follow each other; so a delete
//! and a new put of one key in one transaction (etcd issues 18089 and 22376) are just two changes with the same `main`.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use bytes::Bytes;

use super::span::{Span, SpanEnd};
use super::view::{CountChunk, Facts, KeyAt, KeyChunk, Scan};
use crate::ids::Revision;

mod compact;
mod gather;
mod key_map;

pub use compact::Swept;
pub use gather::{Gathering, Misplaced};
use key_map::{Key, KeyMap};

/// All keys and their histories.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeyIndex {
    keys: KeyMap<Slot>,
    live: usize,
    /// The known bug that it carries, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    pub mutant: Option<Mutant>,
}

/// Known bugs, for builds that prove the checkers can fail.
#[cfg(mutants)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Mutant {
    /// A compaction drops tombstones of its very revision (etcd issue 18089).
    TombstoneDropped,
    /// A compaction takes what its very revision wrote after a delete for dead (etcd issue 22376).
    RewrittenDropped,
}

/// One key's history: just the row that created it, or all of it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Slot {
    Once { sub: u32, main: i64 },
    Often(Box<History>),
}

// The promise of the essay.
const _: () = assert!(size_of::<Slot>() == 16 && size_of::<Change>() == 16);

/// A history of more than a first put.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct History {
    /// The creating revision of the first life listed; its creating row may be compacted away.
    created: i64,
    /// The version that the first listed change made.
    version: i64,
    changes: Vec<Change>,
    /// Which changes began the later lives: each follows a tombstone and has version 1.
    births: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Change {
    main: i64,
    sub: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Kind {
    Put,
    Tombstone,
}

/// What a row says about its key when the index is rebuilt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RowFacts<'a> {
    /// A put.
    Put {
        /// The key.
        key: &'a [u8],
        /// The revision that created it.
        created: i64,
        /// How many writes since its creation.
        version: i64,
    },
    /// A delete.
    Tombstone {
        /// The key.
        key: &'a [u8],
    },
}

/// Why a row cannot be part of any history: the store is damaged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BadRow {
    /// It is not after the key's rows that came before it.
    OutOfOrder,
    /// Its sub-revision is negative or beyond what one transaction can hold.
    BadRevision,
}

impl KeyIndex {
    /// How many keys are alive now.
    #[must_use]
    pub const fn live(&self) -> usize {
        self.live
    }

    /// How many keys are known, alive or deleted.
    #[must_use]
    pub const fn known(&self) -> usize {
        self.keys.len()
    }

    /// Notes that a transaction wrote `key`.
    pub fn put(&mut self, key: &[u8], at: Revision) {
        let change = Change::new(at, Kind::Put).expect("apply numbers its changes from zero");
        let Some(slot) = self.keys.get_mut(key) else {
            self.keys.insert(key, Slot::Once { sub: change.sub, main: change.main });
            self.live += 1;
            return;
        };
        let was_live = slot.last().kind == Kind::Put;
        assert!(slot.last().at() < at, "changes of a key come in order");
        slot.push(change);
        self.live += usize::from(!was_live);
    }

    /// Notes that a transaction deleted `key`, which was alive.
    pub fn delete(&mut self, key: &[u8], at: Revision) {
        let change = Change::new(at, Kind::Tombstone).expect("apply numbers its changes from zero");
        let slot = self.keys.get_mut(key).expect("apply deletes only what it found");
        let last = slot.last();
        assert!(last.kind == Kind::Put && last.at() < at, "apply deletes only live keys, in order");
        slot.push(change);
        self.live -= 1;
    }

    /// Takes over one row of the store at start, in revision order. [`Gathering`] takes many.
    ///
    /// The first row of a key may be a tombstone: a compaction at exactly its revision keeps it, and so must the index
    /// (etcd issue 19179). A tombstone of a key that is dead already changes nothing.
    pub fn restore(&mut self, at: Revision, row: RowFacts<'_>) -> Result<(), BadRow> {
        let (key, kind) = match row {
            RowFacts::Put { key, .. } => (key, Kind::Put),
            RowFacts::Tombstone { key } => (key, Kind::Tombstone),
        };
        let change = Change::new(at, kind).ok_or(BadRow::BadRevision)?;
        let Some(slot) = self.keys.get_mut(key) else {
            self.keys.insert(key, Slot::first(change, row));
            self.live += usize::from(kind == Kind::Put);
            return Ok(());
        };
        let was_live = slot.last().kind == Kind::Put;
        slot.restore(change)?;
        self.live = self.live + usize::from(slot.last().kind == Kind::Put) - usize::from(was_live);
        Ok(())
    }

    /// What is known of a key that is alive at a point.
    #[must_use]
    pub fn get(&self, key: &[u8], at: Revision) -> Option<Facts> {
        self.keys.get(key)?.facts(at)
    }

    /// The next live keys of a span.
    #[must_use]
    pub fn keys(&self, scan: &Scan<'_>) -> KeyChunk {
        let mut keys = Vec::new();
        let room = scan.keys_max;
        let (visited, resume) = self.walk(scan, |key, facts| {
            keys.push(KeyAt { key: key.to_bytes(), facts });
            keys.len() < room
        });
        KeyChunk { keys, visited, resume }
    }

    /// How many live keys the next part of a span has.
    #[must_use]
    pub fn count(&self, scan: &Scan<'_>) -> CountChunk {
        let mut count = 0;
        let (visited, resume) = self.walk(scan, |_, _| {
            count += 1;
            true
        });
        CountChunk { count, visited, resume }
    }

    /// Shows the live keys to `each` until it says no or the visits are used up. Answers how many entries were looked
    /// at, and the last of them unless the span is done.
    fn walk(&self, scan: &Scan<'_>, mut each: impl FnMut(Key<'_>, Facts) -> bool) -> (usize, Option<Bytes>) {
        assert!(0 < scan.keys_max && 0 < scan.visits_max, "a step without budget would never end");
        if let Span { key, end: SpanEnd::One } = scan.span {
            if scan.after.is_none()
                && let Some(facts) = self.get(key, scan.at)
            {
                each(Key::from(&**key), facts);
            }
            return (1, None);
        }
        let Some(bounds) = scan.span.bounds(scan.after) else {
            return (0, None);
        };
        let (mut visited, mut last, mut resume) = (0, None, None);
        self.keys.walk(bounds, |key, slot| {
            if last.is_some() {
                resume = last.take();
                return ControlFlow::Break(());
            }
            visited += 1;
            let wants_more = slot.facts(scan.at).is_none_or(|facts| each(key, facts));
            if !wants_more || visited == scan.visits_max {
                last = Some(key.to_bytes());
            }
            ControlFlow::Continue(())
        });
        (visited, resume)
    }
}

impl Slot {
    /// The slot of a key's first surviving row.
    fn first(change: Change, row: RowFacts<'_>) -> Self {
        let (created, version) = match row {
            RowFacts::Put { created, version, .. } => (created, version),
            RowFacts::Tombstone { .. } => (0, 0),
        };
        if change.kind == Kind::Put && created == change.main && version == 1 {
            return Self::Once { sub: change.sub, main: change.main };
        }
        Self::Often(Box::new(History { created, version, changes: vec![change], births: Vec::new() }))
    }

    fn last(&self) -> Change {
        match self {
            Self::Once { sub, main } => Change { main: *main, sub: *sub, kind: Kind::Put },
            Self::Often(history) => *history.changes.last().expect("a history has a change"),
        }
    }

    /// Adds what a further row of the store says.
    fn restore(&mut self, change: Change) -> Result<(), BadRow> {
        let last = self.last();
        if last.at() >= change.at() {
            return Err(BadRow::OutOfOrder);
        }
        if (last.kind, change.kind) != (Kind::Tombstone, Kind::Tombstone) {
            self.push(change);
        }
        Ok(())
    }

    fn push(&mut self, change: Change) {
        match self {
            Self::Once { main, .. } => {
                let (created, changes) = (*main, vec![self.last(), change]);
                *self = Self::Often(Box::new(History { created, version: 1, changes, births: Vec::new() }));
            }
            Self::Often(history) => history.push(change),
        }
    }

    fn facts(&self, at: Revision) -> Option<Facts> {
        match self {
            Self::Once { sub, main } => {
                let modified = Revision::new(*main, i64::from(*sub));
                if modified <= at { Some(Facts { created: *main, modified, version: 1 }) } else { None }
            }
            Self::Often(history) => history.facts(at),
        }
    }
}

impl History {
    fn push(&mut self, change: Change) {
        let last = self.changes.last().expect("a history has a change");
        if last.kind == Kind::Tombstone {
            assert!(change.kind == Kind::Put, "two tombstones never follow each other");
            let place =
                u32::try_from(self.changes.len()).expect("a key changes fewer than 2^32 times between compactions");
            self.births.push(place);
        }
        self.changes.push(change);
    }

    fn facts(&self, at: Revision) -> Option<Facts> {
        // Nearly every read is of the newest change.
        let newest = self.changes.len() - 1;
        let place = if self.changes[newest].at() <= at {
            newest
        } else {
            self.changes[..newest].partition_point(|change| change.at() <= at).checked_sub(1)?
        };
        let change = self.changes[place];
        if change.kind == Kind::Tombstone {
            return None;
        }
        let modified = change.at();
        let births = self.births.partition_point(|birth| *birth as usize <= place);
        let Some(birth) = births.checked_sub(1).map(|nearest| self.births[nearest] as usize) else {
            return Some(Facts { created: self.created, modified, version: self.version + place as i64 });
        };
        let created = self.changes[birth].main;
        Some(Facts { created, modified, version: 1 + (place - birth) as i64 })
    }
}

impl Change {
    fn new(at: Revision, kind: Kind) -> Option<Self> {
        Some(Self { main: at.main, sub: u32::try_from(at.sub).ok()?, kind })
    }

    fn at(self) -> Revision {
        Revision::new(self.main, i64::from(self.sub))
    }
}
