//! Random histories through the store, against a list of rows: what is read, hashed and loaded again is that list, wherever its rows are.

use std::collections::BTreeMap;

use detcd_core::apply::{Application, Step};
use detcd_core::command::{
    AlarmAction, AlarmKind, AlarmRequest, Command, CompactionRequest, DeleteRangeRequest, LeaseCheckpoint,
    LeaseCheckpointRequest, LeaseGrantRequest, LeaseRevokeRequest, Op, PutRequest, TxnRequest,
};
use detcd_core::ids::MemberId;
use detcd_core::membership::Member;
use proptest::prelude::*;

use super::hash::{HashAll, HashKeys, Hashed};
use super::leases::LeaseRules;
use super::memory::{MemoryBackend, Tables};
use super::*;
use crate::wal::fuzz::ready;

fn rules() -> LeaseRules {
    LeaseRules::new(std::time::Duration::from_millis(100), 10)
}

#[derive(Clone, Debug)]
enum Act {
    Put(u8, u8),
    Delete(u8, u8),
    /// Puts and deletes of one revision.
    Both(u8, u8),
    AddMember(u64),
    RemoveMember(u64),
    AgreeOnVersion,
    Alarm(u64, bool),
    /// A compaction so far behind the newest revision.
    Compact(i64),
    /// Every compaction that is due is carried out, in steps of so many keys.
    Sweep(usize),
    Grant(u8),
    Revoke(u8),
    Checkpoint(u8, u8),
    /// A put with a lease, if it exists.
    Attach(u8, u8),
    Seal,
    Commit,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => (0_u8..6, any::<u8>()).prop_map(|(key, value)| Act::Put(key, value)),
        2 => (0_u8..6, 0_u8..7).prop_map(|(key, end)| Act::Delete(key, end)),
        2 => (0_u8..6, 0_u8..6).prop_map(|(put, delete)| Act::Both(put, delete)),
        1 => (1_u64..5).prop_map(Act::AddMember),
        1 => (1_u64..5).prop_map(Act::RemoveMember),
        1 => Just(Act::AgreeOnVersion),
        1 => (1_u64..4, any::<bool>()).prop_map(|(member, raise)| Act::Alarm(member, raise)),
        2 => (0_i64..4).prop_map(Act::Compact),
        2 => (1_usize..4).prop_map(Act::Sweep),
        2 => (1_u8..4).prop_map(Act::Grant),
        1 => (1_u8..4).prop_map(Act::Revoke),
        1 => (1_u8..4, 0_u8..9).prop_map(|(id, left)| Act::Checkpoint(id, left)),
        4 => (0_u8..6, 1_u8..4).prop_map(|(key, id)| Act::Attach(key, id)),
        3 => Just(Act::Seal),
        3 => Just(Act::Commit),
    ]
}

fn key(number: u8) -> Bytes {
    Bytes::from(vec![b'a' + number])
}

fn put(number: u8, value: u8) -> PutRequest {
    PutRequest { key: key(number), value: Bytes::from(vec![value; usize::from(value % 40)]), ..PutRequest::default() }
}

fn lease(number: u8) -> LeaseId {
    LeaseId(i64::from(number))
}

fn delete(number: u8, end: u8) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key(number), range_end: key(end), prev_kv: false }
}

/// A store with the slow twin beside it.
struct Twins {
    store: Store<MemoryBackend>,
    index: u64,
    /// Every row that no sweep has removed, as the key and the value in bucket `key`.
    rows: BTreeMap<Bytes, Bytes>,
    removed: Vec<u64>,
    sealed: Option<Arc<Batch>>,
    /// The events of the outcome at hand.
    events: Vec<Event>,
}

impl Twins {
    fn new() -> Self {
        let store = ready(Store::load(MemoryBackend::default(), rules())).unwrap();
        Self { store, index: 0, rows: BTreeMap::new(), removed: Vec::new(), sealed: None, events: Vec::new() }
    }

