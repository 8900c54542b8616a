//! LMDB under the store's adapter. Whatever is cut, it opens, holds what some batch left – none older than the last one that was acknowledged – and takes the next batch.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::{Bound, RangeInclusive};
use std::path::Path;

use bytes::Bytes;
use detcd_core::ids::{Index, LeaseId, Revision, Term};
use detcd_core::mvcc::KeyValue;
use detcd_io::entropy::Entropy;
use detcd_io::store::backend::{Backend, Committed, Release, Slice, Visit};
use detcd_io::store::batch::{Applied, Batch, Change, Row};
use detcd_io::store::buckets::{Bucket, RevisionKey};
use detcd_io::store::copying::{Chunk, Copying, Stands};
use detcd_io::store::lmdb::Lmdb;
use detcd_io::store::memory::MemoryBackend;
use detcd_io::wal::fuzz::ready;

use super::recorder::{Call, Recorder};
use super::{Effort, ensure, judge, judge_from, new_root, real};

/// What a store held after each batch, and what was asked of the disk for it.
struct Life {
    calls: Vec<Call>,
    /// In place of a batch's number, what it was.
    batches: Vec<Batch>,
    /// In place of a batch's number, the hash of what is there after it.
    states: Vec<u64>,
}

struct Living {
    lmdb: Lmdb,
    twin: MemoryBackend,
    entropy: Entropy,
    recorder: Recorder,
    /// The newest revision.
    newest: i64,
    /// Revisions that are there.
    present: Vec<RevisionKey>,
    batches: Vec<Batch>,
    states: Vec<u64>,
}

/// The hash of everything in a store.
fn everything(backend: &impl Backend) -> u64 {
    let mut hasher = DefaultHasher::new();
    for bucket in Bucket::ALL {
        bucket.name().hash(&mut hasher);
        let mut visit = |key: &[u8], value: &[u8]| {
            (key, value).hash(&mut hasher);
            Visit::More
        };
        backend.scan(Slice { bucket, start: Bound::Unbounded, end: Bound::Unbounded }, &mut visit).unwrap();
    }
    hasher.finish()
}

