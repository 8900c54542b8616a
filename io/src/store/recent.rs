//! The newest revisions in memory, for those who watch: one shared log, bounded in bytes, that only apply adds to.
//!
//! It is kept only while somebody watches. Who is too slow finds the beginning gone and goes on in [`super::history`]; nobody ever waits for a reader.
//! It stands behind the store's lock, so its end and the store's revision are one fact.

use std::collections::VecDeque;
use std::sync::Arc;

use detcd_core::apply::{Event, EventKind, Write};
use detcd_core::mvcc::KeyValue;
use detcd_core::watch::{Before, Change, Happened};

use super::Store;
use super::backend::Backend;

/// The newest revisions.
#[derive(Debug, Default)]
pub(super) struct Recent {
    kept: VecDeque<Arc<Happened>>,
    bytes: usize,
    /// The most bytes to keep; `None` while nobody watches.
    bytes_max: Option<usize>,
}

/// What happened after a revision.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum News {
    /// This, without a gap; empty if nothing did.
    Next(Vec<Arc<Happened>>),
    /// More than is kept: the history up to this revision has to be read.
    Lost {
        /// The store's revision.
        current: i64,
    },
}

impl Recent {
    /// Adds what one entry did to keys, if anything.
    pub(super) fn absorb(&mut self, writes: &[Write], events: &[Event]) {
        let (Some(bytes_max), Some(first)) = (self.bytes_max, events.first()) else { return };
        let rows = writes.iter().filter(|write| matches!(write, Write::Row { .. } | Write::Tombstone { .. }));
        let changes: Vec<Change> = rows.zip(events).map(|(write, event)| change(write, event)).collect();
        assert_eq!(changes.len(), events.len(), "each event has its row");
        let happened = Happened { revision: first.revision.main, changes };
        self.bytes += happened.cost_bytes();
        self.kept.push_back(Arc::new(happened));
        // A single revision larger than all room is not kept at all: it is read from the store.
        while bytes_max < self.bytes {
            let oldest = self.kept.pop_front().expect("bytes are of what is kept");
            self.bytes -= oldest.cost_bytes();
        }
    }

    fn after(&self, position: i64, most: usize, current: i64) -> News {
        if position == current {
            return News::Next(Vec::new());
        }
        match self.kept.front() {
            Some(oldest) if oldest.revision <= position + 1 => {
                let first = usize::try_from(position + 1 - oldest.revision).unwrap_or(usize::MAX);
                News::Next(self.kept.iter().skip(first).take(most).cloned().collect())
            }
            _ => News::Lost { current },
        }
    }
}

fn change(write: &Write, event: &Event) -> Change {
    let before = event.prev.map_or(Before::Nothing, Before::At);
    match write {
        Write::Row { revision, kv } => {
            assert!(*revision == event.revision && event.kind == EventKind::Put, "events come in the order of rows");
            Change { kind: EventKind::Put, kv: kv.clone(), before }
        }
        Write::Tombstone { revision, key } => {
            assert!(*revision == event.revision && event.kind == EventKind::Delete, "events come in the order of rows");
            let kv = KeyValue { key: key.clone(), modified: revision.main, ..KeyValue::default() };
            Change { kind: EventKind::Delete, kv, before }
        }
        other => unreachable!("{other:?} is no row"),
    }
}

impl<B: Backend> Store<B> {
    /// Bytes that the log of recent revisions holds.
    #[must_use]
    pub fn recent_bytes(&self) -> usize {
        self.read().recent.bytes
    }

    /// Somebody watches from now on: up to `bytes_max` of what happens is kept. Returns the revision after which it begins.
    #[must_use]
    pub fn keep_news(&self, bytes_max: usize) -> i64 {
        #[cfg(mutants)]
        let bytes_max = match self.shared.mutant.get() {
            Some(crate::mutants::Mutant::RecentTooLarge) => 2 * bytes_max,
            _ => bytes_max,
        };
        let mut state = self.write();
        state.recent = Recent { bytes_max: Some(bytes_max), ..Recent::default() };
        state.current
    }

    /// Nobody watches any more.
    pub fn forget_news(&self) {
        self.write().recent = Recent::default();
    }

    /// What happened after the revision `position`, at most so many revisions of it.
    #[must_use]
    pub fn news(&self, position: i64, most: usize) -> News {
        let state = self.read();
        state.recent.after(position, most, state.current)
    }

    /// Waits until there may be news. Calls between two waits count once.
    pub async fn wait_for_news(&self) {
        self.shared.news.notified().await;
    }

    /// There is news, or something else that whoever waits for news should look at.
    pub fn tell_news(&self) {
        self.shared.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use detcd_core::ids::Revision;

    fn put(recent: &mut Recent, main: i64, bytes: usize) {
        let revision = Revision::new(main, 0);
        let kv = KeyValue { modified: main, value: Bytes::from(vec![b'v'; bytes]), ..KeyValue::default() };
        let event = Event { kind: EventKind::Put, revision, prev: None };
        recent.absorb(&[Write::Row { revision, kv }], &[event]);
    }

    fn revisions(news: News) -> Option<Vec<i64>> {
        match news {
            News::Next(next) => Some(next.iter().map(|happened| happened.revision).collect()),
            News::Lost { .. } => None,
        }
    }

    #[test]
    fn the_oldest_go_when_room_is_short() {
        let mut recent = Recent { bytes_max: Some(1_000), ..Recent::default() };
        assert_eq!(revisions(recent.after(5, 9, 5)), Some(Vec::new()));
        for main in 6..=8 {
            put(&mut recent, main, 300);
        }
        assert_eq!(revisions(recent.after(5, 9, 8)), None, "three of them and their frames are too many");
        assert_eq!(revisions(recent.after(6, 9, 8)), Some(vec![7, 8]));
        assert_eq!(revisions(recent.after(6, 1, 8)), Some(vec![7]));
        assert_eq!(revisions(recent.after(8, 9, 8)), Some(Vec::new()));
        put(&mut recent, 9, 5_000);
        assert_eq!(revisions(recent.after(8, 9, 9)), None, "one that is too large is not kept");
        assert_eq!(recent.bytes, 0);
        put(&mut recent, 10, 1);
        assert_eq!(revisions(recent.after(8, 9, 10)), None, "a gap is not passed over");
        assert_eq!(revisions(recent.after(9, 9, 10)), Some(vec![10]));
    }

    #[test]
    fn nothing_is_kept_while_nobody_watches() {
        let mut recent = Recent::default();
        put(&mut recent, 2, 1);
        assert_eq!(revisions(recent.after(1, 9, 2)), None);
        assert!(recent.kept.is_empty());
    }
}
