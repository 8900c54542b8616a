//! The network between members: what is sent arrives late, twice, out of order or not at all, as the seed has it.
//!
//! A place is an address; who is reached there changes with the membership. Each member sends to the addresses that it was told of, as the real transport does, and a message for somebody
//! who is not there any more ends there. Whoever was removed hears of it from those whom it still talks to.
//!
//! Messages travel as the bytes of the wire. One task carries everything; it decides at the moment of sending what will happen to a message, and at the moment of arrival
//! whether somebody is there. As from the real transport, a sender hears of some of what was lost, not of all. Bounded: a way that holds too much takes no more.

mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use detcd_core::ids::MemberId;
use detcd_core::membership;
use detcd_core::raft::Message;
use detcd_io::boot::asked::parse_members;
use detcd_io::boot::identity::founders;
use detcd_io::clock::{Alarm, Instant};
use detcd_io::driver::Peers;
use detcd_io::entropy::Entropy;
use detcd_io::peer::bounds::STREAM_MESSAGES_MAX;
use detcd_io::peer::codec::{self, Received};
use detcd_io::peer::spool::Spooler;
use detcd_io::peer::{Directory, Inbox, Incoming, Peer, Standing, inbox};
use detcd_io::wal::Metadata;
use detcd_server::member::Member;
use madsim::runtime::NodeHandle;
use prost::Message as _;
use tokio::sync::Notify;

use self::wire::Wire;
use super::options::Weather;
use super::seat::{initial_cluster, peer_url};
use crate::check::consensus::Ledger;
use crate::check::{Promise, Violation};
use crate::film::Scene;
use crate::leases::now;
use crate::options::chance;
use crate::record::Trace;
use crate::store::SimBackend;

/// The default of `--initial-cluster-token`.
const TOKEN: &str = "etcd-cluster";
/// In a thousand losses on the way, of how many the sender hears.
const HEARD_OF: u64 = 300;
/// The longest way of a stray message, in milliseconds.
const STRAY_MILLIS_MAX: u64 = 4_000;
/// By how much longer the way of an overtaken message is at most, in microseconds.
const REORDER_MICROS_MAX: u64 = 30_000;
/// How long a slot of arrivals is.
const SLOT: Duration = Duration::from_millis(1);
/// The pause between two attempts of a member to hear others that do not speak to it.
const DIAL_PAUSE: Duration = Duration::from_millis(500);

/// The network. Clones share it.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Notify>,
    ledger: Ledger,
}

struct Inner {
    weather: Weather,
    dice: Entropy,
    sockets: Vec<Socket>,
    cut: BTreeSet<(usize, usize)>,
    /// When the newest message of each way arrives, and how many are under way, from each place to each.
    ways: Vec<Vec<Way>>,
    queue: BTreeMap<(Duration, u64), Parcel>,
    /// When the carrier looks at it next, unless it is woken.
    looks_at: Duration,
    sent: u64,
    trace: Trace,
    violation: Option<Violation>,
}

/// One member's end of the network.
#[derive(Default)]
struct Socket {
    id: MemberId,
    inbox: Option<Inbox>,
    since: Option<Instant>,
    is_paused: bool,
    held: Vec<Parcel>,
    spooler: Option<Spooler>,
    /// Where it reaches whom.
    peers: BTreeMap<MemberId, usize>,
    directory: Option<Directory>,
    housed: Option<(Member<SimBackend>, NodeHandle)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Way {
    newest: Duration,
    under_way: usize,
}

/// A member at its place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct End {
    place: usize,
    id: MemberId,
}

/// Something on its way.
struct Parcel {
    from: End,
    to: End,
    content: Content,
    /// Of the message that it is; zero for whatever else is told.
    number: u64,
}

enum Content {
    Bytes(Bytes),
    /// The own machine tells that something did not reach this member.
    Unreachable(MemberId),
    /// Another one tells that the receiver was removed.
    Removed,
    /// It tells how the way of a snapshot to this member ended.
    SnapshotEnded(MemberId, bool),
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Sent,
    Lost,
    NobodyThere,
    Cut,
    Full,
    Held,
    Arrived,
    Removed,
}

