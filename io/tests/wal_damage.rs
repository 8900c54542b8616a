//! Bytes that are lost or changed, at every place of a small log: what is read is a prefix of what was written, or an error that names the
//! file and a place before the damage. Nothing panics, and nothing is wiped without a copy.
#![allow(clippy::unwrap_used)]

mod twin;

use std::path::{Path, PathBuf};

use bytes::Bytes;

use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::{Entry, EntryKind, HardState, Mark, Sync, Write};
use detcd_io::disk::{Disk, MemoryDisk};
use detcd_io::wal::fuzz::ready;
use detcd_io::wal::{DecodeError, Floor, Metadata, NOTHING, Options, Recovered, Wal, WalError, names};
use twin::{Frame, frames, replay};

const SEGMENT_BYTES: u64 = 4096;

fn dir() -> &'static Path {
    Path::new("wal")
}

fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES, ..Options::new(dir()) }
}

fn file() -> PathBuf {
    dir().join("0000000000000000-0000000000000000.wal")
}

/// The bytes of a log of one file with all kinds of records, some of them longer than a sector.
fn sample() -> Vec<u8> {
    let disk = MemoryDisk::new();
    let metadata = Metadata { member: MemberId(u64::MAX), cluster: 5 };
    let mut wal = ready(Wal::create(disk.clone(), options(), metadata, &NOTHING)).unwrap();
    for (index, length) in [(1, 0), (2, 5), (3, 600), (4, 17), (3, 1100), (4, 1)] {
        let payload = Bytes::from((0..length).map(|byte| (byte % 251) as u8 + 1).collect::<Vec<_>>());
        let entry = Entry { term: Term(2), index: Index(index), kind: EntryKind::Normal, payload };
        let hard_state = HardState { term: Term(2), vote: Some(MemberId(9)), commit: Index(index / 2) };
        wal.append(&Write { snapshot: None, entries: vec![entry], hard_state: Some(hard_state), sync: Sync::Required });
    }
    ready(wal.close()).unwrap();
    disk.bytes(&file()).unwrap()
}

/// A log that holds only this file.
fn disk_with(bytes: &[u8]) -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.put(&file(), bytes.to_vec());
    disk
}

fn open(disk: &MemoryDisk) -> Result<Recovered, WalError> {
    ready(Wal::open_repairing(disk.clone(), options(), Mark::ZERO, None)).map(|(_, recovered)| recovered)
}

/// How many of the records were read, at least; `None` if it is no prefix at all.
fn prefix(frames: &[Frame], recovered: &Recovered) -> Option<usize> {
    (0..=frames.len()).rev().find(|count| {
        let (hard_state, entries) = replay(&frames[..*count], 0);
        hard_state == recovered.hard_state && entries == recovered.entries
    })
}

/// The promise, for a log whose first changed byte is at `place`.
fn check(sound: &[Frame], damaged: &[u8], place: usize) {
    let disk = disk_with(damaged);
    let intact = sound.iter().take_while(|frame| frame.end <= place).count();
    match open(&disk) {
        Ok(recovered) => {
            let read = prefix(sound, &recovered);
            assert!(read.is_some_and(|read| intact <= read), "no prefix after damage at {place}");
            // The tail may have grown by the zeros that make its last frame head whole.
            let kept = disk.bytes(&file()).unwrap();
            let was_cut = !kept.starts_with(damaged) || kept[damaged.len()..].iter().any(|byte| *byte != 0);
            let copies = ready(disk.list(dir())).unwrap().len() - 1;
            assert_eq!(was_cut, copies == 1, "what is changed is kept, after damage at {place}");
            assert_eq!(open(&disk).unwrap(), recovered, "it opens again, after damage at {place}");
        }
        Err(WalError::Damaged(DecodeError { file: named, offset, kind })) => {
            assert_eq!(named, file());
            // The head's checksum is taken on trust and contradicted by the next record.
            assert!(offset <= sound[intact].end as u64, "{kind} at {offset} after damage at {place}");
            assert!(
                intact == 0 || sound[intact - 1].end as u64 <= offset,
                "{kind} at {offset} after damage at {place}"
            );
            assert_eq!(disk.bytes(&file()).unwrap(), damaged, "damage is not touched");
        }
        Err(WalError::NoMetadata { .. } | WalError::SnapshotNotFound { .. }) => {
            assert!(intact < 3, "the head is whole before {place}");
        }
        Err(other) => panic!("{other} after damage at {place}"),
    }
}

