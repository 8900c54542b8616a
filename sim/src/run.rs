//! One run: a seed in, a verdict out.
//!
//! Every run has a thread of its own, because the standard library's hash maps draw their order once per thread. A panic in it is a finding.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use madsim::net::Config as NetConfig;
use madsim::runtime::{Handle, Runtime};

use crate::check::quota::Quotas;
use crate::check::{
    Promise, Violation, archive, bounds, durability, heard, latency, lease, progress, quota, replay, watch,
};
use crate::clients::Client;
use crate::clients::archivist::{Archive, Archivist};
use crate::clients::lease::{FIRST, Holder};
use crate::clients::link::Ways;
use crate::clients::steward::Steward;
use crate::clients::watcher::{Finish, Watcher};
use crate::cluster;
use crate::gauges::Fullest;
use crate::leases::{LeaseHistory, LeaseRecorder};
use crate::machine::{Machine, Trouble};
use crate::mutants::Mutant;
use crate::options::Options;
use crate::record::{Lines, Operation, Outcome, Recorder, Trace, Watches};
use crate::troubles::Troubles;
use crate::world::{World, log_dir};

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Which run.
    pub seed: u64,
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// The hash of its trace.
    pub hash: u64,
    /// Operations that ended.
    pub operations: usize,
    /// Virtual seconds.
    pub seconds: u64,
}

/// Virtual time after which a run counts as one that does not end.
const LIFETIME_MAX: Duration = Duration::from_secs(600);
/// How long after healing operations may still be in doubt: longer than any of them waits.
const SETTLE: Duration = Duration::from_secs(2);

/// Runs `options`.
#[must_use]
pub fn run(options: &Options, mutant: Option<Mutant>, lines: Lines) -> Verdict {
    run_into(options, mutant, &Trace::new(lines), &Recorder::default())
}

/// The same, with the trace and the history in the caller's hands: whatever comes of the run, they are there.
#[must_use]
pub fn run_into(options: &Options, mutant: Option<Mutant>, trace: &Trace, recorder: &Recorder) -> Verdict {
    let (options, seed) = (options.clone(), options.seed);
    let (on_trace, recorder) = (trace.clone(), recorder.clone());
    let mut verdict = on_thread(seed, move || async move {
        let violation = if options.kind.is_of_several() {
            cluster::run::play(&options, mutant, &on_trace, &recorder).await
        } else {
            play(&options, mutant, &on_trace, &recorder).await
        };
        Verdict {
            seed,
            violation: violation.err(),
            hash: 0,
            operations: recorder.ended(),
            seconds: madsim::time::TimeHandle::current().elapsed().as_secs(),
        }
    })
    .unwrap_or_else(|violation| Verdict { seed, violation: Some(violation), hash: 0, operations: 0, seconds: 0 });
    verdict.hash = trace.hash();
    verdict
}

/// Plays a simulation on a thread of its own. A panic is an assertion that failed.
pub(crate) fn on_thread<T, F>(seed: u64, play: impl FnOnce() -> F + Send + 'static) -> Result<T, Violation>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let simulate = move || {
        let net =
            NetConfig { packet_loss_rate: 0.0, send_latency: Duration::from_micros(50)..Duration::from_micros(800) };
        let mut runtime = Runtime::with_seed_and_config(seed, madsim::Config { net, ..madsim::Config::default() });
        runtime.set_time_limit(LIFETIME_MAX);
        let ended = runtime.block_on(play());
        end_tasks(&runtime);
        ended
    };
    let thread = std::thread::Builder::new().name(format!("run {seed}"));
    let thread = thread.spawn(|| catch_unwind(AssertUnwindSafe(simulate)));
    let ended = thread.expect("the system has room for a thread").join().expect("the run's panic was caught");
    ended.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Violation::new(Promise::Assertion, text.unwrap_or_else(|| "a panic".to_owned()))
    })
}

