//! `--force-new-cluster`: the one member that is left of a lost cluster goes on alone, under its own id and its cluster's.
//!
//! Invariant: nothing that this member holds is given up. Entries behind its commit index stay, since a write that was acknowledged may be among them – a member
//! learns late what is committed – and the others, who might know better, are lost. Behind them come entries that leave it as the only voter; all of them count as
//! committed, and are on the disk before the engine starts. A start that is cut short before that has changed nothing; a second one finds nobody left to remove.

use detcd_core::apply::{self, Step};
use detcd_core::ids::{Index, MemberId, Term, Ticket};
use detcd_core::membership::{ConfChange, ConfChangeKind, Membership};
use detcd_core::raft::{Configuration, Entry, EntryKind, HardState, Mark, Sync, Write};

use crate::codec::conf_change::{self, Proposed};
use crate::codec::entry::decode_conf_change;
use crate::disk::Disk;
use crate::fault::Fault;
use crate::store::Store;
use crate::store::backend::Backend;
use crate::wal::{Recovered, Wal};

/// Makes a log that was read from `base` on that of a cluster of one.
pub(super) async fn force<D: Disk, B: Backend>(
    wal: &mut Wal<D>,
    recovered: &mut Recovered,
    base: Mark,
    store: &Store<B>,
) -> Result<(), Fault> {
    let own = recovered.metadata.member;
    let applied = store.applied().index;
    let known = recovered.hard_state.commit.max(applied);
    let (kept, membership) = keep(&recovered.entries, (own, known), (applied, Membership::clone(&store.membership())))?;
    if membership.get(own).is_none() {
        return Err(Fault::Unfit { path: wal.dir().to_owned(), cause: not_alone(own) });
    }
    recovered.entries.truncate(kept);
    let members = Configuration::of(&membership);
    let last = recovered.entries.last().map_or(base, Entry::mark);
    let term = recovered.hard_state.term.max(last.term);
    let changes = changes(&members, own, last.index, term);
    let commit = changes.last().map_or(last.index, |entry| entry.index);
    let vote = recovered.hard_state.vote.filter(|_| term == recovered.hard_state.term);
    let hard_state = HardState { term, vote, commit };
    tracing::info!(
        member = %own, removed = members.members().count() - 1, known = known.0, commit = commit.0, "forcing restart member"
    );
    wal.append(&Write { snapshot: None, entries: changes.clone(), hard_state: Some(hard_state), sync: Sync::Required });
    wal.sync().await?;
    recovered.entries.extend(changes);
    recovered.hard_state = hard_state;
    Ok(())
}

/// Why a member that is none of its own cluster is not forced.
pub(super) fn not_alone(own: MemberId) -> String {
    format!("member {own} is none of the cluster that its log tells of, so it cannot go on alone")
}

/// How many of these entries stay, and the members behind them and what is applied. All stay, unless one would remove this very member:
/// it counts only if it is known to be committed; else the log ends before it.
pub(super) fn keep(
    entries: &[Entry],
    (own, known): (MemberId, Index),
    (applied, mut membership): (Index, Membership),
) -> Result<(usize, Membership), Fault> {
    for (place, entry) in entries.iter().enumerate() {
        if entry.kind != EntryKind::ConfChange || entry.index <= applied {
            continue;
        }
        let change = decode_conf_change(entry.payload.clone()).map_err(Fault::entry(entry.index, entry.term))?;
        if matches!(change.kind, ConfChangeKind::Remove) && change.node == own && known < entry.index {
            return Ok((place, membership));
        }
        follow(&mut membership, change)?;
    }
    Ok((entries.len(), membership))
}

/// Takes a change in as apply will: one that it refuses changes nobody.
pub(super) fn follow(membership: &mut Membership, change: ConfChange) -> Result<(), Fault> {
    match apply::conf_change(membership, change) {
        Step::Done(outcome) => outcome.writes.iter().for_each(|write| membership.on_write(write)),
        Step::Unbuilt(what) => return Err(Fault::Unbuilt(what)),
        Step::More => unreachable!("a membership change is one step"),
    }
    Ok(())
}

