//! Transactions, in slices.
//!
//! Three walks over the operations that run, each in the same order. The first settles every compare, also those of inner
//! transactions on the way taken, against the store as it was found; so the way is fixed before anything runs. The second
//! checks every operation on that way, also against the store as found: one refusal refuses the whole. The third runs
//! them, each seeing what the ones before it wrote; ranges are not read but noted with the point at which to read them.
//!
//! Invariant: nothing leaves the draft before the last slice.

use alloc::vec::Vec;

use bytes::Bytes;

use super::delete::DeleteRun;
use super::draft::Draft;
use super::put;
use super::span::{Span, SpanEnd};
use super::view::{KeyAt, Scan, View};
use crate::command::{Compare, CompareOperand, CompareResult, CompareTarget, Op, RangeRequest, TxnRequest};
use crate::reply::{OpReply, RangeAt, Rejected, TxnReply};

/// A transaction under way.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct TxnRun {
    request: TxnRequest,
    stage: Stage,
    walk: Walk,
    /// Which branch each transaction on the way takes, in the order of the walk.
    branches: Vec<bool>,
    /// The answers of the transactions that the walk is inside of.
    replies: Vec<TxnReply>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Stage {
    /// The compares of the transaction at hand: which one, and how far its range was looked at.
    Comparing {
        place: usize,
        looked: Looked,
    },
    /// On the way to the next inner transaction.
    Seeking,
    Checking,
    Running,
    /// A range delete among the operations.
    Deleting(DeleteRun),
}

/// How far the range of one compare was looked at.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct Looked {
    after: Option<Bytes>,
    /// How many live keys there were.
    keys: usize,
}

/// A place in the tree of operations: the branch taken and the next operation, from the outermost transaction inwards.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct Walk {
    frames: Vec<Frame>,
    /// How many transactions were entered.
    entered: usize,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Frame {
    succeeded: bool,
    next: usize,
}

/// What a walk meets next.
enum Visit<'a> {
    Op(&'a Op),
    /// An inner transaction: [`Walk::enter`] it.
    Inner,
    /// The end of an inner transaction.
    InnerEnd,
    End,
}

impl Walk {
    /// Goes into the transaction just met, or into the outermost one.
    fn enter(&mut self, succeeded: bool) {
        self.frames.push(Frame { succeeded, next: 0 });
        self.entered += 1;
    }

    /// The innermost transaction that was entered.
    fn innermost<'a>(&self, root: &'a TxnRequest) -> &'a TxnRequest {
        let outer = self.frames.len().saturating_sub(1);
        self.frames[..outer].iter().fold(root, Self::inner)
    }

    /// The transaction that is met but not entered yet.
    fn met<'a>(&self, root: &'a TxnRequest) -> &'a TxnRequest {
        self.frames.iter().fold(root, Self::inner)
    }

    fn inner<'a>(txn: &'a TxnRequest, frame: &Frame) -> &'a TxnRequest {
        match &txn.branch(frame.succeeded)[frame.next - 1] {
            Op::Txn(inner) => inner,
            other => unreachable!("a walk goes only into transactions, not into {other:?}"),
        }
    }

    fn next<'a>(&mut self, root: &'a TxnRequest) -> Visit<'a> {
        let txn = self.innermost(root);
        let frame = self.frames.last_mut().expect("a walk begins by entering the outermost transaction");
        match txn.branch(frame.succeeded).get(frame.next) {
            Some(op) => {
                frame.next += 1;
                if matches!(op, Op::Txn(_)) { Visit::Inner } else { Visit::Op(op) }
            }
            None => {
                self.frames.pop();
                if self.frames.is_empty() { Visit::End } else { Visit::InnerEnd }
            }
        }
    }
}

impl TxnRun {
    pub(crate) const fn new(request: TxnRequest) -> Self {
        let walk = Walk { frames: Vec::new(), entered: 0 };
        let stage = Stage::Comparing { place: 0, looked: Looked { after: None, keys: 0 } };
        Self { request, stage, walk, branches: Vec::new(), replies: Vec::new() }
    }

