//! Which rows a hash of the keys counts.
//!
//! The hash is a CRC over the stored bytes of every counted row, so two members with the same history answer the same,
//! whatever a compaction has physically removed so far. Bytes and CRC are the store's; here is only the rule, which is
//! etcd's: rows after the hashed revision do not count; rows at or before the compaction count only while they are still
//! the newest of their key at the hashed revision; a tombstone at exactly the compaction never counts.
//! Invariant: the answer for one row depends on nothing but the row, the two revisions and the index.

use super::span::Span;
use super::view::{Scan, View};
use crate::ids::Revision;
use crate::reply::Rejected;

/// The rule for one hash.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct HashRule {
    /// The hashed revision.
    revision: i64,
    /// The last compaction; -1 if there was none.
    compacted: i64,
    /// Whether any key is alive at the hashed revision. If none is, everything counts that the compaction has left (etcd
    /// reads an empty set of kept rows as "no compaction").
    alive: Alive,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Alive {
    None,
    Some,
}

/// What kind of row is asked about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RowKind {
    /// A put.
    Put,
    /// A delete.
    Tombstone,
}

/// The search for a live key, which decides whether a hash leaves rows out at all. It may have to look at many dead keys.
#[derive(Clone, Debug)]
pub struct HashStart {
    revision: i64,
    compacted: i64,
    after: Option<bytes::Bytes>,
    /// Settled already, without a search.
    alive: Option<Alive>,
}

impl HashStart {
    /// A hash at `asked` (zero: now). A revision below zero is lawful and hashes nothing.
    pub const fn new(asked: i64, current: i64, compacted: i64) -> Result<Self, Rejected> {
        if asked > 0 && asked < compacted {
            return Err(Rejected::Compacted);
        }
        if asked > current {
            return Err(Rejected::FutureRevision);
        }
        let revision = if asked == 0 { current } else { asked };
        Ok(Self { revision, compacted, after: None, alive: None })
    }

    /// The hash that a compaction at `revision` takes on its way, before it removes a row; `previous` is the compaction
    /// before it. A tombstone at exactly `revision` is kept by the compaction, and so counts as something alive.
    #[must_use]
    pub const fn of_compaction(revision: i64, previous: i64, deletes_there: bool) -> Self {
        let alive = if deletes_there { Some(Alive::Some) } else { None };
        Self { revision, compacted: previous, after: None, alive }
    }

    /// Looks at up to `budget` index entries; `None` means: advance it again.
    pub fn advance(&mut self, view: &impl View, budget: usize) -> Option<HashRule> {
        if let Some(alive) = self.alive {
            return Some(HashRule { revision: self.revision, compacted: self.compacted, alive });
        }
        let (span, at) = (Span::all(), Revision::end_of(self.revision));
        let after = self.after.as_deref();
        let chunk = view.keys(&Scan { span: &span, at, after, keys_max: 1, visits_max: budget });
        if chunk.keys.is_empty() && chunk.resume.is_some() {
            self.after = chunk.resume;
            return None;
        }
        let alive = if chunk.keys.is_empty() { Alive::None } else { Alive::Some };
        Some(HashRule { revision: self.revision, compacted: self.compacted, alive })
    }
}

impl HashRule {
    /// The hashed revision.
    #[must_use]
    pub const fn revision(&self) -> i64 {
        self.revision
    }

    /// The last compaction that the hash took into account; -1 if there was none.
    #[must_use]
    pub const fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Whether a row counts, if that can be said without its key.
    ///
    /// `None`: it counts if and only if it is still its key's newest at the hashed revision ([`HashRule::is_newest`]).
    #[must_use]
    pub fn counts(&self, row: Revision, kind: RowKind) -> Option<bool> {
        if self.revision < row.main {
            return Some(false);
        }
        if row.main == self.compacted && kind == RowKind::Tombstone {
            return Some(false);
        }
        if row.main <= self.compacted {
            return if kind == RowKind::Tombstone { Some(false) } else { None };
        }
        Some(true)
    }

    /// Whether the row is what its key is at the hashed revision; if no key is alive there, at the compaction, which is
    /// what it leaves in the store.
    pub fn is_newest(&self, view: &impl View, key: &[u8], row: Revision) -> bool {
        let at = if self.alive == Alive::Some { self.revision } else { self.compacted };
        view.key_at(key, Revision::end_of(at)).is_some_and(|facts| facts.modified == row)
    }
}
