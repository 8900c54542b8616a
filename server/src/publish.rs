//! What a member tells its cluster after a start: its name and client URLs, and, once, the cluster's version.
//!
//! Both go through the log like any request, in etcd's order. Clients are served only after the attributes are applied.

use std::time::Duration;

use detcd_core::membership::Version;
use detcd_io::store::backend::Backend;
use detcd_proto::{etcdserverpb as pb, membershippb};

use crate::member::Member;

/// The version that a cluster of such members agrees on.
pub const CLUSTER_VERSION: Version = Version::new(3, 7, 0);

/// The pause between two attempts.
const AGAIN: Duration = Duration::from_millis(100);

/// Publishes until it is applied.
pub async fn publish<B: Backend>(member: &Member<B>, client_urls: &[String]) {
    let attributes =
        membershippb::Attributes { name: member.identity().name.clone(), client_urls: client_urls.to_vec() };
    let set = membershippb::ClusterMemberAttrSetRequest {
        member_id: member.identity().member.0,
        member_attributes: Some(attributes),
    };
    let request = pb::InternalRaftRequest { cluster_member_attr_set: Some(set), ..Default::default() };
    until_applied(member, &request).await;
}

/// Sets the cluster's version if it is not decided. With one member there is nobody else to ask.
pub async fn decide_version<B: Backend>(member: &Member<B>) {
    if member.store().membership().cluster_version().is_some() {
        return;
    }
    let set = membershippb::ClusterVersionSetRequest { ver: CLUSTER_VERSION.to_string() };
    let request = pb::InternalRaftRequest { cluster_version_set: Some(set), ..Default::default() };
    until_applied(member, &request).await;
}

async fn until_applied<B: Backend>(member: &Member<B>, request: &pb::InternalRaftRequest) {
    while let Err(status) = member.propose(request.clone()).await {
        tracing::warn!(%status, "publishing failed; trying again");
        tokio::time::sleep(AGAIN).await;
    }
}
