//! What members say to each other, one variant per kind of etcd's message, with exactly the fields that kind has.
//!
//! Nothing local is in here: a timer that expired or a finished write is an [`Input`](super::Input), so no message needs
//! a guard against coming from the network. The wire's `from` and `to` are beside the message; the codec lives in `io`.

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use super::entry::{Entry, EntryKind, Mark};
use super::snapshot::Snapshot;
use crate::ids::{Index, MemberId, Term};

/// One message between two members.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Message {
    /// A follower hands proposals to its leader. Carries no term.
    Propose {
        /// What to append, at least one.
        proposals: Vec<Proposal>,
    },
    /// A leader's log after a place, and how far it is committed.
    Append {
        /// The leader's term.
        term: Term,
        /// The entry before the first of `entries`.
        previous: Mark,
        /// What follows it.
        entries: Vec<Entry>,
        /// The leader's commit index; may lie beyond `entries`.
        commit: Index,
    },
    /// The log up to `index` agrees with the leader's and is on disk. Bare (index zero) it only tells a newer term.
    AppendAccepted {
        /// The sender's term.
        term: Term,
        /// The newest entry that agrees.
        index: Index,
    },
    /// The entry before an append is missing or different.
    AppendRejected {
        /// The sender's term.
        term: Term,
        /// The place before the refused entries, copied.
        index: Index,
        /// The newest place where the sender's log may agree, and the term it has there.
        hint: Mark,
    },
    /// A candidate asks for a vote.
    VoteRequest {
        /// The candidate's new term.
        term: Term,
        /// Its newest entry.
        last: Mark,
        /// Why it stands.
        cause: Cause,
    },
    /// The vote is given, and on disk.
    VoteGranted {
        /// The term voted in.
        term: Term,
    },
    /// The vote is refused.
    VoteRefused {
        /// The sender's term.
        term: Term,
    },
    /// Would you vote for me in this coming term?
    PreVoteRequest {
        /// The term that would be, one above the sender's.
        term: Term,
        /// Its newest entry.
        last: Mark,
    },
    /// It would. Promises nothing.
    PreVoteGranted {
        /// The term asked about.
        term: Term,
    },
    /// It would not.
    PreVoteRefused {
        /// The sender's term.
        term: Term,
    },
    /// The leader is alive.
    Heartbeat {
        /// The leader's term.
        term: Term,
        /// The leader's commit index, but no more than what the receiver has matched.
        commit: Index,
        /// A read token (8 bytes, little endian), or empty.
        context: Bytes,
    },
    /// The leader was heard.
    HeartbeatAnswered {
        /// The sender's term.
        term: Term,
        /// The heartbeat's context, copied whatever it is.
        context: Bytes,
    },
    /// The log's beginning as a store; its bytes travel beside the message.
    Snapshot {
        /// The leader's term.
        term: Term,
        /// Where it stands.
        snapshot: Snapshot,
    },
    /// The sender wants to lead. Carries no term.
    TransferLeader,
    /// Campaign at once: your leader makes room for you (Raft thesis, section 3.10).
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
    /// A follower asks its leader for an index to read at. Carries no term.
    ReadIndex {
        /// Who gets the answer: the wire's `from`, kept when the request is passed on.
        origin: MemberId,
        /// What the answer repeats.
        token: Bytes,
    },
    /// A read at `index` or later is linearizable.
    ReadIndexAnswered {
        /// The leader's term.
        term: Term,
        /// The index.
        index: Index,
        /// The request's token.
        token: Bytes,
    },
}

/// A proposed entry before a leader gave it a place.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Proposal {
    /// Who it is for.
    pub kind: EntryKind,
    /// What it says.
    pub payload: Bytes,
}

/// Why a candidate stands.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Cause {
    /// It heard no leader.
    #[default]
    Timeout,
    /// Its leader asked it to; such a request passes the leader's lease.
    Transfer,
}

impl Proposal {
    /// What a leader appends first, and in place of what it cannot take.
    pub const EMPTY: Self = Self { kind: EntryKind::Normal, payload: Bytes::new() };
}

