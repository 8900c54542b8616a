//! Defragmentation and snapshots of the real binary, while clients write and across kills.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use detcd_io::bbolt::read::Reader;
use detcd_io::disk::{Access, Disk as _, RealDisk};
use detcd_proto::etcdserverpb as pb;
use detcd_proto::etcdserverpb::kv_client::KvClient;
use detcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use nix::sys::signal::Signal;
use sha2::{Digest as _, Sha256};
use tonic::transport::Channel;

use crate::load::Load;
use crate::member::Home;

async fn maintenance(home: &Home) -> MaintenanceClient<Channel> {
    MaintenanceClient::connect(format!("http://127.0.0.1:{}", home.client_port)).await.unwrap()
}

/// Some megabytes under ten keys.
async fn fill(client: &mut KvClient<Channel>, puts: u32) {
    for number in 0..puts {
        let value = Bytes::from(vec![b'a' + (number % 26) as u8; 8_000]);
        let key = format!("big-{}", number % 10).into();
        client.put(pb::PutRequest { key, value, ..Default::default() }).await.unwrap();
    }
}

/// The pieces of a snapshot, checked as they come; the file, and the version that they tell.
async fn snapshot(home: &Home) -> (Vec<u8>, String) {
    let mut stream = maintenance(home).await.snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
    let (mut file, mut pieces) = (Vec::new(), Vec::new());
    while let Some(piece) = stream.message().await.unwrap() {
        assert!(piece.blob.len() <= 32 * 1024 && piece.header.is_none());
        pieces.push(piece);
    }
    let hash = pieces.pop().unwrap();
    for piece in &pieces {
        file.extend_from_slice(&piece.blob);
    }
    let mut left = file.len() as u64;
    for piece in &pieces {
        left -= piece.blob.len() as u64;
        assert_eq!(piece.remaining_bytes, left);
    }
    assert_eq!((hash.remaining_bytes, hash.blob.as_ref()), (0, Sha256::digest(&file).as_slice()));
    (file, hash.version)
}

/// The rows of a bucket.
async fn rows(file: &[u8], bucket: &str) -> Vec<(Bytes, Bytes)> {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("db");
    std::fs::write(&path, file).unwrap();
    let reader = Reader::open(RealDisk.open(&path, Access::Read).await.unwrap(), path).await.unwrap();
    let buckets = reader.buckets().await.unwrap();
    let bucket = buckets.iter().find(|found| found.name == bucket.as_bytes()).unwrap();
    let (mut cursor, mut rows) = (reader.rows(bucket), Vec::new());
    while let Some(row) = cursor.next().await.unwrap() {
        rows.push(row);
    }
    rows
}

#[tokio::test]
async fn a_snapshot_is_etcds_database_file_of_everything_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, mut client) = home.start().await;
    fill(&mut client, 600).await;
    client.delete_range(pb::DeleteRangeRequest { key: "big-3".into(), ..Default::default() }).await.unwrap();
    let (file, version) = snapshot(&home).await;
    assert_eq!(version, "3.7.0");
    // Each put is a row, and so is the deletion; nothing is left in the batch that was being filled.
    let keys = rows(&file, "key").await;
    assert_eq!(keys.len(), 601);
    assert_eq!(keys[600].0.last(), Some(&b't'));
    assert!(rows(&file, "meta").await.iter().any(|(key, _)| key == "consistent_index"));
    assert_eq!(rows(&file, "members").await.len(), 1);
    let left: Vec<_> = std::fs::read_dir(home.data_dir().join("member/snap")).unwrap().collect();
    assert!(left.is_empty(), "a copy has no name: {left:?}");
}

#[tokio::test]
async fn copies_are_made_one_after_the_other_and_for_everybody() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, mut client) = home.start().await;
    fill(&mut client, 300).await;
    // More than may exist at once, some of them never read.
    let mut stuck = Vec::new();
    for _ in 0..7 {
        stuck.push(maintenance(&home).await.snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner());
    }
    let taking = async { tokio::join!(snapshot(&home), snapshot(&home), snapshot(&home), snapshot(&home)) };
    let taken = tokio::time::timeout(Duration::from_secs(20), taking).await.unwrap();
    let taken = [taken.0, taken.1, taken.2, taken.3];
    assert!(taken.iter().all(|(file, _)| file == &taken[0].0), "nothing changed in between");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defragmentation_gives_room_back_while_clients_write_and_kills_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let mut load = Load::default();
    let (mut member, mut client) = home.start().await;
    fill(&mut client, 1_500).await;
    load.run(&client, Duration::from_millis(50), || ()).await;
    let size = |status: &pb::StatusResponse| (status.db_size, status.db_size_in_use);
    for kill in [3, 30, 80, 150] {
        // In the middle of it, more or less.
        let mut asking = maintenance(&home).await;
        let asked = tokio::spawn(async move { asking.defragment(pb::DefragmentRequest {}).await });
        load.run(&client, Duration::from_millis(kill), || member.signal(Signal::SIGKILL)).await;
        member.wait();
        let _ = asked.await.unwrap();
        (member, client) = home.start().await;
        load.check(&client).await;
        let names = std::fs::read_dir(home.data_dir().join("member")).unwrap().map(|entry| entry.unwrap().file_name());
        let copies = names.filter(|name| name.to_string_lossy().contains("copy")).count();
        assert_eq!(copies, 0, "the start removes what is left of a copy");
    }
    let revision = client.put(pb::PutRequest { key: "last".into(), ..Default::default() }).await.unwrap();
    let revision = revision.into_inner().header.unwrap().revision;
    let first_big = client.range(pb::RangeRequest { key: "big-9".into(), ..Default::default() }).await.unwrap();
    let compacted = first_big.into_inner().kvs[0].mod_revision;
    client.compact(pb::CompactionRequest { revision: compacted, physical: true }).await.unwrap();
    let mut asking = maintenance(&home).await;
    // The sizes are those of the last commit, and the sweep's last batch may be on its way.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = asking.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert!(size(&before).1 * 4 < size(&before).0, "most of it is free: {:?}", size(&before));
    let hash = |revision| pb::HashKvRequest { revision };
    let hashed = asking.hash_kv(hash(revision)).await.unwrap().into_inner();
    let mut writing = asking.clone();
    let defragmenting = async {
        let answer = writing.defragment(pb::DefragmentRequest {}).await.unwrap().into_inner();
        assert_eq!(answer.header, None, "etcd sends none");
    };
    tokio::join!(defragmenting, load.run(&client, Duration::from_millis(200), || ()));
    let after = asking.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert!(after.db_size * 3 < before.db_size, "{} of {}", after.db_size, before.db_size);
    let file = std::fs::metadata(home.data_dir().join("member/lmdb/data.mdb")).unwrap();
    assert!(file.len() < before.db_size.cast_unsigned());
    assert_eq!(asking.hash_kv(hash(revision)).await.unwrap().into_inner().hash, hashed.hash);
    member.signal(Signal::SIGKILL);
    member.wait();
    let (_member, client) = home.start().await;
    load.check_since(&client, compacted).await;
    let mut asking = maintenance(&home).await;
    assert_eq!(asking.hash_kv(hash(revision)).await.unwrap().into_inner().hash, hashed.hash);
}
