//! A store in memory: the shipping key index over a map of rows.
//!
//! Nothing here decides anything that the engine should decide; what it should come to is for [`super::slow`] to say.

use std::collections::BTreeMap;

use bytes::Bytes;
use detcd_core::alarm::Alarms;
use detcd_core::apply::{Application, Outcome, Step, Write};
use detcd_core::command::{Command, DeleteRangeRequest, PutRequest, RangeRequest};
use detcd_core::ids::{LeaseId, Revision};
use detcd_core::lease::{LeaseRow, LeaseTable};
use detcd_core::membership::Membership;
use detcd_core::mvcc::{
    CountChunk, Facts, KeyChunk, KeyIndex, KeyValue, Progress, RangeRead, RangeReply, ReadPoint, Scan, View,
};
use detcd_core::reply::Rejected;

/// A row that should have been there.
#[derive(Debug, Eq, PartialEq)]
pub struct Missing(pub Revision);

/// The store.
#[derive(Clone, Debug)]
pub struct Store {
    pub index: KeyIndex,
    pub rows: BTreeMap<Revision, KeyValue>,
    pub current: i64,
    pub compacted: i64,
    pub leases: LeaseTable,
    pub membership: Membership,
    pub alarms: Alarms,
}

impl Default for Store {
    fn default() -> Self {
        let (index, rows, membership) = (KeyIndex::default(), BTreeMap::new(), Membership::default());
        let mut leases = LeaseTable::default();
        for id in [1, -2] {
            leases.on_write(&Write::Lease(LeaseRow { id: LeaseId(id), ttl: 60, remaining: 0 }));
        }
        Self { index, rows, current: 1, compacted: -1, leases, membership, alarms: Alarms::default() }
    }
}

impl View for Store {
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
        self.rows.get(&at).cloned().ok_or(Missing(at))
    }

    fn lease(&self, id: LeaseId) -> Option<LeaseRow> {
        self.leases.get(id)
    }

    fn lease_keys(&self, id: LeaseId, after: Option<&[u8]>, max: usize) -> Vec<Bytes> {
        self.leases.keys(id, after, max)
    }

    fn lease_ttl_min(&self) -> i64 {
        2
    }

    fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    fn membership(&self) -> &Membership {
        &self.membership
    }
}

impl Store {
    /// Applies a command in slices of these sizes (the last one repeats) and carries out its outcome.
    pub fn apply(&mut self, command: Command, slices: &[usize]) -> Outcome {
        let outcome = self.outcome(command, slices);
        self.carry_out(&outcome);
        outcome
    }

    /// What applying a command would come to.
    pub fn outcome(&self, command: Command, slices: &[usize]) -> Outcome {
        match advance_to_end(self, Application::begin(command), slices) {
            Step::Done(outcome) => outcome,
            step => panic!("not carried out: {step:?}"),
        }
    }

    pub fn carry_out(&mut self, outcome: &Outcome) {
        for write in &outcome.writes {
            self.membership.on_write(write);
            self.alarms.on_write(write);
            self.leases.on_write(write);
            match write {
                Write::Row { revision, kv } => {
                    self.index.put(&kv.key, *revision);
                    assert!(self.rows.insert(*revision, kv.clone()).is_none());
                    self.current = revision.main;
                }
                Write::Tombstone { revision, key } => {
                    self.index.delete(key, *revision);
                    self.current = revision.main;
                }
                Write::Compacted(revision) => self.compacted = *revision,
                _ => {}
            }
        }
    }

    pub fn put(&mut self, key: &str, value: &str) -> Outcome {
        self.apply(Command::Put(put(key, value)), &[usize::MAX])
    }

    pub fn delete(&mut self, key: &str, range_end: &str) -> Outcome {
        self.apply(Command::DeleteRange(delete(key, range_end)), &[usize::MAX])
    }

    /// Reads a range from a point, in slices of these sizes.
    pub fn range_at(
        &self,
        request: &RangeRequest,
        point: &ReadPoint,
        slices: &[usize],
    ) -> Result<RangeReply, Rejected> {
        let mut read = RangeRead::new(request, point)?;
        let mut slices = Slices::new(slices);
        loop {
            match read.advance(self, slices.step()).expect("every row is there") {
                Progress::More => {}
                Progress::Done(reply) => return Ok(reply),
                Progress::Rejected(rejected) => return Err(rejected),
            }
        }
    }

    /// Reads a range now.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeReply, Rejected> {
        self.range_at(request, &ReadPoint::now(self), &[usize::MAX])
    }
}

/// Advances an application to its end.
pub fn advance_to_end(view: &Store, mut application: Application, slices: &[usize]) -> Step {
    let mut slices = Slices::new(slices);
    loop {
        match application.advance(view, slices.step()).expect("every row is there") {
            Step::More => {}
            step => return step,
        }
    }
}

/// Budgets one after the other; the last one repeats. Stops the test if an end never comes.
pub struct Slices<'a> {
    sizes: &'a [usize],
    taken: usize,
}

impl<'a> Slices<'a> {
    pub fn new(sizes: &'a [usize]) -> Self {
        Self { sizes, taken: 0 }
    }

    pub fn step(&mut self) -> usize {
        self.taken += 1;
        assert!(self.taken < 100_000, "this never ends");
        self.sizes[(self.taken - 1).min(self.sizes.len() - 1)]
    }
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

pub fn delete(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: true }
}

pub fn range(key: &str, range_end: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), range_end: bytes(range_end), ..RangeRequest::default() }
}
