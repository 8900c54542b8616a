//! The configuration: complete, checked, and the same whichever source it came from.
//!
//! Invariant: a [`Config`] that exists has passed every check that can be made without touching the disk, and has no field that
//! still means "the default, to be found later". Reading it has no effects: warnings are returned as lines, errors as values.
//!
//! Reading order: this file, [`mod@read`] (from sources to a value), [`validate`] (etcd's rules and texts), [`build`] (values into this
//! shape, and what is refused because it is not built), [`refused`] (errors and how they end).

pub mod build;
pub mod fuzz;
pub mod read;
pub mod refused;
pub mod validate;

use std::time::Duration;

use detcd_core::mvcc::auto_compact::Retention;
use detcd_io::applier::Budget;
use detcd_io::boot::asked::Asked;
use detcd_io::boot::inspect::Places;
use detcd_io::boot::url::Url;
use detcd_io::store::copying::Chunk;
use detcd_io::store::overlay::OverlayMax;
use detcd_io::sweeper::Pace;

use crate::fanout;
use crate::log::{Format, Line, Output, Severity};
pub use read::read;
pub use refused::Refused;

/// Everything a start needs to know from its operator.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Which member of which cluster.
    pub asked: Asked,
    /// Directories and what is kept in them.
    pub data: Data,
    /// Addresses.
    pub urls: Urls,
    /// Time and votes.
    pub raft: Raft,
    /// What a client may ask for.
    pub limits: Limits,
    /// How the store gathers writes.
    pub store: Store,
    /// How watchers are served.
    pub watch: Watch,
    /// Log lines.
    pub logging: Logging,
    /// Whether metrics tell how long requests of each method take.
    pub extensive_metrics: bool,
}

/// Directories and what is kept in them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Data {
    /// The data directory and the log's.
    pub places: Places,
    /// Committed entries between two snapshot files.
    pub snapshot_entries: u64,
    /// Entries kept in memory for slow members.
    pub catch_up_entries: u64,
    /// Log segments kept; 0 for all.
    pub wals_max: u64,
    /// Snapshot files kept; 0 for all.
    pub snapshots_max: u64,
}

/// Addresses. Every list is sorted and has each URL once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Urls {
    /// Where members are served.
    pub listen_peer: Vec<Url>,
    /// Where clients are served.
    pub listen_client: Vec<Url>,
    /// What members are told.
    pub advertise_peer: Vec<Url>,
    /// What clients are told.
    pub advertise_client: Vec<Url>,
}

/// Time and votes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Raft {
    /// Between two heartbeats: one tick.
    pub heartbeat: Duration,
    /// The shortest wait for a leader.
    pub election: Duration,
    /// The same in ticks, rounded down.
    pub election_ticks: u64,
    /// Whether a member asks before it stands for election.
    pub pre_vote: bool,
}

/// What a client may ask for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Whether changes of the membership that endanger the majority are refused.
    pub strict_reconfig: bool,
    /// Operations of one transaction.
    pub txn_ops_max: u64,
    /// Bytes of one request.
    pub request_bytes_max: u64,
    /// Streams of one connection.
    pub streams_max: u32,
    /// Bytes of the store at which writes stop; below zero: never.
    pub quota_bytes: i64,
}

/// How the store gathers writes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Store {
    /// The longest time between two commits.
    pub batch_interval: Duration,
    /// The most operations between two commits.
    pub batch_ops_max: u64,
    /// What may be applied and not yet durable; no flag sets it.
    pub overlay_max: OverlayMax,
    /// What is applied between two looks at everything else; no flag sets it.
    pub apply_turn: Budget,
    /// How fast compactions remove rows.
    pub sweeps: Pace,
    /// How much of it is copied at once; no flag sets it.
    pub copy_chunk: Chunk,
    /// How much history is kept; `None` for all of it.
    pub retention: Option<Retention>,
}

/// How watchers are served.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Watch {
    /// The time between two reports of progress.
    pub progress_interval: Duration,
    /// What all of it may use; no flag sets it.
    pub limits: fanout::Limits,
}

/// Log lines.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Logging {
    /// What matters less is not written.
    pub threshold: Severity,
    /// How a line looks.
    pub format: Format,
    /// Where lines go.
    pub output: Output,
}

impl Default for Logging {
    /// The log of a start that has not read its configuration yet, or never will.
    fn default() -> Self {
        Self { threshold: Severity::Info, format: Format::Json, output: Output::Stderr }
    }
}

/// What a command line comes down to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// Print the help and end well.
    Help,
    /// Print the version and end well.
    Version,
    /// Start a member.
    Start(Box<Config>),
}

/// What reading the configuration came to. The lines are to be logged in either case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// What to log once there is a log.
    pub lines: Vec<Line>,
    /// What to do, or why nothing is done.
    pub result: Result<Request, Refused>,
}
