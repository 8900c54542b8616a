//! Where in the log a frozen store stands, and who the members were there: what it is to Raft as a snapshot.

use std::ops::Bound;

use detcd_core::ids::{Index, Term};
use detcd_core::raft::snapshot::Snapshot;
use detcd_core::raft::{Configuration, Mark};

use super::backend::{Frozen, Slice, Visit};
use super::buckets::{self, Bucket};
use crate::codec::member;
use crate::fault::Fault;

/// Reads it.
///
/// # Errors
/// The store cannot be read, or is damaged.
pub fn standing(store: &impl Frozen) -> Result<Snapshot, Fault> {
    let damaged = |cause: String| Fault::Store { action: "read", cause };
    let (mut mark, mut configuration, mut broken) = (Mark::ZERO, Configuration::default(), None);
    let whole = |bucket| Slice { bucket, start: Bound::Unbounded, end: Bound::Unbounded };
    store.scan(whole(Bucket::Meta), &mut |key, value| {
        let place = match key {
            buckets::APPLIED_INDEX => &mut mark.index.0,
            buckets::APPLIED_TERM => &mut mark.term.0,
            _ => return Visit::More,
        };
        match value.try_into() {
            Ok(bytes) => *place = u64::from_be_bytes(bytes),
            Err(_) => broken = Some(format!("{}: not eight bytes", key.escape_ascii())),
        }
        Visit::More
    })?;
    store.scan(whole(Bucket::Members), &mut |key, value| {
        match member::decode(value) {
            Ok(member) if member.is_learner => drop(configuration.learners.insert(member.id)),
            Ok(member) => drop(configuration.voters.insert(member.id)),
            Err(error) => broken = Some(format!("member {}: {error}", key.escape_ascii())),
        }
        Visit::More
    })?;
    match broken {
        Some(cause) => Err(damaged(cause)),
        None => Ok(Snapshot { mark: Mark::new(Index(mark.index.0), Term(mark.term.0)), configuration }),
    }
}
