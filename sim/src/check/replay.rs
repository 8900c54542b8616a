//! The store is what a replay of the log makes, and the log is never behind the store.
//!
//! Two looks. After every crash: the log that is left reaches the store's applied index, or the store would know what was never promised. At the end: every committed
//! entry from the first on – files that were released included – goes through the engine's own apply over plain maps, and the tables must be the same,
//! row for row.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use detcd_core::alarm::Alarms;
use detcd_core::apply::{Application, Step, Write};
use detcd_core::ids::{Index, LeaseId, Revision};
use detcd_core::lease::{LeaseRow, LeaseTable};
use detcd_core::membership::Membership;
use detcd_core::mvcc::{CountChunk, Facts, KeyChunk, KeyIndex, KeyValue, Scan, View};
use detcd_core::raft::{Entry, EntryKind, Mark};
use detcd_io::codec::{downgrade, entry, member};
use detcd_io::disk::MemoryDisk;
use detcd_io::snap;
use detcd_io::store::buckets::{self, Bucket, RevisionKey};
use detcd_io::store::layout_of;
use detcd_io::store::leases;
use detcd_io::wal::{self, Recovered, WalError};

use super::archive::Snapshot;
use super::quota::AlarmHistory;
use super::rows::{Table, left_by};
use super::{Promise, Violation};
use crate::machine::Machine;
use crate::store::{Tables, number};
use crate::world::DATA_DIR;

/// Which files of a log are read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Files {
    /// Those that a start reads, which believes the name of the newest snapshot.
    Needed,
    /// All that are there.
    Present,
    /// All that ever were.
    Ever,
}

/// Reads the log as a tool would: a copy of its files, without the machine's troubles.
fn read_log(machine: &Machine, dir: &Path, files: Files) -> Result<Option<Recovered>, WalError> {
    let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "wal");
    let found = match files {
        Files::Needed | Files::Present => machine.look().image.below(dir, is_log),
        Files::Ever => machine.look().image.ever_below(dir, is_log),
    };
    let disk = MemoryDisk::new();
    for (path, bytes) in found {
        disk.put(&path, bytes);
    }
    if disk.bytes(dir).is_none() && now(wal::names(&disk, dir)).unwrap_or_default().is_empty() {
        return Ok(None);
    }
    let recovered = match files {
        Files::Ever => now(wal::read(&disk, dir, Mark::ZERO)),
        Files::Needed => now(wal::read_newest(&disk, dir, newest_snap(machine))),
        Files::Present => {
            let newest = now(wal::marks(&disk, dir))?.last().map_or(Mark::ZERO, |marked| marked.mark);
            now(wal::read(&disk, dir, newest))
        }
    };
    recovered.map(Some)
}

/// The mark by the name of the newest `.snap` file, which mostly is the log's newest.
fn newest_snap(machine: &Machine) -> Mark {
    let (disk, dir) = (MemoryDisk::new(), Path::new(DATA_DIR).join("member/snap"));
    let is_snap = |path: &Path| path.extension().is_some_and(|extension| extension == "snap");
    for (path, bytes) in machine.look().image.below(&dir, is_snap) {
        disk.put(&path, bytes);
    }
    now(snap::newest_name(&disk, &dir)).ok().flatten().unwrap_or(Mark::ZERO)
}

/// Runs a future that never waits.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("memory makes nobody wait"),
    }
}

/// After a crash: the log that is left covers the store.
///
/// # Errors
/// It does not.
pub fn covers(machine: &Machine, dir: &Path) -> Result<(), Violation> {
    let applied = applied(machine);
    let broken = |what: String| Err(Violation::new(Promise::Replay, what));
    if applied == 0 {
        return Ok(());
    }
    match read_log(machine, dir, Files::Needed) {
        Ok(Some(recovered)) => {
            let last = recovered.entries.last().map(|entry| entry.index.0);
            if last.is_some_and(|last| last < applied) {
                return broken(format!("the store has applied {applied}, the log ends at {last:?}"));
            }
            Ok(())
        }
        Ok(None) => broken(format!("the store has applied {applied}, and there is no log")),
        Err(error) => broken(format!("the log cannot be read: {error}")),
    }
}

/// Whether there is a log.
#[must_use]
pub fn has_log(machine: &Machine, dir: &Path) -> bool {
    !matches!(read_log(machine, dir, Files::Needed), Ok(None))
}

/// Where a machine's store stands in the log.
#[must_use]
pub fn applied(machine: &Machine) -> u64 {
    number(machine.look().tables(), buckets::APPLIED_INDEX)
}

