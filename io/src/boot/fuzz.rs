//! What the fuzzer calls, and the stable tests too: any tree of files and any rows of a store as the place that a member starts on.
//!
//! The invariants it checks, whatever the bytes: a start ends in a member, a refusal or a typed failure, and never in a panic; a refused
//! start leaves the tree as it was, but for the directory and the lock that a claim makes; no file that was there is lost, at least a copy of
//! it stays; a start that was accepted is accepted again and comes to the same; and a member that was started lives, ends and starts once more,
//! unless its log told of its own removal. A forced start without a log is like any other; the next one is the first that counts, and leaves
//! its member alone.
//!
//! The bytes are read as: one byte of choices, then items. An item is a head byte, two bytes of length (little endian) and so many bytes. A head
//! below 0x40 is a file, below 0x80 a directory, below 0xc0 a row of the store; its low bits choose the place or the bucket. Below 0xe0 it is
//! what the log says, if no file is in its place; below 0xf0 a member of a cluster that runs; else the text of the initial cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::membership::{Member, Membership};
use detcd_core::mvcc::index::Gathering;
use detcd_core::raft::{Config, Configuration, Effect, Effects, Input, Mark, Raft, Timer};

use super::asked::{Asked, ClusterState, Others, Recovery, cluster_of_one};
use super::execute::{BootError, Booted, Start, boot};
use super::identity::{ClusterId, cluster_id, member_id};
use super::inspect::{MARKER, Places};
use super::machine::Machine;
use super::refusal::Refusal;
use super::url::Url;
use crate::applier::{Applier, Budget, Harvest};
use crate::disk::{Disk, Kind, MemoryDisk};
use crate::fault::Fault;
use crate::store::backend::Backend;
use crate::store::buckets::{self, Bucket};
use crate::store::leases::LeaseRules;
use crate::store::memory::{MemoryBackend, MemoryStores, Tables};
use crate::wal::Name;
use crate::wal::fuzz::ready;
use crate::wal::made::Made;

/// What became of the tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// A member started on it.
    Started {
        /// The last entry of its log.
        last: Index,
        /// What it had applied by the end of its short life.
        applied: Index,
    },
    /// The plan said no.
    Refused(String),
    /// Files are damaged or do not fit each other, or hold what is not built.
    Failed(String),
}

/// Everything that a start looks at.
struct World {
    disk: MemoryDisk,
    stores: MemoryStores,
    start: Start,
}

/// What a start came to, as far as a second one must come to the same.
#[derive(Debug, PartialEq)]
struct Facts {
    raft: Raft,
    marked: Index,
    membership: Membership,
    applied: Index,
    current: i64,
}

type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

const DATA_DIR: &str = "d";
const WAL_APART: &str = "w";
const DIRECTORY: u8 = 0x40;
const ROW: u8 = 0x80;
const LOG: u8 = 0xc0;
const OTHER: u8 = 0xe0;
const CLUSTER: u8 = 0xf0;
/// Effects carried out in one life; a single member has elected itself and applied its log long before.
const LIFE_STEPS: usize = 64;

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

/// Starts a member on what `input` describes.
///
/// # Panics
/// If one of the promises above is broken: then there is a bug.
#[must_use]
pub fn start(input: &[u8]) -> Outcome {
    let world = World::parse(input);
    let before = world.tree();
    let is_forced = world.start.asked.recovery == Recovery::ForceNewCluster;
    let mut first = match world.boot() {
        Ok(booted) => facts(&booted),
        Err(BootError::Refused(refusal)) => {
            world.check_untouched(&before);
            return Outcome::Refused(refusal.to_string());
        }
        Err(error) => {
            world.check_kept(&before);
            return Outcome::Failed(error.to_string());
        }
    };
    world.check_kept(&before);
    if is_forced && !world.has_log_in(&before) {
        // Without a log a forced start founds or joins like any other, as etcd's does. The next one cuts its member loose, unless
        // it has joined and heard nothing of its cluster yet.
        let before = world.tree();
        first = match world.boot() {
            Ok(booted) => facts(&booted),
            Err(BootError::Fault(fault @ Fault::Unfit { .. })) if first.raft.last() == Mark::ZERO => {
                world.check_kept(&before);
                return Outcome::Failed(fault.to_string());
            }
            Err(error) => panic!("a founder is cut loose: {error}"),
        };
    }
    let again = world.boot_again();
    assert_eq!(facts(&again), first, "a second start comes to the same");
    let store = again.store.clone();
    if let Err(fault) = live(again) {
        return Outcome::Failed(fault.to_string());
    }
    let applied = store.applied().index;
    let batch = store.seal();
    ready(store.backend().commit(&batch)).expect("memory takes every batch");
    let (own, lived) = (first.raft.id(), world.tree());
    let third = match world.boot() {
        Ok(booted) => facts(&booted),
        Err(BootError::Refused(refusal @ Refusal::Removed)) if store.membership().is_removed(own) => {
            world.check_untouched(&lived);
            return Outcome::Refused(refusal.to_string()); // its log told of its own removal
        }
        Err(error) => panic!("a member that lived starts again: {error}"),
    };
    assert_eq!(third.applied, applied);
    assert_eq!(third.membership, *store.membership());
    assert_eq!(third.current, store.current());
    assert!(first.raft.term() <= third.raft.term() && first.raft.last().index <= third.raft.last().index);
    assert!(first.raft.commit() <= third.raft.commit());
    let last = third.raft.last().index;
    if is_forced && applied == last {
        assert_eq!(Configuration::of(&third.membership), Configuration::of_voters([own]), "a forced member is alone");
    }
    Outcome::Started { last, applied }
}

