//! The bytes that [`start`](super::start) reads, and their writing for seeds.
//!
//! One byte of choices, then items. An item is a head byte, two bytes of length (little endian) and so many bytes. A head
//! below 0x40 is a file, below 0x80 a directory, below 0xc0 a row of the store; its low bits choose the place or the bucket. Below 0xe0 it is
//! what the log says, if no file is in its place; below 0xf0 a member of a cluster that runs; else the text of the initial cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use detcd_core::ids::{Index, MemberId};
use detcd_core::membership::Member;
use detcd_core::mvcc::index::Gathering;
use detcd_core::raft::{Config, Mark};

use super::World;
use crate::bbolt;
use crate::boot::asked::{Asked, ClusterState, Others, Recovery, cluster_of_one};
use crate::boot::execute::Start;
use crate::boot::identity::{ClusterId, cluster_id, member_id};
use crate::boot::inspect::Places;
use crate::boot::machine::Machine;
use crate::boot::url::Url;
use crate::disk::{Disk, Kind, MemoryDisk};
use crate::store::buckets::{self, Bucket};
use crate::store::leases::LeaseRules;
use crate::store::memory::{MemoryStores, Tables};
use crate::wal::Name;
use crate::wal::fuzz::ready;
use crate::wal::made::Made;

pub(super) const DATA_DIR: &str = "d";
pub(super) const WAL_APART: &str = "w";
const DIRECTORY: u8 = 0x40;
const ROW: u8 = 0x80;
const LOG: u8 = 0xc0;
const OTHER: u8 = 0xe0;
const CLUSTER: u8 = 0xf0;

/// Where a file or a directory can be. The first two are segments of a log, whose first two bytes are the numbers in their names.
const PLACES: [&str; 27] = [
    "d/member/wal",
    "w",
    "d/member/wal/0.tmp",
    "d/member/wal/0000000000000000-0000000000000000.wal.broken",
    "d/member/wal/readme",
    "d/member/wal.tmp",
    "d/member/wal.tmp/0000000000000000-0000000000000000.wal",
    "d/member/wal",
    "d/member/snap",
    "d/member/snap/db",
    "d/member/snap/tmp1",
    "d/member/snap/0000000000000001-0000000000000001.snap",
    "d/member/lmdb",
    "d/member/lmdb/data.mdb",
    "d/member/lock",
    "d/member",
    "d",
    "d/.touch",
    "d/proxy",
    "d/wal",
    "d/snap/db",
    "d/lmdb/data.mdb",
    "d/lost+found",
    "w",
    "w/0.tmp",
    "w.tmp",
    "d/member/lmdb/importing",
];
const SEGMENT_PLACES: usize = 2;
/// The store's file.
const STORE_PLACE: u8 = 13;
/// The database of etcd.
const DATABASE_PLACE: u8 = 9;
/// The directory of the database.
const SNAP_PLACE: u8 = 8;
/// What an import leaves until it is finished.
const MARKER_PLACE: u8 = 26;
/// Where a claim's write test puts a file.
const TOUCH_PLACE: u8 = 17;

/// The bytes that [`start`](super::start) reads as a member's log of these segments and a store with one member, applied up to a place.
///
/// # Panics
/// If a number or a length does not fit into the bytes that it has.
#[must_use]
pub fn of_log(segments: &[(Name, Vec<u8>)], member: MemberId, applied: Mark) -> Vec<u8> {
    let mut input = vec![0];
    put_segments(&mut input, segments);
    put_store(&mut input, member, applied);
    input
}

/// The bytes that [`start`](super::start) reads as a directory of etcd's: a log of these segments and a database.
///
/// # Panics
/// If a number or a length does not fit into the bytes that it has.
#[must_use]
pub fn of_import(segments: &[(Name, Vec<u8>)], database: &[u8]) -> Vec<u8> {
    let mut input = vec![0];
    put_segments(&mut input, segments);
    put_item(&mut input, DATABASE_PLACE, database);
    input
}

/// The bytes that [`start`](super::start) reads as the same, imported by a start that ended before it was done. `marker` is what it left.
///
/// # Panics
/// If the directory cannot be imported.
#[must_use]
pub fn of_unfinished_import(segments: &[(Name, Vec<u8>)], database: &[u8], marker: &str) -> Vec<u8> {
    let mut input = of_import(segments, database);
    let booted = World::parse(&input).boot().unwrap_or_else(|error| panic!("the import: {error}"));
    put_item(&mut input, STORE_PLACE, b"store");
    put_item(&mut input, MARKER_PLACE, marker.as_bytes());
    for ((bucket, key), value) in booted.store.backend().tables() {
        put_stored(&mut input, bucket, &key, &value);
    }
    input
}

/// The bytes that [`start`](super::start) reads as a second member, `b`, that joins a cluster: these members run.
#[must_use]
pub fn of_join(running: &[[u8; 2]]) -> Vec<u8> {
    let mut input = vec![0b1_0110];
    put_item(&mut input, CLUSTER, b"a=http://localhost:2380,b=http://localhost:2381");
    for member in running {
        put_item(&mut input, OTHER, member);
    }
    input
}

