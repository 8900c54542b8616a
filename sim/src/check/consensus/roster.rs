//! Who belonged to the cluster after which entry: etcd's rules for membership changes once more, written from what its documentation promises, over the committed log.

use std::collections::{BTreeMap, BTreeSet};

use detcd_core::ids::{Index, MemberId};
use detcd_core::membership::{ConfChangeKind, Member};
use detcd_core::raft::{Configuration, Entry, EntryKind};
use detcd_io::codec::entry::decode_conf_change;

/// Learners of one cluster.
const LEARNERS_MAX: usize = 1;

/// All clusters that there ever were.
#[derive(Debug, Default)]
pub struct Roster {
    members: BTreeMap<MemberId, Known>,
    removed: BTreeSet<MemberId>,
    /// Who belonged to the cluster from which entry on. Before the first one: nobody.
    clusters: Vec<(Index, Configuration)>,
}

#[derive(Clone, Debug)]
struct Known {
    urls: Vec<String>,
    is_learner: bool,
}

impl Roster {
    /// The next entry was committed.
    ///
    /// # Errors
    /// It is no change that a member could have logged.
    pub fn on_committed(&mut self, entry: &Entry) -> Result<(), String> {
        if entry.kind == EntryKind::Normal {
            return Ok(());
        }
        if entry.kind == EntryKind::ConfChangeV2 {
            return Err(format!("commits a joint change at {}", entry.index));
        }
        let change = decode_conf_change(entry.payload.clone()).map_err(|error| format!("{}: {error}", entry.index))?;
        if self.change(change.node, change.kind) {
            self.clusters.push((entry.index, self.now()));
        }
        Ok(())
    }

    /// Whether the cluster was this one at a place from `first` to `last`. If `same` is its number, it needs no comparison; says which number it has.
    ///
    /// # Errors
    /// It was not.
    pub(super) fn number(
        &self,
        configuration: &Configuration,
        same: Option<usize>,
        (first, last): (Index, Index),
    ) -> Result<Option<usize>, ()> {
        let begin = self.clusters.partition_point(|(index, _)| *index <= first);
        let is_it = |at: &usize| same == Some(*at) || self.clusters[*at].1 == *configuration;
        match begin.checked_sub(1) {
            Some(at_first) if is_it(&at_first) => return Ok(Some(at_first)),
            None if *configuration == Configuration::default() => return Ok(None),
            _ => {}
        }
        let later = (begin..self.clusters.len()).take_while(|at| self.clusters[*at].0 <= last);
        later.into_iter().find(is_it).map(Some).ok_or(())
    }

    /// Whether this member was removed.
    #[must_use]
    pub fn has_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id)
    }

    /// Carries out a change. Whether that changed anything for Raft.
    fn change(&mut self, node: MemberId, kind: ConfChangeKind) -> bool {
        if self.removed.contains(&node) {
            return false;
        }
        match kind {
            ConfChangeKind::AddVoter(member) => self.add(node, member, false),
            ConfChangeKind::AddLearner(member) => {
                self.members.values().filter(|known| known.is_learner).count() < LEARNERS_MAX
                    && self.add(node, member, true)
            }
            ConfChangeKind::Promote => {
                let known = self.members.get_mut(&node).filter(|known| known.is_learner);
                known.map(|known| known.is_learner = false).is_some()
            }
            ConfChangeKind::Remove => self.members.remove(&node).is_some() && self.removed.insert(node),
            ConfChangeKind::Update { peer_urls } => {
                let is_taken = self.members.iter().any(|(id, known)| *id != node && shares(&known.urls, &peer_urls));
                if let Some(known) = self.members.get_mut(&node).filter(|_| !is_taken) {
                    known.urls = peer_urls;
                }
                false
            }
        }
    }

    fn add(&mut self, node: MemberId, member: Member, is_learner: bool) -> bool {
        let is_taken = self.members.values().any(|known| shares(&known.urls, &member.peer_urls));
        let is_new = !is_taken && !self.members.contains_key(&node);
        if is_new {
            self.members.insert(node, Known { urls: member.peer_urls, is_learner });
        }
        is_new
    }

    fn now(&self) -> Configuration {
        let of = |is_learner: bool| {
            let members = self.members.iter().filter(|(_, known)| known.is_learner == is_learner);
            members.map(|(id, _)| *id).collect()
        };
        Configuration { voters: of(false), learners: of(true) }
    }
}

fn shares(left: &[String], right: &[String]) -> bool {
    left.iter().any(|url| right.contains(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, url: &str) -> Member {
        Member { id: MemberId(id), peer_urls: vec![url.to_owned()], ..Member::default() }
    }

    fn ids(ids: &[u64]) -> BTreeSet<MemberId> {
        ids.iter().map(|id| MemberId(*id)).collect()
    }

    #[test]
    fn changes_follow_etcds_rules() {
        use ConfChangeKind::{AddLearner, AddVoter, Promote, Remove};
        let mut roster = Roster::default();
        for (kind, node, changes) in [
            (AddVoter(member(1, "a")), 1, true),
            (AddVoter(member(2, "a")), 2, false),
            (AddVoter(member(2, "b")), 2, true),
            (AddLearner(member(3, "c")), 3, true),
            (AddLearner(member(4, "d")), 4, false),
            (Promote, 2, false),
            (Promote, 3, true),
            (Remove, 2, true),
            (Remove, 2, false),
            (AddVoter(member(2, "e")), 2, false),
        ] {
            assert_eq!(roster.change(MemberId(node), kind.clone()), changes, "{kind:?} of {node}");
        }
        assert_eq!(roster.now(), Configuration { voters: ids(&[1, 3]), learners: ids(&[]) });
    }

    #[test]
    fn a_cluster_is_known_while_it_lasted() {
        let of = |voters: &[u64]| Configuration { voters: ids(voters), learners: ids(&[]) };
        let clusters = vec![(Index(1), of(&[1])), (Index(5), of(&[1, 2])), (Index(9), of(&[2]))];
        let roster = Roster { clusters, ..Roster::default() };
        let knows = |voters: &[u64], first, last| roster.number(&of(voters), None, (Index(first), Index(last))).is_ok();
        assert!(knows(&[1], 4, 4) && !knows(&[1], 5, 9) && !knows(&[1, 2], 4, 4) && knows(&[1, 2], 4, 5));
        assert!(knows(&[], 0, 0) && !knows(&[], 1, 1) && knows(&[2], 5, 9) && !knows(&[2], 5, 8));
    }
}
