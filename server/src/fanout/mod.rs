//! The fan-out: one task that owns all watchers, reads what happened, and hands it to the streams that want it.
//!
//! Apply adds to a shared log and rings once per batch; it never waits for anyone here. This task offers the news to followers, brings laggards up in
//! bounded chunks between two looks at the news, answers requests, and ticks. A stream whose client does not read costs the others nothing: its outbox is full,
//! its watchers lag, and when it drains they go on at their cursors.
//!
//! Reading order: [`handle`] (what services use), [`outbox`] (one stream's queue), this file. The rules are [`detcd_core::watch`].

pub mod handle;
pub mod outbox;
mod pace;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use detcd_core::watch::{Delivery, StreamId, Taken, WatcherId, Watchers, What};
use detcd_io::clock::{Alarm, Instant};
use detcd_io::driver::ask::Asker;
use detcd_io::driver::bounds;
use detcd_io::entropy::Entropy;
use detcd_io::fault::Fault;
use detcd_io::store::Store;
use detcd_io::store::backend::Backend;
use detcd_io::store::history::{ChunkSize, HistoryRead, Step};
use detcd_io::store::recent::News;
use tokio::sync::mpsc;

use self::handle::{Ask, Handle, Wish};
use self::outbox::{Line, Message, Outbox, OutboxSize};
use self::pace::Pace;
use crate::status::Refused;

/// Looks for a leader that must fail before streams that want one end (etcd's number).
const LEADERLESS_MAX: u32 = 3;

/// Revisions that are taken from the store's log at once.
const LOOK: usize = 16;

/// The id that stands for all watchers of a stream, and for none.
const NO_ID: i64 = -1;

/// How the fan-out behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settings {
    /// The time between two reports of progress to a watcher that wants them; up to a tenth is added for each stream.
    pub progress_interval: Duration,
    /// The time between two looks for a leader.
    pub election: Duration,
    /// What it may use.
    pub limits: Limits,
    /// The known bug that it carries, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    pub mutant: Option<detcd_core::watch::Mutant>,
}

/// What the fan-out may use. The defaults are the bounds of [`bounds`]; simulations use smaller ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of the newest revisions.
    pub recent_bytes: usize,
    /// Of each stream.
    pub outbox: OutboxSize,
    /// What laggards are given at once.
    pub chunk: ChunkSize,
    /// Bytes at which a response is cut for who wants that. `None`: where etcd cuts, half a megabyte beyond the largest request.
    pub fragment_bytes: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            recent_bytes: bounds::WATCH_RECENT_BYTES_MAX,
            outbox: OutboxSize { bytes: bounds::WATCH_STREAM_BYTES_MAX, messages: bounds::WATCH_STREAM_MESSAGES_MAX },
            chunk: ChunkSize { rows: bounds::WATCH_CHUNK_ROWS, bytes: bounds::WATCH_CHUNK_BYTES },
            fragment_bytes: None,
        }
    }
}

/// The owner of all watchers.
pub struct Fanout<B> {
    store: Store<B>,
    asker: Asker,
    watchers: Watchers,
    streams: BTreeMap<StreamId, Client>,
    /// When streams with watchers that want reports are due.
    ticks: BTreeSet<(Instant, StreamId)>,
    leader: LeaderCheck,
    asks: mpsc::Receiver<Ask>,
    line: Arc<Line>,
    steps: Steps<B>,
    dice: Entropy,
    settings: Settings,
    faults: mpsc::Sender<Fault>,
}

/// What is done step by step, and when the next step is due.
struct Steps<B> {
    /// When followers get the next news.
    news_due: Instant,
    /// The chunk that is being read for laggards.
    reading: Option<HistoryRead<B>>,
    pace: Pace,
    /// Streams that asked how far their watchers are, and what was written then, which is offered first.
    asked: VecDeque<(i64, StreamId)>,
    alarm: Alarm,
}

/// One stream.
struct Client {
    outbox: Arc<Outbox>,
    wants_leader: bool,
    /// When its ticks began, and how far apart they are.
    opened: Instant,
    interval: Duration,
    next_tick: Option<Instant>,
    /// The watcher that was told of progress last.
    reported: i64,
    /// A request for progress that waits, and what the stream has asked since: its answers come in the order of its requests. At most as
    /// many as it has credits.
    waiting: VecDeque<Wish>,
}

/// The look for a leader, while some stream wants one.
#[derive(Default)]
struct LeaderCheck {
    due: Option<Instant>,
    failed: u32,
}

