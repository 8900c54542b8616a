//! The leader's side of replication (Raft paper, section 5.3): append, send, hear, back off.
//!
//! Appends leave while the leader's own disk is still writing. An acknowledgement is believed only within the leader's
//! own log, and whatever is lost is found again by the heartbeat's answer.

use bytes::Bytes;

use super::config::Limits;
use super::effect::{Effect, Effects, Ignored};
use super::entry::{Entry, EntryKind, Mark};
use super::input::Timer;
use super::log::Log;
use super::message::{Message, Proposal};
use super::progress::{Flow, Progress};
use super::role::{Leader, Role};
use super::{Raft, config::mutated, quorum};
use crate::ids::{Index, MemberId, Term};

/// What is worth an append message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Say {
    /// Entries the member has not been sent.
    News,
    /// Also nothing but the commit index.
    Commit,
    /// Also through a full window, without entries: are you still with me?
    Anyway,
}

/// What a leader must see of the engine to speak.
pub(super) struct Scene<'a> {
    pub(super) term: Term,
    pub(super) commit: Index,
    pub(super) log: &'a Log,
    pub(super) limits: &'a Limits,
}

impl Raft {
    /// The leader and what it must see to speak, or `None` for anyone else.
    pub(super) const fn leading(&mut self) -> Option<(&mut Leader, Scene<'_>)> {
        let Role::Leader(leader) = &mut self.role else { return None };
        let (term, commit) = (self.hard_state.term, self.hard_state.commit);
        Some((leader, Scene { term, commit, log: &self.log, limits: &self.config.limits }))
    }

    /// Puts an entry of the own term at the end of the leader's log.
    pub(super) fn append_own(&mut self, Proposal { kind, payload }: Proposal) {
        let index = self.log.last().index.next();
        let entry = Entry { term: self.hard_state.term, index, kind, payload };
        let Role::Leader(leader) = &mut self.role else { unreachable!("only a leader appends") };
        leader.uncommitted_bytes += entry.size();
        if kind != EntryKind::Normal {
            leader.pending_change = index;
        }
        self.log.push(entry);
    }

    /// Sends everyone what is worth saying.
    pub(super) fn broadcast_append(&mut self, say: Say, effects: &mut Effects) {
        let Some((leader, scene)) = self.leading() else { return };
        for (&member, progress) in &mut leader.members {
            append_to(member, progress, say, &scene, effects);
        }
    }

    /// A member has everything up to `index` on its disk.
    pub(super) fn on_append_accepted(&mut self, from: MemberId, index: Index, effects: &mut Effects) {
        let (base, beyond) = (self.log.base().index, self.log.last().index < index);
        let Some(progress) = self.progress(from) else { return self.ignore(Some(from), Ignored::NotLeader, effects) };
        progress.heard = true;
        if beyond {
            return self.ignore(Some(from), Ignored::AcceptBeyondLog, effects);
        }
        if !progress.on_accepted(index, base) {
            return;
        }
        let advanced = self.advance_commit(effects);
        let Some((leader, scene)) = self.leading() else { return };
        let Some(progress) = leader.members.get_mut(&from) else { return };
        if !advanced && progress.told < scene.commit && progress.told.next() < progress.next {
            append_to(from, progress, Say::Commit, &scene, effects);
        }
        while append_to(from, progress, Say::News, &scene, effects) {}
        self.go_on_with_transfer(from, effects);
    }

    /// A member's log does not have `index` as it should; it may agree with this one at `hint`.
    pub(super) fn on_append_rejected(&mut self, from: MemberId, index: Index, hint: Mark, effects: &mut Effects) {
        let agreed = self.agreed(hint);
        let Some((leader, scene)) = self.leading() else {
            return self.ignore(Some(from), Ignored::NotLeader, effects);
        };
        let Some(progress) = leader.members.get_mut(&from) else { return };
        progress.heard = true;
        if progress.on_rejected(index, agreed) {
            append_to(from, progress, Say::Anyway, &scene, effects);
        } else {
            self.ignore(Some(from), Ignored::StaleRejection, effects);
        }
    }

    /// The leader's beat.
    pub(super) fn on_heartbeat_expired(&mut self, effects: &mut Effects) {
        if !self.has_members() {
            return self.ignore(None, Ignored::IdleTimer, effects);
        }
        effects.push(Effect::Arm { timer: Timer::Heartbeat, within: self.config.heartbeat });
        self.broadcast_heartbeat(effects);
    }

