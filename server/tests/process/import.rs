//! A directory that the real etcd wrote, through the real binary: killed while it imports, told in the log, raised to 3.7.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use detcd_proto::etcdserverpb as pb;
use detcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use nix::sys::signal::Signal;

use crate::member::Home;

/// A home whose data directory is the one of a golden case.
fn home_of(case: &str, directory: &Path) -> Home {
    let home = Home::new(directory);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/etcd").join(case).join("member");
    for part in ["wal", "snap"] {
        let to = home.data_dir().join("member").join(part);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(golden.join(part)).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    home
}

/// What etcd answers on the case: its revision, and the hash there.
fn expected(case: &str) -> (i64, u32) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/etcd").join(case).join("expect.json");
    let expect: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let revision = expect["revision"].as_i64().unwrap();
    (revision, u32::try_from(expect["hashes"][revision.to_string()].as_u64().unwrap()).unwrap())
}

async fn hash(home: &Home) -> (i64, u32) {
    let mut maintenance = MaintenanceClient::connect(format!("http://127.0.0.1:{}", home.client_port)).await.unwrap();
    let answer = maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap().into_inner();
    (answer.hash_revision, answer.hash)
}

#[tokio::test]
async fn an_import_that_is_killed_again_and_again_comes_to_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let home = home_of("killed", directory.path());
    for round in 0..8 {
        let mut member = home.spawn();
        std::thread::sleep(Duration::from_millis(round * 3));
        member.signal(Signal::SIGKILL);
        assert_eq!(member.wait().signal(), Some(9), "{}", home.log());
    }
    let (_member, _client) = home.start().await;
    assert_eq!(hash(&home).await, expected("killed"));
    let member = home.data_dir().join("member");
    assert!(member.join("snap/db.imported").exists() && !member.join("snap/db").exists());
    assert!(!member.join("lmdb.tmp").exists() && !member.join("lmdb/importing").exists());
}

#[tokio::test]
async fn an_import_is_told_once_and_a_cluster_of_3_6_is_raised() {
    let directory = tempfile::tempdir().unwrap();
    let home = home_of("cluster-3.6", directory.path());
    for _ in 0..2 {
        let (mut member, _client) = home.start().await;
        assert_eq!(hash(&home).await, expected("cluster-3.6"));
        let raised = (0..400).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            let version = home.get(home.client_port, "/version");
            version.contains(r#""etcdcluster":"3.7.0""#) && version.contains(r#""storage":"3.7.0""#)
        });
        assert!(raised, "{}", home.get(home.client_port, "/version"));
        member.signal(Signal::SIGTERM);
        member.wait();
    }
    let lines: Vec<String> =
        home.log().lines().filter(|line| line.contains("imported the database")).map(str::to_owned).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    for fact in [
        "\"from\":\"",
        "/member/snap/db\"",
        "/member/lmdb\"",
        "\"rows\":",
        "\"keys\":",
        "\"revision\":",
        "\"applied\":",
    ] {
        assert!(lines[0].contains(fact), "{fact} in {}", lines[0]);
    }
}
