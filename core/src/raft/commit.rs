//! From acknowledgements to the commit index, and from there to the state machine.
//!
//! Invariants: a leader counts copies of its own term's entries only (Raft paper, section 5.4.2); its own copy counts when
//! it is on its disk; what is handed to the state machine is committed *and* on the local disk, so a store can never get
//! ahead of its log. One batch, or one snapshot, at a time is with the state machine.

use super::effect::{Effect, Effects};
use super::replicate::Say;
use super::role::Role;
use super::{Raft, config::mutated, quorum};
use crate::ids::Index;

impl Raft {
    /// Some writes finished.
    pub(super) fn on_persisted(&mut self, writes: u32, effects: &mut Effects) {
        self.durable.on_persisted(writes, effects);
        if let Role::Leader(leader) = &mut self.role {
            leader.waits_for_disk = false;
        }
        self.count_own_vote(effects);
        self.advance_commit(effects);
    }

    /// Commits, as a leader, what a majority has. Returns whether that moved the commit index; everyone is told then.
    pub(super) fn advance_commit(&mut self, effects: &mut Effects) -> bool {
        let Role::Leader(leader) = &mut self.role else { return false };
        let own = if mutated!(self.config, OwnMatchAtAppend) { self.log.last().index } else { self.durable.last() };
        let copy = |voter| match leader.members.get(&voter) {
            Some(progress) => progress.matched,
            None => own,
        };
        let copied = if mutated!(self.config, LearnerCounts) {
            quorum::reached(&self.configuration.members().collect(), copy)
        } else {
            quorum::reached(&self.configuration.voters, copy)
        };
        let commit = self.hard_state.commit;
        if copied <= commit {
            return false;
        }
        if self.log.term_at(copied) != Some(self.hard_state.term) && !mutated!(self.config, CommitOlderTerm) {
            return false;
        }
        let bytes = self.log.bytes(commit, copied);
        leader.uncommitted_bytes = leader.uncommitted_bytes.saturating_sub(bytes);
        self.raise_commit(copied);
        self.start_round(effects);
        if !mutated!(self.config, CommitNotBroadcast) {
            self.broadcast_append(Say::Commit, effects);
        }
        true
    }

    /// Moves the commit index forward, never back.
    pub(super) fn raise_commit(&mut self, upto: Index) {
        assert!(upto <= self.log.last().index);
        self.hard_state.commit = self.hard_state.commit.max(upto);
    }

    /// Whether the newest committed entry is of this term: only then is the commit index known to be the cluster's newest.
    pub(super) fn committed_in_term(&self) -> bool {
        self.log.term_at(self.hard_state.commit) == Some(self.hard_state.term)
    }

    /// The state machine has carried out its batch, or the first part of it.
    pub(super) fn on_applied(&mut self, upto: Index, effects: &mut Effects) {
        assert!(self.applied <= upto);
        assert!(upto <= self.applying);
        assert!(self.applying < self.log.base().index || self.log.base().index <= upto, "a snapshot has no parts");
        self.applied = upto;
        self.resume_campaign(effects);
    }

    /// Entries up to `upto` may be forgotten, as far as nobody here needs them.
    pub(super) fn on_trimmed(&mut self, upto: Index) {
        let upto = upto.min(self.applied).min(self.hard_state.commit).min(self.durable.last());
        if self.log.base().index < upto {
            self.log.trim(upto);
        }
    }

    /// Hands the next batch to the state machine if it is idle.
    pub(super) fn hand_over(&mut self, effects: &mut Effects) {
        let durable = if mutated!(self.config, OwnMatchAtAppend) { self.log.last().index } else { self.durable.last() };
        let ready = self.hard_state.commit.min(durable);
        if self.applied < self.applying || self.hand_over_snapshot(effects) || ready <= self.applying {
            return;
        }
        let limits = &self.config.limits;
        let entries = self.log.slice(self.applying, ready, limits.apply_entries_max as usize, limits.apply_bytes_max);
        self.applying = self.applying.plus(entries.len() as u64);
        effects.push(Effect::Apply { entries });
    }
}
