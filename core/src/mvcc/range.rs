//! Reading a range with every option, in slices.
//!
//! The index picks the keys; rows are read only for results that remain, unless the order is by value. With a limit, no
//! more than twice as many candidates are held at once. etcd's rules that surprise: the count ignores limit and filters;
//! "no order" with a target other than the key takes the first keys by key order and sorts only those; an answer of keys
//! only, not ordered by value, comes from the index and therefore tells no lease.
//!
//! Invariant: all slices read at one point, and a compaction that removes rows from under it ends the read with
//! `Compacted`.

use alloc::vec::Vec;
use core::cmp::Ordering;

use bytes::Bytes;

use super::span::{Span, SpanEnd};
use super::validate;
use super::view::{KeyAt, KeyValue, ReadPoint, Scan, View};
use crate::command::{RangeRequest, SortOrder, SortTarget};
use crate::ids::{LeaseId, Revision};
use crate::reply::Rejected;

/// How far a read in slices has come.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Progress<T> {
    /// Advance it again.
    More,
    /// It is done; do not advance it again.
    Done(T),
    /// A compaction passed it; do not advance it again.
    Rejected(Rejected),
}

/// The result of a range.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct RangeReply {
    /// The store's revision when it was read.
    pub revision: i64,
    /// The keys, in the order asked for.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut something off.
    pub more: bool,
    /// How many keys the range has, whatever limit and filters say.
    pub count: i64,
}

