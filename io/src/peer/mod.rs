//! Members talk to each other: etcd's peer protocol, apart from sockets.
//!
//! The driver says what is to be sent through a [`Transport`] and takes what arrives from [`Arrivals`]. Both sides of that line are the same for the binary, whose transport is HTTP
//! (`server/src/peer`), and for the simulator, whose transport is its own network; both carry the bytes that are made and read here.
//!
//! Invariants: no call of a transport waits; every queue is bounded in messages and in bytes ([`bounds`]); a message may be lost, doubled or overtaken on its way, and the engine lives with that,
//! but what arrives was said by a member: bytes that no member could have sent end here with a typed error, before anything grows by more than what was received.
//!
//! Reading order: this file (the line), [`directory`] (who is known), [`mod@inbox`] and [`outbox`] (what waits), [`codec`] (messages to bytes and back, after a look at their
//! `shape`), [`stream`] and [`msgappv2`] (bytes cut into messages), [`spool`] (a store that arrives).

pub mod arrival;
pub mod bounds;
pub mod codec;
pub mod directory;
pub mod fuzz;
pub mod inbox;
pub mod msgappv2;
pub mod outbox;
mod plain;
mod shape;
pub mod snapshot_fuzz;
pub mod spool;
pub mod stream;

use std::path::PathBuf;

use detcd_core::ids::MemberId;
use detcd_core::raft::Message;
use tokio::sync::oneshot;

use crate::clock::Instant;
use crate::copier::Copied;

pub use directory::{Directory, Standing};
pub use inbox::{Arrivals, Inbox, inbox};

/// What reaches the driver from other members.
#[derive(Debug)]
pub enum Incoming {
    /// A member said something.
    Message {
        /// Who.
        from: MemberId,
        /// What.
        message: Message,
    },
    /// Something that was to be sent to this member did not leave.
    Unreachable {
        /// The member.
        member: MemberId,
    },
    /// A snapshot that was to be sent has ended its way.
    SnapshotSent {
        /// The member that was to get it.
        to: MemberId,
        /// Whether it took it over.
        is_received: bool,
    },
    /// A member says that this one was removed from the cluster.
    Removed {
        /// Who says it.
        by: MemberId,
    },
    /// A leader sent its store.
    Snapshot {
        /// Who.
        from: MemberId,
        /// The message, which stands for the log.
        message: Message,
        /// The store as a bbolt file: all the bytes that were sent, synced, the name as well. From here on the file is the receiver's to rename or remove.
        path: PathBuf,
        /// What the sender is told; dropped, it is told that the member is stopping.
        answer: oneshot::Sender<Result<(), SnapshotRefused>>,
    },
}

/// Why a snapshot was not taken, in the words that its sender is told.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SnapshotRefused {
    /// The sender has left the cluster.
    #[error("cannot process message from removed member")]
    Removed,
    /// The member is stopping.
    #[error("etcdserver: server stopped")]
    Stopping,
    /// Anything else.
    #[error("{0}")]
    Refused(String),
}

/// Another member, as one who connects to it needs it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// The member.
    pub id: MemberId,
    /// Where it is reached: texts that [`Url`](crate::boot::url::Url) accepts. Each is tried in turn.
    pub urls: Vec<String>,
}

/// What a driver says to other members. No call waits; what finds no room is dropped and comes back as [`Incoming::Unreachable`].
pub trait Transport: Send + Sync + 'static {
    /// Sends a message.
    fn send(&self, to: MemberId, message: Message);

    /// Sends a snapshot, with the store as it was copied after the message's place in the log was applied. Comes back as [`Incoming::SnapshotSent`].
    fn send_snapshot(&self, to: MemberId, message: Message, copy: Copied);

    /// The members to talk to from now on, without this one; idempotent. The connections of those that are missing end after a last flush.
    fn set_peers(&self, peers: &[Peer]);

    /// Since when something has been arriving from this member; `None` if it is not connected.
    fn active_since(&self, member: MemberId) -> Option<Instant>;
}

/// The transport of one who has nobody to talk to: whatever is said is lost.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Transport for Alone {
    fn send(&self, _: MemberId, _: Message) {}

    fn send_snapshot(&self, _: MemberId, _: Message, _: Copied) {}

    fn set_peers(&self, _: &[Peer]) {}

    fn active_since(&self, _: MemberId) -> Option<Instant> {
        None
    }
}
