//! What is refused before it is proposed: requests that say nothing, contradict themselves or are too long.
//!
//! The order of the checks is etcd's, since it decides which error a client sees. Apply does not repeat them: what is in
//! the log has passed. Invariant: the work is near linear in the request, also for hostile ones. Recursion is as deep as
//! transactions nest, which the decoder and the limit on operations bound.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;

use crate::command::{DeleteRangeRequest, Op, PutRequest, RangeRequest, SortOrder, SortTarget, TxnRequest};
use crate::ids::LeaseId;
use crate::reply::Rejected;

/// Whether a range may be read.
pub fn range(request: &RangeRequest) -> Result<(), Rejected> {
    if request.key.is_empty() {
        return Err(Rejected::EmptyKey);
    }
    sort(request)
}

/// Whether order and target are known.
pub(super) const fn sort(request: &RangeRequest) -> Result<(), Rejected> {
    match (request.sort_order, request.sort_target) {
        (SortOrder::Unknown(_), _) | (_, SortTarget::Unknown(_)) => Err(Rejected::InvalidSortOption),
        _ => Ok(()),
    }
}

/// Whether a range may be read as a stream: only in key order, without filters.
pub fn range_stream(request: &RangeRequest) -> Result<(), Rejected> {
    range(request)?;
    if !in_key_order(request) {
        return Err(Rejected::StreamSort);
    }
    let filters =
        [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
    if filters == [0; 4] { Ok(()) } else { Err(Rejected::StreamFilter) }
}

/// Whether the index's own order will do: none was asked for, or keys ascending.
pub(super) fn in_key_order(request: &RangeRequest) -> bool {
    request.sort_order == SortOrder::None
        || (request.sort_target == SortTarget::Key && request.sort_order == SortOrder::Ascend)
}

/// Whether a put may be proposed.
pub fn put(request: &PutRequest) -> Result<(), Rejected> {
    if request.key.is_empty() {
        return Err(Rejected::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Rejected::ValueProvided);
    }
    if request.ignore_lease && request.lease != LeaseId(0) {
        return Err(Rejected::LeaseProvided);
    }
    Ok(())
}

/// Whether a range delete may be proposed.
pub const fn delete_range(request: &DeleteRangeRequest) -> Result<(), Rejected> {
    if request.key.is_empty() { Err(Rejected::EmptyKey) } else { Ok(()) }
}

/// Whether a transaction may be proposed or read, with at most `ops_max` operations along one path.
pub fn txn(request: &TxnRequest, ops_max: usize) -> Result<(), Rejected> {
    txn_requests(request, ops_max)?;
    txn_keys(&request.success)?;
    txn_keys(&request.failure)?;
    Ok(())
}

fn txn_requests(request: &TxnRequest, ops_max: usize) -> Result<(), Rejected> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(ops_left) = ops_max.checked_sub(longest) else {
        return Err(Rejected::TooManyOps);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Rejected::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match op {
            Op::Range(request) => range(request)?,
            Op::Put(request) => put(request)?,
            Op::DeleteRange(request) => delete_range(request)?,
            Op::Txn(request) => txn_requests(request, ops_left)?,
            Op::Empty => return Err(Rejected::KeyNotFound),
        }
    }
    Ok(())
}

/// What a list of operations, and those inside it, would write.
#[derive(Default)]
struct Touched<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Intervals,
}

/// Refuses a list that could write a key twice; answers what it would write.
///
/// A put conflicts with another put of its key unless the two are the branches of one inner transaction, and with a
/// delete at its own level or in an inner transaction before its own. Deletes never conflict with each other, nor with
/// puts of earlier inner transactions. A delete "from this key on" is an interval that ends before it begins, and so
/// conflicts with nothing.
fn txn_keys(ops: &[Op]) -> Result<Touched<'_>, Rejected> {
    let mut touched = Touched::default();
    for op in ops {
        if let Op::DeleteRange(delete) = op {
            touched.deletes.insert_request(delete);
        }
    }
    for op in ops {
        let Op::Txn(inner) = op else { continue };
        let (then, otherwise) = (txn_keys(&inner.success)?, txn_keys(&inner.failure)?);
        for key in &then.puts {
            if touched.deletes.contains(key) || !touched.puts.insert(key) {
                return Err(Rejected::DuplicateKey);
            }
        }
        for key in &otherwise.puts {
            let is_new = touched.puts.insert(key);
            if touched.deletes.contains(key) || !(is_new || then.puts.contains(key)) {
                return Err(Rejected::DuplicateKey);
            }
        }
        touched.deletes.union(then.deletes);
        touched.deletes.union(otherwise.deletes);
    }
    for op in ops {
        if let Op::Put(put) = op
            && (touched.deletes.contains(&put.key) || !touched.puts.insert(&put.key))
        {
            return Err(Rejected::DuplicateKey);
        }
    }
    Ok(touched)
}

/// Keys covered by deletes: disjoint half-open intervals, first to end.
#[derive(Default)]
struct Intervals(BTreeMap<Bytes, Bytes>);

impl Intervals {
    fn insert_request(&mut self, delete: &DeleteRangeRequest) {
        let end = if delete.range_end.is_empty() {
            let mut end = Vec::with_capacity(delete.key.len() + 1);
            end.extend_from_slice(&delete.key);
            end.push(0);
            Bytes::from(end)
        } else {
            delete.range_end.clone()
        };
        self.insert(delete.key.clone(), end);
    }

    /// Adds an interval, melting those it meets into it. One that ends before it begins is none.
    fn insert(&mut self, first: Bytes, end: Bytes) {
        if first >= end {
            return;
        }
        let (mut first, mut end) = (first, end);
        let met = |map: &BTreeMap<Bytes, Bytes>, end: &Bytes| {
            let upto = (Bound::Unbounded, Bound::Included(end.as_ref()));
            map.range::<[u8], _>(upto).next_back().map(|(first, end)| (first.clone(), end.clone()))
        };
        while let Some((other_first, other_end)) = met(&self.0, &end).filter(|(_, other_end)| first <= *other_end) {
            self.0.remove(&other_first);
            first = first.min(other_first);
            end = end.max(other_end);
        }
        self.0.insert(first, end);
    }

    fn contains(&self, key: &[u8]) -> bool {
        let upto = (Bound::Unbounded, Bound::Included(key));
        self.0.range::<[u8], _>(upto).next_back().is_some_and(|(_, end)| key < end.as_ref())
    }

    fn union(&mut self, other: Self) {
        for (first, end) in other.0 {
            self.insert(first, end);
        }
    }
}
