//! The log's own promises, one test each, over a disk in memory.

use bytes::Bytes;

use detcd_core::ids::{MemberId, Term};
use detcd_core::raft::{Configuration, Entry, EntryKind, Snapshot};
use detcd_proto::raftpb;

use super::fuzz::{self, ready};
use super::*;
use crate::disk::{Access, MemoryDisk};

mod received;

const METADATA: Metadata = Metadata { member: MemberId(7), cluster: 300 };

fn options(segment_bytes: u64) -> Options {
    Options { segment_bytes, ..Options::new("member/wal") }
}

fn new_log(segment_bytes: u64) -> (MemoryDisk, Wal<MemoryDisk>) {
    let disk = MemoryDisk::new();
    ready(disk.create_dir_all(Path::new("member"))).unwrap();
    let wal = ready(Wal::create(disk.clone(), options(segment_bytes), METADATA, &NOTHING)).unwrap();
    (disk, wal)
}

fn entry(index: u64, payload: &'static str) -> Entry {
    let payload = Bytes::from_static(payload.as_bytes());
    Entry { term: Term(1), index: Index(index), kind: EntryKind::Normal, payload }
}

fn state(term: u64, commit: u64) -> HardState {
    HardState { term: Term(term), vote: Some(MemberId(7)), commit: Index(commit) }
}

fn write(entries: Vec<Entry>, hard_state: Option<HardState>) -> Write {
    Write { snapshot: None, entries, hard_state, sync: Sync::Required }
}

fn marked(index: u64) -> Marked {
    let conf_state = raftpb::ConfState { voters: vec![7], auto_leave: Some(false), ..Default::default() };
    Marked { mark: Mark { index: Index(index), term: Term(1) }, conf_state: Some(conf_state) }
}

/// Appends single entries until so many files are there; says the last index.
fn fill(wal: &mut Wal<MemoryDisk>, files: usize) -> u64 {
    let mut index = 0;
    while wal.segments.len() < files {
        index += 1;
        wal.append(&write(vec![entry(index, "some payload of some length")], Some(state(1, index))));
        ready(wal.cut_if_full()).unwrap();
    }
    ready(wal.sync()).unwrap();
    index
}

fn reopen(disk: &MemoryDisk, segment_bytes: u64, start: Mark) -> Result<Recovered, WalError> {
    ready(Wal::open(disk.clone(), options(segment_bytes), start)).map(|(_, recovered)| recovered)
}

fn file(name: &str) -> PathBuf {
    Path::new("member/wal").join(name)
}

const FIRST: &str = "0000000000000000-0000000000000000.wal";

