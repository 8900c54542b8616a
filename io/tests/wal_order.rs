//! What reaches the disk in which order: a file's bytes before the name that promises them, a name before what relies on it, a copy before a
//! cut. A power cut between any two calls loses nothing then.
#![allow(clippy::unwrap_used)]

mod recording;

use std::path::Path;

use bytes::Bytes;
use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::{Entry, EntryKind, HardState, Mark, Sync, Write};
use detcd_io::disk::Disk as _;
use detcd_io::wal::fuzz::ready;
use detcd_io::wal::{Metadata, NOTHING, Options, Room, Wal, purge, repair};
use recording::RecordingDisk;

const FIRST: &str = "m/wal/0000000000000000-0000000000000000.wal";
const SECOND: &str = "m/wal/0000000000000001-0000000000000002.wal";

fn options() -> Options {
    Options { dir: "m/wal".into(), segment_bytes: 4096 }
}

fn write(index: u64, length: usize) -> Write {
    let payload = Bytes::from(vec![7; length]);
    let entry = Entry { term: Term(1), index: Index(index), kind: EntryKind::Normal, payload };
    let hard_state = HardState { term: Term(1), vote: None, commit: Index(index) };
    Write { snapshot: None, entries: vec![entry], hard_state: Some(hard_state), sync: Sync::Required }
}

fn new_log() -> (RecordingDisk, Wal<RecordingDisk>) {
    let disk = RecordingDisk::default();
    ready(disk.create_dir_all(Path::new("m"))).unwrap();
    disk.memory.put(Path::new("m/wal.tmp/left-over"), Vec::new());
    disk.calls();
    let wal = ready(Wal::create(disk.clone(), options(), Metadata { member: MemberId(1), cluster: 2 }, &NOTHING));
    (disk, wal.unwrap())
}

#[test]
fn a_new_log_appears_whole() {
    let (disk, _wal) = new_log();
    let staged = "m/wal.tmp/0000000000000000-0000000000000000.wal";
    assert_eq!(
        disk.calls(),
        [
            "remove all m/wal.tmp".to_owned(),
            "mkdir m/wal.tmp".to_owned(),
            format!("create {staged}"),
            format!("empty {staged}"),
            format!("allocate {staged}"),
            format!("write {staged}"),
            format!("sync {staged}"),
            "sync m/wal.tmp".to_owned(),
            "rename m/wal.tmp to m/wal".to_owned(),
            "sync m".to_owned(),
        ]
    );
}

#[test]
fn the_next_file_is_durable_before_it_is_written_to() {
    let (disk, mut wal) = new_log();
    wal.append(&write(1, 5000));
    disk.calls();
    ready(wal.cut_if_full()).unwrap();
    wal.append(&write(2, 5));
    ready(wal.sync()).unwrap();
    // A file keeps the name it was opened under, here: what is renamed is still called 0.tmp.
    assert_eq!(
        disk.calls(),
        [
            "create m/wal/0.tmp".to_owned(),
            "empty m/wal/0.tmp".to_owned(),
            "allocate m/wal/0.tmp".to_owned(),
            "write m/wal.tmp/0000000000000000-0000000000000000.wal".to_owned(),
            "sync data m/wal.tmp/0000000000000000-0000000000000000.wal".to_owned(),
            "cut m/wal.tmp/0000000000000000-0000000000000000.wal".to_owned(),
            "sync m/wal.tmp/0000000000000000-0000000000000000.wal".to_owned(),
            "write m/wal/0.tmp".to_owned(),
            "sync m/wal/0.tmp".to_owned(),
            format!("rename m/wal/0.tmp to {SECOND}"),
            "sync m/wal".to_owned(),
            "write m/wal/0.tmp".to_owned(),
            "sync data m/wal/0.tmp".to_owned(),
        ]
    );
    ready(wal.prepare()).unwrap();
    assert_eq!(disk.calls()[0], "create m/wal/1.tmp", "the two names take turns");
    ready(wal.close()).unwrap();
    assert_eq!(disk.calls(), ["sync data m/wal/0.tmp", "remove m/wal/1.tmp"]);
}

