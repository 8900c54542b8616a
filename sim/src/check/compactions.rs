//! What a compaction does to those who ask for the past.
//!
//! From its answer on, nobody is told anything from before it; until it was asked for, nobody is refused for it. And a hash of the keys counts what etcd's rules
//! leave of the rows, whichever of them are still there.

use std::collections::BTreeMap;
use std::time::Duration;

use detcd_proto::etcdserverpb as pb;
use pb::request_op::Request;
use pb::response_op::Response;

use super::durability::revision_of;
use super::rows::{Kept, Rows};
use crate::record::{Answer, Ask, History, Operation, Outcome};

/// What a compacted revision is answered with.
pub const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// Every compaction that may have happened.
#[derive(Debug, Default)]
pub struct Compactions {
    /// When a client asked for it, when it was answered if it was, and its revision.
    asked: Vec<(u64, Option<u64>, i64)>,
    /// Those by age, if members compact by it.
    schedule: Option<Schedule>,
}

/// Compactions by age: nothing goes that is younger, and what is much older does not stay.
#[derive(Debug)]
struct Schedule {
    retention: Duration,
    /// The revisions of all compactions in the log.
    logged: Vec<i64>,
    /// From which moment on a revision can have been there: of some revisions, that of the latest put up to it.
    since: BTreeMap<i64, Duration>,
}

impl Compactions {
    /// Those of a history.
    #[must_use]
    pub fn of(history: &History) -> Self {
        let mut asked = Vec::new();
        for operation in &history.operations {
            let Ask::Compact(request) = &operation.ask else { continue };
            match operation.outcome {
                Outcome::Answered(_) => asked.push((operation.invoked, Some(operation.completed), request.revision)),
                Outcome::Uncertain(_) => asked.push((operation.invoked, None, request.revision)),
                Outcome::Rejected(..) | Outcome::Refused(_) => {}
            }
        }
        Self { asked, schedule: None }
    }

    /// The same where members compact by age, besides; `logged` are the revisions of all compactions that there were.
    #[must_use]
    pub fn and_by_age(self, retention: Duration, logged: &[i64], history: &History) -> Self {
        if retention.is_zero() {
            return self;
        }
        let puts = history.operations.iter().filter_map(|operation| match &operation.outcome {
            Outcome::Answered(answer @ Answer::Put(_)) => Some((revision_of(answer), operation.sent)),
            _ => None,
        });
        let mut since: BTreeMap<i64, Duration> = puts.collect();
        let mut latest = Duration::ZERO;
        for sent in since.values_mut() {
            latest = latest.max(*sent);
            *sent = latest;
        }
        Self { schedule: Some(Schedule { retention, logged: logged.to_vec(), since }), ..self }
    }

    /// By age, what is old goes: at the end of a run whose calm is several times as long, what was there when it began.
    ///
    /// # Errors
    /// It is still there.
    pub fn check_end(&self, history: &History, healed: u64, calm: Duration) -> Result<(), String> {
        let Some(Schedule { retention, logged, .. }) = &self.schedule else { return Ok(()) };
        if calm < *retention * 4 {
            return Ok(());
        }
        let before = history.operations.iter().filter(|operation| operation.completed < healed);
        let old = before.filter_map(|operation| match &operation.outcome {
            Outcome::Answered(answer) => Some(revision_of(answer)),
            _ => None,
        });
        let (old, compacted) = (old.max().unwrap_or(0), logged.iter().max().copied().unwrap_or(-1));
        if old <= compacted {
            return Ok(());
        }
        Err(format!("revision {old} is older than {calm:?}, and only {compacted} is compacted, after {retention:?}"))
    }

