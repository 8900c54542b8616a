//! What etcd promises a watcher, judged against the history that the log made.
//!
//! Ordered and unique: revisions only go up. Atomic: all of a revision at once. Reliable: no change between the first revision and the newest one told is missing. Resumable:
//! a watcher that starts at a revision gets everything from there on. Bookmarkable: progress at a revision comes after everything up to it. Previous values are those of
//! the revision before, filters drop what they name and nothing else, and nothing comes below the start.

use bytes::Bytes;
use detcd_proto::etcdserverpb as pb;
use detcd_proto::mvccpb::{Event, KeyValue};
use prost::Message as _;

use super::rows::{Change, Rows};
use super::{Promise, Violation};
use crate::record::{Watched, Watches};

const PUT: i32 = 0;
const DELETE: i32 = 1;

/// Checks everything that every watcher saw. What lies below the last of `compactions` may be gone; `fragment_bytes` is where responses are cut, if that is known.
///
/// # Errors
/// The first broken promise.
pub fn check(
    watches: &Watches,
    rows: &Rows,
    compactions: &[i64],
    fragment_bytes: Option<usize>,
) -> Result<(), Violation> {
    let record = watches.record();
    record.all.iter().try_for_each(|watched| Judge::new(watched, rows, compactions).judge())?;
    if let Some(limit) = fragment_bytes {
        record.all.iter().try_for_each(|watched| well_cut(watched, limit))?;
    }
    match record.ended.iter().find(|(_, has_seen)| !*has_seen) {
        Some((client, _)) => {
            let what = format!("watcher {client} was not told of everything although everything was healed");
            Err(Violation::new(Promise::Watch, what))
        }
        None => Ok(()),
    }
}

/// Pieces are as large as may be, and no larger: one with several changes stays below the limit, and the next change would have reached it.
///
/// # Errors
/// The first response that is cut elsewhere.
pub fn well_cut(watched: &Watched, limit: usize) -> Result<(), Violation> {
    let broken = |response: &pb::WatchResponse, what: &str| {
        let what =
            format!("watcher {} of {:?}: {what} of {limit} bytes: {response:?}", watched.client, watched.request);
        Err(Violation::new(Promise::Watch, what))
    };
    let mut piece: Option<&pb::WatchResponse> = None;
    for response in &watched.responses {
        if response.fragment && !watched.request.fragment {
            return broken(response, "is cut although nobody wanted that, at a limit");
        }
        if watched.request.fragment && response.events.len() > 1 && limit <= response.encoded_len() {
            return broken(response, "several changes reach the limit");
        }
        if let (Some(piece), Some(next)) = (piece, response.events.first()) {
            let event = next.encoded_len();
            let more = 1 + prost::length_delimiter_len(event) + event;
            if piece.encoded_len() + more < limit {
                return broken(piece, "is cut below the limit");
            }
        }
        piece = Some(response).filter(|response| response.fragment);
    }
    Ok(())
}

/// One watcher on one stream.
struct Judge<'a> {
    watched: &'a Watched,
    compactions: &'a [i64],
    /// Everything that it has to be told, in order.
    owed: std::iter::Peekable<Box<dyn Iterator<Item = Owed> + 'a>>,
    /// Everything up to here was told.
    told: i64,
}

impl<'a> Judge<'a> {
    fn new(watched: &'a Watched, rows: &'a Rows, compactions: &'a [i64]) -> Self {
        let owed = owed(watched, rows, compactions);
        Self { watched, compactions, owed: owed.peekable(), told: watched.first() - 1 }
    }

    /// What is owed next, up to this revision.
    fn next_upto(&mut self, revision: i64) -> Option<&Owed> {
        while self.owed.next_if(|owed| owed.may_be_gone && modified(&owed.event) <= revision).is_some() {}
        self.owed.peek().filter(|owed| modified(&owed.event) <= revision)
    }

    /// The event that this one must be.
    fn due(&mut self, event: &Event) -> Option<Event> {
        loop {
            let owed = self.owed.next()?;
            if self.is_like(event, &owed.event) || !owed.may_be_gone {
                return Some(owed.event);
            }
        }
    }

    fn judge(mut self) -> Result<(), Violation> {
        let mut is_piece = false;
        let mut responses = self.watched.responses.iter();
        for response in &mut responses {
            if response.canceled && response.compact_revision == 0 {
                // Its client gave it up.
                return self.nothing_more(responses);
            }
            if response.canceled {
                if response.compact_revision <= self.told {
                    return Err(self.broken(response, "was told of a compaction that it does not need"));
                }
                // It goes on from there: what lies between would be lost.
                if self.compactions.binary_search(&response.compact_revision).is_err() {
                    return Err(self.broken(response, "was told of a compaction that never was"));
                }
                // Its client gives it up then, which is confirmed.
                let is_confirmed = |response: &&pb::WatchResponse| response.canceled && response.compact_revision == 0;
                responses.as_slice().first().filter(is_confirmed).and_then(|_| responses.next());
                return self.nothing_more(responses);
            }
            let revision = response.header.as_ref().map_or(0, |header| header.revision);
            if response.events.is_empty() {
                self.progress(response, revision)?;
                continue;
            }
            self.events(response, revision, is_piece)?;
            is_piece = response.fragment;
        }
        Ok(())
    }

