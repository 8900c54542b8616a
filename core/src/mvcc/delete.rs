//! Deleting a range, in slices.
//!
//! Each live key gets a tombstone with the command's revision and the next sub-revision, in key order. A delete never
//! meets what it writes: it only goes forward. Invariant: no match makes no write, hence no revision.

use alloc::vec::Vec;

use bytes::Bytes;

use super::draft::Draft;
use super::span::{Span, SpanEnd};
use super::view::{Scan, View};
use crate::command::DeleteRangeRequest;
use crate::ids::Revision;
use crate::reply::DeleteRangeReply;

/// A range delete under way.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct DeleteRun {
    span: Span,
    after: Option<Bytes>,
    wants_prev: bool,
    deleted: i64,
    prev: Vec<Revision>,
}

impl DeleteRun {
    pub(crate) fn new(request: &DeleteRangeRequest) -> Self {
        let span = Span::parse(&request.key, &request.range_end);
        Self { span, after: None, wants_prev: request.prev_kv, deleted: 0, prev: Vec::new() }
    }

    /// Deletes until the budget is used up or nothing is left; then answers.
    pub(crate) fn advance(
        &mut self,
        view: &impl View,
        draft: &mut Draft,
        budget: &mut usize,
    ) -> Option<DeleteRangeReply> {
        if self.span.end == SpanEnd::One {
            *budget = budget.saturating_sub(1);
            let found = draft.find(view, &self.span.key);
            if let Some(facts) = found.now {
                self.delete(draft, self.span.key.clone(), facts.modified, found.before);
            }
            return Some(self.reply(draft));
        }
        while *budget > 0 {
            let scan = Scan {
                span: &self.span,
                at: draft.base().at,
                after: self.after.as_deref(),
                keys_max: *budget,
                visits_max: *budget,
            };
            let (keys, visited, resume) = draft.keys(view, &scan);
            *budget = budget.saturating_sub(visited.max(1));
            for found in keys {
                self.delete(draft, found.key.key, found.key.facts.modified, found.before);
            }
            match resume {
                Some(resume) => self.after = Some(resume),
                None => return Some(self.reply(draft)),
            }
        }
        None
    }

    fn delete(&mut self, draft: &mut Draft, key: Bytes, row: Revision, before: Option<Revision>) {
        draft.delete(key, before);
        self.deleted += 1;
        if self.wants_prev {
            self.prev.push(row);
        }
    }

    fn reply(&mut self, draft: &Draft) -> DeleteRangeReply {
        let prev = core::mem::take(&mut self.prev);
        DeleteRangeReply { revision: draft.revision(), deleted: self.deleted, prev }
    }
}
