//! Membership: who joins, and what members tell of themselves.
//!
//! A refused change is an answer; the log entry is then spent without effect, and Raft must be told that nothing changed.
//! Invariant: what a member row says follows from the log alone.

use alloc::vec;
use alloc::vec::Vec;

use super::{Outcome, Step, Write};
use crate::command::ClusterMemberAttrSetRequest;
use crate::ids::MemberId;
use crate::membership::{ConfChange, ConfChangeKind, Member, Membership};
use crate::reply::{Rejected, Reply};

/// Carries out a membership change, with the checks that etcd makes once more when it is applied. It is never worked off in
/// slices, so whoever has to know the members behind a log can ask without a view.
#[must_use]
pub fn conf_change(membership: &Membership, change: ConfChange) -> Step {
    let ConfChange { node, kind, .. } = change;
    if membership.is_removed(node) {
        return Step::refuse(Rejected::MemberRemoved);
    }
    match kind {
        ConfChangeKind::AddVoter(member) | ConfChangeKind::AddLearner(member) if member.id != node => {
            Step::Unbuilt("a membership change whose node and member differ")
        }
        ConfChangeKind::AddVoter(member) => add(membership, Member { is_learner: false, ..member }),
        ConfChangeKind::AddLearner(member) => {
            // An id or a URL that is taken is the better reason.
            match add(membership, Member { is_learner: true, ..member }) {
                Step::Done(outcome) if outcome.reply.is_ok() && membership.learners_max() <= membership.learners() => {
                    Step::refuse(Rejected::TooManyLearners)
                }
                step => step,
            }
        }
        ConfChangeKind::Promote => change_known(membership, node, |member| {
            if !member.is_learner {
                return Err(Rejected::MemberNotLearner);
            }
            Ok(Member { is_learner: false, ..member })
        }),
        ConfChangeKind::Remove => match membership.get(node) {
            Some(_) => wrote(membership, Write::MemberRemoved(node)),
            None => Step::refuse(Rejected::MemberNotFound),
        },
        ConfChangeKind::Update { peer_urls } => change_known(membership, node, |member| {
            let others = membership.iter().filter(|other| other.id != node);
            if others.flat_map(|other| &other.peer_urls).any(|known| peer_urls.contains(known)) {
                return Err(Rejected::PeerUrlExists);
            }
            Ok(Member { peer_urls, ..member })
        }),
    }
}

fn add(membership: &Membership, member: Member) -> Step {
    if membership.get(member.id).is_some() {
        return Step::refuse(Rejected::MemberExists);
    }
    if member.peer_urls.iter().any(|url| membership.has_peer_url(url)) {
        return Step::refuse(Rejected::PeerUrlExists);
    }
    wrote(membership, Write::Member(member))
}

fn change_known(
    membership: &Membership,
    id: MemberId,
    change: impl FnOnce(Member) -> Result<Member, Rejected>,
) -> Step {
    let Some(member) = membership.get(id) else { return Step::refuse(Rejected::MemberNotFound) };
    match change(member.clone()) {
        Ok(member) => wrote(membership, Write::Member(member)),
        Err(why) => Step::refuse(why),
    }
}

/// The change, answered by the members after it.
fn wrote(membership: &Membership, write: Write) -> Step {
    let mut after = membership.clone();
    after.on_write(&write);
    let members: Vec<Member> = after.iter().cloned().collect();
    Step::Done(Outcome { reply: Ok(Reply::Members(members)), writes: vec![write], events: Vec::new() })
}

/// Notes a member's name and client URLs. A member that has left is passed over: it may have published just before.
pub(super) fn attributes(membership: &Membership, request: ClusterMemberAttrSetRequest) -> Step {
    let ClusterMemberAttrSetRequest { member: id, name, client_urls } = request;
    match membership.get(id) {
        Some(member) => Step::wrote(Reply::Empty, Write::Member(Member { name, client_urls, ..member.clone() })),
        None if membership.is_removed(id) => Step::answer(Reply::Empty),
        None => Step::Unbuilt("attributes of an unknown member"),
    }
}
