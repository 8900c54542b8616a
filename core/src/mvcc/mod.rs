//! The store's rules: what a revision is, who sees what, and what a request means.
//!
//! Every write makes a new revision `(main, sub)` and a row that is never changed; a key's history is the list of its
//! rows, cut into lives by tombstones. Reading order: [`span`] (which keys), [`view`] (what may be read), [`index`] (the
//! history in memory), [`range`] and [`stream`] (reads), [`draft`] with [`put`], [`delete`] and [`txn`] (writes),
//! [`validate`] (what is refused before it is proposed), [`hash`] (which rows a hash counts), [`auto_compact`] (when history is
//! forgotten without being asked).
//!
//! Invariant: nothing here blocks or reads unboundedly; what may touch many keys is a value that is advanced in slices.

pub mod auto_compact;
pub mod delete;
pub mod draft;
pub mod hash;
pub mod index;
pub mod put;
pub mod range;
pub mod span;
pub mod stream;
pub mod txn;
pub mod validate;
pub mod view;

pub use index::KeyIndex;
pub use range::{Progress, RangeRead, RangeReply};
pub use span::{Span, SpanEnd};
pub use stream::{StreamChunk, StreamEnd, StreamRead};
pub use view::{CountChunk, Facts, KeyAt, KeyChunk, KeyValue, ReadPoint, Scan, View};
