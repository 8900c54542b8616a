//! Strict serializability: there is one order of all operations, the revisions tell it, and real time agrees with it.
//!
//! The store ends with the whole history, so the order need not be searched for: an answered write stands at the revision that it was told, a read behind it.
//! Then every answer must be, field by field, what the slow model says at that place; every revision must be exactly one operation's; and an
//! operation that began after another had ended stands behind it. Operations of unknown fate may have happened, once, at any later time.

use std::collections::BTreeMap;

use bytes::Bytes;
use detcd_proto::etcdserverpb as pb;
use pb::request_op::Request;
use pb::response_op::Response;

use super::compactions::{COMPACTED, Compactions};
use super::durability::{Tokens, revision_of, tokens};
use super::lawful;
use super::model::{FUTURE, Model, Rejection};
use super::rows::{Change, Rows};
use super::{Promise, Violation};
use crate::record::{Answer, Ask, History, Operation, Outcome};

/// Checks a history against the rows that the store ended with, and the compactions that there were.
///
/// # Errors
/// The first operation or revision that has no place in the order.
pub fn check(history: &History, rows: &Rows, compactions: &Compactions, members: usize) -> Result<(), Violation> {
    let floors = floors(history);
    // Who does not ask the leader may be told of the past, where there is one that others have left behind.
    let may_lag = |ask: &Ask| members > 1 && (is_serializable(ask) || matches!(ask, Ask::HashKv(_)));
    let mut owners: BTreeMap<i64, &Operation> = BTreeMap::new();
    for (operation, floor) in history.operations.iter().zip(&floors) {
        compactions.check(operation, rows).map_err(|what| wrong(operation, what))?;
        match &operation.outcome {
            Outcome::Answered(answer) => {
                let floor = if may_lag(&operation.ask) { 0 } else { *floor };
                check_answer(operation, answer, floor, rows, &mut owners)?;
            }
            Outcome::Rejected(_, text) if text == COMPACTED => {}
            // Which leases there are is for another oracle to say.
            Outcome::Rejected(_, text)
                if text == LEASE_NOT_FOUND && names_lease(&operation.ask) && lawful::check(&operation.ask).is_ok() => {}
            Outcome::Rejected(_, text) => {
                let floor = if may_lag(&operation.ask) { 0 } else { *floor };
                check_rejection(operation, text, floor, rows)?;
            }
            Outcome::Refused(_) | Outcome::Uncertain(_) => {}
        }
    }
    check_terms(history, members)?;
    check_members(history)?;
    explain_the_rest(history, &floors, rows, &owners)
}

const LEASE_NOT_FOUND: Rejection = "etcdserver: requested lease not found";

fn names_lease(ask: &Ask) -> bool {
    matches!(ask, Ask::Put(request) if request.lease != 0)
}

/// Whether a revision is the end of a lease: all of its keys go, in their order, and nothing else happens.
fn is_lease_end(rows: &Rows, revision: i64, changes: &[Change]) -> bool {
    let Some(Change::Delete(first)) = changes.first() else { return false };
    let Some(lease) = rows.at(first, revision - 1).map(|kv| kv.lease).filter(|lease| *lease != 0) else { return false };
    let before = rows.state(revision - 1);
    let keys = before.values().filter(|kv| kv.lease == lease).map(|kv| Change::Delete(kv.key.clone()));
    keys.eq(changes.iter().cloned())
}

fn wrong(operation: &Operation, what: String) -> Violation {
    let Operation { client, invoked, ask, .. } = operation;
    let violation =
        Violation::new(Promise::Linear, format!("client {client}, operation {invoked} ({ask:?}): {what}")).by(*invoked);
    match &operation.outcome {
        Outcome::Answered(answer) => violation.about(revision_of(answer)),
        _ => violation,
    }
}

/// For each operation, the newest revision of any that had ended when it began.
fn floors(history: &History) -> Vec<i64> {
    enum Event {
        Begin(usize),
        End(i64),
    }
    let mut events: BTreeMap<u64, Event> = BTreeMap::new();
    for (place, operation) in history.operations.iter().enumerate() {
        events.insert(operation.invoked, Event::Begin(place));
        if let Outcome::Answered(answer) = &operation.outcome {
            events.insert(operation.completed, Event::End(revision_of(answer)));
        }
    }
    let mut floors = vec![0; history.operations.len()];
    let mut floor = 0;
    for event in events.into_values() {
        match event {
            Event::Begin(place) => floors[place] = floor,
            Event::End(revision) => floor = floor.max(revision),
        }
    }
    floors
}

