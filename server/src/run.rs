//! One life of a member: bind, boot, run the parts, publish, serve, and end in order.
//!
//! Ports are bound before the data directory is touched, and clients are served only after the member has published itself: `ready to serve
//! client requests` and the service manager's readiness mean exactly that.

use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use detcd_core::ids::MemberId;
use detcd_core::mvcc::index::Gathering;
use detcd_core::raft;
use detcd_io::boot::asked::{Asked, Recovery};
use detcd_io::boot::execute::{BootError, Booted, Start, boot};
use detcd_io::boot::found::{Found, Presence};
use detcd_io::boot::inspect::inspect;
use detcd_io::boot::journal::{self, Journal};
use detcd_io::boot::machine::{Machine, go_arch};
use detcd_io::boot::plan::{Notice, names_a_cluster};
use detcd_io::clock::wall_millis;
use detcd_io::disk::RealDisk;
use detcd_io::driver::{self, Peers};
use detcd_io::entropy::Entropy;
use detcd_io::fault::Fault;
use detcd_io::peer::spool::{Spool, spool};
use detcd_io::peer::{Directory, Peer, Transport as _, inbox};
use detcd_io::snap::membership;
use detcd_io::store::lmdb::Lmdb;
use detcd_io::wal::SEGMENT_BYTES;
use detcd_server::auto_compact;
use detcd_server::compose::{Assembled, Carriers, Written, assemble, lease_rules};
use detcd_server::config::Config;
use detcd_server::log::{Line, Log, Severity};
use detcd_server::member::Member;
use detcd_server::publish;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::allocator;
use crate::listen::{self, Bound};
use crate::metrics::Metrics;
use crate::notify;
use crate::peer::forward::Http;
use crate::peer::others::others;
use crate::peer::{Membership, Network};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// How a member's life ended well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    /// By this signal.
    Signal(i32),
    /// By its removal from the cluster.
    Removed,
    /// By a leader's store, on which it starts again.
    Installing,
}

/// How it ended otherwise.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It did not start.
    Boot(BootError),
    /// A port could not be bound.
    Listener { address: String, cause: String },
    /// The machine failed.
    Fault(Fault),
    /// The process could not be set up.
    Process(std::io::Error),
}

impl Failure {
    /// The last line of the log.
    pub(crate) fn line(&self) -> Line {
        match self {
            Self::Boot(error) => {
                let line = Line::new(Severity::Fatal, "discovery failed").with("error", error.to_string());
                match error {
                    BootError::Refused(refusal) if !refusal.hint().is_empty() => line.with("hint", refusal.hint()),
                    _ => line,
                }
            }
            Self::Listener { address, cause } => Line::new(Severity::Fatal, "discovery failed")
                .with("error", format!("listen tcp {address}: bind: {cause}")),
            Self::Fault(fault) => {
                Line::new(Severity::Fatal, "the member stops: the machine failed").with("error", fault.to_string())
            }
            Self::Process(error) => Line::new(Severity::Fatal, "cannot start").with("error", error.to_string()),
        }
    }
}

/// The counters beside the data directory. Writing them is best effort: it never stops a start.
struct Counters {
    path: Option<PathBuf>,
    journal: Journal,
}

impl Counters {
    fn load(config: &Config) -> Self {
        let path = journal::path_beside(&config.data.places.data_dir);
        let journal = path.as_deref().map(journal::load).unwrap_or_default();
        Self { path, journal }
    }

    fn change(&mut self, change: impl FnOnce(&mut Journal)) {
        change(&mut self.journal);
        if let Some(path) = &self.path
            && let Err(error) = journal::save(path, &self.journal)
        {
            tracing::warn!(%error, path = %path.display(), "cannot keep the counters of starts");
        }
    }
}

/// Runs a member until a signal or a failure ends it: one life, or several if leaders send their store.
pub(crate) fn run(config: &Config, log: &Log) -> Result<Ended, Failure> {
    let mut config = config.clone();
    loop {
        match run_once(&config, log)? {
            Ended::Installing => tracing::info!("starting again"),
            ended => return Ok(ended),
        }
        // Those who sent the store have come since: they are not to be given up.
        config.asked.recovery = Recovery::Ordinary;
    }
}

fn run_once(config: &Config, log: &Log) -> Result<Ended, Failure> {
    let began = Instant::now();
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(Failure::Process)?;
    let mut counters = Counters::load(config);
    let bound = runtime.block_on(listen::bind(config)).inspect_err(|_| {
        counters.change(Journal::on_listener_failure);
    })?;
    allocator::let_huge_pages(false);
    let booted = runtime.block_on(start(config)).map_err(|error| {
        counters.change(|journal| journal.on_bootstrap_error(error.reason()));
        log.write(&Line::new(Severity::Error, "bootstrap failed").with("error", error.to_string()));
        Failure::Boot(error)
    })?;
    if booted.notices.iter().any(|notice| matches!(notice, Notice::UnsupportedArch { .. })) {
        counters.change(Journal::on_unsupported_arch);
    }
    tell_notices(&booted, log);
    allocator::give_back();
    allocator::let_huge_pages(true);
    let life = Life { config, counters, began };
    let (ended, copier) = life.live(&runtime, booted, bound)?;
    // With the services go the last who could ask for a copy, and with the copier the last who has the store open.
    drop(runtime);
    let _ = copier.join();
    Ok(ended)
}

