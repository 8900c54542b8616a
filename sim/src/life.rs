//! One life of a member, from its boot to its end: the second composition root.

use std::path::PathBuf;
use std::sync::Arc;

use detcd_io::boot::execute::{BootError, Booted, Start, boot};
use detcd_io::boot::inspect::Claim;
use detcd_io::driver::{Ended, Peers};
use detcd_io::entropy::Entropy;
use detcd_io::fault::Fault;
use detcd_io::peer::spool::spool;
use detcd_proto::etcdserverpb::kv_server::KvServer;
use detcd_proto::etcdserverpb::lease_server::LeaseServer;
use detcd_proto::etcdserverpb::maintenance_server::MaintenanceServer;
use detcd_proto::etcdserverpb::watch_server::WatchServer;
use detcd_server::auto_compact;
use detcd_server::compose::{Assembled, Carriers, assemble};
use detcd_server::config::Config;
use detcd_server::forward::{Forward, Nobody};
use detcd_server::grpc::kv::KvService;
use detcd_server::grpc::lease::LeaseService;
use detcd_server::grpc::maintenance::MaintenanceService;
use detcd_server::grpc::watch::WatchService;
use detcd_server::member::Member;
use detcd_server::publish;
use madsim::runtime::NodeHandle;
use madsim::task::JoinHandle;
use tokio::sync::{mpsc, oneshot};

use crate::clients::link::Ways;
use crate::cluster::seat::Seat;
use crate::disk::{SimDisk, SimFile};
use crate::door::Services;
use crate::gate::{GatedWatch, Gates};
use crate::gauges::Gauges;
use crate::machine::Life;
use crate::mutants::Mutant;
use crate::options::Kind;
use crate::store::SimBackend;
use crate::world::address;

/// What a member tells whoever started it.
#[derive(Debug)]
pub(crate) enum News {
    /// It serves.
    Ready,
    /// It did not start.
    Refused(BootError),
    /// It did not start on a log that has rotted.
    Rotten(BootError),
    /// It ended with a fault.
    Faulted(Fault),
    /// It ended as it was asked to.
    Stopped,
    /// A leader sent it a store, on which it starts again.
    Installing,
    /// It was removed from its cluster.
    Removed,
}

/// What all lives of a member share.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) mutant: Option<Mutant>,
    pub(crate) kind: Kind,
    pub(crate) ways: Ways,
    pub(crate) gauges: Gauges,
    /// Its place in a cluster.
    pub(crate) seat: Option<Seat>,
}

/// What a life is given besides the machine and the configuration.
pub(crate) struct Running {
    pub(crate) seed: u64,
    /// What the wall clock shows.
    pub(crate) wall_millis: u64,
    pub(crate) given: Given,
    pub(crate) node: NodeHandle,
    pub(crate) stopped: oneshot::Receiver<()>,
    pub(crate) tell: mpsc::UnboundedSender<News>,
}

/// The services that clients see.
fn router(member: &Member<SimBackend>, gates: &Gates) -> tonic::transport::server::Router {
    let mut server = tonic::transport::Server::builder();
    let router = server.add_service(KvServer::new(KvService::new(member.clone())));
    let router = router.add_service(LeaseServer::new(LeaseService::new(member.clone())));
    let router = router.add_service(MaintenanceServer::new(MaintenanceService::new(member.clone())));
    let watch = GatedWatch::new(WatchService::new(member.clone()), gates.clone());
    router.add_service(WatchServer::new(watch))
}

/// Serves clients until `closed`.
async fn serve(given: Given, member: Member<SimBackend>, node: NodeHandle, closed: oneshot::Receiver<()>) {
    let Given { kind, ways, seat, .. } = given;
    let closed = async move { drop(closed.await) };
    if kind.has_network() {
        let address = address(seat.map_or(0, |seat| seat.place));
        let served = router(&member, &ways.gates).serve_with_shutdown(address, closed).await;
        served.expect("nobody else has the address");
    } else {
        ways.door.open(Services::new(&member), node);
        closed.await;
        ways.door.close();
    }
}

/// The parts of a member that end in order.
struct Parts {
    driver: JoinHandle<Result<Ended, Fault>>,
    others: Vec<JoinHandle<()>>,
    stop: oneshot::Sender<()>,
    faults: mpsc::Receiver<Fault>,
    claim: Claim<SimFile>,
}

