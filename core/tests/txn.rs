//! Transactions against a plain interpreter that copies the whole state, writes into the copy and reads from it at once;
//! and against themselves, cut into slices of any size.

use std::collections::BTreeSet;

use bytes::Bytes;
use detcd_core::apply::{EventKind, Outcome, Write};
use detcd_core::command::{
    Command, Compare, CompareOperand, CompareResult, CompareTarget, DeleteRangeRequest, Op, PutRequest, RangeRequest,
    TxnRequest,
};
use detcd_core::ids::{LeaseId, Revision};
use detcd_core::mvcc::{KeyValue, RangeReply};
use detcd_core::reply::{OpReply, Rejected, Reply, TxnReply};
use proptest::prelude::*;

mod support;
use support::slow::{self, History, State};
use support::{Store, any_slices, any_txn, bytes, delete, put, range};

/// What a client is told, with every row filled in.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Range(RangeReply),
    Put { revision: i64, prev: Option<KeyValue> },
    Delete { revision: i64, deleted: i64, prev: Vec<KeyValue> },
    Txn { revision: i64, succeeded: bool, responses: Vec<Self> },
}

/// One change, as a watcher is told: the row (none: deleted), the key, and what was there before the transaction.
type Change = (Option<KeyValue>, Bytes, Option<KeyValue>);

/// The slow twin: one transaction on a copy.
struct Slow<'a> {
    history: &'a History,
    leases: &'a BTreeSet<LeaseId>,
    before: &'a State,
    now: State,
    changes: Vec<Change>,
}

