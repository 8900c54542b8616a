//! The machine's own disk: the same calls as in memory, and locks that other processes see.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use bytes::Bytes;

use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::{Entry, EntryKind, HardState, Mark, Sync, Write};
use detcd_io::Fault;
use detcd_io::disk::{Access, Disk, File, Kind, Lock, RealDisk, exists, read_all, write_whole};
use detcd_io::wal::fuzz::ready;
use detcd_io::wal::{Metadata, NOTHING, Options, SEGMENT_BYTES, Wal, WalError, names, purge};

#[test]
fn a_log_lives_in_real_files() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("member").join("wal");
    ready(RealDisk.create_dir_all(dir.parent().unwrap())).unwrap();
    let options = Options { segment_bytes: 4096, ..Options::new(&dir) };
    let mut wal =
        ready(Wal::create(RealDisk, options.clone(), Metadata { member: MemberId(1), cluster: 2 }, &NOTHING)).unwrap();
    for index in 1..=200 {
        let payload = Bytes::from(vec![index as u8; 100]);
        let entry = Entry { term: Term(1), index: Index(index), kind: EntryKind::Normal, payload };
        let hard_state = HardState { term: Term(1), vote: None, commit: Index(index) };
        wal.append(&Write { snapshot: None, entries: vec![entry], hard_state: Some(hard_state), sync: Sync::Required });
        ready(wal.cut_if_full()).unwrap();
    }
    ready(wal.sync()).unwrap();
    let second = ready(Wal::open(RealDisk, options.clone(), Mark::ZERO));
    assert!(matches!(second.err(), Some(WalError::Fault(Fault::Locked { .. }))));
    assert_eq!(ready(purge(&RealDisk, &dir, 1, Index(u64::MAX))).unwrap(), 0, "all files are in use");
    ready(wal.close()).unwrap();
    let (wal, recovered) = ready(Wal::open(RealDisk, options, Mark::ZERO)).unwrap();
    assert_eq!(recovered.entries.len(), 200);
    drop(wal);
    let before = ready(names(&RealDisk, &dir)).unwrap().len();
    assert!(before > 5);
    assert_eq!(ready(purge(&RealDisk, &dir, 2, Index(u64::MAX))).unwrap(), before - 2);
    assert!(!ready(RealDisk.list(&dir)).unwrap().iter().any(|name| name.to_string_lossy().ends_with(".tmp")));
}

#[test]
fn a_new_log_takes_the_room_of_a_whole_file() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("wal");
    let wal = ready(Wal::create(RealDisk, Options::new(&dir), Metadata { member: MemberId(1), cluster: 2 }, &NOTHING))
        .unwrap();
    let stat = ready(RealDisk.stat(&dir.join("0000000000000000-0000000000000000.wal"))).unwrap();
    assert_eq!((stat.kind, stat.size_bytes, stat.mode), (Kind::File, SEGMENT_BYTES, 0o600));
    let stat = ready(RealDisk.stat(&dir)).unwrap();
    assert_eq!((stat.kind, stat.mode), (Kind::Directory, 0o700));
    drop(wal);
}

#[test]
fn room_that_was_never_written_holds_no_data() {
    const ROOM_BYTES: u64 = 8 << 20;
    let place = tempfile::tempdir().unwrap();
    let file = ready(RealDisk.open(&place.path().join("file"), Access::CreateNew)).unwrap();
    ready(file.allocate(ROOM_BYTES)).unwrap();
    ready(file.write_all_at(b"x", 5)).unwrap();
    ready(file.write_all_at(b"y", ROOM_BYTES / 2)).unwrap();
    let (mut place, mut bytes) = (0, [0]);
    let mut found = Vec::new();
    while let Some(data) = ready(file.data_from(place)).unwrap() {
        assert!(place <= data && data < ROOM_BYTES);
        ready(file.read_at(&mut bytes, data)).unwrap();
        found.extend(bytes.iter().copied().filter(|byte| *byte != 0));
        place = data + 1;
    }
    assert_eq!(found, b"xy", "nothing that was written is passed over");
    assert_eq!(ready(file.data_from(ROOM_BYTES)).unwrap(), None);
}

#[test]
fn a_lock_is_seen_by_every_other_open_file() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("lock");
    let first = ready(RealDisk.open(&path, Access::CreateNew)).unwrap();
    let second = ready(RealDisk.open(&path, Access::Write)).unwrap();
    assert_eq!(ready(first.lock()).unwrap(), Lock::Taken);
    assert_eq!(ready(second.lock()).unwrap(), Lock::Elsewhere);
    drop(first);
    assert_eq!(ready(second.lock()).unwrap(), Lock::Taken);
}

#[test]
fn files_are_written_whole_and_read_within_a_bound() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    ready(write_whole(&RealDisk, dir, "a", b"first, and longer")).unwrap();
    ready(write_whole(&RealDisk, dir, "a", b"second")).unwrap();
    assert_eq!(ready(read_all(&RealDisk, &dir.join("a"), 6)).unwrap(), b"second");
    let error = ready(read_all(&RealDisk, &dir.join("a"), 5)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge);
    assert_eq!(ready(RealDisk.list(dir)).unwrap(), ["a"]);
    assert!(!ready(exists(&RealDisk, Path::new("/no/such/file"))).unwrap());
}