#[test]
fn a_file_that_finds_no_room_gives_back_what_it_took() {
    let (disk, mut wal) = new_log();
    disk.memory.limit_allocation(Some(0));
    disk.calls();
    assert_eq!(ready(wal.prepare()).unwrap(), Room::None);
    let calls = ["create", "empty", "allocate", "empty"].map(|call| format!("{call} m/wal/0.tmp"));
    assert_eq!(disk.calls(), calls);
}

#[test]
fn a_copy_is_durable_before_anything_is_cut() {
    let (disk, mut wal) = new_log();
    wal.append(&write(1, 5));
    ready(wal.close()).unwrap();
    let bytes = disk.memory.bytes(Path::new(FIRST)).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let torn = bytes[..end - 20].to_vec();
    disk.memory.put(Path::new(FIRST), torn.clone());
    disk.calls();
    ready(repair(&disk, Path::new("m/wal"))).unwrap();
    let copied = |copy: &str, last: &[&str]| {
        let first =
            [format!("create {copy}"), format!("write {copy}"), format!("sync {copy}"), "sync m/wal".to_owned()];
        let last = last.iter().map(|call| format!("{call} {FIRST}"));
        first.into_iter().chain(last).collect::<Vec<_>>()
    };
    assert_eq!(disk.calls(), copied(&format!("{FIRST}.broken"), &["cut", "sync"]));
    assert_eq!(disk.memory.bytes(Path::new(&format!("{FIRST}.broken"))), Some(torn));

    // What lies behind the end is wiped in the same order.
    let mut garbage = bytes;
    garbage[end + 100] = 1;
    disk.memory.put(Path::new(FIRST), garbage);
    drop(ready(Wal::open(disk.clone(), options(), Mark::ZERO)).unwrap());
    let mut calls = disk.calls();
    let rest = calls.split_off(2);
    assert_eq!(calls, ["sync m/wal", "sync m"], "names of an earlier life may not be durable yet");
    assert_eq!(rest, copied(&format!("{FIRST}.1.broken"), &["cut", "allocate", "sync"]));
}

#[test]
fn a_copy_that_finds_no_room_leaves_nothing_but_the_file_as_it_was() {
    let (disk, wal) = new_log();
    ready(wal.close()).unwrap();
    let mut torn = disk.memory.bytes(Path::new(FIRST)).unwrap();
    torn[2000] = 1;
    disk.memory.put(Path::new(FIRST), torn.clone());
    disk.memory.fail_syncs(1);
    disk.calls();
    assert!(ready(Wal::open(disk.clone(), options(), Mark::ZERO)).is_err());
    assert_eq!(disk.calls().last().unwrap(), &format!("remove {FIRST}.broken"), "half a copy helps nobody");
    assert_eq!(disk.memory.bytes(Path::new(FIRST)), Some(torn));
}

#[test]
fn old_files_go_one_by_one() {
    let (disk, mut wal) = new_log();
    for index in 1..=4 {
        wal.append(&write(index, 5000));
        ready(wal.cut_if_full()).unwrap();
    }
    ready(wal.close()).unwrap();
    disk.calls();
    let third = "m/wal/0000000000000002-0000000000000003.wal";
    assert_eq!(ready(purge(&disk, Path::new("m/wal"), 2, Index(u64::MAX))).unwrap(), 3);
    let gone = [FIRST, SECOND, third].map(|name| [format!("remove {name}"), "sync m/wal".to_owned()]);
    assert_eq!(disk.calls(), gone.concat());
    assert_eq!(ready(purge(&disk, Path::new("m/wal"), 2, Index(u64::MAX))).unwrap(), 0);

    let other = Options { dir: "m/other".into(), ..options() };
    let metadata = Metadata { member: MemberId(1), cluster: 2 };
    let mut wal = ready(Wal::create(disk.clone(), other, metadata, &NOTHING)).unwrap();
    wal.append(&write(1, 5000));
    ready(wal.cut_if_full()).unwrap();
    assert_eq!(ready(purge(&disk, Path::new("m/other"), 0, Index(u64::MAX))).unwrap(), 0, "a file in use stays");
    drop(wal);
}