#[test]
fn a_new_log_is_that_of_etcd_to_the_byte() {
    let (disk, _wal) = new_log(4096);
    let bytes = disk.bytes(&file(FIRST)).unwrap();
    assert_eq!(bytes.len(), 4096);
    assert_eq!(bytes[..16], [0x04, 0, 0, 0, 0, 0, 0, 0x84, 0x08, 0x04, 0x10, 0, 0, 0, 0, 0]);

    let (mut wanted, mut crc) = (Vec::new(), 0);
    for (kind, data) in [(1, &[0x08, 7, 0x10, 0xac, 0x02][..]), (5, &[0x08, 0, 0x10, 0])] {
        crc = crc32c::crc32c_append(crc, data);
        let mut body = vec![0x08, kind, 0x10];
        prost::encoding::encode_varint(u64::from(crc), &mut body);
        body.extend_from_slice(&[0x1a, data.len() as u8]);
        body.extend_from_slice(data);
        let pad = (8 - body.len() % 8) % 8;
        let top = if pad == 0 { 0 } else { 0x80 | pad as u8 };
        wanted.extend_from_slice(&[body.len() as u8, 0, 0, 0, 0, 0, 0, top]);
        wanted.extend_from_slice(&body);
        wanted.resize(wanted.len() + pad, 0);
    }
    assert_eq!(bytes[16..16 + wanted.len()], wanted[..]);
    assert!(bytes[16 + wanted.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_log_is_not_made_where_something_is() {
    let (disk, wal) = new_log(4096);
    drop(wal);
    let again = ready(Wal::create(disk.clone(), options(4096), METADATA, &NOTHING));
    assert!(matches!(again.err(), Some(WalError::Exists { .. })));
    assert!(reopen(&disk, 4096, Mark::ZERO).is_ok());
}

#[test]
fn what_was_synced_is_read_back_and_what_was_not_is_not() {
    let (disk, mut wal) = new_log(4096);
    wal.append(&write(vec![entry(1, "a"), entry(2, "")], Some(state(1, 1))));
    ready(wal.sync()).unwrap();
    wal.append(&write(vec![entry(3, "lost")], None));
    drop(wal);
    let recovered = reopen(&disk, 4096, Mark::ZERO).unwrap();
    let entries = vec![entry(1, "a"), entry(2, "")];
    assert_eq!(recovered, Recovered { metadata: METADATA, hard_state: state(1, 1), entries });
}

#[test]
fn many_writes_cost_one_sync_and_a_moved_commit_none() {
    let (disk, mut wal) = new_log(1 << 20);
    let before = disk.syncs();
    for index in 1..=100 {
        wal.append(&write(vec![entry(index, "a")], None));
    }
    wal.append(&write(Vec::new(), Some(state(1, 50))));
    ready(wal.sync()).unwrap();
    assert_eq!(disk.syncs(), before + 1);
    wal.append(&Write { snapshot: None, entries: Vec::new(), hard_state: Some(state(1, 100)), sync: Sync::NotNeeded });
    ready(wal.sync()).unwrap();
    assert_eq!(disk.syncs(), before + 1);
    ready(wal.close()).unwrap();
    assert_eq!(reopen(&disk, 1 << 20, Mark::ZERO).unwrap().hard_state, state(1, 100));
}

#[test]
fn a_later_entry_overrules_what_stood_there_and_behind() {
    let (disk, mut wal) = new_log(4096);
    wal.append(&write((1..=5).map(|index| entry(index, "old")).collect(), None));
    wal.append(&write(vec![entry(3, "new")], None));
    ready(wal.sync()).unwrap();
    drop(wal);
    let entries = reopen(&disk, 4096, Mark::ZERO).unwrap().entries;
    assert_eq!(entries, [entry(1, "old"), entry(2, "old"), entry(3, "new")]);
}

#[test]
fn a_gap_is_damage_with_a_place() {
    let (disk, mut wal) = new_log(4096);
    wal.append(&write(vec![entry(1, "a")], None));
    ready(wal.sync()).unwrap();
    let end = wal.end.offset;
    wal.append(&write(vec![entry(3, "c")], None));
    ready(wal.sync()).unwrap();
    drop(wal);
    let WalError::Damaged(error) = reopen(&disk, 4096, Mark::ZERO).unwrap_err() else { panic!("damaged") };
    assert_eq!(error.kind, DecodeErrorKind::Gap { index: 3, last: 1 });
    assert_eq!((error.file, error.offset), (file(FIRST), end));
}

#[test]
fn full_files_are_cut_to_their_length_and_the_next_begins_with_what_is_needed() {
    let (disk, mut wal) = new_log(512);
    let last = fill(&mut wal, 4);
    let cuts = wal.segments.iter().map(|segment| segment.name).collect::<Vec<_>>();
    assert_eq!(cuts.iter().map(|name| name.seq).collect::<Vec<_>>(), [0, 1, 2, 3]);
    ready(wal.close()).unwrap();
    for name in &cuts[..3] {
        let length = disk.bytes(&file(&name.to_string())).unwrap().len();
        assert!((512..700).contains(&length), "{length}");
    }
    let recovered = reopen(&disk, 512, Mark::ZERO).unwrap();
    assert_eq!(recovered.entries.len() as u64, last);
    assert_eq!(recovered.hard_state, state(1, last));
    // The head alone says whose log it is and the newest state.
    let names = ready(names(&disk, Path::new("member/wal"))).unwrap();
    assert_eq!(names, cuts);
    assert_eq!(cuts[3].index, Index(last + 1));
}

#[test]
fn a_mark_releases_only_the_files_before_the_one_that_may_hold_it() {
    let (disk, mut wal) = new_log(512);
    let last = fill(&mut wal, 4);
    let second = wal.segments[2].name.index;
    ready(wal.save_mark(&marked(second.0))).unwrap();
    assert_eq!(wal.segments.front().unwrap().name.seq, 1, "file 2 starts at the mark; file 1 precedes it");
    assert_eq!(
        ready(purge(&disk, Path::new("member/wal"), 1, Index(last))).unwrap(),
        1,
        "purge stops at a locked file"
    );
    ready(wal.save_mark(&marked(last))).unwrap();
    assert_eq!(wal.segments.len(), 2);
    ready(wal.close()).unwrap();
    let purged = |mark: Index| ready(purge(&disk, Path::new("member/wal"), 2, mark)).unwrap();
    assert_eq!(purged(second), 0, "nobody has a lock any more, and the mark still needs what precedes it");
    assert_eq!(purged(Index(last)), 1);

    let found = ready(marks(&disk, Path::new("member/wal"))).unwrap();
    assert_eq!(found.last(), Some(&marked(last)));
    let start = found.last().unwrap().mark;
    assert!(reopen(&disk, 512, start).unwrap().entries.is_empty());
    let other_term = Mark { term: Term(9), ..start };
    let WalError::Damaged(error) = reopen(&disk, 512, other_term).unwrap_err() else { panic!("damaged") };
    assert_eq!(error.kind, DecodeErrorKind::SnapshotMismatch);
    assert!(matches!(reopen(&disk, 512, Mark::ZERO), Err(WalError::FileNotFound { .. })));
}

/// Opens at the newest mark, where one believes it to be.
fn open_newest(disk: &MemoryDisk, believed: Mark) -> Result<(Recovered, Mark), WalError> {
    // A reader reads what a member that opens it does, before that mends anything.
    let read = ready(read_newest(disk, &options(512).dir, believed)).ok();
    let (_, recovered, newest) = ready(Wal::open_newest(disk.clone(), options(512), believed, None))?;
    assert_eq!(read.as_ref(), Some(&recovered));
    Ok((recovered, newest))
}

#[test]
fn files_before_the_newest_mark_are_read_only_to_look_for_it() {
    let (disk, mut wal) = new_log(512);
    let last = fill(&mut wal, 4);
    let (first, newest) = (wal.segments[0].path.clone(), marked(last));
    ready(wal.save_mark(&marked(2))).unwrap();
    ready(wal.save_mark(&newest)).unwrap();
    ready(wal.close()).unwrap();
    let mark = |index, term| Mark { index: Index(index), term: Term(term) };
    // An older one, none, one of another term, and two that the log does not have.
    for wrong in [mark(2, 1), Mark::ZERO, mark(last, 2), mark(last - 1, 1), mark(last + 9, 1)] {
        let (recovered, found) = open_newest(&disk, wrong).unwrap();
        assert_eq!((recovered.entries, found), (Vec::new(), newest.mark), "{wrong:?}");
    }

    let mut bytes = disk.bytes(&first).unwrap();
    bytes[40] ^= 1;
    disk.put(&first, bytes);
    assert_eq!(open_newest(&disk, newest.mark).unwrap().1, newest.mark);
    assert!(matches!(open_newest(&disk, mark(last - 1, 1)), Err(WalError::Damaged(error)) if error.file == first));
}

#[test]
fn a_mark_that_is_believed_but_not_committed_is_not_started_from() {
    let (disk, mut wal) = new_log(512);
    wal.append(&write(vec![entry(1, "a"), entry(2, "b")], Some(state(1, 1))));
    ready(wal.save_mark(&marked(1))).unwrap();
    ready(wal.save_mark(&marked(2))).unwrap();
    ready(wal.close()).unwrap();
    for believed in [marked(1).mark, marked(2).mark, Mark::ZERO] {
        let (recovered, newest) = open_newest(&disk, believed).unwrap();
        assert_eq!((recovered.entries, newest), (vec![entry(2, "b")], marked(1).mark));
    }
}

#[test]
fn an_unfinished_write_is_repaired_wherever_the_newest_mark_is_believed() {
    for believed in [marked(1).mark, Mark::ZERO] {
        let (disk, mut wal) = new_log(4096);
        wal.append(&write(vec![entry(1, "a"), entry(2, "b")], Some(state(1, 1))));
        ready(wal.save_mark(&marked(1))).unwrap();
        let end = wal.end.offset;
        wal.append(&write(vec![entry(3, "this one is cut off")], None));
        ready(wal.sync()).unwrap();
        drop(wal);
        let mut bytes = disk.bytes(&file(FIRST)).unwrap();
        bytes.truncate(end as usize + 20);
        disk.put(&file(FIRST), bytes.clone());
        assert_eq!(open_newest(&disk, believed).unwrap().0.entries, [entry(2, "b")]);
        assert_eq!(disk.bytes(&file(&format!("{FIRST}.broken"))), Some(bytes));
    }
}

#[test]
fn a_mark_beyond_the_commit_is_not_started_from() {
    let (disk, mut wal) = new_log(4096);
    wal.append(&write(vec![entry(1, "a"), entry(2, "b")], Some(state(1, 1))));
    ready(wal.save_mark(&marked(2))).unwrap();
    drop(wal);
    let found = ready(marks(&disk, Path::new("member/wal"))).unwrap();
    assert_eq!(found, [Marked { mark: Mark::ZERO, conf_state: None }]);
}

#[test]
fn an_open_log_locks_others_out() {
    let (disk, wal) = new_log(4096);
    let second = reopen(&disk, 4096, Mark::ZERO);
    assert!(matches!(second, Err(WalError::Fault(Fault::Locked { path })) if path == file(FIRST)));
    assert!(ready(read(&disk, Path::new("member/wal"), Mark::ZERO)).is_ok(), "reading needs no lock");
    drop(wal);
    assert!(reopen(&disk, 4096, Mark::ZERO).is_ok());
}

#[test]
fn a_cut_off_write_is_repaired_once_and_a_copy_kept() {
    let (disk, mut wal) = new_log(4096);
    wal.append(&write(vec![entry(1, "a")], Some(state(1, 0))));
    ready(wal.sync()).unwrap();
    let end = wal.end.offset;
    wal.append(&write(vec![entry(2, "this one is cut off")], None));
    ready(wal.sync()).unwrap();
    drop(wal);
    let mut bytes = disk.bytes(&file(FIRST)).unwrap();
    bytes.truncate(end as usize + 20);
    disk.put(&file(FIRST), bytes.clone());

    assert!(reopen(&disk, 4096, Mark::ZERO).unwrap_err().is_repairable());
    assert_eq!(disk.bytes(&file(FIRST)), Some(bytes.clone()), "opening alone changes nothing");
    assert_eq!(ready(read(&disk, Path::new("member/wal"), Mark::ZERO)).unwrap().entries, [entry(1, "a")]);
    let (wal, recovered) = ready(Wal::open_repairing(disk.clone(), options(4096), Mark::ZERO, None)).unwrap();
    assert_eq!(recovered.entries, [entry(1, "a")]);
    assert_eq!(disk.bytes(&file(FIRST)).unwrap().len() as u64, end, "a repaired file is not extended again");
    assert_eq!(disk.bytes(&file(&format!("{FIRST}.broken"))), Some(bytes));
    drop(wal);
    assert_eq!(ready(repair(&disk, Path::new("member/wal"))).unwrap(), Repaired::Sound);
}

#[test]
fn damage_in_an_earlier_file_is_not_repaired() {
    let (disk, mut wal) = new_log(512);
    fill(&mut wal, 3);
    let second = wal.segments[1].path.clone();
    ready(wal.close()).unwrap();
    let mut bytes = disk.bytes(&second).unwrap();
    bytes.truncate(bytes.len() - 8);
    disk.put(&second, bytes.clone());
    let error = ready(Wal::open_repairing(disk.clone(), options(512), Mark::ZERO, None)).err().unwrap();
    assert!(matches!(error, WalError::Damaged(DecodeError { file, .. }) if file == second));
    assert_eq!(disk.bytes(&second), Some(bytes));
}

#[test]
fn a_mark_beyond_the_entries_names_the_next_file() {
    let (disk, mut wal) = new_log(512);
    wal.append(&write(vec![entry(1, "a")], Some(state(1, 1))));
    ready(wal.save_mark(&marked(10))).unwrap();
    ready(wal.close()).unwrap();
    let (mut wal, recovered) = ready(Wal::open(disk, options(512), marked(10).mark)).unwrap();
    assert_eq!(recovered.entries, [], "the entry lies before the mark");
    wal.append(&write(Vec::new(), Some(state(2, 10))));
    while wal.segments.len() < 2 {
        wal.append(&write(Vec::new(), Some(state(2, 10))));
        ready(wal.cut_if_full()).unwrap();
    }
    assert_eq!(wal.segments[1].name, Name { seq: 1, index: Index(11) });
}

#[test]
fn a_file_begins_with_the_state_of_an_earlier_life() {
    let (disk, mut wal) = new_log(512);
    wal.append(&write(vec![entry(1, "a")], Some(state(3, 1))));
    ready(wal.close()).unwrap();
    let (mut wal, _) = ready(Wal::open(disk.clone(), options(512), Mark::ZERO)).unwrap();
    let mut index = 1;
    while wal.segments.len() < 2 {
        index += 1;
        wal.append(&write(vec![entry(index, "some payload of some length")], None));
        ready(wal.cut_if_full()).unwrap();
    }
    wal.append(&write(vec![entry(index + 1, "")], None));
    ready(wal.save_mark(&marked(index + 1))).unwrap();
    ready(wal.close()).unwrap();
    disk.put(&file(FIRST), Vec::new());
    let recovered = reopen(&disk, 512, marked(index + 1).mark).unwrap();
    assert_eq!(recovered.hard_state, state(3, 1), "the first file may be gone by now");
}

#[test]
fn a_start_without_its_record_is_refused() {
    let (disk, mut wal) = new_log(4096);
    wal.append(&write(vec![entry(1, "a"), entry(2, "b")], Some(state(1, 2))));
    ready(wal.save_mark(&marked(1))).unwrap();
    ready(wal.close()).unwrap();
    assert_eq!(reopen(&disk, 4096, marked(1).mark).unwrap().entries, [entry(2, "b")]);
    let other_term = Mark { term: Term(2), ..marked(1).mark };
    let error = reopen(&disk, 4096, other_term).unwrap_err();
    assert!(matches!(&error, WalError::Damaged(damage) if damage.kind == DecodeErrorKind::SnapshotMismatch), "{error}");
    assert!(matches!(reopen(&disk, 4096, marked(2).mark), Err(WalError::SnapshotNotFound { index: 2, .. })));
}

#[test]
fn a_repair_cuts_nothing_that_rotted() {
    let (disk, mut wal) = new_log(512);
    fill(&mut wal, 3);
    let (second, last) = (wal.segments[1].path.clone(), wal.segments[2].path.clone());
    ready(wal.close()).unwrap();
    let mut torn = disk.bytes(&second).unwrap();
    torn.truncate(torn.len() - 8);
    disk.put(&second, torn);
    let mut rotten = disk.bytes(&last).unwrap();
    // In the data of the metadata record, behind the checksum's frame.
    rotten[16 + 8 + 10] ^= 1;
    disk.put(&last, rotten.clone());
    let error = ready(Wal::open_repairing(disk.clone(), options(512), Mark::ZERO, None)).err().unwrap();
    assert!(matches!(&error, WalError::Damaged(DecodeError { file, .. }) if *file == last), "{error}");
    assert!(!error.is_repairable());
    assert_eq!(disk.bytes(&last), Some(rotten));
    assert_eq!(ready(disk.list(Path::new("member/wal"))).unwrap().len(), 3, "no copy is needed of what is not cut");
}

#[test]
fn where_there_is_no_file_there_is_no_mark() {
    let disk = MemoryDisk::new();
    ready(disk.create_dir_all(Path::new("member/wal"))).unwrap();
    let found = ready(marks(&disk, Path::new("member/wal")));
    assert!(matches!(found, Err(WalError::FileNotFound { index: 0, .. })));
}

#[test]
fn a_vote_and_what_asks_for_it_is_synced() {
    let (disk, mut wal) = new_log(4096);
    wal.append(&write(Vec::new(), Some(state(1, 0))));
    ready(wal.sync()).unwrap();
    let voted_anew = HardState { vote: Some(MemberId(8)), ..state(1, 0) };
    let rows = [
        (Sync::NotNeeded, state(1, 1), 0),
        (Sync::NotNeeded, state(2, 1), 1),
        (Sync::NotNeeded, voted_anew, 1),
        (Sync::NotNeeded, voted_anew, 0),
        (Sync::Required, voted_anew, 1),
    ];
    for (sync, changed, syncs) in rows {
        let before = disk.syncs();
        wal.append(&Write { sync, ..write(Vec::new(), Some(changed)) });
        ready(wal.sync()).unwrap();
        assert_eq!(disk.syncs() - before, syncs, "{changed:?}");
    }
}

#[test]
fn what_needs_no_sync_waits_in_memory_only_so_long() {
    let (disk, mut wal) = new_log(1 << 20);
    wal.append(&write(Vec::new(), Some(state(1, 1))));
    ready(wal.sync()).unwrap();
    let syncs = disk.syncs();
    for commit in 2..20_000 {
        wal.append(&Write { sync: Sync::NotNeeded, ..write(Vec::new(), Some(state(1, commit))) });
        ready(wal.sync()).unwrap();
        assert!(wal.end.pending.len() < LAZY_BYTES_MAX);
    }
    assert_eq!(disk.syncs(), syncs);
}

#[test]
fn only_the_last_file_can_have_a_torn_write() {
    let (disk, mut wal) = new_log(1024);
    let long = Entry { payload: Bytes::from(vec![7; 1500]), ..entry(1, "") };
    wal.append(&write(vec![long], None));
    ready(wal.cut_if_full()).unwrap();
    wal.append(&write(vec![entry(2, "a")], Some(state(1, 2))));
    ready(wal.close()).unwrap();
    let mut bytes = disk.bytes(&file(FIRST)).unwrap();
    bytes[512..1024].fill(0);
    disk.put(&file(FIRST), bytes.clone());
    let error = ready(Wal::open_repairing(disk.clone(), options(1024), Mark::ZERO, None)).err().unwrap();
    let WalError::Damaged(DecodeError { kind, .. }) = &error else { panic!("{error}") };
    assert!(matches!(kind, DecodeErrorKind::Crc { .. }) && !error.is_repairable());
    assert_eq!(disk.bytes(&file(FIRST)), Some(bytes));
}

#[test]
fn rotten_records_behind_the_end_are_kept_before_they_are_wiped() {
    let (disk, mut wal) = new_log(4096);
    wal.append(&write(vec![entry(1, "a")], None));
    ready(wal.sync()).unwrap();
    let end = wal.end.offset as usize;
    wal.append(&write(vec![entry(2, "b")], None));
    ready(wal.sync()).unwrap();
    drop(wal);
    let mut bytes = disk.bytes(&file(FIRST)).unwrap();
    bytes[end..end + 8].fill(0);
    disk.put(&file(FIRST), bytes.clone());
    assert_eq!(reopen(&disk, 4096, Mark::ZERO).unwrap().entries, [entry(1, "a")]);
    assert_eq!(disk.bytes(&file(&format!("{FIRST}.broken"))), Some(bytes));
    assert!(disk.bytes(&file(FIRST)).unwrap()[end..].iter().all(|byte| *byte == 0));
}

#[test]
fn after_a_failed_sync_nothing_is_written_or_synced() {
    let (disk, mut wal) = new_log(4096);
    wal.append(&write(vec![entry(1, "a")], None));
    disk.fail_syncs(1);
    assert!(matches!(ready(wal.sync()), Err(Fault::Disk { op: "sync", .. })));
    let (bytes, syncs) = (disk.bytes(&file(FIRST)), disk.syncs());
    wal.append(&write(vec![entry(2, "b")], None));
    assert!(matches!(ready(wal.sync()), Err(Fault::AfterFault { .. })));
    assert!(matches!(ready(wal.save_mark(&marked(1))), Err(Fault::AfterFault { .. })));
    assert!(matches!(ready(wal.prepare()), Err(Fault::AfterFault { .. })));
    assert!(matches!(ready(wal.close()), Err(Fault::AfterFault { .. })));
    assert_eq!((disk.bytes(&file(FIRST)), disk.syncs()), (bytes, syncs));
}

#[test]
fn without_room_the_file_grows_and_the_next_begins_when_there_is_room_again() {
    let (disk, mut wal) = new_log(512);
    disk.limit_allocation(Some(100));
    assert_eq!(ready(wal.prepare()).unwrap(), Room::None);
    for index in 1..=30 {
        wal.append(&write(vec![entry(index, "some payload of some length")], None));
        ready(wal.cut_if_full()).unwrap();
        ready(wal.sync()).unwrap();
    }
    assert_eq!(wal.segments.len(), 1);
    disk.limit_allocation(None);
    assert_eq!(ready(wal.prepare()).unwrap(), Room::Enough);
    ready(wal.cut_if_full()).unwrap();
    assert_eq!(wal.segments.len(), 2);
    ready(wal.close()).unwrap();
    assert_eq!(reopen(&disk, 512, Mark::ZERO).unwrap().entries.len(), 30);
}

#[test]
fn a_spare_file_that_is_ready_stays_the_only_one() {
    let (disk, mut wal) = new_log(512);
    for _ in 0..2 {
        assert_eq!(ready(wal.prepare()).unwrap(), Room::Enough);
        assert_eq!(ready(disk.list(Path::new("member/wal"))).unwrap(), ["0.tmp", FIRST]);
    }
}

#[test]
fn what_an_earlier_life_left_in_a_spare_file_is_wiped() {
    let (disk, mut wal) = new_log(512);
    disk.put(&file("0.tmp"), vec![0xff; 2000]);
    fill(&mut wal, 2);
    drop(wal);
    assert!(reopen(&disk, 512, Mark::ZERO).is_ok());
}

#[test]
fn foreign_names_are_passed_over() {
    let (disk, wal) = new_log(4096);
    drop(wal);
    disk.put(&file("notes.txt"), b"x".to_vec());
    disk.put(&file("0000000000000000-0000000000000000.wal.broken"), b"x".to_vec());
    assert_eq!(ready(names(&disk, Path::new("member/wal"))).unwrap().len(), 1);
    assert!(ready(disk.open(&file("notes.txt"), Access::Read)).is_ok());
}

#[test]
fn the_fuzzed_function_tells_a_log_from_noise() {
    let (disk, mut wal) = new_log(4096);
    wal.append(&write(vec![entry(1, "a")], Some(state(1, 0))));
    ready(wal.sync()).unwrap();
    let end = wal.end.offset as usize;
    let bytes = disk.bytes(&file(FIRST)).unwrap();
    assert_eq!(fuzz::decode_and_repair(&bytes), fuzz::Outcome::Opened { entries: 1, was_repaired: false });
    let cut = fuzz::decode_and_repair(&bytes[..end - 1]);
    assert_eq!(cut, fuzz::Outcome::Opened { entries: 1, was_repaired: true });
    assert!(matches!(fuzz::decode_and_repair(b"no log at all, nothing like it"), fuzz::Outcome::Refused(_)));
}
