//! Leadership that moves on request (Raft thesis, section 3.10): the heir is brought up to date and then campaigns at once.
//!
//! A request that comes to nothing harms nobody: proposals wait for at most an election timeout. The heir's campaign is one
//! like any other, so no promise rests on this.

use core::cmp::Reverse;

use super::config::{Delay, mutated};
use super::effect::{Effect, Effects, Ignored};
use super::input::Timer;
use super::message::{Cause, Message};
use super::replicate::{Say, append_to};
use super::role::{Leader, Role};
use super::{Raft, replicate::Scene};
use crate::ids::MemberId;

/// A leadership that is on its way to somebody else.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Transfer {
    /// The heir.
    pub to: MemberId,
    /// Whether the heir was told to campaign. It is told once.
    pub is_told: bool,
}

impl Raft {
    /// An operator, or the member itself, wants `to` to lead.
    pub(super) fn on_transfer_asked(&mut self, to: MemberId, effects: &mut Effects) {
        if let Some(why) = self.ignore_transfer(to) {
            return self.ignore(Some(to), why, effects);
        }
        let Role::Leader(leader) = &mut self.role else { unreachable!("only a leader makes room") };
        leader.transfer = Some(Transfer { to, is_told: false });
        effects.push(Effect::Arm { timer: Timer::Transfer, within: Delay::exactly(self.config.election.min) });
        self.go_on_with_transfer(to, effects);
        let Some((leader, scene)) = self.leading() else { return };
        if let Some(progress) = leader.members.get_mut(&to)
            && progress.matched < scene.log.last().index
        {
            append_to(to, progress, Say::Anyway, &scene, effects);
        }
    }

    fn ignore_transfer(&mut self, to: MemberId) -> Option<Ignored> {
        let (own, voters) = (self.config.id, &self.configuration.voters);
        let Role::Leader(leader) = &mut self.role else { return Some(Ignored::NotLeader) };
        if to == own {
            // Whoever asks for the present leader wants no other one.
            leader.transfer = None;
            return Some(Ignored::LeadsAlready);
        }
        if !voters.contains(&to) {
            return Some(Ignored::NotVoter);
        }
        leader.transfer.is_some_and(|transfer| transfer.to == to).then_some(Ignored::Transferring)
    }

    /// Tells the heir to campaign once it has the whole log: only then can it win.
    pub(super) fn go_on_with_transfer(&mut self, member: MemberId, effects: &mut Effects) {
        let hasty = mutated!(self.config, TransferWhileBehind);
        let Some((Leader { members, transfer, .. }, Scene { log, term, .. })) = self.leading() else { return };
        if let Some(transfer) = transfer.as_mut().filter(|transfer| transfer.to == member && !transfer.is_told)
            && let Some(progress) = members.get(&member)
            && (progress.matched == log.last().index || hasty)
        {
            transfer.is_told = true;
            effects.push(Effect::Send { to: member, message: Message::TimeoutNow { term } });
        }
    }

    /// The heir had its time.
    pub(super) fn on_transfer_expired(&mut self, effects: &mut Effects) {
        let given_up = match &mut self.role {
            Role::Leader(leader) => leader.transfer.take(),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        };
        match given_up {
            Some(transfer) => self.ignore(Some(transfer.to), Ignored::TransferTooSlow, effects),
            None => self.ignore(None, Ignored::IdleTimer, effects),
        }
    }

    /// The leader makes room for this member.
    pub(super) fn on_timeout_now(&mut self, from: MemberId, effects: &mut Effects) {
        if !matches!(self.role, Role::Follower(_)) {
            return self.ignore(Some(from), Ignored::NotFollower, effects);
        }
        if let Some(why) = self.ignore_campaign() {
            if why != Ignored::NotVoter {
                self.put_off_campaign(Cause::Transfer);
            }
            return self.ignore(Some(from), why, effects);
        }
        self.stand(Cause::Transfer, effects);
    }

    /// Ends a leadership that is of no use any more. The most complete of the other voters is told to campaign, so that
    /// nobody's patience has to end first.
    pub(super) fn retire(&mut self, effects: &mut Effects) {
        let term = self.hard_state.term;
        let Role::Leader(leader) = &self.role else { unreachable!("only a leader retires") };
        let known = leader.members.iter().filter(|(member, _)| self.configuration.voters.contains(member));
        let heir = known.max_by_key(|(member, progress)| (progress.matched, progress.heard, Reverse(**member)));
        if let Some((&to, _)) = heir {
            effects.push(Effect::Send { to, message: Message::TimeoutNow { term } });
        }
        self.become_follower(term, None, effects);
    }
}
