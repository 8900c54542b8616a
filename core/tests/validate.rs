//! What is refused before it is proposed, in etcd's order; and the rule about keys written twice against plain sets.

use std::collections::BTreeSet;

use bytes::Bytes;
use detcd_core::command::{Compare, DeleteRangeRequest, Op, PutRequest, TxnRequest};
use detcd_core::ids::LeaseId;
use detcd_core::mvcc::validate;
use detcd_core::reply::Rejected;
use proptest::prelude::*;

mod support;
use detcd_tests::apply::store::{bytes, delete, put, range};
use support::any_txn;

/// Keys put, and intervals deleted.
type Written = (BTreeSet<Bytes>, Vec<(Bytes, Bytes)>);

/// The slow twin: what one list of operations would put, and the intervals it would delete, taken literally.
fn slow_keys(ops: &[Op]) -> Result<Written, Rejected> {
    let covers = |dels: &[(Bytes, Bytes)], key: &Bytes| dels.iter().any(|(first, end)| first <= key && key < end);
    let (mut puts, mut dels) = (BTreeSet::new(), Vec::new());
    for op in ops {
        if let Op::DeleteRange(DeleteRangeRequest { key, range_end, .. }) = op {
            let point = [key.as_ref(), b"\0"].concat().into();
            dels.push((key.clone(), if range_end.is_empty() { point } else { range_end.clone() }));
        }
    }
    for op in ops {
        let Op::Txn(inner) = op else { continue };
        let (then_puts, then_dels) = slow_keys(&inner.success)?;
        let (else_puts, else_dels) = slow_keys(&inner.failure)?;
        if then_puts.iter().chain(&else_puts).any(|key| puts.contains(key) || covers(&dels, key)) {
            return Err(Rejected::DuplicateKey);
        }
        puts.extend(then_puts);
        puts.extend(else_puts);
        dels.extend(then_dels);
        dels.extend(else_dels);
    }
    for op in ops {
        let Op::Put(PutRequest { key, .. }) = op else { continue };
        if covers(&dels, key) || !puts.insert(key.clone()) {
            return Err(Rejected::DuplicateKey);
        }
    }
    Ok((puts, dels))
}

