//! Changes of the membership as they take effect (Raft thesis, chapter 4), as etcd does it: when they are applied.
//!
//! Two leaders of one term need majorities that share nobody, so their configurations must be two changes apart. That is
//! prevented as follows. A leader appends a change only when all earlier ones are applied (`forward`); so an append with a
//! change in it carries a commit index that covers the one before it, and whoever has a change in its log knows all
//! earlier ones to be committed ([`restored`](super::restored) holds this after a crash, too). And nobody campaigns before
//! all changes that it knows to be committed are applied. A candidate that can win is thus at most one change behind.

use alloc::vec::Vec;

use super::effect::{Effects, Ignored};
use super::member::Change;
use super::progress::Progress;
use super::replicate::Say;
use super::role::Role;
use super::{Raft, config::mutated, message::Cause};
use crate::ids::{Index, MemberId};

impl Raft {
    /// The state machine carried out the change at `index`.
    pub(super) fn on_configuration_changed(&mut self, index: Index, change: Option<Change>, effects: &mut Effects) {
        assert!(self.applied < index);
        assert!(index <= self.applying);
        if self.is_installing() {
            // Of the batch that was out when a snapshot arrived; whose configuration includes it.
            return;
        }
        if !change.is_some_and(|change| self.configuration.take(change)) {
            return;
        }
        let campaigns = matches!(self.role, Role::PreCandidate(_) | Role::Candidate(_));
        assert!(!campaigns || mutated!(self.config, CampaignBeforeChange), "a candidate has applied all changes");
        if !matches!(self.role, Role::Leader(_)) {
            return;
        }
        if !self.votes() {
            // It could go on until it is stopped, as etcd's does; but then the others' patience would begin only there.
            return self.retire(effects);
        }
        self.lead_members(effects);
    }

    /// Brings a leader's members in line with the configuration. Fewer voters may mean that more is committed or proved.
    fn lead_members(&mut self, effects: &mut Effects) {
        let last = self.log.last().index;
        let others: Vec<MemberId> = self.others().collect();
        let Role::Leader(leader) = &mut self.role else { unreachable!("only a leader has members") };
        let alone = leader.members.is_empty();
        leader.members.retain(|member, _| others.contains(member));
        // Whoever left, or votes no more, cannot inherit.
        leader.transfer = leader.transfer.filter(|transfer| self.configuration.voters.contains(&transfer.to));
        for member in others {
            leader.members.entry(member).or_insert_with(|| Progress::joined(last));
        }
        if alone && !leader.members.is_empty() {
            self.arm_leader(effects);
        }
        if !self.advance_commit(effects) {
            self.broadcast_append(Say::News, effects);
        }
        self.release_reads(effects);
    }

    /// Why this member must not stand for election now.
    pub(super) fn ignore_campaign(&self) -> Option<Ignored> {
        if !self.votes() {
            return Some(Ignored::NotVoter);
        }
        if self.is_installing() {
            return Some(Ignored::Installing);
        }
        let pends = self.log.has_change(self.applied, self.hard_state.commit);
        (pends && !mutated!(self.config, CampaignBeforeChange)).then_some(Ignored::ChangePending)
    }

    /// Remembers that a campaign is due as soon as the changes that stand in its way are applied.
    pub(super) const fn put_off_campaign(&mut self, cause: Cause) {
        if let Role::Follower(follower) = &mut self.role {
            follower.due = Some(cause);
        }
    }

    /// Begins the campaign that was put off, if nothing stands in its way any more.
    pub(super) fn resume_campaign(&mut self, effects: &mut Effects) {
        if let Role::Follower(follower) = &mut self.role
            && let Some(cause) = follower.due
            && self.ignore_campaign().is_none()
        {
            self.stand(cause, effects);
        }
    }
}
