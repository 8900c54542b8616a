//! What a member asks of another member's services beside Raft: the leader's lease keeper, its view of learners, and everybody's version.
//!
//! The binary asks over HTTP (`docs/protocol/http.md`), the simulator in its own way; a member that is alone asks nobody.

use std::future::Future;
use std::pin::Pin;

use detcd_core::ids::LeaseId;
use detcd_core::membership;

use crate::lease::LeaseSeen;

/// An answer on its way.
pub type Asking<T> = Pin<Box<dyn Future<Output = Result<T, Unheard>> + Send>>;

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unheard {
    /// The member was not reached, or is not the one to ask: another attempt may find the right one.
    Again,
    /// It said no, in these words.
    Refused(String),
}

/// The versions that a member tells of itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Versions {
    /// Its own.
    pub server: membership::Version,
}

/// The way to other members' services. `urls` are those of the member's peers' port, each to be tried in turn.
pub trait Forward: Send + Sync + 'static {
    /// Renews a lease at its leader; answers the seconds it has, or `None` if there is no such lease.
    fn renew_lease(&self, urls: Vec<String>, id: LeaseId) -> Asking<Option<i64>>;

    /// Looks at a lease at its leader; `None` if there is no such lease.
    fn look_at_lease(&self, urls: Vec<String>, id: LeaseId, wants_keys: bool) -> Asking<Option<LeaseSeen>>;

    /// Promotes a learner; answers the members after it.
    fn promote(&self, urls: Vec<String>, id: u64) -> Asking<Vec<membership::Member>>;

    /// Asks for a member's version.
    fn versions(&self, urls: Vec<String>) -> Asking<Versions>;
}

/// Nobody to ask.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

fn unheard<T: Send + 'static>() -> Asking<T> {
    Box::pin(std::future::ready(Err(Unheard::Again)))
}

impl Forward for Nobody {
    fn renew_lease(&self, _: Vec<String>, _: LeaseId) -> Asking<Option<i64>> {
        unheard()
    }

    fn look_at_lease(&self, _: Vec<String>, _: LeaseId, _: bool) -> Asking<Option<LeaseSeen>> {
        unheard()
    }

    fn promote(&self, _: Vec<String>, _: u64) -> Asking<Vec<membership::Member>> {
        unheard()
    }

    fn versions(&self, _: Vec<String>) -> Asking<Versions> {
        unheard()
    }
}