/// At the end: everything that was committed, once more, with a look at each snapshot on the way.
///
/// # Errors
/// The log cannot be read, the engine does not take it, or a snapshot is not what it makes.
pub fn replay(machine: &Machine, dir: &Path, snapshots: &[Snapshot]) -> Result<Replay, Violation> {
    let broken = |what: String| Violation::new(Promise::Replay, what);
    let recovered = read_log(machine, dir, Files::Ever).map_err(|error| broken(format!("the log: {error}")))?;
    let recovered = recovered.ok_or_else(|| broken("there is no log".to_owned()))?;
    let mut replay = Replay::new();
    for (upto, snapshot) in in_order(snapshots) {
        replay.pass(&recovered.entries, upto, snapshot)?;
    }
    replay.advance(&recovered.entries, applied(machine))?;
    Ok(replay)
}

/// Where snapshots stand in the log.
fn in_order(snapshots: &[Snapshot]) -> Vec<(u64, &Snapshot)> {
    let mut stops: Vec<_> =
        snapshots.iter().map(|snapshot| (number(&snapshot.tables, buckets::APPLIED_INDEX), snapshot)).collect();
    stops.sort_by_key(|(upto, _)| *upto);
    stops
}

/// The same for several members, over the one log that they agree on: `check` each where its store stands. The log as far as the foremost of them.
///
/// # Errors
/// The engine does not take it, or a store or a snapshot is not what it makes.
pub fn replay_all(machines: &[&Machine], committed: &[Entry], snapshots: &[Snapshot]) -> Result<Replay, Violation> {
    let mut stops: Vec<(u64, &Machine)> = Vec::new();
    for machine in machines {
        stops.push((applied(machine), machine));
    }
    stops.sort_by_key(|stop| stop.0);
    let mut replay = Replay::new();
    let mut snapshots = in_order(snapshots).into_iter().peekable();
    for (applied, machine) in stops {
        while let Some((upto, snapshot)) = snapshots.next_if(|(upto, _)| *upto <= applied) {
            replay.pass(committed, upto, snapshot)?;
        }
        replay.advance(committed, applied)?;
        check(machine, &replay)?;
    }
    // Of a store that was ahead of all that are left.
    snapshots.try_for_each(|(upto, snapshot)| replay.pass(committed, upto, snapshot))?;
    Ok(replay)
}

/// What is left of a member's log is what was committed, as far as that goes.
///
/// # Errors
/// It is not, or it cannot be read.
pub fn check_log(machine: &Machine, dir: &Path, committed: &[Entry]) -> Result<(), Violation> {
    let broken = |what: String| Err(Violation::new(Promise::Replay, what));
    let recovered = match read_log(machine, dir, Files::Present) {
        Ok(Some(recovered)) => recovered,
        Ok(None) => return broken("there is no log".to_owned()),
        Err(error) => return broken(format!("the log: {error}")),
    };
    let applied = applied(machine);
    for entry in recovered.entries.iter().filter(|entry| entry.index.0 <= applied) {
        if committed.get((entry.index.0 - 1) as usize) != Some(entry) {
            return broken(format!("the log has applied {entry:?}, which was not committed there"));
        }
    }
    Ok(())
}

/// The tables are what the log makes.
///
/// # Errors
/// They are not.
pub fn check(machine: &Machine, replay: &Replay) -> Result<(), Violation> {
    check_tables(machine.look().tables(), replay).map_err(|what| Violation::new(Promise::Replay, what))
}

fn check_tables(stored: &Tables, replay: &Replay) -> Result<(), String> {
    let mut expected = replay.tables.clone();
    let finished = stored.get(&Bucket::Meta).and_then(|meta| meta.get(buckets::FINISHED_COMPACTION));
    let finished = finished.and_then(|mark| RevisionKey::parse(mark)).map_or(-1, |(revision, _)| revision.main);
    if finished != replay.compacted {
        // A compaction that the end cut short: it has removed nothing but what it may.
        let is_known = finished == -1 || replay.compactions.contains(&finished);
        let (key, empty) = (Bucket::Key, Table::new());
        let rows = stored.get(&key).unwrap_or(&empty);
        let left = expected.get(&key).unwrap_or(&empty);
        let is_between = rows.iter().all(|(place, value)| replay.history.get(place) == Some(value))
            && left.keys().all(|place| rows.contains_key(place));
        if !is_known || !is_between {
            return Err(format!("a compaction at {} left {finished} as its mark, or wrong rows", replay.compacted));
        }
        expected.insert(key, rows.clone());
    }
    if finished >= 0 {
        let mark = RevisionKey::put(Revision::new(finished, 0)).as_slice().to_vec();
        set(&mut expected, Bucket::Meta, buckets::FINISHED_COMPACTION, mark);
    }
    compare(&expected, stored)
}