impl Fate {
    /// Its word in a diagram.
    const fn word(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Lost => "lost",
            Self::NobodyThere => "nobody there",
            Self::Cut => "cut",
            Self::Full => "full",
            Self::Held => "held",
            Self::Arrived => "arrived",
            Self::Removed => "removed",
        }
    }
}

/// When the carrier looks at what is due then: parcels of one slot arrive together, in their order, and a driver takes them in one turn.
fn slot(due: Duration) -> Duration {
    let slots = due.as_nanos() / SLOT.as_nanos() + 1;
    SLOT * u32::try_from(slots).unwrap_or(u32::MAX)
}

impl Net {
    /// A network of so many places where nobody is yet.
    #[must_use]
    pub fn new(places: usize, seed: u64, ledger: Ledger, trace: Trace) -> Self {
        let inner = Inner {
            weather: Weather::FAIR,
            dice: Entropy::seeded(seed ^ 0x006e_6574),
            sockets: (0..places).map(|_| Socket::default()).collect(),
            cut: BTreeSet::new(),
            ways: vec![vec![Way::default(); places]; places],
            queue: BTreeMap::new(),
            looks_at: Duration::ZERO,
            sent: 0,
            trace,
            violation: None,
        };
        Self { inner: Arc::new(Mutex::new(inner)), changed: Arc::new(Notify::new()), ledger }
    }

