//! Everything that can happen to a member: past participles, plain data.

use bytes::Bytes;

use super::entry::EntryKind;
use super::member::Change;
use super::message::Message;
use super::snapshot::Snapshot;
use crate::ids::{Index, MemberId, Term, Ticket};

/// One thing that happened.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Input {
    /// A timer that was armed ran out.
    Expired(Timer),
    /// A message arrived. A snapshot's bytes are on the disk by then, verified and ready to be swapped in; unless the step
    /// answers with a write that names the snapshot, they are not wanted.
    Received {
        /// Its sender: the wire's `from`.
        from: MemberId,
        /// What it says.
        message: Message,
    },
    /// The oldest `writes` unfinished writes are on disk, in the order they were issued. At least one.
    Persisted {
        /// How many.
        writes: u32,
    },
    /// A client wants this in the log.
    Proposed {
        /// Finds the client if the proposal is refused here.
        ticket: Ticket,
        /// Who the entry is for: the state machine, or one change of the configuration.
        kind: EntryKind,
        /// What the entry shall say, with the ticket in its own header.
        payload: Bytes,
        /// Append it only while leading this very term, and never pass it on.
        only_in: Option<Term>,
    },
    /// A client wants an index to read at. A repeated question needs a new ticket.
    ReadAsked {
        /// Finds the client.
        ticket: Ticket,
    },
    /// The state machine has carried out the membership change at a place; said before the `Applied` that covers it.
    ConfigurationChanged {
        /// Where the entry stands.
        index: Index,
        /// What it came to, or `None` if it had no effect on who the members are.
        change: Option<Change>,
    },
    /// An operator wants this member to lead.
    TransferAsked {
        /// The member.
        to: MemberId,
    },
    /// The answer to `MakeSnapshot`: the store is frozen at a place that is durable there.
    SnapshotMade {
        /// For whom.
        to: MemberId,
        /// Where it stands, or `None` if it could not be made.
        snapshot: Option<Snapshot>,
    },
    /// A snapshot arrived at its member, or did not.
    SnapshotSent {
        /// The member.
        to: MemberId,
        /// Whether the member has it.
        is_received: bool,
    },
    /// The state machine has carried out everything handed to it up to here.
    Applied {
        /// The newest applied entry.
        upto: Index,
    },
    /// The entries up to here are no longer needed in memory (the store has them). Never reaches beyond what is applied.
    Trimmed {
        /// The newest entry to forget.
        upto: Index,
    },
    /// Messages to this member were lost on their way out.
    Unreachable {
        /// The member.
        member: MemberId,
    },
}

/// The timers of a member. Arming one that runs replaces it; one that no longer matters may expire and is ignored.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Timer {
    /// Patience with a silent leader, or with an election without a winner.
    Election,
    /// The leader's own beat.
    Heartbeat,
    /// At a follower: the leader's lease, during which no other candidate gets an answer. At the leader: has a majority
    /// been heard since the last time?
    LeaderAlive,
    /// The leader's patience with the one that it makes room for.
    Transfer,
}

impl Timer {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Election, Self::Heartbeat, Self::LeaderAlive, Self::Transfer];
}
