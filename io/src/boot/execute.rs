//! The execution of a plan: look, decide, take the directory, look and decide again, and only then write.
//!
//! The order is what a crash cannot break. A new log appears whole, with its founding entries, by one rename; the store is made after it. A restart loads the store first, which
//! says how far the log of an only voter reaches; then it repairs the log's torn end at most once, reads from the newest mark, and replays what the store does not have yet.

use std::future::Future;
use std::path::{Path, PathBuf};

use detcd_core::ids::{Index, MemberId, Term, Ticket};
use detcd_core::membership::{ConfChangeKind, Member};
use detcd_core::raft::{
    Change, Config, Configuration, Entry, EntryKind, HardState, Malformed, Mark, Raft, Restored, Sync, Write,
};
use detcd_proto::raftpb;
use prost::Message as _;

use super::asked::{Asked, Recovery};
use super::forced;
use super::found::Presence;
use super::import::import;
use super::inspect::{Claim, Places, claim, inspect, settle};
use super::machine::Machine;
use super::plan::{Create, Notice, Plan, Planned, Restart, plan};
use super::refusal::Refusal;
use crate::codec::entry::decode_conf_change;
use crate::disk::Disk;
use crate::fault::Fault;
use crate::installer;
use crate::mutants::mutated;
use crate::snap;
use crate::store::Store;
use crate::store::backend::Backend;
use crate::store::batch::Applied;
use crate::store::leases::LeaseRules;
use crate::wal::{self, Floor, Metadata, Options, Wal, WalError};

/// What a start needs to know.
#[derive(Clone, Debug)]
pub struct Start {
    /// Where the member keeps its things.
    pub places: Places,
    /// What was asked.
    pub asked: Asked,
    /// The machine.
    pub machine: Machine,
    /// Length at which a log file is cut.
    pub segment_bytes: u64,
    /// How the engine behaves; its id is replaced by the one that the log names.
    pub raft: Config,
    /// How leases are treated.
    pub leases: LeaseRules,
    /// Rows of the store that are worked into the index at a time.
    pub gathered_rows_max: usize,
    /// The known bug that it carries, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    pub mutant: Option<crate::mutants::Mutant>,
}

/// A member that may run.
pub struct Booted<D: Disk, B> {
    /// The engine, restored and not started.
    pub raft: Raft,
    /// The store.
    pub store: Store<B>,
    /// The log.
    pub wal: Wal<D>,
    /// Whose log it is.
    pub metadata: Metadata,
    /// The newest mark of the log.
    pub marked: Index,
    /// What to tell the operator.
    pub notices: Vec<Notice>,
    /// Members of a cluster that this one joins, for a first contact.
    pub others: Vec<Member>,
    /// The directory is this process's while it lives.
    pub claim: Claim<D::File>,
    /// The known bug that it carries, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    pub mutant: Option<crate::mutants::Mutant>,
}

/// Why a member did not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The plan says no. Nothing was written but what [`claim`] writes.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The machine failed, or files are damaged.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The log cannot be read.
    #[error("failed to read WAL, cannot be repaired: {0}")]
    Wal(#[from] WalError),
    /// The log and its hard state contradict each other.
    #[error("the log does not fit its own state: {0}")]
    Malformed(Malformed),
}

impl BootError {
    /// The label of `etcd_bootstrap_errors_total`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.reason(),
            Self::Fault(Fault::Unbuilt(_)) => "not_built",
            Self::Fault(_) => "fault",
            Self::Wal(_) => "wal",
            Self::Malformed(_) => "log_malformed",
        }
    }
}

