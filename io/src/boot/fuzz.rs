//! What the fuzzer calls, and the stable tests too: any tree of files and any rows of a store as the place that a member starts on.
//!
//! The invariants it checks, whatever the bytes: a start ends in a member, a refusal or a typed failure, and never in a panic; a refused
//! start leaves the tree as it was, but for the directory and the lock that a claim makes; no file that was there is lost, at least a copy of
//! it stays; a store starts only when its import is done; whoever joins is the one of its URLs that the cluster knows, and has not served; a start
//! that was accepted is accepted again and comes to the same; and a member that was started lives, ends and starts once more, unless its log told of its
//! own removal. A forced start without a log is like any other; the next one is the first that counts, and leaves its member alone. How the
//! bytes are read is said in [`input`].

pub mod input;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use detcd_core::ids::{Index, Term};
use detcd_core::membership::Membership;
use detcd_core::raft::{Configuration, Effect, Effects, Input, Mark, Raft, Timer};

use self::input::{DATA_DIR, WAL_APART};
use super::asked::{Asked, ClusterState, Recovery, parse_members};
use super::execute::{BootError, Booted, Start, boot};
use super::inspect::MARKER;
use super::refusal::Refusal;
use super::url::Url;
use crate::applier::{Applier, Budget, Harvest};
use crate::disk::{Disk, Kind, MemoryDisk};
use crate::fault::Fault;
use crate::store::backend::Backend;
use crate::store::memory::{MemoryBackend, MemoryStores};
use crate::wal::Name;
use crate::wal::entry::Metadata;
use crate::wal::fuzz::ready;

/// What became of the tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// A member started on it.
    Started {
        /// The last entry of its log.
        last: Index,
        /// What it had applied by the end of its short life.
        applied: Index,
    },
    /// The plan said no.
    Refused(String),
    /// Files are damaged or do not fit each other, or hold what is not built.
    Failed(String),
}

/// Everything that a start looks at.
struct World {
    disk: MemoryDisk,
    stores: MemoryStores,
    start: Start,
}

/// What a start came to, as far as a second one must come to the same.
#[derive(Debug, PartialEq)]
struct Facts {
    metadata: Metadata,
    raft: Raft,
    marked: Index,
    membership: Membership,
    applied: Index,
    current: i64,
}

type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Effects carried out in one life; a single member has elected itself and applied its log long before.
const LIFE_STEPS: usize = 64;

/// Starts a member on what `input` describes.
///
/// # Panics
/// If one of the promises above is broken: then there is a bug.
#[must_use]
pub fn start(input: &[u8]) -> Outcome {
    let world = World::parse(input);
    let before = world.tree();
    let is_forced = world.start.asked.recovery == Recovery::ForceNewCluster;
    let mut first = match world.boot() {
        Ok(booted) => facts(&booted),
        Err(BootError::Refused(refusal)) => {
            world.check_untouched(&before);
            return Outcome::Refused(refusal.to_string());
        }
        Err(error) => {
            world.check_kept(&before);
            return Outcome::Failed(error.to_string());
        }
    };
    world.check_kept(&before);
    let marker = world.start.places.store().join(MARKER);
    assert!(!world.tree().contains_key(&marker), "a store whose import is not done has started");
    if world.start.asked.state == ClusterState::Existing && !world.has_log_in(&before) {
        world.check_joined(first.metadata);
    }
    let whose = first.metadata;
    if is_forced && !world.has_log_in(&before) {
        // Without a log a forced start founds or joins like any other, as etcd's does. The next one cuts its member loose, unless
        // it has joined and heard nothing of its cluster yet.
        let before = world.tree();
        first = match world.boot() {
            Ok(booted) => facts(&booted),
            Err(BootError::Fault(fault @ Fault::Unfit { .. })) if first.raft.last() == Mark::ZERO => {
                world.check_kept(&before);
                return Outcome::Failed(fault.to_string());
            }
            Err(error) => panic!("a founder is cut loose: {error}"),
        };
    }
    let again = world.boot_again();
    assert_eq!(facts(&again), first, "a second start comes to the same");
    let store = again.store.clone();
    if let Err(fault) = live(again) {
        return Outcome::Failed(fault.to_string());
    }
    let applied = store.applied().index;
    let batch = store.seal();
    ready(store.backend().commit(&batch)).expect("memory takes every batch");
    let (own, lived) = (first.raft.id(), world.tree());
    let third = match world.boot() {
        Ok(booted) => facts(&booted),
        Err(BootError::Refused(refusal @ Refusal::Removed)) if store.membership().is_removed(own) => {
            world.check_untouched(&lived);
            return Outcome::Refused(refusal.to_string()); // its log told of its own removal
        }
        Err(error) => panic!("a member that lived starts again: {error}"),
    };
    assert_eq!((first.metadata, third.metadata), (whose, whose), "whose log it is never changes");
    assert_eq!(third.applied, applied);
    assert_eq!(third.membership, *store.membership());
    assert_eq!(third.current, store.current());
    assert!(first.raft.term() <= third.raft.term() && first.raft.last().index <= third.raft.last().index);
    assert!(first.raft.commit() <= third.raft.commit());
    let last = third.raft.last().index;
    if is_forced && applied == last {
        assert_eq!(Configuration::of(&third.membership), Configuration::of_voters([own]), "a forced member is alone");
    }
    Outcome::Started { last, applied }
}

impl World {
    fn boot(&self) -> Result<Booted<MemoryDisk, MemoryBackend>, BootError> {
        let open = |directory: PathBuf| async move { self.stores.open(&self.disk, &directory).await };
        ready(boot(&self.disk, &self.start, open))
    }

