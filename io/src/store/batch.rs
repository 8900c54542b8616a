//! What one backend transaction carries: new revision rows, table changes, and the log index they reach.
//!
//! Rows are kept as values, not as bytes: the hot path only pushes them, and the committer, on its own thread, encodes them. Rows come in
//! ascending revision order, which is what lets the backend append.

use std::collections::BTreeMap;

use bytes::Bytes;
use detcd_core::ids::{Index, Revision, Term};
use detcd_core::mvcc::KeyValue;

use super::buckets::{self, Bucket, RevisionKey};

/// One new row of bucket `key`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// Where in history.
    pub revision: Revision,
    /// What happened there.
    pub change: Change,
}

/// What a row says about its key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// This value was written.
    Put(KeyValue),
    /// The key was deleted.
    Tombstone(Bytes),
}

impl Row {
    /// The row's key in bucket `key`.
    #[must_use]
    pub fn key(&self) -> RevisionKey {
        match self.change {
            Change::Put(_) => RevisionKey::put(self.revision),
            Change::Tombstone(_) => RevisionKey::tombstone(self.revision),
        }
    }

    /// Appends the row's value in bucket `key`.
    pub fn encode_value(&self, out: &mut Vec<u8>) {
        match &self.change {
            Change::Put(kv) => buckets::encode_key_value(kv, out),
            Change::Tombstone(key) => buckets::encode_tombstone(key, out),
        }
    }
}

/// The log position a batch brings the store to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Applied {
    /// The newest applied entry.
    pub index: Index,
    /// Its term.
    pub term: Term,
}

/// One transaction of the store.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Batch {
    /// New rows of bucket `key`, in ascending revision order.
    pub rows: Vec<Row>,
    /// Rows of bucket `key` that a compaction removes; the rows above come first.
    pub dead: Vec<RevisionKey>,
    /// Changes of the other buckets; `None` removes.
    pub tables: BTreeMap<(Bucket, Bytes), Option<Bytes>>,
    /// What the store has applied once this batch is durable. Always written with the rows: a store that knows its index but not
    /// its data, or the other way round, would lose or repeat entries after a crash (etcd 13766, 14685).
    pub applied: Applied,
    /// Bytes of keys and values in `rows`, for bounds.
    pub row_bytes: usize,
}

impl Batch {
    /// How many changes the batch holds.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.rows.len() + self.dead.len() + self.tables.len()
    }

    /// Adds a row after all others.
    pub fn push_row(&mut self, row: Row) {
        assert!(self.rows.last().is_none_or(|last| last.revision < row.revision));
        self.row_bytes += match &row.change {
            Change::Put(kv) => kv.key.len() + kv.value.len(),
            Change::Tombstone(key) => key.len(),
        };
        self.rows.push(row);
    }

    /// The row at `revision`, if this batch holds it.
    #[must_use]
    pub fn row(&self, revision: Revision) -> Option<&Row> {
        let place = self.rows.binary_search_by(|row| row.revision.cmp(&revision)).ok()?;
        self.rows.get(place)
    }

    /// Every table change with the applied index and term among them: all that a backend writes besides the rows.
    pub fn table_changes(&self) -> impl Iterator<Item = (Bucket, &[u8], Option<Bytes>)> + '_ {
        let term =
            Some(Bytes::copy_from_slice(&self.applied.term.0.to_be_bytes())).filter(|_| self.applied.term.0 != 0);
        let index = Bytes::copy_from_slice(&self.applied.index.0.to_be_bytes());
        let term = term.map(|term| (Bucket::Meta, buckets::APPLIED_TERM, Some(term)));
        self.tables
            .iter()
            .map(|((bucket, key), value)| (*bucket, key.as_ref(), value.clone()))
            .chain([(Bucket::Meta, buckets::APPLIED_INDEX, Some(index))])
            .chain(term)
    }
}
