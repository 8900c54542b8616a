//! One member's transport: messages, and whole stores, piece by piece, that may be cut off, end early or arrive as something else.

use std::time::Duration;

use bytes::Bytes;
use detcd_core::ids::MemberId;
use detcd_core::raft::Message;
use detcd_io::clock::Instant;
use detcd_io::copier::Copied;
use detcd_io::peer::codec::{self, Envelope, Received};
use detcd_io::peer::{Incoming, Peer, Transport};
use prost::Message as _;
use tokio::sync::oneshot;

use super::{Content, Net};
use crate::options::chance;

/// How long the way of a snapshot may take.
const SHIPPING_PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a snapshot that travel together: so few that even a small one can be cut off.
const PIECE_BYTES: usize = 8 << 10;
/// Where a spoilt snapshot is hurt: the pages that say where all others are. Bytes of rows carry no sum in etcd's format.
const HEAD_BYTES: u64 = 8 << 10;
/// How many of its bytes.
const WOUND_BYTES: u64 = 64;

/// The transport.
pub(super) struct Wire {
    net: Net,
    place: usize,
}

/// How a snapshot is spoilt on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Spoilt {
    /// It ends there, as if that were all.
    Short(u64),
    /// Some bytes from there on are others.
    Hurt(u64),
}

impl Wire {
    /// That of the member at `place`.
    pub(super) const fn new(net: Net, place: usize) -> Self {
        Self { net, place }
    }
}

impl Net {
    /// Takes a copy of a store to another member, piece by piece. `None`: it did not arrive, or is not taken.
    async fn ship(&self, (from, to): (usize, MemberId), message: &Message, copy: Copied) -> Option<()> {
        let (from, to, spooler) = {
            let inner = self.look();
            let (from, to) = (inner.end(from), inner.route(from, to)?);
            let socket = &inner.sockets[to.place];
            if socket.id != to.id || socket.has_removed(from.id) {
                return None;
            }
            (from, to, socket.spooler.clone()?)
        };
        let bytes = Bytes::from(codec::wire(from.id, to.id, message).encode_to_vec());
        let size = copy.size_bytes();
        let spoilt = self.spoil(size);
        let way = (from.place, to.place);
        self.look().trace.line(|| format!("{way:?}: {message}, {size} bytes, {spoilt:?}"));
        let Message::Snapshot { snapshot, .. } = message else { return None };
        let mut file = spooler.begin(snapshot.mark.index)?;
        let mut sent = 0;
        let end = if let Some(Spoilt::Short(at)) = spoilt { at } else { size };
        while sent < end {
            let room = usize::try_from(end - sent).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let piece = copy.read(sent, room).await.ok()?;
            self.cross(from.place, to.place).await?;
            let piece = if let Some(Spoilt::Hurt(at)) = spoilt { hurt(&piece, sent, at) } else { piece };
            sent += piece.len() as u64;
            file.write(piece).await.ok()?;
        }
        let (path, _turn) = file.finish().await.ok()?;
        let Ok(Received::Message(Envelope { message, .. })) = codec::read(bytes) else { return None };
        let inbox = self.look().sockets[to.place].inbox.clone()?;
        let (answer, answered) = oneshot::channel();
        inbox.deliver(Incoming::Snapshot { from: from.id, message, path, answer }).await.ok()?;
        let answered = answered.await.ok()?;
        self.look().trace.line(|| format!("{way:?}: the snapshot: {answered:?}"));
        self.cross(to.place, from.place).await?;
        answered.ok()
    }

    /// Whether, and how, the next snapshot is spoilt.
    fn spoil(&self, size: u64) -> Option<Spoilt> {
        let mut inner = self.look();
        let spoil = inner.weather.spoil;
        if size == 0 || !chance(&mut inner.dice, spoil) {
            return None;
        }
        let (short, at) = (chance(&mut inner.dice, 500), inner.dice.draw(0, size - 1));
        Some(if short { Spoilt::Short(at) } else { Spoilt::Hurt(at % HEAD_BYTES) })
    }
}

/// The piece that begins at `begin`, with other bytes from `at` on.
fn hurt(piece: &Bytes, begin: u64, at: u64) -> Bytes {
    let is_hurt = |place: u64| at <= place && place < at + WOUND_BYTES;
    let bytes = piece.iter().zip(begin..);
    bytes.map(|(byte, place)| if is_hurt(place) { !byte } else { *byte }).collect()
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

    fn set_peers(&self, peers: &[Peer]) {
        let place_of = |peer: &Peer| peer.urls.iter().find_map(|url| self.net.place_of(url));
        let peers = peers.iter().filter_map(|peer| Some((peer.id, place_of(peer)?))).collect();
        self.net.look().sockets[self.place].peers = peers;
    }

    fn active_since(&self, member: MemberId) -> Option<Instant> {
        let inner = self.net.look();
        let place = inner.route(self.place, member)?.place;
        let socket = &inner.sockets[place];
        socket.since.filter(|_| socket.id == member && !inner.cut.contains(&(place, self.place)))
    }
}