    fn boot_again(&self) -> Booted<MemoryDisk, MemoryBackend> {
        self.boot().unwrap_or_else(|error| panic!("a start that was accepted is accepted again: {error}"))
    }

    fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut open = [DATA_DIR, WAL_APART, "w.tmp"].map(PathBuf::from).to_vec();
        while let Some(path) = open.pop() {
            let Ok(stat) = ready(self.disk.stat(&path)) else { continue };
            if stat.kind == Kind::Directory {
                let names = ready(self.disk.list(&path)).expect("a directory can be listed");
                open.extend(names.iter().map(|name| path.join(name)));
            }
            let content = self.disk.bytes(&path);
            tree.insert(path, content);
        }
        tree
    }

    /// Whether a member has run on this tree.
    fn has_log_in(&self, tree: &Tree) -> bool {
        let is_segment = |path: &PathBuf| path.file_name().and_then(|name| Name::parse(name.to_str()?)).is_some();
        tree.keys().any(|path| path.parent() == Some(&self.start.places.wal_dir) && is_segment(path))
    }

    /// Whoever joins is the one of its URLs, in the cluster, that those who run told of; and it has not served.
    fn check_joined(&self, metadata: Metadata) {
        let Asked { name, initial_cluster, others, .. } = &self.start.asked;
        let others = others.as_ref().expect("nobody joins a cluster that is not there");
        assert_eq!(metadata.cluster, others.cluster.0, "it joined another cluster");
        let own = others.members.iter().find(|member| member.id == metadata.member).expect("the cluster knows it");
        let named = parse_members(initial_cluster).expect("it was read before");
        let named: BTreeSet<&str> = named[name].iter().map(Url::as_str).collect();
        assert_eq!(own.peer_urls.iter().map(String::as_str).collect::<BTreeSet<_>>(), named, "it joined as another");
        assert!(own.client_urls.is_empty(), "a member that has served joined again");
    }

    /// A refused start changes nothing but what a claim makes; the file of its write test may go, as with etcd.
    fn check_untouched(&self, before: &Tree) {
        let after = self.tree();
        for (path, content) in before.iter().filter(|(path, _)| !path.ends_with(".touch")) {
            assert_eq!(after.get(path), Some(content), "a refused start changed {}", path.display());
        }
        let places = &self.start.places;
        let claimed = BTreeSet::from([places.data_dir.clone(), places.member(), places.lock()]);
        let new = after.keys().find(|path| !before.contains_key(*path) && !claimed.contains(*path));
        assert_eq!(new, None, "a refused start made something");
    }

    /// Every file is there as it was, or a copy of it is. Only what is staged and the file of the write test may go, and an
    /// import's marker once the database has its other name.
    fn check_kept(&self, before: &Tree) {
        let after = self.tree();
        for (path, content) in before {
            let text = path.to_string_lossy();
            if content.is_none() || text.contains(".tmp") || text.ends_with(".touch") {
                continue;
            }
            if *path == self.start.places.store().join(MARKER) && !after.contains_key(&self.start.places.etcd_store()) {
                continue;
            }
            let is_copy = |other: &Path| other.to_string_lossy().starts_with(&*text);
            // A log grows when its member goes on alone.
            let is_same = |kept: &Option<Vec<u8>>| trimmed(kept.as_ref()).starts_with(trimmed(content.as_ref()));
            let is_kept = after.iter().any(|(other, kept)| is_copy(other) && is_same(kept));
            assert!(is_kept, "{} is lost", path.display());
        }
    }
}

/// A log's file may get more zeros behind its end.
fn trimmed(content: Option<&Vec<u8>>) -> &[u8] {
    let bytes = content.map_or(&[][..], Vec::as_slice);
    &bytes[..bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]
}

fn facts(booted: &Booted<MemoryDisk, MemoryBackend>) -> Facts {
    Facts {
        metadata: booted.metadata,
        raft: booted.raft.clone(),
        marked: booted.marked,
        membership: (*booted.store.membership()).clone(),
        applied: booted.store.applied().index,
        current: booted.store.current(),
    }
}

/// A short life: what was committed is applied, and a member that may elect itself does.
///
/// # Errors
/// The machine failed, or the log holds what is not built.
pub fn live<D: Disk, B: Backend>(booted: Booted<D, B>) -> Result<(), Fault> {
    let Booted { mut raft, store, mut wal, .. } = booted;
    let mut applier = Applier::new(store);
    let mut effects = Effects::new();
    let mut harvest = Harvest::default();
    raft.start(&mut effects);
    let budget = Budget { commands: 16, keys: 64 };
    for _ in 0..LIFE_STEPS {
        let mut writes = 0;
        for effect in std::mem::take(&mut effects) {
            match effect {
                Effect::Append(write) => {
                    wal.append(&write);
                    ready(wal.cut_if_full())?;
                    writes += 1;
                }
                Effect::Apply { entries } => applier.push(entries),
                _ => {}
            }
        }
        if writes > 0 {
            ready(wal.sync())?;
            raft.step(Input::Persisted { writes }, &mut effects);
        } else if !applier.is_idle() {
            applier.work(budget, &mut harvest)?;
            for (index, change) in harvest.changes.drain(..) {
                raft.step(Input::ConfigurationChanged { index, change }, &mut effects);
            }
            if applier.is_idle() {
                raft.step(Input::Applied { upto: applier.applied() }, &mut effects);
            }
        } else if raft.leader().is_none() && raft.term() < Term(u64::MAX / 4) {
            raft.step(Input::Expired(Timer::Election), &mut effects);
        } else if effects.is_empty() {
            break;
        }
    }
    ready(wal.close())
}
