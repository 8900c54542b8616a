//! The active part of the log: grouping, counting, room, and the end after a failure.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use bytes::Bytes;
use tokio::sync::mpsc;

use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::{Entry, EntryKind, HardState, Mark, Sync, Write};
use detcd_io::Fault;
use detcd_io::disk::{Disk, MemoryDisk};
use detcd_io::wal::fuzz::ready;
use detcd_io::wal::{Batch, Marked, Metadata, NOTHING, Options, Report, Room, Wal, Writer, read};

fn dir() -> &'static Path {
    Path::new("wal")
}

fn new_log(disk: &MemoryDisk) -> Wal<MemoryDisk> {
    let options = Options { segment_bytes: 4096, ..Options::new(dir()) };
    ready(Wal::create(disk.clone(), options, Metadata { member: MemberId(1), cluster: 2 }, &NOTHING)).unwrap()
}

fn batch(indexes: std::ops::RangeInclusive<u64>) -> Batch {
    let write = |index| {
        let payload = Bytes::from_static(b"payload");
        let entry = Entry { term: Term(1), index: Index(index), kind: EntryKind::Normal, payload };
        let hard_state = HardState { term: Term(1), vote: None, commit: Index(index) };
        Write { snapshot: None, entries: vec![entry], hard_state: Some(hard_state), sync: Sync::Required }
    };
    Batch { writes: indexes.map(write).collect(), mark: None }
}

/// Hands all batches in, lets the writer run to its end, and gives its reports as text.
fn run(wal: Wal<MemoryDisk>, batches: Vec<Batch>) -> Vec<String> {
    let (batch_sender, batch_receiver) = mpsc::channel(100);
    let (report_sender, mut report_receiver) = mpsc::channel(100);
    for batch in batches {
        batch_sender.try_send(batch).unwrap();
    }
    drop(batch_sender);
    ready(Writer::new(wal, batch_receiver, report_sender).run());
    let mut reports = Vec::new();
    while let Ok(report) = report_receiver.try_recv() {
        reports.push(match report {
            Report::Persisted { writes } => format!("persisted {writes}"),
            Report::Marked { index } => format!("marked {index}"),
            Report::Room(Room::None) => "no room".to_owned(),
            Report::Room(Room::Enough) => "room".to_owned(),
            Report::Failed(Fault::Disk { op, .. }) => format!("failed {op}"),
            Report::Failed(other) => format!("failed: {other}"),
        });
    }
    reports
}

#[test]
fn what_waits_is_synced_once_and_counted() {
    let disk = MemoryDisk::new();
    let wal = new_log(&disk);
    let before = disk.syncs();
    assert_eq!(run(wal, vec![batch(1..=1), batch(2..=6), Batch::default(), batch(7..=7)]), ["persisted 7"]);
    assert_eq!(disk.syncs(), before + 2, "one for the group, one for the clean end");
    assert_eq!(ready(read(&disk, dir(), Mark::ZERO)).unwrap().entries.len(), 7);
}

#[test]
fn a_mark_is_reported_after_the_writes_before_it() {
    let disk = MemoryDisk::new();
    let mark = Mark { index: Index(2), term: Term(1) };
    let marked = Batch { mark: Some(Marked { mark, conf_state: None }), ..batch(1..=2) };
    assert_eq!(run(new_log(&disk), vec![marked]), ["persisted 2", "marked 2"]);
    assert!(ready(read(&disk, dir(), mark)).unwrap().entries.is_empty());
}

#[test]
fn a_failed_sync_is_the_last_thing_the_log_does() {
    let disk = MemoryDisk::new();
    let wal = new_log(&disk);
    disk.fail_syncs(1);
    let before = disk.syncs();
    assert_eq!(run(wal, vec![batch(1..=3), batch(4..=4)]), ["failed sync"]);
    assert_eq!(disk.syncs(), before + 1);
}

#[test]
fn a_failure_before_the_first_batch_is_the_last_thing_too() {
    let disk = MemoryDisk::new();
    let wal = new_log(&disk);
    // In the place of the file that is made ahead of need.
    ready(disk.create_dir_all(&dir().join("0.tmp"))).unwrap();
    assert_eq!(run(wal, vec![batch(1..=3)]), ["failed create"]);
    assert!(ready(read(&disk, dir(), Mark::ZERO)).unwrap().entries.is_empty());
}

#[test]
fn a_full_disk_closes_the_door_and_room_opens_it_again() {
    let disk = MemoryDisk::new();
    let wal = new_log(&disk);
    disk.limit_allocation(Some(0));
    assert_eq!(run(wal, vec![batch(1..=2)]), ["no room", "persisted 2"]);
    let options = Options { segment_bytes: 4096, ..Options::new(dir()) };
    let (wal, recovered) = ready(Wal::open(disk.clone(), options, Mark::ZERO)).unwrap();
    assert_eq!(recovered.entries.len(), 2);

    let (batch_sender, batch_receiver) = mpsc::channel(1);
    let (report_sender, mut report_receiver) = mpsc::channel(10);
    let mut writer = Box::pin(Writer::new(wal, batch_receiver, report_sender).run());
    let mut poll = || {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        writer.as_mut().poll(&mut context).is_ready()
    };
    assert!(!poll());
    assert!(matches!(report_receiver.try_recv(), Ok(Report::Room(Room::None))));
    disk.limit_allocation(None);
    batch_sender.try_send(Batch::default()).unwrap();
    assert!(!poll());
    assert!(matches!(report_receiver.try_recv(), Ok(Report::Room(Room::Enough))));
    drop(batch_sender);
    assert!(poll());
    assert!(report_receiver.try_recv().is_err());
}
