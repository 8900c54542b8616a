//! Watching: who wants which changes, how far each watcher is, and what it gets next.
//!
//! A watcher is a cursor on the one history of revisions. It follows live while its stream takes what it is given; when the stream is full, or when
//! it starts in the past, it lags and is brought up in bounded chunks, without a gap and without a repeat, until it follows again. Nobody waits for
//! anybody: what a stream cannot take moves no cursor.
//!
//! Reading order: [`interval`] and [`registry`] (who wants a key), [`watcher`] (one cursor), this file (creation, live), [`catch_up`], [`progress`],
//! [`fragment`] (how a large response is cut).
//!
//! Invariants: a cursor never goes down; a watcher that follows has been offered everything up to the position; one that lags has been offered
//! everything below its cursor; all changes of one revision are offered at once.

pub mod catch_up;
pub mod fragment;
pub mod interval;
mod live;
pub mod progress;
pub mod registry;
pub mod watcher;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;

use self::registry::Registry;
use self::watcher::{State, Watcher};
use crate::apply::EventKind;
use crate::ids::Revision;
use crate::mvcc::span::{Span, SpanEnd};
use crate::mvcc::view::KeyValue;

pub use self::catch_up::Chunk;
pub use self::watcher::{Events, Filter, Interest, Selection};

/// A stream of watchers: one client connection's worth of them.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StreamId(pub u64);

/// A watcher, in its stream.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WatcherId {
    /// The stream.
    pub stream: StreamId,
    /// Its number there, as the client knows it. Any number is lawful.
    pub id: i64,
}

/// One change of one key.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Change {
    /// What happened.
    pub kind: EventKind,
    /// What the key holds now; of a deleted one only the key and the revision.
    pub kv: KeyValue,
    /// Where to find what it held before.
    pub before: Before,
}

/// Where to find what a key held before a change.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Before {
    /// It held nothing.
    Nothing,
    /// In this row.
    At(Revision),
    /// Whatever the index says about the revision before.
    LookUp,
}

/// Everything that one revision changed.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Happened {
    /// The revision.
    pub revision: i64,
    /// Its changes, in order; at least one.
    pub changes: Vec<Change>,
}

/// Something for one watcher.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Delivery {
    /// Which watcher.
    pub to: WatcherId,
    /// What.
    pub what: What,
}

/// What a watcher gets.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum What {
    /// Changes that it asked for.
    Events {
        /// The revision that the response tells: that of the changes if it follows, the newest one if it lags.
        revision: i64,
        /// The changes, in order, never empty. Watchers that get the same share them.
        events: Events,
        /// How it wants them.
        interest: Interest,
    },
    /// Nothing more: what it needs next is compacted.
    Compacted {
        /// The revision of the compaction.
        compacted: i64,
    },
}

/// Whether a stream took a delivery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    /// It did.
    Yes,
    /// It is full: the watcher lags until the stream is drained.
    Full,
}

/// Why a watcher was not created.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Refusal {
    /// It starts below zero, which is told as compacted.
    NegativeStart,
    /// Its range is empty.
    EmptyRange,
    /// The id is taken in this stream.
    DuplicateId,
}

/// A watcher to create.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Create {
    /// The wanted id; zero for the next free one.
    pub id: i64,
    /// The first key.
    pub key: Bytes,
    /// The end of the range, as on the wire.
    pub range_end: Bytes,
    /// The first revision; zero for what comes next.
    pub start: i64,
    /// Which changes, and how.
    pub interest: Interest,
    /// Whether it wants to be told of progress from time to time.
    pub progress: bool,
}

/// A new watcher.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Created {
    /// Its id.
    pub id: i64,
    /// The compaction that it starts below, if it does: it ends before it began, but keeps its id.
    pub compacted: Option<i64>,
}

/// All watchers of a member.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Watchers {
    registry: Registry,
    /// The newest revision that followers were offered.
    position: i64,
    /// Watchers that lag and may be given more, by their cursors.
    laggards: BTreeSet<(i64, WatcherId)>,
    streams: BTreeMap<StreamId, Stream>,
    /// The chunk that was worked on last ended here: the next one is for somebody further on, so that one far behind delays no other.
    turn: i64,
    /// Watchers that do not follow.
    slow: usize,
    /// The known bug that they carry, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    pub mutant: Option<Mutant>,
}

/// A known bug of watching.
#[cfg(mutants)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Mutant {
    /// A laggard follows after its first chunk, whatever is left.
    GapAtCatchUp,
    /// Live events reach watchers that start later (etcd issue 20221b).
    FutureStartIgnored,
    /// Progress is told below a watcher's start (etcd issue 20221a).
    ProgressBelowStart,
    /// Progress is told although some watcher of the stream lags (etcd issue 15220).
    ProgressAhead,
    /// What a full stream does not take is lost (etcd issue 17529).
    OverflowDropsTail,
    /// Live delivery does not move the cursor (etcd issue 15271).
    LiveKeepsCursor,
    /// Of a revision with several changes only the first is told.
    RevisionTorn,
    /// Filters are forgotten when a watcher lags.
    LaggardUnfiltered,
    /// Whoever is behind a compaction is told of one that is further on.
    CompactionOneTooFar,
    /// Whoever is behind a compaction is told so again and again (etcd issue 22294).
    EndToldAgain,
    /// Followers are offered nothing while somebody lags.
    FollowersWait,
    /// Progress is reported once, and never again.
    ReportedOnce,
    /// A step for laggards reads all that the first one lacks (etcd issue 22264).
    ChunkUnbounded,
}

