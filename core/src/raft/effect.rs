//! Everything a member asks of its shell: imperatives, plain data.
//!
//! An effect that exists is already allowed: whatever must be on disk before it, is.

use alloc::vec::Vec;

use super::config::Delay;
use super::entry::{Entry, HardState};
use super::input::Timer;
use super::message::Message;
use super::snapshot::Snapshot;
use crate::ids::{Index, MemberId, Term, Ticket};

/// What a step asks for, in order. The caller owns it and uses it again.
pub type Effects = Vec<Effect>;

/// One thing to do.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Effect {
    /// Write to the log file. Writes are carried out in order and each is answered by a count in `Input::Persisted`.
    Append(Write),
    /// Send a message; it may get lost.
    Send {
        /// To whom.
        to: MemberId,
        /// What.
        message: Message,
    },
    /// Start a timer, or start it anew.
    Arm {
        /// Which.
        timer: Timer,
        /// When it expires: drawn by the shell.
        within: Delay,
    },
    /// Carry out committed entries that are on the local disk, then say `Input::Applied`. One batch at a time.
    Apply {
        /// In order, without a gap, each exactly once since the start.
        entries: Vec<Entry>,
    },
    /// Freeze the store at what is durable there, for a member that needs entries which are gone; then say `SnapshotMade`.
    /// The bytes go out with the `Send` of the snapshot's message.
    MakeSnapshot {
        /// The member.
        to: MemberId,
    },
    /// Put the store that came with this snapshot in place of the present one, then say `Input::Applied` for its mark. The
    /// log's write of it is durable and no batch is out.
    Install {
        /// The snapshot.
        snapshot: Snapshot,
    },
    /// A read is linearizable once everything up to `index` is applied.
    ReadReady {
        /// Who asked.
        ticket: Ticket,
        /// Where to read.
        index: Index,
    },
    /// A proposal or read is refused. A proposal refused here was not appended and not passed on.
    Refused {
        /// Who asked.
        ticket: Ticket,
        /// Why.
        why: Refusal,
    },
    /// The term or its known leader is another one now.
    LeaderChanged {
        /// The term.
        term: Term,
        /// Its leader, if known.
        leader: Option<MemberId>,
    },
    /// Something had no effect, and this is the reason: a log line, a metric and a mark for tests.
    Ignored {
        /// The member it came from or was for, if any.
        from: Option<MemberId>,
        /// The reason.
        why: Ignored,
    },
}

/// One write of the log file.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Write {
    /// The log before this is void, and entries go on after its mark. Written first.
    pub snapshot: Option<Snapshot>,
    /// New entries, in order. The first may stand at or before the log's end: then what it meets is overwritten.
    pub entries: Vec<Entry>,
    /// The hard state after these entries, if it changed.
    pub hard_state: Option<HardState>,
    /// Whether the disk must confirm it.
    pub sync: Sync,
}

/// Whether a write counts only when the disk has confirmed it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Sync {
    /// Only the commit index moved: losing it is harmless. It is still counted as a write.
    NotNeeded,
    /// Entries, a term, a vote or a snapshot.
    Required,
}

/// Why a client's wish is refused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Refusal {
    /// A membership change is not carried out yet, or not known to be.
    ChangePending,
    /// An empty payload is the mark of a new term and cannot be proposed.
    Empty,
    /// Joint changes of the membership are never logged.
    JointChange,
    /// The leader changed while the read waited.
    LeaderChanged,
    /// No leader is known.
    NoLeader,
    /// This member does not lead the term that was asked for.
    NotInTerm,
    /// A bound is reached.
    TooMany,
    /// The leader is making room for another one.
    Transferring,
}

/// Why something had no effect.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Ignored {
    /// An acknowledgement of entries that this leader does not have.
    AcceptBeyondLog,
    /// A second answer of the same voter.
    AnsweredBefore,
    /// A change of the membership that is committed must be applied first.
    ChangePending,
    /// A heartbeat commits entries that this member does not have: its log lost something it had acknowledged. The member must end.
    CommitBeyondLog,
    /// The message names this very member as its sender.
    FromSelf,
    /// A timer that no longer matters.
    IdleTimer,
    /// Joint changes of the membership are never logged.
    JointChange,
    /// A candidate asks while the leader is alive (Raft thesis, section 4.2.3).
    LeaderAlive,
    /// The store is still older than the beginning of the log.
    Installing,
    /// This member is the one that shall lead.
    LeadsAlready,
    /// The message is nothing a member could have sent.
    Malformed,
    /// The member needs entries that are no longer in memory.
    NeedsSnapshot,
    /// A request for the leader, and none is known here.
    NoLeader,
    /// The answer to a campaign that is over.
    NotCandidate,
    /// A follower is asked to campaign, and this member is none.
    NotFollower,
    /// An answer for a leader that is no more, or a request for one.
    NotLeader,
    /// A snapshot in which its receiver is no member.
    NotInSnapshot,
    /// Who does not vote cannot lead.
    NotVoter,
    /// A message of an older term.
    OlderTerm,
    /// The snapshot that waited to be installed is too old by now: its bytes are not needed.
    SnapshotOvertaken,
    /// The log has the entries up to the snapshot: its bytes are not needed.
    SnapshotKnown,
    /// What the snapshot says is committed here already: its bytes are not needed.
    SnapshotTooOld,
    /// A snapshot was made for nobody: it can be dropped.
    SnapshotUnwanted,
    /// The rejection of an append that has been answered otherwise since.
    StaleRejection,
    /// A report about a snapshot that is not on its way any more.
    StaleReport,
    /// An answer from a member that is not in the configuration.
    Stranger,
    /// A bound is reached.
    TooMany,
    /// A leader's message in a term that has another leader.
    TwoLeaders,
    /// The one that the leader made room for did not come.
    TransferTooSlow,
    /// The leader is making room for another one.
    Transferring,
    /// The answer to a read that nobody waits for.
    UnknownRead,
}

impl Ignored {
    /// All of them, for the test that looks for each in some script.
    pub const ALL: [Self; 31] = [
        Self::AcceptBeyondLog,
        Self::AnsweredBefore,
        Self::ChangePending,
        Self::CommitBeyondLog,
        Self::FromSelf,
        Self::IdleTimer,
        Self::JointChange,
        Self::LeaderAlive,
        Self::Installing,
        Self::LeadsAlready,
        Self::Malformed,
        Self::NeedsSnapshot,
        Self::NoLeader,
        Self::NotCandidate,
        Self::NotFollower,
        Self::NotLeader,
        Self::NotInSnapshot,
        Self::NotVoter,
        Self::OlderTerm,
        Self::SnapshotKnown,
        Self::SnapshotOvertaken,
        Self::SnapshotTooOld,
        Self::SnapshotUnwanted,
        Self::StaleRejection,
        Self::StaleReport,
        Self::Stranger,
        Self::TooMany,
        Self::TwoLeaders,
        Self::TransferTooSlow,
        Self::Transferring,
        Self::UnknownRead,
    ];
}
