//! Compactions, asked for and by themselves, through the real binary and across a kill.

use std::time::Duration;

use detcd_proto::etcdserverpb as pb;
use detcd_proto::etcdserverpb::kv_client::KvClient;
use detcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use nix::sys::signal::Signal;
use tonic::Code;
use tonic::transport::Channel;

use crate::member::Home;

async fn put(client: &mut KvClient<Channel>, key: &str, value: &str) -> i64 {
    let request = pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    client.put(request).await.unwrap().into_inner().header.unwrap().revision
}

async fn get(client: &mut KvClient<Channel>, key: &str, revision: i64) -> Result<pb::RangeResponse, tonic::Status> {
    let request = pb::RangeRequest { key: key.to_owned().into(), revision, ..Default::default() };
    client.range(request).await.map(tonic::Response::into_inner)
}

async fn hash(home: &Home, revision: i64) -> (u32, i64, i64) {
    let address = format!("http://127.0.0.1:{}", home.client_port);
    let mut maintenance = MaintenanceClient::connect(address).await.unwrap();
    let response = maintenance.hash_kv(pb::HashKvRequest { revision }).await.unwrap().into_inner();
    (response.hash, response.compact_revision, response.hash_revision)
}

#[tokio::test]
async fn a_compaction_forgets_the_past_and_a_kill_forgets_no_compaction() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (mut member, mut client) = home.start().await;
    for round in 0..5 {
        for key in ["a", "b", "c"] {
            put(&mut client, key, &format!("{round}")).await;
        }
    }
    client.delete_range(pb::DeleteRangeRequest { key: "c".into(), ..Default::default() }).await.unwrap();
    let current = put(&mut client, "a", "last").await;
    let compact = |revision, physical| pb::CompactionRequest { revision, physical };
    let too_late = "etcdserver: mvcc: required revision has been compacted";
    let future = client.compact(compact(current + 1, false)).await.unwrap_err();
    assert_eq!(
        (future.code(), future.message()),
        (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
    );
    let answer = client.compact(compact(current - 1, true)).await.unwrap().into_inner();
    assert_eq!(answer.header.unwrap().revision, current);
    let again = client.compact(compact(current - 1, true)).await.unwrap_err();
    assert_eq!((again.code(), again.message()), (Code::OutOfRange, too_late));
    let past = get(&mut client, "a", current - 2).await.unwrap_err();
    assert_eq!((past.code(), past.message()), (Code::OutOfRange, too_late));
    assert_eq!(get(&mut client, "a", current - 1).await.unwrap().kvs[0].value, "4");
    // The hash that the compaction took on its way names the compaction before it: there was none.
    assert_eq!(hash(&home, current - 1).await.1, -1);
    let now = hash(&home, 0).await;
    assert_eq!((now.1, now.2), (current - 1, current));
    member.signal(Signal::SIGKILL);
    member.wait();
    let (_member, mut client) = home.start().await;
    assert_eq!(get(&mut client, "a", current - 2).await.unwrap_err().message(), too_late);
    assert_eq!(hash(&home, 0).await, now);
    assert_eq!(hash(&home, current - 1).await.1, current - 1, "a restart has forgotten the compaction's own hash");
    assert_eq!(put(&mut client, "a", "more").await, current + 1);
}

#[tokio::test]
async fn history_is_compacted_without_being_asked() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path()).with(&["--auto-compaction-retention=300ms"]);
    let (_member, mut client) = home.start().await;
    let mut is_compacted = false;
    for round in 0..200 {
        put(&mut client, "k", &round.to_string()).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        is_compacted = get(&mut client, "k", 2).await.is_err_and(|status| status.code() == Code::OutOfRange);
        if is_compacted {
            break;
        }
    }
    assert!(is_compacted, "{}", home.log());
}
