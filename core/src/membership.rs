//! Who belongs to the cluster, as the log says it.
//!
//! One value, changed only by what apply decided ([`Membership::on_write`]). Invariants: a removed id never comes back,
//! and no id is both a member and removed.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::apply::Write;
use crate::ids::{MemberId, Ticket};

/// One member.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Whether it only listens and has no vote.
    pub is_learner: bool,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where clients reach it; empty until it has started.
    pub client_urls: Vec<String>,
}

/// A version of three numbers, as the cluster agrees on it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Version {
    /// Changes with what is no longer understood.
    pub major: u64,
    /// Changes with what is new.
    pub minor: u64,
    /// Changes with what is repaired.
    pub patch: u64,
}

/// The way of a cluster to an older version.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Downgrade {
    /// Whether the cluster is on it.
    pub enabled: bool,
    /// Where it leads; empty if the cluster is not on it.
    pub target: String,
}

/// A committed change of the membership.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ConfChange {
    /// Finds the caller; zero for the entries of a bootstrap.
    pub id: Ticket,
    /// Who is changed.
    pub node: MemberId,
    /// How.
    pub kind: ConfChangeKind,
}

/// The kinds of membership change that etcd logs.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ConfChangeKind {
    /// A member with a vote joins.
    AddVoter(Member),
    /// A member without a vote joins.
    AddLearner(Member),
    /// A learner gets its vote.
    Promote,
    /// A member leaves for good.
    Remove,
    /// A member is reached elsewhere.
    Update {
        /// Its new peer URLs.
        peer_urls: Vec<String>,
    },
}

/// The cluster's members, those that left, and the version all agree on.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Membership {
    members: BTreeMap<MemberId, Member>,
    removed: BTreeSet<MemberId>,
    cluster_version: Option<Version>,
    downgrade: Downgrade,
    learners_max: usize,
}

/// Learners of one cluster: etcd's default.
pub const LEARNERS_MAX: usize = 1;

impl Membership {
    /// What a store holds. `None` if some id is both a member and removed, or listed twice: such a store is damaged.
    pub fn restore(
        members: impl IntoIterator<Item = Member>,
        removed: impl IntoIterator<Item = MemberId>,
        cluster_version: Option<Version>,
    ) -> Option<Self> {
        let removed = removed.into_iter().collect();
        let mut restored = Self { removed, cluster_version, ..Self::default() };
        for member in members {
            if restored.removed.contains(&member.id) || restored.members.insert(member.id, member).is_some() {
                return None;
            }
        }
        Some(restored)
    }

    /// The member with this id.
    #[must_use]
    pub fn get(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// All members by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// How many members only listen.
    #[must_use]
    pub fn learners(&self) -> usize {
        self.members.values().filter(|member| member.is_learner).count()
    }

    /// How many members may only listen. Not of the log: all members have to be started with the same limit, as in etcd.
    #[must_use]
    pub const fn learners_max(&self) -> usize {
        self.learners_max
    }

    /// Sets how many members may only listen.
    pub const fn limit_learners(&mut self, learners_max: usize) {
        self.learners_max = learners_max;
    }

    /// Whether the id left for good.
    #[must_use]
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id)
    }

    /// All ids that left for good.
    pub fn removed(&self) -> impl ExactSizeIterator<Item = MemberId> {
        self.removed.iter().copied()
    }

    /// The version all agree on, once set.
    #[must_use]
    pub const fn cluster_version(&self) -> Option<Version> {
        self.cluster_version
    }

    /// Whether the cluster is on its way to an older version.
    #[must_use]
    pub const fn downgrade(&self) -> &Downgrade {
        &self.downgrade
    }

    /// Whether some member is reached at this peer URL.
    #[must_use]
    pub fn has_peer_url(&self, url: &str) -> bool {
        self.members.values().any(|member| member.peer_urls.iter().any(|known| known == url))
    }

    /// Follows what apply decided. Writes about other things change nothing.
    pub fn on_write(&mut self, write: &Write) {
        match write {
            Write::Member(member) => {
                assert!(!self.removed.contains(&member.id), "apply lets no removed id return");
                self.members.insert(member.id, member.clone());
            }
            Write::MemberRemoved(id) => {
                self.members.remove(id);
                self.removed.insert(*id);
            }
            Write::ClusterVersion(version) => self.cluster_version = Some(*version),
            Write::Downgrade(downgrade) => self.downgrade = downgrade.clone(),
            Write::Row { .. }
            | Write::Tombstone { .. }
            | Write::Compacted(_)
            | Write::AlarmRaised(_)
            | Write::AlarmLowered(_)
            | Write::Lease(_)
            | Write::LeaseRemoved(_) => {}
        }
    }
}

impl Default for Membership {
    fn default() -> Self {
        let (members, removed) = (BTreeMap::new(), BTreeSet::new());
        Self { members, removed, cluster_version: None, downgrade: Downgrade::default(), learners_max: LEARNERS_MAX }
    }
}

impl Version {
    /// The version `major.minor.patch`.
    #[must_use]
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self { major, minor, patch }
    }

    /// Reads `major.minor.patch`, each a plain decimal number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut next = || {
            let part = parts.next()?;
            let plain = part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            if plain { part.parse().ok() } else { None }
        };
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        if parts.next().is_none() { Some(version) } else { None }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}
