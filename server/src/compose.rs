//! The parts of a member and the queues between them. Nothing runs yet: who runs what, and on which thread, is the composition root's affair – the binary's
//! or the simulator's.

use std::sync::Arc;
use std::time::Duration;

use detcd_core::ids::MemberId;
use detcd_io::boot::execute::Booted;
use detcd_io::boot::inspect::Claim;
use detcd_io::committer::{Committer, Places};
use detcd_io::copier::{Copier, Copies, copier};
use detcd_io::defragmenter::Defragmenter;
use detcd_io::disk::Disk;
use detcd_io::driver::ask::Asker;
use detcd_io::driver::{Carried, CarrierLines, Driver, Lines, Parts, Peers, Settings, bounds};
use detcd_io::entropy::Entropy;
use detcd_io::fault::Fault;
use detcd_io::installer::{self, Installer};
use detcd_io::keeper::LeaseKeeper;
use detcd_io::shipper::Shipper;
use detcd_io::stats::{CommitStats, LogStats};
use detcd_io::store::backend::Backend;
use detcd_io::store::leases::LeaseRules;
use detcd_io::sweeper::Sweeper;
use detcd_io::wal::{Metadata, Writer};
use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::fanout::{self, Fanout};
use crate::forward::Forward;
use crate::member::{Identity, Member, Network, RequestLimits, Upkeep};

/// What etcd adds to the limit of a request where it cuts watch responses.
const FRAGMENT_OVERHEAD_BYTES: usize = 512 * 1024;
/// Log files that stay at least, whatever was asked.
const WALS_LEAST: usize = 2;
/// The committer's queue: at most one job of each kind waits.
const JOBS_MAX: usize = 4;

/// A member in parts.
pub struct Assembled<D: Disk, B: Backend> {
    /// Owns the engine. Runs on the gRPC runtime.
    pub driver: Driver<B>,
    /// Writes the log. Blocks.
    pub writer: Writer<D>,
    /// Writes the store. Blocks.
    pub committer: Committer<B, D>,
    /// Carry whole stores away and in.
    pub carriers: Carriers<D, B>,
    /// Removes what compactions leave behind. Runs on the gRPC runtime.
    pub sweeper: Sweeper<B>,
    /// Tells watchers what happens. Runs on the gRPC runtime.
    pub fanout: Fanout<B>,
    /// Keeps the leases. Ends after the driver.
    pub keeper: LeaseKeeper<B>,
    /// What the services share.
    pub member: Member<B>,
    /// Ends the driver when it is sent to or dropped; the writer and the committer end after it.
    pub stop: oneshot::Sender<()>,
    /// Failures of the machine that a service met.
    pub faults: mpsc::Receiver<Fault>,
    /// What the parts that write count.
    pub written: Written,
    /// The data directory is this process's while it lives.
    pub claim: Claim<D::File>,
}

/// The parts that carry whole stores.
pub struct Carriers<D: Disk, B: Backend> {
    /// Copies the store for those who take it away. Blocks.
    pub copier: Copier<B, D>,
    /// Makes stores of what leaders send. Blocks.
    pub installer: Installer<B, D>,
    /// Has copies made for members that need them. Runs on the gRPC runtime.
    pub shipper: Shipper,
}

/// The carriers' ends of their queues to the driver.
struct Carrying {
    wanted: mpsc::Receiver<MemberId>,
    installs: mpsc::Receiver<installer::Job>,
    carried: mpsc::Sender<Carried>,
}

/// What the parts that write to the disk count.
#[derive(Clone, Debug)]
pub struct Written {
    /// The log writer's.
    pub log: Arc<LogStats>,
    /// The committer's.
    pub commits: Arc<CommitStats>,
}

/// Puts a member together from what boot made.
#[must_use]
pub fn assemble<D: Disk, B: Backend>(
    booted: Booted<D, B>,
    config: &Config,
    mut entropy: Entropy,
    wall_millis: u64,
    (peers, forward): (Peers, Arc<dyn Forward>),
) -> Assembled<D, B> {
    let (log, batches) = mpsc::channel(bounds::LOG_BATCHES_MAX);
    let (reporter, reports) = mpsc::channel(bounds::COMPLETIONS_MAX);
    let (jobs, job_queue) = mpsc::channel(JOBS_MAX);
    let (completer, completions) = mpsc::channel(bounds::COMPLETIONS_MAX);
    let (carrier_lines, carrying) = carrier_lines();
    let (fault_line, faults) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel();
    let disk = booted.wal.disk().clone();
    let places = places(config, &booted);
    let (defragment, defragments) = mpsc::channel(bounds::DEFRAGMENT_ASKS_MAX);
    #[cfg_attr(not(mutants), expect(unused_mut, reason = "changed in builds with mutants"))]
    let mut defragmenter = Defragmenter::new(defragments, config.store.copy_chunk);
    #[cfg(mutants)]
    {
        defragmenter.mutant = booted.mutant;
    }
    let committer = Committer::new(booted.store.backend().clone(), disk, places, job_queue, completer, defragmenter);
    let written = Written { log: Arc::clone(booted.wal.stats()), commits: Arc::clone(committer.stats()) };
    let (watching, limits) = (watching(config, &booted), limits(config, &booted));
    let dice = Entropy::seeded(entropy.draw(0, u64::MAX));
    let network = Network { transport: Arc::clone(&peers.transport), forward };
    let (driver, asker) = Driver::new(Parts {
        settings: driving(config, &booted, wall_millis),
        raft: booted.raft,
        store: booted.store.clone(),
        lines: Lines { log, reports, jobs, completions, carriers: carrier_lines },
        peers,
        entropy,
        stop: stopped,
    });
    #[cfg_attr(not(mutants), expect(unused_mut, reason = "changed in builds with mutants"))]
    let mut sweeper = Sweeper::new(booted.store.clone(), asker.clone(), config.store.sweeps, fault_line.clone());
    let (backend, disk) = (booted.store.backend().clone(), booted.wal.disk().clone());
    #[cfg_attr(not(mutants), expect(unused_mut, reason = "changed in builds with mutants"))]
    let (mut carriers, copies) = carriers((backend, disk), config, &asker, carrying);
    #[cfg(mutants)]
    {
        sweeper.mutant = booted.mutant;
        carriers.copier.mutant = booted.mutant;
    }
    let keeper = LeaseKeeper::new(booted.store.clone(), asker.clone(), limits.timeout);
    let (fanout, handle) = Fanout::new(booted.store.clone(), asker.clone(), dice, watching, fault_line.clone());
    let upkeep = Upkeep { defragment, copies };
    let identity = identity(config, booted.metadata);
    let member = Member::new(asker, booted.store, identity, limits, (handle, upkeep, network), fault_line);
    Assembled {
        driver,
        writer: Writer::new(booted.wal, batches, reporter),
        committer,
        carriers,
        sweeper,
        fanout,
        keeper,
        member,
        stop,
        faults,
        written,
        claim: booted.claim,
    }
}

