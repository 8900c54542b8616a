//! Who wants what: single keys in a map, ranges in an interval tree, and watchers of one identical span in one group.
//!
//! A change finds the groups that want it without looking at the others, and what it means for a group is worked out once, be it for one watcher
//! or for thousands.

use alloc::collections::BTreeMap;

use bytes::Bytes;

use super::interval::Intervals;
use super::watcher::Watcher;
use super::{StreamId, WatcherId};
use crate::mvcc::span::{Span, SpanEnd};

/// A group of watchers with the same span. Numbers are not used again.
pub(super) type GroupId = u64;

/// All watchers.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Registry {
    keys: BTreeMap<Bytes, GroupId>,
    ranges: Intervals,
    groups: BTreeMap<GroupId, Group>,
    homes: BTreeMap<WatcherId, GroupId>,
    last_group: GroupId,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Group {
    span: Span,
    members: BTreeMap<WatcherId, Watcher>,
}

impl Registry {
    pub(super) fn len(&self) -> usize {
        self.homes.len()
    }

    pub(super) fn contains(&self, id: WatcherId) -> bool {
        self.homes.contains_key(&id)
    }

    pub(super) fn add(&mut self, id: WatcherId, span: Span, watcher: Watcher) {
        let group = self.group_of(&span).unwrap_or_else(|| self.new_group(span));
        self.group_mut(group).members.insert(id, watcher);
        let before = self.homes.insert(id, group);
        assert!(before.is_none(), "ids are checked before");
    }

    pub(super) fn remove(&mut self, id: WatcherId) -> Option<Watcher> {
        let number = self.homes.remove(&id)?;
        let group = self.group_mut(number);
        let watcher = group.members.remove(&id).expect("a home has its watcher");
        if group.members.is_empty() {
            let group = self.groups.remove(&number).expect("it was just looked at");
            match group.span.end {
                SpanEnd::One => drop(self.keys.remove(&group.span.key)),
                SpanEnd::Before(_) | SpanEnd::Open => self.ranges.remove(&group.span),
            }
        }
        Some(watcher)
    }

    pub(super) fn get(&self, id: WatcherId) -> Option<&Watcher> {
        self.groups.get(self.homes.get(&id)?)?.members.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: WatcherId) -> Option<&mut Watcher> {
        self.groups.get_mut(self.homes.get(&id)?)?.members.get_mut(&id)
    }

    /// The group of a watcher that is there.
    pub(super) fn home(&self, id: WatcherId) -> GroupId {
        self.homes[&id]
    }

    /// The watchers of a stream, in the order of their ids.
    pub(super) fn of_stream(&self, stream: StreamId) -> impl Iterator<Item = WatcherId> + use<> {
        let (first, last) = (WatcherId { stream, id: i64::MIN }, WatcherId { stream, id: i64::MAX });
        let ids: alloc::vec::Vec<WatcherId> = self.homes.range(first..=last).map(|(id, _)| *id).collect();
        ids.into_iter()
    }

    /// The watchers of a group.
    pub(super) fn members_mut(&mut self, group: GroupId) -> impl Iterator<Item = (WatcherId, &mut Watcher)> {
        self.group_mut(group).members.iter_mut().map(|(id, watcher)| (*id, watcher))
    }

    /// All watchers.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = (WatcherId, &mut Watcher)> {
        self.groups.values_mut().flat_map(|group| group.members.iter_mut().map(|(id, watcher)| (*id, watcher)))
    }

    /// Shows every group that wants `key`.
    pub(super) fn wanting(&self, key: &[u8], each: &mut impl FnMut(GroupId)) {
        if let Some(group) = self.keys.get(key) {
            each(*group);
        }
        self.ranges.stab(key, each);
    }

    fn group_of(&self, span: &Span) -> Option<GroupId> {
        match span.end {
            SpanEnd::One => self.keys.get(&span.key).copied(),
            SpanEnd::Before(_) | SpanEnd::Open => self.ranges.get(span),
        }
    }

    fn new_group(&mut self, span: Span) -> GroupId {
        self.last_group += 1;
        let number = self.last_group;
        match span.end {
            SpanEnd::One => drop(self.keys.insert(span.key.clone(), number)),
            SpanEnd::Before(_) | SpanEnd::Open => self.ranges.insert(&span, number),
        }
        self.groups.insert(number, Group { span, members: BTreeMap::new() });
        number
    }

    fn group_mut(&mut self, group: GroupId) -> &mut Group {
        self.groups.get_mut(&group).expect("a named group exists")
    }
}
