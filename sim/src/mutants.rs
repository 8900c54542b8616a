//! Known bugs, put back in on purpose: the proof that the oracles can fail.
//!
//! A build with `--cfg mutants` holds them all and a run chooses one, through a field of the value it lives in; a normal build holds none and this list is
//! empty. The scoreboard says how many seeds each takes, and which oracle sees it.

use std::path::PathBuf;

use detcd_io::boot::execute::Start;
use detcd_io::fault::Fault;

use crate::machine::Life;
use crate::options::Kind;
use crate::store::SimBackend;

#[cfg(mutants)]
pub use with::*;
#[cfg(not(mutants))]
pub use without::*;

/// A build without mutants.
#[cfg(not(mutants))]
mod without {
    use std::io;
    use std::path::Path;

    use super::{Fault, Kind, Life, PathBuf, SimBackend, Start};
    use crate::asked::Asked;

    /// A bug, by name. There is none.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum Mutant {}

    impl Mutant {
        /// The bug of this name.
        #[must_use]
        pub const fn parse(_name: &str) -> Option<Self> {
            None
        }
    }

    /// The names of all bugs, or of those that a kind hunts.
    pub(crate) const fn names(_kind: Option<Kind>) -> Vec<String> {
        Vec::new()
    }

    /// Gives a member the bug.
    #[must_use]
    pub fn infect(start: Start, _mutant: Option<Mutant>) -> Start {
        start
    }

    /// Opens a store.
    pub(crate) async fn open(life: Life, directory: PathBuf, _mutant: Option<Mutant>) -> Result<SimBackend, Fault> {
        SimBackend::open(life, directory).await
    }

    /// Whether clients are served before the log is replayed.
    #[must_use]
    pub const fn serves_before_replay(_mutant: Option<Mutant>) -> bool {
        false
    }

    /// Looks for every bug.
    pub(crate) fn score(_hunt: &Asked, _scoreboard: &Path) -> io::Result<bool> {
        unreachable!("a build without bugs is asked for no hunt")
    }
}

/// A build with mutants.
#[cfg(mutants)]
mod with {
    use detcd_core::mvcc::index::Mutant as Indexing;
    use detcd_core::watch::Mutant as Watching;
    use detcd_core::{lease, raft};
    use detcd_io::mutants as io;

    use super::{Fault, Kind, Life, PathBuf, SimBackend, Start};
    pub(crate) use crate::scoreboard::score;

