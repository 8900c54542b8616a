//! Requests: protocol buffers to the engine's types. The same conversions serve a client's request and a committed entry.
//!
//! Nothing is judged here: unknown enum numbers are kept, absent operations stay absent. What a number means is the engine's affair.

use detcd_core::command::{
    Compare, CompareOperand, CompareResult, CompareTarget, DeleteRangeRequest, Op, PutRequest, RangeRequest, SortOrder,
    SortTarget, TxnRequest,
};
use detcd_core::ids::LeaseId;
use detcd_proto::etcdserverpb as pb;

/// A range.
#[must_use]
pub fn range(request: pb::RangeRequest) -> RangeRequest {
    RangeRequest {
        key: request.key,
        range_end: request.range_end,
        limit: request.limit,
        revision: request.revision,
        sort_order: SortOrder::from_number(request.sort_order),
        sort_target: SortTarget::from_number(request.sort_target),
        serializable: request.serializable,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    }
}

/// A put.
#[must_use]
pub fn put(request: pb::PutRequest) -> PutRequest {
    PutRequest {
        key: request.key,
        value: request.value,
        lease: LeaseId(request.lease),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

/// A range delete.
#[must_use]
pub fn delete_range(request: pb::DeleteRangeRequest) -> DeleteRangeRequest {
    DeleteRangeRequest { key: request.key, range_end: request.range_end, prev_kv: request.prev_kv }
}

/// A transaction, with those inside it. Its depth is bounded by the decoder that made it.
#[must_use]
pub fn txn(request: pb::TxnRequest) -> TxnRequest {
    TxnRequest {
        compare: request.compare.into_iter().map(compare).collect(),
        success: request.success.into_iter().map(op).collect(),
        failure: request.failure.into_iter().map(op).collect(),
    }
}

fn op(op: pb::RequestOp) -> Op {
    use pb::request_op::Request;
    match op.request {
        Some(Request::RequestRange(request)) => Op::Range(range(request)),
        Some(Request::RequestPut(request)) => Op::Put(put(request)),
        Some(Request::RequestDeleteRange(request)) => Op::DeleteRange(delete_range(request)),
        Some(Request::RequestTxn(request)) => Op::Txn(txn(request)),
        None => Op::Empty,
    }
}

fn compare(compare: pb::Compare) -> Compare {
    use pb::compare::TargetUnion;
    Compare {
        result: CompareResult::from_number(compare.result),
        target: CompareTarget::from_number(compare.target),
        key: compare.key,
        operand: match compare.target_union {
            None => CompareOperand::Unset,
            Some(TargetUnion::Version(version)) => CompareOperand::Version(version),
            Some(TargetUnion::CreateRevision(revision)) => CompareOperand::Create(revision),
            Some(TargetUnion::ModRevision(revision)) => CompareOperand::Mod(revision),
            Some(TargetUnion::Value(value)) => CompareOperand::Value(value),
            Some(TargetUnion::Lease(lease)) => CompareOperand::Lease(lease),
        },
        range_end: compare.range_end,
    }
}