    fn play(&mut self, act: &Act) {
        let writes = match act {
            Act::Put(number, value) => self.outcome(Command::Put(put(*number, *value))),
            Act::Delete(number, end) => self.outcome(Command::DeleteRange(delete(*number, *end))),
            Act::Both(number, end) => {
                let delete = DeleteRangeRequest { range_end: Bytes::new(), ..delete(*end, 0) };
                let other = put(*number, 7);
                let mut success = vec![Op::DeleteRange(delete), Op::Put(put(6, *number))];
                if number != end {
                    success.push(Op::Put(other));
                }
                self.outcome(Command::Txn(TxnRequest { success, ..TxnRequest::default() }))
            }
            Act::AddMember(id) if !self.removed.contains(id) => {
                vec![Write::Member(Member { id: MemberId(*id), name: format!("n{}", self.index), ..Member::default() })]
            }
            Act::RemoveMember(id) if self.store.membership().get(MemberId(*id)).is_some() => {
                self.removed.push(*id);
                vec![Write::MemberRemoved(MemberId(*id))]
            }
            Act::AgreeOnVersion => vec![Write::ClusterVersion(Version::new(3, 7, self.index))],
            Act::Alarm(member, raise) => {
                let action = if *raise { AlarmAction::Activate } else { AlarmAction::Deactivate };
                // A kind that forbids nothing.
                let (member, alarm) = (MemberId(*member), AlarmKind::Unknown(9));
                self.outcome(Command::Alarm(AlarmRequest { action, member, alarm }))
            }
            Act::AddMember(_) | Act::RemoveMember(_) => Vec::new(),
            Act::Compact(back) => {
                let request = CompactionRequest { revision: self.store.current() - back, physical: false };
                self.outcome(Command::Compaction(request))
            }
            Act::Sweep(visits) => return self.sweep(*visits),
            Act::Grant(id) => self.outcome(Command::LeaseGrant(LeaseGrantRequest { ttl: 7, id: lease(*id) })),
            Act::Revoke(id) => self.outcome(Command::LeaseRevoke(LeaseRevokeRequest { id: lease(*id) })),
            Act::Checkpoint(id, left) => {
                let checkpoints = vec![LeaseCheckpoint { id: lease(*id), remaining_ttl: i64::from(*left) }];
                self.outcome(Command::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints }))
            }
            Act::Attach(number, id) => {
                self.outcome(Command::Put(PutRequest { lease: lease(*id), ..put(*number, *id) }))
            }
            Act::Seal => return self.seal(),
            Act::Commit => return self.commit(),
        };
        self.absorb(writes);
    }

    fn outcome(&mut self, command: Command) -> Vec<Write> {
        match Application::begin(command).advance(&self.store.view(), usize::MAX).unwrap() {
            Step::Done(outcome) => {
                self.events = outcome.events;
                outcome.writes
            }
            step => panic!("not carried out: {step:?}"),
        }
    }

    fn absorb(&mut self, writes: Vec<Write>) {
        for write in &writes {
            let row = match write {
                Write::Row { revision, kv } => Row { revision: *revision, change: Change::Put(kv.clone()) },
                Write::Tombstone { revision, key } => {
                    Row { revision: *revision, change: Change::Tombstone(key.clone()) }
                }
                _ => continue,
            };
            let mut value = Vec::new();
            row.encode_value(&mut value);
            self.rows.insert(Bytes::copy_from_slice(row.key().as_slice()), value.into());
        }
        self.index += 1;
        let events = std::mem::take(&mut self.events);
        self.store.absorb(writes, &events, Index(self.index), Term(1 + self.index / 7));
    }

    fn seal(&mut self) {
        if self.sealed.is_none() {
            self.sealed = Some(self.store.seal());
        }
    }

    fn commit(&mut self) {
        if let Some(batch) = self.sealed.take() {
            ready(self.store.backend().commit(&batch)).unwrap();
            self.store.retire(ready(self.store.backend().size()).unwrap());
        }
    }

    /// Carries out what compactions left to do, and holds it against the twin.
    fn sweep(&mut self, visits: usize) {
        while let Some(due) = self.store.sweep_due() {
            let hash = due.hashed_from.map(|previous| {
                let hashing = HashKeys::of_compaction(&self.store, due.revision, previous).unwrap();
                let hash = finished(hashing, visits);
                let keep = kept(&self.rows, due.revision, Told::DeletesThere);
                assert_eq!(hash.hash, slow_hash(&self.rows, due.revision, previous, &keep));
                hash
            });
            self.store.begin_sweep(due.revision);
            let (mut from, mut dead) = (None::<Bytes>, 0);
            loop {
                let (rows, resume) = self.store.sweep(due.revision, from.as_deref(), visits);
                self.store.remove(&rows);
                dead += rows.len();
                from = resume;
                if from.is_none() {
                    break;
                }
            }
            drop(self.store.end_sweep(due.revision, hash));
            let before = self.rows.len();
            self.rows = left_by(&self.rows, due.revision);
            assert_eq!(before - self.rows.len(), dead);
            assert_eq!(self.store.compaction_hash(due.revision), hash);
        }
    }

    /// etcd's hash at a revision, as it is once every compaction is carried out.
    fn slow_hash(&self, revision: i64) -> u32 {
        let compacted = self.store.compacted();
        let left = left_by(&self.rows, compacted);
        slow_hash(&left, revision, compacted, &kept(&left, revision, Told::LiveOnly))
    }

    /// What a key holds now, by the twin's rows.
    fn slow_get(&self, key: &Bytes) -> Option<KeyValue> {
        let newest = self.rows.iter().rev().find_map(|(place, value)| {
            let kv = buckets::decode_key_value(value.clone()).unwrap();
            (kv.key == *key).then(|| (RevisionKey::parse(place).unwrap().1, kv))
        });
        newest.filter(|(kind, _)| *kind == buckets::RowKind::Put).map(|(_, kv)| kv)
    }

    /// What watchers are to learn: every row, with what its key held before its revision.
    fn slow_changes(&self) -> Vec<(detcd_core::watch::Change, Option<KeyValue>)> {
        let mut lives: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
        let mut before = lives.clone();
        let mut last = 0;
        let change = |(place, value): (&Bytes, &Bytes)| {
            let (revision, kind) = RevisionKey::parse(place).unwrap();
            if last < revision.main {
                (last, before) = (revision.main, lives.clone());
            }
            let kv = KeyValue { modified: revision.main, ..buckets::decode_key_value(value.clone()).unwrap() };
            let kind = match kind {
                buckets::RowKind::Put => detcd_core::apply::EventKind::Put,
                buckets::RowKind::Tombstone => detcd_core::apply::EventKind::Delete,
            };
            match kind {
                detcd_core::apply::EventKind::Put => drop(lives.insert(kv.key.clone(), kv.clone())),
                detcd_core::apply::EventKind::Delete => drop(lives.remove(&kv.key)),
            }
            let change = detcd_core::watch::Change { kind, kv, before: detcd_core::watch::Before::LookUp };
            let prev = before.get(&change.kv.key).filter(|_| !change.is_creation()).cloned();
            (change, prev)
        };
        self.rows.iter().map(change).collect()
    }

    fn check(&self) {
        let view = self.store.view();
        for number in 0..7 {
            let now = view.key_at(&key(number), Revision::end_of(self.store.current()));
            assert_eq!(now.map(|facts| view.row(facts.modified).unwrap()), self.slow_get(&key(number)));
        }
    }
}

