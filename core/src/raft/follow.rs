//! The follower's side of replication (Raft paper, section 5.3).
//!
//! Invariant: after an append is accepted, the log agrees with the leader's up to the acknowledged place, and the
//! acknowledgement leaves when that is on disk. Nothing at or before the commit index is ever overwritten.

use alloc::vec::Vec;

use bytes::Bytes;

use super::Raft;
use super::config::mutated;
use super::effect::{Effect, Effects, Ignored};
use super::entry::{Entry, Mark, Run};
use super::message::Message;
use crate::ids::{Index, MemberId};

impl Raft {
    /// A leader of this term sent entries after `previous`.
    pub(super) fn on_append(
        &mut self,
        from: MemberId,
        previous: Mark,
        entries: Vec<Entry>,
        commit: Index,
        effects: &mut Effects,
    ) {
        let run = match Run::parse(previous, entries) {
            Ok(run) if run.last().term <= self.hard_state.term => run,
            Ok(_) | Err(_) => return self.ignore(Some(from), Ignored::Malformed, effects),
        };
        if !self.follow(from, effects) {
            return;
        }
        if previous.index < self.hard_state.commit {
            // An old append: what is committed agrees already.
            return self.accept(from, self.hard_state.commit, effects);
        }
        if self.log.term_at(previous.index) != Some(previous.term) && !self.takes_unmatched(previous) {
            return self.reject(from, previous, effects);
        }
        let agreed = run.last().index;
        self.merge(run);
        self.raise_commit(commit.min(agreed));
        self.accept(from, agreed, effects);
    }

    /// The leader is alive, and this much is committed.
    pub(super) fn on_heartbeat(&mut self, from: MemberId, commit: Index, context: Bytes, effects: &mut Effects) {
        if !self.follow(from, effects) {
            return;
        }
        if self.log.last().index < commit {
            self.ignore(Some(from), Ignored::CommitBeyondLog, effects);
        } else {
            self.raise_commit(commit);
        }
        // It promises nothing about the disk, so it need not wait: whoever could lead a later term has a vote on disk at a
        // member of every majority, and that member cannot answer here.
        let message = Message::HeartbeatAnswered { term: self.hard_state.term, context };
        effects.push(Effect::Send { to: from, message });
    }

    pub(super) fn accept(&mut self, to: MemberId, index: Index, effects: &mut Effects) {
        let message = Message::AppendAccepted { term: self.hard_state.term, index };
        if mutated!(self.config, AcceptBeforeDurable) {
            return effects.push(Effect::Send { to, message });
        }
        self.durable.promise(to, message);
    }

    fn reject(&self, to: MemberId, previous: Mark, effects: &mut Effects) {
        // A valid leader has everything that is committed here, so the base is always a place of agreement.
        let hint = self.log.newest_within(previous.index, previous.term).unwrap_or_else(|| self.log.base());
        let message = Message::AppendRejected { term: self.hard_state.term, index: previous.index, hint };
        effects.push(Effect::Send { to, message });
    }

    /// Takes over what is new in a run that follows a matching place; only a differing entry cuts off what is behind it.
    fn merge(&mut self, run: Run) {
        let known = |entry: &&Entry| self.log.term_at(entry.index) == Some(entry.term);
        let skip = run.entries().iter().take_while(known).count();
        let mut fresh = run.into_entries().into_iter().skip(skip).peekable();
        if let Some(first) = fresh.peek()
            && first.index <= self.log.last().index
        {
            self.overwrite_after(Index(first.index.0 - 1));
        }
        fresh.for_each(|entry| self.log.push(entry));
    }

    fn overwrite_after(&mut self, keep: Index) {
        assert!(self.hard_state.commit <= keep, "committed entries are never overwritten");
        self.log.truncate(keep);
        self.durable.on_truncated(keep);
    }

    fn takes_unmatched(&self, previous: Mark) -> bool {
        mutated!(self.config, AppendWithoutMatch) && previous.index <= self.log.last().index
    }
}