/// The same writes without anything else to refuse.
fn plain(txn: TxnRequest) -> TxnRequest {
    let plain_op = |op| match op {
        Op::Put(put) => Op::Put(PutRequest { key: put.key, ..PutRequest::default() }),
        Op::Txn(inner) => Op::Txn(plain(inner)),
        op => op,
    };
    let plain_ops = |ops: Vec<Op>| ops.into_iter().map(plain_op).collect();
    TxnRequest { compare: txn.compare, success: plain_ops(txn.success), failure: plain_ops(txn.failure) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn finds_keys_written_twice_as_the_slow_twin(txn in any_txn().prop_map(plain)) {
        let expected = slow_keys(&txn.success).and_then(|_| slow_keys(&txn.failure)).map(|_| ());
        prop_assert_eq!(validate::txn(&txn, 128), expected);
    }
}

fn success(ops: Vec<Op>) -> TxnRequest {
    TxnRequest { success: ops, ..TxnRequest::default() }
}

fn failure(ops: Vec<Op>) -> TxnRequest {
    TxnRequest { failure: ops, ..TxnRequest::default() }
}

#[test]
fn puts_that_contradict_themselves() {
    assert_eq!(validate::put(&put("", "v")), Err(Rejected::EmptyKey));
    let value = PutRequest { ignore_value: true, ignore_lease: true, lease: LeaseId(1), ..put("k", "v") };
    assert_eq!(validate::put(&value), Err(Rejected::ValueProvided));
    let lease = PutRequest { value: bytes(""), ..value };
    assert_eq!(validate::put(&lease), Err(Rejected::LeaseProvided));
    assert_eq!(validate::put(&PutRequest { lease: LeaseId(0), ..lease }), Ok(()));
    assert_eq!(validate::delete_range(&delete("", "\0")), Err(Rejected::EmptyKey));
    assert_eq!(validate::delete_range(&delete("a", "\0")), Ok(()));
}

#[test]
fn transactions_are_checked_from_the_outside_in_and_both_branches() {
    let unnamed = Compare::default();
    let ops = |n| vec![Op::Put(put("", "")); n];
    for (txn, ops_max, expected) in [
        (TxnRequest { compare: vec![unnamed.clone(); 3], success: ops(1), failure: vec![] }, 2, Rejected::TooManyOps),
        (
            TxnRequest { compare: vec![unnamed.clone()], success: vec![Op::Empty], failure: vec![] },
            2,
            Rejected::EmptyKey,
        ),
        (TxnRequest { compare: vec![], success: vec![Op::Empty], failure: ops(1) }, 2, Rejected::KeyNotFound),
        (failure(vec![Op::Range(range("", ""))]), 2, Rejected::EmptyKey),
        (failure(vec![Op::DeleteRange(delete("", ""))]), 2, Rejected::EmptyKey),
        // The inner one may have what the longest list of the outer one leaves: here nothing.
        (
            success(vec![Op::Txn(success(vec![Op::Put(put("k", ""))])), Op::Range(range("k", ""))]),
            2,
            Rejected::TooManyOps,
        ),
        // Every key is looked at before any is compared with another.
        (success(vec![Op::Put(put("k", "")), Op::Put(put("k", "")), Op::Empty]), 9, Rejected::KeyNotFound),
        (failure(vec![Op::Put(put("k", "")), Op::Put(put("k", ""))]), 9, Rejected::DuplicateKey),
    ] {
        assert_eq!(validate::txn(&txn, ops_max), Err(expected), "{txn:?}");
    }
    let inner = success(vec![Op::Put(put("k", ""))]);
    assert_eq!(validate::txn(&success(vec![Op::Txn(inner)]), 2), Ok(()));
}

#[test]
fn which_writes_conflict() {
    let put_k = || Op::Put(put("k", ""));
    let del = |first, end| Op::DeleteRange(delete(first, end));
    let both = TxnRequest { success: vec![put_k()], failure: vec![put_k()], ..TxnRequest::default() };
    for (ops, expected) in [
        (vec![Op::Txn(both.clone())], Ok(())),
        (vec![Op::Txn(both.clone()), Op::Txn(both)], Err(Rejected::DuplicateKey)),
        (vec![put_k(), del("k", "")], Err(Rejected::DuplicateKey)),
        (vec![del("a", "k"), put_k(), del("k\0", "z")], Ok(())),
        (vec![del("a", "c"), del("b", "l"), put_k()], Err(Rejected::DuplicateKey)),
        // "From this key on" is an interval that ends before it begins.
        (vec![del("a", "\0"), put_k()], Ok(())),
        (vec![del("k", "\0"), put_k()], Ok(())),
        // A delete of an inner transaction meets puts of later ones, not of earlier ones.
        (vec![Op::Txn(success(vec![put_k()])), Op::Txn(success(vec![del("k", "")]))], Ok(())),
        (vec![Op::Txn(success(vec![del("k", "")])), Op::Txn(success(vec![put_k()]))], Err(Rejected::DuplicateKey)),
        (vec![Op::Txn(failure(vec![del("k", "")])), put_k()], Err(Rejected::DuplicateKey)),
        (vec![Op::Range(range("k", "")), put_k(), Op::Range(range("a", "\0"))], Ok(())),
    ] {
        assert_eq!(validate::txn(&success(ops.clone()), 128), expected, "{ops:?}");
    }
}

/// With a plain look at every pair, this test would not end.
#[test]
fn a_hostile_transaction_is_checked_in_near_linear_time() {
    let key = |i: u32| format!("{i:08}");
    let deletes = (0..60_000).map(|i| Op::DeleteRange(delete(&key(2 * i), "")));
    let puts = (0..60_000).map(|i| Op::Put(put(&key(2 * i + 1), "")));
    let mut ops: Vec<Op> = deletes.chain(puts).collect();
    assert_eq!(validate::txn(&success(ops.clone()), usize::MAX), Ok(()));
    ops.push(Op::Put(put(&key(60_000), "")));
    assert_eq!(validate::txn(&success(ops), usize::MAX), Err(Rejected::DuplicateKey));
}

#[test]
fn which_transactions_only_read() {
    let local = Op::Range(detcd_core::command::RangeRequest { serializable: true, ..range("k", "") });
    let linear = Op::Range(range("k", ""));
    let asked = |ops: Vec<Op>| (failure(ops.clone()).is_read_only(), success(ops).is_serializable());
    assert_eq!(asked(vec![]), (true, true));
    assert_eq!(asked(vec![local.clone()]), (true, true));
    assert_eq!(asked(vec![local.clone(), linear]), (true, false));
    assert_eq!(asked(vec![local, Op::Txn(TxnRequest::default())]), (false, false));
}
