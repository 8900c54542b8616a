//! A run of a cluster: members and network with their troubles, then everything healed, then the oracles.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use madsim::runtime::Handle;
use madsim::time::Instant;

use super::mover::Mover;
use super::net::Net;
use super::operator::Operator;
use super::seat::Seat;
use super::storm::{Blackouts, Storm};
use crate::check::cluster::{self, Left};
use crate::check::consensus::Ledger;
use crate::check::replay::has_log;
use crate::check::{Promise, Violation};
use crate::clients::archivist::Archive;
use crate::clients::link::Ways;
use crate::clients::watcher::Finish;
use crate::gate::Gates;
use crate::gauges::Gauges;
use crate::leases::LeaseRecorder;
use crate::machine::{Machine, Trouble};
use crate::mutants::Mutant;
use crate::options::Options;
use crate::record::{Recorder, Trace, Watches};
use crate::run::{newest, note_end, start_archivist, start_clients, start_holders, start_steward, start_watchers};
use crate::troubles::Troubles;
use crate::world::{World, log_dir};

/// How long after healing operations may still be in doubt: a request that was lost before waits so long for its answer.
const SETTLE: Duration = Duration::from_secs(3);
/// How long everything may take to be in order once it is healed: the operator's last doubts, a store on its way, an election.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(45);
/// The time between two looks at that.
const LOOK: Duration = Duration::from_millis(250);
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
    let mut cluster = Cluster::new(options, mutant, (trace, recorder));
    let ways = cluster.ways();
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = start_clients(options, &ways, (trace, recorder), &is_over);
    clients.extend(start_holders(options, (&ways, &cluster.leases), (trace, recorder), &is_over));
    let mover = Mover::new(ways.link(options.kind), cluster.net.clone(), options, trace.clone());
    let (is_healed, is_settled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let orders = cluster.worlds.iter().map(|world| world.operator()).collect();
    let operator = Operator::new(options, cluster.net.clone(), orders, trace.clone());
    let operating = operator.run(Arc::clone(&is_healed), Arc::clone(&is_settled));
    clients.push(Handle::current().create_node().name("operator").build().spawn(operating));
    let ip = "10.0.6.1".parse().expect("an address");
    let mover_node = Handle::current().create_node().name("mover").ip(ip).build();
    clients.push(mover_node.spawn(mover.run(Arc::clone(&is_healed))));
    let (watches, finish) = (Watches::default(), Finish::default());
    let watchers = start_watchers(options, &ways, (recorder, &watches, trace), &finish);
    let archive = Archive::default();
    clients.extend(start_archivist(options, &ways, (trace, recorder), (&archive, &is_over)));
    clients.extend(start_steward(options, &ways, (trace, recorder), &is_over));
    cluster.suffer(options).await?;
    trace.line(|| "healed".to_owned());
    is_healed.store(true, Ordering::Relaxed);
    cluster.recover(&is_settled).await?;
    cluster.rest(options.faults.slowest_commit() + SETTLE).await?;
    cluster.ledger.heal();
    let healed = recorder.begin();
    cluster.rest(Duration::from_secs(options.calm_seconds)).await?;
    is_over.store(true, Ordering::Relaxed);
    let (recorded, is_done) = (recorder.clone(), Arc::new(AtomicBool::new(false)));
    let done = Arc::clone(&is_done);
    let last_words = tokio::spawn(async move {
        for client in clients {
            client.await.expect("a panic ends the run");
        }
        finish.at(recorded.history().operations.iter().map(newest).max().unwrap_or(1));
        for watcher in watchers {
            watcher.await.expect("a panic ends the run");
        }
        done.store(true, Ordering::Relaxed);
    });
    while !is_done.load(Ordering::Relaxed) {
        cluster.rest(LOOK).await?;
    }
    last_words.await.expect("a panic ends the run");
    cluster.level().await?;
    cluster.each(|mut world| async { (world.stop().await, world) }).await?;
    cluster.judge(options, trace, (recorder, &watches, &archive), healed)
}

impl Cluster {
    fn new(options: &Options, mutant: Option<Mutant>, (trace, recorder): (&Trace, &Recorder)) -> Self {
        let founders = options.cluster.members;
        let places = options.cluster.places();
        let ledger = Ledger::new(trace.clone());
        let net = Net::new(places, options.seed, ledger.clone(), trace.clone());
        let (leases, gates) = (LeaseRecorder::default(), Gates::default());
        let world = |place: usize| {
            let seed = seed_of(options, place);
            let machine = Machine::new(seed, seed ^ 0x6661_7465, trace.of_member(place));
            machine.look().recorder = recorder.of_member(place);
            let (net, ledger) = (net.clone(), ledger.clone());
            let seat = Seat { place, founders, pre_vote: options.cluster.pre_vote, net, ledger };
            let mut world = World::seated(&options.of_member(place), machine, mutant, Some(seat));
            world.leases = leases.of_member(place + 1);
            world.given.ways.gates = gates.clone();
            world
        };
        let worlds: Vec<World> = (0..places).map(world).collect();
        let gauges = worlds.iter().map(|world| world.given.gauges.clone()).collect();
        let outside = Handle::current().create_node().name("network").build();
        outside.spawn(net.clone().run());
        outside.spawn(Gauges::watch_all(gauges, net.clone()));
        Self { worlds, net, ledger, leases }
    }