    fn look(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many places there are.
    #[must_use]
    pub fn places(&self) -> usize {
        self.look().sockets.len()
    }

    /// Who is there, or was there last.
    #[must_use]
    pub fn ids(&self) -> Vec<MemberId> {
        self.look().sockets.iter().map(|socket| socket.id).filter(|id| id.0 != 0).collect()
    }

    /// Who is at `place`, or was there last; zero for nobody.
    #[must_use]
    pub fn id_at(&self, place: usize) -> MemberId {
        self.look().sockets[place].id
    }

    /// Whether the member at `place` was told of nobody else.
    #[must_use]
    pub fn knows_nobody(&self, place: usize) -> bool {
        self.look().sockets[place].peers.is_empty()
    }

    /// Where the member of this URL has its place.
    #[must_use]
    pub fn place_of(&self, url: &str) -> Option<usize> {
        (0..self.places()).find(|place| peer_url(*place) == url)
    }

    /// The first thing that a member said which no member may say.
    ///
    /// # Errors
    /// There is one.
    pub fn check(&self) -> Result<(), Violation> {
        self.look().violation.clone().map_or(Ok(()), Err)
    }

    /// A new life of the member at `place`: its line. The stores that others send go to `spooler`; `others` are those whom one that joins was told of.
    #[must_use]
    pub fn join(&self, place: usize, who: Metadata, spooler: Spooler, others: &[membership::Member]) -> Peers {
        let (inbox, arrivals) = inbox();
        let directory = Directory::new(who.cluster, who.member);
        let mut inner = self.look();
        let socket = &mut inner.sockets[place];
        *socket = Socket { id: who.member, is_paused: socket.is_paused, ..Socket::default() };
        (socket.inbox, socket.spooler, socket.since) = (Some(inbox), Some(spooler), Some(Instant::now()));
        socket.directory = Some(directory.clone());
        drop(inner);
        let transport = Arc::new(Wire::new(self.clone(), place));
        let first = others.iter().map(|other| Peer { id: other.id, urls: other.peer_urls.clone() }).collect();
        Peers { transport, arrivals, directory, first }
    }

    /// Others may ask the member at `place`.
    pub fn house(&self, place: usize, member: Member<SimBackend>, node: NodeHandle) {
        self.look().sockets[place].housed = Some((member, node));
    }

    /// Who is there, if somebody is.
    #[must_use]
    pub fn housed(&self, place: usize) -> Option<(Member<SimBackend>, NodeHandle)> {
        self.look().sockets[place].housed.clone()
    }

    /// Shows everybody who is there, and where.
    pub fn visit(&self, mut visit: impl FnMut(usize, &Member<SimBackend>)) {
        for (place, socket) in self.look().sockets.iter().enumerate() {
            if let Some((member, _)) = &socket.housed {
                visit(place, member);
            }
        }
    }

    /// Nobody is at `place` any more.
    pub fn leave(&self, place: usize) {
        let mut inner = self.look();
        let socket = &mut inner.sockets[place];
        *socket = Socket { id: socket.id, ..Socket::default() };
    }

    /// The member at `place` takes nothing.
    pub fn pause(&self, place: usize) {
        self.look().sockets[place].is_paused = true;
    }

    /// It does again, and first what waited for it.
    pub fn resume(&self, place: usize) {
        let mut inner = self.look();
        let socket = &mut inner.sockets[place];
        socket.is_paused = false;
        for parcel in std::mem::take(&mut socket.held) {
            inner.put(parcel, Duration::ZERO);
        }
        self.wake(inner);
    }

    /// Messages fare like this from now on.
    pub fn set_weather(&self, weather: Weather) {
        let mut inner = self.look();
        inner.weather = weather;
        inner.trace.line(|| format!("weather: {weather:?}"));
    }

    /// Closes these ways, from one place to another.
    pub fn cut(&self, ways: &[(usize, usize)]) {
        let mut inner = self.look();
        inner.trace.line(|| format!("cut: {ways:?}"));
        inner.trace.show(|| Scene::Cut(ways.to_vec()));
        inner.cut = ways.iter().copied().collect();
    }

    /// Opens all ways.
    pub fn mend(&self) {
        let mut inner = self.look();
        inner.trace.line(|| "mended".to_owned());
        inner.trace.show(|| Scene::Cut(Vec::new()));
        inner.cut.clear();
    }

    /// The way of a call between two members, which is no message of Raft. `None`: it does not arrive.
    pub async fn cross(&self, from: usize, to: usize) -> Option<()> {
        let delay = {
            let mut inner = self.look();
            if inner.cut.contains(&(from, to)) {
                return None;
            }
            let loss = inner.weather.loss;
            if chance(&mut inner.dice, loss) {
                return None;
            }
            inner.draw_delay()
        };
        tokio::time::sleep(delay).await;
        Some(())
    }

    fn send(&self, from: usize, to: MemberId, message: &Message) {
        let mut inner = self.look();
        let from = inner.end(from);
        // Logs that contradict each other make members talk without end.
        if !self.ledger.on_said(from.id, to, message) {
            return;
        }
        let Some(to) = inner.route(from.place, to) else { return };
        let bytes = Bytes::from(codec::wire(from.id, to.id, message).encode_to_vec());
        let fate = inner.fate((from.place, to.place));
        inner.sent += 1;
        let crc = u64::from(crc32c::crc32c(&bytes));
        let facts = [inner.sent, from.place as u64, to.place as u64, fate as u64, crc];
        inner.trace.note(&facts, || format!("{} -> {} {}: {fate:?} {message}", from.place, to.place, facts[0]));
        inner.film(facts[0], fate, || Scene::Sent {
            number: facts[0],
            from: from.place,
            to: to.place,
            text: message.to_string(),
        });
        match fate {
            Fate::Sent => inner.dispatch(from, to, &bytes, message),
            Fate::Held | Fate::Arrived | Fate::Removed => unreachable!("that is decided at the other end"),
            Fate::Lost | Fate::Cut if !chance(&mut inner.dice, HEARD_OF) => return,
            Fate::Lost | Fate::Cut | Fate::NobodyThere | Fate::Full => {
                let delay = inner.draw_delay();
                inner.put(Parcel { from, to: from, content: Content::Unreachable(to.id), number: 0 }, now() + delay);
            }
        }
        self.wake(inner);
    }

    /// Tells the member at `place` something about its own doings, a little later.
    fn tell(&self, place: usize, content: Content) {
        let mut inner = self.look();
        let (at, own) = (now() + inner.draw_delay(), inner.end(place));
        inner.put(Parcel { from: own, to: own, content, number: 0 }, at);
        self.wake(inner);
    }

    /// Lets the carrier look at the queue, if what was put there is due before it would.
    fn wake(&self, inner: MutexGuard<'_, Inner>) {
        let is_early = inner.queue.first_key_value().is_some_and(|(key, _)| slot(key.0) < inner.looks_at);
        drop(inner);
        if is_early {
            self.changed.notify_one();
        }
    }

    /// Carries what is under way, for ever.
    pub async fn run(self) {
        let (mut dial, mut alarm) = (now() + DIAL_PAUSE, Alarm::default());
        loop {
            let at = now();
            let next = {
                let mut inner = self.look();
                while let Some(entry) = inner.queue.first_entry().filter(|entry| entry.key().0 <= at) {
                    let parcel = entry.remove();
                    inner.arrive(parcel);
                }
                if dial <= at {
                    inner.dial();
                    dial = at + DIAL_PAUSE;
                }
                inner.looks_at = slot(inner.queue.first_key_value().map_or(dial, |(key, _)| key.0.min(dial)));
                inner.looks_at
            };
            let due = Instant::now() + next.saturating_sub(at);
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = alarm.until(Some(due)) => {}
            }
        }
    }
}

