//! Whom this member knows: what the adapter to the network asks before it lets anyone speak.
//!
//! Filled by whoever follows the membership; a table of its own, because a look at it must not wait for the store. It may be a moment behind the log, as every member is.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use detcd_core::ids::MemberId;

/// The table. Clones share it.
#[derive(Clone, Debug)]
pub struct Directory {
    member: MemberId,
    cluster: u64,
    known: Arc<RwLock<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    members: BTreeSet<MemberId>,
    removed: BTreeSet<MemberId>,
}

/// What somebody is to this member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// This member itself.
    Own,
    /// Another member.
    Member,
    /// One that has left for good.
    Removed,
    /// Nobody, as far as is known here.
    Unknown,
}

impl Directory {
    /// The table of `member` in `cluster`, which knows nobody else yet.
    #[must_use]
    pub fn new(cluster: u64, member: MemberId) -> Self {
        Self { member, cluster, known: Arc::default() }
    }

    /// This member.
    #[must_use]
    pub const fn member(&self) -> MemberId {
        self.member
    }

    /// Its cluster.
    #[must_use]
    pub const fn cluster(&self) -> u64 {
        self.cluster
    }

    /// Says who belongs to the cluster from now on, and who has left it for good.
    pub fn set(&self, members: impl IntoIterator<Item = MemberId>, removed: impl IntoIterator<Item = MemberId>) {
        let known = Known { members: members.into_iter().collect(), removed: removed.into_iter().collect() };
        // Whole sets replace each other, so a panic elsewhere left nothing half done.
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// What `id` is to this member. Who has left stays removed, whatever else is said of it.
    #[must_use]
    pub fn standing(&self, id: MemberId) -> Standing {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.removed.contains(&id) {
            Standing::Removed
        } else if id == self.member {
            Standing::Own
        } else if known.members.contains(&id) {
            Standing::Member
        } else {
            Standing::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_left_is_removed_before_anything_else() {
        let directory = Directory::new(9, MemberId(1));
        let shared = directory.clone();
        assert_eq!(directory.standing(MemberId(1)), Standing::Own);
        assert_eq!(directory.standing(MemberId(2)), Standing::Unknown);
        shared.set([MemberId(1), MemberId(2), MemberId(3)], [MemberId(3)]);
        assert_eq!(directory.standing(MemberId(2)), Standing::Member);
        assert_eq!(directory.standing(MemberId(3)), Standing::Removed);
        shared.set([MemberId(2)], [MemberId(1)]);
        assert_eq!(directory.standing(MemberId(1)), Standing::Removed);
        assert_eq!(directory.standing(MemberId(3)), Standing::Unknown);
    }
}