#[test]
fn a_changed_byte_anywhere() {
    let bytes = sample();
    let sound = frames(&bytes, &mut 0);
    let end = sound.last().unwrap().end;
    for place in 0..end {
        for change in [0x01, 0x80, 0xff, bytes[place]] {
            if change == 0 {
                continue;
            }
            let mut damaged = bytes.clone();
            damaged[place] ^= change;
            check(&sound, &damaged, place);
        }
    }
}

/// Where the store has gone beyond a place, nothing there passes for a write that a crash cut off.
#[test]
fn a_changed_byte_below_what_the_store_has_is_refused() {
    let bytes = sample();
    let sound = frames(&bytes, &mut 0);
    let applied = Index(4);
    let floor = Some(Floor { member: MemberId(u64::MAX), applied });
    let mut refused = 0;
    for place in 0..sound.last().unwrap().end {
        for damaged in [changed(&bytes, place, 0x08), changed(&bytes, place, bytes[place]), bytes[..place].to_vec()] {
            let disk = disk_with(&damaged);
            match ready(Wal::open_repairing(disk.clone(), options(), Mark::ZERO, floor)) {
                Ok((_, recovered)) => {
                    let last = recovered.entries.last().map_or(Index::ZERO, |entry| entry.index);
                    assert!(applied <= last, "the log ends at {last} after damage at {place}");
                }
                Err(error) => {
                    refused += 1;
                    let names = matches!(&error, WalError::Damaged(error) if error.file == file());
                    let is_headless = matches!(error, WalError::NoMetadata { .. } | WalError::SnapshotNotFound { .. });
                    assert!(names || is_headless, "{error} after damage at {place}");
                    assert_eq!(disk.bytes(&file()).unwrap(), damaged, "it is left as it is, after damage at {place}");
                    assert_eq!(ready(disk.list(dir())).unwrap().len(), 1, "and alone, after damage at {place}");
                }
            }
        }
    }
    assert!(refused > bytes.len() / 2, "only {refused} were refused");
    // Another member's store says nothing about this log.
    let other = Some(Floor { member: MemberId(1), applied });
    assert!(ready(Wal::open_repairing(disk_with(&bytes[..300]), options(), Mark::ZERO, other)).is_ok());
}

fn changed(bytes: &[u8], place: usize, change: u8) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[place] ^= change;
    changed
}

#[test]
fn a_file_that_ends_anywhere() {
    let bytes = sample();
    let sound = frames(&bytes, &mut 0);
    for length in 0..=bytes.len() {
        let disk = disk_with(&bytes[..length]);
        let intact = sound.iter().take_while(|frame| frame.end <= length).count();
        match open(&disk) {
            Ok(recovered) => {
                let (hard_state, entries) = replay(&sound[..intact], 0);
                assert_eq!((recovered.hard_state, recovered.entries), (hard_state, entries), "length {length}");
            }
            Err(WalError::NoMetadata { .. } | WalError::SnapshotNotFound { .. }) => assert!(intact < 3),
            Err(other) => panic!("{other} at length {length}"),
        }
    }
}

#[test]
fn a_sector_that_was_never_written() {
    let bytes = sample();
    let sound = frames(&bytes, &mut 0);
    let end = sound.last().unwrap().end;
    for sector in 1..end.div_ceil(512) {
        let mut damaged = bytes.clone();
        damaged[sector * 512..(sector + 1) * 512].fill(0);
        let disk = disk_with(&damaged);
        let recovered = open(&disk).unwrap_or_else(|error| panic!("{error} without sector {sector}"));
        assert!(
            prefix(&sound, &recovered)
                .is_some_and(|read| { sound.iter().take_while(|frame| frame.end <= sector * 512).count() <= read })
        );
    }
}

#[test]
fn a_file_of_noise_or_with_a_giant_length() {
    let mut state = 1_u64;
    for length in (0..2000).step_by(7) {
        let noise = (0..length).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        });
        let disk = disk_with(&noise.collect::<Vec<_>>());
        assert!(open(&disk).is_err(), "length {length}");
    }
    let mut giant = sample();
    let end = frames(&giant, &mut 0).last().unwrap().end;
    giant[end..end + 8].copy_from_slice(&[0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    assert!(open(&disk_with(&giant)).is_ok(), "cut off at the end of the last record");
    giant[end..end + 8].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    let refused = open(&disk_with(&giant));
    assert!(matches!(refused, Err(WalError::Damaged(_))), "no writer gives a record this head: {refused:?}");
    assert_eq!(ready(names(&disk_with(&giant), dir())).unwrap().len(), 1);
}