/// Starts a member: `open` opens the store in a directory that exists. An import opens two, one after the other.
///
/// # Errors
/// [`BootError`]; a start that is refused leaves the directory as it was.
pub async fn boot<D, B, F, O>(disk: &D, start: &Start, open: O) -> Result<Booted<D, B>, BootError>
where
    D: Disk,
    B: Backend,
    F: Future<Output = Result<B, Fault>>,
    O: Fn(PathBuf) -> F,
{
    let (claim, Planned { plan, notices }) = take(disk, start).await?;
    let options = Options {
        segment_bytes: start.segment_bytes,
        #[cfg(mutants)]
        mutant: start.mutant,
        ..Options::new(start.places.wal_dir.clone())
    };
    let wal_parent =
        options.dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    disk.create_dir_all(wal_parent).await.map_err(Fault::disk("create", wal_parent))?;
    settle(disk, &start.places.member()).await?;
    settle(disk, wal_parent).await?;
    match &plan {
        Plan::Create(create) => found_log(disk, options.clone(), create).await?,
        Plan::Import(how) => import(disk, start, *how, &open).await?,
        Plan::Restart(_) => {}
    }
    let others = if let Plan::Create(create) = &plan { create.others.clone() } else { Vec::new() };
    if let Plan::Restart(Restart { store: Presence::Absent }) = &plan {
        check_nothing_lost(disk, start, &options).await?;
    }
    make_dir(disk, &start.places.snap()).await?;
    make_dir(disk, &start.places.store()).await?;
    let believed = snap::newest_name(disk, &start.places.snap()).await?.unwrap_or(Mark::ZERO);
    let directory = start.places.store();
    let backend = open(directory.clone()).await?;
    if !mutated!(start, StoreNameNotSynced) {
        // The store's engine makes its files and syncs their bytes, not their names; without them a mark in the log would lead nowhere.
        disk.sync_dir(&directory).await.map_err(Fault::disk("sync", &directory))?;
    }
    let store = Store::load_in_steps_of(start.gathered_rows_max, backend, start.leases).await?;
    #[cfg(mutants)]
    store.infect(start.mutant)?;
    let (mut wal, mut recovered, base) = Wal::open_newest(disk.clone(), options, believed, floor(&store)).await?;
    check_applied(store.applied(), base, &recovered.entries)
        .map_err(|cause| Fault::Unfit { path: directory, cause })?;
    let metadata = recovered.metadata;
    check_membership(&store, metadata.member, start.asked.learners_max)?;
    if start.asked.recovery == Recovery::ForceNewCluster && !matches!(plan, Plan::Create(_)) {
        forced::force(&mut wal, &mut recovered, base, &store).await?;
    }
    let applied = store.applied().index;
    let configuration = configuration(&store, &recovered.entries, recovered.hard_state.commit)?;
    let restored =
        Restored { hard_state: recovered.hard_state, base, configuration, entries: recovered.entries, applied };
    let raft =
        Raft::restore(Config { id: metadata.member, ..start.raft.clone() }, restored).map_err(BootError::Malformed)?;
    Ok(Booted {
        raft,
        store,
        wal,
        metadata,
        marked: base.index,
        notices,
        others,
        claim,
        #[cfg(mutants)]
        mutant: start.mutant,
    })
}

/// How far the log reaches if it is that of the only voter.
fn floor<B: Backend>(store: &Store<B>) -> Option<Floor> {
    let membership = store.membership();
    let mut voters = membership.iter().filter(|member| !member.is_learner);
    let floor = voters.next().map(|voter| Floor { member: voter.id, applied: store.applied().index });
    floor.filter(|_| voters.next().is_none())
}

/// Whether this member may still be one, and the others are as many as it takes.
fn check_membership<B: Backend>(store: &Store<B>, own: MemberId, learners_max: usize) -> Result<(), Refusal> {
    let membership = store.membership();
    if membership.is_removed(own) {
        return Err(Refusal::Removed);
    }
    store.limit_learners(learners_max);
    if learners_max < membership.learners() { Err(Refusal::TooManyLearners) } else { Ok(()) }
}

/// What the log no longer holds was in the store alone. Nothing is made in its place.
async fn check_nothing_lost<D: Disk>(disk: &D, start: &Start, options: &Options) -> Result<(), BootError> {
    let marks = wal::marks(disk, &options.dir).await?;
    match marks.last().map_or(Index::ZERO, |marked| marked.mark.index) {
        Index::ZERO => Ok(()),
        base => {
            let cause = format!("the store is missing, and the log begins only behind entry {base}");
            Err(Fault::Unfit { path: start.places.store(), cause }.into())
        }
    }
}