/// The queues between the driver and the carriers.
fn carrier_lines() -> (CarrierLines, Carrying) {
    let (wanted, wants) = mpsc::channel(bounds::SHIPMENTS_MAX);
    let (installs, jobs) = mpsc::channel(bounds::INSTALLS_MAX);
    // Room for one of each. Whoever has two in it keeps the other waiting until the driver has taken one.
    let (carrier, carried) = mpsc::channel(2);
    let carrying = Carrying { wanted: wants, installs: jobs, carried: carrier };
    (CarrierLines { wanted, installs, carried }, carrying)
}

fn carriers<D: Disk, B: Backend>(
    (backend, disk): (B, D),
    config: &Config,
    asker: &Asker,
    lines: Carrying,
) -> (Carriers<D, B>, Copies) {
    let Carrying { wanted, installs, carried } = lines;
    let (places, gauges) = (&config.data.places, asker.shared_gauges());
    let (copier, copies) = copier(backend.clone(), disk.clone(), &places.snap(), config.store.copy_chunk, gauges);
    let line = (installs, carried.clone());
    let installer = Installer::new(backend, disk, places.clone(), lease_rules(config), line);
    let shipper = Shipper::new(asker.clone(), copies.clone(), wanted, carried);
    (Carriers { copier, installer, shipper }, copies)
}

fn driving<D: Disk, B: Backend>(config: &Config, booted: &Booted<D, B>, wall_millis: u64) -> Settings {
    Settings {
        member: booted.metadata.member,
        tick: config.raft.heartbeat,
        batch_interval: config.store.batch_interval,
        batch_operations: usize::try_from(config.store.batch_ops_max).unwrap_or(usize::MAX),
        overlay_max: config.store.overlay_max,
        apply_turn: config.store.apply_turn,
        snapshot_entries: config.data.snapshot_entries,
        catch_up_entries: config.data.catch_up_entries,
        marked: booted.marked,
        wall_millis,
        #[cfg(mutants)]
        mutant: booted.mutant,
    }
}

fn identity(config: &Config, of: Metadata) -> Identity {
    Identity { cluster: of.cluster, member: of.member, name: config.asked.name.clone() }
}

#[cfg_attr(not(mutants), expect(unused_variables, reason = "asked in builds with mutants"))]
fn places<D: Disk, B: Backend>(config: &Config, booted: &Booted<D, B>) -> Places {
    let kept = |count: u64| match usize::try_from(count).unwrap_or(usize::MAX) {
        0 => usize::MAX,
        count => count,
    };
    Places {
        wal: config.data.places.wal_dir.clone(),
        snap: config.data.places.snap(),
        wals_max: kept(config.data.wals_max).max(WALS_LEAST),
        snaps_max: kept(config.data.snapshots_max),
        #[cfg(mutants)]
        mutant: booted.mutant,
    }
}

#[cfg_attr(not(mutants), expect(unused_variables, reason = "asked in builds with mutants"))]
fn watching<D: Disk, B: Backend>(config: &Config, booted: &Booted<D, B>) -> fanout::Settings {
    fanout::Settings {
        progress_interval: config.watch.progress_interval,
        election: config.raft.election,
        limits: config.watch.limits,
        #[cfg(mutants)]
        mutant: booted.mutant.and_then(detcd_io::mutants::Mutant::of_watching),
    }
}

/// How a member of this configuration treats leases.
#[must_use]
pub fn lease_rules(config: &Config) -> LeaseRules {
    LeaseRules::new(config.raft.heartbeat, config.raft.election_ticks)
}

#[cfg_attr(not(mutants), expect(unused_variables, reason = "asked in builds with mutants"))]
fn limits<D: Disk, B: Backend>(config: &Config, booted: &Booted<D, B>) -> RequestLimits {
    let request_bytes_max = usize::try_from(config.limits.request_bytes_max).unwrap_or(usize::MAX);
    let cut = config.watch.limits.fragment_bytes;
    RequestLimits {
        strict_reconfig: config.limits.strict_reconfig,
        request_bytes_max,
        txn_ops_max: usize::try_from(config.limits.txn_ops_max).unwrap_or(usize::MAX),
        timeout: Duration::from_secs(5) + 2 * config.raft.election,
        leader_loss: 2 * config.raft.election,
        quota_bytes: config.limits.quota_bytes,
        fragment_bytes: cut.unwrap_or_else(|| request_bytes_max.saturating_add(FRAGMENT_OVERHEAD_BYTES)),
        #[cfg(mutants)]
        mutant: booted.mutant,
    }
}