fn check_answer<'a>(
    operation: &'a Operation,
    answer: &Answer,
    floor: i64,
    rows: &Rows,
    owners: &mut BTreeMap<i64, &'a Operation>,
) -> Result<(), Violation> {
    let revision = revision_of(answer);
    if let Answer::HashKv(_) = answer {
        return Ok(());
    }
    if revision < floor {
        return Err(
            wrong(operation, format!("stands at {revision}, although {floor} was told before it began")).about(floor)
        );
    }
    if let Answer::Compact(_) = answer {
        return Ok(());
    }
    // A write stands at its own revision, and what it saw is the state before; whatever changes nothing saw the state itself.
    let written = rows.changes.get(&revision).map_or(&[][..], Vec::as_slice);
    if may_write(&operation.ask) {
        let mut model = Model::at(rows, revision - 1);
        let modelled = apply(&mut model, &operation.ask);
        if !model.changes.is_empty() && modelled.as_ref().is_ok_and(|modelled| same(&operation.ask, modelled, answer)) {
            if model.changes != written {
                let what = format!("should have written {:?} at {revision}, not {written:?}", model.changes);
                return Err(wrong(operation, what));
            }
            if revision <= floor {
                return Err(wrong(operation, format!("wrote {revision}, which was told before it began")));
            }
            if let Some(other) = owners.insert(revision, operation) {
                let what = format!("wrote {revision}, and so did operation {}", other.invoked);
                return Err(wrong(operation, what).by(other.invoked));
            }
            return Ok(());
        }
    }
    let mut model = Model::at(rows, revision);
    let modelled = apply(&mut model, &operation.ask);
    if !model.changes.is_empty() {
        return Err(wrong(
            operation,
            format!("answered {answer:?}, which it cannot have been as a write at {revision}"),
        ));
    }
    match modelled {
        Ok(modelled) if same(&operation.ask, &modelled, answer) => Ok(()),
        modelled => Err(wrong(operation, format!("answered {answer:?}, but the rules say {modelled:?}"))),
    }
}

/// A rejection is right if the rules reject the request at some place where it can have stood.
fn check_rejection(operation: &Operation, text: &str, floor: i64, rows: &Rows) -> Result<(), Violation> {
    match &operation.ask {
        Ask::HashKv(pb::HashKvRequest { revision }) | Ask::Compact(pb::CompactionRequest { revision, .. }) => {
            let is_right = *revision > floor && text == FUTURE;
            return if is_right {
                Ok(())
            } else {
                Err(wrong(operation, format!("rejected with {text:?} from {floor} on")))
            };
        }
        _ => {}
    }
    let is_right = (floor.max(1)..=rows.current()).any(|revision| {
        let modelled = apply(&mut Model::at(rows, revision), &operation.ask);
        modelled.is_err_and(|rejection| rejection == text)
    });
    if is_right { Ok(()) } else { Err(wrong(operation, format!("rejected with {text:?} from {floor} on"))) }
}

/// Runs a request on the model.
fn apply(model: &mut Model<'_>, ask: &Ask) -> Result<Answer, Rejection> {
    lawful::check(ask)?;
    Ok(match ask {
        Ask::Put(request) => Answer::Put(model.put(request)?),
        Ask::Range(request) | Ask::Stream(request) => Answer::Range(model.range(request)?),
        Ask::Delete(request) => Answer::Delete(model.delete(request)),
        Ask::Txn(request) => Answer::Txn(model.txn(request)?),
        Ask::HashKv(_) | Ask::Compact(_) => unreachable!("these have rules of their own"),
    })
}

fn may_write(ask: &Ask) -> bool {
    match ask {
        Ask::Put(_) | Ask::Delete(_) => true,
        Ask::Range(_) | Ask::Stream(_) | Ask::HashKv(_) | Ask::Compact(_) => false,
        Ask::Txn(request) => !is_read_only(request),
    }
}

fn is_read_only(request: &pb::TxnRequest) -> bool {
    ranges(request).is_some()
}

/// The ranges of a transaction that has nothing else.
fn ranges(request: &pb::TxnRequest) -> Option<Vec<&pb::RangeRequest>> {
    let ops = request.success.iter().chain(&request.failure);
    ops.map(|op| match &op.request {
        Some(Request::RequestRange(range)) => Some(range),
        _ => None,
    })
    .collect()
}

