//! Every crash point of a short life: boot, first append, a cut, a store commit, a snapshot mark and the release behind it, a defragmentation, a copy.
//!
//! One scenario, played once without a crash to count its calls, then once for each call, each side of it and each kind of crash. After the crash the member starts
//! again and goes on working, and then the power fails in any case: whatever the first crash left undone – a directory that nobody synced any more – shows
//! at the second.

use std::time::Duration;

use detcd_io::store::copying::Chunk;
use detcd_io::store::overlay::OverlayMax;
use madsim::runtime::Handle;

use crate::check::{Promise, Violation};
use crate::clients::Client;
use crate::clients::archivist::{Archive, Archivist};
use crate::cluster::options::ClusterOptions;
use crate::machine::{At, Crash, CrashPoint, Machine, Side};
use crate::mutants::Mutant;
use crate::options::{
    Batch, ELECTION_MILLIS, Faults, Kind, Load, MemberOptions, Options, PATIENCE_MILLIS, Slow, Steps, Values,
    WatchLoad, Weights,
};
use crate::record::{Lines, Recorder, Trace, Watches};
use crate::run::{judge, on_thread};
use crate::world::World;

/// Operations before the second crash.
const FIRST_ACT: u64 = 45;
/// When the store is defragmented and then copied: in the middle of the first act.
const MOMENT: Duration = Duration::from_millis(60);
/// Operations after it.
const SECOND_ACT: u64 = 6;

/// A short life in which everything happens that touches the disk.
#[must_use]
pub fn scenario(log_apart: bool) -> Options {
    Options {
        kind: Kind::Server,
        seed: 7,
        trouble_seconds: 0,
        calm_seconds: 0,
        member: MemberOptions {
            segment_bytes: 4 << 10,
            snapshot_entries: 12,
            catch_up_entries: 5_000,
            wals_max: 2,
            batch: Batch { millis: 10, operations: 10 },
            election_millis: ELECTION_MILLIS,
            log_apart,
            steps: Steps { copy: Chunk { rows: 12, bytes: 10_000 }, ..Steps::USUAL },
            quota_bytes: 0,
            overlay_max: OverlayMax::default(),
            retention_seconds: 0,
        },
        load: Load {
            clients: 1,
            rate: 1,
            keys: 5,
            crowd: None,
            values: Values { bytes_max: 700, large: 0 },
            weights: Weights { put: 6, range: 1, stream: 0, delete: 1, txn: 2, hash: 0, compact: 2 },
            impatience: 0,
            patience_millis: PATIENCE_MILLIS,
            holders: 0,
            rewrites: 0,
            upkeep_millis: 0,
            unlawful: 0,
        },
        watch: WatchLoad::nobody(),
        faults: Faults {
            crash_millis: 0,
            crashes: vec![Crash::PowerCut],
            restart_millis: 0,
            disk_millis: 0,
            sync_millis: 0,
            full_millis: 0,
            slow: Slow { millis: 0, call_millis: 0, commit_millis: 0 },
            pause_millis: 0,
            at_stores: 0,
            only_leaders: false,
            rot: 0,
        },
        cluster: ClusterOptions::ONE,
    }
}

/// The points of a scenario: before and after each call, killed and without power.
///
/// # Errors
/// The scenario fails without any crash.
pub fn points(options: &Options, mutant: Option<Mutant>) -> Result<Vec<CrashPoint>, Violation> {
    let calls = play(options, mutant, None, Lines::Forget)?;
    let sides = [Side::Before, Side::After];
    let crashes = [Crash::Kill, Crash::PowerCut];
    let at = |call| {
        sides.into_iter().flat_map(move |side| crashes.map(|crash| CrashPoint { at: At::Call(call), side, crash }))
    };
    Ok((1..=calls).flat_map(at).collect())
}

/// Plays a scenario with a crash at `point`. Says how many calls its first act made.
///
/// # Errors
/// A promise was broken.
pub fn play(
    options: &Options,
    mutant: Option<Mutant>,
    point: Option<CrashPoint>,
    lines: Lines,
) -> Result<u64, Violation> {
    let options = options.clone();
    on_thread(options.seed, move || async move { acts(&options, mutant, point, Trace::new(lines)).await })?
}

async fn acts(
    options: &Options,
    mutant: Option<Mutant>,
    point: Option<CrashPoint>,
    trace: Trace,
) -> Result<u64, Violation> {
    let fate = point.map_or(0, |point| match point.at {
        At::Call(call) => call * 2 + u64::from(point.side == Side::After),
        At::Rename | At::Received | At::Installed => 1,
    });
    let machine = Machine::new(options.seed, fate, trace.clone());
    let recorder = Recorder::default();
    let mut world = World::new(options, machine.clone(), mutant);
    machine.crash_at(point);
    let link = world.ways().link(options.kind);
    let client = |id: u64| Client::new(id, link.clone(), options, recorder.clone(), trace.clone());
    let (archive, records) = (Archive::default(), (recorder.clone(), trace.clone()));
    let archivist = Archivist::new(link.clone(), options, archive.clone(), records);
    let archivist = after_a_moment(archivist.run_once());
    accompany(&mut world, client(0), FIRST_ACT).await?;
    drop(archivist);
    let calls = machine.calls();
    machine.crash_at(None);
    world.crash(Crash::PowerCut).await;
    world.check()?;
    world.recover().await?;
    let healed = recorder.begin();
    accompany(&mut world, client(1), SECOND_ACT).await?;
    world.stop().await?;
    world.check()?;
    judge(
        options,
        &machine,
        (&recorder, &Watches::default(), &archive),
        (&world.leases.history(), &world.fullest()),
        healed,
    )?;
    Ok(calls)
}

/// Somebody beside the clients, a little later than they.
fn after_a_moment(work: impl Future<Output = ()> + Send + 'static) -> madsim::task::JoinHandle<()> {
    let ip = "10.0.5.1".parse().expect("an address");
    let node = Handle::current().create_node().name("archivist").ip(ip).build();
    node.spawn(async {
        tokio::time::sleep(MOMENT).await;
        work.await;
    })
}

/// Lets a client work to its end, and starts the member whenever it is down.
async fn accompany(world: &mut World, client: Client, operations: u64) -> Result<(), Violation> {
    world.recover().await?;
    let id = client.id();
    let ip = format!("10.0.1.{}", id + 1).parse().expect("an address");
    let node = Handle::current().create_node().name(format!("client {id}")).ip(ip).build();
    let mut working = node.spawn(client.run_some(operations));
    for _ in 0..2_000 {
        tokio::select! {
            biased;
            ended = &mut working => {
                ended.expect("a panic ends the run");
                return Ok(());
            }
            () = world.watch(Duration::from_millis(10)) => {}
        }
        world.check()?;
        if !world.is_up() {
            world.start();
        }
    }
    Err(Violation::new(Promise::Progress, "the client does not come to its end".to_owned()))
}
