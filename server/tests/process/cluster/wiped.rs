//! A member whose directory is lost: it cannot found its cluster again, and comes back as a new one, by the log or by a snapshot.

use std::time::{Duration, Instant};

use super::load::Load;
use super::{Cluster, Node, PATIENCE};
use detcd_proto::etcdserverpb as pb;
use detcd_proto::etcdserverpb::kv_client::KvClient;
use tonic::transport::Channel;

/// More than a leader keeps of its log in memory.
const ENTRIES: usize = 10_500;
const WRITERS: usize = 128;

async fn many_writes(clients: &[KvClient<Channel>]) {
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let mut client = clients[writer % clients.len()].clone();
            tokio::spawn(async move {
                for number in 0..ENTRIES / WRITERS + 1 {
                    let (key, value) = (format!("many-{writer}").into(), format!("{number}").into());
                    client.put(pb::PutRequest { key, value, ..Default::default() }).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_comes_back_by_log_and_by_snapshot_but_never_founds_again() {
    let mut cluster = Cluster::of(3).await;
    let load = Load::start(&cluster, 0);
    let installed = "starting again on the store that a leader sent";
    for by_snapshot in [false, true] {
        if by_snapshot {
            many_writes(&cluster.nodes.iter().map(Node::kv).collect::<Vec<_>>()).await;
        }
        load.progress(30).await;
        let (leader, lost) = (cluster.leader().await, cluster.follower().await);
        let id = cluster.nodes[lost].id().await;
        cluster.nodes[lost].kill();
        std::fs::remove_dir_all(cluster.nodes[lost].home.data_dir()).unwrap();
        if !by_snapshot {
            for state in ["new", "existing"] {
                let (home, mut again) = (&cluster.nodes[lost].home, cluster.nodes[lost].home.command());
                let status = again.arg(format!("--initial-cluster-state={state}")).status().unwrap();
                let log = home.log();
                assert_eq!(status.code(), Some(1), "{log}");
                assert!(log.contains(&format!("member {id:x} has already been bootstrapped")), "{log}");
                assert!(!home.data_dir().exists(), "a refused start made a directory");
            }
        }
        cluster.remove(leader, id).await;
        let new = cluster.join(leader, lost, false).await;
        assert_ne!(new, id);
        cluster.nodes[lost].serves().await;
        assert_eq!(cluster.nodes[lost].id().await, new);
        assert_eq!(cluster.nodes[lost].home.log().contains(installed), by_snapshot, "{}", cluster.logs());
        load.progress(30).await;
    }
    load.check(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_on_an_older_copy_of_its_directory_ends() {
    let mut cluster = Cluster::of(3).await;
    let (leader, old) = (cluster.leader().await, cluster.follower().await);
    cluster.nodes[leader].put("before", "1").await;
    cluster.nodes[old].kill();
    let (data_dir, copy) =
        (cluster.nodes[old].home.data_dir(), cluster.nodes[old].home.data_dir().with_extension("copy"));
    let copied = std::process::Command::new("cp").arg("-r").args([&data_dir, &copy]).status().unwrap();
    assert!(copied.success());
    cluster.nodes[old].start().await;
    // The others count on these.
    for number in 0..100 {
        cluster.nodes[leader].put(&format!("acknowledged-{number}"), "1").await;
    }
    cluster.agree().await;
    cluster.nodes[old].kill();
    std::fs::remove_dir_all(&data_dir).unwrap();
    std::fs::rename(&copy, &data_dir).unwrap();
    cluster.nodes[old].spawn();
    let status = cluster.nodes[old].ended();
    let log = cluster.nodes[old].home.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("its log was corrupted, truncated or lost"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_far_behind_comes_back_under_a_flood_of_writes() {
    // So few that they are overtaken while a store is made and sent.
    let mut cluster = Cluster::of_with(3, &["--snapshot-catchup-entries=20"]).await;
    let (leader, lost) = (cluster.leader().await, cluster.follower().await);
    cluster.nodes[lost].kill();
    let present: Vec<_> = (0..3).filter(|&node| node != lost).map(|node| cluster.nodes[node].kv()).collect();
    many_writes(&present).await;
    let one = |writer: usize| {
        let mut client = present[writer % present.len()].clone();
        tokio::spawn(async move {
            let put = pb::PutRequest { key: format!("flood-{writer}").into(), ..Default::default() };
            while client.put(put.clone()).await.is_ok() {}
        })
    };
    let flood: Vec<_> = (0..WRITERS).map(one).collect();
    cluster.nodes[lost].start().await;
    let goal = cluster.nodes[leader].status().await.unwrap().raft_applied_index;
    let began = Instant::now();
    while cluster.nodes[lost].status().await.is_none_or(|status| status.raft_applied_index < goal) {
        assert!(began.elapsed() < PATIENCE, "it never comes back: {}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for writer in flood {
        assert!(!writer.is_finished(), "the flood went on");
        writer.abort();
    }
    cluster.agree().await;
}
