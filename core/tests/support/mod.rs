//! A store in memory for the tests: the shipping key index over a map of rows, and the requests to try on it.
//!
//! Nothing here decides anything that the engine should decide; the slow twins are in the tests themselves.
#![allow(dead_code, reason = "every test file uses its own part")]

pub(crate) mod slow;

use std::collections::BTreeMap;

use bytes::Bytes;
use detcd_core::alarm::Alarms;
use detcd_core::apply::{Application, Outcome, Step, Write};
use detcd_core::command::{
    Command, Compare, CompareOperand, CompareResult, CompareTarget, DeleteRangeRequest, Op, PutRequest, RangeRequest,
    SortOrder, SortTarget, TxnRequest,
};
use detcd_core::ids::{LeaseId, Revision};
use detcd_core::lease::{LeaseRow, LeaseTable};
use detcd_core::membership::Membership;
use detcd_core::mvcc::{
    CountChunk, Facts, KeyChunk, KeyIndex, KeyValue, Progress, RangeRead, RangeReply, ReadPoint, Scan, View,
};
use detcd_core::reply::Rejected;
use proptest::prelude::*;

/// A row that should have been there.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Missing(pub(crate) Revision);

/// The store.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) index: KeyIndex,
    pub(crate) rows: BTreeMap<Revision, KeyValue>,
    pub(crate) current: i64,
    pub(crate) compacted: i64,
    pub(crate) leases: LeaseTable,
    pub(crate) membership: Membership,
    pub(crate) alarms: Alarms,
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
    pub(crate) fn apply(&mut self, command: Command, slices: &[usize]) -> Outcome {
        let outcome = self.outcome(command, slices);
        self.carry_out(&outcome);
        outcome
    }

    /// What applying a command would come to.
    pub(crate) fn outcome(&self, command: Command, slices: &[usize]) -> Outcome {
        match advance_to_end(self, Application::begin(command), slices) {
            Step::Done(outcome) => outcome,
            step => panic!("not carried out: {step:?}"),
        }
    }

    pub(crate) fn carry_out(&mut self, outcome: &Outcome) {
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

    pub(crate) fn put(&mut self, key: &str, value: &str) -> Outcome {
        self.apply(Command::Put(put(key, value)), &[usize::MAX])
    }

    pub(crate) fn delete(&mut self, key: &str, range_end: &str) -> Outcome {
        self.apply(Command::DeleteRange(delete(key, range_end)), &[usize::MAX])
    }

    /// Reads a range from a point, in slices of these sizes.
    pub(crate) fn range_at(
        &self,
        request: &RangeRequest,
        point: &ReadPoint,
        slices: &[usize],
    ) -> Result<RangeReply, Rejected> {
        let mut read = RangeRead::new(request, point)?;
        let mut slices = Slices::new(slices);
        loop {
            match read.advance(self, slices.next()).expect("every row is there") {
                Progress::More => {}
                Progress::Done(reply) => return Ok(reply),
                Progress::Rejected(rejected) => return Err(rejected),
            }
        }
    }

    /// Reads a range now.
    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeReply, Rejected> {
        self.range_at(request, &ReadPoint::now(self), &[usize::MAX])
    }
}

/// Advances an application to its end.
pub(crate) fn advance_to_end(view: &Store, mut application: Application, slices: &[usize]) -> Step {
    let mut slices = Slices::new(slices);
    loop {
        match application.advance(view, slices.next()).expect("every row is there") {
            Step::More => {}
            step => return step,
        }
    }
}

/// Budgets one after the other; the last one repeats. Stops the test if an end never comes.
pub(crate) struct Slices<'a> {
    sizes: &'a [usize],
    taken: usize,
}

impl<'a> Slices<'a> {
    pub(crate) fn new(sizes: &'a [usize]) -> Self {
        Self { sizes, taken: 0 }
    }

    pub(crate) fn next(&mut self) -> usize {
        self.taken += 1;
        assert!(self.taken < 100_000, "this never ends");
        self.sizes[(self.taken - 1).min(self.sizes.len() - 1)]
    }
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

pub(crate) fn delete(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: true }
}

pub(crate) fn range(key: &str, range_end: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), range_end: bytes(range_end), ..RangeRequest::default() }
}

/// Few keys, so that requests meet; prefixes of each other, and one that is not text.
pub(crate) fn any_key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "b", "c", "ba", "b\0", "bb", "\u{7f}", "\0"]).prop_map(bytes)
}

