//! A member whose disk fails it while it is down or full: a log whose end is torn or that has a wrong byte, and no room. The others go on.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use detcd_proto::etcdserverpb as pb;

use super::load::Load;
use super::{Cluster, PATIENCE};

/// The newest file of a member's log, and how many bytes of it are used.
fn log_end(data_dir: &Path) -> (PathBuf, u64) {
    let names = std::fs::read_dir(data_dir.join("member/wal")).unwrap().map(|entry| entry.unwrap().path());
    let newest = names.filter(|path| path.extension().is_some_and(|suffix| suffix == "wal")).max().unwrap();
    let used = std::fs::read(&newest).unwrap().iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    (newest, used)
}

/// Kills a follower under load, and lets the others go on for a while.
async fn lose_follower(cluster: &mut Cluster, load: &Load) -> usize {
    load.progress(100).await;
    let lost = cluster.follower().await;
    cluster.nodes[lost].kill();
    load.progress(20).await;
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_log_is_repaired_and_caught_up_and_a_wrong_byte_is_refused() {
    let mut cluster = Cluster::of(3).await;
    let load = Load::start(&cluster, 0);

    let lost = lose_follower(&mut cluster, &load).await;
    let (torn, used) = log_end(&cluster.nodes[lost].home.data_dir());
    // The beginning of a record that the member was writing when it was killed: nobody was told that it is there.
    let log = std::fs::File::options().write(true).open(&torn).unwrap();
    let end = used.next_multiple_of(8);
    log.set_len(end).unwrap();
    log.write_all_at(&[&[96, 0, 0, 0, 0, 0, 0, 0][..], &[8, 2, 16, 7, 26, 80, 1, 2]].concat(), end).unwrap();
    cluster.nodes[lost].start().await;
    let copy = PathBuf::from(format!("{}.broken", torn.display()));
    assert!(copy.exists(), "what was torn is kept: {}", cluster.logs());
    load.progress(20).await;

    let lost = lose_follower(&mut cluster, &load).await;
    let id = {
        let by = cluster.leader_but(Some(lost)).await;
        let list =
            cluster.nodes[by].cluster().member_list(pb::MemberListRequest::default()).await.unwrap().into_inner();
        let url = cluster.nodes[lost].home.peer_url();
        list.members.iter().find(|member| member.peer_ur_ls.contains(&url)).unwrap().id
    };
    // A byte of a key in the middle: one that a checksum covers.
    let (file, used) = log_end(&cluster.nodes[lost].home.data_dir());
    let bytes = std::fs::read(&file).unwrap();
    let half = usize::try_from(used / 2).unwrap();
    let place = half + bytes[half..].windows(4).position(|bytes| bytes == b"key-").unwrap();
    let log = std::fs::File::options().write(true).open(&file).unwrap();
    log.write_all_at(b"K", place as u64).unwrap();
    cluster.nodes[lost].spawn();
    assert_eq!(cluster.nodes[lost].ended().code(), Some(1));
    let said = cluster.nodes[lost].home.log();
    let last = said.lines().last().unwrap();
    assert!(last.contains("failed to read WAL, cannot be repaired") && last.contains(".wal"), "{last}");
    load.progress(20).await;

    let by = cluster.leader_but(Some(lost)).await;
    cluster.remove(by, id).await;
    std::fs::remove_dir_all(cluster.nodes[lost].home.data_dir()).unwrap();
    cluster.join(by, lost, false).await;
    cluster.nodes[lost].serves().await;
    load.progress(20).await;
    load.check(&cluster).await;
}

/// A small file system, gone when dropped.
struct Small(PathBuf);

impl Small {
    /// `None` where this user may not mount.
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=260m", "none"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }

    /// Takes all the room there is.
    fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let path = self.0.join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        let block = vec![1; 64 << 10];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_room_holds_nobody_up_and_catches_up_once_there_is_some() {
    let mut cluster = Cluster::of(3).await;
    let full = cluster.follower().await;
    let id = cluster.nodes[full].id().await;
    cluster.nodes[full].kill();
    let by = cluster.leader_but(Some(full)).await;
    cluster.remove(by, id).await;
    std::fs::remove_dir_all(cluster.nodes[full].home.data_dir()).unwrap();
    let Some(small) = Small::mount(&cluster.nodes[full].home.data_dir()) else {
        println!("SKIPPED: a file system cannot be mounted here");
        return;
    };
    cluster.join(by, full, false).await;
    cluster.nodes[full].serves().await;
    let load = Load::start(&cluster, by);
    load.progress(30).await;
    let ballast = small.fill();
    let mut written = 0;
    let told = "no room for the store's next batch";
    let began = Instant::now();
    while !cluster.nodes[full].home.log().contains(told) {
        assert!(began.elapsed() < PATIENCE, "{}", cluster.logs());
        cluster.nodes[by].put(&format!("big-{written}"), &"x".repeat(256 << 10)).await;
        written += 1;
    }
    // Those with room go on, and so does what the full one reads.
    load.progress(50).await;
    assert!(cluster.nodes[full].status().await.is_some(), "{}", cluster.logs());
    std::fs::remove_file(ballast).unwrap();
    load.progress(50).await;
    load.check(&cluster).await;
    cluster.nodes[full].kill();
    drop(small);
}