    /// Works until the budget is used up, or answers.
    pub(crate) fn advance<V: View>(
        &mut self,
        view: &V,
        draft: &mut Draft,
        budget: &mut usize,
    ) -> Result<Option<Result<TxnReply, Rejected>>, V::Fault> {
        while *budget > 0 {
            match &mut self.stage {
                Stage::Comparing { .. } => self.compare(view, draft, budget)?,
                Stage::Seeking => self.seek(budget),
                Stage::Checking => {
                    if let Err(rejected) = self.check(view, draft, budget) {
                        return Ok(Some(Err(rejected)));
                    }
                }
                Stage::Running => match self.run(view, draft, budget)? {
                    Ok(None) => {}
                    Ok(Some(reply)) => return Ok(Some(Ok(reply))),
                    Err(rejected) => return Ok(Some(Err(rejected))),
                },
                Stage::Deleting(delete) => {
                    if let Some(reply) = delete.advance(view, draft, budget) {
                        self.answer(OpReply::DeleteRange(reply));
                        self.stage = Stage::Running;
                    }
                }
            }
        }
        Ok(None)
    }

    /// Settles the compares of the transaction met, as far as the budget goes.
    fn compare<V: View>(&mut self, view: &V, draft: &Draft, budget: &mut usize) -> Result<(), V::Fault> {
        let Self { request, stage: Stage::Comparing { place, looked }, walk, .. } = self else { return Ok(()) };
        let txn = walk.met(request);
        let mut holds = true;
        while let Some(compare) = txn.compare.get(*place).filter(|_| holds) {
            if *budget == 0 {
                return Ok(());
            }
            match compare.step(view, draft, looked, budget)? {
                Some(result) => {
                    holds = result;
                    *place += 1;
                    *looked = Looked::default();
                }
                None => return Ok(()),
            }
        }
        self.branches.push(holds);
        self.walk.enter(holds);
        self.stage = Stage::Seeking;
        Ok(())
    }

    /// Looks for the next inner transaction on the way; at the end of the way, the checks begin.
    fn seek(&mut self, budget: &mut usize) {
        while *budget > 0 {
            *budget -= 1;
            match self.walk.next(&self.request) {
                Visit::Op(_) | Visit::InnerEnd => {}
                Visit::Inner => {
                    self.stage = Stage::Comparing { place: 0, looked: Looked::default() };
                    return;
                }
                Visit::End => {
                    self.stage = Stage::Checking;
                    self.rewind();
                    return;
                }
            }
        }
    }

