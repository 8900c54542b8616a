//! A run of a cluster: members and network with their troubles, then everything healed, then the oracles.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use madsim::runtime::Handle;
use madsim::time::Instant;

use super::mover::Mover;
use super::net::Net;
use super::seat::Seat;
use super::storm::{Blackouts, Storm};
use crate::check::consensus::Ledger;
use crate::check::{Promise, Violation, cluster};
use crate::clients::link::Ways;
use crate::clients::watcher::Finish;
use crate::leases::LeaseRecorder;
use crate::machine::{Machine, Trouble};
use crate::mutants::Mutant;
use crate::options::Options;
use crate::record::{Recorder, Trace, Watches};
use crate::run::{newest, note_end, start_clients, start_holders, start_watchers};
use crate::troubles::Troubles;
use crate::world::World;

/// How long after healing operations may still be in doubt: a request that was lost before waits so long for its answer.
const SETTLE: Duration = Duration::from_secs(3);
/// How long members may take to come to the same place in the log once nobody writes.
const LEVEL_PATIENCE: Duration = Duration::from_secs(10);

/// The cluster, and what is known of it.
struct Cluster {
    worlds: Vec<World>,
    net: Net,
    ledger: Ledger,
    leases: LeaseRecorder,
}

/// Plays it.
///
/// # Errors
/// The first broken promise.
pub(crate) async fn play(
    options: &Options,
    mutant: Option<Mutant>,
    trace: &Trace,
    recorder: &Recorder,
) -> Result<(), Violation> {
    trace.line(|| format!("{options:?}"));
    let mut cluster = Cluster::new(options, mutant, trace);
    let ways = cluster.ways();
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = start_clients(options, &ways, (trace, recorder), &is_over);
    clients.extend(start_holders(options, (&ways, &cluster.leases), (trace, recorder), &is_over));
    let mover = Mover::new(ways.link(options.kind), cluster.net.ids(), options, trace.clone());
    let is_healed = Arc::new(AtomicBool::new(false));
    clients.push(Handle::current().create_node().name("mover").build().spawn(mover.run(Arc::clone(&is_healed))));
    let (watches, finish) = (Watches::default(), Finish::default());
    let watchers = start_watchers(options, &ways, (&watches, trace), &finish);
    cluster.suffer(options).await?;
    trace.line(|| "healed".to_owned());
    is_healed.store(true, Ordering::Relaxed);
    cluster.each(|mut world| async { (world.recover().await, world) }).await?;
    cluster.rest(SETTLE).await?;
    let healed = recorder.begin();
    cluster.rest(Duration::from_secs(options.calm_seconds)).await?;
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("a panic ends the run");
    }
    finish.at(recorder.history().operations.iter().map(newest).max().unwrap_or(1));
    for watcher in watchers {
        watcher.await.expect("a panic ends the run");
    }
    cluster.level().await?;
    cluster.each(|mut world| async { (world.stop().await, world) }).await?;
    for world in &cluster.worlds {
        note_end(world.machine(), trace);
    }
    let members: Vec<_> = cluster.worlds.iter().map(|world| (world.machine(), world.gauges().fullest())).collect();
    let mut leases = cluster.leases.history();
    (leases.lives, leases.is_of_several) = (cluster.ledger.reigns(), true);
    cluster::judge(options, &members, (recorder, &watches), &leases, (&cluster.ledger, healed))
}

impl Cluster {
    fn new(options: &Options, mutant: Option<Mutant>, trace: &Trace) -> Self {
        let members = options.cluster.members;
        let net = Net::new(members, options.seed, trace.clone());
        let ledger = Ledger::new(members, trace.clone());
        let leases = LeaseRecorder::default();
        let world = |place: usize| {
            let seed = seed_of(options, place);
            let machine = Machine::new(seed, seed ^ 0x6661_7465, trace.of_member(place));
            let seat = Seat { place, pre_vote: options.cluster.pre_vote, net: net.clone(), ledger: ledger.clone() };
            let mut world = World::seated(options, machine, mutant, Some(seat));
            world.leases = leases.of_member(place + 1);
            world
        };
        let worlds = (0..members).map(world).collect();
        Handle::current().create_node().name("network").build().spawn(net.clone().run());
        Self { worlds, net, ledger, leases }
    }

