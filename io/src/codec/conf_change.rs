//! Membership changes that this member proposes, in etcd's bytes.

use bytes::Bytes;
use detcd_core::ids::{MemberId, Ticket};
use detcd_core::membership::Member;
use detcd_proto::raftpb;
use prost::Message as _;

use super::member;

/// A change, as it is proposed.
#[derive(Clone, Copy, Debug)]
pub enum Proposed<'a> {
    /// This member joins, with a vote.
    AddVoter(&'a Member),
    /// This member joins, without a vote.
    AddLearner(&'a Member),
    /// A learner gets its vote.
    Promote,
    /// A member leaves for good.
    Remove,
    /// A member is reached elsewhere.
    Update(&'a Member),
}

/// The payload of the change of `node`, which `ticket` finds again.
#[must_use]
pub fn encode(ticket: Ticket, node: MemberId, change: &Proposed<'_>) -> Bytes {
    use raftpb::ConfChangeType::{
        ConfChangeAddLearnerNode, ConfChangeAddNode, ConfChangeRemoveNode, ConfChangeUpdateNode,
    };
    let (kind, context) = match change {
        Proposed::AddVoter(added) => (ConfChangeAddNode, Some(member::encode(added))),
        Proposed::AddLearner(added) => (ConfChangeAddLearnerNode, Some(member::encode(added))),
        Proposed::Promote => (ConfChangeAddNode, Some(member::encode_promotion(node))),
        Proposed::Remove => (ConfChangeRemoveNode, None),
        Proposed::Update(updated) => (ConfChangeUpdateNode, Some(member::encode(updated))),
    };
    let change = raftpb::ConfChange {
        id: Some(ticket.0),
        r#type: Some(kind.into()),
        node_id: Some(node.0),
        context: context.map(Into::into),
    };
    change.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use detcd_core::membership::ConfChangeKind;

    use super::super::entry::decode_conf_change;
    use super::*;

    #[test]
    fn what_is_proposed_is_what_is_applied() {
        let added = Member { id: MemberId(7), peer_urls: vec!["http://a:1".to_owned()], ..Member::default() };
        let learner = Member { is_learner: true, ..added.clone() };
        for (proposed, kind) in [
            (Proposed::AddVoter(&added), ConfChangeKind::AddVoter(added.clone())),
            (Proposed::AddLearner(&learner), ConfChangeKind::AddLearner(learner.clone())),
            (Proposed::Promote, ConfChangeKind::Promote),
            (Proposed::Remove, ConfChangeKind::Remove),
            (Proposed::Update(&added), ConfChangeKind::Update { peer_urls: added.peer_urls.clone() }),
        ] {
            let change = decode_conf_change(encode(Ticket(9), MemberId(7), &proposed)).expect("our own bytes");
            assert_eq!((change.id, change.node, change.kind), (Ticket(9), MemberId(7), kind));
        }
    }
}
