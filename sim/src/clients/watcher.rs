//! A client that watches: several watchers on one stream, read as fast or as slowly as it likes, taken up again after every end of the stream where it left off.
//!
//! It does what etcd's client does: after a break each watcher goes on at the revision after the newest one that it was told of, by a change or by progress.
//! Everything it saw goes into the record, per watcher and stream; the oracle judges.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use detcd_io::entropy::Entropy;
use detcd_proto::etcdserverpb as pb;
use madsim::time::Instant;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::keys::Keys;
use super::link::{Link, Watching};
use super::lister::Lister;
use crate::film::Scene;
use crate::options::{Options, WatchLoad, chance, pick};
use crate::record::{Recorder, Trace, Watched, Watches};

/// The longest time that a stream is left alone.
const SILENCE: Duration = Duration::from_millis(300);
/// How long nothing new may come in the end: everything is healed, so everything arrives.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// How long the end may take in all.
// A whole server hands a client a message a millisecond: where a chunk is one row, watchers that are far behind have tens of thousands of them to read.
const END_MOST: Duration = Duration::from_secs(300);
/// Requests on their way.
const ASKS_MAX: usize = 64;
/// The first number that the client gives a watcher. Numbers that a member chooses are below.
const OWN_FIRST: i64 = 1_000_000;

/// When a run is over, and what must have been seen by then.
#[derive(Clone, Default)]
pub struct Finish {
    is_over: Arc<AtomicBool>,
    revision: Arc<AtomicI64>,
}

impl Finish {
    /// Nothing is written after `revision` any more: whoever has seen everything up to it may end.
    pub fn at(&self, revision: i64) {
        self.revision.store(revision, Ordering::Relaxed);
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn revision(&self) -> Option<i64> {
        self.is_over.load(Ordering::Relaxed).then(|| self.revision.load(Ordering::Relaxed))
    }
}

/// A client that watches.
pub struct Watcher {
    client: u64,
    link: Link,
    load: WatchLoad,
    /// Its lists, if it lists what it watches.
    lister: Option<Lister>,
    keys: Keys,
    dice: Entropy,
    watches: Watches,
    trace: Trace,
    /// What it wants to watch, and from where on.
    wanted: BTreeMap<i64, Want>,
    last: i64,
    /// What it asks on the stream at hand.
    asks: Asks,
    heard: Heard,
}

/// What it heard last.
struct Heard {
    /// The newest revision.
    revision: i64,
    /// When it was told of changes.
    changes: Instant,
    /// When it saw that everything is over.
    end: Option<Instant>,
}

/// What is asked on one stream.
#[derive(Default)]
struct Asks {
    /// What is to be asked next.
    pending: Vec<RequestUnion>,
    /// Whose numbers the member is still to choose. It answers in order.
    nameless: VecDeque<i64>,
    /// How many unlawful requests have no answer yet.
    unlawful: u64,
    /// The records of watchers that were given up, by their numbers: what is still said to them is judged, too.
    given_up: BTreeMap<i64, usize>,
}

/// One watcher that the client keeps alive over many streams.
#[derive(Clone, Debug)]
struct Want {
    request: pb::WatchCreateRequest,
    /// Its number on the stream at hand, once it is known: with the request, or when the member has chosen one.
    id: Option<i64>,
    /// Its record there, once it was created.
    record: Option<usize>,
}

impl Want {
    const fn new(request: pb::WatchCreateRequest) -> Self {
        Self { request, id: None, record: None }
    }

    /// Whether the member chooses its number.
    const fn is_nameless(&self) -> bool {
        self.request.watch_id == 0
    }
}

/// A stream at hand.
struct Open {
    asks: mpsc::Sender<pb::WatchRequest>,
    responses: Watching,
}

impl Watcher {
    /// Client `client` of a run.
    #[must_use]
    pub fn new(client: u64, link: Link, options: &Options, record: (Recorder, Watches, Trace)) -> Self {
        let (seed, keys) = (options.seed, Keys::of(&options.load));
        let dice = Entropy::seeded(seed.wrapping_add(client.wrapping_mul(0x9e37_79b9_7f4a_7c15)) ^ 0x7761_7463_6865);
        let (recorder, watches, trace) = record;
        let (load, wanted) = (options.watch.clone(), BTreeMap::new());
        // Every other client of such a run.
        let page = load.page.filter(|_| client.is_multiple_of(2));
        let lister = page.map(|page| Lister::new(client, page, recorder, trace.clone()));
        let (asks, heard) = (Asks::default(), Heard { revision: 1, changes: Instant::now(), end: None });
        Self { client, link, load, lister, keys, dice, watches, trace, wanted, last: 0, asks, heard }
    }

