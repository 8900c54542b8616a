//! What is on disk, what is on its way there, and the promises that wait for it.
//!
//! A vote or an acknowledgement is a promise about this member's disk, so it waits behind the newest write that needs a
//! sync. Writes finish in the order they were issued and are retired by count: a completion is never matched by index
//! or term, which an overwritten tail would make ambiguous. Instead each write remembers what it makes durable *of the
//! present log*, and a truncation shortens that memory.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::effect::{Effect, Effects, Sync, Write};
use super::entry::HardState;
use super::log::Log;
use super::message::Message;
use super::snapshot::Snapshot;
use crate::ids::{Index, MemberId, Term};

/// The state of this member's disk, as far as the engine may know it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Durable {
    /// The term and vote on disk.
    ballot: Ballot,
    /// The newest entry of the present log that is on disk.
    last: Index,
    /// The newest entry of the present log that was handed to the disk.
    handed: Index,
    /// The newest hard state that was handed to the disk.
    issued: HardState,
    /// Writes under way, oldest first.
    writing: VecDeque<Writing>,
    /// The snapshot that took the log's place in this step.
    snapshot: Option<Snapshot>,
    /// Promises made in this step.
    promised: Vec<Promise>,
}

/// A term and the vote given in it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Ballot {
    /// The term.
    pub term: Term,
    /// The vote.
    pub vote: Option<MemberId>,
}

/// One write under way.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Writing {
    ballot: Ballot,
    last: Index,
    sync: Sync,
    held: Vec<Promise>,
}

/// A message that says something about this member's disk.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Promise {
    /// To whom.
    pub to: MemberId,
    /// What.
    pub message: Message,
}

impl Durable {
    /// A disk that holds this much.
    #[must_use]
    pub const fn new(found: HardState, last: Index) -> Self {
        Self {
            ballot: Ballot { term: found.term, vote: found.vote },
            last,
            handed: last,
            issued: found,
            writing: VecDeque::new(),
            snapshot: None,
            promised: Vec::new(),
        }
    }

    /// The newest entry of the present log that is on disk.
    #[must_use]
    pub const fn last(&self) -> Index {
        self.last
    }

    /// The term and vote on disk.
    #[must_use]
    pub const fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// How many writes are under way.
    #[must_use]
    pub fn writing(&self) -> usize {
        self.writing.len()
    }

    /// Whether a write that needs a sync is under way.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.writing.iter().any(|writing| writing.sync == Sync::Required)
    }

    /// Keeps a message until all that was written before it, this step included, is on disk.
    pub fn promise(&mut self, to: MemberId, message: Message) {
        hold(&mut self.promised, Promise { to, message });
    }

    /// The log forgot everything after `keep`: no write, finished or not, makes more of the present log durable.
    pub fn on_truncated(&mut self, keep: Index) {
        self.last = self.last.min(keep);
        self.handed = self.handed.min(keep);
        for writing in &mut self.writing {
            writing.last = writing.last.min(keep);
        }
    }

    /// The log gave way to a snapshot: of what was written before, only what is committed belongs to the present log.
    pub fn on_replaced(&mut self, snapshot: Snapshot, committed: Index) {
        assert!(committed < snapshot.mark.index);
        self.on_truncated(committed);
        self.handed = snapshot.mark.index;
        self.snapshot = Some(snapshot);
    }

    /// The oldest `writes` are on disk: what they held may go.
    pub fn on_persisted(&mut self, writes: u32, effects: &mut Effects) {
        assert!(0 < writes);
        assert!(writes as usize <= self.writing.len());
        let mut released = Vec::new();
        for writing in self.writing.drain(..writes as usize) {
            self.ballot = writing.ballot;
            self.last = writing.last;
            writing.held.into_iter().for_each(|promise| hold(&mut released, promise));
        }
        effects.extend(released.into_iter().map(Promise::into_effect));
    }

    /// Ends a step: one write for all that changed, then the step's promises, behind it or at once.
    pub fn settle(&mut self, log: &Log, hard_state: HardState, effects: &mut Effects) {
        self.write(log, hard_state, effects);
        if self.promised.is_empty() {
            return;
        }
        match self.writing.iter_mut().rev().find(|writing| writing.sync == Sync::Required) {
            Some(writing) => self.promised.drain(..).for_each(|promise| hold(&mut writing.held, promise)),
            None => effects.extend(self.promised.drain(..).map(Promise::into_effect)),
        }
    }

    fn write(&mut self, log: &Log, hard_state: HardState, effects: &mut Effects) {
        let last = log.last().index;
        let entries = log.slice(self.handed, last, usize::MAX, u64::MAX);
        let ballot = Ballot { term: hard_state.term, vote: hard_state.vote };
        let voted = ballot != Ballot { term: self.issued.term, vote: self.issued.vote };
        let snapshot = self.snapshot.take();
        if entries.is_empty() && hard_state == self.issued {
            assert!(snapshot.is_none(), "a snapshot moves the commit index");
            return;
        }
        let sync = if entries.is_empty() && !voted && snapshot.is_none() { Sync::NotNeeded } else { Sync::Required };
        let changed = (hard_state != self.issued).then_some(hard_state);
        self.handed = last;
        self.issued = hard_state;
        self.writing.push_back(Writing { ballot, last, sync, held: Vec::new() });
        effects.push(Effect::Append(Write { snapshot, entries, hard_state: changed, sync }));
    }

    /// Facts that hold between any two steps.
    pub(super) fn check(&self, log: &Log, hard_state: HardState) {
        assert!(self.promised.is_empty());
        assert!(self.snapshot.is_none());
        assert_eq!(self.handed, log.last().index);
        assert_eq!(self.issued, hard_state);
        assert!(self.last <= self.handed);
        assert!(self.ballot.term <= hard_state.term);
        if cfg!(verify) {
            let mut before = self.ballot.term;
            for writing in &self.writing {
                assert!(before <= writing.ballot.term);
                assert!(writing.last <= self.handed);
                assert!(writing.held.is_empty() || writing.sync == Sync::Required);
                before = writing.ballot.term;
            }
        }
    }
}

impl Promise {
    fn into_effect(self) -> Effect {
        Effect::Send { to: self.to, message: self.message }
    }

    /// Whether saying `self` makes saying `other` before it needless. Acknowledgements are cumulative.
    fn covers(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        match (&self.message, &other.message) {
            (
                Message::AppendAccepted { term, index },
                Message::AppendAccepted { term: other_term, index: other_index },
            ) => self.to == other.to && term == other_term && other_index <= index,
            _ => false,
        }
    }
}

/// Adds a promise unless another one says as much; a repeated request must not add to memory.
fn hold(held: &mut Vec<Promise>, promise: Promise) {
    if held.iter().any(|other| other.covers(&promise)) {
        return;
    }
    match held.iter_mut().find(|other| promise.covers(other)) {
        Some(other) => *other = promise,
        None => held.push(promise),
    }
}
