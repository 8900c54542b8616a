//! The history of all keys, read from the store's rows: what every revision changed, and every state there ever was.
//!
//! The rows are those of every revision, as a replay of the whole log makes them, compacted or not. They are read with the format's own rules, not with the store's
//! code.

use std::collections::BTreeMap;

use bytes::Bytes;
use detcd_proto::mvccpb::KeyValue;
use prost::Message as _;

use super::{Promise, Violation};

/// One state of all keys.
pub type State = BTreeMap<Bytes, KeyValue>;

/// What one revision did to one key: a value, or its end.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The key holds this.
    Put(KeyValue),
    /// The key is gone.
    Delete(Bytes),
}

/// Everything that ever happened to the keys.
#[derive(Debug, Default)]
pub struct Rows {
    /// The changes of each revision, in their order.
    pub changes: BTreeMap<i64, Vec<Change>>,
    /// What each revision left of each key that it touched, oldest first.
    keys: BTreeMap<Bytes, Vec<(i64, Option<KeyValue>)>>,
    /// The rows as they are stored, and what is to be known of each, in the same order.
    table: Vec<(Bytes, Bytes)>,
    places: Vec<Place>,
}

/// Table `key`.
pub type Table = BTreeMap<Bytes, Bytes>;

const REVISION_BYTES: usize = 17;

impl Rows {
    /// Reads table `key`.
    ///
    /// # Errors
    /// A row that no rule allows.
    pub fn read(table: &Table) -> Result<Self, Violation> {
        let mut rows = Self { places: places(table), ..Self::default() };
        rows.table = table.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        for (key, value) in table {
            let wrong = |what: &str| Violation::new(Promise::Durability, format!("row {key:?}: {what}"));
            let (main, sub, is_tombstone) = parse(key).ok_or_else(|| wrong("no revision"))?;
            let kv = KeyValue::decode(value.clone()).map_err(|error| wrong(&error.to_string()))?;
            let changes = rows.changes.entry(main).or_default();
            if sub != changes.len() as i64 {
                return Err(wrong("a change of this revision is missing"));
            }
            let left = if is_tombstone { None } else { Some(kv.clone()) };
            rows.keys.entry(kv.key.clone()).or_default().push((main, left));
            changes.push(if is_tombstone { Change::Delete(kv.key) } else { Change::Put(kv) });
        }
        let is_whole = rows.changes.keys().zip(2..).all(|(main, expected)| *main == expected);
        if !is_whole {
            return Err(Violation::new(Promise::Durability, "a revision is missing".to_owned()));
        }
        Ok(rows)
    }

    /// The newest revision.
    #[must_use]
    pub fn current(&self) -> i64 {
        self.changes.keys().last().copied().unwrap_or(1)
    }

    /// The state after `revision`.
    #[must_use]
    pub fn state(&self, revision: i64) -> State {
        let mut state = State::new();
        for (key, lives) in &self.keys {
            let newer = lives.partition_point(|(main, _)| *main <= revision);
            if let Some((_, Some(kv))) = newer.checked_sub(1).map(|last| &lives[last]) {
                state.insert(key.clone(), kv.clone());
            }
        }
        state
    }

    /// Every key that ever was, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.keys.keys()
    }

    /// What `key` held at `revision`.
    #[must_use]
    pub fn at(&self, key: &Bytes, revision: i64) -> Option<&KeyValue> {
        let lives = self.keys.get(key)?;
        let newer = lives.partition_point(|(main, _)| *main <= revision);
        lives[newer.checked_sub(1)?].1.as_ref()
    }

    /// etcd's hash of everything up to `revision`, after a compaction at `compacted`; -1 for none.
    #[must_use]
    pub fn hash(&self, revision: i64, compacted: i64, kept: Kept) -> u32 {
        let left = |place: &Place| compacted < place.main || place.says_at(compacted, Kept::LiveAndDeleted);
        let is_kept = |place: &Place| place.says_at(revision, kept);
        // Rows lie by their revisions.
        let places = &self.places[..self.places.partition_point(|place| place.main <= revision)];
        let keeps_some = places.iter().any(|place| left(place) && is_kept(place));
        let mut crc = crc32c::crc32c(b"key");
        for (place, (key, value)) in places.iter().zip(&self.table).filter(|(place, _)| left(place)) {
            let is_dropped = place.main <= compacted && keeps_some && !is_kept(place);
            let is_own_delete = place.main == compacted && place.is_tombstone;
            if !is_dropped && !is_own_delete {
                crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value);
            }
        }
        crc
    }

    /// What wrote `key` at `revision`, if something did and the key was not deleted there.
    #[must_use]
    pub fn written(&self, key: &Bytes, revision: i64) -> Option<&KeyValue> {
        let changes = self.changes.get(&revision)?;
        changes.iter().rev().find_map(|change| match change {
            Change::Put(kv) if kv.key == key => Some(kv),
            _ => None,
        })
    }
}

/// Whether a set of kept rows holds the tombstones of its very revision: a compaction keeps them, a hash does not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    /// Live keys alone.
    Live,
    /// And those that were deleted there.
    LiveAndDeleted,
}

/// One row among the others of its key.
#[derive(Clone, Copy, Debug)]
struct Place {
    main: i64,
    is_tombstone: bool,
    /// When the key changes next.
    next: Option<i64>,
    /// Whether its revision has deleted the key before.
    is_rewritten: bool,
}

impl Place {
    /// Whether it is the newest of its key at `revision` and says something there. Deletes of that very revision that are kept are so whatever the revision wrote afterwards.
    fn says_at(&self, revision: i64, kept: Kept) -> bool {
        let is_newest = self.main <= revision && self.next.is_none_or(|next| revision < next);
        let is_there = self.main == revision && kept == Kept::LiveAndDeleted;
        is_newest && !self.is_tombstone || is_there && (self.is_tombstone || self.is_rewritten)
    }
}

/// The rows of table `key`, in their order. No row is nobody's.
fn places(table: &Table) -> Vec<Place> {
    let mut newest: BTreeMap<Bytes, usize> = BTreeMap::new();
    let mut places: Vec<Place> = Vec::new();
    for (place, value) in table {
        let (main, _, is_tombstone) = parse(place).unwrap_or_default();
        let key = KeyValue::decode(value.clone()).unwrap_or_default().key;
        let mut is_rewritten = false;
        if let Some(before) = newest.insert(key, places.len()) {
            let before = &mut places[before];
            before.next = Some(main);
            is_rewritten = before.main == main && (before.is_tombstone || before.is_rewritten);
        }
        places.push(Place { main, is_tombstone, next: None, is_rewritten });
    }
    places
}

/// What a compaction leaves of table `key`.
#[must_use]
pub fn left_by(table: &Table, compacted: i64) -> Table {
    let places = places(table);
    let stays = |place: &Place| compacted < place.main || place.says_at(compacted, Kept::LiveAndDeleted);
    let left = table.iter().zip(&places).filter(|(_, place)| stays(place));
    left.map(|((key, value), _)| (key.clone(), value.clone())).collect()
}

fn parse(key: &[u8]) -> Option<(i64, i64, bool)> {
    let is_tombstone = match key.len() {
        REVISION_BYTES => false,
        len if len == REVISION_BYTES + 1 && key[REVISION_BYTES] == b't' => true,
        _ => return None,
    };
    let number = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_be_bytes);
    Some((number(&key[..8])?, number(&key[9..REVISION_BYTES])?, is_tombstone))
}