    /// Watches until everything is over and seen.
    pub async fn run(mut self, finish: Finish) {
        loop {
            let has_seen = self.has_seen(&finish);
            if has_seen || self.is_late(&finish) {
                self.watches.end(self.client, has_seen);
                return;
            }
            let was_served = match self.open().await {
                Some(mut open) => self.read(&mut open, &finish).await,
                None => false,
            };
            if !was_served {
                // Nobody was there, or who was turned it away, as a learner does.
                tokio::time::sleep(Duration::from_millis(self.dice.draw(5, 100))).await;
            }
        }
    }

    /// Whether every watcher was told of everything.
    fn has_seen(&self, finish: &Finish) -> bool {
        let Some(revision) = finish.revision() else { return false };
        let has_seen = |want: &Want| self.watches.next_of(want.record?).map(|next| revision < next);
        self.last > 0 && self.asks.unlawful == 0 && self.wanted.values().all(|want| has_seen(want).unwrap_or(false))
    }

    /// Whether everything is over, and has been for too long.
    fn is_late(&mut self, finish: &Finish) -> bool {
        if finish.revision().is_none() {
            return false;
        }
        let since = *self.heard.end.get_or_insert_with(Instant::now);
        END_PATIENCE < since.max(self.heard.changes).elapsed() || END_MOST < since.elapsed()
    }

    async fn open(&mut self) -> Option<Open> {
        while self.lister.is_some() && self.lacks() {
            // Who lost several watchers at once does not fill the run with lists.
            tokio::time::sleep(Duration::from_millis(self.dice.draw(100, 1_000))).await;
            self.list().await?;
        }
        let (asks, requests) = mpsc::channel(ASKS_MAX);
        let responses = self.link.watch(requests, self.load.appetite).await.ok()?;
        let open = Open { asks, responses };
        self.asks = Asks::default();
        while self.lacks() {
            self.want();
        }
        let all: Vec<i64> = self.wanted.keys().copied().collect();
        for place in all {
            self.create(place);
        }
        Some(open)
    }

    /// Whether it wants fewer watchers than it should.
    fn lacks(&self) -> bool {
        (self.wanted.len() as u64) < self.load.watchers
    }

    /// Lists a range, and wants to watch it from there on.
    async fn list(&mut self) -> Option<()> {
        let (key, end) = (self.keys.draw(&mut self.dice), Bytes::from_static(b"l"));
        let key = if chance(&mut self.dice, 500) { key } else { Bytes::from_static(b"k") };
        let revision = self.lister.as_ref()?.list(&self.link, key.clone(), end.clone()).await?;
        let request = pb::WatchCreateRequest {
            key,
            range_end: end,
            start_revision: revision + 1,
            progress_notify: true,
            prev_kv: true,
            ..pb::WatchCreateRequest::default()
        };
        self.add(request, false);
        Some(())
    }

    /// Draws a new watcher.
    fn want(&mut self) {
        let (key, other) = (self.keys.draw(&mut self.dice), self.keys.draw(&mut self.dice));
        let (key, range_end) = match self.dice.draw(0, 9) {
            0..=3 => (key, Bytes::new()),
            4 | 5 => (Bytes::from_static(b"k"), Bytes::from_static(b"l")),
            6 => (key, Bytes::from_static(b"\0")),
            _ if key < other => (key, other),
            _ => (Bytes::from_static(b"k"), Bytes::from_static(b"\0")),
        };
        let start_revision = match self.dice.draw(0, 9) {
            0..=3 => 0,
            4..=7 => self.dice.draw(1, self.heard.revision.max(1).cast_unsigned()).cast_signed(),
            _ => self.heard.revision + self.dice.draw(0, 30).cast_signed(),
        };
        let filters = match self.dice.draw(0, 7) {
            0 => vec![0],
            1 => vec![1],
            _ => Vec::new(),
        };
        let request = pb::WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify: chance(&mut self.dice, 500) || self.load.trusts,
            filters,
            prev_kv: chance(&mut self.dice, 500),
            watch_id: 0,
            fragment: chance(&mut self.dice, 200),
        };
        let is_nameless = chance(&mut self.dice, 250);
        self.add(request, is_nameless);
    }

