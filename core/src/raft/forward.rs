//! Proposals and reads: taken by the leader, passed on by everyone who knows one.
//!
//! A proposal is passed on once and forgotten: whoever made it finds its answer when it comes back through the log, or
//! gives up. Never repeated, so never appended twice by this path.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::effect::{Effect, Effects, Ignored, Refusal};
use super::entry::EntryKind;
use super::message::{Message, Proposal};
use super::read::Reader;
use super::replicate::Say;
use super::role::Role;
use super::{Raft, config::mutated};
use crate::ids::{Index, MemberId, Term, Ticket};

impl Raft {
    /// A client wants something in the log.
    pub(super) fn on_proposed(
        &mut self,
        ticket: Ticket,
        proposal: Proposal,
        only_in: Option<Term>,
        effects: &mut Effects,
    ) {
        if let Some(why) = self.refuse_proposal(&proposal, only_in) {
            return effects.push(Effect::Refused { ticket, why });
        }
        match self.leader() {
            Some(leader) if leader == self.config.id => {
                self.append_own(proposal);
                if mutated!(self.config, OwnMatchAtAppend) {
                    self.advance_commit(effects);
                }
                self.broadcast_append(Say::News, effects);
            }
            Some(leader) => {
                let proposals = vec![proposal];
                effects.push(Effect::Send { to: leader, message: Message::Propose { proposals } });
            }
            None => effects.push(Effect::Refused { ticket, why: Refusal::NoLeader }),
        }
    }

    fn refuse_proposal(&self, proposal: &Proposal, only_in: Option<Term>) -> Option<Refusal> {
        let leads = matches!(self.role, Role::Leader(_));
        if proposal.payload.is_empty() {
            return Some(Refusal::Empty);
        }
        if proposal.kind == EntryKind::ConfChangeV2 {
            return Some(Refusal::JointChange);
        }
        if only_in.is_some_and(|term| !leads || term != self.hard_state.term) {
            return Some(Refusal::NotInTerm);
        }
        if self.is_transferring() {
            return Some(Refusal::Transferring);
        }
        if proposal.kind == EntryKind::ConfChange && self.change_pends() {
            return Some(Refusal::ChangePending);
        }
        (leads && self.is_full()).then_some(Refusal::TooMany)
    }

    const fn is_transferring(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.transfer.is_some())
    }

    /// Whether a change of the membership may be under way, seen from its leader: two at once could have majorities that do
    /// not share a member (Raft thesis, section 4.1).
    fn change_pends(&self) -> bool {
        let pends = matches!(&self.role, Role::Leader(leader) if self.applied < leader.pending_change);
        pends && !mutated!(self.config, TwoChangesInFlight)
    }

    /// Whether too much waits to be committed. Checked before an entry, so that a single large one is never stuck.
    fn is_full(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => self.config.limits.uncommitted_bytes_max <= leader.uncommitted_bytes,
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    /// A member passed proposals on.
    pub(super) fn on_propose(&mut self, from: MemberId, proposals: Vec<Proposal>, effects: &mut Effects) {
        match self.leader() {
            Some(leader) if leader == self.config.id => {
                for proposal in proposals {
                    match self.ignore_proposal(&proposal) {
                        Some(why) => self.ignore(Some(from), why, effects),
                        // The place is taken all the same, as by etcd: whoever proposed it may find out.
                        None if proposal.kind == EntryKind::ConfChange && self.change_pends() => {
                            self.append_own(Proposal::EMPTY);
                        }
                        None => self.append_own(proposal),
                    }
                }
                self.broadcast_append(Say::News, effects);
            }
            // Two members that take each other for the leader must not play ball.
            Some(leader) if leader != from => {
                effects.push(Effect::Send { to: leader, message: Message::Propose { proposals } });
            }
            Some(_) | None => self.ignore(Some(from), Ignored::NoLeader, effects),
        }
    }

    fn ignore_proposal(&self, proposal: &Proposal) -> Option<Ignored> {
        if proposal.payload.is_empty() {
            return Some(Ignored::Malformed);
        }
        if self.is_transferring() {
            return Some(Ignored::Transferring);
        }
        match proposal.kind {
            EntryKind::ConfChangeV2 => Some(Ignored::JointChange),
            EntryKind::Normal | EntryKind::ConfChange => self.is_full().then_some(Ignored::TooMany),
        }
    }

    /// Asks the leader for a client's read. The ticket is the token: unique, and new for every attempt.
    pub(super) fn forward_read(&mut self, ticket: Ticket, effects: &mut Effects) {
        let origin = self.config.id;
        let limit = self.config.limits.reads_open_max as usize;
        let Role::Follower(follower) = &mut self.role else { unreachable!("only a follower passes reads on") };
        let Some(leader) = follower.leader else {
            return effects.push(Effect::Refused { ticket, why: Refusal::NoLeader });
        };
        if limit <= follower.asked.len()
            && let Some(ticket) = follower.asked.pop_front()
        {
            // The oldest has most likely been lost on its way, and its client gave up.
            effects.push(Effect::Refused { ticket, why: Refusal::TooMany });
        }
        follower.asked.push_back(ticket);
        let token = Bytes::copy_from_slice(&ticket.0.to_be_bytes());
        effects.push(Effect::Send { to: leader, message: Message::ReadIndex { origin, token } });
    }

    /// A member wants an index to read at.
    pub(super) fn on_read_index(&mut self, from: MemberId, origin: MemberId, token: Bytes, effects: &mut Effects) {
        match self.leader() {
            Some(leader) if leader == self.config.id => self.gather(Reader::Other { origin, token }, effects),
            Some(leader) if leader != from && leader != origin => {
                effects.push(Effect::Send { to: leader, message: Message::ReadIndex { origin, token } });
            }
            Some(_) | None => self.ignore(Some(from), Ignored::NoLeader, effects),
        }
    }

    /// The leader answered a read of this member.
    pub(super) fn on_read_index_answered(
        &mut self,
        from: MemberId,
        index: Index,
        token: &Bytes,
        effects: &mut Effects,
    ) {
        let ticket = <[u8; 8]>::try_from(token.as_ref()).map(u64::from_be_bytes).map(Ticket);
        let asked = match (&mut self.role, ticket) {
            (Role::Follower(follower), Ok(ticket)) => {
                let place = follower.asked.iter().position(|&asked| asked == ticket);
                place.and_then(|place| follower.asked.remove(place))
            }
            _ => None,
        };
        match asked {
            Some(ticket) => effects.push(Effect::ReadReady { ticket, index }),
            None => self.ignore(Some(from), Ignored::UnknownRead, effects),
        }
    }
}
