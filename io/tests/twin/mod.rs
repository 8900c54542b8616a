//! A slow, plain reader of log files, written apart from the real one: whole files in memory, one bit of checksum at a time.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::Path;

use bytes::Bytes;
use prost::Message;

use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::{Entry, EntryKind, HardState};
use detcd_io::disk::MemoryDisk;
use detcd_io::wal::names;
use detcd_proto::{raftpb, walpb};

/// A record and where its frame ends.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) end: usize,
    pub(crate) kind: i64,
    pub(crate) data: Bytes,
}

/// The records of a sound file.
pub(crate) fn frames(bytes: &[u8], crc: &mut u32) -> Vec<Frame> {
    let mut found = Vec::new();
    let mut place = 0;
    while place + 8 <= bytes.len() && bytes[place..place + 8] != [0; 8] {
        let length = usize::from(bytes[place])
            + (usize::from(bytes[place + 1]) << 8)
            + (usize::from(bytes[place + 2]) << 16)
            + (usize::from(bytes[place + 3]) << 24);
        let pad = usize::from(bytes[place + 7] & 7);
        let record = walpb::Record::decode(&bytes[place + 8..place + 8 + length]).expect("a record");
        let data = record.data.unwrap_or_default();
        if record.r#type == Some(4) {
            assert!(*crc == 0 || record.crc == Some(*crc), "the chain is broken at {place}");
            *crc = record.crc.expect("a checksum");
        } else {
            *crc = slow_crc(*crc, &data);
            assert_eq!(record.crc, Some(*crc), "wrong checksum at {place}");
        }
        place += 8 + length + pad;
        found.push(Frame { end: place, kind: record.r#type.expect("a type"), data });
    }
    found
}

/// The records of all files of a sound log.
pub(crate) fn all_frames(disk: &MemoryDisk, dir: &Path) -> Vec<Frame> {
    let mut crc = 0;
    let names = detcd_io::wal::fuzz::ready(names(disk, dir)).expect("names");
    names.iter().flat_map(|name| frames(&disk.bytes(&dir.join(name.to_string())).expect("bytes"), &mut crc)).collect()
}

/// What records say when read from `start` on.
pub(crate) fn replay(frames: &[Frame], start: u64) -> (HardState, Vec<Entry>) {
    let mut state = HardState::default();
    let mut entries: Vec<Entry> = Vec::new();
    for frame in frames {
        match frame.kind {
            2 => {
                let read = raftpb::Entry::decode(frame.data.clone()).expect("an entry");
                let kind = [EntryKind::Normal, EntryKind::ConfChange, EntryKind::ConfChangeV2]
                    [read.r#type.unwrap_or_default() as usize];
                let entry = Entry {
                    term: Term(read.term.expect("a term")),
                    index: Index(read.index.expect("an index")),
                    kind,
                    payload: read.data.unwrap_or_default(),
                };
                entries.retain(|earlier| earlier.index < entry.index);
                if entry.index.0 > start {
                    entries.push(entry);
                }
            }
            3 => {
                let read = raftpb::HardState::decode(frame.data.clone()).expect("a state");
                state = HardState {
                    term: Term(read.term.expect("a term")),
                    vote: read.vote.filter(|vote| *vote != 0).map(MemberId),
                    commit: Index(read.commit.expect("a commit")),
                };
            }
            _ => {}
        }
    }
    (state, entries)
}

fn slow_crc(before: u32, data: &[u8]) -> u32 {
    let mut crc = !before;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}
