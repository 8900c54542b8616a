//! Bringing laggards up: which part of the history to read next, and who gets it.
//!
//! The shell reads a chunk of whole revisions, bounded in rows and bytes; everybody whose cursor lies in it shares it. Turns go round by position, so that
//! a watcher that starts a million revisions ago delays one that starts ten ago by one chunk and not by a million revisions (etcd issue 22264).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use super::live::select;
use super::registry::GroupId;
use super::watcher::{Events, Filter, State};
use super::{Change, Delivery, Taken, WatcherId, Watchers, What, mutated};

/// A part of the history: everything that happened from one revision to another, both included.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Chunk {
    /// The first revision.
    pub from: i64,
    /// The last one, whole.
    pub upto: i64,
    /// The changes, in order.
    pub changes: Vec<Change>,
}

const LAST: WatcherId = WatcherId { stream: super::StreamId(u64::MAX), id: i64::MAX };
const FIRST: WatcherId = WatcherId { stream: super::StreamId(0), id: i64::MIN };

impl Watchers {
    /// Where to read next, if somebody lags and has room. It is at or before the position.
    #[must_use]
    pub fn wanted(&self) -> Option<i64> {
        let further = (Bound::Excluded((self.turn, LAST)), Bound::Unbounded);
        let next = self.laggards.range(further).next().or_else(|| self.laggards.first());
        next.map(|(next, _)| *next)
    }

    /// Everything below `compacted` is gone: ends the laggards that need it. One whose stream is full is told later.
    pub fn on_compacted(&mut self, compacted: i64, deliver: &mut impl FnMut(Delivery) -> Taken) {
        #[cfg(mutants)]
        let mut told = Vec::new();
        while let Some((next, id)) = self.laggards.first().copied().filter(|(next, _)| *next < compacted) {
            self.laggards.remove(&(next, id));
            let compacted = if mutated!(self, CompactionOneTooFar) { compacted + 1 } else { compacted };
            if deliver(Delivery { to: id, what: What::Compacted { compacted } }) == Taken::Full {
                self.stream(id.stream).stalled.insert(id.id);
                continue;
            }
            #[cfg(mutants)]
            if mutated!(self, EndToldAgain) {
                told.push((next, id));
                continue;
            }
            self.slow -= 1;
            self.watcher(id).state = State::Compacted;
        }
        #[cfg(mutants)]
        self.laggards.extend(told);
    }

    /// A chunk was read: everybody whose cursor lies in it gets its part.
    pub fn on_chunk(&mut self, chunk: &Chunk, deliver: &mut impl FnMut(Delivery) -> Taken) {
        assert!(chunk.from <= chunk.upto && chunk.upto <= self.position, "only what followers were offered is read");
        let inside = (chunk.from, FIRST)..=(chunk.upto, LAST);
        let readers: Vec<WatcherId> = self.laggards.range(inside).map(|(_, id)| *id).collect();
        let mut parts = Parts::new(chunk, self.select_for(&readers, &chunk.changes));
        for id in readers {
            let group = self.registry.home(id);
            let (position, forgets_filter) = (self.position, mutated!(self, LaggardUnfiltered));
            let watcher = self.watcher(id);
            let cursor = watcher.next;
            let filter = if forgets_filter { Filter::default() } else { watcher.interest.filter };
            let events = parts.of(group, cursor, filter);
            let mut taken = Taken::Yes;
            if !events.is_empty() {
                watcher.on_events();
                let what = What::Events { revision: position, events, interest: watcher.interest };
                taken = deliver(Delivery { to: id, what });
            }
            self.move_on(id, cursor, chunk.upto + 1, taken);
        }
        self.turn = chunk.upto + 1;
    }

    /// A laggard was offered everything below `next`.
    fn move_on(&mut self, id: WatcherId, cursor: i64, next: i64, taken: Taken) {
        self.laggards.remove(&(cursor, id));
        if taken == Taken::Full && !mutated!(self, OverflowDropsTail) {
            self.stream(id.stream).stalled.insert(id.id);
            return;
        }
        let (position, skips) = (self.position, mutated!(self, GapAtCatchUp));
        let watcher = self.watcher(id);
        watcher.raise(next);
        let next = watcher.next;
        if position < next || skips {
            watcher.state = State::Following;
            self.slow -= 1;
        } else {
            self.laggards.insert((next, id));
        }
    }

    /// What the groups of these watchers want of some changes.
    fn select_for(&self, readers: &[WatcherId], changes: &[Change]) -> BTreeMap<GroupId, Vec<usize>> {
        if readers.is_empty() {
            return BTreeMap::new();
        }
        let mut selected = select(&self.registry, changes);
        let groups: alloc::collections::BTreeSet<GroupId> = readers.iter().map(|id| self.registry.home(*id)).collect();
        selected.retain(|group, _| groups.contains(group));
        selected
    }

    fn watcher(&mut self, id: WatcherId) -> &mut super::Watcher {
        self.registry.get_mut(id).expect("laggards are known")
    }
}

/// What the readers of a chunk get, worked out once for those who get the same.
struct Parts<'a> {
    chunk: &'a Chunk,
    selected: BTreeMap<GroupId, Vec<usize>>,
    made: BTreeMap<(GroupId, Filter, usize), Events>,
}

impl<'a> Parts<'a> {
    const fn new(chunk: &'a Chunk, selected: BTreeMap<GroupId, Vec<usize>>) -> Self {
        Self { chunk, selected, made: BTreeMap::new() }
    }

    /// What a group wants from a cursor on.
    fn of(&mut self, group: GroupId, cursor: i64, filter: Filter) -> Events {
        let changes = &self.chunk.changes;
        let picked = self.selected.get(&group).map_or(&[][..], Vec::as_slice);
        let first = picked.partition_point(|place| changes[*place].kv.modified < cursor);
        let make = || {
            let wanted = picked[first..].iter().map(|place| &changes[*place]);
            Arc::new(wanted.filter(|change| filter.passes(change.kind)).cloned().collect())
        };
        Arc::clone(self.made.entry((group, filter, first)).or_insert_with(make))
    }
}
