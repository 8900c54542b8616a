//! Watching against slow twins: the interval tree against a list, fragments against etcd's loop, and all watchers together against the whole history,
//! with streams that are full, chunks of any size, a window that overflows, and compactions.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use detcd_core::apply::EventKind;
use detcd_core::mvcc::{KeyValue, Span};
use detcd_core::watch::interval::Intervals;
use detcd_core::watch::{
    Before, Change, Chunk, Create, Delivery, Filter, Happened, Interest, Refusal, StreamId, Taken, WatcherId, Watchers,
    What, fragment,
};
use proptest::prelude::*;

fn key() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(b'a'..b'd', 1..3).prop_map(Bytes::from)
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(b"\0")), key(), key()]
}

/// A range that is not empty.
fn range() -> impl Strategy<Value = Span> {
    (key(), key(), any::<bool>()).prop_filter_map("empty", |(key, end, open)| {
        let end = if open { Bytes::from_static(b"\0") } else { end };
        (open || key < end).then(|| Span::parse(&key, &end))
    })
}

proptest! {
    #[test]
    fn the_interval_tree_finds_what_a_list_finds(
        steps in prop::collection::vec((range(), any::<bool>()), 1..200),
        probes in prop::collection::vec(key(), 10),
    ) {
        let (mut tree, mut list) = (Intervals::default(), Vec::<(Span, u64)>::new());
        for (number, (span, adds)) in (1_u64..).zip(steps) {
            let known = list.iter().position(|(other, _)| *other == span);
            prop_assert_eq!(tree.get(&span), known.map(|place| list[place].1));
            match known {
                Some(place) if !adds => {
                    list.remove(place);
                    tree.remove(&span);
                }
                None if adds => {
                    tree.insert(&span, number);
                    list.push((span, number));
                }
                _ => {}
            }
            for probe in &probes {
                let mut found = BTreeSet::new();
                tree.stab(probe, &mut |number| assert!(found.insert(number)));
                let expected = list.iter().filter(|(span, _)| span.contains(probe)).map(|(_, number)| *number).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn fragments_are_etcds(
        events in prop::collection::vec(1_usize..60, 0..30), whole in 0_usize..30, limit in 1_usize..120,
    ) {
        let piece = whole + 2;
        prop_assert_eq!(fragment::pieces(&events, whole, piece, limit), pieces_slow(&events, whole, piece, limit));
    }
}

/// etcd's loop, in its own shape: add an event, take it out again if that was too much.
fn pieces_slow(events: &[usize], whole: usize, piece: usize, limit: usize) -> Vec<usize> {
    if whole + events.iter().sum::<usize>() < limit || events.len() < 2 {
        return vec![events.len()];
    }
    let (mut done, mut pieces) = (0, Vec::new());
    while done < events.len() {
        let mut current: Vec<usize> = Vec::new();
        for event in &events[done..] {
            current.push(*event);
            if current.len() > 1 && piece + current.iter().sum::<usize>() >= limit {
                current.pop();
                break;
            }
        }
        done += current.len();
        pieces.push(current.len());
    }
    pieces
}

#[test]
fn the_interval_tree_stays_flat() {
    let mut tree = Intervals::default();
    let span = |number: u32| Span::parse(&Bytes::from(number.to_be_bytes().to_vec()), &Bytes::from_static(b"\0"));
    for number in 1..10_000 {
        tree.insert(&span(number), u64::from(number));
    }
    assert!(tree.depth() <= 20, "{}", tree.depth());
    for number in 1..9_990 {
        tree.remove(&span(number));
    }
    assert!(tree.depth() <= 5, "{}", tree.depth());
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Act {
    Write(Vec<(Bytes, EventKind)>),
    /// Followers are offered what was written since, or learn that the window lost it.
    Advance,
    Overflow,
    Create {
        stream: u64,
        id: i64,
        key: Bytes,
        range_end: Bytes,
        start: i64,
        filter: Filter,
        progress: bool,
    },
    Cancel {
        stream: u64,
        id: i64,
    },
    /// The client takes so many messages.
    Drain {
        stream: u64,
        count: usize,
    },
    CatchUp {
        rows: usize,
    },
    Compact {
        back: i64,
    },
    Progress {
        stream: u64,
    },
    Tick {
        stream: u64,
    },
}

const STREAMS: u64 = 3;

fn act() -> impl Strategy<Value = Act> {
    let kind = prop_oneof![3 => Just(EventKind::Put), 1 => Just(EventKind::Delete)];
    let filter = (any::<bool>(), any::<bool>(), any::<bool>());
    let filter =
        filter.prop_map(|(some, no_put, no_delete)| Filter { no_put: some && no_put, no_delete: some && no_delete });
    let id = prop_oneof![2 => Just(0_i64), 1 => -1_i64..4];
    prop_oneof![
        8 => prop::collection::vec((key(), kind), 1..4).prop_map(Act::Write),
        6 => Just(Act::Advance),
        1 => Just(Act::Overflow),
        6 => (0..STREAMS, id, key(), range_end(), prop_oneof![Just(0), -1_i64..40], filter, any::<bool>()).prop_map(
            |(stream, id, key, range_end, start, filter, progress)| Act::Create { stream, id, key, range_end, start, filter, progress }
        ),
        1 => (0..STREAMS, -1_i64..6).prop_map(|(stream, id)| Act::Cancel { stream, id }),
        4 => (0..STREAMS, 1_usize..6).prop_map(|(stream, count)| Act::Drain { stream, count }),
        6 => (1_usize..6).prop_map(|rows| Act::CatchUp { rows }),
        1 => (0_i64..20).prop_map(|back| Act::Compact { back }),
        2 => (0..STREAMS).prop_map(|stream| Act::Progress { stream }),
        1 => (0..STREAMS).prop_map(|stream| Act::Tick { stream }),
    ]
}

/// What a client knows of one of its watchers, and what etcd promises it.
#[derive(Debug)]
struct Twin {
    span: Span,
    first: i64,
    start: i64,
    filter: Filter,
    seen: Vec<Change>,
    is_over: bool,
}

/// Everything there is, in the plainest form.
#[derive(Default)]
struct World {
    watchers: Watchers,
    history: Vec<Happened>,
    compacted: i64,
    /// Messages on their way to each client.
    queues: BTreeMap<StreamId, VecDeque<Delivery>>,
    was_full: BTreeSet<StreamId>,
    twins: BTreeMap<WatcherId, Twin>,
}

const ROOM: usize = 3;

impl World {
    fn new() -> Self {
        let mut world = Self { watchers: Watchers::new(1), compacted: -1, ..Self::default() };
        for stream in (0..STREAMS).map(StreamId) {
            world.watchers.open(stream);
            world.queues.insert(stream, VecDeque::new());
        }
        world
    }

    fn current(&self) -> i64 {
        1 + self.history.len() as i64
    }

    /// Runs `work` with the streams' queues as its way out.
    fn deliver<T>(&mut self, work: impl FnOnce(&mut Watchers, &mut dyn FnMut(Delivery) -> Taken) -> T) -> T {
        let Self { watchers, queues, was_full, .. } = self;
        work(watchers, &mut |delivery| {
            let queue = queues.get_mut(&delivery.to.stream).unwrap();
            if queue.len() >= ROOM {
                was_full.insert(delivery.to.stream);
                return Taken::Full;
            }
            queue.push_back(delivery);
            Taken::Yes
        })
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Write(writes) => self.write(&writes),
            Act::Advance => self.advance(),
            Act::Overflow => self.watchers.fell_behind(self.current()),
            Act::Create { stream, id, key, range_end, start, filter, progress } => {
                let interest = Interest { filter, prev_kv: false, fragment: false };
                let create = Create { id, key, range_end, start, interest, progress };
                self.create(StreamId(stream), create);
            }
            Act::Cancel { stream, id } => {
                let id = WatcherId { stream: StreamId(stream), id };
                assert_eq!(self.watchers.cancel(id), self.twins.remove(&id).is_some());
                self.queues.get_mut(&id.stream).unwrap().retain(|delivery| delivery.to != id);
            }
            Act::Drain { stream, count } => self.drain(StreamId(stream), count),
            Act::CatchUp { rows } => self.catch_up(rows),
            Act::Compact { back } => self.compacted = self.compacted.max(self.current() - back).max(-1),
            Act::Progress { stream } => self.progress(StreamId(stream)),
            Act::Tick { stream } => {
                for id in self.watchers.tick(StreamId(stream)) {
                    self.check_progress(id, self.watchers.position());
                }
            }
        }
    }

    fn write(&mut self, writes: &[(Bytes, EventKind)]) {
        let revision = self.current() + 1;
        let changes = writes.iter().map(|(key, kind)| {
            let kv = KeyValue { key: key.clone(), modified: revision, ..KeyValue::default() };
            Change { kind: *kind, kv, before: Before::LookUp }
        });
        self.history.push(Happened { revision, changes: changes.collect() });
    }

    fn advance(&mut self) {
        for place in self.watchers.position() - 1..self.current() - 1 {
            let happened = self.history[place as usize].clone();
            self.deliver(|watchers, mut out| watchers.on_revision(&happened, &mut out));
        }
    }

    fn create(&mut self, stream: StreamId, create: Create) {
        let (current, compacted) = (self.current(), self.compacted);
        let is_taken = self.twins.contains_key(&WatcherId { stream, id: create.id });
        let made = self.watchers.create(stream, create.clone(), current, compacted);
        let span = Span::parse(&create.key, &create.range_end);
        let is_empty =
            create.range_end.as_ref() != b"\0" && !create.range_end.is_empty() && create.range_end <= create.key;
        let refusal = match made {
            Err(refusal) => refusal,
            Ok(made) => {
                let id = WatcherId { stream, id: made.id };
                assert!(create.id == 0 || create.id == made.id);
                let is_over = create.start != 0 && create.start < compacted;
                assert_eq!(made.compacted, is_over.then_some(compacted));
                let first = if create.start == 0 { current + 1 } else { create.start };
                let (start, filter) = (create.start, create.interest.filter);
                let twin = Twin { span, first, start, filter, seen: Vec::new(), is_over };
                assert!(self.twins.insert(id, twin).is_none(), "the id was free");
                return;
            }
        };
        match refusal {
            Refusal::NegativeStart => assert!(create.start < 0),
            Refusal::EmptyRange => assert!(is_empty),
            Refusal::DuplicateId => assert!(is_taken && create.id != 0),
        }
    }

    fn drain(&mut self, stream: StreamId, count: usize) {
        for _ in 0..count {
            let Some(delivery) = self.queues.get_mut(&stream).unwrap().pop_front() else { break };
            self.receive(delivery);
        }
        if self.was_full.remove(&stream) {
            self.watchers.drained(stream);
        }
    }

    fn receive(&mut self, delivery: Delivery) {
        let twin = self.twins.get_mut(&delivery.to).unwrap();
        assert!(!twin.is_over, "nothing after the end");
        match delivery.what {
            What::Compacted { .. } => twin.is_over = true,
            What::Events { events, revision, .. } => {
                assert!(!events.is_empty() && events.last().unwrap().kv.modified <= revision);
                let last = twin.seen.last().map_or(0, |change| change.kv.modified);
                assert!(last < events[0].kv.modified, "a revision is told at once, and never again");
                twin.seen.extend(events.iter().cloned());
            }
        }
        let expected = expected(&self.history, twin, i64::MAX);
        assert!(expected.starts_with(&twin.seen), "{twin:?}\nexpected {expected:?}");
    }

    /// Reads whole revisions: at least so many rows, or to the end.
    fn catch_up(&mut self, rows: usize) {
        let compacted = self.compacted;
        self.deliver(|watchers, mut out| watchers.on_compacted(compacted, &mut out));
        let Some(from) = self.watchers.wanted() else { return };
        assert!(compacted <= from && from <= self.watchers.position());
        let (mut upto, mut changes) = (from - 1, Vec::new());
        while upto < self.watchers.position() && changes.len() < rows {
            upto += 1;
            // Revision 1 is the empty store.
            let happened = (upto as usize).checked_sub(2).map(|place| &self.history[place]);
            changes.extend(happened.into_iter().flat_map(|happened| happened.changes.clone()));
        }
        let chunk = Chunk { from, upto, changes };
        self.deliver(|watchers, mut out| watchers.on_chunk(&chunk, &mut out));
    }

    fn progress(&self, stream: StreamId) {
        let ids: Vec<WatcherId> = self.twins.keys().filter(|id| id.stream == stream).copied().collect();
        match self.watchers.progress(stream) {
            Some(revision) => {
                assert!(!ids.is_empty());
                for id in ids {
                    self.check_progress(id, revision);
                }
            }
            None => {
                let ends = |delivery: &Delivery| matches!(delivery.what, What::Compacted { .. });
                let is_ending = self.queues[&stream].iter().any(ends);
                let has_news = |twin: &Twin| twin.is_over || self.watchers.position() < twin.start;
                let is_slow = self.watchers.slow() > 0 || is_ending;
                assert!(ids.is_empty() || is_slow || ids.iter().any(|id| has_news(&self.twins[id])));
            }
        }
    }

    /// A report at `revision` follows everything in the queue: by then the client has seen everything up to it.
    fn check_progress(&self, id: WatcherId, revision: i64) {
        let twin = &self.twins[&id];
        assert!(!twin.is_over && twin.start <= revision);
        let queue = &self.queues[&id.stream];
        let mut seen = twin.seen.clone();
        for delivery in queue.iter().filter(|delivery| delivery.to == id) {
            let What::Events { events, .. } = &delivery.what else { panic!("an ended watcher reports no progress") };
            seen.extend(events.iter().cloned());
        }
        assert_eq!(seen, expected(&self.history, twin, revision));
    }

    /// Clients read everything: in the end nobody misses anything.
    fn settle(&mut self) {
        self.advance();
        for _ in 0..1000 {
            for stream in (0..STREAMS).map(StreamId) {
                self.drain(stream, usize::MAX);
            }
            self.catch_up(7);
        }
        assert_eq!((self.watchers.slow(), self.watchers.wanted()), (0, None));
        for twin in self.twins.values().filter(|twin| !twin.is_over) {
            assert_eq!(twin.seen, expected(&self.history, twin, i64::MAX));
        }
        let over = self.twins.values().filter(|twin| twin.is_over).count();
        assert_eq!(self.watchers.len(), self.twins.len(), "{over} ended ones keep their ids");
    }
}

/// The whole history, one change after the other.
fn expected(history: &[Happened], twin: &Twin, upto: i64) -> Vec<Change> {
    let since = history.iter().filter(|happened| twin.first <= happened.revision && happened.revision <= upto);
    let changes = since.flat_map(|happened| &happened.changes);
    let wanted = |change: &&Change| twin.span.contains(&change.kv.key) && twin.filter.passes(change.kind);
    changes.filter(wanted).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_watcher_sees_what_the_history_says(acts in prop::collection::vec(act(), 1..120)) {
        let mut world = World::new();
        for act in acts {
            world.act(act);
        }
        world.settle();
    }
}

/// Builds with `--cfg mutants` hold known bugs; the twin above sees each of them.
#[cfg(mutants)]
#[test]
fn the_twin_sees_every_mutant() {
    use detcd_core::watch::Mutant;
    use proptest::test_runner::{Config, TestRunner};
    let mutants = [
        Mutant::GapAtCatchUp,
        Mutant::FutureStartIgnored,
        Mutant::ProgressBelowStart,
        Mutant::ProgressAhead,
        Mutant::OverflowDropsTail,
        Mutant::LiveKeepsCursor,
        Mutant::RevisionTorn,
        Mutant::LaggardUnfiltered,
    ];
    for mutant in mutants {
        let config = Config { cases: 5000, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
        let found = TestRunner::new(config).run(&prop::collection::vec(act(), 1..120), |acts| {
            let mut world = World::new();
            world.watchers.mutant = Some(mutant);
            acts.into_iter().for_each(|act| world.act(act));
            world.settle();
            Ok(())
        });
        assert!(found.is_err(), "{mutant:?} was not found");
    }
}

fn create(key: &'static str, start: i64) -> Create {
    let (key, range_end) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(b"\0"));
    Create { id: 0, key, range_end, start, interest: Interest::default(), progress: false }
}

#[test]
fn ids_go_up_and_are_not_handed_out_again() {
    let mut watchers = Watchers::new(1);
    let stream = StreamId(7);
    watchers.open(stream);
    let next = |watchers: &mut Watchers, id: i64| {
        let create = Create { id, ..create("a", 0) };
        watchers.create(stream, create, 1, -1).map(|created| created.id)
    };
    assert_eq!(next(&mut watchers, 0), Ok(0));
    assert_eq!(next(&mut watchers, 1), Ok(1));
    assert_eq!(next(&mut watchers, -1), Ok(-1));
    assert_eq!(next(&mut watchers, 0), Ok(2));
    assert!(watchers.cancel(WatcherId { stream, id: 2 }));
    assert_eq!(next(&mut watchers, 0), Ok(3));
    assert_eq!(next(&mut watchers, 2), Ok(2));
    assert_eq!(next(&mut watchers, 2), Err(Refusal::DuplicateId));
    assert_eq!(watchers.create(stream, Create { id: 9, ..create("a", -1) }, 1, -1), Err(Refusal::NegativeStart));
    assert_eq!(next(&mut watchers, 0), Ok(4));
}

#[test]
fn one_far_behind_does_not_delay_one_that_is_near() {
    let mut watchers = Watchers::new(1);
    watchers.open(StreamId(1));
    watchers.fell_behind(10_000);
    for start in [2, 9_990] {
        watchers.create(StreamId(1), create("a", start), 10_000, -1).unwrap();
    }
    let mut asked = Vec::new();
    for _ in 0..3 {
        let from = watchers.wanted().unwrap();
        asked.push(from);
        let chunk = Chunk { from, upto: (from + 99).min(10_000), changes: Vec::new() };
        watchers.on_chunk(&chunk, &mut |_| Taken::Yes);
    }
    assert_eq!(asked, [2, 9_990, 102]);
}
