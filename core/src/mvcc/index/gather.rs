//! The index at start, built from many rows at a time.
//!
//! Rows come in the order of their revisions, and their keys in any order: taken one by one, each would look for its place in a large tree. So they are
//! gathered, up to a bound, put into the order of their keys, and become leaves that are filled one after the other. Invariant: what comes out is what
//! [`KeyIndex::restore`] makes of the same rows, one at a time.

use alloc::vec::Vec;

use super::key_map::common;
use super::{BadRow, Change, KeyIndex, Kind, RowFacts, Slot};
use crate::ids::Revision;

/// Bytes of their keys.
const KEY_BYTES_MAX: usize = 32 << 20;
/// To go through all of a map that is more than so many times as large costs more than to look for each row's place.
const MAP_TIMES_MAX: usize = 64;

/// A key index in the making.
#[derive(Debug)]
pub struct Gathering {
    index: KeyIndex,
    rows: Vec<Gathered>,
    /// The keys of `rows`, one behind the other.
    keys: Vec<u8>,
    rows_max: usize,
}

#[derive(Debug)]
struct Gathered {
    change: Change,
    created: i64,
    version: i64,
    /// Place of the key in `keys`, and its length.
    start: u32,
    length: u32,
}

/// A row that cannot be part of any history, and where it stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Misplaced {
    /// The row's revision.
    pub at: Revision,
    /// What is wrong with it.
    pub why: BadRow,
}

impl Default for Gathering {
    fn default() -> Self {
        Self::in_steps_of(Self::ROWS_MAX)
    }
}

impl Gathering {
    /// Rows that are gathered: some 10 MB for a moment, with their order. More would be faster still, but the allocator keeps for a while what it is given back.
    pub const ROWS_MAX: usize = 1 << 17;

    /// Gathers up to so many rows before it works them in.
    #[must_use]
    pub fn in_steps_of(rows_max: usize) -> Self {
        assert!(0 < rows_max && rows_max <= Self::ROWS_MAX, "places are 32 bits");
        Self { index: KeyIndex::default(), rows: Vec::new(), keys: Vec::new(), rows_max }
    }

    /// Takes the next row of the store, in revision order.
    ///
    /// # Errors
    /// This row, or one that was gathered before it, is damage.
    pub fn add(&mut self, at: Revision, row: RowFacts<'_>) -> Result<(), Misplaced> {
        let (key, kind, created, version) = match row {
            RowFacts::Put { key, created, version } => (key, Kind::Put, created, version),
            RowFacts::Tombstone { key } => (key, Kind::Tombstone, 0, 0),
        };
        let change = Change::new(at, kind).ok_or(Misplaced { at, why: BadRow::BadRevision })?;
        if self.rows.len() == self.rows_max || KEY_BYTES_MAX < self.keys.len() + key.len() {
            self.work_in()?;
        }
        let (Ok(start), Ok(length)) = (u32::try_from(self.keys.len()), u32::try_from(key.len())) else {
            unreachable!("a key is shorter than the row that it came from");
        };
        self.keys.extend_from_slice(key);
        self.rows.push(Gathered { change, created, version, start, length });
        Ok(())
    }

    /// The index of all rows.
    ///
    /// # Errors
    /// One of the last rows is damage.
    pub fn finish(mut self) -> Result<KeyIndex, Misplaced> {
        self.work_in()?;
        Ok(self.index)
    }

    fn work_in(&mut self) -> Result<(), Misplaced> {
        let Self { index, rows, keys, .. } = self;
        let order = in_key_order(rows, keys);
        if rows.len() * MAP_TIMES_MAX < index.keys.len() {
            for place in order {
                let row = &rows[place.row as usize];
                index.restore(row.change.at(), row.facts(keys)).map_err(|why| row.misplaced(why))?;
            }
        } else {
            join(index, rows, keys, &order)?;
        }
        rows.clear();
        keys.clear();
        Ok(())
    }
}

impl Gathered {
    fn key<'a>(&self, keys: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize;
        &keys[start..start + self.length as usize]
    }

    fn facts<'a>(&self, keys: &'a [u8]) -> RowFacts<'a> {
        let key = self.key(keys);
        match self.change.kind {
            Kind::Put => RowFacts::Put { key, created: self.created, version: self.version },
            Kind::Tombstone => RowFacts::Tombstone { key },
        }
    }

    fn misplaced(&self, why: BadRow) -> Misplaced {
        Misplaced { at: self.change.at(), why }
    }
}

/// A row in the order of keys.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Place {
    /// The eight bytes that follow what all keys begin with: nearly always enough to tell two keys apart, without a look at them.
    prefix: u64,
    row: u32,
}

/// The rows by key, and those of one key as they came.
fn in_key_order(rows: &[Gathered], keys: &[u8]) -> Vec<Place> {
    let shared = shared_bytes(rows, keys);
    let numbered = (0_u32..).zip(rows);
    let mut order: Vec<Place> =
        numbered.map(|(row, gathered)| Place { prefix: prefix(&gathered.key(keys)[shared..]), row }).collect();
    order.sort_unstable();
    let key = |place: &Place| rows[place.row as usize].key(keys);
    for alike in order.chunk_by_mut(|a, b| a.prefix == b.prefix) {
        if 1 < alike.len() {
            alike.sort_unstable_by(|a, b| key(a).cmp(key(b)).then(a.row.cmp(&b.row)));
        }
    }
    order
}

/// How many bytes all keys begin with alike.
fn shared_bytes(rows: &[Gathered], keys: &[u8]) -> usize {
    let Some(first) = rows.first().map(|row| row.key(keys)) else { return 0 };
    let mut shared = first.len();
    for key in rows.iter().map(|row| row.key(keys)) {
        if !key.starts_with(&first[..shared]) {
            shared = common(first, key);
        }
    }
    shared
}

/// The first bytes as a number: of two that differ, the smaller one is that of the smaller key.
fn prefix(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = key.len().min(8);
    bytes[..length].copy_from_slice(&key[..length]);
    u64::from_be_bytes(bytes)
}

/// Goes through the map and the rows side by side.
fn join(index: &mut KeyIndex, rows: &[Gathered], keys: &[u8], order: &[Place]) -> Result<(), Misplaced> {
    let row = |place: &Place| &rows[place.row as usize];
    let is_same_key = |a: &Place, b: &Place| a.prefix == b.prefix && row(a).key(keys) == row(b).key(keys);
    let live = &mut index.live;
    let items = order.chunk_by(is_same_key).map(|of_key| (row(&of_key[0]).key(keys), of_key));
    index.keys.work_in(items, |known, of_key| {
        let first = row(&of_key[0]);
        let (mut fresh, later) = match known {
            Some(_) => (None, of_key),
            None => {
                *live += usize::from(first.change.kind == Kind::Put);
                (Some(Slot::first(first.change, first.facts(keys))), &of_key[1..])
            }
        };
        let Some(slot) = known.or(fresh.as_mut()) else { unreachable!("it is one or the other") };
        for row in later.iter().map(row) {
            let was_live = slot.last().kind == Kind::Put;
            slot.restore(row.change).map_err(|why| row.misplaced(why))?;
            *live = *live + usize::from(slot.last().kind == Kind::Put) - usize::from(was_live);
        }
        Ok(fresh)
    })
}
