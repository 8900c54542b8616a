//! What just happened, for the watchers that follow.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::registry::{GroupId, Registry};
use super::watcher::{Events, Filter, State};
use super::{Change, Delivery, Happened, StreamId, Taken, Watchers, What, mutated};

impl Watchers {
    /// The next revision: it is offered to every follower that wants it. Whoever's stream is full lags from here on.
    pub fn on_revision(&mut self, happened: &Happened, deliver: &mut impl FnMut(Delivery) -> Taken) {
        let revision = happened.revision;
        assert!(self.position < revision, "revisions come in order");
        let mut stalled = Vec::new();
        for (group, picked) in select(&self.registry, &happened.changes) {
            let mut cuts = Cuts::new(&happened.changes, picked);
            for (id, watcher) in self.registry.members_mut(group) {
                if mutated!(self, FutureStartIgnored) {
                    watcher.next = watcher.next.min(revision);
                }
                if watcher.state != State::Following || revision < watcher.next {
                    continue;
                }
                let mut events = cuts.of(watcher.interest.filter);
                if events.is_empty() {
                    continue;
                }
                if mutated!(self, RevisionTorn) {
                    events = Arc::new(events.iter().take(1).cloned().collect());
                }
                watcher.on_events();
                let what = What::Events { revision, events, interest: watcher.interest };
                if deliver(Delivery { to: id, what }) == Taken::Full && !mutated!(self, OverflowDropsTail) {
                    watcher.state = State::Lagging;
                    stalled.push(id);
                    if !mutated!(self, LiveKeepsCursor) {
                        watcher.raise(revision);
                    }
                }
            }
        }
        self.position = revision;
        self.slow += stalled.len();
        for id in stalled {
            self.stream(id.stream).stalled.insert(id.id);
        }
    }

    /// What happened up to `upto` can no longer be told live: every follower lags.
    pub fn fell_behind(&mut self, upto: i64) {
        assert!(self.position <= upto, "the position never goes down");
        let keeps_cursor = mutated!(self, LiveKeepsCursor);
        for (id, watcher) in self.registry.all_mut() {
            if watcher.state != State::Following {
                continue;
            }
            if !keeps_cursor {
                watcher.raise(self.position + 1);
            }
            if watcher.next <= upto {
                watcher.state = State::Lagging;
                self.laggards.insert((watcher.next, id));
                self.slow += 1;
            }
        }
        self.position = upto;
    }

    /// A stream that was full has room again.
    pub fn drained(&mut self, stream: StreamId) {
        let Some(waiting) = self.streams.get_mut(&stream) else { return };
        for id in core::mem::take(&mut waiting.stalled) {
            let id = super::WatcherId { stream, id };
            let watcher = self.registry.get(id).expect("a stalled watcher is known");
            assert!(watcher.state == State::Lagging, "only laggards stall");
            self.laggards.insert((watcher.next, id));
        }
    }
}

/// Which changes each group wants, by their places.
pub(super) fn select(registry: &Registry, changes: &[Change]) -> BTreeMap<GroupId, Vec<usize>> {
    let mut selected: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
    for (place, change) in changes.iter().enumerate() {
        registry.wanting(&change.kv.key, &mut |group| selected.entry(group).or_default().push(place));
    }
    selected
}

/// What one group's changes are under each filter, worked out when somebody asks.
pub(super) struct Cuts<'a> {
    changes: &'a [Change],
    picked: Vec<usize>,
    made: [Option<Events>; Filter::COUNT],
}

impl<'a> Cuts<'a> {
    pub(super) fn new(changes: &'a [Change], picked: Vec<usize>) -> Self {
        Self { changes, picked, made: [const { None }; Filter::COUNT] }
    }

    pub(super) fn of(&mut self, filter: Filter) -> Events {
        let (changes, picked) = (self.changes, &self.picked);
        let make = || {
            let wanted = picked.iter().map(|place| &changes[*place]).filter(|change| filter.passes(change.kind));
            Arc::new(wanted.cloned().collect())
        };
        Arc::clone(self.made[filter.number()].get_or_insert_with(make))
    }
}
