//! Leases in the log: granted, remembered, revoked.
//!
//! Nothing here knows a clock; when a lease is over is for the leader's keeper to say. A revocation deletes the lease's keys in their
//! order and the lease itself, all in one outcome. Invariant: a lease goes with its keys, and keys with their lease.

use alloc::vec::Vec;

use bytes::Bytes;

use super::{Outcome, Step, Write};
use crate::command::{LeaseCheckpointRequest, LeaseGrantRequest, LeaseRevokeRequest};
use crate::ids::LeaseId;
use crate::lease::{LeaseRow, TTL_SECONDS_MAX};
use crate::mvcc::View;
use crate::mvcc::draft::Draft;
use crate::reply::{LeaseGranted, Rejected, Reply};

/// Grants a lease. The order of the checks is etcd's.
pub(super) fn grant(view: &impl View, request: &LeaseGrantRequest) -> Step {
    let LeaseGrantRequest { ttl, id } = *request;
    if id == LeaseId(0) {
        return Step::refuse(Rejected::LeaseNotFound);
    }
    if ttl > TTL_SECONDS_MAX {
        return Step::refuse(Rejected::LeaseTtlTooLarge);
    }
    if view.lease(id).is_some() {
        return Step::refuse(Rejected::LeaseExists);
    }
    let row = LeaseRow { id, ttl: ttl.max(view.lease_ttl_min()), remaining: 0 };
    Step::wrote(Reply::LeaseGrant(LeaseGranted { id, ttl: row.ttl }), Write::Lease(row))
}

/// Remembers how long leases have left. One that has gone meanwhile is passed over.
pub(super) fn checkpoint(view: &impl View, request: &LeaseCheckpointRequest) -> Step {
    let row = |id, remaining| view.lease(id).map(|row| Write::Lease(LeaseRow { remaining, ..row }));
    let writes = request.checkpoints.iter().filter_map(|each| row(each.id, each.remaining_ttl)).collect();
    Step::Done(Outcome { reply: Ok(Reply::Empty), writes, events: Vec::new() })
}

/// A revocation under way.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct RevokeRun {
    id: LeaseId,
    after: Option<Bytes>,
}

impl RevokeRun {
    pub(super) const fn new(request: &LeaseRevokeRequest) -> Self {
        Self { id: request.id, after: None }
    }

    /// Which lease.
    pub(super) const fn id(&self) -> LeaseId {
        self.id
    }

    /// Deletes keys until the budget is used up or none is left; then answers.
    pub(super) fn advance(
        &mut self,
        view: &impl View,
        draft: &mut Draft,
        budget: &mut usize,
    ) -> Option<Result<Reply, Rejected>> {
        if view.lease(self.id).is_none() {
            return Some(Err(Rejected::LeaseNotFound));
        }
        let keys = view.lease_keys(self.id, self.after.as_deref(), *budget);
        let is_last = keys.len() < *budget;
        *budget -= keys.len();
        if let Some(last) = keys.last() {
            self.after = Some(last.clone());
        }
        for key in keys {
            let found = draft.find(view, &key);
            assert!(found.now.is_some(), "a key that hangs on a lease is alive");
            draft.delete(key, found.before);
        }
        is_last.then_some(Ok(Reply::Empty))
    }
}