    /// Wants a watcher, with the next number or with none.
    fn add(&mut self, mut request: pb::WatchCreateRequest, is_nameless: bool) {
        self.last += 1;
        request.watch_id = if is_nameless { 0 } else { OWN_FIRST + self.last };
        self.wanted.insert(self.last, Want::new(request));
    }

    /// Asks for a watcher, where it left off.
    fn create(&mut self, place: i64) {
        let want = self.wanted.get_mut(&place).expect("it is wanted");
        if let Some(next) = want.record.take().and_then(|record| self.watches.next_of(record)) {
            want.request.start_revision = next;
        }
        if want.is_nameless() {
            want.id = None;
            self.asks.nameless.push_back(place);
        } else {
            want.id = Some(want.request.watch_id);
        }
        self.asks.pending.push(RequestUnion::CreateRequest(want.request.clone()));
    }

    /// Asks for a watcher that there cannot be: one of an empty range, or from before the first revision.
    fn ask_for_nothing(&mut self) {
        let key = self.keys.draw(&mut self.dice);
        let request = match chance(&mut self.dice, 500) {
            true => pb::WatchCreateRequest { range_end: key.clone(), key, ..pb::WatchCreateRequest::default() },
            false => pb::WatchCreateRequest { key, start_revision: -1, ..pb::WatchCreateRequest::default() },
        };
        self.asks.unlawful += 1;
        self.asks.pending.push(RequestUnion::CreateRequest(request));
    }