impl Message {
    /// The term it speaks for, or `None` for the kinds that carry none.
    #[must_use]
    pub const fn term(&self) -> Option<Term> {
        match self {
            Self::Propose { .. } | Self::ReadIndex { .. } | Self::TransferLeader => None,
            Self::Append { term, .. }
            | Self::AppendAccepted { term, .. }
            | Self::AppendRejected { term, .. }
            | Self::VoteRequest { term, .. }
            | Self::VoteGranted { term }
            | Self::VoteRefused { term }
            | Self::PreVoteRequest { term, .. }
            | Self::PreVoteGranted { term }
            | Self::PreVoteRefused { term }
            | Self::Heartbeat { term, .. }
            | Self::HeartbeatAnswered { term, .. }
            | Self::Snapshot { term, .. }
            | Self::TimeoutNow { term }
            | Self::ReadIndexAnswered { term, .. } => Some(*term),
        }
    }

    /// Whether it answers another message: answers are taken from members only, requests from anyone.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        match self {
            Self::AppendAccepted { .. }
            | Self::AppendRejected { .. }
            | Self::VoteGranted { .. }
            | Self::VoteRefused { .. }
            | Self::PreVoteGranted { .. }
            | Self::PreVoteRefused { .. }
            | Self::HeartbeatAnswered { .. }
            | Self::ReadIndexAnswered { .. } => true,
            Self::Propose { .. }
            | Self::Append { .. }
            | Self::VoteRequest { .. }
            | Self::PreVoteRequest { .. }
            | Self::Heartbeat { .. }
            | Self::Snapshot { .. }
            | Self::TransferLeader
            | Self::TimeoutNow { .. }
            | Self::ReadIndex { .. } => false,
        }
    }

    /// Whether only the leader of its term sends it.
    #[must_use]
    pub const fn is_from_leader(&self) -> bool {
        matches!(self, Self::Append { .. } | Self::Heartbeat { .. } | Self::Snapshot { .. })
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Propose { proposals } => {
                write!(f, "propose")?;
                proposals
                    .iter()
                    .try_for_each(|proposal| write!(f, "{} \"{}\"", proposal.kind, proposal.payload.escape_ascii()))
            }
            Self::Append { term, previous, entries, commit } => {
                write!(f, "append t{term} after {previous} {} commit {commit}", List(entries))
            }
            Self::AppendAccepted { term, index } => write!(f, "append-accepted t{term} upto {index}"),
            Self::AppendRejected { term, index, hint } => {
                write!(f, "append-rejected t{term} at {index} hint {hint}")
            }
            Self::VoteRequest { term, last, cause } => {
                let cause = if *cause == Cause::Transfer { " transfer" } else { "" };
                write!(f, "vote-request t{term} last {last}{cause}")
            }
            Self::VoteGranted { term } => write!(f, "vote-granted t{term}"),
            Self::VoteRefused { term } => write!(f, "vote-refused t{term}"),
            Self::PreVoteRequest { term, last } => write!(f, "pre-vote-request t{term} last {last}"),
            Self::PreVoteGranted { term } => write!(f, "pre-vote-granted t{term}"),
            Self::PreVoteRefused { term } => write!(f, "pre-vote-refused t{term}"),
            Self::Heartbeat { term, commit, context } => {
                write!(f, "heartbeat t{term} commit {commit}{}", Token(context))
            }
            Self::HeartbeatAnswered { term, context } => write!(f, "heartbeat-answered t{term}{}", Token(context)),
            Self::Snapshot { term, snapshot } => write!(f, "snapshot t{term} {snapshot}"),
            Self::TransferLeader => write!(f, "transfer-leader"),
            Self::TimeoutNow { term } => write!(f, "timeout-now t{term}"),
            Self::ReadIndex { origin, token } => write!(f, "read-index for {origin}{}", Token(token)),
            Self::ReadIndexAnswered { term, index, token } => {
                write!(f, "read-index-answered t{term} index {index}{}", Token(token))
            }
        }
    }
}

/// Entries in brackets.
struct List<'a>(&'a [Entry]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[")?;
        for (at, entry) in self.0.iter().enumerate() {
            write!(f, "{}{entry}", if at == 0 { "" } else { ", " })?;
        }
        write!(f, "]")
    }
}

/// Opaque bytes in hexadecimal, or nothing if there are none.
struct Token<'a>(&'a Bytes);

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, " token ")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
