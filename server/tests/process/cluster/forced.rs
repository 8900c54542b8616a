//! A cluster that is lost but for one member, which goes on alone with `--force-new-cluster` and grows again.

use detcd_proto::etcdserverpb as pb;

use super::Cluster;
use super::load::Load;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_member_goes_on_alone_with_all_that_was_acknowledged_and_grows_again() {
    let mut cluster = Cluster::of(3).await;
    let load = Load::start(&cluster, 0);
    load.progress(30).await;
    let leader = cluster.leader().await;
    let (left, first) = ((leader + 1) % 3, (leader + 2) % 3);
    let before = cluster.nodes[left].status().await.unwrap().header.unwrap();
    cluster.nodes[first].kill();
    // From now on nothing is acknowledged that is not in the log of the one that will be left.
    load.progress(100).await;
    for node in [leader, left] {
        cluster.nodes[node].signal(nix::sys::signal::Signal::SIGKILL);
    }
    for node in [leader, left] {
        cluster.nodes[node].ended();
    }
    cluster.nodes[left].home.force();
    cluster.nodes[left].start().await;
    let after = cluster.nodes[left].status().await.unwrap().header.unwrap();
    assert_eq!((after.member_id, after.cluster_id), (before.member_id, before.cluster_id));
    assert_eq!(members(&cluster, left).await.len(), 1);
    load.progress(30).await;

    // What comes back of the lost ones is told that it is none of the cluster any more.
    cluster.nodes[first].spawn();
    assert_eq!(cluster.nodes[first].ended().code(), Some(0), "{}", cluster.nodes[first].home.log());
    for lost in [leader, first] {
        std::fs::remove_dir_all(cluster.nodes[lost].home.data_dir()).unwrap();
        cluster.join(left, lost, false).await;
        cluster.nodes[lost].serves().await;
    }
    load.progress(30).await;
    // The flag is gone, so all three stay.
    cluster.nodes[left].kill();
    cluster.nodes[left].home.place("", "existing");
    cluster.nodes[left].start().await;
    assert_eq!(members(&cluster, left).await.len(), 3);
    println!("{}", load.check(&cluster).await);
}

async fn members(cluster: &Cluster, by: usize) -> Vec<pb::Member> {
    let request = pb::MemberListRequest { linearizable: true };
    cluster.nodes[by].cluster().member_list(request).await.unwrap().into_inner().members
}
