//! A member's log file in memory: writes go into a queue, and a crash loses a tail of it.
//!
//! Invariant: `kept` is what a power cut would leave; everything in `queue` was asked for later.

use std::collections::VecDeque;

use detcd_core::ids::{Index, Term};
use detcd_core::raft::{Configuration, Entry, HardState, Mark, Restored, Write};

/// What one member wrote.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Disk {
    kept: Kept,
    queue: VecDeque<Write>,
}

/// What a power cut leaves.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Kept {
    hard_state: HardState,
    base: Mark,
    /// The members as of `base`.
    configuration: Configuration,
    entries: Vec<Entry>,
}

impl Disk {
    /// A disk that holds this and nothing under way.
    #[must_use]
    pub fn new(restored: &Restored) -> Self {
        let Restored { hard_state, base, configuration, entries, .. } = restored.clone();
        let kept = Kept { hard_state, base, configuration, entries };
        Self { kept, queue: VecDeque::new() }
    }

    /// Takes a write in; it is not safe yet.
    pub fn write(&mut self, write: Write) {
        self.queue.push_back(write);
    }

    /// How many writes are not safe yet.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.queue.len()
    }

    /// Makes the oldest writes safe.
    pub fn sync(&mut self, writes: usize) {
        assert!(writes <= self.queue.len());
        for write in self.queue.drain(..writes) {
            self.kept.take(write);
        }
    }

    /// A power cut: of the writes under way, only the oldest `survive` reached the disk.
    pub fn crash(&mut self, survive: usize) {
        self.sync(survive);
        self.queue.clear();
    }

    /// What a member finds here when it starts again, its store being as far as the log's beginning.
    #[must_use]
    pub fn restored(&self) -> Restored {
        Restored {
            hard_state: self.kept.hard_state,
            base: self.kept.base,
            configuration: self.kept.configuration.clone(),
            entries: self.kept.entries.clone(),
            applied: self.kept.base.index,
        }
    }

    /// The safe term.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.kept.hard_state.term
    }

    /// Whether an entry is safe, by itself or within a snapshot.
    #[must_use]
    pub fn has(&self, entry: &Entry) -> bool {
        entry.index <= self.kept.base.index || self.entry(entry.index) == Some(entry)
    }

    /// The newest safe place.
    #[must_use]
    pub fn last(&self) -> Index {
        self.kept.entries.last().map_or(self.kept.base.index, |entry| entry.index)
    }

    /// The safe entry at a place.
    #[must_use]
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.kept.base.index.0)?.checked_sub(1)?;
        self.kept.entries.get(usize::try_from(offset).ok()?)
    }
}

impl Kept {
    fn take(&mut self, write: Write) {
        if let Some(snapshot) = write.snapshot {
            (self.base, self.configuration) = (snapshot.mark, snapshot.configuration);
            self.entries.clear();
        }
        if let Some(first) = write.entries.first() {
            let keep = first.index.distance_from(self.base.index) - 1;
            self.entries.truncate(usize::try_from(keep).expect("a test's log is short"));
        }
        self.entries.extend(write.entries);
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
    }
}

/// A first life: nothing on disk but the configuration.
#[must_use]
pub const fn first_life(configuration: Configuration) -> Restored {
    Restored {
        hard_state: HardState { term: Term(0), vote: None, commit: Index::ZERO },
        base: Mark::ZERO,
        configuration,
        entries: Vec::new(),
        applied: Index::ZERO,
    }
}
