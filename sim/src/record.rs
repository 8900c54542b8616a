//! What a run leaves: the history that clients saw, and the trace of everything, as a hash.
//!
//! The history is what the oracles judge. The order of its events is the real order: one counter runs through invocations and completions. The
//! trace is the proof that a seed is a run: two runs of one seed have the same hash, or something outside the seed has a say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use detcd_proto::etcdserverpb as pb;
use madsim::time::TimeHandle;
use tonic::Code;

use crate::film::{Film, Scene, Shot};
use crate::leases::now;

/// What a client asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// One key is written.
    Put(pb::PutRequest),
    /// Keys are read.
    Range(pb::RangeRequest),
    /// Keys are read as a stream.
    Stream(pb::RangeRequest),
    /// Keys are deleted.
    Delete(pb::DeleteRangeRequest),
    /// A transaction.
    Txn(pb::TxnRequest),
    /// The history of all keys is hashed.
    HashKv(pb::HashKvRequest),
    /// History is forgotten.
    Compact(pb::CompactionRequest),
}

/// How a request is answered for which the store has no room. Under a quota it may have been carried out all the same.
pub const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";

/// What it was told.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To a put.
    Put(pb::PutResponse),
    /// To a range, or the chunks of a stream put together.
    Range(pb::RangeResponse),
    /// To a range delete.
    Delete(pb::DeleteRangeResponse),
    /// To a transaction.
    Txn(pb::TxnResponse),
    /// To a hash.
    HashKv(pb::HashKvResponse),
    /// To a compaction.
    Compact(pb::CompactionResponse),
}

impl Ask {
    /// A number that stands for it.
    #[must_use]
    pub fn digest(&self) -> u64 {
        match self {
            Self::Put(request) => digest(request),
            Self::Range(request) | Self::Stream(request) => digest(request),
            Self::Delete(request) => digest(request),
            Self::Txn(request) => digest(request),
            Self::HashKv(request) => digest(request),
            Self::Compact(request) => digest(request),
        }
    }
}

impl Answer {
    /// A number that stands for it.
    #[must_use]
    pub fn digest(&self) -> u64 {
        match self {
            Self::Put(response) => digest(response),
            Self::Range(response) => digest(response),
            Self::Delete(response) => digest(response),
            Self::Txn(response) => digest(response),
            Self::HashKv(response) => digest(response),
            Self::Compact(response) => digest(response),
        }
    }

    /// What every answer begins with.
    #[must_use]
    pub const fn header(&self) -> Option<&pb::ResponseHeader> {
        match self {
            Self::Put(response) => response.header.as_ref(),
            Self::Range(response) => response.header.as_ref(),
            Self::Delete(response) => response.header.as_ref(),
            Self::Txn(response) => response.header.as_ref(),
            Self::HashKv(response) => response.header.as_ref(),
            Self::Compact(response) => response.header.as_ref(),
        }
    }

    /// The same, to be changed.
    pub const fn header_mut(&mut self) -> Option<&mut pb::ResponseHeader> {
        match self {
            Self::Put(response) => response.header.as_mut(),
            Self::Range(response) => response.header.as_mut(),
            Self::Delete(response) => response.header.as_mut(),
            Self::Txn(response) => response.header.as_mut(),
            Self::HashKv(response) => response.header.as_mut(),
            Self::Compact(response) => response.header.as_mut(),
        }
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With its answer.
    Answered(Answer),
    /// With an error that every member would give: nothing was changed.
    Rejected(Code, String),
    /// Turned away before it was proposed: nothing was changed.
    Refused(String),
    /// The client cannot know.
    Uncertain(String),
}

impl Outcome {
    /// A number that stands for it.
    #[must_use]
    pub fn digest(&self) -> u64 {
        match self {
            Self::Answered(answer) => answer.digest(),
            Self::Rejected(_, text) | Self::Refused(text) | Self::Uncertain(text) => {
                1 << 32 | u64::from(crc32c::crc32c(text.as_bytes()))
            }
        }
    }
}

/// One operation of one client.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Which client.
    pub client: u64,
    /// What for.
    pub ask: Ask,
    /// Its place among all events when it was sent.
    pub invoked: u64,
    /// Its place when it ended.
    pub completed: u64,
    /// The place of the member that it went to last.
    pub place: usize,
    /// How.
    pub outcome: Outcome,
    /// When it was sent, by virtual time.
    pub sent: Duration,
    /// How long it took.
    pub took: Duration,
}

