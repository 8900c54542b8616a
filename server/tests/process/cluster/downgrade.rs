//! A downgrade that is begun by one member, seen by all, outlives restarts, and is given up.

use std::time::Instant;

use detcd_proto::etcdserverpb as pb;
use pb::downgrade_request::DowngradeAction;

use super::{Cluster, PATIENCE};

async fn ask(cluster: &Cluster, by: usize, action: DowngradeAction, version: &str) -> Result<String, String> {
    let request = pb::DowngradeRequest { action: action.into(), version: version.to_owned() };
    let answered = cluster.nodes[by].maintenance().downgrade(request).await;
    answered.map(|answer| answer.into_inner().version).map_err(|status| status.message().to_owned())
}

/// Waits until everybody says the same: the cluster's and the store's version, and whether a downgrade is under way.
async fn all_say(cluster: &Cluster, version: &str, target: &str) {
    let began = Instant::now();
    for node in &cluster.nodes {
        loop {
            let told = node.home.get(node.home.client_port, "/version");
            let status = node.status().await.unwrap();
            let info = status.downgrade_info.unwrap();
            let enabled = node.home.get(node.home.peer_port, "/downgrade/enabled");
            if told.contains(&format!("\"etcdcluster\":\"{version}\",\"storage\":\"{version}\""))
                && status.storage_version == version
                && (info.enabled, info.target_version.as_str()) == (!target.is_empty(), target)
                && enabled.ends_with(if target.is_empty() { "false" } else { "true" })
            {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{told}\n{info:?} {enabled}\n{}", cluster.logs());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_downgrade_is_seen_by_all_outlives_restarts_and_is_given_up() {
    let mut cluster = Cluster::of(3).await;
    all_say(&cluster, "3.7.0", "").await;
    let follower = cluster.follower().await;
    assert_eq!(ask(&cluster, follower, DowngradeAction::Validate, "3.6").await.as_deref(), Ok("3.7"));
    let wrong = "etcdserver: invalid downgrade target version";
    assert_eq!(ask(&cluster, follower, DowngradeAction::Enable, "3.5").await.unwrap_err(), wrong);
    assert_eq!(ask(&cluster, follower, DowngradeAction::Enable, "3.6.2").await.as_deref(), Ok("3.7"));
    all_say(&cluster, "3.6.0", "3.6.0").await;
    let marked = "Cluster version downgrade detected, forcing snapshot";
    let began = Instant::now();
    while !cluster.nodes.iter().all(|node| node.home.log().contains(marked)) {
        assert!(began.elapsed() < PATIENCE, "{}", cluster.logs());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for node in &mut cluster.nodes {
        node.kill();
    }
    for node in &mut cluster.nodes {
        node.spawn();
    }
    for node in &mut cluster.nodes {
        node.serves().await;
    }
    all_say(&cluster, "3.6.0", "3.6.0").await;
    let again = "etcdserver: cluster has a downgrade job in progress";
    let from_three_six = "etcdserver: invalid downgrade target version";
    assert_eq!(ask(&cluster, 0, DowngradeAction::Enable, "3.5").await.unwrap_err(), again);
    assert_eq!(ask(&cluster, 0, DowngradeAction::Enable, "3.6").await.unwrap_err(), from_three_six);
    cluster.nodes[1].put("still", "written").await;
    assert_eq!(ask(&cluster, 1, DowngradeAction::Cancel, "").await.as_deref(), Ok("3.6"));
    all_say(&cluster, "3.7.0", "").await;
    cluster.agree().await;
    let metrics = cluster.nodes[0].home.get(cluster.nodes[0].home.client_port, "/metrics");
    for line in [
        "etcd_cluster_version{cluster_version=\"3.7\"} 1",
        "etcd_network_active_peers{Local=",
        "etcd_network_peer_sent_bytes_total{To=",
        "etcd_network_peer_received_bytes_total{From=\"0\"}",
        "etcd_server_is_learner 0",
        "etcd_server_learner_promote_successes 0",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}
