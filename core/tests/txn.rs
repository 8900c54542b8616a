//! Transactions against a plain interpreter that copies the whole state, writes into the copy and reads from it at once;
//! and against themselves, cut into slices of any size.

use detcd_core::apply::Outcome;
use detcd_core::command::{
    Command, Compare, CompareOperand, CompareResult, CompareTarget, Op, PutRequest, RangeRequest, TxnRequest,
};
use detcd_core::ids::{LeaseId, Revision};
use detcd_core::mvcc::KeyValue;
use detcd_core::reply::{OpReply, Rejected, Reply};
use detcd_tests::apply::slow_txn::{Told, changes, slowly, tell};
use proptest::prelude::*;

mod support;
use detcd_tests::apply::slow::History;
use detcd_tests::apply::store::{Store, bytes, delete, put, range};
use support::{any_slices, any_txn};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn answer_and_write_as_the_slow_twin(
        txns in prop::collection::vec(any_txn(), 1..10),
        compacted in -1..6i64,
        slices in any_slices(),
    ) {
        let (mut store, mut history) = (Store::default(), History::default());
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
