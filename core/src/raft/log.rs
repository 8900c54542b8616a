//! The log in memory: entries after a base, without a gap.
//!
//! Invariant: indexes follow each other and terms never go back, from the base on. That is why a place is found by
//! subtraction and a term by bisection. What of it is on disk is not known here; see [`durable`](super::durable).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::entry::{Entry, EntryKind, Mark, Run};
use crate::ids::{Index, Term};

/// Entries after a base.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Log {
    base: Mark,
    entries: VecDeque<Entry>,
}

impl Log {
    /// The log that consists of this run.
    #[must_use]
    pub fn new(run: Run) -> Self {
        Self { base: run.after(), entries: run.into_entries().into() }
    }

    /// The place before the oldest entry in memory.
    #[must_use]
    pub const fn base(&self) -> Mark {
        self.base
    }

    /// The place of the newest entry.
    #[must_use]
    pub fn last(&self) -> Mark {
        self.entries.back().map_or(self.base, Entry::mark)
    }

    /// The term at a place, if the log still or already has it.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// The entry at a place, if it is in memory.
    #[must_use]
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.base.index.0)?.checked_sub(1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// The entries after `after` and up to `upto`: at most `entries_max`, and as many as fit in `bytes_max` but at least one.
    #[must_use]
    pub fn slice(&self, after: Index, upto: Index, entries_max: usize, bytes_max: u64) -> Vec<Entry> {
        assert!(self.base.index <= after);
        assert!(upto <= self.last().index);
        let start = offset(self.base.index, after);
        let end = offset(self.base.index, upto).min(start.saturating_add(entries_max));
        if end <= start {
            return Vec::new();
        }
        let mut bytes = 0;
        let mut fits = 0;
        for entry in self.entries.range(start..end) {
            bytes += entry.size();
            if bytes_max < bytes && 0 < fits {
                break;
            }
            fits += 1;
        }
        self.entries.range(start..start + fits).cloned().collect()
    }

    /// The bytes of the entries after `after` and up to `upto`.
    #[must_use]
    pub fn bytes(&self, after: Index, upto: Index) -> u64 {
        assert!(self.base.index <= after && after <= upto);
        self.entries.range(offset(self.base.index, after)..offset(self.base.index, upto)).map(Entry::size).sum()
    }

    /// Whether a change of the membership stands after `after`, up to `upto`.
    #[must_use]
    pub fn has_change(&self, after: Index, upto: Index) -> bool {
        let (start, end) = (offset(self.base.index, after), offset(self.base.index, upto));
        start < end && self.entries.range(start..end).any(|entry| entry.kind != EntryKind::Normal)
    }

    /// The newest place at or before `index` whose term is at most `term`: where two logs may still agree, seen from one
    /// of them. Terms never go back, so bisection finds it. `None` if that place is before the base.
    #[must_use]
    pub fn newest_within(&self, index: Index, term: Term) -> Option<Mark> {
        let limit = index.min(self.last().index).0.checked_sub(self.base.index.0)?;
        let older = self.entries.partition_point(|entry| entry.term <= term) as u64;
        let found = self.base.index.plus(older.min(limit));
        let found = Mark::new(found, self.term_at(found).expect("a place between base and last has a term"));
        (found.term <= term).then_some(found)
    }

    /// Puts an entry at the end.
    pub fn push(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last().index.next());
        assert!(self.last().term <= entry.term);
        self.entries.push_back(entry);
    }

    /// Forgets everything after `keep`.
    pub fn truncate(&mut self, keep: Index) {
        assert!(self.base.index <= keep);
        assert!(keep <= self.last().index);
        self.entries.truncate(offset(self.base.index, keep));
    }

    /// Forgets everything up to `upto`, which becomes the base.
    pub fn trim(&mut self, upto: Index) {
        let term = self.term_at(upto).expect("only what the log has can be trimmed");
        self.entries.drain(..offset(self.base.index, upto));
        self.base = Mark::new(upto, term);
    }

    /// Forgets everything: the log begins at `base`, which it did not have.
    pub fn replace(&mut self, base: Mark) {
        assert_ne!(self.term_at(base.index), Some(base.term));
        self.entries.clear();
        self.base = base;
    }

    /// All entries in memory, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator {
        self.entries.iter()
    }
}

fn offset(base: Index, index: Index) -> usize {
    usize::try_from(index.distance_from(base)).expect("entries in memory can be counted")
}