/// A range being read.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RangeRead {
    span: Span,
    at: Revision,
    revision: i64,
    options: Options,
    stage: Stage,
    after: Option<Bytes>,
    picked: Vec<Picked>,
    /// How many keys passed the filters.
    matched: u64,
    count: i64,
    kvs: Vec<KeyValue>,
    /// Bytes of keys and values in `kvs`.
    held_bytes: usize,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Options {
    limit: Option<usize>,
    sort: Option<Sort>,
    filters: Filters,
    values: Values,
    /// Whether no order was asked for, so that a limit ends the picking.
    first_by_key: bool,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Sort {
    target: SortTarget,
    order: SortOrder,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Filters {
    min_mod: i64,
    max_mod: i64,
    min_create: i64,
    max_create: i64,
}

/// When rows are read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Values {
    /// Never: the index knows enough.
    Never,
    /// For the results that remain.
    Remaining,
    /// For every candidate, since the order depends on them.
    Candidates,
    /// As above, but the answer leaves them out.
    CandidatesThenDropped,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Stage {
    Picking,
    Counting,
    Reading,
}

/// A candidate; value and lease only if the order needs them.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Picked {
    key: KeyAt,
    value: Bytes,
    lease: LeaseId,
}

/// The point that a request means, seen from `point`.
pub(super) fn resolve(revision: i64, point: &ReadPoint) -> Result<Revision, Rejected> {
    if revision > point.revision {
        return Err(Rejected::FutureRevision);
    }
    let at = if revision <= 0 { point.at } else { Revision::end_of(revision) };
    if at.main < point.compacted { Err(Rejected::Compacted) } else { Ok(at) }
}

impl RangeRead {
    /// A range read from `point`: the view's newest state ([`ReadPoint::now`]), or a place inside a transaction.
    pub fn new(request: &RangeRequest, point: &ReadPoint) -> Result<Self, Rejected> {
        validate::sort(request)?;
        let at = resolve(request.revision, point)?;
        let options = Options::of(request);
        Ok(Self {
            span: Span::parse(&request.key, &request.range_end),
            at,
            revision: point.revision,
            options,
            stage: if request.count_only { Stage::Counting } else { Stage::Picking },
            after: None,
            picked: Vec::new(),
            matched: 0,
            count: 0,
            kvs: Vec::new(),
            held_bytes: 0,
        })
    }

    /// Bytes of the keys and values it has gathered so far.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Looks at up to `budget` entries of the index. A row costs as much as several of them.
    pub fn advance<V: View>(&mut self, view: &V, budget: usize) -> Result<Progress<RangeReply>, V::Fault> {
        assert!(0 < budget, "a step without budget would never end");
        let outcome = self.advance_unchecked(view, budget);
        // A compaction may have taken rows away under the read: then whatever was found, or missed, does not count.
        if self.at < Revision::end_of(view.swept()) { Ok(Progress::Rejected(Rejected::Compacted)) } else { outcome }
    }

    fn advance_unchecked<V: View>(&mut self, view: &V, mut budget: usize) -> Result<Progress<RangeReply>, V::Fault> {
        while budget > 0 {
            match self.stage {
                Stage::Picking => self.pick(view, &mut budget)?,
                Stage::Counting => {
                    if self.count_rest(view, &mut budget) {
                        self.arrange();
                        self.stage = Stage::Reading;
                    }
                }
                Stage::Reading => self.read(view, &mut budget)?,
            }
            if self.stage == Stage::Reading && self.is_read() {
                return Ok(Progress::Done(self.reply()));
            }
        }
        Ok(Progress::More)
    }

    /// Takes one chunk of candidates; moves on when there are enough or no more.
    fn pick<V: View>(&mut self, view: &V, budget: &mut usize) -> Result<(), V::Fault> {
        if self.span.end == SpanEnd::One {
            *budget -= 1;
            if let Some(facts) = view.key_at(&self.span.key, self.at) {
                let key = KeyAt { key: self.span.key.clone(), facts };
                self.take(view, key)?;
            }
            self.arrange();
            self.stage = Stage::Reading;
            return Ok(());
        }
        let enough = self.options.picks_max();
        let keys_max = enough.map_or(*budget, |enough| (enough - self.picked.len()).min(*budget));
        let scan = Scan { span: &self.span, at: self.at, after: self.after.as_deref(), keys_max, visits_max: *budget };
        let chunk = view.keys(&scan);
        *budget = budget.saturating_sub(chunk.visited.max(1));
        for key in chunk.keys {
            self.take(view, key)?;
        }
        self.after = chunk.resume;
        if self.after.is_none() {
            self.arrange();
            self.stage = Stage::Reading;
        } else if enough.is_some_and(|enough| enough <= self.picked.len()) {
            self.stage = Stage::Counting;
        }
        Ok(())
    }

    /// Counts one key, and keeps it if it may be a result.
    fn take<V: View>(&mut self, view: &V, key: KeyAt) -> Result<(), V::Fault> {
        self.count += 1;
        if !self.options.filters.pass(&key) {
            return Ok(());
        }
        self.matched += 1;
        let Options { limit, sort, values, .. } = &self.options;
        if sort.is_none() && limit.is_some_and(|limit| limit < self.picked.len()) {
            return Ok(()); // beyond the limit in the order of the keys
        }
        let mut picked = Picked { key, value: Bytes::new(), lease: LeaseId(0) };
        if matches!(values, Values::Candidates | Values::CandidatesThenDropped) {
            let row = view.row(picked.key.facts.modified)?;
            (picked.value, picked.lease) = (row.value, row.lease);
        }
        self.picked.push(picked);
        if let (Some(limit), Some(_), None) = (*limit, sort, self.options.picks_max())
            && self.picked.len() >= limit.saturating_mul(2).max(PICKED_BEFORE_PRUNING)
        {
            self.arrange();
        }
        Ok(())
    }

    /// Sorts the candidates and drops those beyond the limit. Equal ones stay in key order.
    fn arrange(&mut self) {
        if let Some(sort) = self.options.sort {
            self.picked.sort_by(|left, right| sort.compare(left, right));
        }
        if let Some(limit) = self.options.limit {
            self.picked.truncate(limit);
        }
    }

    /// Counts one chunk of what is left of the span. Answers whether that was all.
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

    /// Makes results of the candidates, reading their rows if need be.
    fn read<V: View>(&mut self, view: &V, budget: &mut usize) -> Result<(), V::Fault> {
        if self.kvs.capacity() == 0 {
            self.kvs.reserve_exact(self.picked.len());
        }
        while !self.is_read() && *budget > 0 {
            let cost = if self.options.values == Values::Remaining { ROW_COST } else { 1 };
            *budget = budget.saturating_sub(cost);
            let Picked { key: KeyAt { key, facts }, value, lease } = &self.picked[self.kvs.len()];
            let kv = match self.options.values {
                Values::Remaining => view.row(facts.modified)?,
                Values::Never | Values::Candidates | Values::CandidatesThenDropped => {
                    let (created, modified, version) = (facts.created, facts.modified.main, facts.version);
                    let kept = self.options.values == Values::Candidates;
                    let value = if kept { value.clone() } else { Bytes::new() };
                    KeyValue { key: key.clone(), created, modified, version, value, lease: *lease }
                }
            };
            self.held_bytes += kv.key.len() + kv.value.len();
            self.kvs.push(kv);
        }
        Ok(())
    }

    const fn is_read(&self) -> bool {
        self.kvs.len() == self.picked.len()
    }

    fn reply(&mut self) -> RangeReply {
        let more = self.options.limit.is_some_and(|limit| (limit as u64) < self.matched);
        let kvs = core::mem::take(&mut self.kvs);
        self.picked = Vec::new();
        RangeReply { revision: self.revision, kvs, more, count: self.count }
    }
}

/// What reading a row takes of a step's budget, in entries of the index.
const ROW_COST: usize = 8;

/// With a limit and an order, candidates are pruned when twice the limit are held, but never fewer than this.
const PICKED_BEFORE_PRUNING: usize = 1024;

impl Options {
    fn of(request: &RangeRequest) -> Self {
        let RangeRequest { sort_order, sort_target, .. } = *request;
        let filters = Filters {
            min_mod: request.min_mod_revision,
            max_mod: request.max_mod_revision,
            min_create: request.min_create_revision,
            max_create: request.max_create_revision,
        };
        let by_value = sort_target == SortTarget::Value;
        let values = match (request.keys_only, by_value) {
            (true, false) => Values::Never,
            (true, true) => Values::CandidatesThenDropped,
            (false, true) => Values::Candidates,
            (false, false) => Values::Remaining,
        };
        let limit = if request.limit > 0 { Some(usize::try_from(request.limit).unwrap_or(usize::MAX)) } else { None };
        let first_by_key = validate::in_key_order(request) && filters == Filters::OFF;
        Self { limit, sort: Sort::of(sort_target, sort_order), filters, values, first_by_key }
    }

    /// After how many candidates the picking ends: one more than the limit, to sort among, if the order does not matter.
    fn picks_max(&self) -> Option<usize> {
        if self.first_by_key { self.limit.map(|limit| limit.saturating_add(1)) } else { None }
    }
}

impl Sort {
    fn of(target: SortTarget, order: SortOrder) -> Option<Self> {
        match (target, order) {
            (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => None,
            // Without an order, any other target is ascending.
            (target, order) => Some(Self { target, order }),
        }
    }

    fn compare(self, left: &Picked, right: &Picked) -> Ordering {
        let ordering = match self.target {
            SortTarget::Key => left.key.key.cmp(&right.key.key),
            SortTarget::Version => left.key.facts.version.cmp(&right.key.facts.version),
            SortTarget::Create => left.key.facts.created.cmp(&right.key.facts.created),
            SortTarget::Mod => left.key.facts.modified.main.cmp(&right.key.facts.modified.main),
            SortTarget::Value => left.value.cmp(&right.value),
            SortTarget::Unknown(_) => Ordering::Equal, // refused before
        };
        if self.order == SortOrder::Descend { ordering.reverse() } else { ordering }
    }
}

impl Filters {
    const OFF: Self = Self { min_mod: 0, max_mod: 0, min_create: 0, max_create: 0 };

    /// Whether a key passes. A negative maximum is not off: nothing passes it.
    const fn pass(&self, key: &KeyAt) -> bool {
        let (modified, created) = (key.facts.modified.main, key.facts.created);
        (self.max_mod == 0 || modified <= self.max_mod)
            && (self.min_mod == 0 || self.min_mod <= modified)
            && (self.max_create == 0 || created <= self.max_create)
            && (self.min_create == 0 || self.min_create <= created)
    }
}
