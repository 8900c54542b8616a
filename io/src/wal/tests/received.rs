//! What a log promises where a leader sends a whole store.

use std::slice;

use super::*;

/// A store that a leader sent stands at `index` in term 2.
fn installed(index: u64) -> Write {
    let mark = Mark { index: Index(index), term: Term(2) };
    let snapshot = Some(Snapshot { mark, configuration: Configuration::of_voters([MemberId(7), MemberId(8)]) });
    Write { snapshot, entries: Vec::new(), hard_state: Some(state(2, index)), sync: Sync::Required }
}

#[test]
fn a_store_that_a_leader_sent_voids_what_was_before_it() {
    let later = |index| Entry { term: Term(2), ..entry(index, "new") };
    // A log that ends before the snapshot, and one that has other entries there and behind.
    for old in [4, 12] {
        let (disk, mut wal) = new_log(4096);
        wal.append(&write((1..=old).map(|index| entry(index, "old")).collect(), Some(state(1, 3))));
        wal.append(&installed(10));
        wal.append(&write(vec![later(11)], None));
        ready(wal.sync()).unwrap();
        drop(wal);
        let (recovered, base) = open_newest(&disk, Mark::ZERO).unwrap();
        assert_eq!(base, Mark { index: Index(10), term: Term(2) });
        assert_eq!((recovered.entries, recovered.hard_state), (vec![later(11)], state(2, 10)), "{old} old entries");
    }
}

#[test]
fn after_a_store_that_a_leader_sent_the_log_goes_on_behind_it() {
    let (disk, mut wal) = new_log(4096);
    wal.append(&write((1..=12).map(|index| entry(index, "old")).collect(), Some(state(1, 3))));
    wal.append(&installed(10));
    ready(wal.sync()).unwrap();
    drop(wal);
    let (recovered, base) = open_newest(&disk, Mark::ZERO).unwrap();
    assert_eq!((recovered.entries, base.index), (Vec::new(), Index(10)), "nothing old is left behind the mark");
    // The own mark of the same place, made later, voids nothing.
    let (mut wal, _) = ready(Wal::open(disk.clone(), options(4096), base)).unwrap();
    let own = Entry { term: Term(2), ..entry(11, "new") };
    wal.append(&write(vec![own.clone(), Entry { term: Term(2), ..entry(12, "new") }], Some(state(2, 12))));
    ready(wal.save_mark(&Marked { mark: own.mark(), conf_state: None })).unwrap();
    drop(wal);
    let (recovered, base) = open_newest(&disk, Mark::ZERO).unwrap();
    assert_eq!((recovered.entries.len(), base), (1, own.mark()));
}

/// The present store goes on while the other one waits to be installed, and its marks come late.
#[test]
fn a_mark_of_the_store_before_does_not_hide_that_of_one_that_a_leader_sent() {
    let later = Entry { term: Term(2), ..entry(11, "new") };
    let lates: [fn(&mut Wal<MemoryDisk>); 2] = [wal_goes_on, written_by_hand];
    let behinds: [&[Entry]; 2] = [slice::from_ref(&later), &[]];
    for (late, behind) in lates.into_iter().flat_map(|late| behinds.map(|behind| (late, behind))) {
        let (disk, mut wal) = new_log(4096);
        wal.append(&write((1..=6).map(|index| entry(index, "old")).collect(), Some(state(1, 6))));
        wal.append(&installed(10));
        wal.append(&write(behind.to_vec(), None));
        late(&mut wal);
        drop(wal);
        for believed in [Mark::ZERO, marked(4).mark] {
            let (recovered, base) = open_newest(&disk, believed).unwrap();
            assert_eq!((recovered.entries, base.index), (behind.to_vec(), Index(10)));
        }
        let found = ready(marks(&disk, Path::new("member/wal"))).unwrap();
        assert_eq!(found.last().map(|marked| marked.mark.index), Some(Index(10)));
    }
}

fn wal_goes_on(wal: &mut Wal<MemoryDisk>) {
    let before = wal.pending_bytes();
    let after = wal.end.offset + before as u64;
    ready(wal.save_mark(&marked(4))).unwrap();
    assert_eq!((wal.pending_bytes(), wal.end.offset), (0, after), "what came before is synced, and nothing else");
}

fn written_by_hand(wal: &mut Wal<MemoryDisk>) {
    entry::put_mark(&mut wal.end.pending, &mut wal.end.crc, &marked(4));
    ready(wal.sync()).unwrap();
}
