//! Compaction of the key index, in bounded steps.
//!
//! A compaction at revision C keeps, of each key, what a read at C or later can see: the newest change at or before C and
//! everything after it. A tombstone before C says nothing any more and goes; one at exactly C stays until the next
//! compaction, because a watch from C on must still see it (etcd issue 18089). A key that was deleted and written again
//! within revision C keeps all from that tombstone on, for the same reason and so that the live row is never taken for dead (etcd issue
//! 22376). Invariant: a step changes no answer for any point at or after C, and what it drops is told as dead rows.

use alloc::vec::Vec;
use core::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::{Change, History, KeyIndex, Kind, Slot};
use crate::ids::Revision;
use crate::mvcc::hash::RowKind;

/// What one step of a compaction found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Swept {
    /// Rows that nobody can read any more, key by key.
    pub dead: Vec<(Revision, RowKind)>,
    /// How many index entries the step looked at.
    pub visited: usize,
    /// The key with which the next step goes on; `None` if the index is done.
    pub resume: Option<Bytes>,
}

impl KeyIndex {
    /// Drops what a compaction at `revision` leaves behind, from the key `from` on, until it has looked at `work_max` keys or dropped as many rows. The
    /// history of a key goes at once: that costs no more than its length.
    #[must_use]
    pub fn compact(&mut self, revision: i64, from: Option<&[u8]>, work_max: usize) -> Swept {
        assert!(0 < work_max, "a step without budget would never end");
        let start = from.map_or(Bound::Unbounded, Bound::Included);
        let mut swept = Swept::default();
        let mut gone = Vec::new();
        let cut = Cut {
            revision,
            #[cfg(mutants)]
            mutant: self.mutant,
        };
        self.keys.walk_mut(start, |key, slot| {
            if swept.visited == work_max || work_max <= swept.dead.len() {
                swept.resume = Some(key.to_bytes());
                return ControlFlow::Break(());
            }
            swept.visited += 1;
            if slot.compact(cut, &mut swept.dead) == Left::Nothing {
                gone.push(key.to_vec());
            }
            ControlFlow::Continue(())
        });
        for key in gone {
            self.keys.remove(&key);
        }
        swept
    }
}

#[cfg(mutants)]
impl KeyIndex {
    /// Drops tombstones that no earlier change of their key stands before, as an index has it that was made without them (etcd issue 19179).
    pub fn forget_first_tombstones(&mut self) {
        let mut gone = Vec::new();
        self.keys.walk_mut(Bound::Unbounded, |key, slot| {
            let Slot::Often(history) = slot else { return ControlFlow::Continue(()) };
            if history.changes.first().is_some_and(|first| first.kind == Kind::Tombstone) {
                match history.changes.len() {
                    1 => gone.push(key.to_vec()),
                    _ => history.drop_first(1),
                }
            }
            ControlFlow::Continue(())
        });
        for key in gone {
            self.keys.remove(&key);
        }
    }
}

/// Where a compaction cuts.
#[derive(Clone, Copy, Debug)]
struct Cut {
    revision: i64,
    #[cfg(mutants)]
    mutant: Option<super::Mutant>,
}

/// Whether a compaction carries the named bug. Always `false`, and free, in a normal build.
macro_rules! mutated {
    ($cut:expr, $mutant:ident) => {{
        #[cfg(mutants)]
        let mutated = $cut.mutant == Some(super::Mutant::$mutant);
        #[cfg(not(mutants))]
        let mutated = false;
        mutated
    }};
}

/// What a compaction leaves of a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Left {
    Something,
    Nothing,
}

impl Slot {
    fn compact(&mut self, cut: Cut, dead: &mut Vec<(Revision, RowKind)>) -> Left {
        // A single put is the newest change of a live key.
        let Self::Often(history) = self else { return Left::Something };
        if history.compact(cut, dead) == Left::Nothing {
            return Left::Nothing;
        }
        if let Some(once) = history.as_once() {
            *self = once;
        }
        Left::Something
    }
}

impl History {
    fn compact(&mut self, cut: Cut, dead: &mut Vec<(Revision, RowKind)>) -> Left {
        let Some(newest) = self.changes.partition_point(|change| change.main <= cut.revision).checked_sub(1) else {
            return Left::Something;
        };
        let first = self.first_kept(newest, cut);
        dead.extend(self.changes[..first].iter().map(|change| (change.at(), change.kind.row_kind())));
        if mutated!(cut, RewrittenDropped) && first < newest {
            let change = self.changes[newest];
            dead.push((change.at(), change.kind.row_kind()));
        }
        if first == self.changes.len() {
            return Left::Nothing;
        }
        self.drop_first(first);
        Left::Something
    }

    /// The place of the first change that stays. `newest` is that of the newest change at or before the cut.
    fn first_kept(&self, newest: usize, cut: Cut) -> usize {
        let Change { main, kind, .. } = self.changes[newest];
        if main < cut.revision || mutated!(cut, TombstoneDropped) {
            return if kind == Kind::Tombstone { newest + 1 } else { newest };
        }
        let there = self.changes.partition_point(|change| change.main < cut.revision);
        let tombstone = self.changes[there..newest].iter().position(|change| change.kind == Kind::Tombstone);
        tombstone.map_or(newest, |place| there + place)
    }

    /// Forgets the changes before place `first`, which exists.
    fn drop_first(&mut self, first: usize) {
        if first == 0 {
            return;
        }
        let facts = self.facts(self.changes[first].at());
        (self.created, self.version) = facts.map_or((0, 0), |facts| (facts.created, facts.version));
        self.changes.drain(..first);
        self.changes.shrink_to_fit();
        self.births.retain(|birth| first < *birth as usize);
        for birth in &mut self.births {
            *birth -= u32::try_from(first).expect("births are places");
        }
        self.births.shrink_to_fit();
    }

    /// The lean form, if this is no more than a first put.
    fn as_once(&self) -> Option<Slot> {
        match self.changes.as_slice() {
            [Change { main, sub, kind: Kind::Put }] if self.created == *main && self.version == 1 => {
                Some(Slot::Once { sub: *sub, main: *main })
            }
            _ => None,
        }
    }
}

impl Kind {
    const fn row_kind(self) -> RowKind {
        match self {
            Self::Put => RowKind::Put,
            Self::Tombstone => RowKind::Tombstone,
        }
    }
}
