//! The real binary: killed under load, told to end, refused, and fed bad input.
//!
//! `KILLS=200 cargo test -p detcd-server --test process` makes the long runs of kills; the default is a sample.
#![allow(clippy::unwrap_used)]

mod cluster;
mod compaction;
mod import;
mod lease;
mod load;
mod maintenance;
mod member;
mod monitoring;
mod quota;
mod watch;

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use detcd_proto::etcdserverpb as pb;
use nix::sys::signal::Signal;
use tonic::Code;

use crate::load::Load;
use crate::member::Home;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_under_load_lose_nothing_that_was_acknowledged() {
    let kills: u32 = std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(6);
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let mut load = Load::default();
    for round in 0..kills {
        let (mut member, client) = home.start().await;
        load.check(&client).await;
        // From the first moments of a life to the middle of a batch commit.
        let life = Duration::from_millis(5 + u64::from(round * 37 % 250));
        load.run(&client, life, || member.signal(Signal::SIGKILL)).await;
        assert_eq!(member.wait().signal(), Some(9));
    }
    let (_member, client) = home.start().await;
    load.check(&client).await;
    assert!(load.acknowledged() > u64::from(kills) * 10, "too little load to prove anything");
    println!("{kills} kills, {} acknowledged writes, none lost", load.acknowledged());
}

#[tokio::test]
async fn a_signal_ends_the_member_by_that_signal_and_a_restart_has_everything() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    for (lives, signal) in [Signal::SIGTERM, Signal::SIGINT].into_iter().enumerate() {
        let (mut member, mut client) = home.start().await;
        // The first reply may overtake the line.
        let told = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            home.log().matches("ready to serve client requests").count() > lives
        });
        assert!(told, "{}", home.log());
        let value = signal.as_str();
        client.put(pb::PutRequest { key: "k".into(), value: value.into(), ..Default::default() }).await.unwrap();
        member.signal(signal);
        assert_eq!(member.wait().signal(), Some(signal as i32), "{}", home.log());
        let (_member, mut client) = home.start().await;
        let response = client.range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await.unwrap();
        assert_eq!(response.into_inner().kvs[0].value, value);
    }
}

#[tokio::test]
async fn a_second_process_on_the_directory_is_refused_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, mut client) = home.start().await;
    let other_home = tempfile::tempdir().unwrap();
    let other = Home::new(other_home.path());
    let mut command = other.command();
    let status = command.arg("--data-dir").arg(home.data_dir()).status().unwrap();
    assert_eq!(status.code(), Some(1), "{}", other.log());
    assert!(other.log().contains("lock"), "{}", other.log());
    client.put(pb::PutRequest { key: "k".into(), ..Default::default() }).await.unwrap();
}