/// Whether watchers carry the named bug. Always `false`, and free, in a normal build.
macro_rules! mutated {
    ($value:expr, $mutant:ident) => {{
        #[cfg(mutants)]
        let mutated = $value.mutant == Some($crate::watch::Mutant::$mutant);
        #[cfg(not(mutants))]
        let mutated = false;
        mutated
    }};
}
pub(crate) use mutated;

#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct Stream {
    /// No id below this one is handed out any more.
    next_id: i64,
    /// Watchers that lag and whose last delivery found the stream full.
    stalled: BTreeSet<i64>,
    /// Watchers that want to be told of progress.
    reporting: BTreeSet<i64>,
}

impl Watchers {
    /// No watchers, before the next revision after `position`.
    #[must_use]
    pub fn new(position: i64) -> Self {
        Self { position, ..Self::default() }
    }

    /// The newest revision that followers were offered.
    #[must_use]
    pub const fn position(&self) -> i64 {
        self.position
    }

    /// How many watchers there are, ended ones that keep their id among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.registry.len()
    }

    /// Whether there is no watcher.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.registry.len() == 0
    }

    /// How many watchers lag.
    #[must_use]
    pub const fn slow(&self) -> usize {
        self.slow
    }

    /// A new stream.
    pub fn open(&mut self, stream: StreamId) {
        let before = self.streams.insert(stream, Stream::default());
        assert!(before.is_none(), "stream numbers are not used again");
    }

    /// A stream ended, and its watchers with it.
    pub fn close(&mut self, stream: StreamId) {
        for id in self.registry.of_stream(stream) {
            self.remove(id);
        }
        self.streams.remove(&stream);
    }

    /// Creates a watcher while the store stands at `current`, with everything up to `compacted` compacted.
    ///
    /// # Errors
    /// [`Refusal`]; nothing changes.
    pub fn create(
        &mut self,
        stream: StreamId,
        create: Create,
        current: i64,
        compacted: i64,
    ) -> Result<Created, Refusal> {
        assert!(self.position <= current, "followers are never ahead of the store");
        if create.start < 0 {
            return Err(Refusal::NegativeStart);
        }
        let span = span(create.key, &create.range_end);
        if matches!(&span.end, SpanEnd::Before(end) if *end <= span.key) {
            return Err(Refusal::EmptyRange);
        }
        let id = self.take_id(stream, create.id)?;
        let is_compacted = create.start != 0 && create.start < compacted;
        let next = if create.start == 0 { current + 1 } else { create.start };
        let state = match next {
            _ if is_compacted => State::Compacted,
            next if next <= self.position => State::Lagging,
            _ => State::Following,
        };
        let watcher = Watcher { next, start: create.start, state, interest: create.interest, reporting: None };
        let watcher = Watcher { reporting: create.progress.then_some(progress::Reporting::Due), ..watcher };
        if state == State::Lagging {
            self.laggards.insert((next, id));
            self.slow += 1;
        }
        if create.progress {
            self.stream(stream).reporting.insert(id.id);
        }
        self.registry.add(id, span, watcher);
        Ok(Created { id: id.id, compacted: is_compacted.then_some(compacted) })
    }

    /// Cancels a watcher. Says whether there was one.
    pub fn cancel(&mut self, id: WatcherId) -> bool {
        self.remove(id)
    }

    /// Whether a watcher of this stream wants to be told of progress.
    #[must_use]
    pub fn reports(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|stream| !stream.reporting.is_empty())
    }

    fn take_id(&mut self, stream: StreamId, wanted: i64) -> Result<WatcherId, Refusal> {
        if wanted != 0 {
            let id = WatcherId { stream, id: wanted };
            return if self.registry.contains(id) { Err(Refusal::DuplicateId) } else { Ok(id) };
        }
        let mut next = self.stream(stream).next_id;
        while self.registry.contains(WatcherId { stream, id: next }) {
            next += 1;
        }
        self.stream(stream).next_id = next + 1;
        Ok(WatcherId { stream, id: next })
    }

    fn remove(&mut self, id: WatcherId) -> bool {
        let Some(watcher) = self.registry.remove(id) else { return false };
        if watcher.state == State::Lagging {
            self.laggards.remove(&(watcher.next, id));
            self.slow -= 1;
        }
        let stream = self.stream(id.stream);
        stream.stalled.remove(&id.id);
        stream.reporting.remove(&id.id);
        true
    }

    fn stream(&mut self, stream: StreamId) -> &mut Stream {
        self.streams.get_mut(&stream).expect("the stream is open")
    }
}

/// The keys that a watch request means: an empty key is the smallest one.
fn span(key: Bytes, range_end: &Bytes) -> Span {
    let key = if key.is_empty() { Bytes::from_static(b"\0") } else { key };
    Span::parse(&key, range_end)
}

impl Change {
    /// What it counts for where memory is bounded.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        self.kv.key.len() + self.kv.value.len() + size_of::<Self>()
    }

    /// Whether it made the key.
    #[must_use]
    pub fn is_creation(&self) -> bool {
        self.kind == EventKind::Put && self.kv.created == self.kv.modified
    }
}

impl Happened {
    /// What it counts for where memory is bounded.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        self.changes.iter().map(Change::cost_bytes).sum()
    }
}