/// The bytes that [`start`] reads as a member's log of these segments and a store with one member, applied up to a place.
///
/// # Panics
/// If a number or a length does not fit into the bytes that it has.
#[must_use]
pub fn input_of_log(segments: &[(Name, Vec<u8>)], member: MemberId, applied: Mark) -> Vec<u8> {
    let mut input = vec![0];
    put_segments(&mut input, segments);
    put_store(&mut input, member, applied);
    input
}

/// The bytes that [`start`] reads as a directory of etcd's: a log of these segments and a database.
///
/// # Panics
/// If a number or a length does not fit into the bytes that it has.
#[must_use]
pub fn input_of_import(segments: &[(Name, Vec<u8>)], database: &[u8]) -> Vec<u8> {
    let mut input = vec![0];
    put_segments(&mut input, segments);
    put_item(&mut input, DATABASE_PLACE, database);
    input
}

/// The bytes that [`start`] reads as a second member, `b`, that joins a cluster: these members run.
#[must_use]
pub fn input_of_join(running: &[[u8; 2]]) -> Vec<u8> {
    let mut input = vec![0b1_0110];
    put_item(&mut input, CLUSTER, b"a=http://localhost:2380,b=http://localhost:2381");
    for member in running {
        put_item(&mut input, OTHER, member);
    }
    input
}

/// The bytes that [`start`] reads as a log that says this, with a store that has applied so much unless it is zero; what an item is,
/// is said in `io/src/wal/made.rs`.
#[must_use]
pub fn input_of_items(items: &[&[u8]], applied: Mark) -> Vec<u8> {
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
    let mut item = |head: u8, bytes: &[u8]| put_item(input, head, bytes);
    // The rows lie in memory; this file says that there is a store.
    item(STORE_PLACE, b"store");
    let row = format!("{{\"id\":{},\"peerURLs\":[\"http://h:1\"]}}", member.0);
    let (index, term) = (applied.index.0.to_be_bytes(), applied.term.0.to_be_bytes());
    let rows: [(Bucket, &[u8], &[u8]); 3] = [
        (Bucket::Members, &buckets::member_key(member), row.as_bytes()),
        (Bucket::Meta, buckets::APPLIED_INDEX, &index),
        (Bucket::Meta, buckets::APPLIED_TERM, &term),
    ];
    for (bucket, key, value) in rows {
        let place = Bucket::ALL.iter().position(|each| *each == bucket).expect("every bucket is listed");
        item(ROW + place as u8, &[&[key.len() as u8][..], key, value].concat());
    }
}

fn put_item(input: &mut Vec<u8>, head: u8, bytes: &[u8]) {
    input.push(head);
    input.extend_from_slice(&u16::try_from(bytes.len()).expect("a small file").to_le_bytes());
    input.extend_from_slice(bytes);
}

impl World {
    fn parse(input: &[u8]) -> Self {
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

    fn boot(&self) -> Result<Booted<MemoryDisk, MemoryBackend>, BootError> {
        let open = |directory: PathBuf| async move { self.stores.open(&self.disk, &directory).await };
        ready(boot(&self.disk, &self.start, open))
    }

    fn boot_again(&self) -> Booted<MemoryDisk, MemoryBackend> {
        self.boot().unwrap_or_else(|error| panic!("a start that was accepted is accepted again: {error}"))
    }

    fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut open = [DATA_DIR, WAL_APART, "w.tmp"].map(PathBuf::from).to_vec();
        while let Some(path) = open.pop() {
            let Ok(stat) = ready(self.disk.stat(&path)) else { continue };
            if stat.kind == Kind::Directory {
                let names = ready(self.disk.list(&path)).expect("a directory can be listed");
                open.extend(names.iter().map(|name| path.join(name)));
            }
            let content = self.disk.bytes(&path);
            tree.insert(path, content);
        }
        tree
    }

