//! Leadership that moves on request and on SIGTERM, and a member that has lost its quorum.

use std::time::{Duration, Instant};

use detcd_proto::etcdserverpb as pb;
use nix::sys::signal::Signal;
use tonic::Code;

use super::Cluster;
use super::load::Load;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_request_and_before_a_leader_ends() {
    let mut cluster = Cluster::of(3).await;
    let load = Load::start(&cluster, 0);
    for _ in 0..3 {
        let (leader, target) = (cluster.leader().await, cluster.follower().await);
        let request = pb::MoveLeaderRequest { target_id: cluster.nodes[target].id().await };
        let refused = cluster.nodes[target].maintenance().move_leader(request).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "etcdserver: not leader"));
        cluster.nodes[leader].maintenance().move_leader(request).await.unwrap();
        assert_eq!(cluster.leader_but(Some(leader)).await, target);
        load.progress(20).await;
    }
    let unknown = pb::MoveLeaderRequest { target_id: 1 };
    let refused = cluster.nodes[cluster.leader().await].maintenance().move_leader(unknown).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "etcdserver: bad leader transferee"));

    let leader = cluster.leader().await;
    let told = Instant::now();
    cluster.nodes[leader].signal(Signal::SIGTERM);
    let next = cluster.leader_but(Some(leader)).await;
    // Nobody had to notice that the leader is silent: that takes an election timeout (1 s) at least.
    assert!(told.elapsed() < Duration::from_millis(900), "a leader after {:?}", told.elapsed());
    cluster.nodes[next].put("after", "the leader").await;
    let status = cluster.nodes[leader].ended();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SIGTERM as i32));
    cluster.nodes[leader].start().await;
    load.check(&cluster).await;
}

/// As when all are told to end at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_leads_no_longer_waits_for_no_heir() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    for other in (0..3).filter(|other| *other != leader) {
        cluster.nodes[other].pause();
    }
    cluster.nodes[leader].signal(Signal::SIGTERM);
    cluster.nodes[leader].ended();
    let log = cluster.nodes[leader].home.log();
    assert!(log.contains("leadership was not handed over") && !log.contains("not handed over in time"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_writes_time_out_and_serializable_reads_go_on() {
    let cluster = Cluster::of(3).await;
    let alone = cluster.follower().await;
    let node = &cluster.nodes[alone];
    node.put("k", "before").await;
    let others = || (0..3).filter(|other| *other != alone);
    for other in others() {
        cluster.nodes[other].pause();
    }
    let range = |serializable| pb::RangeRequest { key: "k".into(), serializable, ..Default::default() };
    // A write that is late may be carried out all the same, even after the cut: it is of a key that nobody looks at.
    let put = |value: &'static str| pb::PutRequest { key: "late".into(), value: value.into(), ..Default::default() };
    let (mut forwarding, mut waiting, mut reading) = (node.kv(), node.kv(), node.kv());
    let asked = Instant::now();
    let leaderless = async {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        waiting.put(put("never proposed")).await
    };
    let (forwarded, unproposed, read) =
        tokio::join!(forwarding.put(put("to a leader that is gone")), leaderless, reading.range(range(false)));
    // Both waited for an election timeout of two seconds and five.
    assert!(Duration::from_millis(9_400) < asked.elapsed(), "they waited {:?}", asked.elapsed());
    let text = |refused: tonic::Status| (refused.code(), refused.message().to_owned());
    let late = (Code::Unavailable, "etcdserver: request timed out".to_owned());
    assert_eq!(text(forwarded.unwrap_err()), late);
    assert_eq!(text(unproposed.unwrap_err()), (Code::DeadlineExceeded, "context deadline exceeded".to_owned()));
    let lost = (Code::Unavailable, "etcdserver: leader changed".to_owned());
    let refused = text(read.unwrap_err());
    assert!(refused == late || refused == lost, "{refused:?}");
    let local = node.kv().range(range(true)).await.unwrap().into_inner();
    assert_eq!(local.kvs[0].value, "before");
    for other in others() {
        cluster.nodes[other].signal(Signal::SIGCONT);
    }
    cluster.leader().await;
    for node in &cluster.nodes {
        node.put("k", "after").await;
        let read = node.kv().range(range(false)).await.unwrap().into_inner();
        assert_eq!(read.kvs[0].value, "after");
    }
    cluster.agree().await;
}