impl Slow<'_> {
    fn base(&self) -> i64 {
        self.history.current()
    }

    fn revision(&self) -> i64 {
        self.base() + i64::from(!self.changes.is_empty())
    }

    fn holds(&self, compare: &Compare) -> bool {
        let number = |kv: &KeyValue| match (compare.target, &compare.operand) {
            (CompareTarget::Version, CompareOperand::Version(n)) => kv.version - n,
            (CompareTarget::Create, CompareOperand::Create(n)) => kv.created - n,
            (CompareTarget::Mod, CompareOperand::Mod(n)) => kv.modified - n,
            (CompareTarget::Lease, CompareOperand::Lease(n)) => kv.lease.0 - n,
            (CompareTarget::Version, _) => kv.version,
            (CompareTarget::Create, _) => kv.created,
            (CompareTarget::Mod, _) => kv.modified,
            (CompareTarget::Lease, _) => kv.lease.0,
            (CompareTarget::Value, CompareOperand::Value(value)) => kv.value.cmp(value) as i64,
            (CompareTarget::Value, _) => i64::from(!kv.value.is_empty()),
            (CompareTarget::Unknown(_), _) => 0,
        };
        let holds = |kv: &KeyValue| match compare.result {
            CompareResult::Equal => number(kv) == 0,
            CompareResult::Greater => number(kv) > 0,
            CompareResult::Less => number(kv) < 0,
            CompareResult::NotEqual => number(kv) != 0,
            CompareResult::Unknown(_) => true,
        };
        let keys: Vec<&KeyValue> =
            self.before.values().filter(|kv| slow::is_in(&kv.key, &compare.key, &compare.range_end)).collect();
        if keys.is_empty() {
            return compare.target != CompareTarget::Value && holds(&KeyValue::default());
        }
        keys.into_iter().all(holds)
    }

    /// The operations that run, the compares of this transaction and all inside it judged by the state before.
    fn way<'t>(&self, txn: &'t TxnRequest) -> (bool, &'t [Op]) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        (succeeded, if succeeded { &txn.success } else { &txn.failure })
    }

    fn check(&self, txn: &TxnRequest) -> Result<(), Rejected> {
        for op in self.way(txn).1 {
            match op {
                Op::Range(RangeRequest { revision: 0, .. }) | Op::DeleteRange(_) | Op::Empty => {}
                Op::Range(range) if range.revision > self.base() => return Err(Rejected::FutureRevision),
                Op::Range(range) if range.revision < self.history.compacted => return Err(Rejected::Compacted),
                Op::Range(_) => {}
                Op::Put(put) if put.lease.0 != 0 && !self.leases.contains(&put.lease) => {
                    return Err(Rejected::LeaseNotFound);
                }
                Op::Put(put) if (put.ignore_value || put.ignore_lease) && !self.before.contains_key(&put.key) => {
                    return Err(Rejected::KeyNotFound);
                }
                Op::Put(_) => {}
                Op::Txn(inner) => self.check(inner)?,
            }
        }
        Ok(())
    }

    fn run(&mut self, txn: &TxnRequest) -> Result<Told, Rejected> {
        let (succeeded, ops) = self.way(txn);
        let mut responses = Vec::new();
        for op in ops {
            responses.push(match op {
                Op::Range(range) => Told::Range(self.range(range)),
                Op::Put(put) => self.put(put)?,
                Op::DeleteRange(delete) => self.delete(delete),
                Op::Txn(inner) => self.run(inner)?,
                Op::Empty => panic!("not tried here"),
            });
        }
        Ok(Told::Txn { revision: 0, succeeded, responses })
    }

    fn range(&self, request: &RangeRequest) -> RangeReply {
        let state = if request.revision <= 0 { &self.now } else { &self.history.states[request.revision as usize] };
        slow::range(state, request, self.revision())
    }

    fn put(&mut self, request: &PutRequest) -> Result<Told, Rejected> {
        let old = self.now.get(&request.key).cloned();
        let modified = self.base() + 1;
        let mut kv = KeyValue {
            key: request.key.clone(),
            created: old.as_ref().map_or(modified, |old| old.created),
            modified,
            version: old.as_ref().map_or(0, |old| old.version) + 1,
            value: request.value.clone(),
            lease: request.lease,
        };
        if request.ignore_value {
            kv.value = old.as_ref().ok_or(Rejected::KeyNotFound)?.value.clone();
        }
        if request.ignore_lease {
            kv.lease = old.as_ref().ok_or(Rejected::KeyNotFound)?.lease;
        }
        self.now.insert(kv.key.clone(), kv.clone());
        let before = self.before.get(&kv.key).cloned();
        self.changes.push((Some(kv), request.key.clone(), before));
        Ok(Told::Put { revision: modified, prev: old.filter(|_| request.prev_kv) })
    }

    fn delete(&mut self, request: &DeleteRangeRequest) -> Told {
        let gone: Vec<KeyValue> =
            self.now.values().filter(|kv| slow::is_in(&kv.key, &request.key, &request.range_end)).cloned().collect();
        for kv in &gone {
            self.now.remove(&kv.key);
            self.changes.push((None, kv.key.clone(), self.before.get(&kv.key).cloned()));
        }
        let deleted = gone.len() as i64;
        Told::Delete { revision: self.revision(), deleted, prev: if request.prev_kv { gone } else { Vec::new() } }
    }
}

/// What a transaction comes to by the slow twin: the answer, the changes, the state after it.
fn slowly(
    history: &History,
    leases: &BTreeSet<LeaseId>,
    txn: &TxnRequest,
) -> (Result<Told, Rejected>, Vec<Change>, State) {
    let before = history.states.last().expect("a state");
    let mut slow = Slow { history, leases, before, now: before.clone(), changes: Vec::new() };
    let told = slow.check(txn).and_then(|()| slow.run(txn)).map(|told| match told {
        Told::Txn { succeeded, responses, .. } => Told::Txn { revision: slow.revision(), succeeded, responses },
        told => told,
    });
    match told {
        Ok(_) => (told, slow.changes, slow.now),
        Err(_) => (told, Vec::new(), before.clone()),
    }
}

