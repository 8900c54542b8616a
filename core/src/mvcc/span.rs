//! The keys that a request means: one, an interval, or everything from a key on.
//!
//! etcd writes "from this key on" as an end of one zero byte, and "this key" as an empty end; here they are an enum, so
//! that neither can be mistaken for an interval. Invariant: comparisons are of plain bytes.

use core::ops::Bound;

use bytes::Bytes;

/// What an ordered map of keys is asked for.
pub type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// A set of keys.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Span {
    /// The first key.
    pub key: Bytes,
    /// Where the set ends.
    pub end: SpanEnd,
}

/// Where a set of keys ends.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum SpanEnd {
    /// It is one key.
    One,
    /// It ends before this key; empty if this key is not after the first.
    Before(Bytes),
    /// It has no end.
    Open,
}

impl Span {
    /// The set that `key` and `range_end` mean on the wire.
    #[must_use]
    pub fn parse(key: &Bytes, range_end: &Bytes) -> Self {
        let end = match range_end.as_ref() {
            [] => SpanEnd::One,
            [0] => SpanEnd::Open,
            _ => SpanEnd::Before(range_end.clone()),
        };
        Self { key: key.clone(), end }
    }

    /// Every key there is.
    #[must_use]
    pub const fn all() -> Self {
        Self { key: Bytes::new(), end: SpanEnd::Open }
    }

    /// Whether a key belongs to the set.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            SpanEnd::One => key == self.key,
            SpanEnd::Before(end) => self.key <= key && key < end.as_ref(),
            SpanEnd::Open => self.key <= key,
        }
    }

    /// The bounds of what is left after `after`; `None` if that is nothing (ordered maps refuse inverted bounds).
    #[must_use]
    pub fn bounds<'a>(&'a self, after: Option<&'a [u8]>) -> Option<Bounds<'a>> {
        let first = self.key.as_ref();
        let lower = match after {
            Some(after) if first <= after => Bound::Excluded(after),
            _ => Bound::Included(first),
        };
        let upper = match &self.end {
            SpanEnd::One => Bound::Included(first),
            SpanEnd::Before(end) => Bound::Excluded(end.as_ref()),
            SpanEnd::Open => Bound::Unbounded,
        };
        let sound = match (lower, upper) {
            (Bound::Included(low), Bound::Included(high)) => low <= high,
            (Bound::Included(low) | Bound::Excluded(low), Bound::Excluded(high) | Bound::Included(high)) => low < high,
            _ => true,
        };
        if sound { Some((lower, upper)) } else { None }
    }
}
