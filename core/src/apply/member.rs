//! Membership: who joins, and what members tell of themselves.
//!
//! A refused change is an answer; the log entry is then spent without effect, and Raft must be told that nothing changed.
//! Invariant: what a member row says follows from the log alone.

use alloc::vec;
use alloc::vec::Vec;

use super::{Outcome, Step, Write};
use crate::command::ClusterMemberAttrSetRequest;
use crate::membership::{ConfChange, ConfChangeKind, Member, Membership};
use crate::reply::{Rejected, Reply};

/// Carries out a membership change.
pub(super) fn conf_change(membership: &Membership, change: ConfChange) -> Step {
    let ConfChange { node, kind, .. } = change;
    if membership.is_removed(node) {
        return Step::refuse(Rejected::MemberRemoved);
    }
    match kind {
        ConfChangeKind::AddVoter(member) if member.id == node => add(membership, member),
        ConfChangeKind::AddVoter(_) => Step::Unbuilt("a membership change whose node and member differ"),
        ConfChangeKind::AddLearner(_) => Step::Unbuilt("adding a learner"),
        ConfChangeKind::Promote => Step::Unbuilt("promoting a learner"),
        ConfChangeKind::Remove => Step::Unbuilt("removing a member"),
        ConfChangeKind::Update { .. } => Step::Unbuilt("updating a member"),
    }
}

fn add(membership: &Membership, member: Member) -> Step {
    if membership.get(member.id).is_some() {
        return Step::refuse(Rejected::MemberExists);
    }
    if member.peer_urls.iter().any(|url| membership.has_peer_url(url)) {
        return Step::refuse(Rejected::PeerUrlExists);
    }
    let mut members: Vec<Member> = membership.iter().cloned().collect();
    let place = members.partition_point(|other| other.id < member.id);
    members.insert(place, member.clone());
    Step::Done(Outcome { reply: Ok(Reply::Members(members)), writes: vec![Write::Member(member)], events: Vec::new() })
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