#[tokio::test]
async fn bad_requests_get_etcds_errors_and_the_member_lives() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, client) = home.start().await;
    let mut client = client.max_encoding_message_size(64 << 20);
    let put = |key: &str, bytes: usize| pb::PutRequest {
        key: key.to_owned().into(),
        value: vec![b'v'; bytes].into(),
        ..Default::default()
    };
    let refused = |status: tonic::Status| (status.code(), status.message().to_owned());

    let error = refused(client.put(put("", 1)).await.unwrap_err());
    assert_eq!(error, (Code::InvalidArgument, "etcdserver: key is not provided".to_owned()));
    let error = refused(client.put(put("k", 1_600_000)).await.unwrap_err());
    assert_eq!(error, (Code::InvalidArgument, "etcdserver: request is too large".to_owned()));
    let error = refused(client.put(put("k", 3 << 20)).await.unwrap_err());
    assert_eq!(error.0, Code::ResourceExhausted);
    assert!(error.1.starts_with("grpc: received message larger than max ("), "{}", error.1);
    let error = refused(client.put(pb::PutRequest { lease: 7, ..put("k", 1) }).await.unwrap_err());
    assert_eq!(error, (Code::NotFound, "etcdserver: requested lease not found".to_owned()));
    let error = refused(client.compact(pb::CompactionRequest { revision: 9, physical: false }).await.unwrap_err());
    assert_eq!(error, (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision".to_owned()));

    let response = client.put(put("k", 1)).await.unwrap().into_inner();
    assert_eq!(response.header.unwrap().revision, 2, "nothing that was refused made a revision");
}

/// The log has released its first entries: what they held was in the store alone.
#[tokio::test]
async fn a_store_that_is_missing_is_not_replaced_by_an_empty_one() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path()).with(&["--snapshot-count=10"]);
    let (mut member, mut client) = home.start().await;
    let log = home.data_dir().join("member/wal");
    let snap = home.data_dir().join("member/snap");
    for round in 0..2000 {
        client.put(pb::PutRequest { key: "k".into(), ..Default::default() }).await.unwrap();
        if std::fs::read_dir(&snap).is_ok_and(|files| files.count() > 2) {
            break;
        }
        assert!(round < 1999, "no log snapshot was taken");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    member.signal(Signal::SIGTERM);
    member.wait();
    let store = home.data_dir().join("member/lmdb");
    std::fs::remove_dir_all(&store).unwrap();
    let files = std::fs::read_dir(&log).unwrap().count();
    for _ in 0..2 {
        let status = home.command().status().unwrap();
        assert_eq!(status.code(), Some(1), "{}", home.log());
        assert!(home.log().contains("the store is missing, and the log begins only behind entry"), "{}", home.log());
        assert!(!store.exists(), "a refused start made a store");
    }
    assert_eq!(std::fs::read_dir(&log).unwrap().count(), files);
}

/// What a page in a browser may send to another origin without asking first.
#[tokio::test]
async fn only_grpc_reaches_the_services() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, mut client) = home.start().await;
    let put = b"\0\0\0\0\x09\x0a\x04csrf\x12\x01w";
    for kind in ["text/plain", "application/grpc"] {
        let headers = format!("Content-Type: {kind}\r\nOrigin: http://evil.example\r\n");
        let answer = home.request(home.client_port, "POST /etcdserverpb.KV/Put", &headers, put);
        assert!(answer.starts_with("HTTP/1.1 404 Not Found"), "{answer}");
    }
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://127.0.0.1:{}", home.client_port)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let request = http::Request::post("/etcdserverpb.KV/Put").header("content-type", "text/plain");
    let body = tonic::body::Body::new(http_body_util::Full::new(bytes::Bytes::from_static(put)));
    let response = tower::ServiceExt::oneshot(channel, request.body(body).unwrap()).await.unwrap();
    assert_eq!(response.status(), 415);
    let range = client.range(pb::RangeRequest { key: "csrf".into(), ..Default::default() }).await.unwrap();
    assert_eq!(range.into_inner().count, 0);
    let auth = pb::auth_client::AuthClient::connect(format!("http://127.0.0.1:{}", home.client_port)).await;
    let unbuilt = auth.unwrap().auth_status(pb::AuthStatusRequest {}).await.unwrap_err();
    let expected = (Code::Unimplemented, "AuthStatus of etcdserverpb.Auth is not built yet in detcd");
    assert_eq!((unbuilt.code(), unbuilt.message()), expected);
}

#[tokio::test]
async fn http_answers_as_etcd_does() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, _client) = home.start().await;
    // The cluster's version is decided right after the member is ready.
    let decided = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        home.get(home.client_port, "/version").contains("\"etcdcluster\":\"3.7.0\"")
    });
    assert!(decided);
    for port in [home.client_port, home.peer_port] {
        let answer = home.get(port, "/version");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with(r#"{"etcdserver":"3.7.3","etcdcluster":"3.7.0","storage":"3.7.0"}"#), "{answer}");
    }
    assert!(home.get(home.client_port, "/health").ends_with("\r\n\r\n{\"health\":\"true\",\"reason\":\"\"}"));
    assert!(home.get(home.client_port, "/livez").ends_with("\r\n\r\nok\n"));
    let verbose = home.get(home.client_port, "/readyz?verbose&exclude=non_learner");
    assert!(
        verbose.ends_with("[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\nok\n"),
        "{verbose}"
    );
    assert!(home.get(home.client_port, "/nothing").contains("404 page not found"));
    let metrics = home.get(home.client_port, "/metrics");
    assert!(
        metrics.contains("\netcd_server_has_leader 1\n") && metrics.contains("etcd_bootstrap_ready_seconds 0."),
        "{metrics}"
    );
}

