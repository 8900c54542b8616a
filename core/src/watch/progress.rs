//! Progress: telling a client how far it has seen everything, although nothing happened.
//!
//! A report at revision R says that every change up to R was sent before it on the same stream. So it may come only from a watcher that follows, and only
//! at or beyond its start (etcd issues 15220 and 20221).

use alloc::vec::Vec;

use super::watcher::State;
use super::{StreamId, WatcherId, Watchers, mutated};

/// Whether the next tick reports.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reporting {
    /// It does.
    Due,
    /// It does not: changes told as much since the last one.
    Told,
}

impl Watchers {
    /// A client asks how far the watchers of its stream are. One answer for all of them; none if there is none, or if one of them is not there yet.
    #[must_use]
    pub fn progress(&self, stream: StreamId) -> Option<i64> {
        let mut watchers = self.registry.of_stream(stream).peekable();
        watchers.peek()?;
        watchers.all(|id| self.is_told_all(id)).then_some(self.position)
    }

    /// The time between two reports is over: the watchers of `stream` to report, at the position.
    #[must_use]
    pub fn tick(&mut self, stream: StreamId) -> Vec<WatcherId> {
        let ids: Vec<i64> =
            self.streams.get(&stream).map(|stream| stream.reporting.iter().copied().collect()).unwrap_or_default();
        let mut reports = Vec::new();
        for id in ids.into_iter().map(|id| WatcherId { stream, id }) {
            let is_told_all = self.is_told_all(id);
            let watcher = self.registry.get_mut(id).expect("a reporting watcher is known");
            let was_due = watcher.reporting.replace(Reporting::Due) == Some(Reporting::Due);
            if was_due && is_told_all {
                reports.push(id);
                if mutated!(self, ReportedOnce) {
                    self.stream(stream).reporting.remove(&id.id);
                }
            }
        }
        reports
    }

    /// Whether a watcher was offered everything up to the position, and that is worth telling.
    fn is_told_all(&self, id: WatcherId) -> bool {
        let watcher = self.registry.get(id).expect("the registry named it");
        let follows = watcher.state == State::Following || mutated!(self, ProgressAhead);
        follows && (watcher.start <= self.position || mutated!(self, ProgressBelowStart))
    }
}