impl<B: Backend> Fanout<B> {
    /// A fan-out over `store`, and the services' end of it. A failure of the machine goes to `faults`.
    #[must_use]
    pub fn new(
        store: Store<B>,
        asker: Asker,
        dice: Entropy,
        settings: Settings,
        faults: mpsc::Sender<Fault>,
    ) -> (Self, Handle) {
        let (sender, asks) = mpsc::channel(bounds::WATCH_ASKS_MAX);
        let line = Arc::new(Line::default());
        let handle = Handle::new(sender, Arc::clone(&line), settings.limits.outbox);
        let fanout = Self {
            watchers: Watchers::new(store.current()),
            store,
            asker,
            streams: BTreeMap::new(),
            ticks: BTreeSet::new(),
            leader: LeaderCheck::default(),
            asks,
            line,
            steps: Steps {
                news_due: Instant::now(),
                reading: None,
                pace: Pace::default(),
                asked: VecDeque::new(),
                alarm: Alarm::default(),
            },
            dice,
            settings,
            faults,
        };
        (fanout, handle)
    }

    /// Runs until every service is gone, or the machine fails.
    pub async fn run(mut self) {
        loop {
            let Some(ask) = self.wait().await else { return };
            if let Err(fault) = self.turn(ask) {
                // If the queue is full, another fault is already ending the member.
                let _ = self.faults.try_send(fault);
                return;
            }
        }
    }

    /// Waits for something to do: a request, or something else (`Some(None)`). `None`: nobody will ask again.
    async fn wait(&mut self) -> Option<Option<Ask>> {
        let lags = self.steps.reading.is_some() || self.watchers.wanted().is_some();
        let (now, follows) = (Instant::now(), self.watchers.position() < self.known());
        if follows && self.steps.news_due <= now || lags && self.steps.pace.is_due(now) {
            // Others get their turn between two steps.
            tokio::task::yield_now().await;
            return Some(None);
        }
        let tick = self.ticks.first().map(|(due, _)| *due);
        let (news, chunk) = (follows.then_some(self.steps.news_due), lags.then_some(self.steps.pace.due));
        let deadline = [tick, self.leader.due, news, chunk].into_iter().flatten().min();
        tokio::select! {
            biased;
            ask = self.asks.recv() => ask.map(Some),
            () = self.line.wait() => Some(None),
            () = self.store.wait_for_news(), if !follows => Some(None),
            () = self.steps.alarm.until(deadline) => Some(None),
        }
    }

    /// The revision that watchers should be offered everything up to.
    fn known(&self) -> i64 {
        if self.streams.is_empty() { self.watchers.position() } else { self.store.current() }
    }

    /// Everything that is ready, in bounded parts.
    fn turn(&mut self, first: Option<Ask>) -> Result<(), Fault> {
        self.take_turns();
        let mut ask = first;
        for _ in 0..bounds::WATCH_ASKS_MAX {
            let Some(next) = ask.take().or_else(|| self.asks.try_recv().ok()) else { break };
            self.on_ask(next);
        }
        let mut now = Instant::now();
        self.advance(now);
        self.report_asked();
        if self.steps.pace.is_due(now) {
            let began = Instant::now();
            self.catch_up()?;
            now = Instant::now();
            self.steps.pace.rest(began, now, self.store.current());
        }
        self.tick(now);
        self.look_for_leader(now);
        self.line.wake_readers();
        self.tell();
        Ok(())
    }

    /// What streams have told: they are gone, or have room again.
    fn take_turns(&mut self) {
        let turns = self.line.take();
        for stream in turns.closed {
            self.close(stream);
        }
        for stream in turns.drained {
            self.watchers.drained(stream);
        }
    }

    fn on_ask(&mut self, ask: Ask) {
        let Ask { stream, wish } = ask;
        if let Wish::Open { outbox, wants_leader } = wish {
            self.open(stream, outbox, wants_leader);
            return;
        }
        let (position, current) = (self.watchers.position(), self.store.current());
        // A stream that is gone needs no answers.
        let Some(client) = self.streams.get_mut(&stream) else { return };
        let is_report = matches!(wish, Wish::Progress(_));
        if !client.waiting.is_empty() || is_report && position < current {
            client.waiting.push_back(wish);
            if is_report {
                self.steps.asked.push_back((current, stream));
            }
            return;
        }
        self.grant(stream, wish);
    }