/// Drops what the tasks of members and clients hold. A suspended task of madsim's owns itself, so that without this each run would leave some megabytes behind. A run that panics does not get here, and does.
fn end_tasks(runtime: &Runtime) {
    let handle = runtime.handle();
    for node in handle.metrics().num_tasks_by_node().into_keys() {
        handle.kill(node);
    }
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
}

/// The two phases, the orderly end, the oracles.
async fn play(options: &Options, mutant: Option<Mutant>, trace: &Trace, recorder: &Recorder) -> Result<(), Violation> {
    trace.line(|| format!("{options:?}"));
    let machine = Machine::new(options.seed, options.seed ^ 0x6661_7465, trace.clone());
    machine.look().recorder = recorder.clone();
    let mut world = World::new(options, machine.clone(), mutant);
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = start_clients(options, world.ways(), (trace, recorder), &is_over);
    let archive = Archive::default();
    clients.extend(start_archivist(options, world.ways(), (trace, recorder), (&archive, &is_over)));
    clients.extend(start_steward(options, world.ways(), (trace, recorder), &is_over));
    clients.extend(start_holders(options, (world.ways(), &world.leases), (trace, recorder), &is_over));
    let (watches, finish) = (Watches::default(), Finish::default());
    let watchers = start_watchers(options, world.ways(), (recorder, &watches, trace), &finish);
    Troubles::new(options.faults.clone(), options.seed, options.trouble_seconds, &world).reign(&mut world).await?;
    machine.look().trouble = Trouble::default();
    machine.crash_at(None);
    trace.line(|| "healed".to_owned());
    world.recover().await?;
    tokio::time::sleep(options.faults.slowest_commit() + SETTLE).await;
    let healed = recorder.begin();
    for _ in 0..options.calm_seconds {
        world.watch(Duration::from_secs(1)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("a panic ends the run");
    }
    finish.at(recorder.history().operations.iter().map(newest).max().unwrap_or(1));
    for watcher in watchers {
        watcher.await.expect("a panic ends the run");
    }
    let leases = world.leases.history();
    world.stop().await?;
    world.check()?;
    note_end(&machine, trace);
    judge(options, &machine, (recorder, &watches, &archive), (&leases, &world.fullest()), healed)
}

/// What the machine holds in the end stands for every byte that was ever written.
pub(crate) fn note_end(machine: &Machine, trace: &Trace) {
    let inner = machine.look();
    let mut crc = 0;
    for (key, value) in inner.tables().values().flatten() {
        crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value);
    }
    for bytes in inner.image.contents() {
        crc = crc32c::crc32c_append(crc, bytes);
    }
    trace.note(&[u64::from(crc)], || format!("the end: {crc:08x}"));
}

/// The revision that an operation was answered with.
pub(crate) fn newest(operation: &Operation) -> i64 {
    match &operation.outcome {
        Outcome::Answered(answer) => durability::revision_of(answer),
        _ => 1,
    }
}

pub(crate) fn start_clients(
    options: &Options,
    ways: &Ways,
    (trace, recorder): (&Trace, &Recorder),
    is_over: &Arc<AtomicBool>,
) -> Vec<madsim::task::JoinHandle<()>> {
    let make = |id: u64| {
        let ip = format!("10.0.1.{}", id + 1).parse().expect("an address");
        let node = Handle::current().create_node().name(format!("client {id}")).ip(ip).build();
        let client = Client::new(id, ways.link(options.kind), options, recorder.clone(), trace.clone());
        node.spawn(client.run(Arc::clone(is_over)))
    };
    (0..options.load.clients).map(make).collect()
}

