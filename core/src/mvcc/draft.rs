//! What one application has written so far, before anyone sees it.
//!
//! All changes of one command share one revision; their order is the sub-revision. Inside a transaction later operations
//! see earlier ones, so the draft remembers the keys it touched; a command of a single operation has nobody to show them
//! to and remembers none. Invariant: the change with sub-revision `n` is `writes[n]`.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;

use super::view::{Facts, KeyAt, KeyValue, ReadPoint, Scan, View};
use crate::apply::{Event, EventKind, Write};
use crate::ids::{LeaseId, Revision};

/// The writes of one command over an unchanged store.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Draft {
    /// The store as it was found.
    base: ReadPoint,
    writes: Vec<Write>,
    events: Vec<Event>,
    /// The keys touched so far, if somebody may look at them again.
    touched: Option<BTreeMap<Bytes, Touched>>,
}

/// Whether a draft's own changes are read again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reread {
    Never,
    Later,
}

/// A key that the draft has changed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Touched {
    now: Option<Facts>,
    /// The row that held it before the command.
    before: Option<Revision>,
}

/// A key as the draft sees it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Found {
    pub(crate) now: Option<Facts>,
    /// The row that held it before the command.
    pub(crate) before: Option<Revision>,
}

/// A live key of a span as the draft sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct FoundKey {
    pub(crate) key: KeyAt,
    pub(crate) before: Option<Revision>,
}

impl Draft {
    pub(crate) fn new(view: &impl View, reread: Reread) -> Self {
        let touched = match reread {
            Reread::Never => None,
            Reread::Later => Some(BTreeMap::new()),
        };
        // Most commands are a single put.
        Self { base: ReadPoint::now(view), writes: Vec::with_capacity(1), events: Vec::with_capacity(1), touched }
    }

    /// The store as it was found.
    pub(crate) const fn base(&self) -> ReadPoint {
        self.base
    }

    /// The store's revision once the draft is carried out.
    pub(crate) const fn revision(&self) -> i64 {
        if self.writes.is_empty() { self.base.revision } else { self.base.revision + 1 }
    }

    /// The point that sees everything so far and nothing later.
    pub(crate) const fn now(&self) -> ReadPoint {
        if self.writes.is_empty() {
            return self.base;
        }
        let at = Revision::new(self.base.revision + 1, self.writes.len() as i64 - 1);
        ReadPoint { at, revision: at.main, compacted: self.base.compacted }
    }

    pub(crate) fn finish(self) -> (Vec<Write>, Vec<Event>) {
        (self.writes, self.events)
    }

    /// A key as the draft sees it.
    pub(crate) fn find(&self, view: &impl View, key: &[u8]) -> Found {
        if let Some(touched) = self.touched.as_ref().and_then(|touched| touched.get(key)) {
            return Found { now: touched.now, before: touched.before };
        }
        let now = view.key_at(key, self.base.at);
        Found { now, before: now.map(|facts| facts.modified) }
    }

    /// A row as the draft sees it.
    pub(crate) fn row<V: View>(&self, view: &V, at: Revision) -> Result<KeyValue, V::Fault> {
        if at.main <= self.base.revision {
            return view.row(at);
        }
        match &self.writes[at.sub as usize] {
            Write::Row { revision, kv } => {
                assert_eq!(*revision, at, "the change with sub-revision n is writes[n]");
                Ok(kv.clone())
            }
            other => unreachable!("a live key is held by a row, not by {other:?}"),
        }
    }

    /// Writes a key that was found as `found`.
    pub(crate) fn put(&mut self, found: Found, key: &Bytes, value: Bytes, lease: LeaseId) {
        let revision = self.next();
        let (created, version) = found.now.map_or((revision.main, 1), |facts| (facts.created, facts.version + 1));
        let kv = KeyValue { key: key.clone(), created, modified: revision.main, version, value, lease };
        self.writes.push(Write::Row { revision, kv });
        self.events.push(Event { kind: EventKind::Put, revision, prev: found.before });
        self.touch(key, Some(Facts { created, modified: revision, version }), found.before);
    }

    /// Deletes a key that is alive.
    pub(crate) fn delete(&mut self, key: Bytes, before: Option<Revision>) {
        let revision = self.next();
        self.touch(&key, None, before);
        self.writes.push(Write::Tombstone { revision, key });
        self.events.push(Event { kind: EventKind::Delete, revision, prev: before });
    }

    /// The live keys of one step of a walk, as the draft sees them, and how many entries were looked at.
    pub(crate) fn keys(&self, view: &impl View, scan: &Scan<'_>) -> (Vec<FoundKey>, usize, Option<Bytes>) {
        let chunk = view.keys(&Scan { at: self.base.at, ..*scan });
        let below = chunk.keys.into_iter().map(|key| FoundKey { before: Some(key.facts.modified), key });
        let Some(touched) = self.touched.as_ref().filter(|touched| !touched.is_empty()) else {
            return (below.collect(), chunk.visited, chunk.resume);
        };
        let Some((lower, mut upper)) = scan.span.bounds(scan.after) else {
            return (Vec::new(), chunk.visited, None);
        };
        if let Some(resume) = &chunk.resume {
            upper = Bound::Included(resume.as_ref());
        }
        let mut merged: Vec<FoundKey> = below.filter(|found| !touched.contains_key(&found.key.key)).collect();
        let mut visited = chunk.visited;
        for (key, touch) in touched.range::<[u8], _>((lower, upper)) {
            visited += 1;
            if let Some(facts) = touch.now {
                merged.push(FoundKey { key: KeyAt { key: key.clone(), facts }, before: touch.before });
            }
        }
        merged.sort_unstable_by(|left, right| left.key.key.cmp(&right.key.key));
        (merged, visited, chunk.resume)
    }

    const fn next(&self) -> Revision {
        Revision::new(self.base.revision + 1, self.writes.len() as i64)
    }

    fn touch(&mut self, key: &Bytes, now: Option<Facts>, before: Option<Revision>) {
        if let Some(touched) = &mut self.touched {
            touched.insert(key.clone(), Touched { now, before });
        }
    }
}
