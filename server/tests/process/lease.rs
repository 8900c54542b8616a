//! Leases of a real process by a real clock: keys go when they must and not before, through renewals and a crash.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use detcd_proto::etcdserverpb as pb;
use detcd_proto::etcdserverpb::kv_client::KvClient;
use detcd_proto::etcdserverpb::lease_client::LeaseClient;
use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::member::Home;

/// How late a key may go on a busy machine, beyond what the rules allow.
const SLACK: Duration = Duration::from_millis(1500);

async fn leases(home: &Home) -> LeaseClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", home.client_port)).unwrap();
    LeaseClient::new(endpoint.connect().await.unwrap())
}

async fn grant(client: &mut LeaseClient<Channel>, id: i64, ttl: i64) -> pb::LeaseGrantResponse {
    client.lease_grant(pb::LeaseGrantRequest { id, ttl }).await.unwrap().into_inner()
}

async fn attach(client: &mut KvClient<Channel>, key: &'static str, lease: i64) {
    client.put(pb::PutRequest { key: key.into(), lease, ..Default::default() }).await.unwrap();
}

async fn has(client: &mut KvClient<Channel>, key: &'static str) -> bool {
    let range = pb::RangeRequest { key: key.into(), ..Default::default() };
    client.range(range).await.unwrap().into_inner().count == 1
}

