//! What apply and reads may see of the world: a point-in-time key index and the rows behind it.
//!
//! The shell implements [`View`] over an index lock, an overlay and a backend. Every call is bounded: scans come in
//! chunks, so that nobody holds the index while rows are read. Invariant: within one application or one pinned read, the
//! answers for a fixed point do not change.

use alloc::vec::Vec;

use bytes::Bytes;

use super::span::Span;
use crate::alarm::Alarms;
use crate::ids::{LeaseId, Revision};
use crate::lease::LeaseRow;
use crate::membership::Membership;

/// Read access to the store.
pub trait View {
    /// How this machine can fail while reading. Never an answer.
    type Fault;

    /// The store's revision: 1 when empty.
    fn current(&self) -> i64;

    /// The revision of the last compaction; -1 if there was none.
    fn compacted(&self) -> i64;

    /// The newest compaction that has begun to remove rows; -1 if there was none. Never above [`View::compacted`]; a
    /// read at a point before its end may already miss rows.
    fn swept(&self) -> i64;

    /// What the index knows of a live key at a point (inclusive).
    fn key_at(&self, key: &[u8], at: Revision) -> Option<Facts>;

    /// The next live keys of a span, in key order.
    fn keys(&self, scan: &Scan<'_>) -> KeyChunk;

    /// How many live keys the next part of a span has.
    fn count(&self, scan: &Scan<'_>) -> CountChunk;

    /// The row written at exactly this revision.
    fn row(&self, at: Revision) -> Result<KeyValue, Self::Fault>;

    /// A lease that exists.
    fn lease(&self, id: LeaseId) -> Option<LeaseRow>;

    /// The next keys of a lease after `after`, in key order, at most so many.
    fn lease_keys(&self, id: LeaseId, after: Option<&[u8]>, max: usize) -> Vec<Bytes>;

    /// The least time to live of a lease, in seconds: a fact of the configuration, which has to be the same at all members.
    fn lease_ttl_min(&self) -> i64;

    /// Which alarms are raised.
    fn alarms(&self) -> &Alarms;

    /// Who belongs to the cluster.
    fn membership(&self) -> &Membership;
}

/// A stored key and value, as clients see it.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The revision that created it.
    pub created: i64,
    /// The revision that wrote this value.
    pub modified: i64,
    /// How many writes since its creation.
    pub version: i64,
    /// The value.
    pub value: Bytes,
    /// The lease it is attached to.
    pub lease: LeaseId,
}

/// What the index knows of one live key at one point.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Facts {
    /// The revision that created it.
    pub created: i64,
    /// The row that holds it.
    pub modified: Revision,
    /// How many writes since its creation.
    pub version: i64,
}

/// A live key and what the index knows of it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct KeyAt {
    /// The key.
    pub key: Bytes,
    /// The rest.
    pub facts: Facts,
}

/// One bounded step of a walk through the index.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// The keys of the whole walk.
    pub span: &'a Span,
    /// The point at which they must be alive (inclusive).
    pub at: Revision,
    /// Where the last step ended: only keys after it are looked at.
    pub after: Option<&'a [u8]>,
    /// Stop after so many live keys. Counting ignores it.
    pub keys_max: usize,
    /// Stop after so many index entries, alive or not.
    pub visits_max: usize,
}

/// The live keys of one step.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeyChunk {
    /// In key order.
    pub keys: Vec<KeyAt>,
    /// How many index entries the step looked at.
    pub visited: usize,
    /// Where the next step goes on; `None` if the span is done.
    pub resume: Option<Bytes>,
}

/// The number of live keys of one step.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CountChunk {
    /// How many live keys the step found.
    pub count: usize,
    /// How many index entries the step looked at.
    pub visited: usize,
    /// Where the next step goes on; `None` if the span is done.
    pub resume: Option<Bytes>,
}

/// What "now" means for a read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ReadPoint {
    /// The last change that the read sees.
    pub at: Revision,
    /// The store's revision that its answer tells.
    pub revision: i64,
    /// The last compaction when the point was taken.
    pub compacted: i64,
}

impl ReadPoint {
    /// The newest state of a view.
    pub fn now(view: &impl View) -> Self {
        // In this order: a put and its compaction in between must not make the newest state look compacted.
        let compacted = view.compacted();
        let current = view.current();
        Self { at: Revision::end_of(current), revision: current, compacted }
    }
}