    /// Asks for progress, unless it relies on being told.
    fn ask_how_far(&mut self) {
        if !self.load.trusts {
            self.asks.pending.push(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
        }
    }

    /// Gives a watcher up whose number is known.
    fn cancel(&mut self, place: i64) {
        let want = self.wanted.remove(&place).expect("it was wanted");
        let id = want.id.expect("who is given up has a number");
        if let Some(record) = want.record {
            self.asks.given_up.insert(id, record);
        }
        self.asks.pending.push(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: id }));
    }

    /// Reads until the stream breaks, or the client has had enough of it. Whether there was anything to read.
    async fn read(&mut self, open: &mut Open, finish: &Finish) -> bool {
        let enough = self.dice.draw(1, self.load.responses_max);
        // Who always left in the middle of a response that comes in pieces would never get beyond it.
        let (mut read, mut is_piece) = (0, false);
        while read < enough || is_piece {
            if self.has_seen(finish) || self.is_late(finish) {
                return true;
            }
            if self.send(open).is_err() {
                return read > 0;
            }
            match tokio::time::timeout(SILENCE, open.responses.message()).await {
                Ok(Ok(Some(response))) => {
                    is_piece = response.fragment;
                    self.take(&response);
                    self.pause(finish).await;
                    open.responses.done();
                }
                Ok(_) => return read > 0,
                Err(_) => self.ask_how_far(),
            }
            self.meddle(finish);
            read += 1;
            if self.lister.is_some() && self.lacks() && finish.revision().is_none() {
                return true;
            }
        }
        true
    }

    /// Sends what there is room for. The rest waits: a client that stopped reading until it had asked everything could wait for ever.
    fn send(&mut self, open: &Open) -> Result<(), TrySendError<()>> {
        while !self.asks.pending.is_empty() {
            match open.asks.try_reserve() {
                Ok(place) => place.send(pb::WatchRequest { request_union: Some(self.asks.pending.remove(0)) }),
                Err(TrySendError::Full(())) => return Ok(()),
                Err(closed) => return Err(closed),
            }
        }
        Ok(())
    }

    /// Reads slowly, if it is that kind of client.
    async fn pause(&mut self, finish: &Finish) {
        if finish.revision().is_none() && chance(&mut self.dice, self.load.pauses_of(self.client)) {
            tokio::time::sleep(Duration::from_millis(self.dice.draw(1, self.load.pause_millis))).await;
        }
    }

    /// Now and then: asks for progress, gives a watcher up, wants another one. In the end gives up what waits for a future that does not come.
    fn meddle(&mut self, finish: &Finish) {
        if chance(&mut self.dice, 60) {
            self.ask_how_far();
        }
        if finish.revision().is_none() && chance(&mut self.dice, 10) {
            self.ask_for_nothing();
        }
        let named = self.wanted.iter().filter(|(_, want)| want.id.is_some()).map(|(place, _)| *place);
        let named: Vec<i64> = named.collect();
        if let Some(revision) = finish.revision() {
            let waits = |place: &i64| revision < self.wanted[place].request.start_revision;
            for place in named.into_iter().filter(waits).collect::<Vec<_>>() {
                self.cancel(place);
            }
        } else if !named.is_empty() && chance(&mut self.dice, 15) {
            let place = pick(&mut self.dice, &named);
            self.cancel(place);
            if self.lister.is_none() {
                self.want();
                self.create(self.last);
            }
        }
    }

    /// What it is told, for a diagram.
    fn film(&self, response: &pb::WatchResponse) {
        let pb::WatchResponse { header, created, canceled, events, .. } = response;
        let revision = header.as_ref().map_or(0, |header| header.revision);
        self.trace.show(|| {
            let keys = events.iter().filter_map(|event| event.kv.as_ref());
            let keys: Vec<_> = keys.map(|kv| format!("{}@{}", kv.key.escape_ascii(), kv.mod_revision)).collect();
            let what = match (created, canceled) {
                (true, _) => "is created".to_owned(),
                (_, true) => "ends".to_owned(),
                _ if keys.is_empty() => "hears that nothing is missing".to_owned(),
                _ => format!("is told {}", keys.join(" ")),
            };
            Scene::Note(format!("watcher {}, {} {what}, at {revision}", self.client, response.watch_id))
        });
    }

    /// Records a response.
    fn take(&mut self, response: &pb::WatchResponse) {
        let (client, id) = (self.client, response.watch_id);
        let pb::WatchResponse { header, created, canceled, events, .. } = response;
        let last = events.last().and_then(|event| event.kv.as_ref()).map_or(0, |kv| kv.mod_revision);
        let revision = header.as_ref().map_or(0, |header| header.revision);
        let ends = u64::from(*created) | u64::from(*canceled) << 1 | (events.len() as u64) << 2;
        let facts = [client, id.cast_unsigned(), revision.cast_unsigned(), last.cast_unsigned(), ends];
        self.trace.note(&facts, || {
            format!("watcher {client}, {id} got {revision} {created} {canceled}, {} changes up to {last}", events.len())
        });
        self.film(response);
        self.heard.revision = self.heard.revision.max(revision);
        if *created && *canceled {
            assert!(id == -1 && !response.cancel_reason.is_empty(), "who is turned away is told why");
            self.asks.unlawful = self.asks.unlawful.checked_sub(1).expect("nothing else is turned away");
            return;
        }
        if id == -1 && response.events.is_empty() {
            for want in self.wanted.values() {
                want.record.into_iter().for_each(|record| self.watches.add(record, response));
            }
            return;
        }
        let Some(place) = self.place_of(response) else {
            if let Some(record) = self.asks.given_up.get(&id) {
                self.watches.add(*record, response);
            }
            return;
        };
        let want = self.wanted.get_mut(&place).expect("it was just found");
        match want.record {
            None if response.created => {
                let watched = Watched::new(client, want.request.clone(), response);
                want.record = Some(self.watches.begin(watched));
            }
            None => {}
            Some(record) => {
                self.watches.add(record, response);
                self.heard.changes = if events.is_empty() { self.heard.changes } else { Instant::now() };
            }
        }
        if response.canceled && response.compact_revision > 0 {
            // What is gone is gone: it goes on at the compaction, as another watcher, or lists anew.
            let request = pb::WatchCreateRequest { start_revision: response.compact_revision, ..want.request.clone() };
            let is_nameless = want.is_nameless();
            self.cancel(place);
            if self.lister.is_none() {
                self.add(request, is_nameless);
                self.create(self.last);
            }
        }
    }

    /// Which of the wanted ones a response is for.
    fn place_of(&mut self, response: &pb::WatchResponse) -> Option<i64> {
        let id = response.watch_id;
        let known = self.wanted.iter().find(|(_, want)| want.id == Some(id)).map(|(place, _)| *place);
        if !response.created || OWN_FIRST <= id {
            return known;
        }
        assert_eq!(known, None, "a number is given to one watcher of a stream");
        // One without a number cannot be given up, so it is still wanted.
        let place = self.asks.nameless.pop_front().expect("so many numbers are chosen as were asked for");
        self.wanted.get_mut(&place).expect("it is wanted").id = Some(id);
        Some(place)
    }
}