impl Inner {
    fn end(&self, place: usize) -> End {
        End { place, id: self.sockets[place].id }
    }

    /// Where a member is reached from `place`: at the address that it was told, or, if it was told none, where it was heard from.
    fn route(&self, place: usize, to: MemberId) -> Option<End> {
        let heard = || self.sockets.iter().position(|socket| socket.id == to);
        let place = self.sockets[place].peers.get(&to).copied().or_else(heard)?;
        Some(End { place, id: to })
    }

    /// Everybody tries to hear whom it knows, and who was removed is told so.
    fn dial(&mut self) {
        for place in 0..self.sockets.len() {
            let (own, socket) = (self.end(place), &self.sockets[place]);
            if socket.is_paused || socket.inbox.is_none() {
                continue;
            }
            let tells = |other: &usize| {
                let is_open = !self.cut.contains(&(place, *other)) && !self.cut.contains(&(*other, place));
                is_open && !self.sockets[*other].is_paused && self.sockets[*other].has_removed(own.id)
            };
            if let Some(teller) = socket.peers.values().copied().find(tells) {
                let (from, at) = (self.end(teller), now() + self.draw_delay());
                self.put(Parcel { from, to: own, content: Content::Removed, number: 0 }, at);
            }
        }
    }

    fn fate(&mut self, way: (usize, usize)) -> Fate {
        let is_cut = self.cut.contains(&way);
        let is_lost = chance(&mut self.dice, self.weather.loss);
        let is_there = self.sockets[way.1].inbox.as_ref().is_some_and(|inbox| !inbox.is_closed());
        let is_full = STREAM_MESSAGES_MAX <= self.ways[way.0][way.1].under_way;
        if is_cut {
            Fate::Cut
        } else if !is_there {
            Fate::NobodyThere
        } else if is_full {
            Fate::Full
        } else if is_lost {
            Fate::Lost
        } else {
            Fate::Sent
        }
    }

    fn draw_delay(&mut self) -> Duration {
        let (min, max) = self.weather.delay_micros;
        Duration::from_micros(self.dice.draw(min, max))
    }

    /// Sends a message on its way, or two.
    fn dispatch(&mut self, from: End, to: End, bytes: &Bytes, message: &Message) {
        // A proposal that came twice would be carried out twice: no transport, ours or etcd's, sends one again.
        let may_repeat = !matches!(message, Message::Propose { .. });
        let number = self.sent;
        let copies = 1 + u64::from(chance(&mut self.dice, self.weather.repeat) && may_repeat);
        for copy in 0..copies {
            let mut at = now() + self.draw_delay();
            if chance(&mut self.dice, self.weather.stray) {
                at += Duration::from_millis(self.dice.draw(1, STRAY_MILLIS_MAX));
            } else if copy > 0 || chance(&mut self.dice, self.weather.reorder) {
                at += Duration::from_micros(self.dice.draw(1, REORDER_MICROS_MAX));
            } else {
                let way = &mut self.ways[from.place][to.place];
                at = at.max(way.newest);
                way.newest = at;
            }
            self.put(Parcel { from, to, content: Content::Bytes(bytes.clone()), number }, at);
        }
    }