/// Looks up what the plan needs, and boots.
async fn start(config: &Config) -> Result<Booted<RealDisk, Lmdb>, BootError> {
    let start = Start {
        places: config.data.places.clone(),
        asked: looked_up(config).await,
        machine: machine(),
        segment_bytes: SEGMENT_BYTES,
        raft: raft_config(config),
        leases: lease_rules(config),
        gathered_rows_max: Gathering::ROWS_MAX,
        #[cfg(mutants)]
        mutant: None,
    };
    boot(&RealDisk, &start, |directory| async move { Lmdb::open(&directory) }).await
}

/// What was asked, with what has to be looked up for it: addresses, and other members where this one has never run.
async fn looked_up(config: &Config) -> Asked {
    let mut asked = config.asked.clone();
    let has_run = match inspect(&RealDisk, &config.data.places).await {
        Found::Member(found) => found.log == Presence::Present,
        _ => false,
    };
    if !has_run && names_a_cluster(&asked) {
        asked.others = others(&asked).await;
    }
    for place in asked.to_resolve() {
        if let Some(address) = place.to_socket_addrs().ok().and_then(|mut addresses| addresses.next()) {
            asked.resolved.insert(place, address);
        }
    }
    asked
}

fn machine() -> Machine {
    let fd_limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    Machine {
        arch: go_arch(std::env::consts::ARCH).to_owned(),
        unsupported_arch: std::env::var("ETCD_UNSUPPORTED_ARCH").ok(),
        fd_limit: fd_limit.map_or(0, |(soft, _)| soft),
    }
}

fn raft_config(config: &Config) -> raft::Config {
    let ticks = u32::try_from(config.raft.election_ticks).unwrap_or(u32::MAX / 2);
    let election = raft::Delay::between(ticks, ticks * 2 - 1);
    raft::Config { election, pre_vote: config.raft.pre_vote, ..raft::Config::new(MemberId(0)) }
}

fn tell_notices(booted: &Booted<RealDisk, Lmdb>, log: &Log) {
    for notice in &booted.notices {
        let line = Line::new(Severity::Warn, notice.message());
        log.write(&match notice.field() {
            Some((name, value)) => line.with(name, value),
            None => line,
        });
    }
}

/// What stays the same through one life.
struct Life<'a> {
    config: &'a Config,
    counters: Counters,
    began: Instant,
}