    /// Whether a member has run on this tree.
    fn has_log_in(&self, tree: &Tree) -> bool {
        let is_segment = |path: &PathBuf| path.file_name().and_then(|name| Name::parse(name.to_str()?)).is_some();
        tree.keys().any(|path| path.parent() == Some(&self.start.places.wal_dir) && is_segment(path))
    }

    /// A refused start changes nothing but what a claim makes; the file of its write test may go, as with etcd.
    fn check_untouched(&self, before: &Tree) {
        let after = self.tree();
        for (path, content) in before.iter().filter(|(path, _)| !path.ends_with(".touch")) {
            assert_eq!(after.get(path), Some(content), "a refused start changed {}", path.display());
        }
        let places = &self.start.places;
        let claimed = BTreeSet::from([places.data_dir.clone(), places.member(), places.lock()]);
        let new = after.keys().find(|path| !before.contains_key(*path) && !claimed.contains(*path));
        assert_eq!(new, None, "a refused start made something");
    }

    /// Every file is there as it was, or a copy of it is. Only what is staged and the file of the write test may go, and an
    /// import's marker once the database has its other name.
    fn check_kept(&self, before: &Tree) {
        let after = self.tree();
        for (path, content) in before {
            let text = path.to_string_lossy();
            if content.is_none() || text.contains(".tmp") || text.ends_with(".touch") {
                continue;
            }
            if *path == self.start.places.store().join(MARKER) && !after.contains_key(&self.start.places.etcd_store()) {
                continue;
            }
            let is_copy = |other: &Path| other.to_string_lossy().starts_with(&*text);
            // A log grows when its member goes on alone.
            let is_same = |kept: &Option<Vec<u8>>| trimmed(kept.as_ref()).starts_with(trimmed(content.as_ref()));
            let is_kept = after.iter().any(|(other, kept)| is_copy(other) && is_same(kept));
            assert!(is_kept, "{} is lost", path.display());
        }
    }
}

/// A log's file may get more zeros behind its end.
fn trimmed(content: Option<&Vec<u8>>) -> &[u8] {
    let bytes = content.map_or(&[][..], Vec::as_slice);
    &bytes[..bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]
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

fn what_is_asked(choices: u8) -> Start {
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

fn facts(booted: &Booted<MemoryDisk, MemoryBackend>) -> Facts {
    Facts {
        raft: booted.raft.clone(),
        marked: booted.marked,
        membership: (*booted.store.membership()).clone(),
        applied: booted.store.applied().index,
        current: booted.store.current(),
    }
}

/// A short life: what was committed is applied, and a member that may elect itself does.
///
/// # Errors
/// The machine failed, or the log holds what is not built.
pub fn live<D: Disk, B: Backend>(booted: Booted<D, B>) -> Result<(), Fault> {
    let Booted { mut raft, store, mut wal, .. } = booted;
    let mut applier = Applier::new(store);
    let mut effects = Effects::new();
    let mut harvest = Harvest::default();
    raft.start(&mut effects);
    let budget = Budget { commands: 16, keys: 64 };
    for _ in 0..LIFE_STEPS {
        let mut writes = 0;
        for effect in std::mem::take(&mut effects) {
            match effect {
                Effect::Append(write) => {
                    wal.append(&write);
                    ready(wal.cut_if_full())?;
                    writes += 1;
                }
                Effect::Apply { entries } => applier.push(entries),
                _ => {}
            }
        }
        if writes > 0 {
            ready(wal.sync())?;
            raft.step(Input::Persisted { writes }, &mut effects);
        } else if !applier.is_idle() {
            applier.work(budget, &mut harvest)?;
            for (index, change) in harvest.changes.drain(..) {
                raft.step(Input::ConfigurationChanged { index, change }, &mut effects);
            }
            if applier.is_idle() {
                raft.step(Input::Applied { upto: applier.applied() }, &mut effects);
            }
        } else if raft.leader().is_none() && raft.term() < Term(u64::MAX / 4) {
            raft.step(Input::Expired(Timer::Election), &mut effects);
        } else if effects.is_empty() {
            break;
        }
    }
    ready(wal.close())
}
