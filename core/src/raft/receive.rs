//! The gate for messages: term and sender are looked at before the kind is.
//!
//! Invariant: behind the gate a message speaks for the present term (or carries none, or only asks about a coming one).

use super::Raft;
use super::effect::{Effect, Effects, Ignored};
use super::message::{Cause, Message};
use super::quorum::Answer;
use super::role::Role;
use crate::ids::{Index, MemberId, Term};

/// Terms beyond this come from no cluster that ever ran; refusing them keeps the next term countable.
pub(super) const TERM_MAX: Term = Term(u64::MAX / 2);

impl Raft {
    /// A message arrived.
    pub(super) fn on_received(&mut self, from: MemberId, message: Message, effects: &mut Effects) {
        if let Some(why) = self.ignore_sender(from, &message) {
            return self.ignore(Some(from), why, effects);
        }
        let present = self.hard_state.term;
        match message.term() {
            Some(term) if term < present => return self.on_older_term(from, &message, effects),
            Some(term) if present < term => {
                if self.ignore_candidate(&message) {
                    return self.ignore(Some(from), Ignored::LeaderAlive, effects);
                }
                if !matches!(message, Message::PreVoteRequest { .. } | Message::PreVoteGranted { .. }) {
                    let leader = message.is_from_leader().then_some(from);
                    self.become_follower(term, leader, effects);
                }
            }
            Some(_) | None => {}
        }
        self.on_message(from, message, effects);
    }

    fn on_message(&mut self, from: MemberId, message: Message, effects: &mut Effects) {
        match message {
            Message::Propose { proposals } => self.on_propose(from, proposals, effects),
            Message::Append { previous, entries, commit, .. } => {
                self.on_append(from, previous, entries, commit, effects);
            }
            Message::AppendAccepted { index, .. } => self.on_append_accepted(from, index, effects),
            Message::AppendRejected { index, hint, .. } => self.on_append_rejected(from, index, hint, effects),
            Message::VoteRequest { last, .. } => self.on_vote_request(from, last, effects),
            Message::VoteGranted { .. } => self.on_vote_answer(from, Answer::Granted, effects),
            Message::VoteRefused { .. } => self.on_vote_answer(from, Answer::Refused, effects),
            Message::PreVoteRequest { term, last } => self.on_pre_vote_request(from, term, last, effects),
            Message::PreVoteGranted { term } => self.on_pre_vote_answer(from, term, Answer::Granted, effects),
            Message::PreVoteRefused { term } => self.on_pre_vote_answer(from, term, Answer::Refused, effects),
            Message::Heartbeat { commit, context, .. } => self.on_heartbeat(from, commit, context, effects),
            Message::HeartbeatAnswered { context, .. } => self.on_heartbeat_answered(from, &context, effects),
            Message::Snapshot { snapshot, .. } => self.on_snapshot(from, snapshot, effects),
            Message::TransferLeader => self.on_transfer_asked(from, effects),
            Message::TimeoutNow { .. } => self.on_timeout_now(from, effects),
            Message::ReadIndex { origin, token } => self.on_read_index(from, origin, token, effects),
            Message::ReadIndexAnswered { index, token, .. } => {
                self.on_read_index_answered(from, index, &token, effects);
            }
        }
    }

    /// An old leader and a hopeful learn the newer term; everyone else of the past is not heard.
    fn on_older_term(&self, from: MemberId, message: &Message, effects: &mut Effects) {
        let term = self.hard_state.term;
        if message.is_from_leader() {
            let message = Message::AppendAccepted { term, index: Index::ZERO };
            effects.push(Effect::Send { to: from, message });
        } else if matches!(message, Message::PreVoteRequest { .. }) {
            effects.push(Effect::Send { to: from, message: Message::PreVoteRefused { term } });
        }
        self.ignore(Some(from), Ignored::OlderTerm, effects);
    }

    fn ignore_sender(&self, from: MemberId, message: &Message) -> Option<Ignored> {
        if from == self.config.id {
            return Some(Ignored::FromSelf);
        }
        if from == MemberId(0) || message.term().is_some_and(|term| term == Term(0) || TERM_MAX < term) {
            return Some(Ignored::Malformed);
        }
        if message.is_answer() && !self.configuration.contains(from) {
            return Some(Ignored::Stranger);
        }
        None
    }

    /// While the leader is alive, nobody can disturb it with a higher term but a candidate it chose itself.
    fn ignore_candidate(&self, message: &Message) -> bool {
        match message {
            Message::VoteRequest { cause, .. } => *cause == Cause::Timeout && self.in_lease(),
            Message::PreVoteRequest { .. } => self.in_lease(),
            _ => false,
        }
    }

    /// Follows the sender of a leader's message, or says why not.
    pub(super) fn follow(&mut self, from: MemberId, effects: &mut Effects) -> bool {
        match &self.role {
            Role::Follower(follower) if follower.leader == Some(from) => {
                self.renew_patience(effects);
                self.renew_lease(effects);
                true
            }
            Role::Follower(follower) if follower.leader.is_none() => self.follow_new(from, effects),
            Role::PreCandidate(_) | Role::Candidate(_) => self.follow_new(from, effects),
            Role::Follower(_) | Role::Leader(_) => {
                self.ignore(Some(from), Ignored::TwoLeaders, effects);
                false
            }
        }
    }

    fn follow_new(&mut self, leader: MemberId, effects: &mut Effects) -> bool {
        self.become_follower(self.hard_state.term, Some(leader), effects);
        true
    }
}
