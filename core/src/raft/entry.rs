//! What the log is made of, and the gate through which foreign entries come in.
//!
//! Invariant of a [`Run`]: its indexes have no gap and its terms never go back, so it is something a leader could have
//! written. Peers and the disk both come through [`Run::parse`]; nothing behind it checks again.

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::ids::{Index, MemberId, Term};

/// One place in the replicated log. Raft never looks into the payload.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Entry {
    /// The term of the leader that appended it.
    pub term: Term,
    /// Its place.
    pub index: Index,
    /// Who it is for.
    pub kind: EntryKind,
    /// What it says. Empty in the first entry of every term.
    pub payload: Bytes,
}

/// Who an entry is for; etcd's entry types.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum EntryKind {
    /// The state machine.
    #[default]
    Normal,
    /// The configuration, one member at a time.
    ConfChange,
    /// The configuration, joint. etcd never logs one; whoever applies it stops.
    ConfChangeV2,
}

/// A place in the log and the term found there: two logs that agree on a mark agree on everything before it.
///
/// Ordered as Raft compares logs (paper, section 5.4.1): by term, then by length.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mark {
    /// The term of the entry there. Zero before the first entry.
    pub term: Term,
    /// The place.
    pub index: Index,
}

/// What a member must remember across a crash besides its entries.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct HardState {
    /// The newest term seen.
    pub term: Term,
    /// Who got this member's vote in that term.
    pub vote: Option<MemberId>,
    /// How far the log was known to be committed. May lag: it is rebuilt by the next leader.
    pub commit: Index,
}

/// Entries that some leader could have written after `after`. Holding one is the proof.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Run {
    after: Mark,
    entries: Vec<Entry>,
}

/// Why foreign entries are no run.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Broken {
    /// An entry does not follow the one before it.
    Gap {
        /// The place before.
        after: Index,
        /// The place found.
        found: Index,
    },
    /// An entry is of an older term than the one before it, or of none that ever was.
    TermWentBack {
        /// The place.
        at: Index,
    },
}

impl Entry {
    /// What it costs in messages and memory: its payload and an upper bound of the wire's own fields.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.payload.len() as u64 + ENTRY_OVERHEAD
    }

    /// Where it stands.
    #[must_use]
    pub const fn mark(&self) -> Mark {
        Mark { term: self.term, index: self.index }
    }
}

impl Mark {
    /// The place before the first entry.
    pub const ZERO: Self = Self { term: Term(0), index: Index::ZERO };

    /// The mark of `index` at `term`.
    #[must_use]
    pub const fn new(index: Index, term: Term) -> Self {
        Self { term, index }
    }
}

impl Run {
    /// Checks that the entries follow `after` and each other.
    pub fn parse(after: Mark, entries: Vec<Entry>) -> Result<Self, Broken> {
        let mut last = after;
        for entry in &entries {
            if INDEX_MAX <= last.index || entry.index != last.index.next() {
                return Err(Broken::Gap { after: last.index, found: entry.index });
            }
            if entry.term < last.term || entry.term == Term(0) {
                return Err(Broken::TermWentBack { at: entry.index });
            }
            last = entry.mark();
        }
        Ok(Self { after, entries })
    }

    /// The place the entries follow.
    #[must_use]
    pub const fn after(&self) -> Mark {
        self.after
    }

    /// The place of the newest entry, or `after` if there is none.
    #[must_use]
    pub fn last(&self) -> Mark {
        self.entries.last().map_or(self.after, Entry::mark)
    }

    /// The entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Gives up the proof for the entries.
    #[must_use]
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} \"{}\"", self.mark(), self.kind, self.payload.escape_ascii())
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "",
            Self::ConfChange => " conf",
            Self::ConfChangeV2 => " conf-v2",
        })
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { after, found } => write!(f, "entry {found} follows entry {after}"),
            Self::TermWentBack { at } => write!(f, "the term goes back at entry {at}"),
        }
    }
}

/// Places beyond this come from no log that was ever written; refusing them keeps the next place countable.
pub(super) const INDEX_MAX: Index = Index(u64::MAX / 2);

/// Two varints of ten bytes, three tags, a kind and a length.
const ENTRY_OVERHEAD: u64 = 32;