    /// Tells everyone that the leader is alive, and asks for proof of it while a read waits for one.
    pub(super) fn broadcast_heartbeat(&mut self, effects: &mut Effects) {
        let uncapped = mutated!(self.config, HeartbeatCommitUncapped);
        let Some((leader, scene)) = self.leading() else { return };
        let context = leader.reads.context();
        for (&to, progress) in &mut leader.members {
            // A receiver raises its commit index without looking at terms, so it must have matched that far.
            let commit = if uncapped { scene.commit } else { scene.commit.min(progress.matched) };
            progress.told = progress.told.max(commit);
            let message = Message::Heartbeat { term: scene.term, commit, context: context.clone() };
            effects.push(Effect::Send { to, message });
        }
    }

    /// A member heard the leader: what it lacks may have been lost, so say it again.
    pub(super) fn on_heartbeat_answered(&mut self, from: MemberId, context: &Bytes, effects: &mut Effects) {
        let Some((leader, scene)) = self.leading() else {
            return self.ignore(Some(from), Ignored::NotLeader, effects);
        };
        let Some(progress) = leader.members.get_mut(&from) else { return };
        progress.on_heartbeat_answered();
        if progress.matched < scene.log.last().index || matches!(progress.flow, Flow::Probe(_)) {
            append_to(from, progress, Say::Anyway, &scene, effects);
        }
        if !context.is_empty() {
            self.on_proof(from, context, effects);
        }
    }

    /// Whether this member leads anybody.
    pub(super) fn has_members(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if !leader.members.is_empty())
    }

    /// Messages to a member were lost on their way out.
    pub(super) fn on_unreachable(&mut self, member: MemberId) {
        if let Some(progress) = self.progress(member) {
            progress.on_unreachable();
        }
    }

    /// A leader that cannot hear a majority stops leading: its clients shall look elsewhere (thesis, section 6.2).
    pub(super) fn look_for_quorum(&mut self, effects: &mut Effects) {
        let Role::Leader(leader) = &mut self.role else { unreachable!("only a leader looks for its quorum") };
        let mut heard = 1;
        for (member, progress) in &mut leader.members {
            heard += usize::from(progress.heard && self.configuration.voters.contains(member));
            progress.heard = false;
        }
        if heard < quorum::majority(self.configuration.voters.len()) {
            return self.become_follower(self.hard_state.term, None, effects);
        }
        if self.is_disk_stuck() {
            return self.retire(effects);
        }
        self.arm_leader_alive(effects);
    }

    /// Whether the oldest write was under way at the last look already. The others can commit without this leader's disk, but
    /// its clients wait for it, since it applies what it has; so it is better to lead from another disk (thesis, section
    /// 6.2, where a leader steps down that cannot serve; etcd stays). A sole voter has nobody to make room for.
    fn is_disk_stuck(&mut self) -> bool {
        let alone = self.is_sole_voter();
        let Role::Leader(leader) = &mut self.role else { unreachable!("only a leader looks at its disk") };
        let was_waiting = core::mem::replace(&mut leader.waits_for_disk, self.durable.waits());
        was_waiting && leader.waits_for_disk && !alone
    }

    /// The newest place at or before a member's hint where this log may agree with it.
    fn agreed(&self, hint: Mark) -> Index {
        match self.log.newest_within(hint.index, hint.term) {
            // An old peer may send a hint without a term.
            Some(found) if Term(0) < hint.term => found.index,
            Some(_) => hint.index.min(self.log.last().index),
            None => Index(self.log.base().index.0.saturating_sub(1)),
        }
    }

    pub(super) fn progress(&mut self, member: MemberId) -> Option<&mut Progress> {
        match &mut self.role {
            Role::Leader(leader) => leader.members.get_mut(&member),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }
}

/// Sends a member the entries after what it has been sent, if that is worth saying. Returns whether it was.
pub(super) fn append_to(
    to: MemberId,
    progress: &mut Progress,
    say: Say,
    scene: &Scene<'_>,
    effects: &mut Effects,
) -> bool {
    let hears_nothing = matches!(progress.flow, Flow::Snapshot(_));
    if hears_nothing || (say != Say::Anyway && progress.is_paused(scene.limits)) {
        return false;
    }
    let previous = Index(progress.next.0 - 1);
    let Some(term) = scene.log.term_at(previous) else {
        effects.push(if progress.on_entries_gone() {
            Effect::MakeSnapshot { to }
        } else {
            // Nobody is there to take it, for all that is known.
            Effect::Ignored { from: Some(to), why: Ignored::NeedsSnapshot }
        });
        return false;
    };
    let last = if progress.is_full(scene.limits) { previous } else { scene.log.last().index };
    let entries = scene.log.slice(previous, last, usize::MAX, scene.limits.append_bytes_max);
    if entries.is_empty() && say == Say::News {
        return false;
    }
    let upto = previous.plus(entries.len() as u64);
    progress.on_sent(upto, entries.iter().map(Entry::size).sum(), scene.commit);
    let previous = Mark::new(previous, term);
    effects.push(Effect::Send {
        to,
        message: Message::Append { term: scene.term, previous, entries, commit: scene.commit },
    });
    true
}