/// The end of one key, of everything, or a key, often inverted.
pub(crate) fn any_range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![2 => Just(Bytes::new()), 2 => Just(bytes("\0")), 3 => any_key()]
}

pub(crate) fn any_value() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "x", "y", "xy"]).prop_map(bytes)
}

/// None, two that exist and one that does not.
pub(crate) fn any_lease() -> impl Strategy<Value = LeaseId> {
    prop_oneof![9 => Just(0), 3 => Just(1), 3 => Just(-2), 1 => Just(9)].prop_map(LeaseId)
}

pub(crate) fn any_put() -> impl Strategy<Value = PutRequest> {
    let keeps =
        prop::sample::select(vec![(false, false), (false, false), (false, false), (true, false), (false, true)]);
    (any_key(), any_value(), any_lease(), any::<bool>(), keeps).prop_map(|(key, value, lease, prev_kv, keeps)| {
        let (ignore_value, ignore_lease) = keeps;
        PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease }
    })
}

pub(crate) fn any_delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (any_key(), any_range_end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

pub(crate) fn any_range() -> impl Strategy<Value = RangeRequest> {
    let number = || prop_oneof![4 => Just(0i64), 3 => 1..12i64, 1 => -3..0i64, 1 => Just(i64::MAX)];
    let order = (0..3i32).prop_map(SortOrder::from_number);
    let target = (0..5i32).prop_map(SortTarget::from_number);
    let filter = || prop_oneof![8 => Just(0i64), 2 => 1..10i64, 1 => Just(-1i64)];
    let flags = prop::sample::select(vec![(false, false), (false, false), (true, false), (true, true), (false, true)]);
    (
        (any_key(), any_range_end(), number(), prop_oneof![3 => Just(0i64), 2 => -3..14i64]),
        (order, target, flags),
        [filter(), filter(), filter(), filter()],
    )
        .prop_map(|((key, range_end, limit, revision), (sort_order, sort_target, flags), filters)| {
            let (keys_only, count_only) = flags;
            let [min_mod_revision, max_mod_revision, min_create_revision, max_create_revision] = filters;
            RangeRequest {
                key,
                range_end,
                limit,
                revision,
                sort_order,
                sort_target,
                serializable: false,
                keys_only,
                count_only,
                min_mod_revision,
                max_mod_revision,
                min_create_revision,
                max_create_revision,
            }
        })
}

pub(crate) fn any_compare() -> impl Strategy<Value = Compare> {
    let operand = prop_oneof![
        Just(CompareOperand::Unset),
        (0..4i64).prop_map(CompareOperand::Version),
        (0..9i64).prop_map(CompareOperand::Create),
        (0..9i64).prop_map(CompareOperand::Mod),
        any_value().prop_map(CompareOperand::Value),
        (-2..2i64).prop_map(CompareOperand::Lease),
    ];
    let result = (0..5i32).prop_map(CompareResult::from_number);
    (result, any::<bool>(), 0..6i32, any_key(), operand, any_range_end()).prop_map(
        |(result, fits, target, key, operand, range_end)| {
            let fitting = match operand {
                CompareOperand::Unset => CompareTarget::Unknown(7),
                CompareOperand::Version(_) => CompareTarget::Version,
                CompareOperand::Create(_) => CompareTarget::Create,
                CompareOperand::Mod(_) => CompareTarget::Mod,
                CompareOperand::Value(_) => CompareTarget::Value,
                CompareOperand::Lease(_) => CompareTarget::Lease,
            };
            let target = if fits { fitting } else { CompareTarget::from_number(target) };
            Compare { result, target, key, operand, range_end }
        },
    )
}

pub(crate) fn any_txn() -> impl Strategy<Value = TxnRequest> {
    let leaf = prop_oneof![
        3 => any_range().prop_map(Op::Range),
        6 => any_put().prop_map(Op::Put),
        3 => any_delete().prop_map(Op::DeleteRange),
    ];
    let op = leaf.prop_recursive(3, 24, 4, |inner| {
        let ops = || prop::collection::vec(inner.clone(), 0..4);
        (prop::collection::vec(any_compare(), 0..2), ops(), ops())
            .prop_map(|(compare, success, failure)| Op::Txn(TxnRequest { compare, success, failure }))
    });
    let ops = prop::collection::vec(op, 0..5);
    (prop::collection::vec(any_compare(), 0..3), ops.clone(), ops).prop_map(|(compare, success, failure)| TxnRequest {
        compare,
        success,
        failure,
    })
}

pub(crate) fn any_slices() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..6usize, 1..4)
}
