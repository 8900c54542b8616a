//! A member whose directory is lost: it cannot found its cluster again, and comes back as a new one, by the log or by a snapshot.

use super::Cluster;
use super::load::Load;
use detcd_proto::etcdserverpb as pb;

/// More than a leader keeps of its log in memory.
const ENTRIES: usize = 10_500;
const WRITERS: usize = 128;

async fn many_writes(cluster: &Cluster) {
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let mut client = cluster.nodes[writer % cluster.nodes.len()].kv();
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
            many_writes(&cluster).await;
        }
        load.progress(30).await;
        let (leader, lost) = (cluster.leader().await, cluster.follower().await);
        let id = cluster.nodes[lost].id().await;
        cluster.nodes[lost].kill();
        std::fs::remove_dir_all(cluster.nodes[lost].home.data_dir()).unwrap();
        if !by_snapshot {
            let status = cluster.nodes[lost].home.command().status().unwrap();
            let log = cluster.nodes[lost].home.log();
            assert_eq!(status.code(), Some(1), "{log}");
            assert!(log.contains(&format!("member {id:x} has already been bootstrapped")), "{log}");
            assert!(!cluster.nodes[lost].home.data_dir().exists(), "a refused start made a directory");
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