    /// Holds one operation against them.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, operation: &Operation, rows: &Rows) -> Result<(), String> {
        match &operation.outcome {
            Outcome::Answered(answer) => self.check_answer(operation, answer, rows),
            Outcome::Rejected(_, text) if text == COMPACTED => {
                let (mut asked, mut is_compaction) = (Vec::new(), false);
                match &operation.ask {
                    // The newest state is never too old; but a stream of it may be overtaken.
                    Ask::Range(request) if request.revision <= 0 => {}
                    Ask::Range(request) | Ask::Stream(request) => asked.push(request.revision),
                    Ask::Txn(request) => requested(request, &mut asked),
                    Ask::HashKv(request) if request.revision == 0 => {}
                    Ask::HashKv(request) => asked.push(request.revision),
                    Ask::Compact(request) => {
                        // One at the very revision refuses it, too; so does the very first state.
                        asked.push(request.revision - 1);
                        is_compaction = request.revision < 0;
                    }
                    Ask::Put(_) | Ask::Delete(_) => {}
                }
                let may_be = asked.iter().any(|revision| self.may_be_past(*revision, operation));
                if may_be || is_compaction {
                    Ok(())
                } else {
                    Err("rejected as compacted, which nobody asked for".to_owned())
                }
            }
            Outcome::Rejected(..) | Outcome::Refused(_) | Outcome::Uncertain(_) => Ok(()),
        }
    }

    fn check_answer(&self, operation: &Operation, answer: &Answer, rows: &Rows) -> Result<(), String> {
        let mut read = Vec::new();
        match (&operation.ask, answer) {
            (Ask::Range(request) | Ask::Stream(request), _) if !request.serializable => read.push(request.revision),
            (Ask::Txn(request), Answer::Txn(response)) => executed(request, response, &mut read),
            (Ask::HashKv(_), Answer::HashKv(response)) => return self.check_hash(response, rows),
            _ => {}
        }
        match read.iter().find(|revision| 0 < **revision && self.is_past(**revision, operation.invoked)) {
            Some(revision) => Err(format!("was told of revision {revision}, which was compacted before")),
            None => Ok(()),
        }
    }

    fn check_hash(&self, response: &pb::HashKvResponse, rows: &Rows) -> Result<(), String> {
        let pb::HashKvResponse { hash, compact_revision, hash_revision, .. } = *response;
        let is_known = compact_revision == -1 || self.revisions().any(|revision| revision == compact_revision);
        // One that a compaction took on its way counts what that compaction keeps.
        let expected = |kept| rows.hash(hash_revision, compact_revision, kept);
        if is_known && [Kept::Live, Kept::LiveAndDeleted].into_iter().any(|kept| expected(kept) == hash) {
            return Ok(());
        }
        Err(format!("{response:?}, but the rows' hash is {}", expected(Kept::Live)))
    }

    /// Whether a compaction beyond `revision` was answered before `time`.
    fn is_past(&self, revision: i64, time: u64) -> bool {
        self.asked.iter().any(|(_, done, at)| revision < *at && done.is_some_and(|done| done < time))
    }

    /// Whether a compaction beyond `revision` was asked for, or can have been due, before the operation ended.
    fn may_be_past(&self, revision: i64, operation: &Operation) -> bool {
        let ended = operation.sent + operation.took;
        self.asked.iter().any(|(invoked, _, at)| revision < *at && *invoked < operation.completed)
            || self.schedule.as_ref().is_some_and(|schedule| schedule.may_be_past(revision, ended))
    }

    /// The revisions of all of them.
    fn revisions(&self) -> impl Iterator<Item = i64> {
        let logged = self.schedule.iter().flat_map(|schedule| &schedule.logged);
        self.asked.iter().map(|(_, _, revision)| revision).chain(logged).copied()
    }
}

impl Schedule {
    /// Whether one beyond `revision` can have been due at `time`.
    fn may_be_past(&self, revision: i64, time: Duration) -> bool {
        self.logged.iter().any(|at| {
            let since = self.since.range(..=at).next_back().map_or(Duration::ZERO, |(_, since)| *since);
            revision < *at && since + self.retention <= time
        })
    }
}

/// The revisions that a transaction asks for on any of its ways.
fn requested(request: &pb::TxnRequest, found: &mut Vec<i64>) {
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(request)) if request.revision != 0 => found.push(request.revision),
            Some(Request::RequestTxn(request)) => requested(request, found),
            _ => {}
        }
    }
}

/// The revisions that it read.
fn executed(request: &pb::TxnRequest, response: &pb::TxnResponse, found: &mut Vec<i64>) {
    let ops = if response.succeeded { &request.success } else { &request.failure };
    for (op, reply) in ops.iter().zip(&response.responses) {
        match (&op.request, &reply.response) {
            (Some(Request::RequestRange(request)), Some(_)) if !request.serializable => found.push(request.revision),
            (Some(Request::RequestTxn(request)), Some(Response::ResponseTxn(response))) => {
                executed(request, response, found);
            }
            _ => {}
        }
    }
}