    fn put(&mut self, parcel: Parcel, at: Duration) {
        self.ways[parcel.from.place][parcel.to.place].under_way += 1;
        self.sent += 1;
        self.queue.insert((at, self.sent), parcel);
    }

    fn arrive(&mut self, parcel: Parcel) {
        let (from, to) = (parcel.from, parcel.to);
        let (way, number) = ((from.place, to.place), parcel.number);
        self.ways[way.0][way.1].under_way -= 1;
        let is_cut = self.cut.contains(&way);
        let holds = self.weather.holds_paused;
        let socket = &mut self.sockets[to.place];
        if socket.is_paused {
            let has_room = socket.held.len() < STREAM_MESSAGES_MAX;
            if holds && has_room && !is_cut {
                socket.held.push(parcel);
            }
            return self.note(way, number, Fate::Held);
        }
        let is_here = socket.id == to.id;
        let Some(inbox) = socket.inbox.as_ref().filter(|_| !is_cut && is_here) else {
            return self.note(way, number, if is_cut { Fate::Cut } else { Fate::NobodyThere });
        };
        let incoming = match parcel.content {
            Content::Unreachable(member) => Incoming::Unreachable { member },
            Content::SnapshotEnded(to, is_received) => Incoming::SnapshotSent { to, is_received },
            Content::Removed => Incoming::Removed { by: from.id },
            // Whoever was removed is not listened to; it is told so when it asks for a stream.
            Content::Bytes(_) if socket.has_removed(from.id) => return self.note(way, number, Fate::Removed),
            Content::Bytes(bytes) => match said(bytes, from.id, to.id) {
                Ok(message) => Incoming::Message { from: from.id, message },
                Err(why) => {
                    let what = format!("member {} said {why} to {}", from.place, to.place);
                    self.violation.get_or_insert_with(|| Violation::new(Promise::Consensus, what));
                    return;
                }
            },
        };
        // Who takes nothing up any more loses what comes: the real one leaves it to the sender's queue, which is bounded.
        let is_in = inbox.offer(incoming);
        self.note(way, number, if is_in { Fate::Arrived } else { Fate::Full });
    }

    /// Films a message that leaves, and its end if that is here.
    fn film(&self, number: u64, fate: Fate, sent: impl FnOnce() -> Scene) {
        self.trace.show(sent);
        if fate != Fate::Sent {
            self.trace.show(|| Scene::Ended { number, fate: fate.word() });
        }
    }

    fn note(&self, (from, to): (usize, usize), number: u64, fate: Fate) {
        self.trace.show(|| Scene::Ended { number, fate: fate.word() });
        self.trace.note(&[from as u64, to as u64, fate as u64], || format!("{from} -> {to}: {fate:?}"));
    }
}

impl Socket {
    fn has_removed(&self, id: MemberId) -> bool {
        self.directory.as_ref().is_some_and(|directory| directory.standing(id) == Standing::Removed)
    }
}

/// The ids of the founders, by their places.
#[must_use]
pub fn founding_ids(members: usize) -> Vec<MemberId> {
    let named = parse_members(&initial_cluster(members)).expect("these URLs are lawful");
    let ids = founders(&named, TOKEN);
    let id_at = |place: usize| ids.iter().find(|each| each.peer_urls[0].as_str() == peer_url(place));
    (0..members).map(|place| id_at(place).expect("each has its place").id).collect()
}

/// What these bytes say, if a member could have said it.
fn said(bytes: Bytes, remote: MemberId, local: MemberId) -> Result<Message, String> {
    let received: Received = codec::read(bytes).map_err(|error| error.to_string())?;
    let said = received.over_link(remote, local).map_err(|dropped| dropped.to_string())?;
    said.ok_or_else(|| "nothing".to_owned())
}