    /// A bug, and where it lives.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum Mutant {
        /// In the log, the store or the driver.
        Io(io::Mutant),
        /// In the engine.
        Raft(raft::Mutant),
        /// In the treatment of leases.
        Lease(lease::Mutant),
        /// In the order of the start: clients are served, and answered, before the log is replayed.
        ReadBeforeReplay,
    }

    /// Every bug that a single member can have, and what it is.
    const ALL: [(Mutant, &str); 60] = [
        (Mutant::Io(io::Mutant::ReportBeforeSync), "a write is acknowledged before its sync"),
        (Mutant::Raft(raft::Mutant::OwnMatchAtAppend), "an entry is applied before it is in the log (etcd 14370)"),
        (Mutant::Io(io::Mutant::SyncErrorIgnored), "the error of a sync is passed over"),
        (Mutant::Io(io::Mutant::SyncErrorRetried), "a failed sync is tried again on clean pages"),
        (Mutant::Io(io::Mutant::CutWithoutDirSync), "the directory is not synced after a log file's rename"),
        (Mutant::Io(io::Mutant::StoreNameNotSynced), "the directory of the store is not synced"),
        (Mutant::Io(io::Mutant::TornTailAccepted), "a torn record at the log's end is taken"),
        (Mutant::Io(io::Mutant::RottenEndCut), "a log that has rotted is cut like one with a torn end"),
        (Mutant::Io(io::Mutant::HeadsUnchecked), "the heads of records, which no checksum covers, are taken on trust"),
        (Mutant::Io(io::Mutant::HardStateNotWritten), "hard states are not written"),
        (Mutant::Io(io::Mutant::MarkBeforeStoreDurable), "the log is released before the store is durable"),
        (Mutant::Io(io::Mutant::IndexBeforeRows), "the applied index is durable before its rows (etcd 13766)"),
        (
            Mutant::Io(io::Mutant::RowsBeforeIndex),
            "rows are durable before their index, and replayed twice (etcd 14685)",
        ),
        (Mutant::Io(io::Mutant::OverlayDroppedAtSeal), "a batch leaves the overlay before it is durable"),
        (Mutant::ReadBeforeReplay, "reads are served before the log is replayed"),
        (Mutant::Io(io::Mutant::NamesNotSettled), "names that were found are relied on without a sync"),
        (Mutant::Io(io::Mutant::CopyMissesBatches), "what is committed while the store is defragmented is lost"),
        (Mutant::Io(io::Mutant::CopyKeepsTheDead), "rows that are compacted while the store is defragmented stay"),
        (Mutant::Io(io::Mutant::CopyOfAMovingStore), "a snapshot mixes moments"),
        (Mutant::Io(io::Mutant::SweepOneTooFar), "a compaction removes rows of the revision after it"),
        (Mutant::Io(io::Mutant::CompactionNotStored), "the decision to compact is not stored"),
        (Mutant::Io(io::Mutant::CompactionForgotten), "the decision to compact is forgotten at a restart"),
        (Mutant::Io(io::Mutant::HashAtRestart), "a sweep that a crash cut short takes its hash over what is left"),
        (Mutant::Io(io::Mutant::YoungCompacted), "a compaction by age takes what has just been written"),
        (Mutant::Io(io::Mutant::OldKept), "a compaction by age counts as done, and is not proposed"),
        (Mutant::Io(io::Mutant::DuplicateKeysTaken), "a transaction that writes a key twice is proposed"),
        (
            Mutant::Io(io::Mutant::HashAndRevisionApart),
            "a hash of the keys and its revision are read at two moments (etcd 3.7.2, Hash)",
        ),
        (Mutant::Io(io::Mutant::AlarmNotStored), "raised alarms are not stored"),
        (Mutant::Io(io::Mutant::QuotaForgetsTxn), "transactions are not held against the quota"),
        (Mutant::Io(io::Mutant::QuotaReached), "what reaches the quota exactly still passes"),
        (Mutant::Io(io::Mutant::PrevOneTooOld), "the previous value of a change is the one before it"),
        (Mutant::Io(io::Mutant::FragmentAtLimit), "a piece of a watch response may be as large as the limit"),
        (Mutant::Io(io::Mutant::OverlayUnbounded), "what is applied and not yet durable has no bound"),
        (Mutant::Io(io::Mutant::ReadsWaitForBatch), "a read waits until no change waits for its commit"),
        (Mutant::Io(io::Mutant::RecentTooLarge), "the recent revisions take twice their room"),
        (
            Mutant::Lease(lease::Mutant::NoGrace),
            "leases are revoked right after a pause, ahead of renewals (etcd 15247)",
        ),
        (Mutant::Lease(lease::Mutant::RemainderForgotten), "a new leader starts every lease afresh (etcd 9395, 17132)"),
        (Mutant::Lease(lease::Mutant::RemainderKept), "a renewal leaves the stored remainder for the next leader"),
        (Mutant::Lease(lease::Mutant::EndingRenewed), "a lease that is being revoked is renewed (etcd 20590)"),
        (Mutant::Lease(lease::Mutant::AttachmentKept), "a key written without its lease stays attached to it"),
        (watching(Watching::GapAtCatchUp), "a laggard follows after its first chunk, whatever is left"),
        (watching(Watching::FutureStartIgnored), "changes reach watchers that start later (etcd 20221b)"),
        (watching(Watching::ProgressBelowStart), "progress is told below a watcher's start (etcd 20221a)"),
        (watching(Watching::ProgressAhead), "progress is told ahead of changes (etcd 15220)"),
        (watching(Watching::OverflowDropsTail), "what a full stream does not take is lost (etcd 17529)"),
        (watching(Watching::LiveKeepsCursor), "live delivery does not move the cursor (etcd 15271)"),
        (watching(Watching::RevisionTorn), "of a revision with several changes only the first is told"),
        (watching(Watching::LaggardUnfiltered), "filters are forgotten when a watcher lags"),
        (watching(Watching::CompactionOneTooFar), "a laggard is told of a compaction further on than the one that was"),
        (Mutant::Io(io::Mutant::LeasesNotExported), "a snapshot has no leases"),
        (
            watching(Watching::EndToldAgain),
            "a watcher that a compaction overtook is told so again and again (etcd 22294)",
        ),
        (watching(Watching::FollowersWait), "watchers that keep up wait for those that do not"),
        (watching(Watching::ReportedOnce), "progress is reported once, and never again"),
        (Mutant::Io(io::Mutant::SweepUnbounded), "a compaction removes all rows at once"),
        (watching(Watching::ChunkUnbounded), "a step for laggards reads all that the first of them lacks (etcd 22264)"),
        (Mutant::Io(io::Mutant::SerializableBehind), "a serializable read does not see the last revision"),
        (Mutant::Io(io::Mutant::LastKeyUntold), "whoever looks at a lease is not told of its last key"),
        (indexing(Indexing::TombstoneDropped), "a compaction drops tombstones of its very revision (etcd 18089)"),
        (
            Mutant::Io(io::Mutant::TombstoneNotIndexed),
            "a start does not index tombstones of keys that nothing else is known of (etcd 19179)",
        ),
        (
            indexing(Indexing::RewrittenDropped),
            "a compaction drops what its very revision wrote after a delete (etcd 22376)",
        ),
    ];

    /// Bugs that take several members to show, and some of the above that look different there.
    const BETWEEN_MEMBERS: [(Mutant, &str); 33] = [
        (Mutant::Raft(raft::Mutant::VoteBeforeDurable), "a vote leaves before it is on disk"),
        (Mutant::Raft(raft::Mutant::VoteTwice), "a second candidate gets a vote in the same term"),
        (Mutant::Raft(raft::Mutant::VoteWithoutLogCheck), "a vote is given without a look at the candidate's log"),
        (Mutant::Raft(raft::Mutant::AcceptBeforeDurable), "entries are acknowledged before they are on disk"),
        (Mutant::Raft(raft::Mutant::OwnMatchAtAppend), "a leader counts its own copy when it appends (etcd 14370)"),
        (Mutant::Raft(raft::Mutant::CommitOlderTerm), "a leader counts copies of an older term's entries"),
        (Mutant::Raft(raft::Mutant::AppendWithoutMatch), "an append is taken without a look at the entry before it"),
        (Mutant::Raft(raft::Mutant::HeartbeatCommitUncapped), "a heartbeat commits what its receiver has not matched"),
        (Mutant::Raft(raft::Mutant::CommitNotBroadcast), "a commit index travels with heartbeats and entries alone"),
        (Mutant::Raft(raft::Mutant::ReadBeforeOwnCommit), "a new leader answers reads from what it knew before"),
        (Mutant::Raft(raft::Mutant::ReadWithoutQuorum), "a leader answers reads without asking whether it leads"),
        (Mutant::Raft(raft::Mutant::ReadTokenReused), "an old answer proves a new round of reads (etcd 20418)"),
        (Mutant::Raft(raft::Mutant::SnapshotBeforeDurable), "a snapshot is acknowledged before it is on disk"),
        (Mutant::Raft(raft::Mutant::SnapshotWithoutConfiguration), "a snapshot leaves the configuration as it was"),
        (Mutant::Raft(raft::Mutant::LearnerCounts), "a learner's copy counts for the commit index"),
        (
            Mutant::Raft(raft::Mutant::TwoChangesInFlight),
            "a change of the membership is appended before the last one is applied",
        ),
        (Mutant::Raft(raft::Mutant::CampaignBeforeChange), "a member campaigns without committed changes"),
        (Mutant::Raft(raft::Mutant::TransferWhileBehind), "an heir is told to campaign before it has the whole log"),
        (Mutant::Io(io::Mutant::ReportBeforeSync), "a write counts as durable before its sync"),
        (Mutant::Io(io::Mutant::HardStateNotWritten), "terms and votes are not written"),
        (Mutant::Lease(lease::Mutant::RenewedUnproved), "a deposed leader renews leases (etcd 15247)"),
        (Mutant::Lease(lease::Mutant::RemainderForgotten), "a new leader starts every lease afresh (etcd 9395, 17132)"),
        (
            Mutant::Io(io::Mutant::RangesOnlyForCallers),
            "ranges of a transaction are checked only where its caller waits (etcd 18667)",
        ),
        (Mutant::Io(io::Mutant::MessagesReversed), "the messages of a step are sent in reverse (etcd 3.7.3, order)"),
        (
            Mutant::Io(io::Mutant::SerializableBehind),
            "a serializable read does not see the last revision, which the member has told before",
        ),
        (Mutant::Io(io::Mutant::UpdateMakesVoter), "the update of a learner makes a voter of it (etcd 21694)"),
        (
            Mutant::Io(io::Mutant::ChangeNotStored),
            "a promotion or a removal changes the configuration, and not the rows of members (etcd 19557, 20967)",
        ),
        (
            Mutant::Io(io::Mutant::ReceivedNameNotSynced),
            "the directory is not synced when a received store gets its name (etcd 22340)",
        ),
        (
            Mutant::Io(io::Mutant::NewestFileInstalled),
            "a start takes the newest received store, and not the one that the log tells of (etcd 3.7.2)",
        ),
        (Mutant::Io(io::Mutant::CopyMissesBatches), "what is committed while the store is defragmented is lost"),
        (Mutant::Io(io::Mutant::CopyOfAMovingStore), "a snapshot mixes moments"),
        (Mutant::Io(io::Mutant::AlarmNotStored), "raised alarms are not stored"),
        (Mutant::Io(io::Mutant::QuotaForgetsTxn), "transactions are not held against the quota"),
    ];

    /// What runs of this kind look for.
    pub(crate) const fn hunted(kind: Kind) -> &'static [(Mutant, &'static str)] {
        match kind {
            Kind::Engine | Kind::Server => &ALL,
            Kind::Cluster | Kind::Services => &BETWEEN_MEMBERS,
        }
    }

    /// The names of all bugs, or of those that a kind hunts.
    pub(crate) fn names(kind: Option<Kind>) -> Vec<String> {
        let kinds = kind.map_or_else(|| vec![Kind::Engine, Kind::Cluster], |kind| vec![kind]);
        let mut names = Vec::new();
        for name in kinds.into_iter().flat_map(hunted).map(|(mutant, _)| mutant.name()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    const fn indexing(mutant: Indexing) -> Mutant {
        Mutant::Io(io::Mutant::Index(mutant))
    }

    const fn watching(mutant: Watching) -> Mutant {
        Mutant::Io(io::Mutant::Watch(mutant))
    }

    impl Mutant {
        /// Its word on the command line and in the scoreboard.
        pub(crate) fn name(self) -> String {
            match self {
                Self::Io(io::Mutant::Watch(mutant)) => format!("{mutant:?}"),
                Self::Io(io::Mutant::Index(mutant)) => format!("{mutant:?}"),
                Self::Io(mutant) => format!("{mutant:?}"),
                Self::Raft(mutant) => format!("{mutant:?}"),
                Self::Lease(mutant) => format!("{mutant:?}"),
                Self::ReadBeforeReplay => format!("{self:?}"),
            }
        }

        /// The bug of this name.
        #[must_use]
        pub fn parse(name: &str) -> Option<Self> {
            ALL.iter().chain(&BETWEEN_MEMBERS).map(|(mutant, _)| *mutant).find(|mutant| mutant.name() == name)
        }
    }

    /// Gives a member the bug.
    #[must_use]
    pub fn infect(mut start: Start, mutant: Option<Mutant>) -> Start {
        match mutant {
            Some(Mutant::Io(mutant)) => start.mutant = Some(mutant),
            Some(Mutant::Raft(mutant)) => start.raft.mutant = Some(mutant),
            Some(Mutant::Lease(mutant)) => start.leases.pace.mutant = Some(mutant),
            Some(Mutant::ReadBeforeReplay) => start.raft.mutant = Some(raft::Mutant::ReadBeforeOwnCommit),
            None => {}
        }
        start
    }

    /// Opens a store, with the bug if it is one of the backend.
    pub(crate) async fn open(life: Life, directory: PathBuf, mutant: Option<Mutant>) -> Result<SimBackend, Fault> {
        let forgets_names = mutant == Some(Mutant::Io(io::Mutant::ReceivedNameNotSynced));
        let mut backend = SimBackend::open(life, directory).await?;
        backend.forgets_names = forgets_names;
        Ok(backend)
    }

    /// Whether clients are served before the log is replayed.
    #[must_use]
    pub fn serves_before_replay(mutant: Option<Mutant>) -> bool {
        mutant == Some(Mutant::ReadBeforeReplay)
    }
}
