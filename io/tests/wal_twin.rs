//! Random histories: what the log gives back is what a slow twin reads from its files, and what a list in memory remembers.
#![allow(clippy::unwrap_used)]

mod twin;

use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;

use detcd_core::ids::{Index, MemberId};
use detcd_core::raft::{Entry, EntryKind, HardState, Mark, Sync, Write};
use detcd_io::disk::MemoryDisk;
use detcd_io::wal::fuzz::ready;
use detcd_io::wal::{Marked, Metadata, NOTHING, Options, Wal, marks, read};
use detcd_proto::raftpb;

#[derive(Clone, Debug)]
enum Op {
    /// New entries, beginning so many places before the end.
    Append {
        back: u64,
        lengths: Vec<usize>,
        kind: EntryKind,
    },
    Vote {
        member: u64,
    },
    Commit,
    Mark,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![8 => Just(EntryKind::Normal), 1 => Just(EntryKind::ConfChange)];
    prop_oneof![
        6 => (0_u64..3, prop::collection::vec(0_usize..400, 1..4), kind).prop_map(|(back, mut lengths, kind)| {
            if kind != EntryKind::Normal {
                // A membership change has a body: one without is never written, and is refused when read.
                lengths.iter_mut().for_each(|length| *length = (*length).max(1));
            }
            Op::Append { back, lengths, kind }
        }),
        1 => (0_u64..3).prop_map(|member| Op::Vote { member }),
        2 => Just(Op::Commit),
        1 => Just(Op::Mark),
        1 => Just(Op::Reopen),
    ]
}

/// What the log should hold.
#[derive(Default)]
struct Model {
    entries: Vec<Entry>,
    state: HardState,
    mark: Mark,
}

impl Model {
    fn write(&mut self, op: &Op) -> Option<Write> {
        match op {
            Op::Append { back, lengths, kind } => {
                // What is committed is never overwritten.
                let first = (self.entries.len() as u64).saturating_sub(*back).max(self.state.commit.0) + 1;
                self.state.term = self.state.term.next();
                self.entries.truncate(first as usize - 1);
                let term = self.state.term;
                let new = lengths.iter().enumerate().map(|(place, length)| Entry {
                    term,
                    index: Index(first + place as u64),
                    kind: *kind,
                    payload: Bytes::from(vec![*length as u8; *length]),
                });
                let new = new.collect::<Vec<_>>();
                self.entries.extend(new.iter().cloned());
                Some(Write { snapshot: None, entries: new, hard_state: Some(self.state), sync: Sync::Required })
            }
            Op::Vote { member } => {
                self.state.term = self.state.term.next();
                self.state.vote = Some(*member).filter(|id| *id != 0).map(MemberId);
                Some(Write { snapshot: None, entries: Vec::new(), hard_state: Some(self.state), sync: Sync::Required })
            }
            Op::Commit => {
                self.state.commit = Index(self.entries.len() as u64);
                let is_first = self.state == HardState::default();
                let hard_state = Some(self.state).filter(|_| !is_first);
                Some(Write { snapshot: None, entries: Vec::new(), hard_state, sync: Sync::NotNeeded })
            }
            Op::Mark | Op::Reopen => None,
        }
    }

    /// The mark at the commit index, if it is a new one.
    fn new_mark(&mut self) -> Option<Marked> {
        let index = self.state.commit;
        if index <= self.mark.index {
            return None;
        }
        self.mark = self.entries[index.0 as usize - 1].mark();
        let conf_state = raftpb::ConfState { voters: vec![1], auto_leave: Some(false), ..Default::default() };
        Some(Marked { mark: self.mark, conf_state: Some(conf_state) })
    }
}

fn play(ops: &[Op], segment_bytes: u64) {
    let (disk, dir) = (MemoryDisk::new(), Path::new("wal"));
    let options = Options { segment_bytes, ..Options::new(dir) };
    let metadata = Metadata { member: MemberId(1), cluster: 2 };
    let mut wal = ready(Wal::create(disk.clone(), options.clone(), metadata, &NOTHING)).unwrap();
    let mut model = Model::default();
    for op in ops {
        if let Some(write) = model.write(op) {
            wal.append(&write);
            ready(wal.cut_if_full()).unwrap();
        }
        match op {
            Op::Mark => {
                if let Some(marked) = model.new_mark() {
                    ready(wal.save_mark(&marked)).unwrap();
                }
            }
            Op::Reopen => {
                ready(wal.close()).unwrap();
                let (opened, recovered) = ready(Wal::open(disk.clone(), options.clone(), model.mark)).unwrap();
                assert_eq!(recovered.hard_state, model.state);
                assert_eq!(recovered.entries, model.entries[model.mark.index.0 as usize..]);
                wal = opened;
            }
            Op::Append { .. } | Op::Vote { .. } | Op::Commit => {}
        }
    }
    ready(wal.close()).unwrap();

    let marks = ready(marks(&disk, dir)).unwrap();
    let newest = marks.last().unwrap().mark;
    assert_eq!(newest, model.mark);
    let beyond = Mark { index: newest.index.next(), ..newest };
    for believed in marks.iter().map(|marked| marked.mark).chain([beyond]) {
        let (wal, recovered, found) = ready(Wal::open_newest(disk.clone(), options.clone(), believed, None)).unwrap();
        assert_eq!((recovered.hard_state, found), (model.state, newest), "{believed:?}");
        assert_eq!(recovered.entries, model.entries[newest.index.0 as usize..], "{believed:?}");
        drop(wal);
    }
    let frames = twin::all_frames(&disk, dir);
    for start in [Mark::ZERO, newest] {
        let slow = twin::replay(&frames, start.index.0);
        let fast = ready(read(&disk, dir, start)).unwrap();
        assert_eq!((fast.hard_state, &fast.entries[..]), (model.state, &model.entries[start.index.0 as usize..]));
        assert_eq!((fast.hard_state, fast.entries), slow);
    }
}

proptest! {
    #[test]
    fn the_log_gives_back_what_was_written(
        ops in prop::collection::vec(op(), 0..60),
        segment_bytes in 300_u64..3000,
    ) {
        play(&ops, segment_bytes);
    }
}
