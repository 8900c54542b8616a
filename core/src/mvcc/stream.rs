//! Reading a range chunk by chunk, for a client that takes it as a stream.
//!
//! The revision is pinned when the read is made; chunks follow each other in key order, and only the last tells revision,
//! count and whether the limit cut something off. How large the next chunk should be is the caller's to say, who sees the
//! encoded bytes. Invariant: the chunks together are what one [`super::RangeRead`] would answer.

use alloc::vec::Vec;

use bytes::Bytes;

use super::range::{Progress, resolve};
use super::span::Span;
use super::validate;
use super::view::{KeyAt, KeyValue, ReadPoint, Scan, View};
use crate::command::RangeRequest;
use crate::ids::{LeaseId, Revision};
use crate::reply::Rejected;

/// A range being read as a stream.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct StreamRead {
    span: Span,
    at: Revision,
    revision: i64,
    values: Values,
    /// How many results are still allowed.
    left: usize,
    stage: Stage,
    /// The last key that a chunk carried, or that the walk for the next one has reached.
    after: Option<Bytes>,
    picked: Vec<KeyAt>,
    kvs: Vec<KeyValue>,
    count: i64,
}

/// Some results, in key order.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct StreamChunk {
    /// The results.
    pub kvs: Vec<KeyValue>,
    /// What the last chunk adds.
    pub end: Option<StreamEnd>,
}

/// What the last chunk adds.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct StreamEnd {
    /// The store's revision when the read was made.
    pub revision: i64,
    /// Whether the limit cut something off.
    pub more: bool,
    /// How many keys the range has, whatever the limit says.
    pub count: i64,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Values {
    Read,
    LeftOut,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Stage {
    /// Keys are looked for; so many results, once the chunk has begun.
    Picking(Option<usize>),
    /// Rows are read.
    Reading(Tail),
    Counting,
}

/// What follows the chunk that is being read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Tail {
    /// Another chunk.
    Chunk,
    /// Keys beyond the limit.
    Uncounted,
    /// Nothing.
    Nothing,
}

impl StreamRead {
    /// A range read from `point`. Only key order and no filters. A limit below zero is none.
    pub fn new(request: &RangeRequest, point: &ReadPoint) -> Result<Self, Rejected> {
        validate::range_stream(request)?;
        let at = resolve(request.revision, point)?;
        Ok(Self {
            span: Span::parse(&request.key, &request.range_end),
            at,
            revision: point.revision,
            values: if request.keys_only { Values::LeftOut } else { Values::Read },
            left: if request.limit > 0 { usize::try_from(request.limit).unwrap_or(usize::MAX) } else { usize::MAX },
            stage: if request.count_only { Stage::Counting } else { Stage::Picking(None) },
            after: None,
            picked: Vec::new(),
            kvs: Vec::new(),
            count: 0,
        })
    }

    /// Looks at up to `budget` index entries and rows for a chunk of at most `keys_max` results (what was said
    /// when the chunk began holds). After a chunk without an end, advance it again.
    pub fn advance<V: View>(
        &mut self,
        view: &V,
        keys_max: usize,
        budget: usize,
    ) -> Result<Progress<StreamChunk>, V::Fault> {
        assert!(0 < budget && 0 < keys_max, "a step without budget would never end");
        let outcome = self.advance_unchecked(view, keys_max, budget);
        if self.at.main < view.compacted() { Ok(Progress::Rejected(Rejected::Compacted)) } else { outcome }
    }

    fn advance_unchecked<V: View>(
        &mut self,
        view: &V,
        keys_max: usize,
        mut budget: usize,
    ) -> Result<Progress<StreamChunk>, V::Fault> {
        while budget > 0 {
            match self.stage {
                Stage::Picking(begun) => {
                    let wanted = begun.unwrap_or_else(|| keys_max.min(self.left));
                    self.stage = Stage::Picking(Some(wanted));
                    self.pick(view, wanted, &mut budget);
                }
                Stage::Reading(_) => {}
                Stage::Counting => {
                    if self.count_rest(view, &mut budget) {
                        let more = !self.kvs.is_empty();
                        return Ok(Progress::Done(self.last_chunk(more)));
                    }
                }
            }
            if let Stage::Reading(tail) = self.stage
                && self.read(view, &mut budget)?
            {
                match tail {
                    Tail::Chunk => return Ok(Progress::Done(self.chunk())),
                    Tail::Uncounted => self.stage = Stage::Counting,
                    Tail::Nothing => return Ok(Progress::Done(self.last_chunk(false))),
                }
            }
        }
        Ok(Progress::More)
    }

    /// Takes keys until one more than wanted is known: so the chunk knows whether it is the last.
    fn pick(&mut self, view: &impl View, wanted: usize, budget: &mut usize) {
        let enough = wanted.saturating_add(1);
        let keys_max = (enough - self.picked.len()).min(*budget);
        let scan = Scan { span: &self.span, at: self.at, after: self.after.as_deref(), keys_max, visits_max: *budget };
        let mut chunk = view.keys(&scan);
        *budget = budget.saturating_sub(chunk.visited.max(1));
        self.picked.append(&mut chunk.keys);
        self.after = chunk.resume;
        if self.picked.len() == enough {
            self.picked.pop();
            self.after = self.picked.last().map(|key| key.key.clone());
            self.stage = Stage::Reading(if wanted == self.left { Tail::Uncounted } else { Tail::Chunk });
        } else if self.after.is_none() {
            self.stage = Stage::Reading(Tail::Nothing);
        }
    }

    fn read<V: View>(&mut self, view: &V, budget: &mut usize) -> Result<bool, V::Fault> {
        while self.kvs.len() < self.picked.len() && *budget > 0 {
            *budget -= 1;
            let KeyAt { key, facts } = &self.picked[self.kvs.len()];
            self.kvs.push(match self.values {
                Values::Read => view.row(facts.modified)?,
                Values::LeftOut => KeyValue {
                    key: key.clone(),
                    created: facts.created,
                    modified: facts.modified.main,
                    version: facts.version,
                    value: Bytes::new(),
                    lease: LeaseId(0),
                },
            });
        }
        Ok(self.kvs.len() == self.picked.len())
    }

    fn count_rest(&mut self, view: &impl View, budget: &mut usize) -> bool {
        let scan = Scan {
            span: &self.span,
            at: self.at,
            after: self.after.as_deref(),
            keys_max: *budget,
            visits_max: *budget,
        };
        let chunk = view.count(&scan);
        *budget = budget.saturating_sub(chunk.visited.max(1));
        self.count += chunk.count as i64;
        self.after = chunk.resume;
        self.after.is_none()
    }

    fn chunk(&mut self) -> StreamChunk {
        let kvs = core::mem::take(&mut self.kvs);
        self.picked.clear();
        self.left -= kvs.len();
        self.count += kvs.len() as i64;
        self.stage = Stage::Picking(None);
        StreamChunk { kvs, end: None }
    }

    fn last_chunk(&mut self, more: bool) -> StreamChunk {
        let mut chunk = self.chunk();
        chunk.end = Some(StreamEnd { revision: self.revision, more, count: self.count });
        chunk
    }
}