    /// Does what a stream wants. For a report of progress it has been offered what was written when it asked; none is made while a watcher of it lags or begins later.
    fn grant(&mut self, stream: StreamId, wish: Wish) {
        let Some(client) = self.streams.get(&stream) else { return };
        let outbox = Arc::clone(&client.outbox);
        match wish {
            Wish::Open { .. } => unreachable!("it was looked at first"),
            Wish::Create(create, credit) => {
                // In this order: the compaction may not lie beyond what the watcher starts from.
                let compacted = self.store.compacted();
                let current = self.store.current();
                match self.watchers.create(stream, create, current, compacted) {
                    Ok(created) => {
                        outbox.answer(Message::Created { id: created.id, revision: current }, credit);
                        if let Some(compacted) = created.compacted {
                            let to = WatcherId { stream, id: created.id };
                            outbox.add(Delivery { to, what: What::Compacted { compacted } });
                        }
                        self.schedule(stream, Instant::now());
                    }
                    Err(why) => outbox.answer(Message::Refused { why, revision: current }, credit),
                }
            }
            Wish::Cancel(id, credit) => {
                if self.watchers.cancel(WatcherId { stream, id }) {
                    outbox.answer(Message::Cancelled { id, revision: self.store.current() }, credit);
                }
            }
            Wish::Progress(credit) => {
                if let Some(revision) = self.watchers.progress(stream) {
                    let _ = outbox.offer_progress(NO_ID, revision);
                }
                drop(credit);
            }
        }
    }

    fn open(&mut self, stream: StreamId, outbox: Arc<Outbox>, wants_leader: bool) {
        if self.streams.is_empty() {
            self.watchers = Watchers::new(self.store.keep_news(self.settings.limits.recent_bytes));
            #[cfg(mutants)]
            {
                self.watchers.mutant = self.settings.mutant;
            }
        }
        self.watchers.open(stream);
        let nanos = u64::try_from(self.settings.progress_interval.as_nanos()).unwrap_or(u64::MAX);
        let interval = Duration::from_nanos(nanos.saturating_add(self.dice.draw(0, nanos / 10)));
        let opened = Instant::now();
        if wants_leader && self.leader.due.is_none() {
            self.leader.due = Some(opened + self.settings.election);
        }
        let (next_tick, reported, waiting) = (None, i64::MIN, VecDeque::new());
        self.streams.insert(stream, Client { outbox, wants_leader, opened, interval, next_tick, reported, waiting });
    }

    fn close(&mut self, stream: StreamId) {
        let Some(client) = self.streams.remove(&stream) else { return };
        self.watchers.close(stream);
        if let Some(tick) = client.next_tick {
            self.ticks.remove(&(tick, stream));
        }
        if self.streams.is_empty() {
            self.store.forget_news();
            self.steps.reading = None;
            self.steps.asked.clear();
            self.leader = LeaderCheck::default();
        }
    }

    /// Offers followers the next news, if they are due.
    fn advance(&mut self, now: Instant) {
        if now < self.steps.news_due {
            return;
        }
        #[cfg(mutants)]
        if self.settings.mutant == Some(detcd_core::watch::Mutant::FollowersWait) && self.watchers.slow() > 0 {
            self.steps.news_due = now + Duration::from_millis(1);
            return;
        }
        let upto = self.known().min(self.watchers.position() + bounds::WATCH_REVISIONS_PER_TURN as i64);
        let from = self.watchers.position();
        let offers = self.advance_to(upto);
        self.steps.news_due = now + pace::rest_after(offers, self.watchers.position() - from);
    }

    /// Offers followers everything up to a revision, or as much of it as fits into a turn, the last revision whole. Tells how many offers it made.
    fn advance_to(&mut self, upto: i64) -> usize {
        let (offers, mut offer) = (Cell::new(0), offer(&self.streams));
        let mut offer = |delivery| {
            offers.set(offers.get() + 1);
            offer(delivery)
        };
        while self.watchers.position() < upto {
            let wanted = usize::try_from(upto - self.watchers.position()).unwrap_or(usize::MAX);
            match self.store.news(self.watchers.position(), wanted.min(LOOK)) {
                News::Lost { current } => self.watchers.fell_behind(current),
                News::Next(next) => {
                    for happened in next {
                        self.watchers.on_revision(&happened, &mut offer);
                        if bounds::WATCH_OFFERS_PER_TURN <= offers.get() {
                            return offers.get();
                        }
                    }
                }
            }
        }
        offers.get()
    }

    /// Grants what waited for news that have been offered now: a stream's request for progress, and what it asked then, up to the next one.
    fn report_asked(&mut self) {
        let position = self.watchers.position();
        while let Some((_, stream)) = self.steps.asked.pop_front_if(|(behind, _)| *behind <= position) {
            let mut is_first = true;
            while let Some(wish) = self.next_waiting(stream, is_first) {
                self.grant(stream, wish);
                is_first = false;
            }
        }
    }

