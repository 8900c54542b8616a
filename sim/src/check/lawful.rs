//! Which requests are turned away whatever the store holds, and with what words: etcd's rules for requests, written down once more.

use std::collections::BTreeSet;

use bytes::Bytes;
use detcd_proto::etcdserverpb as pb;
use pb::request_op::Request;

use super::model::Rejection;
use crate::record::Ask;

const NO_KEY: Rejection = "etcdserver: key is not provided";
const NO_OPERATION: Rejection = "etcdserver: key not found";
const VALUE: Rejection = "etcdserver: value is provided";
const LEASE: Rejection = "etcdserver: lease is provided";
const TOO_MANY: Rejection = "etcdserver: too many operations in txn request";
const TWICE: Rejection = "etcdserver: duplicate key given in txn request";
const SORT: Rejection = "etcdserver: invalid sort option";
const STREAM_SORT: Rejection = "RangeStream does not support custom sort orders";
const STREAM_FILTER: Rejection = "RangeStream does not support revision filters";
const TOO_LARGE: Rejection = "etcdserver: request is too large";
/// Bytes of a request, by default. One with a value of this length has more.
pub const REQUEST_BYTES_MAX: usize = 1_572_864;
/// Operations of a transaction, by default.
const OPERATIONS_MAX: usize = 128;

/// Whether a request may be carried out at all.
///
/// # Errors
/// What it is turned away with.
pub fn check(ask: &Ask) -> Result<(), Rejection> {
    match ask {
        Ask::Put(request) => put(request),
        Ask::Range(request) => range(request),
        Ask::Stream(request) => stream(request),
        Ask::Delete(request) => has_key(&request.key),
        Ask::Txn(request) => {
            requests(request, OPERATIONS_MAX)?;
            writes_once(&request.success)?;
            writes_once(&request.failure)
        }
        Ask::HashKv(_) | Ask::Compact(_) => Ok(()),
    }
}

fn has_key(key: &Bytes) -> Result<(), Rejection> {
    if key.is_empty() { Err(NO_KEY) } else { Ok(()) }
}

fn put(request: &pb::PutRequest) -> Result<(), Rejection> {
    has_key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(VALUE);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(LEASE);
    }
    if REQUEST_BYTES_MAX <= request.value.len() { Err(TOO_LARGE) } else { Ok(()) }
}

fn range(request: &pb::RangeRequest) -> Result<(), Rejection> {
    has_key(&request.key)?;
    let is_known = (0..=2).contains(&request.sort_order) && (0..=4).contains(&request.sort_target);
    if is_known { Ok(()) } else { Err(SORT) }
}

fn stream(request: &pb::RangeRequest) -> Result<(), Rejection> {
    range(request)?;
    let is_by_key = request.sort_order == 0 || request.sort_order == 1 && request.sort_target == 0;
    let pb::RangeRequest { min_mod_revision, max_mod_revision, min_create_revision, max_create_revision, .. } =
        *request;
    match (is_by_key, min_mod_revision | max_mod_revision | min_create_revision | max_create_revision) {
        (false, _) => Err(STREAM_SORT),
        (true, 0) => Ok(()),
        (true, _) => Err(STREAM_FILTER),
    }
}

fn requests(request: &pb::TxnRequest, most: usize) -> Result<(), Rejection> {
    let longest = [request.compare.len(), request.success.len(), request.failure.len()].into_iter().max().unwrap_or(0);
    if most < longest {
        return Err(TOO_MANY);
    }
    request.compare.iter().try_for_each(|compare| has_key(&compare.key))?;
    request.success.iter().chain(&request.failure).try_for_each(|op| match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => has_key(&request.key),
        Some(Request::RequestTxn(request)) => requests(request, most - longest),
        None => Err(NO_OPERATION),
    })
}

/// Whether a branch that has no transactions inside it writes no key twice. Of others clients of a run ask only what is lawful.
fn writes_once(ops: &[pb::RequestOp]) -> Result<(), Rejection> {
    let mut written = BTreeSet::new();
    let deletes = ops.iter().filter_map(|op| match &op.request {
        Some(Request::RequestDeleteRange(request)) => Some(request),
        _ => None,
    });
    for op in ops {
        let Some(Request::RequestPut(put)) = &op.request else { continue };
        // What begins at a key and has no end counts as nothing.
        let is_deleted = deletes.clone().any(|delete| match &*delete.range_end {
            [] => delete.key == put.key,
            [0] => false,
            end => delete.key <= put.key && *put.key < *end,
        });
        if is_deleted || !written.insert(&put.key) {
            return Err(TWICE);
        }
    }
    Ok(())
}