fn compare(replayed: &Tables, stored: &Tables) -> Result<(), String> {
    let empty = BTreeMap::new();
    for bucket in Bucket::ALL {
        let (replayed, stored) = (replayed.get(&bucket).unwrap_or(&empty), stored.get(&bucket).unwrap_or(&empty));
        if replayed == stored {
            continue;
        }
        let odd = replayed.iter().find(|(key, value)| stored.get(*key) != Some(value));
        let odd = odd.or_else(|| stored.iter().find(|(key, value)| replayed.get(*key) != Some(value)));
        let key = odd.map(|(key, _)| key);
        let of = |table: &BTreeMap<Bytes, Bytes>| key.and_then(|key| table.get(key)).cloned();
        return Err(format!(
            "table {}, row {key:?}: the log makes {:?}, the store holds {:?}",
            bucket.name(),
            of(replayed),
            of(stored)
        ));
    }
    Ok(())
}

/// A store of plain maps under the engine's apply.
pub struct Replay {
    index: KeyIndex,
    rows: BTreeMap<Revision, KeyValue>,
    membership: Membership,
    alarms: Alarms,
    leases: LeaseTable,
    current: i64,
    applied: Index,
    tables: Tables,
    compacted: i64,
    compactions: Vec<i64>,
    /// When the alarm of a full store was raised.
    pub raised: AlarmHistory,
    /// Table `key` as if nothing had ever been compacted.
    pub history: Table,
}

impl Replay {
    /// The revisions of all compactions, in order.
    #[must_use]
    pub fn compactions(&self) -> &[i64] {
        &self.compactions
    }

    fn new() -> Self {
        Self {
            index: KeyIndex::default(),
            rows: BTreeMap::new(),
            membership: Membership::default(),
            alarms: Alarms::default(),
            leases: LeaseTable::default(),
            current: 1,
            applied: Index::ZERO,
            tables: Tables::new(),
            compacted: -1,
            compactions: Vec::new(),
            raised: AlarmHistory::default(),
            history: Table::new(),
        }
    }

    /// Goes on to where a snapshot stands, and looks whether all of its tables are what the log makes.
    fn pass(&mut self, log: &[Entry], upto: u64, snapshot: &Snapshot) -> Result<(), Violation> {
        self.advance(log, upto)?;
        let wrong = |what| Violation::new(Promise::Snapshot, format!("at entry {upto}: {what}"));
        check_tables(&snapshot.tables, self).map_err(wrong)
    }

    /// Applies what is not applied yet, up to `upto`.
    fn advance(&mut self, log: &[Entry], upto: u64) -> Result<(), Violation> {
        let broken = |what: String| Violation::new(Promise::Replay, what);
        let next = log.partition_point(|entry| entry.index <= self.applied);
        for entry in log[next..].iter().take_while(|entry| entry.index.0 <= upto) {
            self.apply(entry.clone()).map_err(broken)?;
        }
        if self.applied == Index(upto) {
            return Ok(());
        }
        Err(broken(format!("the store has applied {upto}, the log ends at {}", self.applied)))
    }

    fn apply(&mut self, entry: Entry) -> Result<(), String> {
        let (index, term) = (entry.index, entry.term);
        if index != self.applied.next() {
            return Err(format!("entry {index} follows {}", self.applied));
        }
        let application = match entry.kind {
            EntryKind::Normal if entry.payload.is_empty() => None,
            EntryKind::Normal => {
                let request = entry::decode(entry.payload).map_err(|error| format!("entry {index}: {error}"))?;
                Some(Application::begin(request.command))
            }
            EntryKind::ConfChange => {
                let change =
                    entry::decode_conf_change(entry.payload).map_err(|error| format!("entry {index}: {error}"))?;
                Some(Application::begin_conf_change(change))
            }
            EntryKind::ConfChangeV2 => return Err(format!("entry {index} is a joint change")),
        };
        if let Some(mut application) = application {
            match application.advance(self, usize::MAX) {
                Ok(Step::Done(outcome)) => {
                    let is_grant =
                        |write: &Write| matches!(write, Write::Lease(row) if self.leases.get(row.id).is_none());
                    self.raised.on_entry((index.0, self.current), &outcome.writes, is_grant)?;
                    outcome.writes.iter().for_each(|write| self.write(write));
                }
                other => return Err(format!("entry {index}: {other:?}")),
            }
        }
        self.applied = index;
        self.set(Bucket::Meta, buckets::APPLIED_INDEX, index.0.to_be_bytes().to_vec());
        self.set(Bucket::Meta, buckets::APPLIED_TERM, term.0.to_be_bytes().to_vec());
        Ok(())
    }

