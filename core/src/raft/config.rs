//! What a member is told at its start and never changes: its name, its patience, its bounds.
//!
//! Every bound of this engine is named here, with the relations that must hold between bounds. The engine never counts
//! time: a [`Delay`] goes out with an effect and the shell draws a point in it.

use crate::ids::MemberId;

/// A stretch of time in the shell's own beat (the heartbeat interval).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticks(pub u32);

/// A range to draw a waiting time from; both ends are allowed.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Delay {
    /// The shortest wait.
    pub min: Ticks,
    /// The longest wait.
    pub max: Ticks,
}

/// How one member behaves. Start from [`Config::new`] and change fields.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Config {
    /// This member.
    pub id: MemberId,
    /// How long a follower waits for its leader before it asks for votes. `min` is also how long a leader is believed alive.
    pub election: Delay,
    /// How often a leader speaks.
    pub heartbeat: Delay,
    /// Ask whether an election could be won before raising the term (Raft thesis, section 9.6).
    pub pre_vote: bool,
    /// The bounds.
    pub limits: Limits,
    /// The known bug that this member carries, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    pub mutant: Option<Mutant>,
}

/// The bounds of one member's memory and messages.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Limits {
    /// Bytes of entries in one append message; a single larger entry still travels, alone.
    pub append_bytes_max: u64,
    /// Append messages to one member that may be unanswered.
    pub in_flight_messages_max: u32,
    /// Bytes of entries to one member that may be unanswered.
    pub in_flight_bytes_max: u64,
    /// Entries in one batch to apply.
    pub apply_entries_max: u32,
    /// Bytes of entries in one batch to apply; a single larger entry still comes, alone.
    pub apply_bytes_max: u64,
    /// Reads that wait for their index.
    pub reads_open_max: u32,
    /// Read rounds that wait for their quorum; later reads gather for the next round.
    pub read_rounds_max: u32,
    /// Bytes that a leader appended and nobody has committed yet.
    pub uncommitted_bytes_max: u64,
}

/// Known bugs, each one a line that a checker must miss.
#[cfg(mutants)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Mutant {
    /// A vote leaves before it is on disk.
    VoteBeforeDurable,
    /// A second candidate gets a vote in the same term.
    VoteTwice,
    /// A vote is given without a look at the candidate's log (Raft paper, section 5.4.1).
    VoteWithoutLogCheck,
    /// An acknowledgement leaves before its entries are on disk.
    AcceptBeforeDurable,
    /// A leader counts its own copy when it appends (etcd issue 14370).
    OwnMatchAtAppend,
    /// A leader counts copies of an older term's entry (Raft paper, section 5.4.2).
    CommitOlderTerm,
    /// An append is taken without a look at the entry before it (Raft paper, section 5.3).
    AppendWithoutMatch,
    /// A heartbeat tells a commit index that its receiver may not have matched.
    HeartbeatCommitUncapped,
    /// A commit index travels with heartbeats and entries alone.
    CommitNotBroadcast,
    /// A leader answers reads from what it knew when it was elected (Raft thesis, section 6.4).
    ReadBeforeOwnCommit,
    /// A leader answers reads without asking whether it still leads.
    ReadWithoutQuorum,
    /// All rounds of reads have the same token, so that an old answer proves a new round (etcd issue 20418).
    ReadTokenReused,
    /// A learner's copy counts for the commit index (Raft thesis, section 4.2.1).
    LearnerCounts,
    /// A leader appends a change of the membership before the last one is applied (Raft thesis, section 4.1).
    TwoChangesInFlight,
    /// An heir is told to campaign before it has the whole log (Raft thesis, section 3.10).
    TransferWhileBehind,
    /// A snapshot changes the log and leaves the configuration as it was.
    SnapshotWithoutConfiguration,
    /// A snapshot is acknowledged before it is on disk.
    SnapshotBeforeDurable,
    /// A member campaigns without the committed changes that it has not applied.
    CampaignBeforeChange,
}

impl Ticks {
    /// One beat.
    pub const ONE: Self = Self(1);
}

impl Delay {
    /// Somewhere from `min` to `max` ticks.
    #[must_use]
    pub const fn between(min: u32, max: u32) -> Self {
        assert!(min <= max);
        Self { min: Ticks(min), max: Ticks(max) }
    }

    /// Exactly this long.
    #[must_use]
    pub const fn exactly(ticks: Ticks) -> Self {
        Self { min: ticks, max: ticks }
    }
}

impl Config {
    /// A member with etcd's defaults.
    #[must_use]
    pub const fn new(id: MemberId) -> Self {
        Self {
            id,
            election: ELECTION,
            heartbeat: HEARTBEAT,
            pre_vote: true,
            limits: Limits::DEFAULT,
            #[cfg(mutants)]
            mutant: None,
        }
    }
}

impl Limits {
    /// etcd's bounds where it has them, ours where it has none.
    pub const DEFAULT: Self = Self {
        append_bytes_max: MIB,
        in_flight_messages_max: 512,
        in_flight_bytes_max: 64 * MIB,
        apply_entries_max: 1024,
        apply_bytes_max: MIB,
        reads_open_max: 65_536,
        read_rounds_max: 4,
        uncommitted_bytes_max: 128 * MIB,
    };
}

/// Whether this member carries the named bug. Always `false`, and free, in a normal build.
macro_rules! mutated {
    ($config:expr, $mutant:ident) => {{
        #[cfg(mutants)]
        let mutated = $config.mutant == Some($crate::raft::config::Mutant::$mutant);
        #[cfg(not(mutants))]
        let mutated = false;
        mutated
    }};
}
pub(super) use mutated;

const MIB: u64 = 1024 * 1024;
const ELECTION: Delay = Delay::between(10, 19);
const HEARTBEAT: Delay = Delay::exactly(Ticks::ONE);

const _: () = {
    // A leader speaks several times before patience ends.
    assert!(HEARTBEAT.max.0 * 5 <= ELECTION.min.0);
    let limits = Limits::DEFAULT;
    // One full message fits in the window, and what may be in flight may be uncommitted.
    assert!(limits.append_bytes_max <= limits.in_flight_bytes_max);
    assert!(limits.in_flight_bytes_max <= limits.uncommitted_bytes_max);
    assert!(0 < limits.read_rounds_max && limits.read_rounds_max <= limits.reads_open_max);
};