impl Operation {
    /// One of a client that is alone, in no time: what oracles are tried with.
    #[must_use]
    pub const fn told(ask: Ask, (invoked, completed): (u64, u64), outcome: Outcome) -> Self {
        Self { client: 0, ask, invoked, completed, place: 0, outcome, sent: Duration::ZERO, took: Duration::ZERO }
    }

    /// The revision of a compaction that was carried out for it.
    const fn compacted(&self) -> Option<i64> {
        match (&self.ask, &self.outcome) {
            (Ask::Compact(request), Outcome::Answered(_)) => Some(request.revision),
            _ => None,
        }
    }
}

/// All operations, in the order of their ends.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The operations.
    pub operations: Vec<Operation>,
    /// What stores measured of themselves, in order.
    pub sizes: Vec<Sized>,
    /// The revisions of compactions that members made by age, once somebody has read the log: at which moments is not known here.
    pub unasked: Option<Vec<i64>>,
    /// When lives of members began, and at which places.
    lives: Vec<(usize, u64)>,
    /// When each operation under way was sent.
    sent: BTreeMap<u64, Duration>,
    events: u64,
}

impl History {
    /// How many events there were.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// When something began that has not ended, as the end of all trouble.
    #[must_use]
    pub fn sent_at(&self, event: u64) -> Duration {
        self.sent[&event]
    }

    /// A life of the member at `place` begins, after so many events.
    pub fn begin_life(&mut self, place: usize, events: u64) {
        self.lives.push((place, events));
    }

    /// The life of the member at `place` in which something happened: when it began.
    #[must_use]
    pub fn life_at(&self, place: usize, event: u64) -> u64 {
        let lives = self.lives.iter().filter(|life| life.0 == place && life.1 < event);
        lives.map(|life| life.1).max().unwrap_or(0)
    }

    /// When the newest life of the member at `place` began.
    #[must_use]
    pub fn begin_of_life(&self, place: usize) -> u64 {
        self.lives.iter().rfind(|life| life.0 == place).map_or(0, |life| life.1)
    }
}

/// One size of the store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sized {
    /// Its place among all events.
    pub event: u64,
    /// The applied index that the store had.
    pub applied: u64,
    /// Bytes.
    pub bytes: u64,
    /// The place of its member.
    pub place: usize,
    /// When the member was seen to go by it.
    pub told: Option<u64>,
}

/// A history that clients and machines share.
#[derive(Clone, Default)]
pub struct Recorder {
    history: Arc<Mutex<History>>,
    /// Whose it is, if it is a machine's.
    place: usize,
}

impl Recorder {
    /// The same history for the machine at this place.
    #[must_use]
    pub fn of_member(&self, place: usize) -> Self {
        Self { history: Arc::clone(&self.history), place }
    }

    /// Something begins: its place.
    #[must_use]
    pub fn begin(&self) -> u64 {
        let mut history = self.lock();
        history.events += 1;
        let event = history.events;
        history.sent.insert(event, now());
        event
    }

    /// An operation ended that went to the member at `place` last.
    pub fn end(&self, (client, place): (u64, usize), ask: Ask, invoked: u64, outcome: Outcome) {
        let mut history = self.lock();
        history.events += 1;
        let completed = history.events;
        let ended = now();
        let sent = history.sent.remove(&invoked).unwrap_or(ended);
        let took = ended.saturating_sub(sent);
        history.operations.push(Operation { client, ask, invoked, completed, place, outcome, sent, took });
    }

    /// A life of the machine's member begins.
    pub fn begin_life(&self) {
        let mut history = self.lock();
        let event = history.events;
        history.begin_life(self.place, event);
    }

