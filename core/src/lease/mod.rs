//! Leases: keys that go when their owner falls silent.
//!
//! Two parts that share nothing. The [`table`] is replicated: written by apply alone, the same on every member, durations only. The
//! [`keeper`] is the leader's: it knows when each lease ends by the leader's clock and says which to revoke; a revocation is then a
//! command like any other. Invariant: no lease goes but by a command in the log.

pub mod keeper;
pub mod table;

#[cfg(mutants)]
pub use keeper::Mutant;
pub use keeper::{Duties, Failure, Keeper, Pace, Renewal};
pub use table::{LeaseRow, LeaseTable};

/// The longest time to live that can be granted, in seconds (etcd's limit).
pub const TTL_SECONDS_MAX: i64 = 9_000_000_000;
