//! What a member tells its cluster after a start: its name and client URLs, and, once, the cluster's version.
//!
//! Both go through the log like any request, in etcd's order. Clients are served only after the attributes are applied.

use std::time::Duration;

use detcd_core::membership::Version;
use detcd_io::codec::entry::Field;
use detcd_io::store::backend::Backend;
use detcd_proto::membershippb;

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
    until_applied(member, Field::ClusterMemberAttrSet, &set).await;
}

/// Sets the cluster's version if it is not decided, or if an older etcd decided it. With one member there is nobody else to ask.
pub async fn decide_version<B: Backend>(member: &Member<B>) {
    if member.store().membership().cluster_version().is_some_and(|decided| CLUSTER_VERSION <= decided) {
        return;
    }
    let set = membershippb::ClusterVersionSetRequest { ver: CLUSTER_VERSION.to_string() };
    until_applied(member, Field::ClusterVersionSet, &set).await;
}

async fn until_applied<B: Backend>(member: &Member<B>, field: Field, message: &impl prost::Message) {
    while let Err(status) = member.propose(field, message).await {
        tracing::warn!(%status, "publishing failed; trying again");
        tokio::time::sleep(AGAIN).await;
    }
}
