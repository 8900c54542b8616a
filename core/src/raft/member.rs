//! Who belongs to the cluster, and the one kind of step in which that changes (Raft thesis, section 4.1).
//!
//! Invariant: nobody is both voter and learner. One change adds or removes one member, so the majorities of two neighbouring
//! configurations share a member.

use alloc::collections::BTreeSet;
use core::fmt;

use crate::ids::MemberId;
use crate::membership::Membership;

/// The members of a cluster, as one of them knows them.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Configuration {
    /// Who votes and counts.
    pub voters: BTreeSet<MemberId>,
    /// Who gets the log and counts for nothing.
    pub learners: BTreeSet<MemberId>,
}

/// One step from a configuration to the next.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Change {
    /// This member votes from now on; a learner is promoted.
    AddVoter(MemberId),
    /// This member listens from now on.
    AddLearner(MemberId),
    /// This member belongs to the cluster no more.
    Remove(MemberId),
}

impl Configuration {
    /// A cluster in which everyone votes.
    #[must_use]
    pub fn of_voters(voters: impl IntoIterator<Item = MemberId>) -> Self {
        Self { voters: voters.into_iter().collect(), learners: BTreeSet::new() }
    }

    /// What a membership means to Raft.
    #[must_use]
    pub fn of(membership: &Membership) -> Self {
        let mut configuration = Self::default();
        for member in membership.iter() {
            let role = if member.is_learner { &mut configuration.learners } else { &mut configuration.voters };
            role.insert(member.id);
        }
        configuration
    }

    /// Whether this member belongs to the cluster.
    #[must_use]
    pub fn contains(&self, member: MemberId) -> bool {
        self.voters.contains(&member) || self.learners.contains(&member)
    }

    /// Whether this member votes and nobody else does.
    #[must_use]
    pub fn is_sole_voter(&self, member: MemberId) -> bool {
        self.voters.len() == 1 && self.voters.contains(&member)
    }

    /// Everyone, voters first.
    pub fn members(&self) -> impl Iterator<Item = MemberId> {
        self.voters.iter().chain(&self.learners).copied()
    }

    /// Takes a step. Returns whether it led anywhere else.
    pub fn take(&mut self, change: Change) -> bool {
        match change {
            Change::AddVoter(member) => self.learners.remove(&member) | self.voters.insert(member),
            Change::AddLearner(member) => self.voters.remove(&member) | self.learners.insert(member),
            Change::Remove(member) => self.voters.remove(&member) | self.learners.remove(&member),
        }
    }

    /// Whether it could be somebody's: few enough members, none in two roles, none without a name.
    pub(super) fn is_sound(&self) -> bool {
        let count = self.voters.len() + self.learners.len();
        count <= MEMBERS_MAX && !self.contains(MemberId(0)) && self.voters.is_disjoint(&self.learners)
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "of")?;
        self.voters.iter().try_for_each(|voter| write!(f, " {voter}"))?;
        if !self.learners.is_empty() {
            write!(f, " learners")?;
        }
        self.learners.iter().try_for_each(|learner| write!(f, " {learner}"))
    }
}

/// Members of one cluster. No cluster comes near it; a peer's bytes might.
const MEMBERS_MAX: usize = 1024;