    /// The ways of clients to all members.
    fn ways(&self) -> Ways {
        let gates = self.worlds[0].ways().gates.clone();
        Ways::to_all(self.worlds.iter().map(|world| world.ways().door.clone()).collect(), gates)
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

    /// Waits until everything is in order: whoever belongs to the cluster serves and follows the same leader, and nobody else runs.
    async fn recover(&mut self, is_settled: &AtomicBool) -> Result<(), Violation> {
        let end = Instant::now() + RECOVERY_PATIENCE;
        loop {
            self.rest(LOOK).await?;
            self.dismiss_forlorn().await;
            let is_late = |world: &&World| world.is_wanted() != world.is_serving() || self.is_removed(world);
            let late: Vec<usize> =
                self.worlds.iter().enumerate().filter(|(_, world)| is_late(world)).map(|(place, _)| place).collect();
            let is_settled = is_settled.load(Ordering::Relaxed);
            if late.is_empty() && is_settled && self.is_led() {
                return Ok(());
            }
            if end < Instant::now() {
                let led = self.is_led();
                let what = format!(
                    "after {RECOVERY_PATIENCE:?} members {late:?} are not in order (operator: {is_settled}, led: {led})"
                );
                return Err(Violation::new(Promise::Progress, what));
            }
        }
    }

    /// Whether everyone agrees who leads. Without pre-votes a member that was away campaigns with its old log until somebody
    /// else does, and puts the others off each time, as etcd's do: that takes as long as the dice say.
    fn is_led(&self) -> bool {
        let wanted = (0..self.worlds.len()).filter(|place| self.worlds[*place].is_wanted());
        let leaders: Vec<_> = wanted
            .map(|place| {
                let (member, _) = self.net.housed(place)?;
                let gauges = member.asker().gauges();
                gauges.leader().map(|leader| (leader, gauges.term()))
            })
            .collect();
        leaders.iter().all(|leader| leader.is_some() && *leader == leaders[0])
    }

    /// Ends members that joined, started again before they had heard of anybody, and were removed meanwhile: nobody talks to them, and they know nobody to ask. etcd's wait for ever, too.
    async fn dismiss_forlorn(&mut self) {
        for place in 0..self.worlds.len() {
            if self.is_removed(&self.worlds[place]) && self.net.knows_nobody(place) {
                self.worlds[place].dismiss().await;
            }
        }
    }

    /// Whether somebody is up who was removed.
    fn is_removed(&self, world: &World) -> bool {
        world.place().is_some_and(|place| world.is_up() && self.ledger.has_removed(self.net.id_at(place)))
    }

    /// Lets time pass. Who met trouble at the last moment may end after it, and is started again.
    async fn rest(&mut self, time: Duration) -> Result<(), Violation> {
        let end = Instant::now() + time;
        self.each(|mut world| async move {
            while Instant::now() < end {
                if !world.is_up() && world.is_wanted() {
                    world.start();
                }
                world.watch(end.saturating_duration_since(Instant::now())).await;
            }
            (world.check(), world)
        })
        .await
    }

    /// Waits until all members have applied the same.
    async fn level(&mut self) -> Result<(), Violation> {
        let end = Instant::now() + LEVEL_PATIENCE;
        loop {
            let applied = |place| self.net.housed(place).map(|(member, _)| member.asker().gauges().applied());
            let wanted = (0..self.worlds.len()).filter(|place| self.worlds[*place].is_wanted());
            let places: Vec<_> = wanted.map(applied).collect();
            if places.iter().all(|place| *place == places[0]) {
                return Ok(());
            }
            if end < Instant::now() {
                let what = format!("members stay at different places of the log: {places:?}");
                return Err(Violation::new(Promise::Progress, what));
            }
            self.rest(Duration::from_millis(20)).await?;
        }
    }

    /// All oracles, over what is left.
    fn judge(
        &self,
        options: &Options,
        trace: &Trace,
        told: (&Recorder, &Watches, &Archive),
        healed: u64,
    ) -> Result<(), Violation> {
        for world in &self.worlds {
            note_end(world.machine(), trace);
        }
        let has_log = |world: &World| has_log(world.machine(), &log_dir(&world.options.member));
        let used = self.worlds.iter().filter(|world| world.is_wanted() || has_log(world));
        let members: Vec<Left<'_>> = used.map(Left::of).collect();
        let quotas: Vec<u64> = self.worlds.iter().map(|world| world.options.member.quota_bytes).collect();
        let mut leases = self.leases.history();
        (leases.lives, leases.is_of_several) = (self.ledger.reigns(), true);
        cluster::judge(options, &members, told, &leases, (&self.ledger, &quotas, healed))
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
            outcome = outcome.and(ended).and_then(|()| world.check());
            self.worlds.push(world);
        }
        // What members agree on comes first: the rest may follow from it.
        self.ledger.check().and_then(|()| self.net.check()).and(outcome)
    }
}

fn seed_of(options: &Options, place: usize) -> u64 {
    options.seed.wrapping_add((place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