/// The bytes that [`start`](super::start) reads as a log that says this, with a store that has applied so much unless it is zero; what an item is,
/// is said in `io/src/wal/made.rs`.
#[must_use]
pub fn of_items(items: &[&[u8]], applied: Mark) -> Vec<u8> {
    let mut input = vec![0];
    if applied != Mark::ZERO {
        let [own, ..] = members_of(&what_is_asked(0).asked);
        put_store(&mut input, own.id, applied);
    }
    for item in items {
        put_item(&mut input, LOG, item);
    }
    input
}

/// The bytes that [`start`](super::start) reads as a directory of etcd's whose log says this, and whose database has applied so much.
#[must_use]
pub fn of_import_with_items(items: &[&[u8]], applied: Mark) -> Vec<u8> {
    let [own, ..] = members_of(&what_is_asked(0).asked);
    let mut found: BTreeMap<Bytes, Vec<(Bytes, Bytes)>> = BTreeMap::new();
    for (bucket, key, value) in store_of(own.id, applied) {
        found.entry(bucket.name().into()).or_default().push((key, value));
    }
    let mut input = of_items(items, Mark::ZERO);
    put_item(&mut input, DATABASE_PLACE, &bbolt::fuzz::written(&found.into_iter().collect()));
    input
}

/// The same, with a file where a claim's write test puts one.
#[must_use]
pub fn with_touch(mut input: Vec<u8>) -> Vec<u8> {
    put_item(&mut input, TOUCH_PLACE, b"x");
    input
}

/// The same, cut short in the import that made its store.
#[must_use]
pub fn in_import(mut input: Vec<u8>) -> Vec<u8> {
    put_item(&mut input, DIRECTORY + SNAP_PLACE, b"");
    put_item(&mut input, MARKER_PLACE, b"transaction 3 with 6 pages, applied 2\n");
    input
}

fn put_segments(input: &mut Vec<u8>, segments: &[(Name, Vec<u8>)]) {
    for (name, bytes) in segments {
        let numbers = [name.seq, name.index.0].map(|number| u8::try_from(number).expect("a short log"));
        put_item(input, 0, &[&numbers[..], bytes].concat());
    }
}

/// A store that names this member and has applied so much.
fn put_store(input: &mut Vec<u8>, member: MemberId, applied: Mark) {
    // The rows lie in memory; this file says that there is a store.
    put_item(input, STORE_PLACE, b"store");
    for (bucket, key, value) in store_of(member, applied) {
        put_stored(input, bucket, &key, &value);
    }
}

/// Its rows.
fn store_of(member: MemberId, applied: Mark) -> [(Bucket, Bytes, Bytes); 3] {
    let row = format!("{{\"id\":{},\"peerURLs\":[\"http://h:1\"]}}", member.0);
    let (index, term) = (applied.index.0.to_be_bytes(), applied.term.0.to_be_bytes());
    let rows: [(Bucket, &[u8], &[u8]); 3] = [
        (Bucket::Members, &buckets::member_key(member), row.as_bytes()),
        (Bucket::Meta, buckets::APPLIED_INDEX, &index),
        (Bucket::Meta, buckets::APPLIED_TERM, &term),
    ];
    let bytes = Bytes::copy_from_slice;
    rows.map(|(bucket, key, value)| (bucket, bytes(key), bytes(value)))
}

/// A row of the store.
fn put_stored(input: &mut Vec<u8>, bucket: Bucket, key: &[u8], value: &[u8]) {
    let place = Bucket::ALL.iter().position(|each| *each == bucket).expect("every bucket is listed");
    let length = u8::try_from(key.len()).expect("a short key");
    put_item(input, ROW + place as u8, &[&[length][..], key, value].concat());
}

fn put_item(input: &mut Vec<u8>, head: u8, bytes: &[u8]) {
    input.push(head);
    input.extend_from_slice(&u16::try_from(bytes.len()).expect("a small file").to_le_bytes());
    input.extend_from_slice(bytes);
}

impl World {
    pub(super) fn parse(input: &[u8]) -> Self {
        let (choices, mut rest) = input.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest));
        let (disk, mut start) = (MemoryDisk::new(), what_is_asked(choices));
        let mut tables = Tables::new();
        let mut log = None;
        while let [head, low, high, behind @ ..] = rest {
            let length = usize::from(u16::from_le_bytes([*low, *high])).min(behind.len());
            let (bytes, next) = behind.split_at(length);
            rest = next;
            match *head {
                CLUSTER.. => start.asked.initial_cluster = String::from_utf8_lossy(bytes).into_owned(),
                OTHER.. => put_other(&mut start.asked, bytes),
                LOG.. => log.get_or_insert_with(|| made_log(&start.asked)).put(bytes),
                ROW.. => put_row(&mut tables, *head, bytes),
                _ => put_path(&disk, *head, bytes),
            }
        }
        if let Some(log) = log {
            let place = if start.places.wal_dir == Path::new(WAL_APART) { 1 } else { 0 };
            put_path(&disk, place, &[&[0, 0][..], &log.into_bytes()].concat());
        }
        Self { disk, stores: MemoryStores::holding(tables), start }
    }
}

