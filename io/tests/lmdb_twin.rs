//! LMDB under the store's small trait does what a sorted map does: get, scan with every kind of bound, commit, and all of it after a reopen.
#![allow(clippy::unwrap_used)]

use std::ops::Bound;

use bytes::Bytes;
use detcd_core::ids::{Index, LeaseId, Revision, Term};
use detcd_core::mvcc::KeyValue;
use detcd_io::store::backend::{Backend, Committed, Frozen, RawRow, Release, Slice, Visit};
use detcd_io::store::batch::{Applied, Batch, Change, Row};
use detcd_io::store::buckets::{Bucket, RevisionKey};
use detcd_io::store::copying::{Chunk, Copying, Stands};
use detcd_io::store::lmdb::Lmdb;
use detcd_io::store::memory::MemoryBackend;
use detcd_io::wal::fuzz::ready;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Act {
    /// So many new rows, and changes of tables; no value removes.
    Commit(Vec<usize>, Vec<(Bucket, Bytes, Option<Bytes>)>),
    Scan(Bucket, Bound<Bytes>, Bound<Bytes>, usize),
    ScanRows(Bound<u8>, Bound<u8>, usize),
    Get(Bucket, Bytes),
    Reopen,
    /// From now on, a copy of what is there is held, and compared at the end.
    Freeze,
    /// A copy in chunks of so many rows takes the store's place, with a batch after each chunk while there are any: new rows, and which old row goes.
    Defragment(usize, Vec<(usize, Option<usize>)>),
}

fn bucket() -> impl Strategy<Value = Bucket> {
    prop::sample::select(vec![Bucket::Meta, Bucket::Cluster, Bucket::Members, Bucket::AuthUsers])
}

/// Few keys, short and long; up to the longest that LMDB takes.
fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        6 => prop::sample::select(vec!["a", "ab", "b", "\0", "\u{7f}z", "c"]).prop_map(|key| Bytes::from_static(key.as_bytes())),
        1 => (500_usize..=511).prop_map(|length| Bytes::from(vec![b'b'; length])),
    ]
}

fn bound<T: Clone + std::fmt::Debug>(of: impl Strategy<Value = T> + Clone) -> impl Strategy<Value = Bound<T>> {
    prop_oneof![of.clone().prop_map(Bound::Included), of.prop_map(Bound::Excluded), Just(Bound::Unbounded)]
}

/// A bound may be empty although no key is.
fn edge() -> impl Strategy<Value = Bytes> + Clone {
    prop::sample::select(vec!["", "a", "ab", "b", "bb", "\0", "c", "zz"])
        .prop_map(|key| Bytes::from_static(key.as_bytes()))
}

fn act() -> impl Strategy<Value = Act> {
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from));
    let rows = prop::collection::vec(0_usize..9000, 0..5);
    prop_oneof![
        4 => (rows, prop::collection::vec((bucket(), key(), value), 0..6)).prop_map(|(rows, tables)| Act::Commit(rows, tables)),
        4 => (bucket(), bound(edge()), bound(edge()), 0_usize..8).prop_map(|(bucket, start, end, most)| Act::Scan(bucket, start, end, most)),
        2 => (bound(0_u8..12), bound(0_u8..12), 0_usize..8).prop_map(|(start, end, most)| Act::ScanRows(start, end, most)),
        2 => (bucket(), prop_oneof![key(), edge()]).prop_map(|(bucket, key)| Act::Get(bucket, key)),
        1 => Just(Act::Reopen),
        1 => Just(Act::Freeze),
        2 => (1_usize..6, prop::collection::vec((0_usize..3, prop::option::of(0_usize..9)), 0..5)).prop_map(|(chunk, batches)| Act::Defragment(chunk, batches)),
    ]
}

fn scanned(backend: &impl Backend, slice: Slice<'_>, most: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut seen = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        seen.push((key.to_vec(), value.to_vec()));
        if seen.len() < most { Visit::More } else { Visit::Enough }
    };
    backend.scan(slice, &mut visit).unwrap();
    seen
}