/// What makes `own` the only voter: its own promotion, where it was a learner, and then the removal of everybody else.
fn changes(members: &Configuration, own: MemberId, after: Index, term: Term) -> Vec<Entry> {
    let promotion = members.learners.contains(&own).then_some((own, Proposed::Promote));
    let mut others: Vec<MemberId> = members.members().filter(|&member| member != own).collect();
    others.sort_unstable();
    let removals = others.into_iter().map(|other| (other, Proposed::Remove));
    let mut index = after;
    let changes = promotion.into_iter().chain(removals).map(|(node, change)| {
        index = index.next();
        let payload = conf_change::encode(Ticket(0), node, &change);
        Entry { term, index, kind: EntryKind::ConfChange, payload }
    });
    changes.collect()
}

#[cfg(test)]
mod tests {
    use detcd_core::membership::Member;
    use detcd_core::raft::Change;

    use super::*;

    fn told(members: &Configuration, own: u64) -> Vec<String> {
        let entries = changes(members, MemberId(own), Index(7), Term(3));
        let tell = |entry: &Entry| {
            let change = decode_conf_change(entry.payload.clone()).expect("our own bytes");
            format!("{} {} {:?}", entry.mark(), change.node, change.kind)
        };
        entries.iter().map(tell).collect()
    }

    #[test]
    fn the_one_that_is_left_votes_before_the_others_go() {
        let mut members = Configuration::of_voters([MemberId(3), MemberId(1), MemberId(2)]);
        assert_eq!(told(&members, 2), ["8@3 1 Remove", "9@3 3 Remove"]);
        members.take(Change::AddLearner(MemberId(2)));
        assert_eq!(told(&members, 2), ["8@3 2 Promote", "9@3 1 Remove", "10@3 3 Remove"]);
        assert_eq!(told(&Configuration::of_voters([MemberId(2)]), 2), [""; 0]);
    }

    fn member(id: u64, port: u16) -> Member {
        Member { id: MemberId(id), peer_urls: vec![format!("http://h:{port}")], ..Member::default() }
    }

    /// What `keep` makes of these changes behind entry 10, which is applied, of a cluster of members 1 and 2: how many stay, and who is left.
    fn kept(changes: &[(u64, Proposed<'_>)], known: u64) -> (usize, Vec<u64>) {
        let membership = Membership::restore([member(1, 1), member(2, 2)], [MemberId(9)], None).expect("sound");
        let entry = |(place, (node, change)): (usize, &(u64, Proposed<'_>))| Entry {
            term: Term(1),
            index: Index(10 + place as u64),
            kind: EntryKind::ConfChange,
            payload: conf_change::encode(Ticket(1), MemberId(*node), change),
        };
        let entries: Vec<Entry> = changes.iter().enumerate().map(entry).collect();
        let (kept, after) =
            keep(&entries, (MemberId(1), Index(known)), (Index(10), membership)).expect("changes that are built");
        (kept, after.iter().map(|member| member.id.0).collect())
    }

    #[test]
    fn changes_count_as_apply_will_judge_them() {
        let (new, taken, removed) = (member(3, 3), member(3, 2), member(9, 3));
        let applied = (2, Proposed::Remove);
        assert_eq!(kept(&[applied, (3, Proposed::AddVoter(&new))], 0), (2, vec![1, 2, 3]), "what is applied is there");
        assert_eq!(kept(&[applied, (3, Proposed::AddVoter(&taken))], 0), (2, vec![1, 2]), "its URL is another's");
        assert_eq!(kept(&[applied, (9, Proposed::AddVoter(&removed))], 0), (2, vec![1, 2]), "it was removed for good");
        assert_eq!(kept(&[applied, (3, Proposed::Promote), (4, Proposed::Remove)], 0), (3, vec![1, 2]), "nobody's");
        assert_eq!(kept(&[applied, (2, Proposed::Remove)], 0), (2, vec![1]));
        let learners = [(3, 3), (4, 4)].map(|(id, port)| member(id, port));
        let learn = [applied, (3, Proposed::AddLearner(&learners[0])), (4, Proposed::AddLearner(&learners[1]))];
        assert_eq!(kept(&learn, 0), (3, vec![1, 2, 3]), "one too many");
    }

    #[test]
    fn its_own_removal_counts_if_it_is_committed() {
        let (new, leave) = (member(3, 3), (1, Proposed::Remove));
        let changes = [(2, Proposed::Remove), leave, (3, Proposed::AddVoter(&new))];
        assert_eq!(kept(&changes, 10), (1, vec![1, 2]), "the log ends before it");
        assert_eq!(kept(&changes, 11), (3, vec![2, 3]));
    }
}
