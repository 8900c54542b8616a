//! The network between members: what is sent arrives late, twice, out of order or not at all, as the seed has it.
//!
//! Messages travel as the bytes of the wire. One task carries everything; it decides at the moment of sending what will happen to a message, and at the moment of arrival
//! whether somebody is there. As from the real transport, a sender hears of some of what was lost, not of all. Bounded: a way that holds too much takes no more.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use detcd_core::ids::MemberId;
use detcd_core::raft::Message;
use detcd_io::boot::asked::parse_members;
use detcd_io::boot::identity::founders;
use detcd_io::clock::Instant;
use detcd_io::copier::Copied;
use detcd_io::driver::Peers;
use detcd_io::entropy::Entropy;
use detcd_io::peer::bounds::STREAM_MESSAGES_MAX;
use detcd_io::peer::codec::{self, Envelope, Received};
use detcd_io::peer::spool::Spooler;
use detcd_io::peer::{Directory, Inbox, Incoming, Peer, Transport, inbox};
use detcd_io::wal::Metadata;
use detcd_server::member::Member;
use madsim::runtime::NodeHandle;
use prost::Message as _;
use tokio::sync::{Notify, oneshot};

use super::options::Weather;
use super::seat::{initial_cluster, peer_url};
use crate::check::{Promise, Violation};
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

/// How long the way of a snapshot may take.
const SHIPPING_PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a snapshot that travel together.
const PIECE_BYTES: usize = 64 << 10;

/// The network. Clones share it.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Notify>,
}

struct Inner {
    weather: Weather,
    dice: Entropy,
    places: BTreeMap<MemberId, usize>,
    sockets: Vec<Socket>,
    cut: BTreeSet<(usize, usize)>,
    /// When the newest message of each way arrives, and how many are under way.
    ways: BTreeMap<(usize, usize), Way>,
    queue: BTreeMap<(Duration, u64), Parcel>,
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
    housed: Option<(Member<SimBackend>, NodeHandle)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Way {
    newest: Duration,
    under_way: usize,
}

/// Something on its way.
struct Parcel {
    from: usize,
    to: usize,
    content: Content,
}

enum Content {
    Bytes(Bytes),
    /// The own machine tells that something did not reach this member.
    Unreachable(MemberId),
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
}

impl Net {
    /// A network of so many members that nobody has joined yet.
    #[must_use]
    pub fn new(members: usize, seed: u64, trace: Trace) -> Self {
        let named = parse_members(&initial_cluster(members)).expect("these URLs are lawful");
        let ids = founders(&named, TOKEN);
        let place_of = |url: &str| (0..members).find(|place| peer_url(*place) == url).expect("one of these");
        let places: BTreeMap<_, _> = ids.iter().map(|each| (each.id, place_of(each.peer_urls[0].as_str()))).collect();
        let mut sockets: Vec<Socket> = (0..members).map(|_| Socket::default()).collect();
        for (id, place) in &places {
            sockets[*place].id = *id;
        }
        let inner = Inner {
            weather: Weather::FAIR,
            dice: Entropy::seeded(seed ^ 0x006e_6574),
            places,
            sockets,
            cut: BTreeSet::new(),
            ways: BTreeMap::new(),
            queue: BTreeMap::new(),
            sent: 0,
            trace,
            violation: None,
        };
        Self { inner: Arc::new(Mutex::new(inner)), changed: Arc::new(Notify::new()) }
    }

    fn look(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many members there are.
    #[must_use]
    pub fn members(&self) -> usize {
        self.look().sockets.len()
    }

    /// Their ids, by their places.
    #[must_use]
    pub fn ids(&self) -> Vec<MemberId> {
        self.look().sockets.iter().map(|socket| socket.id).collect()
    }

    /// Where the member of this URL has its place.
    #[must_use]
    pub fn place_of(&self, url: &str) -> Option<usize> {
        (0..self.members()).find(|place| peer_url(*place) == url)
    }

    /// The first thing that a member said which no member may say.
    ///
    /// # Errors
    /// There is one.
    pub fn check(&self) -> Result<(), Violation> {
        self.look().violation.clone().map_or(Ok(()), Err)
    }

    /// A new life of the member at `place`: its line. The stores that others send go to `spooler`.
    #[must_use]
    pub fn join(&self, place: usize, who: Metadata, spooler: Spooler) -> Peers {
        let (inbox, arrivals) = inbox();
        let mut inner = self.look();
        let socket = &mut inner.sockets[place];
        assert!(socket.id == who.member, "members compute each other's ids");
        (socket.inbox, socket.spooler, socket.since) = (Some(inbox), Some(spooler), Some(Instant::now()));
        drop(inner);
        let transport = Arc::new(Wire { net: self.clone(), place });
        Peers { transport, arrivals, directory: Directory::new(who.cluster, who.member), first: Vec::new() }
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
            inner.put(parcel, now());
        }
        drop(inner);
        self.changed.notify_one();
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
        inner.cut = ways.iter().copied().collect();
    }