impl Life<'_> {
    fn live(
        mut self,
        runtime: &Runtime,
        booted: Booted<RealDisk, Lmdb>,
        bound: Bound,
    ) -> Result<(Ended, JoinHandle<()>), Failure> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| Failure::Process(std::io::Error::other(error.to_string())))?;
        let (network, spool, peers) = network(self.config, &booted);
        let assembled =
            assemble(booted, self.config, Entropy::from_bytes(seed), wall_millis(), (peers, Arc::new(Http::default())));
        let Assembled {
            driver,
            writer,
            committer,
            carriers: Carriers { copier, installer, shipper },
            sweeper,
            fanout,
            keeper,
            member,
            stop,
            faults,
            written,
            claim,
        } = assembled;
        let threads = [
            thread("detcd-wal", writer.run()).map_err(Failure::Process)?,
            thread("detcd-store", committer.run()).map_err(Failure::Process)?,
            thread("detcd-install", installer.run()).map_err(Failure::Process)?,
        ];
        let copier = thread("detcd-copy", copier.run()).map_err(Failure::Process)?;
        // They end with those who ask them, and have nothing to bring to an end.
        thread("detcd-spool", spool.run()).map_err(Failure::Process)?;
        let ended = runtime.block_on(async {
            let driver = tokio::spawn(driver.run());
            tokio::spawn(sweeper.run());
            tokio::spawn(shipper.run());
            tokio::spawn(fanout.run());
            // Ends by itself once the driver is gone.
            tokio::spawn(keeper.run());
            self.serve((member, written), (bound, network), driver, faults, stop).await
        });
        // The driver is gone, and with it the other ends of their queues.
        for thread in threads {
            let _ = thread.join();
        }
        drop(claim);
        ended.map(|ended| (ended, copier))
    }

    async fn serve(
        &mut self,
        (member, written): (Member<Lmdb>, Written),
        (bound, network): (Bound, Network),
        mut driver: tokio::task::JoinHandle<Result<driver::Ended, Fault>>,
        mut faults: mpsc::Receiver<Fault>,
        stop: oneshot::Sender<()>,
    ) -> Result<Ended, Failure> {
        let mut sigint = signal(SignalKind::interrupt()).map_err(Failure::Process)?;
        let mut sigterm = signal(SignalKind::terminate()).map_err(Failure::Process)?;
        let (closing, closed) = watch::channel(false);
        let (closing_peers, closed_peers) = watch::channel(false);
        let counted = (written, Arc::clone(network.counts()));
        let metrics = Metrics::new(&member, &self.counters.journal, counted, self.config.extensive_metrics);
        let peers = listen::serve_peers(bound.peers, member.clone(), network.clone(), &closed_peers);
        let client_urls: Vec<String> = self.config.urls.advertise_client.iter().map(ToString::to_string).collect();
        let mut clients = None;
        let publishing = publish::publish(&member, &client_urls);
        tokio::pin!(publishing);
        let mut bound_clients = Some(bound.clients);
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut driver => break driver_ended(ended),
                Some(fault) = faults.recv() => break Err(Failure::Fault(fault)),
                _ = sigint.recv() => break Ok(Ended::Signal(SIGINT)),
                _ = sigterm.recv() => break Ok(Ended::Signal(SIGTERM)),
                () = &mut publishing, if clients.is_none() => {
                    let sockets = bound_clients.take().unwrap_or_default();
                    let limits = &self.config.limits;
                    clients = Some(listen::serve_clients(sockets, &member, metrics.clone(), limits, &closed));
                    self.ready(&metrics);
                    if let Some(retention) = self.config.store.retention {
                        tokio::spawn(auto_compact::run(member.clone(), retention));
                    }
                    let deciding = member.clone();
                    tokio::spawn(async move { publish::decide_versions(&deciding).await });
                }
            }
        };
        if let Ok(Ended::Signal(signal)) = &ended {
            tracing::info!(signal, "received signal; shutting down...");
            member.retire().await;
        }
        // Nobody listens only if nothing was served yet.
        let _ = closing.send(true);
        // Watch streams are served as long as requests may wait, as etcd does.
        if let Some(clients) = clients {
            let _ = tokio::time::timeout(member.limits().timeout, clients.finished()).await;
        }
        drop(stop);
        let last = if driver.is_finished() { None } else { Some(driver.await) };
        // The driver's last words are to be heard.
        network.set_peers(&[]);
        let _ = closing_peers.send(true);
        peers.finished().await;
        match last {
            Some(last) if ended.is_ok() && !matches!(last, Ok(Ok(_))) => driver_ended(last),
            _ => ended,
        }
    }

    fn ready(&mut self, metrics: &Metrics) {
        let seconds = self.began.elapsed().as_secs_f64();
        self.counters.change(|journal| journal.on_ready(seconds));
        metrics.ready(seconds);
        let urls: Vec<&str> = self.config.urls.listen_client.iter().map(detcd_io::boot::url::Url::as_str).collect();
        tracing::info!(urls = urls.join(","), "ready to serve client requests");
        if let Err(error) = notify::ready() {
            tracing::warn!(%error, "failed to notify systemd for readiness");
        }
    }
}

/// What the driver's end means to its member, if nobody told it to end.
fn driver_ended(ended: Result<Result<driver::Ended, Fault>, tokio::task::JoinError>) -> Result<Ended, Failure> {
    match ended {
        Ok(Ok(driver::Ended::Removed)) => {
            tracing::warn!("the data-dir used by this member must be removed");
            Ok(Ended::Removed)
        }
        Ok(Ok(driver::Ended::Installing)) => Ok(Ended::Installing),
        Ok(Ok(driver::Ended::Stopped)) => Err(Failure::Fault(Fault::Gone("the driver"))),
        Ok(Err(fault)) => Err(Failure::Fault(fault)),
        Err(error) => Err(Failure::Process(std::io::Error::other(error))),
    }
}

/// What connects this member with others: the transport, what writes the stores that they send, and the driver's line.
fn network(config: &Config, booted: &Booted<RealDisk, Lmdb>) -> (Network, Spool<RealDisk>, Peers) {
    let (inbox, arrivals) = inbox();
    let directory = Directory::new(booted.metadata.cluster, booted.metadata.member);
    let (spool, spooler) = spool(RealDisk, &config.data.places.snap());
    let store = booted.store.clone();
    let members: Membership = Arc::new(move || membership::json(&store.membership()).into());
    let urls: Vec<String> = config.urls.advertise_peer.iter().map(ToString::to_string).collect();
    let network = Network::new(directory.clone(), inbox, spooler, members, &urls);
    let first = booted.others.iter().map(|other| Peer { id: other.id, urls: other.peer_urls.clone() }).collect();
    let peers = Peers { transport: Arc::new(network.clone()), arrivals, directory, first };
    (network, spool, peers)
}

/// A thread for a part that blocks. It has a small runtime of its own for the part's queues and pauses.
fn thread(name: &str, part: impl Future<Output = ()> + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(part))
}