/// What a client is told, all rows read and ranges evaluated after the transaction was carried out.
fn tell(store: &Store, reply: &TxnReply, slices: &[usize]) -> Told {
    let row = |at: &Revision| store.rows[at].clone();
    let tell_op = |op: &OpReply| match op {
        OpReply::Range(read) => Told::Range(store.range_at(&read.request, &read.point, slices).expect("was checked")),
        OpReply::Put(reply) => Told::Put { revision: reply.revision, prev: reply.prev.as_ref().map(row) },
        OpReply::DeleteRange(reply) => {
            let prev = reply.prev.iter().map(row).collect();
            Told::Delete { revision: reply.revision, deleted: reply.deleted, prev }
        }
        OpReply::Txn(reply) => tell(store, reply, slices),
        OpReply::Empty => panic!("not tried here"),
    };
    let responses = reply.responses.iter().map(tell_op).collect();
    Told::Txn { revision: reply.revision, succeeded: reply.succeeded, responses }
}

/// The changes of an outcome as a watcher is told them.
fn changes(store: &Store, outcome: &Outcome) -> Vec<Change> {
    assert_eq!(outcome.writes.len(), outcome.events.len());
    let change = |(sub, (write, event)): (usize, (&Write, &detcd_core::apply::Event))| {
        let (kv, key, revision, kind) = match write {
            Write::Row { revision, kv } => (Some(kv.clone()), kv.key.clone(), revision, EventKind::Put),
            Write::Tombstone { revision, key } => (None, key.clone(), revision, EventKind::Delete),
            other => panic!("not a change of a key: {other:?}"),
        };
        assert_eq!((event.revision, event.kind), (*revision, kind));
        assert_eq!(revision.sub, sub as i64);
        (kv, key, event.prev.map(|at| store.rows[&at].clone()))
    };
    outcome.writes.iter().zip(&outcome.events).enumerate().map(change).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn answer_and_write_as_the_slow_twin(
        txns in prop::collection::vec(any_txn(), 1..10),
        compacted in -1..6i64,
        slices in any_slices(),
    ) {
        let (mut store, mut history) = (Store::default(), History::new());
        for txn in txns {
            store.compacted = compacted.min(store.current);
            history.compacted = store.compacted;
            let leases = store.leases.rows().map(|row| row.id).collect();
            let (told, changed, state) = slowly(&history, &leases, &txn);
            let outcome = store.apply(Command::Txn(txn.clone()), &slices);
            prop_assert_eq!(changes(&store, &outcome), changed, "{:?}", txn);
            if !outcome.writes.is_empty() {
                history.states.push(state);
            }
            prop_assert_eq!(store.current, history.current());
            let answer = outcome.reply.map(|reply| match reply {
                Reply::Txn(reply) => tell(&store, &reply, &slices),
                reply => panic!("not about a transaction: {reply:?}"),
            });
            prop_assert_eq!(answer, told, "{:?}", txn);
            // Everything the store holds now, row by row.
            let all = store.range(&range("\0", "\0")).expect("readable").kvs;
            prop_assert_eq!(all, history.states.last().expect("a state").values().cloned().collect::<Vec<_>>());
        }
    }

    #[test]
    fn come_to_the_same_in_slices_of_any_size(
        txns in prop::collection::vec(any_txn(), 1..6),
        slices in any_slices(),
    ) {
        let mut store = Store::default();
        for txn in txns {
            let whole = store.outcome(Command::Txn(txn.clone()), &[usize::MAX]);
            prop_assert_eq!(&store.outcome(Command::Txn(txn.clone()), &slices), &whole);
            prop_assert_eq!(&store.outcome(Command::Txn(txn), &[1]), &whole);
            store.carry_out(&whole);
        }
    }
}

fn txn(ops: Vec<Op>) -> Command {
    Command::Txn(TxnRequest { success: ops, ..TxnRequest::default() })
}

fn compare(result: CompareResult, key: &str, operand: CompareOperand) -> Compare {
    Compare { result, target: CompareTarget::Value, key: bytes(key), operand, range_end: bytes("") }
}