fn scanned_frozen(frozen: &impl Frozen, slice: Slice<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut seen = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        seen.push((key.to_vec(), value.to_vec()));
        Visit::More
    };
    frozen.scan(slice, &mut visit).unwrap();
    seen
}

fn everything(backend: &impl Backend) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    let whole = |bucket| Slice { bucket, start: Bound::Unbounded, end: Bound::Unbounded };
    Bucket::ALL.iter().map(|bucket| scanned(backend, whole(*bucket), usize::MAX)).collect()
}

fn batch(main: &mut i64, index: u64, rows: &[usize], tables: &[(Bucket, Bytes, Option<Bytes>)]) -> Batch {
    let mut batch = Batch { applied: Applied { index: Index(index), term: Term(index / 3) }, ..Batch::default() };
    for (place, length) in rows.iter().enumerate() {
        *main += i64::from(place % 2 == 0);
        let key = Bytes::from_static(b"key");
        let kv = KeyValue {
            key: key.clone(),
            value: vec![*main as u8; *length].into(),
            created: 2,
            modified: *main,
            version: 1,
            lease: LeaseId(0),
        };
        let change = if length % 7 == 0 { Change::Tombstone(key) } else { Change::Put(kv) };
        batch.push_row(Row { revision: Revision::new(*main, (place % 2) as i64), change });
    }
    for (bucket, key, value) in tables {
        batch.tables.insert((*bucket, key.clone()), value.clone());
    }
    batch
}

/// Both stores are given the batch.
fn commit_both(lmdb: &Lmdb, memory: &MemoryBackend, batch: &Batch) {
    assert_eq!(ready(lmdb.commit(batch)).unwrap(), Committed::Done);
    assert_eq!(ready(memory.commit(batch)).unwrap(), Committed::Done);
}

/// Defragments LMDB with batches between the chunks.
fn defragment(
    lmdb: &Lmdb,
    memory: &MemoryBackend,
    (main, index): (&mut i64, &mut u64),
    (chunk, batches): (usize, &[(usize, Option<usize>)]),
) {
    let mut copying = ready(Copying::begin(lmdb)).unwrap();
    let mut batches = batches.iter();
    loop {
        let stands = ready(copying.advance(lmdb, Chunk { rows: chunk, bytes: 10_000 })).unwrap();
        let Some((rows, dead)) = batches.next() else {
            if stands == Stands::Equal {
                break;
            }
            continue;
        };
        *index += 1;
        let changes = [(Bucket::Cluster, Bytes::from_static(b"b"), Some(index.to_string().into()))];
        let mut batch = batch(main, *index, &vec![5; *rows], &changes);
        let present = scanned(lmdb, Slice { bucket: Bucket::Key, start: Bound::Unbounded, end: Bound::Unbounded }, 99);
        if let Some((key, _)) = dead.and_then(|dead| present.get(dead)) {
            let main = i64::from_be_bytes(key[..8].try_into().unwrap());
            let at = Revision::new(main, i64::from_be_bytes(key[9..17].try_into().unwrap()));
            batch.dead.push(if key.len() == 17 { RevisionKey::put(at) } else { RevisionKey::tombstone(at) });
        }
        commit_both(lmdb, memory, &batch);
        ready(copying.on_committed(&batch)).unwrap();
    }
    ready(lmdb.replace(copying.into_copy())).unwrap();
}