#[test]
fn starts_that_are_refused_say_why_and_leave_only_a_counter() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let status = home.command().arg("--no-such-flag").status().unwrap();
    assert_eq!(status.code(), Some(2));
    assert!(home.log().contains("flag provided but not defined: -no-such-flag"), "{}", home.log());
    let status = home.command().arg("--initial-cluster=b=http://127.0.0.1:1").status().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(home.log().contains("couldn't find local name"), "{}", home.log());
    assert!(!home.data_dir().exists(), "a refused start made the directory");
    let counters = std::fs::read_to_string(directory.path().join("data.boot.json")).unwrap();
    assert!(counters.contains("bootstrap_errors"), "{counters}");
}

#[tokio::test]
async fn a_damaged_log_is_named_with_its_place_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (mut member, mut client) = home.start().await;
    for _ in 0..20 {
        client
            .put(pb::PutRequest { key: "k".into(), value: vec![7; 1000].into(), ..Default::default() })
            .await
            .unwrap();
    }
    member.signal(Signal::SIGKILL);
    member.wait();
    let path = home.data_dir().join("member/wal/0000000000000000-0000000000000000.wal");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[9_000] ^= 0x40;
    std::fs::write(&path, &bytes).unwrap();
    let status = home.spawn().wait();
    assert_eq!(status.code(), Some(1));
    let log = home.log();
    assert!(log.contains("0000000000000000-0000000000000000.wal") && log.contains("crc mismatch"), "{log}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "a damaged log is not written to");
}

/// Several megabytes leave in pieces: to the client they are one message, also when it asks on one connection for several at once, or goes away in the middle.
#[tokio::test]
async fn large_ranges_arrive_whole() {
    const KEYS: i64 = 400;
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, client) = home.start().await;
    let mut client = client.max_decoding_message_size(64 << 20);
    for number in 0..KEYS {
        let value = vec![b'a' + (number % 26) as u8; 10_000 + number as usize].into();
        client
            .put(pb::PutRequest { key: format!("large-{number:03}").into(), value, ..Default::default() })
            .await
            .unwrap();
    }
    let all = pb::RangeRequest { key: "large-".into(), range_end: "large.".into(), ..Default::default() };
    // Counted is a message when it begins to leave, and once.
    let sent = || {
        let counts = |line: &&str| line.starts_with("grpc_server_msg_sent_total{") && line.contains(r#"="Range""#);
        let metrics = home.get(home.client_port, "/metrics");
        let sent = metrics.lines().find(counts).and_then(|line| line.split(' ').next_back()).expect("a counter");
        sent.parse::<u64>().expect("a number")
    };
    let before = sent();
    let asks = (0..4).map(|_| {
        let (mut client, all) = (client.clone(), all.clone());
        tokio::spawn(async move { client.range(all).await.unwrap().into_inner() })
    });
    for ask in asks.collect::<Vec<_>>() {
        let response = ask.await.unwrap();
        assert_eq!((response.count, response.more, response.kvs.len() as i64), (KEYS, false, KEYS));
        assert_eq!(response.header.unwrap().revision, 1 + KEYS);
        for (pair, number) in response.kvs.iter().zip(0..) {
            assert_eq!((pair.key.as_ref(), pair.mod_revision), (format!("large-{number:03}").as_bytes(), 2 + number));
            assert_eq!(pair.value.len(), 10_000 + number as usize);
        }
    }
    assert_eq!(sent(), before + 4);
    let given_up = tokio::time::timeout(Duration::from_millis(3), client.clone().range(all.clone())).await;
    drop(given_up);
    let response = client.range(all).await.unwrap().into_inner();
    assert_eq!(response.kvs.len() as i64, KEYS);
}