    /// Opens all ways.
    pub fn mend(&self) {
        let mut inner = self.look();
        inner.trace.line(|| "mended".to_owned());
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
        let Some(place) = inner.places.get(&to).copied() else { return };
        let own = inner.sockets[from].id;
        let bytes = Bytes::from(codec::wire(own, to, message).encode_to_vec());
        let fate = inner.fate((from, place));
        inner.sent += 1;
        let facts = [inner.sent, from as u64, place as u64, fate as u64, u64::from(crc32c::crc32c(&bytes))];
        inner.trace.note(&facts, || format!("{from} -> {place} {}: {fate:?} {message}", facts[0]));
        match fate {
            Fate::Sent => inner.dispatch(from, place, &bytes, message),
            Fate::Held | Fate::Arrived => unreachable!("that is decided at the other end"),
            Fate::Lost | Fate::Cut if !chance(&mut inner.dice, HEARD_OF) => return,
            Fate::Lost | Fate::Cut | Fate::NobodyThere | Fate::Full => {
                let delay = inner.draw_delay();
                inner.put(Parcel { from, to: from, content: Content::Unreachable(to) }, now() + delay);
            }
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Takes a copy of a store to another member, piece by piece. `None`: it did not arrive, or is not taken.
    async fn ship(&self, (from, to): (usize, MemberId), message: &Message, copy: Copied) -> Option<()> {
        let (own, place, spooler) = {
            let inner = self.look();
            let place = *inner.places.get(&to)?;
            (inner.sockets[from].id, place, inner.sockets[place].spooler.clone()?)
        };
        let bytes = Bytes::from(codec::wire(own, to, message).encode_to_vec());
        self.look().trace.line(|| format!("{from} -> {place}: {message}, {} bytes", copy.size_bytes()));
        let Message::Snapshot { snapshot, .. } = message else { return None };
        let mut file = spooler.begin(snapshot.mark.index)?;
        let mut sent = 0;
        while sent < copy.size_bytes() {
            let piece = copy.read(sent, PIECE_BYTES).await.ok()?;
            self.cross(from, place).await?;
            sent += piece.len() as u64;
            file.write(piece).await.ok()?;
        }
        let (path, _turn) = file.finish().await.ok()?;
        let Ok(Received::Message(Envelope { message, .. })) = codec::read(bytes) else { return None };
        let inbox = self.look().sockets[place].inbox.clone()?;
        let (answer, answered) = oneshot::channel();
        inbox.deliver(Incoming::Snapshot { from: own, message, path, answer }).await.ok()?;
        let answered = answered.await.ok()?;
        self.look().trace.line(|| format!("{from} -> {place}: the snapshot: {answered:?}"));
        self.cross(place, from).await?;
        answered.ok()
    }

    /// Tells the member at `place` something about its own doings, a little later.
    fn tell(&self, place: usize, content: Content) {
        let mut inner = self.look();
        let at = now() + inner.draw_delay();
        inner.put(Parcel { from: place, to: place, content }, at);
        drop(inner);
        self.changed.notify_one();
    }

    /// Carries what is under way, for ever.
    pub async fn run(self) {
        loop {
            let next = {
                let mut inner = self.look();
                let at = now();
                while let Some(entry) = inner.queue.first_entry().filter(|entry| entry.key().0 <= at) {
                    let parcel = entry.remove();
                    inner.arrive(parcel);
                }
                inner.queue.first_key_value().map(|(key, _)| key.0.saturating_sub(at))
            };
            // A zero would come back at once, for ever, if the clock of the queue were ahead by less than a tick.
            let pause = next.map_or(Duration::from_secs(3_600), |pause| pause.max(Duration::from_nanos(1)));
            let _ = tokio::time::timeout(pause, self.changed.notified()).await;
        }
    }
}

impl Inner {
    fn fate(&mut self, way: (usize, usize)) -> Fate {
        let is_cut = self.cut.contains(&way);
        let is_lost = chance(&mut self.dice, self.weather.loss);
        let is_there = self.sockets[way.1].inbox.as_ref().is_some_and(|inbox| !inbox.is_closed());
        match self.ways.get(&way) {
            _ if is_cut => Fate::Cut,
            _ if !is_there => Fate::NobodyThere,
            Some(known) if STREAM_MESSAGES_MAX <= known.under_way => Fate::Full,
            _ if is_lost => Fate::Lost,
            _ => Fate::Sent,
        }
    }

    fn draw_delay(&mut self) -> Duration {
        let (min, max) = self.weather.delay_micros;
        Duration::from_micros(self.dice.draw(min, max))
    }

    /// Sends a message on its way, or two.
    fn dispatch(&mut self, from: usize, to: usize, bytes: &Bytes, message: &Message) {
        // A proposal that came twice would be carried out twice: no transport, ours or etcd's, sends one again.
        let may_repeat = !matches!(message, Message::Propose { .. });
        let copies = 1 + u64::from(chance(&mut self.dice, self.weather.repeat) && may_repeat);
        for copy in 0..copies {
            let mut at = now() + self.draw_delay();
            if chance(&mut self.dice, self.weather.stray) {
                at += Duration::from_millis(self.dice.draw(1, STRAY_MILLIS_MAX));
            } else if copy > 0 || chance(&mut self.dice, self.weather.reorder) {
                at += Duration::from_micros(self.dice.draw(1, REORDER_MICROS_MAX));
            } else {
                let way = self.ways.entry((from, to)).or_default();
                at = at.max(way.newest);
                way.newest = at;
            }
            self.put(Parcel { from, to, content: Content::Bytes(bytes.clone()) }, at);
        }
    }

    fn put(&mut self, parcel: Parcel, at: Duration) {
        self.ways.entry((parcel.from, parcel.to)).or_default().under_way += 1;
        self.sent += 1;
        self.queue.insert((at, self.sent), parcel);
    }

    fn arrive(&mut self, parcel: Parcel) {
        let Parcel { from, to, .. } = parcel;
        if let Some(way) = self.ways.get_mut(&(from, to)) {
            way.under_way -= 1;
        }
        let is_cut = self.cut.contains(&(from, to));
        let holds = self.weather.holds_paused;
        let socket = &mut self.sockets[to];
        if socket.is_paused {
            let has_room = socket.held.len() < STREAM_MESSAGES_MAX;
            if holds && has_room && !is_cut {
                socket.held.push(parcel);
            }
            return self.note(from, to, Fate::Held);
        }
        let Some(inbox) = socket.inbox.clone().filter(|_| !is_cut) else {
            return self.note(from, to, if is_cut { Fate::Cut } else { Fate::NobodyThere });
        };
        let incoming = match parcel.content {
            Content::Unreachable(member) => Incoming::Unreachable { member },
            Content::SnapshotEnded(to, is_received) => Incoming::SnapshotSent { to, is_received },
            Content::Bytes(bytes) => {
                let (remote, local) = (self.sockets[from].id, self.sockets[to].id);
                match said(bytes, remote, local) {
                    Ok(message) => Incoming::Message { from: remote, message },
                    Err(why) => {
                        let broken = Violation::new(Promise::Consensus, format!("member {from} said {why} to {to}"));
                        self.violation.get_or_insert(broken);
                        return;
                    }
                }
            }
        };
        // Who takes nothing up any more loses what comes: the real one leaves it to the sender's queue, which is bounded.
        let is_in = at_once(inbox.deliver(incoming)).is_some();
        self.note(from, to, if is_in { Fate::Arrived } else { Fate::Full });
    }

    fn note(&self, from: usize, to: usize, fate: Fate) {
        self.trace.note(&[from as u64, to as u64, fate as u64], || format!("{from} -> {to}: {fate:?}"));
    }
}

/// What these bytes say, if a member could have said it.
fn said(bytes: Bytes, remote: MemberId, local: MemberId) -> Result<Message, String> {
    let received: Received = codec::read(bytes).map_err(|error| error.to_string())?;
    let said = received.over_link(remote, local).map_err(|dropped| dropped.to_string())?;
    said.ok_or_else(|| "nothing".to_owned())
}

/// What a future gives without waiting.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// One member's transport.
struct Wire {
    net: Net,
    place: usize,
}

impl Transport for Wire {
    fn send(&self, to: MemberId, message: Message) {
        self.net.send(self.place, to, &message);
    }

    fn send_snapshot(&self, to: MemberId, message: Message, copy: Copied) {
        let (net, place) = (self.net.clone(), self.place);
        // A task of the sender's node: it ends with the sender.
        drop(tokio::spawn(async move {
            let shipping = tokio::time::timeout(SHIPPING_PATIENCE, net.ship((place, to), &message, copy));
            let is_received = shipping.await.ok().flatten().is_some();
            net.tell(place, Content::SnapshotEnded(to, is_received));
        }));
    }

    /// Everybody reaches everybody: no run changes who belongs to the cluster.
    fn set_peers(&self, _: &[Peer]) {}

    fn active_since(&self, member: MemberId) -> Option<Instant> {
        let inner = self.net.look();
        let place = *inner.places.get(&member)?;
        inner.sockets[place].since.filter(|_| !inner.cut.contains(&(place, self.place)))
    }
}