#[test]
fn a_key_put_and_deleted_in_one_transaction_is_gone_and_both_tell_what_was_before() {
    let mut store = Store::default();
    store.put("k", "old");
    let outcome = store.apply(txn(vec![Op::Put(put("k", "new")), Op::DeleteRange(delete("k", "\0"))]), &[1]);
    let old = Some(Revision::new(2, 0));
    let prevs: Vec<_> = outcome.events.iter().map(|event| (event.revision, event.prev)).collect();
    assert_eq!(prevs, [(Revision::new(3, 0), old), (Revision::new(3, 1), old)]);
    assert_eq!(store.range(&range("k", "")).expect("readable").kvs, []);
    let Ok(Reply::Txn(reply)) = outcome.reply else { panic!("was accepted") };
    let OpReply::DeleteRange(deleted) = &reply.responses[1] else { panic!("a delete") };
    assert_eq!(deleted.prev, [Revision::new(3, 0)], "the answer tells what the delete itself met");
}

#[test]
fn a_key_deleted_and_put_again_in_one_transaction_begins_a_new_life() {
    let mut store = Store::default();
    store.put("k", "1");
    store.put("k", "2");
    store.apply(txn(vec![Op::DeleteRange(delete("k", "\0")), Op::Put(put("k", "3"))]), &[usize::MAX]);
    let kv = KeyValue { key: bytes("k"), created: 4, modified: 4, version: 1, value: bytes("3"), lease: LeaseId(0) };
    assert_eq!(store.range(&range("k", "")).expect("readable").kvs, [kv]);
    assert_eq!(store.range(&RangeRequest { revision: 3, ..range("k", "") }).expect("readable").kvs[0].version, 2);
}

#[test]
fn a_refused_transaction_leaves_nothing() {
    let mut store = Store::default();
    store.put("k", "v");
    let missing_lease = PutRequest { lease: LeaseId(9), ..put("z", "") };
    // The key is there before the transaction and gone when it is to be kept.
    let keep = PutRequest { ignore_value: true, ..put("k", "") };
    for (ops, rejected) in [
        (vec![Op::Put(put("a", "")), Op::Put(missing_lease)], Rejected::LeaseNotFound),
        (vec![Op::DeleteRange(delete("a", "\0")), Op::Put(keep)], Rejected::KeyNotFound),
    ] {
        let outcome = store.outcome(txn(ops), &[1]);
        assert_eq!(outcome, Outcome { reply: Err(rejected), writes: vec![], events: vec![] });
    }
}

#[test]
fn a_missing_lease_wins_over_a_missing_key() {
    let put = PutRequest { lease: LeaseId(9), ignore_value: true, ..put("k", "") };
    let mut store = Store::default();
    assert_eq!(store.outcome(Command::Put(put.clone()), &[1]).reply, Err(Rejected::LeaseNotFound));
    assert_eq!(store.apply(txn(vec![Op::Put(put)]), &[1]).reply, Err(Rejected::LeaseNotFound));
}

#[test]
fn a_value_compared_on_a_missing_key_never_holds() {
    let store = Store::default();
    for result in (0..4).map(CompareResult::from_number).chain([CompareResult::Unknown(9)]) {
        let request = TxnRequest {
            compare: vec![compare(result, "k", CompareOperand::Value(bytes("")))],
            ..TxnRequest::default()
        };
        let Ok(Reply::Txn(reply)) = store.outcome(Command::Txn(request), &[1]).reply else { panic!("was accepted") };
        assert!(!reply.succeeded, "{result:?}");
        assert_eq!(reply.revision, 1);
    }
}

#[test]
fn a_range_inside_reads_what_was_written_before_it_and_not_after() {
    let mut store = Store::default();
    let read = || Op::Range(range("a", "\0"));
    let write = |key| Op::Put(put(key, ""));
    let outcome = store.apply(txn(vec![read(), write("a"), read(), write("b"), read()]), &[usize::MAX]);
    let Ok(Reply::Txn(reply)) = outcome.reply else { panic!("was accepted") };
    let Told::Txn { responses, .. } = tell(&store, &reply, &[1]) else { panic!("a transaction") };
    let counts: Vec<(i64, i64)> = responses
        .iter()
        .filter_map(|told| if let Told::Range(reply) = told { Some((reply.count, reply.revision)) } else { None })
        .collect();
    assert_eq!(counts, [(0, 1), (1, 2), (2, 2)]);
}