/// Waits until the key is gone and says when it was last seen, and when no more.
async fn gone(client: &mut KvClient<Channel>, key: &'static str, since: Instant) -> (Duration, Duration) {
    let mut seen = Duration::ZERO;
    while has(client, key).await {
        seen = since.elapsed();
        assert!(seen < Duration::from_secs(30), "it never goes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (seen, since.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_goes_with_its_lease_and_not_before() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, mut kv) = home.start().await;
    let mut client = leases(&home).await;
    let asked = Instant::now();
    let granted = grant(&mut client, 0, 1).await;
    assert!(granted.id > 0 && granted.ttl == 2, "raised to the least: {granted:?}");
    attach(&mut kv, "short", granted.id).await;
    grant(&mut client, 7, 2).await;
    attach(&mut kv, "held", 7).await;
    attach(&mut kv, "freed", 7).await;
    attach(&mut kv, "freed", 0).await;
    let (renewals, requests) = mpsc::channel(1);
    let mut answers = client.lease_keep_alive(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let holding = tokio::spawn(async move {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            renewals.send(pb::LeaseKeepAliveRequest { id: 7 }).await.unwrap();
            let answer = answers.message().await.unwrap().unwrap();
            assert_eq!((answer.id, answer.ttl), (7, 2));
        }
        renewals.send(pb::LeaseKeepAliveRequest { id: 99 }).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap().ttl, 0, "an unknown lease");
        drop(renewals);
        assert_eq!(answers.message().await.unwrap(), None, "the client ended it");
        Instant::now()
    });
    let (seen, gone_at) = gone(&mut kv, "short", asked).await;
    assert!(Duration::from_millis(2_000) <= gone_at, "gone after {gone_at:?}");
    assert!(seen < Duration::from_millis(2_000) + SLACK, "there after {seen:?}");
    let last = holding.await.unwrap();
    let (seen, _) = gone(&mut kv, "held", last).await;
    assert!(seen < Duration::from_millis(2_000) + SLACK, "there {seen:?} after the last renewal");
    assert!(Duration::from_millis(5_800) <= asked.elapsed(), "the renewals held it");
    assert!(has(&mut kv, "freed").await, "a key that was detached stays");
    // The keeper looks for the answers to what it asked on its next tick.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let metrics = home.get(home.client_port, "/metrics");
    for line in [
        "etcd_debugging_lease_granted_total 2",
        "etcd_debugging_lease_revoked_total 2",
        "etcd_debugging_lease_renewed_total 10",
        "etcd_debugging_server_lease_expired_total 2",
        "etcd_debugging_lease_ttl_total_bucket{le=\"1\"} 0",
        "etcd_debugging_lease_ttl_total_bucket{le=\"2\"} 2",
        "etcd_debugging_lease_ttl_total_sum 4",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

/// Puts without end, `FLOOD` of them at any time; the counter tells how many were answered.
fn flood(client: &KvClient<Channel>) -> (Vec<tokio::task::JoinHandle<()>>, Arc<AtomicU64>) {
    const FLOOD: usize = 400;
    let answered = Arc::new(AtomicU64::new(0));
    let one = |i: usize| {
        let (mut client, answered) = (client.clone(), Arc::clone(&answered));
        tokio::spawn(async move {
            loop {
                let put = pb::PutRequest { key: format!("flood{i}").into(), ..Default::default() };
                client.put(put).await.unwrap();
                answered.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    ((0..FLOOD).map(one).collect(), answered)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_and_revocations_go_on_while_clients_flood_the_member() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, mut kv) = home.start().await;
    let mut client = leases(&home).await;
    for (id, key) in [(1, "ends"), (2, "held")] {
        grant(&mut client, id, 2).await;
        attach(&mut kv, key, id).await;
    }
    let (writers, answered) = flood(&kv);
    let (renewals, requests) = mpsc::channel(1);
    let mut answers = client.lease_keep_alive(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let begun = Instant::now();
    // Three times to live, each of them renewed several times; the other lease ends under the flood.
    while begun.elapsed() < Duration::from_secs(6) {
        renewals.send(pb::LeaseKeepAliveRequest { id: 2 }).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap().ttl, 2);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(has(&mut kv, "held").await, "a lease that was renewed in time stays");
    assert!(!has(&mut kv, "ends").await, "one that was not ends");
    let before = answered.load(Ordering::Relaxed);
    gone(&mut kv, "held", Instant::now()).await;
    assert!(before < answered.load(Ordering::Relaxed), "the flood never stopped");
    for writer in writers {
        assert!(!writer.is_finished());
        writer.abort();
    }
}

#[tokio::test]
async fn leases_outlive_a_crash_with_their_keys() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (mut member, mut kv) = home.start().await;
    let mut client = leases(&home).await;
    let asked = Instant::now();
    grant(&mut client, -5, 3).await;
    attach(&mut kv, "k", -5).await;
    member.signal(Signal::SIGKILL);
    member.wait();
    let (_member, mut kv) = home.start().await;
    let restarted = Instant::now();
    let mut client = leases(&home).await;
    let look = pb::LeaseTimeToLiveRequest { id: -5, keys: true };
    let seen = client.lease_time_to_live(look).await.unwrap().into_inner();
    assert_eq!((seen.granted_ttl, seen.keys.as_slice()), (3, &[bytes::Bytes::from("k")][..]));
    assert!((2..=4).contains(&seen.ttl), "a new leader adds an election timeout: {seen:?}");
    let listed = client.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner().leases;
    assert_eq!(listed, [pb::LeaseStatus { id: -5 }]);
    let (_, gone_at) = gone(&mut kv, "k", asked).await;
    assert!(Duration::from_secs(3) <= gone_at, "gone after {gone_at:?}");
    // Time to live, the extension, and the time it takes to lead.
    assert!(restarted.elapsed() < Duration::from_millis(3_000 + 1_000 + 500) + SLACK, "{:?}", restarted.elapsed());
    let look = pb::LeaseTimeToLiveRequest { id: -5, keys: true };
    let seen = client.lease_time_to_live(look).await.unwrap().into_inner();
    assert_eq!((seen.id, seen.ttl, seen.granted_ttl, seen.keys.len()), (-5, -1, 0, 0));
}

#[tokio::test]
async fn lease_requests_get_etcds_errors() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, mut kv) = home.start().await;
    let mut client = leases(&home).await;
    grant(&mut client, 1, 60).await;
    for (request, code, text) in [
        ((1, 60), Code::FailedPrecondition, "etcdserver: lease already exists"),
        ((1, 9_000_000_001), Code::OutOfRange, "etcdserver: too large lease TTL"),
    ] {
        let request = pb::LeaseGrantRequest { id: request.0, ttl: request.1 };
        let refused = client.lease_grant(request).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (code, text));
    }
    let before = kv.put(pb::PutRequest { key: "k".into(), lease: 1, ..Default::default() }).await.unwrap();
    let revision = before.into_inner().header.unwrap().revision;
    let revoked = client.lease_revoke(pb::LeaseRevokeRequest { id: 1 }).await.unwrap().into_inner();
    assert_eq!(revoked.header.unwrap().revision, revision + 1, "its key went");
    let refused = client.lease_revoke(pb::LeaseRevokeRequest { id: 1 }).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "etcdserver: requested lease not found"));
    let put = pb::PutRequest { key: "k".into(), lease: 1, ..Default::default() };
    let refused = kv.put(put).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "etcdserver: requested lease not found"));
}