    fn next_waiting(&mut self, stream: StreamId, is_first: bool) -> Option<Wish> {
        let waiting = &mut self.streams.get_mut(&stream)?.waiting;
        waiting.pop_front_if(|wish| is_first || !matches!(wish, Wish::Progress(_)))
    }

    /// One step for laggards.
    fn catch_up(&mut self) -> Result<(), Fault> {
        self.watchers.on_compacted(self.store.compacted(), &mut offer(&self.streams));
        let mut reading = match self.steps.reading.take() {
            Some(reading) => reading,
            None => {
                let Some(from) = self.watchers.wanted() else { return Ok(()) };
                let chunk = self.settings.limits.chunk;
                #[cfg(mutants)]
                let chunk = match self.settings.mutant {
                    Some(detcd_core::watch::Mutant::ChunkUnbounded) => {
                        ChunkSize { rows: usize::MAX, bytes: usize::MAX }
                    }
                    _ => chunk,
                };
                HistoryRead::new(&self.store, from, self.watchers.position(), chunk)
            }
        };
        match reading.advance()? {
            Step::More => self.steps.reading = Some(reading),
            Step::Done(chunk) => self.watchers.on_chunk(&chunk, &mut offer(&self.streams)),
            // The next step ends whoever needed it.
            Step::Compacted => {}
        }
        Ok(())
    }

    /// Sets the next tick of a stream that has watchers to report on.
    fn schedule(&mut self, stream: StreamId, now: Instant) {
        let Some(client) = self.streams.get_mut(&stream) else { return };
        if client.next_tick.is_some() || !self.watchers.reports(stream) {
            return;
        }
        let gone = now.duration_since(client.opened).as_nanos() / client.interval.as_nanos().max(1);
        let gone = u32::try_from(gone).unwrap_or(u32::MAX - 1);
        let due = client.opened + client.interval * (gone + 1);
        client.next_tick = Some(due);
        self.ticks.insert((due, stream));
    }

    /// Reports progress where it is due.
    fn tick(&mut self, now: Instant) {
        while let Some((due, stream)) = self.ticks.first().copied().filter(|(due, _)| *due <= now) {
            self.ticks.remove(&(due, stream));
            let Some(client) = self.streams.get_mut(&stream) else { continue };
            client.next_tick = None;
            let (reports, revision) = (self.watchers.tick(stream), self.watchers.position());
            // Where there is no room for all of them, the next tick begins with those who got nothing.
            let (early, late) = reports.split_at(reports.partition_point(|watcher| watcher.id <= client.reported));
            for watcher in late.iter().chain(early) {
                if client.outbox.offer_progress(watcher.id, revision) == Taken::Full {
                    break;
                }
                client.reported = watcher.id;
            }
            self.schedule(stream, now);
        }
    }

    /// Ends the streams that want a leader when there was none for long.
    fn look_for_leader(&mut self, now: Instant) {
        if self.leader.due.is_none_or(|due| now < due) {
            return;
        }
        let has_leader = self.asker.gauges().leader().is_some();
        self.leader.failed = if has_leader { 0 } else { self.leader.failed + 1 };
        let mut wanting: Vec<StreamId> = Vec::new();
        for (stream, client) in self.streams.iter().filter(|(_, client)| client.wants_leader) {
            wanting.push(*stream);
            if self.leader.failed >= LEADERLESS_MAX {
                client.outbox.end(Refused::NoLeader.into());
            }
        }
        self.leader.due = (!wanting.is_empty()).then_some(now + self.settings.election);
        if self.leader.failed >= LEADERLESS_MAX {
            wanting.into_iter().for_each(|stream| self.close(stream));
        }
    }

    fn tell(&self) {
        let counts = &self.line.counts;
        counts.streams.store(self.streams.len() as u64, Ordering::Relaxed);
        counts.watchers.store(self.watchers.len() as u64, Ordering::Relaxed);
        counts.slow_watchers.store(self.watchers.slow() as u64, Ordering::Relaxed);
    }
}

/// The way of a delivery into its stream's outbox. What is for a stream that is gone is taken and forgotten.
fn offer(streams: &BTreeMap<StreamId, Client>) -> impl FnMut(Delivery) -> Taken + '_ {
    |delivery| streams.get(&delivery.to.stream).map_or(Taken::Yes, |client| client.outbox.offer(delivery))
}