/// Whether a set of kept rows holds the tombstones of the very revision.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    LiveOnly,
    DeletesThere,
}

type Rows = BTreeMap<Bytes, Bytes>;

fn place(key: &Bytes) -> (Revision, buckets::RowKind) {
    RevisionKey::parse(key).unwrap()
}

/// The newest row of each key at a revision, if it says something.
fn kept(rows: &Rows, revision: i64, told: Told) -> Vec<Bytes> {
    let mut newest = BTreeMap::new();
    for (key, value) in rows {
        if place(key).0.main <= revision {
            newest.insert(buckets::decode_key_value(value.clone()).unwrap().key, key.clone());
        }
    }
    let says = |key: &Bytes| {
        let (at, kind) = place(key);
        kind == buckets::RowKind::Put || told == Told::DeletesThere && at.main == revision
    };
    newest.into_values().filter(says).collect()
}

/// What a compaction leaves: no transaction here deletes a key and writes it again.
fn left_by(rows: &Rows, compacted: i64) -> Rows {
    let keep = kept(rows, compacted, Told::DeletesThere);
    let stays = |(key, _): &(&Bytes, &Bytes)| compacted < place(key).0.main || keep.contains(key);
    rows.iter().filter(stays).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// etcd's hash, by its own words: a set of kept rows, and what counts beside it.
fn slow_hash(rows: &Rows, revision: i64, compacted: i64, keep: &[Bytes]) -> u32 {
    let mut crc = crc32c::crc32c(b"key");
    for (key, value) in rows {
        let (at, kind) = place(key);
        let is_dropped = at.main <= compacted && !keep.is_empty() && !keep.contains(key);
        let is_boundary = at.main == compacted && kind == buckets::RowKind::Tombstone;
        if at.main <= revision && !is_dropped && !is_boundary {
            crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value);
        }
    }
    crc
}