#[test]
fn a_replaced_store_gives_its_room_back_in_steps_once_nobody_reads_it() {
    let above = tempfile::tempdir().unwrap();
    let directory = above.path().join("lmdb");
    std::fs::create_dir(&directory).unwrap();
    let lmdb = Lmdb::open(&directory).unwrap();
    let value = Bytes::from(vec![7; 1 << 20]);
    let row = |key: u8, value: &Bytes| RawRow {
        bucket: Bucket::Cluster,
        key: Bytes::copy_from_slice(&[key]),
        value: Some(value.clone()),
    };
    let rows: Vec<RawRow> = (1..=20).map(|key| row(key, &value)).collect();
    ready(lmdb.load(&rows)).unwrap();
    assert_eq!(ready(lmdb.release()), Release::Done, "nothing was replaced");
    let frozen = lmdb.freeze().unwrap();
    let copy = ready(lmdb.beside()).unwrap();
    ready(copy.load(&[row(1, &Bytes::from_static(b"copied"))])).unwrap();
    ready(lmdb.replace(copy)).unwrap();
    assert_eq!(ready(lmdb.release()), Release::Read);
    let mut seen = 0;
    let all = Slice { bucket: Bucket::Cluster, start: Bound::Unbounded, end: Bound::Unbounded };
    let count = &mut |_: &[u8], found: &[u8]| {
        assert_eq!(found, value);
        seen += 1;
        Visit::More
    };
    frozen.scan(all, count).unwrap();
    assert_eq!(seen, 20, "who reads it sees all of it");
    drop(frozen);
    let steps = (0..100).take_while(|_| ready(lmdb.release()) == Release::More).count();
    assert!((3..=8).contains(&steps), "20 MB went in {steps} steps");
    assert_eq!(ready(lmdb.release()), Release::Done);
    assert_eq!(lmdb.get(Bucket::Cluster, &[1]).unwrap().as_deref(), Some(&b"copied"[..]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]
    #[test]
    fn lmdb_does_what_a_sorted_map_does(acts in prop::collection::vec(act(), 0..25)) {
        let above = tempfile::tempdir().unwrap();
        let directory = above.path().join("lmdb");
        std::fs::create_dir(&directory).unwrap();
        let mut lmdb = Lmdb::open(&directory).unwrap();
        let mut frozen = None;
        let memory = MemoryBackend::default();
        let (mut main, mut index) = (1, 0);
        for act in &acts {
            match act {
                Act::Commit(rows, tables) => {
                    index += 1;
                    let batch = batch(&mut main, index, rows, tables);
                    commit_both(&lmdb, &memory, &batch);
                    let size = ready(lmdb.size()).unwrap();
                    prop_assert!(0 < size.in_use && size.in_use <= size.allocated);
                }
                Act::Scan(bucket, start, end, most) => {
                    let slice = Slice {
                        bucket: *bucket,
                        start: start.as_ref().map(Bytes::as_ref),
                        end: end.as_ref().map(Bytes::as_ref),
                    };
                    prop_assert_eq!(scanned(&lmdb, slice, *most), scanned(&memory, slice, *most));
                }
                Act::ScanRows(start, end, most) => {
                    let at = |number: &u8| RevisionKey::put(Revision::new(i64::from(*number), 0));
                    let (start, end) = (start.as_ref().map(at), end.as_ref().map(at));
                    let slice = Slice {
                        bucket: Bucket::Key,
                        start: start.as_ref().map(RevisionKey::as_slice),
                        end: end.as_ref().map(RevisionKey::as_slice),
                    };
                    prop_assert_eq!(scanned(&lmdb, slice, *most), scanned(&memory, slice, *most));
                }
                Act::Get(bucket, key) => {
                    prop_assert_eq!(lmdb.get(*bucket, key).unwrap(), memory.get(*bucket, key).unwrap());
                }
                Act::Reopen => {
                    drop(frozen.take());
                    drop(lmdb);
                    lmdb = Lmdb::open(&directory).unwrap();
                }
                Act::Freeze => frozen = Some((lmdb.freeze().unwrap(), everything(&memory))),
                Act::Defragment(chunk, batches) => {
                    defragment(&lmdb, &memory, (&mut main, &mut index), (*chunk, batches));
                    prop_assert_eq!(everything(&lmdb), everything(&memory));
                    prop_assert_eq!(std::fs::read_dir(above.path()).unwrap().count(), 1, "nothing is left of a copy");
                }
            }
        }
        prop_assert_eq!(everything(&lmdb), everything(&memory));
        if let Some((frozen, then)) = frozen {
            let whole = |bucket| Slice { bucket, start: Bound::Unbounded, end: Bound::Unbounded };
            let rows = Bucket::ALL.iter().map(|bucket| scanned_frozen(&frozen, whole(*bucket)));
            prop_assert_eq!(rows.collect::<Vec<_>>(), then);
        }
        drop(lmdb);
        let lmdb = Lmdb::open(&directory).unwrap();
        prop_assert_eq!(everything(&lmdb), everything(&memory));
    }
}