/// Puts a member together and sets its parts going.
fn assemble_on(
    life: &Life,
    booted: Booted<SimDisk, SimBackend>,
    config: &Config,
    ((seed, wall_millis), given, node): ((u64, u64), &Given, &NodeHandle),
) -> (Member<SimBackend>, Parts) {
    let (spool, spooler) = spool(SimDisk::new(life.clone()), &config.data.places.snap());
    let line: (Peers, Arc<dyn Forward>) = match &given.seat {
        None => (Peers::alone(booted.metadata.cluster, booted.metadata.member), Arc::new(Nobody)),
        Some(seat) => seat.line(booted.metadata, spooler, &booted.others),
    };
    let assembled = assemble(booted, config, Entropy::seeded(seed), wall_millis, line);
    let Assembled { driver, writer, committer, carriers: Carriers { copier, installer, shipper }, .. } = assembled;
    let Assembled { sweeper, fanout, keeper, member, stop, faults, claim, .. } = assembled;
    let others = [
        tokio::spawn(writer.run()),
        tokio::spawn(committer.run()),
        tokio::spawn(sweeper.run()),
        tokio::spawn(keeper.run()),
    ];
    drop((tokio::spawn(fanout.run()), tokio::spawn(copier.run()), tokio::spawn(shipper.run())));
    drop((tokio::spawn(installer.run()), tokio::spawn(spool.run())));
    let driver = match &given.seat {
        None => {
            drop(tokio::spawn(given.gauges.clone().watch(member.clone())));
            driver
        }
        Some(seat) => seat.take(driver, &member, node),
    };
    let parts = Parts { driver: tokio::spawn(driver.run()), others: others.into(), stop, faults, claim };
    (member, parts)
}

/// One life of the member, as the binary lives it: boot, run the parts, publish, serve, end in order.
pub(crate) async fn live(life: Life, start: Start, config: Config, running: Running) -> News {
    let Running { seed, wall_millis, given, node, mut stopped, tell } = running;
    let disk = SimDisk::new(life.clone());
    let opening = |directory: PathBuf| crate::mutants::open(life.clone(), directory, given.mutant);
    let booted = match boot(&disk, &start, opening).await {
        Ok(booted) => booted,
        Err(error) if life.peek().mend() => return News::Rotten(error),
        Err(error) => return News::Refused(error),
    };
    life.peek().mend();
    let (member, mut parts) = assemble_on(&life, booted, &config, ((seed, wall_millis), &given, &node));
    let urls: Vec<String> = config.urls.advertise_client.iter().map(ToString::to_string).collect();
    let (closing, closed) = oneshot::channel::<()>();
    let mut closed = Some(closed);
    let serving_until = |closed: oneshot::Receiver<()>| serve(given.clone(), member.clone(), node.clone(), closed);
    let mut serving = None;
    if crate::mutants::serves_before_replay(given.mutant) {
        serving = closed.take().map(|closed| tokio::spawn(serving_until(closed)));
    }
    let publishing = publish::publish(&member, &urls);
    tokio::pin!(publishing);
    let mut is_published = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut parts.driver => break Some(ended),
            Some(fault) = parts.faults.recv() => return News::Faulted(fault),
            _ = &mut stopped => break None,
            () = &mut publishing, if !is_published => {
                is_published = true;
                if let Some(closed) = closed.take() {
                    serving = Some(tokio::spawn(serving_until(closed)));
                }
                let _ = tell.send(News::Ready);
                if let Some(retention) = config.store.retention {
                    tokio::spawn(auto_compact::run(member.clone(), retention));
                }
                let deciding = member.clone();
                tokio::spawn(async move { publish::decide_versions(&deciding).await });
            }
        }
    };
    drop(closing);
    if let Some(serving) = serving {
        let _ = serving.await;
    }
    let ended = match ended {
        Some(ended) => ended,
        None => {
            drop(parts.stop);
            parts.driver.await
        }
    };
    let news = match ended.expect("a panic ends the run") {
        Ok(Ended::Installing) => News::Installing,
        Ok(Ended::Stopped) => News::Stopped,
        Ok(Ended::Removed) => News::Removed,
        Err(fault) => return News::Faulted(fault),
    };
    for part in parts.others {
        let _ = part.await;
    }
    drop(parts.claim);
    news
}