    /// Checks the operations on the way; at its end, they run.
    fn check(&mut self, view: &impl View, draft: &Draft, budget: &mut usize) -> Result<(), Rejected> {
        while *budget > 0 {
            *budget -= 1;
            match self.walk.next(&self.request) {
                Visit::Op(Op::Range(range)) => check_range(draft, range)?,
                Visit::Op(Op::Put(put)) => put::check(view, draft, put)?,
                Visit::Op(_) | Visit::InnerEnd => {}
                Visit::Inner => self.walk.enter(self.branches[self.walk.entered]),
                Visit::End => {
                    self.stage = Stage::Running;
                    self.rewind();
                    self.begin_reply();
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Runs operations up to the next range delete; answers at the end of the way.
    fn run<V: View>(
        &mut self,
        view: &V,
        draft: &mut Draft,
        budget: &mut usize,
    ) -> Result<Result<Option<TxnReply>, Rejected>, V::Fault> {
        while *budget > 0 {
            *budget -= 1;
            match self.walk.next(&self.request) {
                Visit::Op(Op::Range(range)) => {
                    let read = RangeAt { request: range.clone(), point: draft.now() };
                    self.answer(OpReply::Range(read.into()));
                }
                Visit::Op(Op::Put(put)) => match put::run(view, draft, put)? {
                    Ok(reply) => self.answer(OpReply::Put(reply)),
                    Err(rejected) => return Ok(Err(rejected)),
                },
                Visit::Op(Op::DeleteRange(delete)) => {
                    self.stage = Stage::Deleting(DeleteRun::new(delete));
                    return Ok(Ok(None));
                }
                Visit::Op(Op::Empty) => self.answer(OpReply::Empty),
                Visit::Op(Op::Txn(_)) | Visit::Inner => {
                    self.walk.enter(self.branches[self.walk.entered]);
                    self.begin_reply();
                }
                Visit::InnerEnd => {
                    let reply = self.replies.pop().expect("one reply for each transaction entered");
                    self.answer(OpReply::Txn(reply));
                }
                Visit::End => {
                    let mut reply = self.replies.pop().expect("the outermost transaction's reply");
                    assert!(self.replies.is_empty(), "inner transactions have ended");
                    reply.revision = draft.revision();
                    return Ok(Ok(Some(reply)));
                }
            }
        }
        Ok(Ok(None))
    }

    /// Starts the walk anew on the way that is now known.
    fn rewind(&mut self) {
        self.walk.frames.clear();
        self.walk.entered = 0;
        self.walk.enter(self.branches[0]);
    }

    fn begin_reply(&mut self) {
        let frame = self.walk.frames.last().expect("just entered");
        let ops = self.walk.innermost(&self.request).branch(frame.succeeded);
        let responses = Vec::with_capacity(ops.len());
        self.replies.push(TxnReply { revision: 0, succeeded: frame.succeeded, responses });
    }

    fn answer(&mut self, reply: OpReply) {
        self.replies.last_mut().expect("the outermost reply is there").responses.push(reply);
    }
}

/// Whether a range inside a transaction may be read. Other than in a range of its own, only zero means "now" here.
const fn check_range(draft: &Draft, request: &RangeRequest) -> Result<(), Rejected> {
    let base = draft.base();
    if request.revision == 0 {
        return Ok(());
    }
    if request.revision > base.revision {
        return Err(Rejected::FutureRevision);
    }
    if request.revision < base.compacted { Err(Rejected::Compacted) } else { Ok(()) }
}

impl Compare {
    /// Compares one key, or one chunk of a range; `None` means that the range goes on.
    fn step<V: View>(
        &self,
        view: &V,
        draft: &Draft,
        looked: &mut Looked,
        budget: &mut usize,
    ) -> Result<Option<bool>, V::Fault> {
        let (span, at) = (Span::parse(&self.key, &self.range_end), draft.base().at);
        if span.end == SpanEnd::One {
            *budget = budget.saturating_sub(1);
            return match view.key_at(&self.key, at) {
                Some(facts) => self.holds_for(view, &KeyAt { key: self.key.clone(), facts }).map(Some),
                None => Ok(Some(self.holds_for_none())),
            };
        }
        let scan = Scan { span: &span, at, after: looked.after.as_deref(), keys_max: *budget, visits_max: *budget };
        let chunk = view.keys(&scan);
        *budget = budget.saturating_sub(chunk.visited.max(1));
        for key in &chunk.keys {
            if !self.holds_for(view, key)? {
                return Ok(Some(false));
            }
        }
        looked.keys += chunk.keys.len();
        looked.after = chunk.resume;
        // A range without any key compares as one missing key.
        let is_done = looked.after.is_none();
        Ok(if is_done { Some(0 < looked.keys || self.holds_for_none()) } else { None })
    }

    fn holds_for_none(&self) -> bool {
        self.target != CompareTarget::Value && self.relation_holds(0.cmp(&self.operand_number()))
    }

    fn holds_for<V: View>(&self, view: &V, key: &KeyAt) -> Result<bool, V::Fault> {
        let facts = &key.facts;
        let number = match self.target {
            CompareTarget::Version => facts.version,
            CompareTarget::Create => facts.created,
            CompareTarget::Mod => facts.modified.main,
            CompareTarget::Lease => view.row(facts.modified)?.lease.0,
            CompareTarget::Value => {
                let row = view.row(facts.modified)?;
                let given: &[u8] = if let CompareOperand::Value(value) = &self.operand { value } else { &[] };
                return Ok(self.relation_holds(row.value.as_ref().cmp(given)));
            }
            // Nothing is compared, so the two sides are equal.
            CompareTarget::Unknown(_) => self.operand_number(),
        };
        Ok(self.relation_holds(number.cmp(&self.operand_number())))
    }

    /// The given number, if it was given for the target; else zero.
    const fn operand_number(&self) -> i64 {
        match (self.target, &self.operand) {
            (CompareTarget::Version, CompareOperand::Version(number))
            | (CompareTarget::Create, CompareOperand::Create(number))
            | (CompareTarget::Mod, CompareOperand::Mod(number))
            | (CompareTarget::Lease, CompareOperand::Lease(number)) => *number,
            _ => 0,
        }
    }

    /// Whether "stored is `ordering` than given" is what was asked for. An unknown relation always holds.
    fn relation_holds(&self, ordering: core::cmp::Ordering) -> bool {
        match self.result {
            CompareResult::Equal => ordering.is_eq(),
            CompareResult::NotEqual => ordering.is_ne(),
            CompareResult::Greater => ordering.is_gt(),
            CompareResult::Less => ordering.is_lt(),
            CompareResult::Unknown(_) => true,
        }
    }
}
