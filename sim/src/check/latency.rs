//! No cliffs: while nothing fails, every request is answered within a budget of virtual time, whatever else goes on.
//!
//! In virtual time computing costs nothing. What shows is waiting: for a lock that is held over a sync, in a queue that nobody takes from, for a rest that
//! is made for nobody, for a round of messages too many. Compactions, copies, defragmentations, watchers that lag and members that catch up may not add to it.

use std::collections::BTreeMap;
use std::time::Duration;

use detcd_proto::etcdserverpb as pb;

use super::{Promise, Violation};
use crate::leases::{LeaseHistory, LeaseOperation, Saw, Span};
use crate::options::Options;
use crate::record::{Ask, History, Outcome, Watched, Watches};

/// A request's time at the most. In 240 runs of all kinds the slowest took 28 ms: a few syncs of up to a millisecond, a few messages of as much, a batch under way.
const BUDGET: Duration = Duration::from_millis(60);
/// A watcher that is told this soon after others is one that keeps up. In 86 runs of all kinds none of those was ever told more than 17 ms later.
const KEEPS_UP: Duration = Duration::from_millis(5);

/// Checks the operations that were sent from `healed` on.
///
/// # Errors
/// One that took longer.
pub fn check(history: &History, healed: u64) -> Result<(), Violation> {
    for operation in history.operations.iter().filter(|operation| operation.invoked >= healed) {
        let is_answered = matches!(operation.outcome, Outcome::Answered(_) | Outcome::Rejected(..));
        // Who asks for it waits until the last row is swept.
        let is_long = matches!(&operation.ask, Ask::Compact(request) if request.physical);
        if is_answered && !is_long && BUDGET < operation.took {
            let what = format!("operation {} took {:?}, and nothing failed", operation.invoked, operation.took);
            return Err(Violation::new(Promise::Latency, what).by(operation.invoked));
        }
    }
    Ok(())
}

/// Checks that who watches and keeps up goes on keeping up, from `healed` on: whatever else lags, a change is told soon after somebody else heard of its revision.
/// Clients that read slowly fall behind by themselves, and watchers wait for what is told of the past on the stream that they share.
///
/// # Errors
/// A change that came later.
pub fn watchers(options: &Options, watches: &Watches, history: &History, healed: u64) -> Result<(), Violation> {
    let known = first_heard_of(history, healed);
    let record = watches.record();
    // What ended before anything was heard of that counts is over.
    let first = known.values().min().copied().unwrap_or_default();
    let catching_up = |watched: &Watched| catching_up(watched).filter(|(_, to)| first <= *to);
    let busy: Vec<(u64, Span)> =
        record.all.iter().filter_map(|watched| Some((watched.client, catching_up(watched)?))).collect();
    for watched in record.all.iter().filter(|watched| options.watch.pauses_of(watched.client) == 0) {
        let mut keeps_up = false;
        for (response, time) in watched.responses.iter().zip(&watched.times) {
            let first = response.events.first().and_then(|event| event.kv.as_ref());
            let revision = first.map_or(0, |kv| kv.mod_revision);
            let Some(late) = known.get(&revision).map(|known| time.saturating_sub(*known)) else { continue };
            // One that catches up fills the stream that they share.
            if busy.iter().any(|(client, (from, to))| *client == watched.client && *from <= *time && *time <= *to) {
                keeps_up = false;
                continue;
            }
            if keeps_up && BUDGET < late {
                let what = format!("watcher {} was told of revision {revision} {late:?} after others", watched.client);
                return Err(Violation::new(Promise::Latency, what).about(revision).at(*time));
            }
            keeps_up |= late < KEEPS_UP;
        }
    }
    Ok(())
}

/// The time in which a watcher was told of the past, and a little more, if it began there.
fn catching_up(watched: &Watched) -> Option<Span> {
    if watched.request.start_revision == 0 || watched.created < watched.request.start_revision {
        return None;
    }
    let reaches = |response: &pb::WatchResponse| match response.events.last().and_then(|event| event.kv.as_ref()) {
        Some(kv) => watched.created <= kv.mod_revision,
        None => response.header.as_ref().is_some_and(|header| watched.created <= header.revision),
    };
    let mut told = watched.responses.iter().zip(&watched.times);
    let until = told.find(|(response, _)| reaches(response)).map(|(_, time)| *time);
    let until = until.or_else(|| watched.times.last().copied()).unwrap_or(watched.begun);
    Some((watched.begun, until + BUDGET))
}

/// When clients first heard of each revision, if they asked from `healed` on.
fn first_heard_of(history: &History, healed: u64) -> BTreeMap<i64, Duration> {
    let mut known: BTreeMap<i64, Duration> = BTreeMap::new();
    for operation in history.operations.iter().filter(|operation| operation.invoked >= healed) {
        if let Outcome::Answered(answer) = &operation.outcome {
            let revision = answer.header().map_or(0, |header| header.revision);
            let ended = operation.sent + operation.took;
            known.entry(revision).and_modify(|first| *first = ended.min(*first)).or_insert(ended);
        }
    }
    known
}

/// Checks what holders of leases were answered that they asked for from `healed` on, by virtual time.
///
/// # Errors
/// An answer that took longer than any may.
pub fn holders(leases: &LeaseHistory, healed: Duration) -> Result<(), Violation> {
    let asked = leases.operations.iter().filter(|operation| healed <= operation.sent && operation.saw != Saw::Unknown);
    for LeaseOperation { id, did, sent, ended, .. } in asked {
        let took = ended.saturating_sub(*sent);
        if BUDGET < took {
            let what = format!("lease {id:x}: {did:?} took {took:?}, and nothing failed");
            return Err(Violation::new(Promise::Latency, what).at(*sent));
        }
    }
    Ok(())
}