/// Takes the directory, and plans while nobody else can change it.
async fn take<D: Disk>(disk: &D, start: &Start) -> Result<(Claim<D::File>, Planned), BootError> {
    let decide = |found| plan(&found, &start.asked, &start.machine);
    decide(inspect(disk, &start.places).await)?;
    match claim(disk, &start.places).await {
        Ok(claim) => {
            installer::settle(disk, &start.places, mutated!(start, NewestFileInstalled)).await?;
            Ok((claim, decide(inspect(disk, &start.places).await)?))
        }
        Err(found) => Err(decide(found)
            .map_or_else(BootError::Refused, |_| BootError::Fault(Fault::Locked { path: start.places.lock() }))),
    }
}

/// Makes the log of a new cluster, with its founders as committed entries of term 1.
async fn found_log<D: Disk>(disk: &D, options: Options, create: &Create) -> Result<(), BootError> {
    let entries: Vec<Entry> = create
        .entries()
        .into_iter()
        .map(|founding| {
            let change = raftpb::ConfChange {
                r#type: Some(raftpb::ConfChangeType::ConfChangeAddNode.into()),
                node_id: Some(founding.member.0),
                context: Some(founding.context.into()),
                id: None,
            };
            let payload = change.encode_to_vec().into();
            Entry { term: founding.term, index: founding.index, kind: EntryKind::ConfChange, payload }
        })
        .collect();
    let commit = entries.last().map_or(Index::ZERO, |entry| entry.index);
    // Who joins a cluster that runs starts from nothing at all.
    let hard_state = (!entries.is_empty()).then_some(HardState { term: Term(1), vote: None, commit });
    let metadata = Metadata { member: create.member, cluster: create.cluster.0 };
    let founding = Write { snapshot: None, entries, hard_state, sync: Sync::Required };
    // Dropped at once, to be opened like any other log: one way in.
    drop(Wal::create(disk.clone(), options, metadata, &founding).await?);
    Ok(())
}

/// What the store has applied must be an entry of this very log: its index and its term.
pub(super) fn check_applied(applied: Applied, base: Mark, entries: &[Entry]) -> Result<(), String> {
    let Applied { index, term } = applied;
    if index < base.index {
        return Err(format!("the store ends at index {index}, before the log's newest mark at {}", base.index));
    }
    let in_log = match index.distance_from(base.index) {
        0 => Some(base.term),
        place => usize::try_from(place - 1).ok().and_then(|place| entries.get(place)).map(|entry| entry.term),
    };
    match in_log {
        Some(of_entry) if of_entry != term => Err(format!(
            "the store ends at index {index} of term {term}, but the log's entry there is of term {of_entry}"
        )),
        // Beyond the log's end: whether that may be is the engine's question.
        Some(_) | None => Ok(()),
    }
}

/// Makes a directory of the member, durably.
async fn make_dir<D: Disk>(disk: &D, path: &Path) -> Result<(), Fault> {
    disk.create_dir_all(path).await.map_err(Fault::disk("create", path))?;
    let parent = path.parent().unwrap_or(path);
    disk.sync_dir(parent).await.map_err(Fault::disk("sync", parent))
}

/// Voters and learners where the store stands. The founders' entries count from the start: they are no news to anybody, and a new cluster need not wait for them. What
/// other entries change is told to the engine when they are applied.
fn configuration<B: Backend>(store: &Store<B>, entries: &[Entry], commit: Index) -> Result<Configuration, BootError> {
    let membership = store.membership();
    let mut configuration = Configuration::of(&membership);
    let applied = store.applied().index;
    let founding = entries.iter().take_while(|entry| entry.kind == EntryKind::ConfChange && entry.term == Term(1));
    for entry in founding.filter(|entry| applied < entry.index && entry.index <= commit) {
        let change = decode_conf_change(entry.payload.clone()).map_err(Fault::entry(entry.index, entry.term))?;
        match change.kind {
            ConfChangeKind::AddVoter(member) if change.id == Ticket(0) => {
                let _ = configuration.take(Change::AddVoter(member.id));
            }
            _ => break,
        }
    }
    Ok(configuration)
}