fn finished(mut hashing: HashKeys<MemoryBackend>, budget: usize) -> hash::KeysHash {
    loop {
        match hashing.advance(budget).unwrap() {
            Hashed::Done(hash) => return hash,
            Hashed::More => {}
            Hashed::Overtaken => panic!("nobody sweeps meanwhile"),
        }
    }
}

/// Carries a hash to its end, with `between` in the middle of it.
fn hashed(store: &Store<MemoryBackend>, asked: i64, budget: usize, between: impl FnOnce()) -> hash::KeysHash {
    let mut hashing = HashKeys::new(store, asked).unwrap();
    let mut between = Some(between);
    if hashing.advance(budget).unwrap() == Hashed::More {
        between.take().expect("once")();
    }
    finished(hashing, budget)
}

fn facts(store: &Store<MemoryBackend>) -> impl PartialEq + std::fmt::Debug {
    let membership = (*store.membership()).clone();
    let keys = store.live_keys();
    let leases = store.read().leases.clone();
    let state = (store.current(), store.compacted(), membership, store.alarms());
    (state, store.storage_version(), store.applied(), keys, leases)
}

proptest! {
    #[test]
    fn watchers_read_every_row_once_and_revisions_whole(
        acts in prop::collection::vec(act(), 0..60),
        rows in 1_usize..6,
        bytes in 1_usize..600,
        from in 1_i64..6,
    ) {
        let mut twins = Twins::new();
        prop_assert_eq!(twins.store.keep_news(1 << 20), 1);
        let compacts = |act: &&Act| matches!(act, Act::Compact(_) | Act::Sweep(_));
        acts.iter().filter(|act| !compacts(act)).for_each(|act| twins.play(act));
        let expected = twins.slow_changes();
        let plain = |change: &detcd_core::watch::Change| (change.kind, change.kv.clone());
        let recent::News::Next(news) = twins.store.news(1, usize::MAX) else { panic!("there is room for all") };
        let live: Vec<_> = news.iter().flat_map(|happened| &happened.changes).cloned().collect();
        prop_assert_eq!(live.iter().map(plain).collect::<Vec<_>>(), expected.iter().map(|(change, _)| plain(change)).collect::<Vec<_>>());
        for (change, (_, prev)) in live.iter().zip(&expected) {
            prop_assert_eq!(twins.store.before(change).unwrap(), prev.clone());
        }
        // Rows move to the backend while they are read.
        let upto = twins.store.current();
        let (mut at, mut read) = (from, Vec::new());
        while at <= upto {
            let size = history::ChunkSize { rows, bytes };
            let mut reading = history::HistoryRead::new(&twins.store, at, upto, size);
            let chunk = loop {
                match reading.advance().unwrap() {
                    history::Step::Done(chunk) => break chunk,
                    history::Step::More => {}
                    history::Step::Compacted => panic!("nothing is compacted"),
                }
                twins.seal();
                twins.commit();
            };
            prop_assert_eq!(chunk.from, at);
            prop_assert!(at <= chunk.upto && chunk.upto <= upto);
            prop_assert!(chunk.changes.iter().all(|change| at <= change.kv.modified && change.kv.modified <= chunk.upto));
            let before_last = chunk.changes.iter().filter(|change| change.kv.modified < chunk.upto);
            prop_assert!(before_last.count() < rows.max(1), "a full chunk ends with its revision");
            at = chunk.upto + 1;
            read.extend(chunk.changes);
        }
        let expected = expected.into_iter().filter(|(change, _)| from <= change.kv.modified);
        for (found, (change, prev)) in read.iter().zip(expected.clone()) {
            prop_assert_eq!(found, &change);
            prop_assert_eq!(twins.store.before(found).unwrap(), prev);
        }
        prop_assert_eq!(read.len(), expected.count());
    }

    #[test]
    fn watchers_read_past_a_compaction_or_learn_of_it(
        acts in prop::collection::vec(act(), 0..60),
        rows in 1_usize..6,
        from in 1_i64..20,
    ) {
        let mut twins = Twins::new();
        let mut all = BTreeMap::new();
        for act in &acts {
            twins.play(act);
            all.extend(twins.rows.clone());
        }
        let (upto, size) = (twins.store.current(), history::ChunkSize { rows, bytes: usize::MAX });
        prop_assume!(from <= upto);
        let mut reading = history::HistoryRead::new(&twins.store, from, upto, size);
        let step = loop {
            match reading.advance().unwrap() {
                history::Step::More => {}
                done => break done,
            }
        };
        if from < twins.store.compacted() {
            prop_assert_eq!(step, history::Step::Compacted);
        } else if from > twins.store.compacted() {
            let history::Step::Done(chunk) = step else { panic!("{step:?}") };
            let revisions = |main: &i64| from <= *main && *main <= chunk.upto;
            let expected = all.keys().map(|key| RevisionKey::parse(key).unwrap().0.main).filter(revisions);
            let found = chunk.changes.iter().map(|change| change.kv.modified);
            prop_assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
    }

    #[test]
    fn wherever_the_rows_are_they_read_hash_and_load_alike(
        acts in prop::collection::vec(act(), 0..60),
        budget in 1_usize..6,
        back in 0_i64..4,
    ) {
        let mut twins = Twins::new();
        for act in &acts {
            twins.play(act);
            twins.check();
        }
        let revision = twins.store.current();
        let asked = (revision - back).max(twins.store.compacted()).max(1);
        let hash = |twins: &Twins, asked| hashed(&twins.store, asked, budget, || {}).hash;
        prop_assert_eq!(hash(&twins, 0), twins.slow_hash(revision));
        prop_assert_eq!(hash(&twins, asked), twins.slow_hash(asked));
        // A batch that becomes durable in the middle of a hash is in it once.
        twins.seal();
        let (store, batch) = (twins.store.clone(), twins.sealed.take().unwrap());
        let during = hashed(&twins.store, 0, budget, || {
            ready(store.backend().commit(&batch)).unwrap();
            store.retire(Size::default());
        });
        prop_assert_eq!(during.hash, twins.slow_hash(revision));
        twins.seal();
        twins.commit();
        prop_assert_eq!(twins.store.pending(), (0, 0));

        let stored = twins.store.backend().tables();
        let stored: Rows = stored.into_iter().filter(|((bucket, _), _)| *bucket == Bucket::Key).map(|((_, key), value)| (key, value)).collect();
        prop_assert_eq!(&stored, &twins.rows);

        let loaded = ready(Store::load(twins.store.backend().clone(), rules())).unwrap();
        prop_assert_eq!(facts(&loaded), facts(&twins.store));
        let before = std::mem::replace(&mut twins.store, loaded);
        twins.check();
        prop_assert_eq!(hash(&twins, 0), twins.slow_hash(revision));
        let all = |store: &Store<MemoryBackend>| {
            let mut hashing = HashAll::new(store);
            loop {
                if let Some(hash) = hashing.advance(budget).unwrap() {
                    break hash;
                }
            }
        };
        prop_assert_eq!(all(&twins.store), all(&before));
        // A sweep that was cut off is due again, without a hash.
        if twins.store.sweep_due().is_some() {
            prop_assert_eq!(twins.store.sweep_due().and_then(|due| due.hashed_from), None);
            twins.sweep(budget);
            prop_assert_eq!(hash(&twins, 0), twins.slow_hash(revision));
        }
    }
}

type TableRow<'a> = (Bucket, &'a [u8], &'a [u8]);

fn load(rows: &[TableRow<'_>]) -> Result<Store<MemoryBackend>, Fault> {
    let tables =
        rows.iter().map(|(bucket, key, value)| ((*bucket, Bytes::copy_from_slice(key)), Bytes::copy_from_slice(value)));
    ready(Store::load(MemoryBackend::holding(tables.collect::<Tables>()), rules()))
}

fn refusal(rows: &[TableRow<'_>]) -> String {
    load(rows).err().unwrap_or_else(|| panic!("such a store is refused: {rows:?}")).to_string()
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let rows: [(Bucket, &[u8], &[u8], &str); 2] = [
        (Bucket::Auth, b"authEnabled", &[1], "authentication, which this store has enabled"),
        (Bucket::Meta, b"finishedCompactRev", b"no revision", "finishedCompactRev: not a revision"),
    ];
    for (bucket, key, value, cause) in rows {
        let text = refusal(&[(bucket, key, value)]);
        assert!(text.ends_with(cause), "{text}");
    }
    assert!(load(&[(Bucket::Auth, b"authEnabled", &[0])]).is_ok(), "authentication that is off is no authentication");
    assert!(load(&[(Bucket::Auth, b"authRevision", &[0, 0, 0, 0, 0, 0, 0, 1])]).is_ok());
    for version in ["3.5.0", "3.8.0", "3.7.1"] {
        let other = refusal(&[(Bucket::Meta, b"storageVersion", version.as_bytes())]);
        assert!(other.contains(&format!("version {version:?} is not supported")), "{other}");
    }
    for version in [STORAGE_VERSION_LEAST, STORAGE_VERSION] {
        let row = version.to_string();
        let loaded = load(&[(Bucket::Meta, b"storageVersion", row.as_bytes())]).unwrap();
        assert_eq!(loaded.storage_version(), Some(version));
    }
    assert!(refusal(&[(Bucket::Cluster, b"downgrade", b"{")]).contains("downgrade: "));
}

#[test]
fn an_older_cluster_has_no_version_of_the_layout() {
    let store = load(&[]).unwrap();
    store.absorb(vec![Write::ClusterVersion(Version::new(3, 0, 0))], &[], Index(1), Term(1));
    assert_eq!(store.storage_version(), None);
    let steps = [((3, 6, 0), "3.6.0"), ((3, 7, 2), "3.7.0"), ((3, 6, 0), "3.6.0"), ((3, 8, 0), "3.7.0")];
    for (index, (cluster, layout)) in (2..).zip(steps) {
        store.absorb(
            vec![Write::ClusterVersion(Version::new(cluster.0, cluster.1, cluster.2))],
            &[],
            Index(index),
            Term(1),
        );
        assert_eq!(store.storage_version().unwrap().to_string(), layout);
    }
}

#[test]
fn damaged_rows_are_typed_errors() {
    let (at, next) = (RevisionKey::put(Revision::new(2, 0)), RevisionKey::put(Revision::new(-1, 0)));
    let kv = b"\x0a\x01k\x10\x02\x18\x02\x20\x01";
    let member = br#"{"id":10,"peerURLs":[]}"#;
    let damaged: [(&str, &[TableRow<'_>]); 16] = [
        ("no kind", &[(Bucket::Alarm, b"\x08\x01", b"")]),
        ("alarm \\xff: ", &[(Bucket::Alarm, b"\xff", b"")]),
        ("not a revision", &[(Bucket::Key, b"short", kv)]),
        ("not a revision", &[(Bucket::Key, &[at.as_slice(), b"x"].concat(), kv)]),
        ("table key of data.mdb, row ", &[(Bucket::Key, at.as_slice(), b"\xff\xff")]),
        ("not a revision", &[(Bucket::Key, next.as_slice(), kv)]),
        (
            "member a: the row is about another member",
            &[(Bucket::Members, b"b", member), (Bucket::Members, b"a", br#"{"id":11}"#)],
        ),
        ("member a: ", &[(Bucket::Members, b"a", b"{")]),
        ("lease ", &[(Bucket::Lease, &[0; 8], b"\x08\x01")]),
        ("lease x: ", &[(Bucket::Lease, b"x", b"\xff")]),
        ("removed member x: not an id", &[(Bucket::MembersRemoved, b"x", b"removed")]),
        ("both a member and removed", &[(Bucket::Members, b"a", member), (Bucket::MembersRemoved, b"a", b"removed")]),
        ("consistent_index: not eight bytes", &[(Bucket::Meta, b"consistent_index", b"123")]),
        ("term: not eight bytes", &[(Bucket::Meta, b"term", b"123456789")]),
        ("clusterVersion: not a version", &[(Bucket::Cluster, b"clusterVersion", b"3.7")]),
        ("storageVersion: not a version", &[(Bucket::Meta, b"storageVersion", b"\xff")]),
    ];
    for (cause, rows) in damaged {
        let text = refusal(rows);
        assert!(text.starts_with("cannot load the store: ") && text.contains(cause), "{cause}: {text}");
    }
    let good = load(&[
        (Bucket::Key, at.as_slice(), kv),
        (Bucket::Members, b"a", member),
        (Bucket::MembersRemoved, b"b", b"removed"),
        (Bucket::Meta, b"consistent_index", &[0, 0, 0, 0, 0, 0, 1, 2]),
        (Bucket::Meta, b"term", &[0, 0, 0, 0, 0, 0, 0, 3]),
        (Bucket::Cluster, b"clusterVersion", b"3.7.0"),
    ])
    .unwrap();
    assert_eq!(good.applied(), Applied { index: Index(258), term: Term(3) });
    assert_eq!((good.current(), good.compacted(), good.live_keys()), (2, -1, 1));
    assert!(good.membership().is_removed(MemberId(11)) && good.membership().get(MemberId(10)).is_some());
    assert_eq!(good.membership().cluster_version(), Some(Version::new(3, 7, 0)));
}

#[test]
fn an_overlay_shows_the_newest_of_both_batches() {
    let row = |main, value: &'static str| {
        let kv = KeyValue { key: "k".into(), value: value.into(), ..KeyValue::default() };
        Row { revision: Revision::new(main, 0), change: Change::Put(kv) }
    };
    let place = |key: &'static str| (Bucket::Cluster, Bytes::from_static(key.as_bytes()));
    let mut overlay = Overlay::default();
    overlay.open().push_row(row(2, "old"));
    overlay.open().tables.insert(place("x"), Some("1".into()));
    overlay.open().tables.insert(place("y"), Some("1".into()));
    overlay.open().tables.insert((Bucket::Meta, "x".into()), Some("other".into()));
    overlay.open().applied = Applied { index: Index(9), term: Term(2) };
    let sealed = overlay.seal();
    assert_eq!(overlay.open().applied, sealed.applied, "what is applied stays so");
    assert_eq!((overlay.open_operations(), overlay.is_committing()), (0, true));
    overlay.open().push_row(row(3, "new"));
    overlay.open().tables.insert(place("x"), None);
    assert_eq!(overlay.pending(), (6, 2 + "old".len() + "new".len()));
    assert_eq!(overlay.row(Revision::new(2, 0)), Some(&row(2, "old")));
    assert_eq!(overlay.row(Revision::new(3, 0)), Some(&row(3, "new")));
    assert_eq!(overlay.row(Revision::new(3, 1)), None);
    let main = |rows: Vec<Row>| rows.into_iter().map(|row| row.revision.main).collect::<Vec<_>>();
    assert_eq!(main(overlay.rows(Revision::default(), Revision::new(9, 0))), [2, 3]);
    assert_eq!(main(overlay.rows(Revision::new(3, 0), Revision::new(3, 0))), [3]);
    assert_eq!(main(overlay.rows(Revision::new(2, 0), Revision::new(2, 9))), [2]);
    assert_eq!(overlay.table_row(Bucket::Cluster, &"x".into()), Some(None), "removed since");
    assert_eq!(overlay.table_row(Bucket::Cluster, &"y".into()), Some(Some("1".into())));
    assert_eq!(overlay.table_row(Bucket::Cluster, &"z".into()), None);
    let changes = overlay.table_changes(Bucket::Cluster);
    assert_eq!(changes, [("x".into(), Some("1".into())), ("y".into(), Some("1".into())), ("x".into(), None)]);
    overlay.retire();
    assert_eq!(overlay.row(Revision::new(2, 0)), None);
    assert_eq!(overlay.pending(), (2, 1 + "new".len()));
}
