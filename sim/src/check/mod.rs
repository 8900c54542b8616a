//! The promises, one file each. A violation names the promise that was broken and what shows it.
//!
//! Each oracle looks at what clients saw and at what the machine holds when everything is over. None of them asks the member.

pub mod archive;
pub mod bounds;
pub mod cluster;
pub mod compactions;
pub mod consensus;
pub mod durability;
pub mod heard;
pub mod latency;
pub mod lawful;
pub mod lease;
pub mod linear;
pub mod model;
pub mod progress;
pub mod quota;
pub mod replay;
pub mod rows;
pub mod watch;

use std::fmt;
use std::time::Duration;

/// What a member promises.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Promise {
    /// An acknowledged write survives, and a revision has one meaning.
    Durability,
    /// Strict serializability: one order of all operations, by revision, that real time agrees with.
    Linear,
    /// The store is what a replay of the log makes, and never ahead of it.
    Replay,
    /// A member starts on whatever its own crashes leave.
    Recovery,
    /// A member ends by itself only if the machine failed.
    Fault,
    /// A lease lives as long as it was promised, and not much longer.
    Lease,
    /// Room is refused when there is none, and only then.
    Quota,
    /// A snapshot is the whole store as it was at one moment.
    Snapshot,
    /// Members agree: Raft's five properties, and what members may say to each other.
    Consensus,
    /// What waits or is kept has a bound.
    Bounds,
    /// When everything is healed, everything is answered.
    Progress,
    /// And soon.
    Latency,
    /// Watchers are told everything once, in order, and nothing else.
    Watch,
    /// No assertion fails.
    Assertion,
    /// One seed is one run.
    Determinism,
}

/// A broken promise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// Which promise.
    pub promise: Promise,
    /// What shows it.
    pub what: String,
    /// Where to look.
    pub evidence: Evidence,
}

/// Where a broken promise shows, for a diagram.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Evidence {
    /// The operations that show it, by their places among all events.
    pub operations: Vec<u64>,
    /// The revisions that it is about.
    pub revisions: Vec<i64>,
    /// The moment, if it was seen at once.
    pub at: Option<Duration>,
}

impl Violation {
    /// `promise` is broken, as `what` shows.
    #[must_use]
    pub const fn new(promise: Promise, what: String) -> Self {
        let evidence = Evidence { operations: Vec::new(), revisions: Vec::new(), at: None };
        Self { promise, what, evidence }
    }

    /// This operation shows it.
    #[must_use]
    pub fn by(mut self, invoked: u64) -> Self {
        self.evidence.operations.push(invoked);
        self
    }

    /// It is about this revision.
    #[must_use]
    pub fn about(mut self, revision: i64) -> Self {
        self.evidence.revisions.push(revision);
        self
    }

    /// It was seen at this moment.
    #[must_use]
    pub const fn at(mut self, moment: Duration) -> Self {
        self.evidence.at = Some(moment);
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.what)
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
