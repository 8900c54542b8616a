//! Renewing a lease and looking at one: what the Lease service and whoever else holds leases share.
//!
//! A renewal does not go through the log. The keeper answers at once, or says what has to be done first – prove that this member leads, clear
//! what a checkpoint stored – and is then asked again: what was seen before a wait is not believed after it (etcd issue 20590).

use std::time::Duration;

use bytes::Bytes;
use detcd_core::ids::{LeaseId, MemberId, Term};
use detcd_core::lease::Renewal;
use detcd_io::codec::entry::{self, Field};
use detcd_io::driver::ask::Unanswered;
use detcd_io::driver::bounds;
use detcd_io::store::backend::Backend;
use detcd_proto::etcdserverpb as pb;
use tonic::Status;

use crate::forward::Asking;
use crate::member::Member;
use crate::mutants::mutated;
use crate::room::{Held, NoRoom};
use crate::status::{self, Refused};

/// How often one who waits for the keeper looks again.
const POLL: Duration = Duration::from_millis(20);
/// The pause between two questions to a leader that did not answer.
const AGAIN: Duration = Duration::from_millis(50);

/// A lease as its leader sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeaseSeen {
    /// Whole seconds left; zero if it is over and not revoked yet.
    pub left: i64,
    /// What was granted, in seconds.
    pub ttl: i64,
    /// Its keys, in order, if they were asked for.
    pub keys: Vec<Bytes>,
}

impl<B: Backend> Member<B> {
    /// Renews a lease and says for how many seconds; zero if there is no such lease. If another member leads, it is asked.
    ///
    /// # Errors
    /// No leader, or no proof that this member is the one, within the request timeout.
    pub async fn renew_lease(&self, id: LeaseId) -> Result<i64, Status> {
        let renewing = async {
            loop {
                match self.leader_elsewhere() {
                    Some((leader, urls)) => {
                        match self.unless_deposed(leader, self.forward().renew_lease(urls, id)).await {
                            Some(ttl) => return Ok(ttl.unwrap_or(0)),
                            None => tokio::time::sleep(AGAIN).await,
                        }
                    }
                    None => match self.try_renewal(id).await? {
                        Some(ttl) => return Ok(ttl),
                        None => tokio::time::sleep(POLL).await,
                    },
                }
            }
        };
        match tokio::time::timeout(self.limits().timeout, renewing).await {
            Ok(renewed) => renewed,
            Err(_) => Err(self.why_not_kept()),
        }
    }

    /// The same for another member, which takes this one for the leader: nothing is passed on.
    ///
    /// # Errors
    /// [`Refused::NotPrimary`] if this member does not lead, or not for sure.
    pub async fn renew_lease_here(&self, id: LeaseId) -> Result<i64, Status> {
        let renewing = async {
            while self.asker().gauges().leading().is_some() {
                match self.try_renewal(id).await? {
                    Some(ttl) => return Ok(ttl),
                    None => tokio::time::sleep(POLL).await,
                }
            }
            Err(Refused::NotPrimary.into())
        };
        let renewed = tokio::time::timeout(self.limits().timeout, renewing).await;
        renewed.unwrap_or_else(|_| Err(Refused::NotPrimary.into()))
    }

    /// One attempt at the own keeper. `None`: it has to be asked again.
    async fn try_renewal(&self, id: LeaseId) -> Result<Option<i64>, Status> {
        match self.store().renew_lease(id) {
            Renewal::Renewed { ttl } => return Ok(Some(ttl)),
            // It may have been granted through a member that applies faster than this one.
            Renewal::Missing => match self.asker().read_barrier_urgently().await {
                Ok(()) => {}
                Err(Unanswered::Stopped) => return Err(Refused::Stopped.into()),
                Err(_) => return Ok(None),
            },
            Renewal::Prove(term) => self.prove_leadership(term).await?,
            Renewal::Clear(term) => self.clear_remainder(term, id).await?,
            Renewal::Ending | Renewal::NotLeading => return Ok(None),
        }
        // What was seen before the wait is not believed after it.
        Ok(match self.store().renew_lease(id) {
            Renewal::Renewed { ttl } => Some(ttl),
            Renewal::Missing => Some(0),
            Renewal::Prove(_) | Renewal::Clear(_) | Renewal::Ending | Renewal::NotLeading => None,
        })
    }

    /// The leader and where it is reached, if another member leads.
    fn leader_elsewhere(&self) -> Option<(MemberId, Vec<String>)> {
        let leader = self.asker().gauges().leader().filter(|&leader| leader != self.identity().member)?;
        self.store().membership().get(leader).map(|member| (leader, member.peer_urls.clone()))
    }