    /// The ways of clients to all members.
    fn ways(&self) -> Ways {
        Ways::to_all(self.worlds.iter().map(|world| world.ways().door.clone()).collect())
    }

    /// The first phase.
    async fn suffer(&mut self, options: &Options) -> Result<(), Violation> {
        let end = Instant::now() + Duration::from_secs(options.trouble_seconds);
        let plan = (options.cluster.storms, options.cluster.weather);
        let storm = Storm::new(options.seed, plan, self.net.clone(), self.ledger.clone(), self.leases.clone());
        let storm = tokio::spawn(storm.rage(end));
        let machines = self.worlds.iter().map(|world| world.machine().clone()).collect();
        let blackouts = tokio::spawn(Blackouts::new(options, machines).strike(end));
        let reign = |mut world: World, place: usize| {
            let (faults, seed) = (options.faults.clone(), seed_of(options, place));
            let troubles = Troubles::new(faults, seed, options.trouble_seconds, &world);
            async move { (troubles.reign(&mut world).await, world) }
        };
        self.each_at(reign).await?;
        storm.await.expect("a panic ends the run");
        blackouts.await.expect("a panic ends the run");
        self.net.mend();
        for world in &self.worlds {
            world.machine().look().trouble = Trouble::default();
            world.machine().crash_at(None);
        }
        Ok(())
    }

    /// Lets time pass. Who met trouble at the last moment may end after it, and is started again.
    async fn rest(&mut self, time: Duration) -> Result<(), Violation> {
        let end = Instant::now() + time;
        self.each(|mut world| async move {
            while Instant::now() < end {
                if !world.is_up() {
                    world.start();
                }
                world.watch(end.saturating_duration_since(Instant::now())).await;
            }
            (world.check(), world)
        })
        .await
    }

    /// Waits until all members have applied the same.
    async fn level(&self) -> Result<(), Violation> {
        let end = Instant::now() + LEVEL_PATIENCE;
        loop {
            let applied = |place| self.net.housed(place).map(|(member, _)| member.asker().gauges().applied());
            let places: Vec<_> = (0..self.worlds.len()).map(applied).collect();
            if places.iter().all(|place| *place == places[0]) {
                return Ok(());
            }
            if end < Instant::now() {
                let what = format!("members stay at different places of the log: {places:?}");
                return Err(Violation::new(Promise::Progress, what));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Does something with all members at once.
    async fn each<F>(&mut self, work: impl Fn(World) -> F) -> Result<(), Violation>
    where
        F: Future<Output = (Result<(), Violation>, World)> + Send + 'static,
    {
        self.each_at(|world, _| work(world)).await
    }

    async fn each_at<F>(&mut self, work: impl Fn(World, usize) -> F) -> Result<(), Violation>
    where
        F: Future<Output = (Result<(), Violation>, World)> + Send + 'static,
    {
        let worlds = std::mem::take(&mut self.worlds).into_iter().enumerate();
        let working: Vec<_> = worlds.map(|(place, world)| tokio::spawn(work(world, place))).collect();
        let mut outcome = Ok(());
        for each in working {
            let (ended, world) = each.await.expect("a panic ends the run");
            outcome = outcome.and(ended).and(world.check());
            self.worlds.push(world);
        }
        // What members agree on comes first: the rest may follow from it.
        self.ledger.check().and(self.net.check()).and(outcome)
    }
}

fn seed_of(options: &Options, place: usize) -> u64 {
    options.seed.wrapping_add((place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
