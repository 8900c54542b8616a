//! Every crash point of an import: a directory that etcd wrote, a start that is cut short at each call, and starts until one succeeds.
//!
//! Whatever the first crash left, the store in the end holds what an undisturbed import makes of the same files, the database lies under its other name with
//! all its bytes, and nothing unfinished is left beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use detcd_core::ids::MemberId;
use detcd_core::mvcc::index::Gathering;
use detcd_core::raft::Config;
use detcd_io::boot::asked::{Asked, ClusterState, Recovery};
use detcd_io::boot::execute::{Start, boot};
use detcd_io::boot::inspect::Places;
use detcd_io::boot::machine::Machine as Computer;
use detcd_io::store::leases::LeaseRules;
use madsim::runtime::Handle;

use crate::check::{Promise, Violation};
use crate::disk::SimDisk;
use crate::machine::{At, Crash, CrashPoint, Machine, Side};
use crate::record::{Lines, Trace};
use crate::run::on_thread;
use crate::store::{SimBackend, Tables};
use crate::world::DATA_DIR;

/// Files below the data directory.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What an import comes to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Imported {
    /// The tables of the store.
    pub tables: Tables,
    /// Calls of the first start.
    pub calls: u64,
}

/// How often a start may be tried after the crash.
const STARTS_MAX: usize = 3;

/// The points of an import that makes `calls` calls.
#[must_use]
pub fn points(calls: u64) -> Vec<CrashPoint> {
    let sides = [Side::Before, Side::After];
    let crashes = [Crash::Kill, Crash::PowerCut];
    let at = |call| {
        sides.into_iter().flat_map(move |side| crashes.map(|crash| CrashPoint { at: At::Call(call), side, crash }))
    };
    (1..=calls).flat_map(at).collect()
}

/// Imports `files` with a crash at `point`, drawing with `seed` what it leaves; then the power fails once more in any case.
///
/// # Errors
/// A promise was broken.
pub fn play(files: &Files, point: Option<CrashPoint>, seed: u64) -> Result<Imported, Violation> {
    let files = files.clone();
    on_thread(seed, move || async move { acts(&files, point, seed).await })?
}

async fn acts(files: &Files, point: Option<CrashPoint>, seed: u64) -> Result<Imported, Violation> {
    let broken = |what: String| Violation::new(Promise::Durability, what);
    let machine = Machine::new(seed, seed, Trace::new(Lines::Forget));
    for (path, bytes) in files {
        machine.look().image.place(&Path::new(DATA_DIR).join(path), bytes);
    }
    machine.crash_at(point);
    let first = start(&machine).await;
    let calls = machine.calls();
    machine.crash_at(None);
    if point.is_none() {
        first.clone().map_err(broken)?;
    }
    machine.crash(Crash::PowerCut);
    let mut last = Err("never tried".to_owned());
    for _ in 0..STARTS_MAX {
        last = start(&machine).await;
        if last.is_ok() {
            break;
        }
    }
    last.map_err(|error| broken(format!("no start succeeds after a crash: {error}")))?;
    machine.crash(Crash::PowerCut);
    start(&machine).await.map_err(|error| broken(format!("the imported member does not start again: {error}")))?;
    check(&machine, files).map_err(broken)?;
    let tables = machine.look().tables().clone();
    Ok(Imported { tables, calls })
}

/// One start, to its end or to the crash.
async fn start(machine: &Machine) -> Result<(), String> {
    let node = Handle::current().create_node().name("member").build();
    let life = machine.begin_life(node.id());
    let task = node.spawn(async move {
        let opening = |directory: PathBuf| SimBackend::open(life.clone(), directory);
        let booted = boot(&SimDisk::new(life.clone()), &asked(), opening).await;
        booted.map(drop).map_err(|error| error.to_string())
    });
    let ended = tokio::select! {
        biased;
        () = machine.crashed() => Err("crashed".to_owned()),
        ended = task => ended.unwrap_or_else(|error| Err(error.to_string())),
    };
    machine.end_process();
    ended
}

fn asked() -> Start {
    Start {
        places: Places::new(PathBuf::from(DATA_DIR), None),
        asked: Asked {
            name: "a".to_owned(),
            initial_cluster: String::new(),
            token: String::new(),
            state: ClusterState::New,
            advertise_peer_urls: Vec::new(),
            learners_max: 1,
            recovery: Recovery::Ordinary,
            others: None,
            resolved: BTreeMap::new(),
        },
        machine: Computer { arch: "amd64".to_owned(), unsupported_arch: None, fd_limit: 1024 },
        segment_bytes: 4 << 10,
        raft: Config::new(MemberId(0)),
        leases: LeaseRules::new(Duration::from_millis(100), 10),
        gathered_rows_max: Gathering::ROWS_MAX,
        #[cfg(mutants)]
        mutant: None,
    }
}

/// The database is whole under its other name, and nothing unfinished is left.
fn check(machine: &Machine, files: &Files) -> Result<(), String> {
    let inner = machine.look();
    let member = Path::new(DATA_DIR).join("member");
    let snap = inner.image.below(&member.join("snap"), |_| true);
    let kept: Vec<&Path> = snap.keys().filter_map(|path| path.file_name().map(Path::new)).collect();
    let database = Path::new("member/snap/db");
    if snap.get(&member.join("snap/db.imported")) != files.get(database) || snap.contains_key(&member.join("snap/db")) {
        return Err(format!("the database of etcd is not kept under its other name: {kept:?}"));
    }
    for name in ["lmdb.tmp", "lmdb/importing"] {
        if inner.image.node(&member.join(name)).is_ok() {
            return Err(format!("{name} is left over"));
        }
    }
    Ok(())
}