/// Whom a made-up log can name: the member that is asked for, the other one of a cluster of two, and two that are not.
fn members_of(asked: &Asked) -> [Member; 4] {
    let urls = [2380, 2381, 2382].map(|port| Url::parse(&format!("http://localhost:{port}")).expect("a URL"));
    let member = |id: MemberId, url: &Url| Member { id, peer_urls: vec![url.to_string()], ..Member::default() };
    let founder = |url: &Url| member(member_id(core::slice::from_ref(url), &asked.token), url);
    // The last one claims the first one's URL.
    [founder(&urls[0]), founder(&urls[1]), member(MemberId(7), &urls[2]), member(MemberId(8), &urls[0])]
}

fn made_log(asked: &Asked) -> Made {
    let members = members_of(asked);
    let founders = if asked.initial_cluster.contains(',') { 2 } else { 1 };
    let founders: Vec<MemberId> = members[..founders].iter().map(|member| member.id).collect();
    Made::begin(members, cluster_id(&founders).0)
}

/// A member of a cluster that runs: which one, whether it only listens, whether it has served.
fn put_other(asked: &mut Asked, bytes: &[u8]) {
    let [which, rest @ ..] = bytes else { return };
    let has = |bit: u8| rest.first().is_some_and(|byte| byte & (1 << bit) != 0);
    let member = members_of(asked)[usize::from(which % 4)].clone();
    let client_urls = has(1).then(|| "http://localhost:2379".to_owned()).into_iter().collect();
    let others = asked.others.get_or_insert_with(|| Others { cluster: ClusterId(5), members: Vec::new() });
    others.members.push(Member { is_learner: has(0), client_urls, ..member });
}

fn put_path(disk: &MemoryDisk, head: u8, bytes: &[u8]) {
    let place = usize::from(head & (DIRECTORY - 1)) % PLACES.len();
    let mut path = PathBuf::from(PLACES[place]);
    let mut content = bytes;
    if place < SEGMENT_PLACES {
        let (numbers, behind) = bytes.split_at(bytes.len().min(2));
        content = behind;
        let number = |at: usize| numbers.get(at).copied().unwrap_or_default().into();
        path.push(Name { seq: number(0), index: Index(number(1)) }.to_string());
    }
    let is_below_file = path.ancestors().any(|above| ready(disk.stat(above)).is_ok_and(|stat| stat.kind == Kind::File));
    if is_below_file {
        return;
    }
    if head >= DIRECTORY {
        ready(disk.create_dir_all(&path)).expect("no file is in the way");
    } else if ready(disk.stat(&path)).is_err() {
        disk.put(&path, content.to_vec());
    }
}

fn put_row(tables: &mut Tables, head: u8, bytes: &[u8]) {
    let bucket = Bucket::ALL[usize::from(head - ROW) % Bucket::ALL.len()];
    let Some((length, rest)) = bytes.split_first() else { return };
    let (key, value) = rest.split_at(rest.len().min(usize::from(*length)));
    if !key.is_empty() {
        tables.insert((bucket, Bytes::copy_from_slice(key)), Bytes::copy_from_slice(value));
    }
}

pub(in crate::boot) fn what_is_asked(choices: u8) -> Start {
    let has = |bit: u8| choices & (1 << bit) != 0;
    let url = Url::parse("http://localhost:2380").expect("a URL");
    let mut initial_cluster = cluster_of_one("a", core::slice::from_ref(&url));
    if has(1) {
        initial_cluster.push_str(",b=http://localhost:2381");
    }
    Start {
        places: Places::new(DATA_DIR.into(), has(0).then(|| WAL_APART.into())),
        asked: Asked {
            name: if has(2) { "b" } else { "a" }.to_owned(),
            initial_cluster,
            token: if has(3) { "t" } else { "etcd-cluster" }.to_owned(),
            state: if has(4) { ClusterState::Existing } else { ClusterState::New },
            advertise_peer_urls: vec![url],
            learners_max: if has(7) { 0 } else { usize::MAX },
            recovery: if has(5) { Recovery::ForceNewCluster } else { Recovery::Ordinary },
            others: None,
            resolved: BTreeMap::new(),
        },
        machine: Machine { arch: "amd64".to_owned(), unsupported_arch: None, fd_limit: 1024 },
        segment_bytes: if has(6) { 256 } else { 4096 },
        raft: Config::new(MemberId(0)),
        leases: LeaseRules::new(Duration::from_millis(100), 10),
        gathered_rows_max: Gathering::ROWS_MAX,
        #[cfg(mutants)]
        mutant: None,
    }
}
