//! The requests to try on the store of `detcd_tests`, few of them sensible.
#![allow(dead_code, reason = "every test file uses its own part")]

use bytes::Bytes;
use detcd_core::command::{
    Compare, CompareOperand, CompareResult, CompareTarget, DeleteRangeRequest, Op, PutRequest, RangeRequest, SortOrder,
    SortTarget, TxnRequest,
};
use detcd_core::ids::LeaseId;
use detcd_tests::apply::store::bytes;
use proptest::prelude::*;

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