    /// The store measured itself.
    pub fn size(&self, applied: u64, bytes: u64) {
        let mut history = self.lock();
        history.events += 1;
        let event = history.events;
        history.sizes.push(Sized { event, applied, bytes, place: self.place, told: None });
    }

    /// The member goes by a store of so many bytes.
    pub fn told(&self, bytes: u64) {
        let mut history = self.lock();
        let event = history.events + 1;
        let last = history.sizes.iter_mut().rfind(|sized| sized.place == self.place);
        if let Some(last) = last.filter(|last| last.told.is_none() && last.bytes == bytes) {
            last.told = Some(event);
            history.events = event;
        }
    }

    /// These are the revisions of all compactions that there were: what no client asked for, members did by age.
    pub fn compacted(&self, logged: &[i64]) {
        let mut history = self.lock();
        let asked: BTreeSet<i64> = history.operations.iter().filter_map(Operation::compacted).collect();
        history.unasked = Some(logged.iter().copied().filter(|revision| !asked.contains(revision)).collect());
    }

    /// How many operations have ended.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.lock().operations.len()
    }

    /// What was recorded so far.
    pub fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one watcher was told on one stream.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Whose it was.
    pub client: u64,
    /// What it asked for.
    pub request: pb::WatchCreateRequest,
    /// When it was created, by virtual time.
    pub begun: Duration,
    /// The store's revision then.
    pub created: i64,
    /// Everything after that, in order: changes, progress, its end.
    pub responses: Vec<pb::WatchResponse>,
    /// When each of them came, by virtual time.
    pub times: Vec<Duration>,
}

impl Watched {
    /// A watcher that was just created.
    #[must_use]
    pub fn new(client: u64, request: pb::WatchCreateRequest, response: &pb::WatchResponse) -> Self {
        let created = response.header.as_ref().map_or(0, |header| header.revision);
        let begun = Duration::from_nanos(nanos());
        Self { client, request, begun, created, responses: Vec::new(), times: Vec::new() }
    }

    /// It is told something.
    pub fn add(&mut self, response: &pb::WatchResponse) {
        self.responses.push(response.clone());
        self.times.push(Duration::from_nanos(nanos()));
    }

    /// The first revision that concerns it.
    #[must_use]
    pub fn first(&self) -> i64 {
        if self.request.start_revision == 0 { self.created + 1 } else { self.request.start_revision }
    }

    /// The first revision that it was not told of, as far as a client can know.
    #[must_use]
    pub fn next(&self) -> i64 {
        let told = |response: &pb::WatchResponse| match response.events.last() {
            _ if response.fragment || response.canceled => 0,
            Some(event) => event.kv.as_ref().map_or(0, |kv| kv.mod_revision),
            None => response.header.as_ref().map_or(0, |header| header.revision),
        };
        self.responses.iter().map(told).max().map_or(0, |told| told + 1).max(self.first())
    }
}

/// What all watchers were told.
#[derive(Debug, Default)]
pub struct WatchRecord {
    /// Each watcher on each stream.
    pub all: Vec<Watched>,
    /// Which clients came to their end, and whether they had seen everything.
    pub ended: BTreeMap<u64, bool>,
}

/// A record that watchers share.
#[derive(Clone, Default)]
pub struct Watches {
    record: Arc<Mutex<WatchRecord>>,
}

impl Watches {
    /// What was recorded so far.
    pub fn record(&self) -> std::sync::MutexGuard<'_, WatchRecord> {
        self.record.lock().expect("a panic ends the run")
    }

    /// A watcher was created: its number.
    #[must_use]
    pub fn begin(&self, watched: Watched) -> usize {
        let mut record = self.record();
        record.all.push(watched);
        record.all.len() - 1
    }

    /// It was told something.
    pub fn add(&self, number: usize, response: &pb::WatchResponse) {
        self.record().all[number].add(response);
    }

    /// Where it would go on.
    #[must_use]
    pub fn next_of(&self, number: usize) -> Option<i64> {
        self.record().all.get(number).map(Watched::next)
    }

    /// A client came to its end.
    pub fn end(&self, client: u64, has_seen: bool) {
        self.record().ended.insert(client, has_seen);
    }
}

