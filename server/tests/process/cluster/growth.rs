//! From one member to five, as voters and by way of learners, and back: under load.

use std::time::{Duration, Instant};

use detcd_proto::etcdserverpb as pb;
use tonic::Code;

use super::load::Load;
use super::{Cluster, PATIENCE};

async fn promote(cluster: &Cluster, by: usize, id: u64) {
    let began = Instant::now();
    while let Err(refused) = cluster.nodes[by].cluster().member_promote(pb::MemberPromoteRequest { id }).await {
        let behind = "etcdserver: can only promote a learner member which is in sync with leader";
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, behind));
        assert!(began.elapsed() < PATIENCE, "{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_to_five_under_load_and_a_removed_member_ends_for_good() {
    let mut cluster = Cluster::of(1).await;
    let load = Load::start(&cluster, 0);
    load.progress(20).await;
    for is_learner in [false, true, false, true] {
        let by = cluster.nodes.len() - 1;
        let id = cluster.add(by, is_learner).await;
        let new = cluster.nodes.len() - 1;
        if is_learner {
            promote(&cluster, by, id).await;
        }
        cluster.nodes[new].serves().await;
        load.follow(&cluster);
        load.progress(30).await;
    }
    let list = cluster.nodes[0].cluster().member_list(pb::MemberListRequest { linearizable: true }).await.unwrap();
    let members = list.into_inner().members;
    assert_eq!(members.len(), 5);
    assert!(members.iter().all(|member| !member.is_learner && member.client_ur_ls.len() == 1), "{members:?}");

    let leader = cluster.leader().await;
    let removed = cluster.follower().await;
    let id = cluster.nodes[removed].id().await;
    cluster.remove(leader, id).await;
    let status = cluster.nodes[removed].ended();
    let log = cluster.nodes[removed].home.log();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("the data-dir used by this member must be removed"), "{log}");
    // It may have heard of its removal from others, before the entry reached it: then it hears of it again.
    cluster.nodes[removed].spawn();
    let status = cluster.nodes[removed].ended();
    let log = cluster.nodes[removed].home.log();
    let refused = log.contains("the member has been permanently removed from the cluster");
    assert_eq!(status.code(), Some(i32::from(refused)), "{log}");
    assert_eq!(log.matches("ready to serve client requests").count(), 1, "{log}");
    load.progress(30).await;

    // The leader, too: another takes over and the load goes on.
    let id = cluster.nodes[leader].id().await;
    cluster.remove(leader, id).await;
    assert_eq!(cluster.nodes[leader].ended().code(), Some(0), "{}", cluster.nodes[leader].home.log());
    cluster.leader().await;
    load.progress(30).await;
    load.check(&cluster).await;
}