    fn write(&mut self, write: &Write) {
        self.membership.on_write(write);
        self.alarms.on_write(write);
        self.leases.on_write(write);
        match write {
            Write::Row { revision, kv } => {
                self.index.put(&kv.key, *revision);
                self.rows.insert(*revision, kv.clone());
                self.current = revision.main;
                let mut value = Vec::new();
                buckets::encode_key_value(kv, &mut value);
                self.add_row(RevisionKey::put(*revision), value);
            }
            Write::Tombstone { revision, key } => {
                self.index.delete(key, *revision);
                self.current = revision.main;
                let mut value = Vec::new();
                buckets::encode_tombstone(key, &mut value);
                self.add_row(RevisionKey::tombstone(*revision), value);
            }
            Write::Member(row) => {
                self.set(Bucket::Members, &buckets::member_key(row.id), member::encode(row));
            }
            Write::MemberRemoved(id) => {
                let key = buckets::member_key(*id);
                self.tables.entry(Bucket::Members).or_default().remove(&key);
                self.set(Bucket::MembersRemoved, &key, b"removed".to_vec());
            }
            Write::ClusterVersion(version) => {
                self.set(Bucket::Cluster, buckets::CLUSTER_VERSION, version.to_string().into_bytes());
                if let Some(layout) = layout_of(*version) {
                    self.set(Bucket::Meta, buckets::STORAGE_VERSION, layout.to_string().into_bytes());
                }
            }
            Write::Downgrade(set) => self.set(Bucket::Cluster, buckets::DOWNGRADE, downgrade::encode(set)),
            Write::AlarmRaised(alarm) => self.set(Bucket::Alarm, &buckets::alarm_key(*alarm), Vec::new()),
            Write::AlarmLowered(alarm) => {
                self.tables.entry(Bucket::Alarm).or_default().remove(&buckets::alarm_key(*alarm));
            }
            Write::Compacted(revision) => {
                self.compacted = *revision;
                self.compactions.push(*revision);
                let mark = RevisionKey::put(Revision::new(*revision, 0)).as_slice().to_vec();
                self.set(Bucket::Meta, buckets::SCHEDULED_COMPACTION, mark);
                let rows = self.tables.entry(Bucket::Key).or_default();
                *rows = left_by(rows, *revision);
            }
            Write::Lease(row) => {
                self.set(Bucket::Lease, &leases::lease_key(row.id), leases::encode_lease(row).to_vec());
            }
            Write::LeaseRemoved(id) => {
                self.tables.entry(Bucket::Lease).or_default().remove(&leases::lease_key(*id));
            }
        }
    }

    fn add_row(&mut self, place: RevisionKey, value: Vec<u8>) {
        self.history.insert(Bytes::copy_from_slice(place.as_slice()), value.clone().into());
        self.set(Bucket::Key, place.as_slice(), value);
    }

    fn set(&mut self, bucket: Bucket, key: &[u8], value: Vec<u8>) {
        set(&mut self.tables, bucket, key, value);
    }
}

fn set(tables: &mut Tables, bucket: Bucket, key: &[u8], value: Vec<u8>) {
    tables.entry(bucket).or_default().insert(Bytes::copy_from_slice(key), value.into());
}

/// The row at this revision is not there.
#[derive(Debug)]
pub struct Missing;

impl View for Replay {
    type Fault = Missing;

    fn current(&self) -> i64 {
        self.current
    }

    fn compacted(&self) -> i64 {
        self.compacted
    }

    fn swept(&self) -> i64 {
        self.compacted
    }

    fn key_at(&self, key: &[u8], at: Revision) -> Option<Facts> {
        self.index.get(key, at)
    }

    fn keys(&self, scan: &Scan<'_>) -> KeyChunk {
        self.index.keys(scan)
    }

    fn count(&self, scan: &Scan<'_>) -> CountChunk {
        self.index.count(scan)
    }

    fn row(&self, at: Revision) -> Result<KeyValue, Missing> {
        self.rows.get(&at).cloned().ok_or(Missing)
    }

    fn lease(&self, id: LeaseId) -> Option<LeaseRow> {
        self.leases.get(id)
    }

    fn lease_keys(&self, id: LeaseId, after: Option<&[u8]>, max: usize) -> Vec<Bytes> {
        self.leases.keys(id, after, max)
    }

    fn lease_ttl_min(&self) -> i64 {
        crate::world::LEASE_TTL_MIN
    }

    fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    fn membership(&self) -> &Membership {
        &self.membership
    }
}
