//! An LMDB file that is cut anywhere, or whose meta pages lie: it is refused with the place, or it opens and can be read. Never a crash.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::ops::Bound;
use std::path::Path;

use detcd_core::ids::{Index, Revision, Term};
use detcd_core::mvcc::KeyValue;
use detcd_io::Fault;
use detcd_io::store::backend::{Backend, Slice, Visit};
use detcd_io::store::batch::{Applied, Batch, Change, Row};
use detcd_io::store::buckets::Bucket;
use detcd_io::store::lmdb::Lmdb;
use detcd_io::store::meta;
use detcd_io::wal::fuzz::ready;

/// Bytes of a page on the machines that the tests run on.
const PAGE_BYTES: usize = 4096;
/// A page's header and the meta behind it.
const META_BYTES: usize = 16 + 136;

/// The file of a store with rows in several tables, after some transactions.
fn sample() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let lmdb = Lmdb::open(directory.path()).unwrap();
    for main in 2_i64..8 {
        let mut batch = Batch { applied: Applied { index: Index(main as u64), term: Term(1) }, ..Batch::default() };
        let kv = KeyValue { key: "k".into(), value: vec![7; 900].into(), modified: main, ..KeyValue::default() };
        batch.push_row(Row { revision: Revision::new(main, 0), change: Change::Put(kv) });
        batch.tables.insert((Bucket::Cluster, "clusterVersion".into()), Some("3.7.0".into()));
        ready(lmdb.commit(&batch)).unwrap();
    }
    drop(lmdb);
    let mut bytes = fs::read(directory.path().join("data.mdb")).unwrap();
    // Without the room that was taken for later pages.
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes.truncate(used.next_multiple_of(PAGE_BYTES));
    bytes
}

/// Opens a file of these bytes and reads everything in it. `None`: it was refused with its name and a place.
fn opened(directory: &Path, bytes: &[u8]) -> Option<usize> {
    fs::write(directory.join("data.mdb"), bytes).unwrap();
    let lmdb = match Lmdb::open(directory) {
        Ok(lmdb) => lmdb,
        Err(Fault::Corrupt { file, cause, .. }) => {
            assert!(file.ends_with("data.mdb") && !cause.is_empty());
            assert_eq!(fs::read(directory.join("data.mdb")).unwrap(), bytes, "a refused file is left alone");
            return None;
        }
        Err(Fault::Store { .. }) => return None,
        Err(other) => panic!("{other}"),
    };
    let mut rows = 0;
    for bucket in Bucket::ALL {
        let whole = Slice { bucket, start: Bound::Unbounded, end: Bound::Unbounded };
        // Damage behind the metas may show here, as an error.
        let _ = lmdb.scan(whole, &mut |_, _| {
            rows += 1;
            Visit::More
        });
    }
    Some(rows)
}

#[test]
fn a_file_that_was_cut_is_refused_before_it_is_mapped() {
    let bytes = sample();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data.mdb");
    let rows = opened(directory.path(), &bytes).expect("the whole file opens");
    assert!(rows > 6);
    fs::write(&path, &bytes).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    let lengths = (1..=2 * PAGE_BYTES).chain((2 * PAGE_BYTES..bytes.len()).step_by(512));
    for length in lengths.rev() {
        file.set_len(length as u64).unwrap();
        match meta::check(&path) {
            Err(Fault::Corrupt { file, .. }) => assert_eq!(file, path),
            other => panic!("a file of {length} bytes out of {} was taken: {other:?}", bytes.len()),
        }
    }
}

#[test]
fn a_meta_page_that_lies_is_refused_or_harmless() {
    let bytes = sample();
    let directory = tempfile::tempdir().unwrap();
    let (mut refused, mut harmless) = (0, 0);
    // A sample, since each opening costs a sync: other bytes and other bits of each field in each page.
    for place in (0..META_BYTES).step_by(3).chain((PAGE_BYTES..PAGE_BYTES + META_BYTES).step_by(3)) {
        let mut lying = bytes.clone();
        lying[place] ^= [0xff, 0x01, 0x80][place / 3 % 3];
        match opened(directory.path(), &lying) {
            Some(_) => harmless += 1,
            None => refused += 1,
        }
    }
    // Most bytes carry nothing that opening needs: statistics, an address, the older of the two metas.
    assert!(refused > 10 && harmless > 10, "{refused} refused, {harmless} harmless");
}

#[test]
fn a_root_that_is_no_root_is_named() {
    let bytes = sample();
    let directory = tempfile::tempdir().unwrap();
    let number = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    // The transaction says which meta counts; the main tree's root is the last of its record.
    let newest = if number(16 + 128) < number(PAGE_BYTES + 16 + 128) { PAGE_BYTES } else { 0 };
    let root = number(newest + 16 + 112);
    let mut lying = bytes.clone();
    let other = root - 1;
    lying[newest + 16 + 112..newest + 16 + 120].copy_from_slice(&other.to_ne_bytes());
    lying[other as usize * PAGE_BYTES + 10..other as usize * PAGE_BYTES + 12].copy_from_slice(&[4, 0]);
    assert_eq!(opened(directory.path(), &lying), None, "an overflow page is no root");
    let mut lying = bytes;
    lying[root as usize * PAGE_BYTES] ^= 1;
    assert_eq!(opened(directory.path(), &lying), None, "a page of another number is no root");
}

#[test]
fn the_lock_file_is_there_to_its_last_byte() {
    use std::os::unix::fs::MetadataExt as _;
    let directory = tempfile::tempdir().unwrap();
    let _store = Lmdb::open(directory.path()).unwrap();
    let lock = fs::metadata(directory.path().join("lock.mdb")).unwrap();
    // A hole in it would end the process, when LMDB writes to its map of it and the disk is full.
    assert!(lock.len() <= lock.blocks() * 512, "{} bytes in {} blocks", lock.len(), lock.blocks());
    assert_eq!(lock.len(), 128 + 64 * 512, "LMDB took the length that was given, and needs no more");
}