fn is_serializable(ask: &Ask) -> bool {
    match ask {
        Ask::Range(request) | Ask::Stream(request) => request.serializable,
        Ask::Txn(request) => ranges(request).is_some_and(|ranges| ranges.iter().all(|range| range.serializable)),
        Ask::Put(_) | Ask::Delete(_) | Ask::HashKv(_) | Ask::Compact(_) => false,
    }
}

/// Whether two answers are the same, ids and terms apart, and the order of equal elements.
fn same(ask: &Ask, modelled: &Answer, answer: &Answer) -> bool {
    let mut answer = answer.clone();
    if let Some(header) = answer.header_mut() {
        (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
    }
    match (ask, modelled, &answer) {
        (Ask::Range(request) | Ask::Stream(request), Answer::Range(modelled), Answer::Range(answer)) => {
            same_range(request, modelled, answer)
        }
        (Ask::Txn(request), Answer::Txn(modelled), Answer::Txn(answer)) => same_txn(request, modelled, answer),
        (_, modelled, answer) => modelled == answer,
    }
}

fn same_txn(request: &pb::TxnRequest, modelled: &pb::TxnResponse, answer: &pb::TxnResponse) -> bool {
    let ops = if modelled.succeeded { &request.success } else { &request.failure };
    let is_whole = modelled.succeeded == answer.succeeded
        && modelled.header == answer.header
        && modelled.responses.len() == answer.responses.len();
    is_whole
        && ops.iter().zip(&modelled.responses).zip(&answer.responses).all(|((op, modelled), answer)| {
            match (&op.request, &modelled.response, &answer.response) {
                (
                    Some(Request::RequestRange(request)),
                    Some(Response::ResponseRange(modelled)),
                    Some(Response::ResponseRange(answer)),
                ) => same_range(request, modelled, answer),
                (
                    Some(Request::RequestTxn(request)),
                    Some(Response::ResponseTxn(modelled)),
                    Some(Response::ResponseTxn(answer)),
                ) => same_txn(request, modelled, answer),
                (_, modelled, answer) => modelled == answer,
            }
        })
}

fn same_range(request: &pb::RangeRequest, modelled: &pb::RangeResponse, answer: &pb::RangeResponse) -> bool {
    if modelled == answer || request.sort_target == 0 {
        return modelled == answer;
    }
    // Equal elements may come in any order, so only their order by the target counts; of values that were left out it does not show.
    let is_hidden = request.sort_target == 4 && request.keys_only;
    let rank = |kv: &detcd_proto::mvccpb::KeyValue| match request.sort_target {
        1 => (kv.version, Bytes::new()),
        2 => (kv.create_revision, Bytes::new()),
        3 => (kv.mod_revision, Bytes::new()),
        _ => (0, kv.value.clone()),
    };
    let is_sorted = answer.kvs.is_sorted_by(|left, right| match request.sort_order {
        2 => rank(left) >= rank(right),
        _ => rank(left) <= rank(right),
    });
    let by_key = |response: &pb::RangeResponse| {
        let mut response = response.clone();
        response.kvs.sort_by(|left, right| left.key.cmp(&right.key));
        response
    };
    (is_sorted || is_hidden) && by_key(modelled) == by_key(answer)
}

/// The ends of answers, in their order, and the newest of what was told by then.
#[derive(Default)]
struct Told<T>(Vec<(u64, T)>);

impl<T: Copy + Ord> Told<T> {
    /// The newest that was told before `invoked`.
    fn before(&self, invoked: u64) -> Option<T> {
        let before = self.0.partition_point(|(end, _)| *end < invoked);
        before.checked_sub(1).map(|last| self.0[last].1)
    }

    /// This was told at the end of an operation, which is the last so far.
    fn add(&mut self, completed: u64, told: T) {
        let newest = self.0.last().map_or(told, |(_, newest)| told.max(*newest));
        self.0.push((completed, newest));
    }
}

/// There is one cluster of so many members, and no member's terms fall.
fn check_terms(history: &History, members: usize) -> Result<(), Violation> {
    let mut cluster = None;
    let mut terms_of: BTreeMap<u64, Told<u64>> = BTreeMap::new();
    for operation in &history.operations {
        let Outcome::Answered(answer) = &operation.outcome else { continue };
        let Some(header) = answer.header() else { return Err(wrong(operation, "has no header".to_owned())) };
        let own = header.cluster_id;
        let terms = terms_of.entry(header.member_id).or_default();
        if *cluster.get_or_insert(own) != own {
            return Err(wrong(operation, format!("comes from cluster {own:x}, not from {cluster:x?}")));
        }
        if terms.before(operation.invoked).is_some_and(|newest| header.raft_term < newest) {
            return Err(wrong(operation, format!("tells term {}, older than one told before", header.raft_term)));
        }
        terms.add(operation.completed, header.raft_term);
        if members < terms_of.len() {
            return Err(wrong(operation, format!("comes from member {:x}, one more than there are", header.member_id)));
        }
    }
    Ok(())
}

/// In one life no member goes back: what it has told once, it tells whoever asks it later, even those who take the past for an answer.
fn check_members(history: &History) -> Result<(), Violation> {
    let mut told_by: BTreeMap<(usize, u64), Told<i64>> = BTreeMap::new();
    for operation in &history.operations {
        let Outcome::Answered(answer) = &operation.outcome else { continue };
        let &Operation { place, invoked, completed, .. } = operation;
        let life = history.life_at(place, completed);
        if life != history.life_at(place, invoked) {
            continue;
        }
        let revision = answer.header().map_or(0, |header| header.revision);
        let told = told_by.entry((place, life)).or_default();
        if let Some(newest) = told.before(invoked).filter(|newest| revision < *newest) {
            let what = format!("is told revision {revision} by a member that has told {newest} before");
            return Err(wrong(operation, what));
        }
        told.add(completed, revision);
    }
    Ok(())
}

/// Revisions that no answered operation owns must be those of operations of unknown fate, one each.
fn explain_the_rest(
    history: &History,
    floors: &[i64],
    rows: &Rows,
    owners: &BTreeMap<i64, &Operation>,
) -> Result<(), Violation> {
    let uncertain: Vec<(&Operation, i64)> = history
        .operations
        .iter()
        .zip(floors.iter().copied())
        .filter(|(operation, _)| matches!(operation.outcome, Outcome::Uncertain(_)) && may_write(&operation.ask))
        .collect();
    let mut by_token: BTreeMap<Bytes, usize> = BTreeMap::new();
    // A put that keeps a value repeats somebody else's.
    let mut copies: Vec<usize> = Vec::new();
    for (place, (operation, _)) in uncertain.iter().enumerate() {
        let mut found = Vec::new();
        if tokens(&operation.ask, &mut found) == Tokens::AndCopies {
            copies.push(place);
        }
        by_token.extend(found.into_iter().map(|token| (token, place)));
    }
    let mut unexplained: Vec<(i64, Vec<usize>)> = Vec::new();
    for (revision, changes) in rows.changes.iter().filter(|(revision, _)| !owners.contains_key(revision)) {
        let mut values = changes.iter().filter_map(|change| match change {
            Change::Put(kv) => Some(&kv.value),
            Change::Delete(_) => None,
        });
        let candidates: Vec<usize> = match values.next() {
            Some(value) => by_token.get(value).into_iter().chain(&copies).copied().collect(),
            None => (0..uncertain.len()).collect(),
        };
        if is_lease_end(rows, *revision, changes) {
            continue;
        }
        let fits = |place: &usize| {
            let (operation, floor) = uncertain[*place];
            let mut model = Model::at(rows, revision - 1);
            floor < *revision && apply(&mut model, &operation.ask).is_ok() && model.changes == *changes
        };
        unexplained.push((*revision, candidates.into_iter().filter(fits).collect()));
    }
    assign(&unexplained).map_err(|revision| {
        let changes = &rows.changes[&revision];
        Violation::new(Promise::Linear, format!("nobody asked for revision {revision}: {changes:?}")).about(revision)
    })
}

/// Gives every revision an operation of its own, by augmenting paths.
fn assign(unexplained: &[(i64, Vec<usize>)]) -> Result<(), i64> {
    let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
    for (place, (revision, _)) in unexplained.iter().enumerate() {
        if !augment(place, unexplained, &mut taken, &mut Vec::new()) {
            return Err(*revision);
        }
    }
    Ok(())
}

fn augment(
    place: usize,
    unexplained: &[(i64, Vec<usize>)],
    taken: &mut BTreeMap<usize, usize>,
    seen: &mut Vec<usize>,
) -> bool {
    for operation in &unexplained[place].1 {
        if seen.contains(operation) {
            continue;
        }
        seen.push(*operation);
        let holder = taken.get(operation).copied();
        if holder.is_none_or(|holder| augment(holder, unexplained, taken, seen)) {
            taken.insert(*operation, place);
            return true;
        }
    }
    false
}
