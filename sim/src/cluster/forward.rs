//! What members ask of each other beside Raft, as the binary does over HTTP: a call that may be lost or late on either way.

use std::future::Future;
use std::time::Duration;

use detcd_core::ids::{LeaseId, MemberId};
use detcd_core::membership;
use detcd_server::forward::{Asking, Forward, Unheard, Versions};
use detcd_server::lease::LeaseSeen;
use detcd_server::member::Member;
use detcd_server::publish::CLUSTER_VERSION;
use tonic::Status;

use super::net::Net;
use crate::store::SimBackend;

/// Words of a leader that a learner is not promoted.
const REFUSALS: [&str; 2] = ["can only promote a learner", "member not found"];
/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// One member's way.
pub struct SimForward {
    net: Net,
    place: usize,
}

impl SimForward {
    /// The way of the member at `place`.
    #[must_use]
    pub const fn new(net: Net, place: usize) -> Self {
        Self { net, place }
    }

    fn call<T, F>(&self, urls: &[String], work: impl FnOnce(Member<SimBackend>) -> F + Send + 'static) -> Asking<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        let (net, own) = (self.net.clone(), self.place);
        let Some(other) = urls.iter().find_map(|url| net.place_of(url)) else {
            return Box::pin(std::future::ready(Err(Unheard::Again)));
        };
        Box::pin(async move {
            let calling = async {
                net.cross(own, other).await?;
                let (member, node) = net.housed(other)?;
                // It runs where it is asked, and stands still or ends there.
                let answered = node.spawn(work(member)).await.ok()?;
                net.cross(other, own).await?;
                answered.ok()
            };
            tokio::time::timeout(PATIENCE, calling).await.ok().flatten().ok_or(Unheard::Again)
        })
    }
}

impl Forward for SimForward {
    fn renew_lease(&self, urls: Vec<String>, id: LeaseId) -> Asking<Option<i64>> {
        self.call(&urls, move |member| async move {
            let ttl = member.renew_lease_here(id).await?;
            Ok((ttl > 0).then_some(ttl))
        })
    }

    fn look_at_lease(&self, urls: Vec<String>, id: LeaseId, wants_keys: bool) -> Asking<Option<LeaseSeen>> {
        self.call(&urls, move |member| async move { member.look_at_lease_here(id, wants_keys).await })
    }

    fn promote(&self, urls: Vec<String>, id: u64) -> Asking<Vec<membership::Member>> {
        let asking = self.call(&urls, move |member| async move {
            // The binary's other end says no with a code of HTTP, and everything but these texts counts as another attempt's turn.
            match member.promote_as_leader(MemberId(id)).await {
                Ok(members) => Ok(Ok(members)),
                Err(status) if REFUSALS.iter().any(|text| status.message().contains(text)) => {
                    Ok(Err(Unheard::Refused(status.message().to_owned())))
                }
                Err(status) => Err(status),
            }
        });
        Box::pin(async { asking.await? })
    }

    fn versions(&self, urls: Vec<String>) -> Asking<Versions> {
        self.call(&urls, |_| std::future::ready(Ok(Versions { server: CLUSTER_VERSION })))
    }
}
