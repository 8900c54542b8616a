//! The backend quota: how large the store may grow before writes are refused.
//!
//! It depends on the size of a local file, so it is this member's affair and not the log's: it is checked before a request is proposed, and again when
//! it is answered. Who finds the store full raises the replicated alarm, and from then on every member refuses what costs anything until the alarm is lowered.

use detcd_core::command::AlarmKind;
use detcd_core::command::{PutRequest, TxnRequest};
use detcd_core::quota;
use detcd_core::reply::Rejected;
use detcd_io::codec::entry::Field;
use detcd_io::store::backend::Backend;
use detcd_proto::etcdserverpb as pb;
use tonic::Status;

use crate::member::Member;
use crate::mutants::mutated;
use crate::status;

/// What a request would add to the store, in bytes, by etcd's estimate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cost(u64);

impl Cost {
    /// Of a put.
    #[must_use]
    pub fn of_put(request: &PutRequest) -> Self {
        Self(quota::put_cost(request))
    }

    /// Of a transaction.
    #[must_use]
    fn of_txn(request: &TxnRequest) -> Self {
        Self(quota::txn_cost(request))
    }

    /// Of a new lease.
    pub const LEASE: Self = Self(quota::LEASE_COST);
}

/// Whether a store of so many bytes takes this on. The size is that of the last commit, as in etcd.
fn fits(allocated: u64, cost: Cost, quota_bytes: i64) -> bool {
    // Below zero: no quota.
    let Ok(quota) = u64::try_from(quota_bytes) else { return true };
    cost.0 == 0 || allocated.saturating_add(cost.0) < quota
}

impl<B: Backend> Member<B> {
    /// Refuses what the store has no room for, and raises the alarm. Called before anything else is looked at.
    ///
    /// # Errors
    /// `database space exceeded`.
    pub async fn check_quota(&self, cost: Cost) -> Result<(), Status> {
        if self.fits(cost) {
            return Ok(());
        }
        self.raise_no_space().await;
        Err(status::status(status::rejected(Rejected::NoSpace)))
    }

    /// The same for a request that was carried out: it stays so, but its client learns that there is no room for more.
    ///
    /// # Errors
    /// `database space exceeded`.
    pub async fn recheck_quota(&self, cost: Cost) -> Result<(), Status> {
        if self.fits(cost) {
            return Ok(());
        }
        if !self.store().alarms().any(AlarmKind::NoSpace) {
            self.raise_no_space().await;
        }
        Err(status::status(status::rejected(Rejected::NoSpace)))
    }

    fn fits(&self, cost: Cost) -> bool {
        let one_more = i64::from(mutated!(self.limits(), QuotaReached));
        fits(self.store().size().allocated, cost, self.limits().quota_bytes + one_more)
    }

    /// What a transaction would add.
    #[must_use]
    pub fn cost_of_txn(&self, request: &TxnRequest) -> Cost {
        if mutated!(self.limits(), QuotaForgetsTxn) { Cost(0) } else { Cost::of_txn(request) }
    }

    async fn raise_no_space(&self) {
        let request = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Activate.into(),
            member_id: self.identity().member.0,
            alarm: pb::AlarmType::Nospace.into(),
        };
        // The client is refused whether it succeeds or not.
        if let Err(status) = self.propose(Field::Alarm, &request).await {
            tracing::warn!(%status, "the alarm of a full store could not be raised");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quota_is_reached_when_size_and_cost_reach_it() {
        assert!(fits(100, Cost(99), 200));
        assert!(!fits(100, Cost(100), 200));
        assert!(fits(1000, Cost(0), 200), "what costs nothing passes");
        assert!(fits(u64::MAX, Cost(1), -1), "a negative quota is none");
        assert!(!fits(u64::MAX, Cost(1), i64::MAX));
    }
}
