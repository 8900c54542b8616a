//! What a member finds on its disk, and why it may refuse to start from it.
//!
//! These bytes came from a file: they are input, so a contradiction in them is a typed error and never a panic.

use alloc::vec::Vec;
use core::fmt;

use super::entry::{Broken, Entry, EntryKind, HardState, INDEX_MAX, Mark, Run};
use super::member::Configuration;
use super::receive::TERM_MAX;
use crate::ids::{Index, MemberId};

/// A member's memory of an earlier life, or what bootstrap makes up for the first one.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Restored {
    /// The newest hard state.
    pub hard_state: HardState,
    /// Where the log begins: the newest snapshot mark.
    pub base: Mark,
    /// The members as of `applied`. Empty for one that joins and has heard nothing yet.
    pub configuration: Configuration,
    /// The entries after `base`.
    pub entries: Vec<Entry>,
    /// How far the store has carried out the log; `Apply` goes on after it.
    pub applied: Index,
}

/// Why a member cannot start from what its disk says.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Malformed {
    /// The store is older than the beginning of the log: entries in between are gone.
    AppliedBeforeBase {
        /// How far the store is.
        applied: Index,
        /// Where the log begins.
        base: Index,
    },
    /// The store of the only voter is ahead of its log: new entries would take places that count as applied.
    AppliedBeyondLog {
        /// How far the store is.
        applied: Index,
        /// Where the log ends.
        last: Index,
    },
    /// The commit index lies outside the log.
    CommitOutsideLog {
        /// The commit index.
        commit: Index,
        /// Where the log begins.
        base: Index,
        /// Where the log ends.
        last: Index,
    },
    /// The entries are no log.
    Entries(Broken),
    /// The configuration is nobody's: a member in two roles, or too many.
    Configuration,
    /// A term or an index is larger than any cluster can have reached.
    OutOfRange,
    /// Zero is nobody's name.
    ZeroMember,
}

impl Restored {
    /// The log's entries with the proof that they are one, once nothing contradicts anything.
    pub(super) fn parse(self, id: MemberId) -> Result<(HardState, Self, Run), Malformed> {
        let mut restored = self;
        if restored.configuration.contains(MemberId(0)) || id == MemberId(0) {
            return Err(Malformed::ZeroMember);
        }
        if !restored.configuration.is_sound() {
            return Err(Malformed::Configuration);
        }
        let base = restored.base;
        if TERM_MAX < restored.hard_state.term.max(base.term) || INDEX_MAX < base.index.max(restored.applied) {
            return Err(Malformed::OutOfRange);
        }
        let run = Run::parse(base, core::mem::take(&mut restored.entries)).map_err(Malformed::Entries)?;
        let last = run.last();
        let commit = restored.hard_state.commit;
        if commit < base.index || last.index < commit {
            return Err(Malformed::CommitOutsideLog { commit, base: base.index, last: last.index });
        }
        let applied = restored.applied;
        if applied < base.index {
            return Err(Malformed::AppliedBeforeBase { applied, base: base.index });
        }
        if last.index < applied && restored.configuration.is_sole_voter(id) {
            return Err(Malformed::AppliedBeyondLog { applied, last: last.index });
        }
        if TERM_MAX < last.term {
            return Err(Malformed::OutOfRange);
        }
        let mut now = restored.hard_state;
        if now.term < last.term {
            // A torn tail can keep entries and lose the hard state behind them. Nobody was promised a vote in that term:
            // a promise waits for the disk.
            now = HardState { term: last.term, vote: None, commit };
        }
        // What the store has applied was committed, even where the commit index on disk lags.
        now.commit = commit.max(applied.min(last.index)).max(settled(&run));
        Ok((now, restored, run))
    }
}

/// The newest change of the membership behind which there is another one. A leader appends a change only when all earlier
/// ones are applied, so they are committed, even if the write that said so was torn behind its entries. Not to know that
/// would let this member campaign two changes late, with a majority that may share nobody with another one.
fn settled(run: &Run) -> Index {
    let mut changes = run.entries().iter().rev().filter(|entry| entry.kind != EntryKind::Normal);
    changes.nth(1).map_or(Index::ZERO, |entry| entry.index)
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AppliedBeforeBase { applied, base } => {
                write!(f, "the store has applied entry {applied}, but the log begins after entry {base}")
            }
            Self::AppliedBeyondLog { applied, last } => {
                write!(f, "the store has applied entry {applied}, but the log ends at entry {last}")
            }
            Self::Configuration => write!(f, "the configuration has a member in two roles, or too many members"),
            Self::CommitOutsideLog { commit, base, last } => {
                write!(f, "commit index {commit} is outside the log, which spans entries {base} to {last}")
            }
            Self::Entries(broken) => write!(f, "the log is broken: {broken}"),
            Self::OutOfRange => write!(f, "a term or an index is out of range"),
            Self::ZeroMember => write!(f, "member id zero is not allowed"),
        }
    }
}

impl core::error::Error for Malformed {}
