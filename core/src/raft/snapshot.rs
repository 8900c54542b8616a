//! The log's beginning in another form: a store for a member that needs entries which are gone (Raft paper, section 7).
//!
//! Raft knows where a snapshot stands and who the members were there. The store's bytes travel and are kept beside it.
//! Invariants: a snapshot replaces only a log that does not have its mark, so nothing that was acknowledged is lost. It is
//! acknowledged when the log's write of it is durable; the store changes places after that, and not while a batch is out.
//! Until it did, this member campaigns for nothing and applies nothing.

use core::fmt;

use super::config::mutated;
use super::effect::{Effect, Effects, Ignored};
use super::entry::{INDEX_MAX, Mark};
use super::member::Configuration;
use super::message::Message;
use super::progress::{Flow, Shipment};
use super::{Raft, Term};
use crate::ids::MemberId;

/// What a store at some place of the log means to Raft.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Snapshot {
    /// The newest entry that the store includes.
    pub mark: Mark,
    /// The members as of that entry.
    pub configuration: Configuration,
}

/// The leader's side: a snapshot is made, then sent, and its outcome is told.
impl Raft {
    /// The store was frozen for a member, or could not be.
    pub(super) fn on_snapshot_made(&mut self, to: MemberId, snapshot: Option<Snapshot>, effects: &mut Effects) {
        let (term, commit) = (self.hard_state.term, self.hard_state.commit);
        let Some(progress) = self.progress(to).filter(|progress| progress.flow == Flow::Snapshot(Shipment::Asked))
        else {
            return self.ignore(Some(to), Ignored::SnapshotUnwanted, effects);
        };
        match snapshot {
            Some(snapshot) if snapshot.configuration.contains(to) => {
                assert!(snapshot.mark.index <= commit);
                progress.flow = Flow::Snapshot(Shipment::Sent(snapshot.mark.index));
                effects.push(Effect::Send { to, message: Message::Snapshot { term, snapshot } });
            }
            Some(_) => {
                // The member would not take it: the store has not come to the change that added the member.
                progress.on_snapshot_failed();
                self.ignore(Some(to), Ignored::NotInSnapshot, effects);
            }
            None => progress.on_snapshot_failed(),
        }
    }

    /// A snapshot arrived, or got lost.
    pub(super) fn on_snapshot_sent(&mut self, to: MemberId, is_received: bool, effects: &mut Effects) {
        match self.progress(to) {
            Some(progress) if matches!(progress.flow, Flow::Snapshot(Shipment::Sent(_))) => {
                if is_received {
                    progress.on_snapshot_received()
                } else {
                    progress.on_snapshot_failed()
                }
            }
            // The member has acknowledged it already, or this leadership is over.
            Some(_) | None => self.ignore(Some(to), Ignored::StaleReport, effects),
        }
    }
}

/// The other side: a snapshot takes the log's place, then the store's.
impl Raft {
    /// A leader of this term sent a snapshot.
    pub(super) fn on_snapshot(&mut self, from: MemberId, snapshot: Snapshot, effects: &mut Effects) {
        if !snapshot.is_sound(self.hard_state.term) {
            return self.ignore(Some(from), Ignored::Malformed, effects);
        }
        if !self.follow(from, effects) {
            return;
        }
        let mark = snapshot.mark;
        match self.ignore_snapshot(&snapshot) {
            None => self.replace_log(snapshot, effects),
            Some(why) => {
                if why == Ignored::SnapshotKnown {
                    self.raise_commit(mark.index);
                }
                self.ignore(Some(from), why, effects);
            }
        }
        let index = self.hard_state.commit;
        if mutated!(self.config, SnapshotBeforeDurable) {
            let message = Message::AppendAccepted { term: self.hard_state.term, index };
            return effects.push(Effect::Send { to: from, message });
        }
        self.accept(from, index, effects);
    }

    /// Why a snapshot changes nothing here but, perhaps, the commit index.
    fn ignore_snapshot(&self, snapshot: &Snapshot) -> Option<Ignored> {
        let Mark { term, index } = snapshot.mark;
        if index <= self.hard_state.commit {
            return Some(Ignored::SnapshotTooOld);
        }
        if !snapshot.configuration.contains(self.config.id) {
            return Some(Ignored::NotInSnapshot);
        }
        (self.log.term_at(index) == Some(term)).then_some(Ignored::SnapshotKnown)
    }

    fn replace_log(&mut self, snapshot: Snapshot, effects: &mut Effects) {
        let committed = self.hard_state.commit;
        assert!(committed < snapshot.mark.index);
        self.log.replace(snapshot.mark);
        self.durable.on_replaced(snapshot.clone(), committed);
        self.hard_state.commit = snapshot.mark.index;
        if !mutated!(self.config, SnapshotWithoutConfiguration) {
            self.configuration = snapshot.configuration.clone();
        }
        if self.arrived.replace(snapshot).is_some() {
            self.ignore(None, Ignored::SnapshotOvertaken, effects);
        }
    }

    /// Gives the snapshot that arrived to the state machine, if its write is durable. Returns whether one waits.
    pub(super) fn hand_over_snapshot(&mut self, effects: &mut Effects) -> bool {
        assert_eq!(self.applied, self.applying, "the state machine is idle");
        let durable = self.durable.last();
        let Some(snapshot) = self.arrived.take_if(|snapshot| snapshot.mark.index <= durable) else {
            return self.arrived.is_some();
        };
        self.applying = snapshot.mark.index;
        effects.push(Effect::Install { snapshot });
        true
    }

    /// Whether the store is still to be brought up to the beginning of the log.
    pub(super) fn is_installing(&self) -> bool {
        self.applied < self.log.base().index
    }
}

impl Snapshot {
    /// Whether a leader of `term` could have sent it.
    fn is_sound(&self, term: Term) -> bool {
        let is_place = Term(0) < self.mark.term && self.mark.term <= term && self.mark.index < INDEX_MAX;
        is_place && self.configuration.is_sound() && !self.configuration.voters.is_empty()
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.mark, self.configuration)
    }
}