/// What becomes of trace lines besides their hash.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lines {
    /// They are forgotten.
    Forget,
    /// They are printed.
    Print,
}

/// The trace of a run. Clones share it.
#[derive(Clone)]
pub struct Trace {
    hash: Arc<Mutex<u64>>,
    lines: Lines,
    /// The member that it is about, if there are several.
    member: Option<usize>,
    /// What a diagram is made of, if somebody wants one.
    film: Option<Film>,
    /// The clock of the run, once it has begun.
    clock: Arc<OnceLock<TimeHandle>>,
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

impl Trace {
    /// An empty trace.
    #[must_use]
    pub fn new(lines: Lines) -> Self {
        let (hash, clock) = (Arc::new(Mutex::new(FNV_START)), Arc::default());
        Self { hash, lines, member: None, film: None, clock }
    }

    /// An empty trace of a run that is filmed.
    #[must_use]
    pub fn filmed(film: Film) -> Self {
        Self { film: Some(film), ..Self::new(Lines::Forget) }
    }

    /// The same trace, to be written about one of several members.
    #[must_use]
    pub fn of_member(&self, place: usize) -> Self {
        Self { member: Some(place), ..self.clone() }
    }

    /// Adds a line, with the virtual time.
    pub fn line(&self, text: impl FnOnce() -> String) {
        let text = text();
        self.show(|| Scene::Note(text.clone()));
        self.note(&[u64::from(crc32c::crc32c(text.as_bytes()))], || text);
    }

    /// Adds a line that is one of very many: these numbers stand for it, and its text is made only to be printed.
    pub fn note(&self, facts: &[u64], text: impl FnOnce() -> String) {
        let nanos = self.nanos();
        let mut hash = self.hash.lock().expect("a panic ends the run");
        let begun = self.member.map_or_else(|| mix(*hash, nanos), |place| mix(mix(*hash, nanos), place as u64));
        *hash = facts.iter().fold(begun, |hash, fact| mix(hash, *fact));
        if self.lines == Lines::Print {
            let text = text();
            match self.member {
                None => print(nanos, &text),
                Some(place) => print(nanos, &format!("m{place} {text}")),
            }
        }
    }

    /// Films what happens, about the trace's own member. No part of the hash, and made only if somebody wants it.
    pub fn show(&self, scene: impl FnOnce() -> Scene) {
        self.show_at(self.member, scene);
    }

    /// The same, about this member.
    pub fn show_at(&self, place: Option<usize>, scene: impl FnOnce() -> Scene) {
        if let Some(film) = &self.film {
            film.add(Shot { nanos: self.nanos(), place, scene: scene() });
        }
    }

    /// Virtual nanoseconds since the run began.
    fn nanos(&self) -> u64 {
        if self.clock.get().is_none()
            && let Some(clock) = TimeHandle::try_current()
        {
            let _ = self.clock.set(clock);
        }
        nanos_by(self.clock.get())
    }

    /// The hash of all lines so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        *self.hash.lock().expect("a panic ends the run")
    }
}

/// Virtual nanoseconds since the run began, for what is no trace.
fn nanos() -> u64 {
    nanos_by(TimeHandle::try_current().as_ref())
}

fn nanos_by(clock: Option<&TimeHandle>) -> u64 {
    u64::try_from(clock.map_or(0, |clock| clock.elapsed().as_nanos())).unwrap_or(u64::MAX)
}

#[expect(clippy::print_stdout, reason = "the caller asked for the trace")]
fn print(nanos: u64, text: &str) {
    println!("{:>6}.{:09} {text}", nanos / 1_000_000_000, nanos % 1_000_000_000);
}

const fn mix(hash: u64, fact: u64) -> u64 {
    // The prime moves low bits up only; the turn brings high ones down.
    (hash ^ fact).wrapping_mul(FNV_PRIME).rotate_left(29)
}

/// A number that stands for a message.
#[must_use]
pub fn digest(message: &impl prost::Message) -> u64 {
    u64::from(crc32c::crc32c(&message.encode_to_vec()))
}