/// Somebody who defragments and takes snapshots, in some runs.
pub(crate) fn start_archivist(
    options: &Options,
    ways: &Ways,
    (trace, recorder): (&Trace, &Recorder),
    (archive, is_over): (&Archive, &Arc<AtomicBool>),
) -> Option<madsim::task::JoinHandle<()>> {
    (options.load.upkeep_millis > 0).then(|| {
        let ip = "10.0.5.1".parse().expect("an address");
        let node = Handle::current().create_node().name("archivist").ip(ip).build();
        let link = ways.link(options.kind);
        let archivist = Archivist::new(link, options, archive.clone(), (recorder.clone(), trace.clone()));
        node.spawn(archivist.run(Arc::clone(is_over)))
    })
}

/// Somebody who makes room, if there may be too little of it.
pub(crate) fn start_steward(
    options: &Options,
    ways: &Ways,
    (trace, recorder): (&Trace, &Recorder),
    is_over: &Arc<AtomicBool>,
) -> Option<madsim::task::JoinHandle<()>> {
    (options.member.quota_bytes > 0).then(|| {
        let ip = "10.0.4.1".parse().expect("an address");
        let node = Handle::current().create_node().name("steward").ip(ip).build();
        let steward = Steward::new(ways.link(options.kind), options, recorder.clone(), trace.clone());
        node.spawn(steward.run(Arc::clone(is_over)))
    })
}

pub(crate) fn start_holders(
    options: &Options,
    (ways, leases): (&Ways, &LeaseRecorder),
    (trace, recorder): (&Trace, &Recorder),
    is_over: &Arc<AtomicBool>,
) -> Vec<madsim::task::JoinHandle<()>> {
    let make = |id: u64| {
        let ip = format!("10.0.2.{}", id - FIRST + 1).parse().expect("an address");
        let node = Handle::current().create_node().name(format!("holder {id}")).ip(ip).build();
        let records = (recorder.clone(), leases.clone());
        let holder = Holder::new(id, ways.link(options.kind), options, records, trace.clone());
        node.spawn(holder.run(Arc::clone(is_over)))
    };
    (FIRST..FIRST + options.load.holders).map(make).collect()
}

pub(crate) fn start_watchers(
    options: &Options,
    ways: &Ways,
    (recorder, watches, trace): (&Recorder, &Watches, &Trace),
    finish: &Finish,
) -> Vec<madsim::task::JoinHandle<()>> {
    let make = |id: u64| {
        let ip = format!("10.0.3.{}", id + 1).parse().expect("an address");
        let node = Handle::current().create_node().name(format!("watcher {id}")).ip(ip).build();
        let records = (recorder.clone(), watches.clone(), trace.clone());
        let watcher = Watcher::new(id, ways.link(options.kind), options, records);
        node.spawn(watcher.run(finish.clone()))
    };
    (0..options.watch.clients).map(make).collect()
}

/// All oracles, over what the run left.
pub(crate) fn judge(
    options: &Options,
    machine: &Machine,
    (recorder, watches, archive): (&Recorder, &Watches, &Archive),
    (leases, fullest): (&LeaseHistory, &Fullest),
    healed: u64,
) -> Result<(), Violation> {
    let snapshots = archive::read(&archive.taken())?;
    let replayed = replay::replay(machine, &log_dir(&options.member), &snapshots)?;
    let (history, rows) = heard::check(options, recorder, &replayed, (1, healed))?;
    if options.member.quota_bytes > 0 {
        let quotas = Quotas { bytes: &[options.member.quota_bytes], place_of: &|_| Some(0) };
        quota::check(&history, &replayed.raised, &quotas)?;
    }
    replay::check(machine, &replayed)?;
    archive::check(&snapshots, &replayed.history)?;
    let end = leases.lives.last().map_or(Duration::ZERO, |life| life.1);
    lease::check(leases, machine.look().tables(), &rows, end)?;
    watch::check(watches, &rows, replayed.compactions(), options.watch.limits.fragment_bytes)?;
    bounds::check(options, fullest, &rows)?;
    progress::check(&history, healed)?;
    latency::check(&history, healed)?;
    latency::watchers(options, watches, &history, healed)?;
    latency::holders(leases, history.sent_at(healed))
}
