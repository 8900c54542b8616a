//! The history of all keys, read from the store's rows: what every revision changed, and every state there ever was.
//!
//! Nothing is compacted yet, so the rows are the whole history. They are read with the format's own rules, not with the store's code.

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
    /// The hash over the history, after each revision.
    hashes: BTreeMap<i64, u32>,
}

const REVISION_BYTES: usize = 17;

impl Rows {
    /// Reads table `key`.
    ///
    /// # Errors
    /// A row that no rule allows.
    pub fn read(table: &BTreeMap<Bytes, Bytes>) -> Result<Self, Violation> {
        let mut rows = Self::default();
        let mut crc = crc32c::crc32c(b"key");
        for (key, value) in table {
            let wrong = |what: &str| Violation::new(Promise::Durability, format!("row {key:?}: {what}"));
            let (main, sub, is_tombstone) = parse(key).ok_or_else(|| wrong("no revision"))?;
            let kv = KeyValue::decode(value.clone()).map_err(|error| wrong(&error.to_string()))?;
            crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value);
            rows.hashes.insert(main, crc);
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

    /// The hash of everything up to `revision`.
    #[must_use]
    pub fn hash(&self, revision: i64) -> u32 {
        let known = self.hashes.range(..=revision).next_back();
        known.map_or_else(|| crc32c::crc32c(b"key"), |(_, hash)| *hash)
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

fn parse(key: &[u8]) -> Option<(i64, i64, bool)> {
    let is_tombstone = match key.len() {
        REVISION_BYTES => false,
        len if len == REVISION_BYTES + 1 && key[REVISION_BYTES] == b't' => true,
        _ => return None,
    };
    let number = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_be_bytes);
    Some((number(&key[..8])?, number(&key[9..REVISION_BYTES])?, is_tombstone))
}