    /// Who was told that it ended is told nothing more (etcd issue 22294).
    fn nothing_more(&self, mut responses: std::slice::Iter<'_, pb::WatchResponse>) -> Result<(), Violation> {
        responses.next().map_or(Ok(()), |response| Err(self.broken(response, "is told something after its end")))
    }

    /// Progress: nothing up to it may be owed still, and it is not below the start.
    fn progress(&mut self, response: &pb::WatchResponse, revision: i64) -> Result<(), Violation> {
        if revision < self.watched.request.start_revision {
            return Err(self.broken(response, "is told of progress below its start"));
        }
        if self.next_upto(revision).is_some() {
            return Err(self.broken(response, "is told of progress ahead of changes"));
        }
        self.told = self.told.max(revision);
        Ok(())
    }

    fn events(&mut self, response: &pb::WatchResponse, revision: i64, is_piece: bool) -> Result<(), Violation> {
        let first = response.events.first().map_or(0, modified);
        if first <= self.told && !is_piece {
            return Err(self.broken(response, "is told of a revision again, or in parts"));
        }
        for event in &response.events {
            let Some(owed) = self.due(event) else {
                return Err(self.broken(response, "is told of what never happened"));
            };
            if !self.is_like(event, &owed) {
                return Err(self.broken(response, &format!("is told {event:?} where {owed:?} is due")));
            }
            self.told = modified(event);
        }
        if revision < self.told {
            return Err(self.broken(response, "is told of a revision that is not there yet"));
        }
        if !response.fragment && self.next_upto(self.told).is_some() {
            return Err(self.broken(response, "is told only a part of a revision"));
        }
        Ok(())
    }

    /// Whether an event is the one that is owed. A previous value may be gone with a compaction, and only so.
    fn is_like(&self, event: &Event, owed: &Event) -> bool {
        let is_compacted = self.compactions.last().is_some_and(|compacted| modified(owed) - 1 < *compacted);
        let same_prev = event.prev_kv == owed.prev_kv || event.prev_kv.is_none() && is_compacted;
        event.r#type == owed.r#type && event.kv == owed.kv && same_prev
    }

    fn broken(&self, response: &pb::WatchResponse, what: &str) -> Violation {
        let Watched { client, request, .. } = self.watched;
        let told = self.told;
        Violation::new(
            Promise::Watch,
            format!("watcher {client} of {request:?}, told up to {told}: {what}: {response:?}"),
        )
        .about(response.events.first().map_or(told, modified))
    }
}

fn modified(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// An event, and whether a compaction of its very revision may have taken it away.
struct Owed {
    event: Event,
    may_be_gone: bool,
}

/// Everything from the first revision on that a watcher wants.
fn owed<'a>(watched: &'a Watched, rows: &'a Rows, compactions: &'a [i64]) -> Box<dyn Iterator<Item = Owed> + 'a> {
    let request = &watched.request;
    let changes = rows.changes.range(watched.first()..);
    let changes = changes.flat_map(|(revision, all)| (0..all.len()).map(move |place| (*revision, all, place)));
    Box::new(changes.filter_map(|(revision, all, place)| {
        let (kind, kv) = match &all[place] {
            Change::Put(kv) => (PUT, kv.clone()),
            Change::Delete(key) => {
                (DELETE, KeyValue { key: key.clone(), mod_revision: revision, ..KeyValue::default() })
            }
        };
        // The filters' numbers are those of the kinds.
        if !contains(request, &kv.key) || request.filters.contains(&kind) {
            return None;
        }
        let is_creation = kind == PUT && kv.create_revision == kv.mod_revision;
        let prev_kv = if request.prev_kv && !is_creation { rows.at(&kv.key, revision - 1).cloned() } else { None };
        let may_be_gone = compactions.binary_search(&revision).is_ok() && is_overwritten(all, place);
        Some(Owed { event: Event { r#type: kind, kv: Some(kv), prev_kv }, may_be_gone })
    }))
}

/// Whether the same revision changes the key again, and has not deleted it: such a change does not outlive a compaction there.
fn is_overwritten(all: &[Change], place: usize) -> bool {
    let key = |change: &Change| match change {
        Change::Put(kv) => kv.key.clone(),
        Change::Delete(key) => key.clone(),
    };
    let own = key(&all[place]);
    let is_deleted = all[..=place].iter().any(|change| matches!(change, Change::Delete(gone) if *gone == own));
    !is_deleted && all[place + 1..].iter().any(|change| key(change) == own)
}

fn contains(request: &pb::WatchCreateRequest, key: &Bytes) -> bool {
    match request.range_end.as_ref() {
        [] => request.key == key,
        [0] => request.key <= key,
        end => request.key <= key && key.as_ref() < end,
    }
}