    /// What `leader` answers. `None` if that is nothing, or if it leads no longer: one that hangs, or is cut off, may leave its askers without a word for as long as a lease lives.
    async fn unless_deposed<T>(&self, leader: MemberId, asked: Asking<T>) -> Option<T> {
        let deposed = async {
            while self.asker().gauges().leader() == Some(leader) {
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::select! {
            biased;
            answer = asked => answer.ok(),
            () = deposed => None,
        }
    }

    /// Looks at a lease; `None` if there is no such lease. If another member leads, it is asked.
    ///
    /// # Errors
    /// No leader within the request timeout, or it changed meanwhile.
    pub async fn look_at_lease(&self, id: LeaseId, wants_keys: bool) -> Result<Option<LeaseSeen>, Status> {
        let looking = async {
            while !self.store().keeps_leases() {
                if let Some((leader, urls)) = self.leader_elsewhere() {
                    match self.unless_deposed(leader, self.forward().look_at_lease(urls, id, wants_keys)).await {
                        Some(seen) => return Ok(seen),
                        None => tokio::time::sleep(AGAIN).await,
                    }
                } else {
                    tokio::time::sleep(POLL).await;
                }
            }
            self.look_at_lease_here(id, wants_keys).await
        };
        let looked = tokio::time::timeout(self.limits().timeout, looking).await;
        looked.unwrap_or_else(|_| Err(self.why_not_kept()))
    }

    /// The same at the own keeper alone.
    ///
    /// # Errors
    /// This member does not lead any more, or is stopping.
    pub async fn look_at_lease_here(&self, id: LeaseId, wants_keys: bool) -> Result<Option<LeaseSeen>, Status> {
        let is_current = self.asker().read_barrier_urgently().await;
        is_current.map_err(|why| status::status(status::unanswered(why)))?;
        let Some(row) = self.store().lease(id) else { return Ok(None) };
        let mut held = self.room().enter();
        let mut keys = if wants_keys { self.lease_keys(id, &mut held).await? } else { Vec::new() };
        if mutated!(self.limits(), LastKeyUntold) {
            keys.pop();
        }
        match self.store().lease_left(id) {
            Some(left) => Ok(Some(LeaseSeen { left: whole_seconds(left), ttl: row.ttl, keys })),
            None if self.store().keeps_leases() => Ok(None),
            None => Err(status::status(status::unanswered(Unanswered::LeaderChanged))),
        }
    }

    async fn lease_keys(&self, id: LeaseId, held: &mut Held) -> Result<Vec<Bytes>, Status> {
        let mut keys: Vec<Bytes> = Vec::new();
        let mut bytes = 0;
        loop {
            let after = keys.last().cloned();
            let chunk = self.store().lease_keys(id, after.as_deref(), bounds::READ_KEYS_PER_TURN);
            let is_last = chunk.len() < bounds::READ_KEYS_PER_TURN;
            bytes += chunk.iter().map(Bytes::len).sum::<usize>();
            let grown = held.grow_to(bytes).await;
            grown.map_err(|NoRoom| status::status(status::unanswered(Unanswered::TooManyRequests)))?;
            keys.extend(chunk);
            if is_last {
                return Ok(keys);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Asks the log whether this member leads in `term`, and tells the keeper.
    async fn prove_leadership(&self, term: Term) -> Result<(), Status> {
        let at = self.store().lease_time();
        match self.asker().read_barrier_urgently().await {
            Ok(()) if self.asker().gauges().leading() == Some(term) => self.store().on_leadership_proved(term, at),
            Err(Unanswered::Stopped) => return Err(Refused::Stopped.into()),
            Ok(()) | Err(_) => tokio::time::sleep(POLL).await,
        }
        Ok(())
    }

    /// Takes the stored remainder of a lease out of the table, in `term`. Whether that worked shows when the keeper is asked again.
    async fn clear_remainder(&self, term: Term, id: LeaseId) -> Result<(), Status> {
        let checkpoints = vec![pb::LeaseCheckpoint { id: id.0, remaining_ttl: 0 }];
        let message = pb::LeaseCheckpointRequest { checkpoints };
        let ticket = self.asker().ticket();
        let payload = entry::encode(ticket, Field::LeaseCheckpoint, &message);
        match self.asker().propose_urgently(ticket, payload, Some(term)).await {
            Ok(_) => {}
            Err(Unanswered::Stopped) => return Err(Refused::Stopped.into()),
            Err(_) => tokio::time::sleep(POLL).await,
        }
        Ok(())
    }

    /// What to say when no keeper answered in time.
    fn why_not_kept(&self) -> Status {
        let gauges = self.asker().gauges();
        match gauges.leader() {
            None => Refused::NoLeader.into(),
            Some(_) if gauges.leading().is_some() => Refused::NotPrimary.into(),
            Some(_) => Refused::Timeout.into(),
        }
    }
}

/// Whole seconds of these milliseconds that are left, cut once, by the leader. Some time has always passed since the last renewal, so a fresh lease of ten seconds has nine of them.
fn whole_seconds(millis: u64) -> i64 {
    i64::try_from(millis.saturating_sub(1) / 1000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_left_are_cut_as_etcd_cuts_them() {
        assert_eq!([0, 1, 999, 1_000, 1_001, 10_000].map(whole_seconds), [0, 0, 0, 0, 1, 9]);
    }
}
