//! What a member is at the moment, each role with its own data, and the only place where a role changes.
//!
//! Invariant: data of a role cannot outlive it. Whoever waited for the old role is told when it ends.

use alloc::collections::{BTreeMap, VecDeque};

use super::config::Delay;
use super::effect::{Effect, Effects, Refusal};
use super::input::Timer;
use super::message::{Cause, Proposal};
use super::progress::Progress;
use super::quorum::Votes;
use super::read::Reads;
use super::transfer::Transfer;
use super::{Raft, Say};
use crate::ids::{Index, MemberId, Term, Ticket};

/// What a member is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Role {
    /// It follows a leader, or waits for one.
    Follower(Follower),
    /// It asks whether it could win, at its present term.
    PreCandidate(Votes),
    /// It asks for votes. Its own counts once it is on disk.
    Candidate(Votes),
    /// It leads.
    Leader(Leader),
}

/// What a follower remembers.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Follower {
    /// The leader, once it was heard in this term.
    pub leader: Option<MemberId>,
    /// Whether the leader counts as alive.
    pub lease: Lease,
    /// The campaign that waits for changes of the membership to be applied.
    pub due: Option<Cause>,
    /// Reads the leader was asked for, oldest first.
    pub asked: VecDeque<Ticket>,
}

/// Whether a leader was heard within the shortest election time.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Lease {
    /// No: candidates get an answer.
    #[default]
    Over,
    /// Yes: candidates are ignored.
    Running,
}

/// What a leader remembers.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Leader {
    /// Every other member.
    pub members: BTreeMap<MemberId, Progress>,
    /// Reads that wait.
    pub reads: Reads,
    /// The newest entry that may change the membership and may not be applied. No other change is appended before it is.
    pub pending_change: Index,
    /// The leadership that is on its way to somebody else.
    pub transfer: Option<Transfer>,
    /// Writes were under way at the last look for a quorum, and none has finished since.
    pub waits_for_disk: bool,
    /// Bytes appended in this leadership and not committed yet.
    pub uncommitted_bytes: u64,
}

impl Role {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Follower(_) => "follower",
            Self::PreCandidate(_) => "pre-candidate",
            Self::Candidate(_) => "candidate",
            Self::Leader(_) => "leader",
        }
    }
}

impl Raft {
    /// Follows, at `term`, the leader if one is known. Patience that is running goes on until a leader is heard or a vote is given (paper, section 5.2): who asks for
    /// votes that its old log cannot win, again and again, puts off nobody else.
    pub(super) fn become_follower(&mut self, term: Term, leader: Option<MemberId>, effects: &mut Effects) {
        assert!(self.hard_state.term <= term);
        if self.hard_state.term < term {
            self.hard_state.term = term;
            self.hard_state.vote = None;
        }
        let begins = leader.is_some() || matches!(self.role, Role::Leader(_));
        self.take_role(Role::Follower(Follower { leader, ..Follower::default() }), effects);
        if begins {
            self.arm_election(effects);
        }
        if leader.is_some() {
            self.renew_lease(effects);
        }
    }

    pub(super) fn become_pre_candidate(&mut self, effects: &mut Effects) {
        self.take_role(Role::PreCandidate(Votes::default()), effects);
        self.arm_election(effects);
    }

    /// A new term, and the own vote in it.
    pub(super) fn become_candidate(&mut self, effects: &mut Effects) {
        self.hard_state.term = self.hard_state.term.next();
        self.hard_state.vote = Some(self.config.id);
        self.take_role(Role::Candidate(Votes::default()), effects);
        self.arm_election(effects);
    }

    /// Leads: an empty entry of the new term goes out at once, since only own entries can be counted (paper, section 5.4.2).
    pub(super) fn become_leader(&mut self, effects: &mut Effects) {
        assert!(matches!(self.role, Role::Candidate(_)));
        assert_eq!(self.hard_state.vote, Some(self.config.id));
        let last = self.log.last().index;
        let members: BTreeMap<_, _> = self.others().map(|member| (member, Progress::new(last.next()))).collect();
        let alone = members.is_empty();
        // Any entry of the log that is not applied yet may be a change.
        self.take_role(Role::Leader(Leader { members, pending_change: last, ..Leader::default() }), effects);
        if !alone {
            self.arm_leader(effects);
        }
        self.append_own(Proposal::EMPTY);
        self.broadcast_append(Say::News, effects);
    }

    /// Starts the timers of a leader that has members.
    pub(super) fn arm_leader(&self, effects: &mut Effects) {
        effects.push(Effect::Arm { timer: Timer::Heartbeat, within: self.config.heartbeat });
        self.arm_leader_alive(effects);
    }

    /// There is no need for a campaign for a while, unless somebody asked for it.
    pub(super) fn renew_patience(&mut self, effects: &mut Effects) {
        if let Role::Follower(follower) = &mut self.role {
            follower.due = follower.due.filter(|cause| *cause == Cause::Transfer);
        }
        self.arm_election(effects);
    }

    /// A leader was heard: it is alive for at least the shortest election time.
    pub(super) fn renew_lease(&mut self, effects: &mut Effects) {
        let Role::Follower(follower) = &mut self.role else { unreachable!("only a follower gives a lease") };
        assert!(follower.leader.is_some());
        follower.lease = Lease::Running;
        self.arm_leader_alive(effects);
    }

    pub(super) fn arm_election(&self, effects: &mut Effects) {
        effects.push(Effect::Arm { timer: Timer::Election, within: self.config.election });
    }

    pub(super) fn arm_leader_alive(&self, effects: &mut Effects) {
        effects.push(Effect::Arm { timer: Timer::LeaderAlive, within: Delay::exactly(self.config.election.min) });
    }

    fn take_role(&mut self, role: Role, effects: &mut Effects) {
        let mut refuse = |ticket| effects.push(Effect::Refused { ticket, why: Refusal::LeaderChanged });
        match core::mem::replace(&mut self.role, role) {
            Role::Follower(follower) => follower.asked.into_iter().for_each(&mut refuse),
            Role::Leader(leader) => leader.reads.into_tickets().for_each(&mut refuse),
            Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
    }
}
