//! Elections: patience, pre-vote, vote (Raft paper, section 5.2; thesis, section 9.6).
//!
//! Invariant: one vote per term. A vote leaves after it is on disk, and a candidate's own vote counts after it is on disk.

use super::effect::{Effect, Effects, Ignored};
use super::entry::Mark;
use super::message::{Cause, Message};
use super::quorum::{Answer, Verdict};
use super::role::{Lease, Role};
use super::{Raft, config::mutated};
use crate::ids::{MemberId, Term};

impl Raft {
    /// Patience is over.
    pub(super) fn on_election_expired(&mut self, effects: &mut Effects) {
        if matches!(self.role, Role::Leader(_)) {
            return self.ignore(None, Ignored::IdleTimer, effects);
        }
        if matches!(self.role, Role::Candidate(_)) && self.durable.ballot().term < self.hard_state.term {
            // Nobody was asked yet, as the own vote is still on its way to a slow disk: another term would only add to it.
            return self.arm_election(effects);
        }
        if let Some(why) = self.ignore_campaign() {
            // Patience goes on: a change that is under way may make it a voter.
            self.arm_election(effects);
            self.put_off_campaign(Cause::Timeout);
            return self.ignore(None, why, effects);
        }
        self.stand(Cause::Timeout, effects);
    }

    /// Stands for election. A sole voter has nobody to ask and nobody to disturb.
    pub(super) fn stand(&mut self, cause: Cause, effects: &mut Effects) {
        assert!(self.votes());
        let asks_first = self.config.pre_vote && cause == Cause::Timeout && !self.is_sole_voter();
        if asks_first { self.ask_first(effects) } else { self.campaign(cause, effects) }
    }

    fn ask_first(&mut self, effects: &mut Effects) {
        self.become_pre_candidate(effects);
        let request = Message::PreVoteRequest { term: self.hard_state.term.next(), last: self.log.last() };
        effects.extend(self.other_voters().map(|to| Effect::Send { to, message: request.clone() }));
        self.count(self.config.id, Answer::Granted, effects);
    }

    fn campaign(&mut self, cause: Cause, effects: &mut Effects) {
        self.become_candidate(effects);
        let message = Message::VoteRequest { term: self.hard_state.term, last: self.log.last(), cause };
        for to in self.configuration.voters.iter().copied().filter(|&voter| voter != self.config.id) {
            self.durable.promise(to, message.clone());
        }
    }

    /// The own vote may have reached the disk.
    pub(super) fn count_own_vote(&mut self, effects: &mut Effects) {
        let ballot = self.durable.ballot();
        let voted = ballot.term == self.hard_state.term && ballot.vote == Some(self.config.id);
        if voted && matches!(self.role, Role::Candidate(_)) {
            self.count(self.config.id, Answer::Granted, effects);
        }
    }

    /// A candidate asks for a vote in this term.
    pub(super) fn on_vote_request(&mut self, from: MemberId, last: Mark, effects: &mut Effects) {
        let term = self.hard_state.term;
        if !self.may_vote_for(from) || !self.is_up_to_date(last) {
            return effects.push(Effect::Send { to: from, message: Message::VoteRefused { term } });
        }
        self.hard_state.vote = Some(from);
        self.renew_patience(effects);
        let message = Message::VoteGranted { term };
        if mutated!(self.config, VoteBeforeDurable) {
            return effects.push(Effect::Send { to: from, message });
        }
        self.durable.promise(from, message);
    }

    /// Somebody asks whether it would get a vote in `term`, this one or a later one. Nothing is promised.
    pub(super) fn on_pre_vote_request(&self, from: MemberId, term: Term, last: Mark, effects: &mut Effects) {
        assert!(self.hard_state.term <= term);
        let free = self.hard_state.term < term || self.may_vote_for(from);
        let message = if free && self.is_up_to_date(last) {
            Message::PreVoteGranted { term }
        } else {
            Message::PreVoteRefused { term: self.hard_state.term }
        };
        effects.push(Effect::Send { to: from, message });
    }

    /// A voter answered the campaign of this term.
    pub(super) fn on_vote_answer(&mut self, from: MemberId, answer: Answer, effects: &mut Effects) {
        match self.role {
            Role::Candidate(_) => self.count(from, answer, effects),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Leader(_) => {
                self.ignore(Some(from), Ignored::NotCandidate, effects);
            }
        }
    }

    /// A voter answered the question before a campaign. A grant names the coming term, a refusal the present one.
    pub(super) fn on_pre_vote_answer(&mut self, from: MemberId, term: Term, answer: Answer, effects: &mut Effects) {
        let asked = answer == Answer::Refused || term == self.hard_state.term.next();
        match self.role {
            Role::PreCandidate(_) if asked => self.count(from, answer, effects),
            Role::PreCandidate(_) | Role::Follower(_) | Role::Candidate(_) | Role::Leader(_) => {
                self.ignore(Some(from), Ignored::NotCandidate, effects);
            }
        }
    }

    fn count(&mut self, voter: MemberId, answer: Answer, effects: &mut Effects) {
        let (Role::PreCandidate(votes) | Role::Candidate(votes)) = &mut self.role else {
            unreachable!("only a candidate counts votes")
        };
        if !votes.note(voter, answer) {
            // The own vote is looked at after every write; that is no news worth telling.
            if voter != self.config.id {
                self.ignore(Some(voter), Ignored::AnsweredBefore, effects);
            }
            return;
        }
        match votes.verdict(&self.configuration.voters) {
            Verdict::Open => {}
            Verdict::Lost => self.become_follower(self.hard_state.term, None, effects),
            Verdict::Won if matches!(self.role, Role::PreCandidate(_)) => self.campaign(Cause::Timeout, effects),
            Verdict::Won => self.become_leader(effects),
        }
    }

    fn may_vote_for(&self, candidate: MemberId) -> bool {
        if mutated!(self.config, VoteTwice) && matches!(self.role, Role::Follower(_)) {
            return true;
        }
        match self.hard_state.vote {
            Some(vote) => vote == candidate,
            None => self.leader().is_none(),
        }
    }

    /// A candidate needs a log at least as good as the voter's (paper, section 5.4.1).
    fn is_up_to_date(&self, last: Mark) -> bool {
        self.log.last() <= last || mutated!(self.config, VoteWithoutLogCheck)
    }

    /// Whether a leader is alive as far as this member knows. A leader never doubts itself here.
    pub(super) fn in_lease(&self) -> bool {
        match &self.role {
            Role::Leader(_) => true,
            Role::Follower(follower) => follower.lease == Lease::Running,
            Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    /// The leader's lease ended, or the leader's own look for its quorum is due.
    pub(super) fn on_leader_alive_expired(&mut self, effects: &mut Effects) {
        match &mut self.role {
            Role::Follower(follower) if follower.lease == Lease::Running => follower.lease = Lease::Over,
            Role::Leader(leader) if !leader.members.is_empty() => self.look_for_quorum(effects),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => {
                self.ignore(None, Ignored::IdleTimer, effects);
            }
        }
    }
}
