//! `--force-new-cluster`: the one member that is left of a lost cluster goes on alone, under its own id and its cluster's.
//!
//! Invariant: nothing that this member holds is given up. Entries behind its commit index stay, since a write that was acknowledged may be among them – a member
//! learns late what is committed – and the others, who might know better, are lost. Behind them come entries that leave it as the only voter; all of them count as
//! committed, and are on the disk before the engine starts. A start that is cut short before that has changed nothing; a second one finds nobody left to remove.

use detcd_core::apply::{self, Step};
use detcd_core::ids::{Index, MemberId, Term, Ticket};
use detcd_core::membership::{ConfChangeKind, Membership};
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
    let known = recovered.hard_state.commit.max(store.applied().index);
    let members = keep(&mut recovered.entries, own, known, store)?;
    if !members.contains(own) {
        let cause = format!("member {own} is none of the cluster that its log tells of, so it cannot go on alone");
        return Err(Fault::Unfit { path: wal.dir().to_owned(), cause });
    }
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

/// The members after all entries, but for one: an entry that would remove this very member counts only if it is known to be committed; else the log ends before it.
fn keep<B: Backend>(
    entries: &mut Vec<Entry>,
    own: MemberId,
    known: Index,
    store: &Store<B>,
) -> Result<Configuration, Fault> {
    let mut membership = Membership::clone(&store.membership());
    let applied = store.applied().index;
    for (place, entry) in entries.iter().enumerate() {
        if entry.kind != EntryKind::ConfChange || entry.index <= applied {
            continue;
        }
        let change = decode_conf_change(entry.payload.clone()).map_err(Fault::entry(entry.index, entry.term))?;
        if matches!(change.kind, ConfChangeKind::Remove) && change.node == own && known < entry.index {
            entries.truncate(place);
            break;
        }
        // As apply will judge it: a change that it refuses changes nobody.
        match apply::conf_change(&membership, change) {
            Step::Done(outcome) => outcome.writes.iter().for_each(|write| membership.on_write(write)),
            Step::Unbuilt(what) => return Err(Fault::Unbuilt(what)),
            Step::More => unreachable!("a membership change is one step"),
        }
    }
    Ok(Configuration::of(&membership))
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
}