fn sync_directory(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

impl Living {
    /// What a start does.
    fn begin(root: &Path, entropy: Entropy) -> Self {
        let recorder = Recorder::start(root);
        let home = root.join("lmdb");
        std::fs::create_dir(&home).unwrap();
        sync_directory(&home);
        sync_directory(root);
        let lmdb = Lmdb::open(&home).unwrap();
        sync_directory(&home);
        let twin = MemoryBackend::default();
        let states = vec![everything(&twin)];
        recorder.acknowledge(0);
        let batches = vec![Batch::default()];
        Self { lmdb, twin, entropy, recorder, newest: 1, present: Vec::new(), batches, states }
    }

    /// New rows of every length, changes of tables, and rows that a compaction removes.
    fn draw_batch(&mut self) -> Batch {
        let number = self.batches.len() as u64;
        let mut batch =
            Batch { applied: Applied { index: Index(number), term: Term(1 + number / 9) }, ..Batch::default() };
        for _ in 0..self.entropy.draw(0, 6) {
            self.newest += 1;
            let length = match self.entropy.draw(0, 19) {
                0 => self.entropy.draw(100_000, 900_000),
                1..=6 => self.entropy.draw(1_000, 9_000),
                _ => self.entropy.draw(0, 300),
            };
            let key = Bytes::from(format!("key {}", self.entropy.draw(0, 30)));
            let value = vec![self.newest as u8; length as usize].into();
            let (created, lease) = (2, LeaseId(0));
            let kv = KeyValue { key: key.clone(), value, created, modified: self.newest, version: 1, lease };
            let change = if length % 7 == 0 { Change::Tombstone(key) } else { Change::Put(kv) };
            let row = Row { revision: Revision::new(self.newest, 0), change };
            self.present.push(row.key());
            batch.push_row(row);
        }
        for _ in 0..self.entropy.draw(0, 3) {
            let bucket = [Bucket::Cluster, Bucket::Members][self.entropy.draw(0, 1) as usize];
            let key = Bytes::from(format!("table key {}", self.entropy.draw(0, 9)));
            let value = Bytes::from(vec![b'v'; self.entropy.draw(0, 2_000) as usize]);
            batch.tables.insert((bucket, key), Some(value).filter(|value| value.len() % 5 != 0));
        }
        if self.entropy.draw(0, 3) == 0 {
            let rows = self.present.len() - batch.rows.len();
            let dead = rows * self.entropy.draw(0, 9) as usize / 10;
            batch.dead = self.present.drain(..dead).collect();
        }
        batch
    }

    fn commit(&mut self) -> Batch {
        let batch = self.draw_batch();
        assert_eq!(ready(self.lmdb.commit(&batch)).unwrap(), Committed::Done);
        self.recorder.acknowledge(self.batches.len());
        assert_eq!(ready(self.twin.commit(&batch)).unwrap(), Committed::Done);
        self.batches.push(batch.clone());
        self.states.push(everything(&self.twin));
        batch
    }

    /// A copy in small chunks takes the store's place, with batches in between.
    fn defragment(&mut self) {
        let mut copying = ready(Copying::begin(&self.lmdb)).unwrap();
        let mut batches = self.entropy.draw(0, 4);
        loop {
            let stands = ready(copying.advance(&self.lmdb, Chunk { rows: 20, bytes: 50_000 })).unwrap();
            if batches > 0 {
                batches -= 1;
                let batch = self.commit();
                ready(copying.on_committed(&batch)).unwrap();
            } else if stands == Stands::Equal {
                break;
            }
        }
        ready(self.lmdb.replace(copying.into_copy())).unwrap();
        while ready(self.lmdb.release()) == Release::More {}
    }
}

fn live(seed: u64, batches: usize) -> Life {
    let root = new_root();
    let mut living = Living::begin(&real(&root), Entropy::seeded(seed));
    let mut frozen = None;
    while living.batches.len() < batches {
        match living.entropy.draw(0, 14) {
            0 => living.defragment(),
            // Pages that somebody reads are not used again.
            1 => frozen = Some(living.lmdb.freeze().unwrap()),
            2 => drop(frozen.take()),
            _ => drop(living.commit()),
        }
    }
    living.defragment();
    living.commit();
    drop(frozen);
    let Living { lmdb, recorder, batches, states, .. } = living;
    drop(lmdb);
    Life { calls: recorder.finish(), batches, states }
}

/// Opens what a crash left: the state after which batch it is, which must be one of these.
fn open(life: &Life, root: &Path, allowed: RangeInclusive<usize>) -> Result<(Lmdb, usize), String> {
    let lmdb = Lmdb::open(&root.join("lmdb")).map_err(|fault| fault.to_string())?;
    let found = everything(&lmdb);
    let state = life.states.iter().position(|state| *state == found);
    match state.filter(|state| allowed.contains(state)) {
        Some(state) => Ok((lmdb, state)),
        None => Err(format!("{allowed:?} was to be found, and found is the state after batch {state:?}")),
    }
}

/// After the newest batch that was acknowledged there may be the next one.
fn allowed(acknowledged: Option<usize>) -> RangeInclusive<usize> {
    acknowledged.map_or(0..=0, |number| number..=number + 1)
}

/// Commits the batch that comes after batch `state`, and asks whether it is whole.
fn go_on(life: &Life, lmdb: &Lmdb, state: usize) -> Result<(), String> {
    let Some(next) = life.batches.get(state + 1) else { return Ok(()) };
    let committed = ready(lmdb.commit(next)).map_err(|fault| format!("the next batch: {fault}"))?;
    let is_whole = committed == Committed::Done && everything(lmdb) == life.states[state + 1];
    ensure(is_whole, || format!("batch {} is not whole on what was found", state + 1))
}

/// Whether there is a store; before one was acknowledged there may be none.
fn is_there(root: &Path, acknowledged: Option<usize>) -> Result<bool, String> {
    let is_there = root.join("lmdb").is_dir();
    ensure(is_there || acknowledged.is_none(), || "the store is gone".to_owned())?;
    Ok(is_there)
}

/// Opens what a crash left, and goes on.
fn check(life: &Life, root: &Path, acknowledged: Option<usize>) -> Result<(), String> {
    if !is_there(root, acknowledged)? {
        return Ok(());
    }
    let (lmdb, state) = open(life, root, allowed(acknowledged))?;
    go_on(life, &lmdb, state)
}

/// The same, and has it cut short once more, before and after each call that this makes. Says how many images that made.
fn check_again(life: &Life, root: &Path, acknowledged: Option<usize>, entropy: &mut Entropy) -> Result<usize, String> {
    let root = root.canonicalize().unwrap();
    if !is_there(&root, acknowledged)? {
        return Ok(0);
    }
    let (recorder, found_calls) = Recorder::take_over(&root);
    let (lmdb, state) = open(life, &root, allowed(acknowledged))?;
    sync_directory(&root.join("lmdb"));
    recorder.acknowledge(0);
    go_on(life, &lmdb, state)?;
    recorder.acknowledge(1);
    drop(lmdb);
    let calls = recorder.finish();
    let after = (state + 1).min(life.states.len() - 1);
    let judged = judge_from(found_calls, (&calls, 1), entropy, |root, number| {
        let least = if number == Some(1) { after } else { state };
        let (lmdb, again) = open(life, root, least..=after)?;
        go_on(life, &lmdb, again)
    });
    ensure(judged.broken.is_empty(), || judged.broken.join("; and "))?;
    Ok(judged.images)
}

/// Of the first crash's images, one in so many is cut short a second time.
const AGAIN_EVERY: usize = 23;

/// Second crashes of one life: how many first images there were and how many second ones, and what broke.
fn crash_twice(life: &Life, seed: u64, cuts: u64) -> (usize, usize, Vec<String>) {
    let (mut entropy, mut dice) = (Entropy::seeded(seed), Entropy::seeded(!seed));
    let (mut firsts, mut seconds) = (0, 0);
    let judged = judge((&life.calls, cuts), &mut entropy, |root, number| {
        firsts += 1;
        if firsts % AGAIN_EVERY == 0 {
            seconds += check_again(life, root, number, &mut dice)?;
        }
        Ok(())
    });
    (firsts, seconds, judged.broken)
}

#[test]
fn a_second_crash_of_a_store_takes_nothing_that_was_found() {
    let effort = Effort::asked(4);
    for seed in 0..effort.lives {
        let life = live(seed, if effort.lives == 1 { 12 } else { 60 });
        let (firsts, seconds, broken) = crash_twice(&life, seed, effort.cuts);
        println!("life {seed} of the store: {firsts} images, and {seconds} of second crashes");
        assert_eq!(broken, Vec::<String>::new());
        assert!(seconds > firsts / AGAIN_EVERY, "only {seconds}");
    }
}

#[test]
fn a_store_that_is_cut_short_holds_a_batch_that_is_not_too_old() {
    let effort = Effort::asked(4);
    for seed in 0..effort.lives {
        let life = live(seed, if effort.lives == 1 { 12 } else { 60 });
        let mut entropy = Entropy::seeded(seed);
        let judged = judge((&life.calls, effort.cuts), &mut entropy, |root, number| check(&life, root, number));
        let (batches, calls) = (life.batches.len() - 1, life.calls.len());
        println!("life {seed} of the store: {batches} batches, {calls} calls, {} images", judged.images);
        assert_eq!(judged.broken, Vec::<String>::new());
        let writes = life.calls.iter().filter(|call| matches!(call, Call::Written { .. })).count();
        assert!(batches < writes, "LMDB's calls are not recorded");
    }
}

/// The images can show a loss. Only the writes of LMDB's metas are taken back: behind a meta without its pages LMDB would read wherever they lead.
#[test]
fn a_store_that_does_not_sync_its_metas_is_seen_to_lose_batches() {
    let mut life = live(0, 12);
    life.calls.retain(|call| !matches!(call, Call::Written { .. }));
    let judged = judge((&life.calls, 1), &mut Entropy::seeded(0), |root, number| check(&life, root, number));
    assert!(judged.broken.iter().any(|what| what.contains("was to be found")), "{:?}", judged.broken);
}
