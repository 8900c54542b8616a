//! What a request counts for against the backend quota: an estimate, the same as etcd's.
//!
//! The quota itself is the shell's, because it depends on the size of a local file; a raised alarm is replicated, and then
//! apply refuses what costs anything. Invariant: a request that cannot grow the store costs nothing.

use crate::command::{Op, PutRequest, TxnRequest};

/// What a lease costs, in bytes.
pub const LEASE_COST: u64 = 64;
/// What a row costs besides its key and value, in bytes.
const ROW_COST: u64 = 256;

/// What a put costs, in bytes.
#[must_use]
pub fn put_cost(request: &PutRequest) -> u64 {
    ROW_COST + request.key.len() as u64 + request.value.len() as u64
}

/// What a transaction costs, in bytes: its dearer branch, those inside it included.
#[must_use]
pub fn txn_cost(request: &TxnRequest) -> u64 {
    let branch = |ops: &[Op]| -> u64 {
        let cost = |op: &Op| match op {
            Op::Put(put) => put_cost(put),
            Op::Txn(txn) => txn_cost(txn),
            Op::Range(_) | Op::DeleteRange(_) | Op::Empty => 0,
        };
        ops.iter().map(cost).sum()
    };
    branch(&request.success).max(branch(&request.failure))
}
