//! What a member tells its cluster after a start: its name and client URLs, and, once, the cluster's version.
//!
//! Both go through the log like any request, in etcd's order. Clients are served only after the attributes are applied.

use std::time::Duration;

use detcd_core::membership::Version;
use detcd_io::codec::entry::Field;
use detcd_io::store::backend::Backend;
use detcd_proto::membershippb;

use crate::downgrade;
use crate::member::Member;

/// The version that a cluster of such members agrees on.
pub const CLUSTER_VERSION: Version = Version::new(3, 7, 0);

/// What a cluster whose members cannot be asked is taken for, as by etcd.
pub const VERSION_LEAST: Version = Version::new(3, 0, 0);

/// The pause between two looks at the members' versions, as in etcd.
const VERSION_PAUSE: Duration = Duration::from_secs(4);

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

/// Keeps the cluster's version at what its oldest member speaks, while this member leads: at once where there is nobody to ask, otherwise every few seconds, as etcd does.
/// Ends with the member.
pub async fn decide_versions<B: Backend>(member: &Member<B>) {
    let asker = member.asker();
    while !asker.is_closed() {
        if asker.gauges().leading().is_some()
            && let Some(version) = version_to_set(member).await
        {
            let set = membershippb::ClusterVersionSetRequest { ver: version.to_string() };
            if let Err(status) = member.propose(Field::ClusterVersionSet, &set).await {
                tracing::warn!(%status, "the cluster's version was not set; trying again");
            }
        }
        let patience = if member.store().membership().cluster_version().is_none() { AGAIN } else { VERSION_PAUSE };
        tokio::select! {
            biased;
            () = tokio::time::sleep(patience) => {}
            () = asker.stopped() => return,
        }
    }
}

/// The version to set, if another one is due, after everybody was asked.
async fn version_to_set<B: Backend>(member: &Member<B>) -> Option<Version> {
    let membership = member.store().membership();
    let mut oldest = Some(CLUSTER_VERSION);
    for other in membership.iter().filter(|other| other.id != member.identity().member) {
        let told = member.forward().versions(other.peer_urls.clone()).await.ok();
        let told = told.map(|told| Version::new(told.server.major, told.server.minor, 0));
        oldest = oldest.zip(told).map(|(oldest, told)| oldest.min(told));
    }
    downgrade::version_to_set(membership.cluster_version(), oldest, membership.downgrade())
}

async fn until_applied<B: Backend>(member: &Member<B>, field: Field, message: &impl prost::Message) {
    while let Err(status) = member.propose(field, message).await {
        tracing::warn!(%status, "publishing failed; trying again");
        tokio::time::sleep(AGAIN).await;
    }
}
