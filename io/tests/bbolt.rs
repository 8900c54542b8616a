//! The bbolt reader and writer: each against the other, against files that etcd wrote, and against damage.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use detcd_io::bbolt::read::Reader;
use detcd_io::bbolt::write::Writer;
use detcd_io::disk::{Access, Disk as _, MemoryDisk};
use detcd_io::fault::Fault;
use proptest::prelude::*;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
type Buckets = BTreeMap<Vec<u8>, Rows>;
/// Buckets and rows in the order of their file.
type Found = Vec<(Bytes, Vec<(Bytes, Bytes)>)>;

fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a disk in memory has nothing to wait for"),
    }
}

fn write(buckets: &Buckets, take_after: usize) -> Vec<u8> {
    let mut writer = Writer::new();
    let mut file: Vec<u8> = Vec::new();
    let mut take = |writer: &mut Writer| {
        let (offset, bytes) = writer.take();
        let start = usize::try_from(offset).unwrap();
        file.resize(file.len().max(start + bytes.len()), 0);
        file[start..start + bytes.len()].copy_from_slice(&bytes);
    };
    for (name, rows) in buckets {
        writer.bucket(name);
        for (key, value) in rows {
            writer.row(key, value);
            if take_after <= writer.pending_bytes() {
                take(&mut writer);
            }
        }
    }
    let finished = writer.finish();
    take(&mut writer);
    file[..finished.metas.len()].copy_from_slice(&finished.metas);
    assert_eq!(file.len() as u64, finished.size_bytes);
    file
}

/// All buckets and rows, in the order of the file.
fn read(bytes: Vec<u8>) -> Result<Found, Fault> {
    let disk = MemoryDisk::new();
    let path = PathBuf::from("db");
    disk.put(&path, bytes);
    ready(async {
        let reader = Reader::open(disk.open(&path, Access::Read).await.unwrap(), path).await?;
        let mut buckets = Vec::new();
        for bucket in reader.buckets().await? {
            let (mut cursor, mut rows) = (reader.rows(&bucket), Vec::new());
            while let Some(row) = cursor.next().await? {
                rows.push(row);
            }
            buckets.push((bucket.name.clone(), rows));
        }
        Ok(buckets)
    })
}

fn plain(buckets: Found) -> Buckets {
    let rows =
        |rows: Vec<(Bytes, Bytes)>| rows.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    buckets.into_iter().map(|(name, found)| (name.to_vec(), rows(found))).collect()
}

/// Values from nothing to several pages.
fn any_rows() -> impl Strategy<Value = Rows> {
    let value = prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..40),
        2 => prop::collection::vec(any::<u8>(), 200..1500),
        1 => prop::collection::vec(any::<u8>(), 3000..13_000),
    ];
    prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..30), value, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(
        buckets in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..12), any_rows(), 0..5),
        take_after in 1_usize..30_000,
    ) {
        prop_assert_eq!(plain(read(write(&buckets, take_after)).unwrap()), buckets);
    }

    /// Whatever a byte is changed to: an error or rows, and an end.
    #[test]
    fn damage_is_told_or_harmless(rows in any_rows(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut file = write(&[(b"key".to_vec(), rows)].into(), usize::MAX);
        for (place, byte) in damage {
            let place = place.index(file.len());
            file[place] = byte;
        }
        if let Err(fault) = read(file) {
            prop_assert!(matches!(fault, Fault::Corrupt { .. }), "{}", fault);
        }
    }
}

#[test]
fn a_tree_of_several_levels_is_read_back() {
    let rows: Rows = (0_u32..60_000).map(|number| (number.to_be_bytes().to_vec(), vec![b'v'; 40])).collect();
    let buckets: Buckets = [(b"key".to_vec(), rows)].into();
    let file = write(&buckets, 1 << 20);
    assert_eq!(plain(read(file).unwrap()), buckets);
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/bbolt").join(name)).unwrap()
}

/// What `etcdutl snapshot status` calls the hash: a CRC over the buckets' names and all rows.
fn status_hash(buckets: &[(Bytes, Vec<(Bytes, Bytes)>)]) -> u32 {
    buckets.iter().fold(0, |crc, (name, rows)| {
        let crc = crc32c::crc32c_append(crc, name);
        rows.iter().fold(crc, |crc, (key, value)| crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value))
    })
}

#[test]
fn files_that_etcd_wrote_are_read_and_written_again() {
    for (name, hash, rows) in FILES {
        let file = golden(name);
        let buckets = read(file.clone()).unwrap();
        let found = buckets.iter().find(|(name, _)| name.as_ref() == b"key").unwrap().1.len();
        assert_eq!((status_hash(&buckets), found), (hash, rows), "{name}");
        let again = read(write(&plain(buckets.clone()), usize::MAX)).unwrap();
        assert_eq!(again, buckets, "{name}");
        // One meta is enough; which one does not matter in a copy.
        for meta in [0, 4096] {
            let mut one = file.clone();
            one[meta + 20..meta + 24].fill(0xff);
            assert_eq!(read(one).unwrap(), buckets, "{name}");
        }
    }
}

#[test]
fn what_is_no_database_is_named() {
    let text = |bytes: Vec<u8>| read(bytes).unwrap_err().to_string();
    assert_eq!(
        text(vec![]),
        "db is damaged at byte 0: no valid meta page: not a bbolt database, or both metas are damaged"
    );
    assert_eq!(text(vec![0; 100_000]), text(vec![]));
    let file = golden(FILES[0].0);
    let short = text(file[..file.len() / 4096 * 4096 - 4096].to_vec());
    assert!(short.contains("the file ends before its page"), "{short}");
}

/// A page that names itself as its child would be walked for ever.
#[test]
fn a_tree_with_a_circle_ends_in_an_error() {
    let rows: Rows = (0_u32..2_000).map(|number| (number.to_be_bytes().to_vec(), vec![b'v'; 40])).collect();
    let mut file = write(&[(b"key".to_vec(), rows)].into(), usize::MAX);
    let branch = (2..file.len() / 4096).find(|page| file[page * 4096 + 8] == 0x01).unwrap();
    let child = branch * 4096 + 16 + 8;
    file[child..child + 8].copy_from_slice(&(branch as u64).to_le_bytes());
    let text = read(file).unwrap_err().to_string();
    assert!(text.contains("twice") || text.contains("levels"), "{text}");
}

/// Snapshots of the real etcd 3.7.3, with what `etcdutl snapshot status` says of them.
const FILES: [(&str, u32, usize); 2] = [("small.db", 1_434_685_541, 3), ("mixed.db", 2_319_719_367, 74)];
