//! A lease that outlives the leader that granted it: renewed through followers, never early, bounded late.

use std::time::{Duration, Instant};

use detcd_proto::etcdserverpb as pb;
use nix::sys::signal::Signal;
use pb::lease_client::LeaseClient;
use tokio_stream::wrappers::ReceiverStream;

use super::{Cluster, Node, PATIENCE};

const TTL: i64 = 3;

/// Renews once, and again until it works. The moment of the last asking is the earliest that the new time begins at.
async fn renew(node: &Node, id: i64) -> Instant {
    let (mut client, began) = (LeaseClient::new(node.channel.clone()), Instant::now());
    loop {
        let (ask, requests) = tokio::sync::mpsc::channel(1);
        let asked = Instant::now();
        ask.send(pb::LeaseKeepAliveRequest { id }).await.unwrap();
        if let Ok(answers) = client.lease_keep_alive(ReceiverStream::new(requests)).await
            && let Ok(Some(answer)) = answers.into_inner().message().await
        {
            assert_eq!((answer.id, answer.ttl), (id, TTL), "{}", node.home.log());
            return asked;
        }
        assert!(began.elapsed() < PATIENCE, "{}", node.home.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A read under way is refused when the leader changes.
async fn is_there(node: &Node, key: &'static str) -> bool {
    let began = Instant::now();
    loop {
        let range = pb::RangeRequest { key: key.into(), ..Default::default() };
        match node.kv().range(range).await {
            Ok(response) => return response.into_inner().count == 1,
            Err(refused) => assert!(began.elapsed() < PATIENCE, "{refused}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_renewed_through_a_follower_survives_the_leader_and_ends_in_time() {
    let mut cluster = Cluster::of(3).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let other = 3 - leader - follower;
    let mut granting = LeaseClient::new(cluster.nodes[other].channel.clone());
    for id in [7, 8] {
        granting.lease_grant(pb::LeaseGrantRequest { id, ttl: TTL }).await.unwrap();
    }
    for (key, lease) in [("held", 7), ("left", 8)] {
        let put = pb::PutRequest { key: key.into(), lease, ..Default::default() };
        cluster.nodes[follower].kv().put(put).await.unwrap();
    }
    let left = renew(&cluster.nodes[follower], 8).await;
    let began = Instant::now();
    let mut held = began;
    // Longer than it would live without the renewals behind the change of leaders, which begins its time anew.
    while began.elapsed() < Duration::from_secs(TTL as u64 + 6) {
        held = renew(&cluster.nodes[follower], 7).await;
        if cluster.nodes[leader].is_running() && Duration::from_secs(1) < began.elapsed() {
            cluster.nodes[leader].kill();
        }
        assert!(is_there(&cluster.nodes[other], "held").await);
        if !is_there(&cluster.nodes[other], "left").await {
            assert!(Duration::from_secs(TTL as u64) <= left.elapsed(), "gone after {:?}", left.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ttl = Duration::from_secs(TTL as u64);
    while is_there(&cluster.nodes[other], "held").await {
        // A tick, the way through the log, and what a busy machine takes; the new leader's time began anew before the renewals.
        assert!(held.elapsed() < ttl + Duration::from_secs(3), "there after {:?}", held.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(ttl <= held.elapsed(), "gone after {:?}", held.elapsed());
    assert!(!is_there(&cluster.nodes[follower], "left").await);
    cluster.nodes[leader].start().await;
    cluster.agree().await;
}

/// The question that the old leader does not answer ends after five seconds; the next leader's patience with this lease ends before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_through_a_follower_does_not_wait_for_a_leader_that_hangs() {
    const SHORT: i64 = 2;
    let cluster = Cluster::of(3).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let mut client = LeaseClient::new(cluster.nodes[follower].channel.clone());
    client.lease_grant(pb::LeaseGrantRequest { id: 7, ttl: SHORT }).await.unwrap();
    let (ask, requests) = tokio::sync::mpsc::channel(1);
    let mut answers = client.lease_keep_alive(ReceiverStream::new(requests)).await.unwrap().into_inner();
    cluster.nodes[leader].pause();
    ask.send(pb::LeaseKeepAliveRequest { id: 7 }).await.unwrap();
    let answer = answers.message().await;
    cluster.nodes[leader].signal(Signal::SIGCONT);
    assert_eq!(answer.unwrap().unwrap().ttl, SHORT, "{}", cluster.logs());
}
