//! An acknowledged write survives, and a revision has one meaning.
//!
//! Everything that any client was ever shown – what it was told it wrote, what it read, before and after any number of crashes – is in the history that the store
//! ends with: the same value, at the same revision.

use bytes::Bytes;
use detcd_proto::etcdserverpb as pb;
use detcd_proto::mvccpb::KeyValue;
use pb::request_op::Request;
use pb::response_op::Response;

use super::rows::{Change, Rows};
use super::{Promise, Violation};
use crate::record::{Answer, Ask, History, Operation, Outcome};

/// Checks all operations.
///
/// # Errors
/// The first one that was shown what is not there.
pub fn check(history: &History, rows: &Rows) -> Result<(), Violation> {
    history.operations.iter().try_for_each(|operation| check_one(operation, rows))
}

fn check_one(operation: &Operation, rows: &Rows) -> Result<(), Violation> {
    let Outcome::Answered(answer) = &operation.outcome else { return Ok(()) };
    let lost = |what: String| {
        let Operation { client, invoked, ask, .. } = operation;
        let what = format!("client {client}, operation {invoked} ({ask:?}): {what}");
        Violation::new(Promise::Durability, what).by(*invoked).about(revision_of(answer))
    };
    let revision = revision_of(answer);
    if rows.current() < revision {
        return Err(lost(format!("was answered at revision {revision}, the store ends at {}", rows.current())));
    }
    if let Ask::Put(request) = &operation.ask {
        let written = rows.written(&request.key, revision);
        if written.is_none_or(|kv| !request.ignore_value && kv.value != request.value) {
            return Err(lost(format!("revision {revision} does not hold it, but {written:?}")));
        }
    }
    if let (Ask::Delete(_), Answer::Delete(response)) = (&operation.ask, answer)
        && response.deleted > 0
    {
        let gone = rows.changes.get(&revision).map_or(0, |changes| changes.iter().filter(is_delete).count());
        if gone as i64 != response.deleted {
            return Err(lost(format!("revision {revision} deletes {gone} keys, not {}", response.deleted)));
        }
    }
    let mut shown = Vec::new();
    collect(&operation.ask, answer, &mut shown);
    for Shown { kv, with_value } in shown {
        let Some(written) = rows.written(&kv.key, kv.mod_revision) else {
            return Err(lost(format!("was shown {kv:?}, which was never written there")));
        };
        let same = Shown { kv: written, with_value };
        if !same.is_like(kv) {
            return Err(lost(format!("was shown {kv:?}, but {written:?} was written")));
        }
    }
    Ok(())
}

fn is_delete(change: &&Change) -> bool {
    matches!(change, Change::Delete(_))
}

/// The revision that an answer tells.
#[must_use]
pub fn revision_of(answer: &Answer) -> i64 {
    if let Answer::HashKv(response) = answer {
        return response.hash_revision;
    }
    answer.header().map_or(0, |header| header.revision)
}

/// A key and value in an answer.
struct Shown<'a> {
    kv: &'a KeyValue,
    with_value: bool,
}

impl Shown<'_> {
    fn is_like(&self, other: &KeyValue) -> bool {
        let facts = |kv: &KeyValue| (kv.create_revision, kv.mod_revision, kv.version);
        facts(self.kv) == facts(other) && (!self.with_value || self.kv.value == other.value)
    }
}

fn collect<'a>(ask: &Ask, answer: &'a Answer, shown: &mut Vec<Shown<'a>>) {
    match (ask, answer) {
        (_, Answer::Put(response)) => add(response.prev_kv.as_slice(), true, shown),
        (_, Answer::Delete(response)) => add(&response.prev_kvs, true, shown),
        (Ask::Range(request) | Ask::Stream(request), Answer::Range(response)) => {
            add(&response.kvs, !request.keys_only, shown);
        }
        (Ask::Txn(request), Answer::Txn(response)) => collect_txn(request, response, shown),
        _ => {}
    }
}

fn add<'a>(kvs: impl IntoIterator<Item = &'a KeyValue>, with_value: bool, shown: &mut Vec<Shown<'a>>) {
    shown.extend(kvs.into_iter().map(|kv| Shown { kv, with_value }));
}

fn collect_txn<'a>(request: &pb::TxnRequest, response: &'a pb::TxnResponse, shown: &mut Vec<Shown<'a>>) {
    let ops = if response.succeeded { &request.success } else { &request.failure };
    for (op, reply) in ops.iter().zip(&response.responses) {
        match (&op.request, &reply.response) {
            (Some(Request::RequestRange(request)), Some(Response::ResponseRange(response))) => {
                add(&response.kvs, !request.keys_only, shown);
            }
            (_, Some(Response::ResponsePut(response))) => add(response.prev_kv.as_slice(), true, shown),
            (_, Some(Response::ResponseDeleteRange(response))) => add(&response.prev_kvs, true, shown),
            (Some(Request::RequestTxn(request)), Some(Response::ResponseTxn(response))) => {
                collect_txn(request, response, shown);
            }
            _ => {}
        }
    }
}

/// What the values of an operation's writes are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tokens {
    /// All of them are its own.
    Only,
    /// Some repeat the value that is there.
    AndCopies,
}

/// Collects the values that an operation would write, each of them nobody else's.
pub fn tokens(ask: &Ask, found: &mut Vec<Bytes>) -> Tokens {
    match ask {
        Ask::Put(request) => token(request, found),
        Ask::Txn(request) => tokens_of_txn(request, found),
        Ask::Range(_) | Ask::Stream(_) | Ask::Delete(_) | Ask::HashKv(_) | Ask::Compact(_) => Tokens::Only,
    }
}

fn token(request: &pb::PutRequest, found: &mut Vec<Bytes>) -> Tokens {
    if request.ignore_value {
        return Tokens::AndCopies;
    }
    found.push(request.value.clone());
    Tokens::Only
}

fn tokens_of_txn(request: &pb::TxnRequest, found: &mut Vec<Bytes>) -> Tokens {
    let mut all = Tokens::Only;
    for op in request.success.iter().chain(&request.failure) {
        let tokens = match &op.request {
            Some(Request::RequestPut(request)) => token(request, found),
            Some(Request::RequestTxn(request)) => tokens_of_txn(request, found),
            _ => Tokens::Only,
        };
        if tokens == Tokens::AndCopies {
            all = tokens;
        }
    }
    all
}
