//! Scenes of three members: what agreement costs, what a lost leader costs, and how fast a member that was away comes back.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use detcd_proto::etcdserverpb::{StatusRequest, StatusResponse};
use nix::errno::Errno;
use prost::Message;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::play::{micros, millis};
use super::process::Meter;
use super::stage::{SceneError, Stage};
use super::{ClusterScale, ClusterScene, Scale};
use crate::load::client::{Answer, CallError, Caller};
use crate::load::requests::Requests;
use crate::load::{Edge, KeyOrder, LoadError, Pace, Plan, Shape, Span, Workload, run};
use crate::table::cpu::CpuClock;
use crate::table::rows::Size;
use crate::table::seat::Seat;
use crate::table::server::{Kind, Server};

/// How many they are.
pub const MEMBERS: usize = 3;
/// Length of the values.
const VALUE_BYTES: usize = 256;
/// How long a member may take to serve, or to have what the others have.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long one question may take.
const ATTEMPT_PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks at whether a member is ready.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Between two attempts to put while there may be no leader.
const PROBE_INTERVAL: Duration = Duration::from_millis(5);

/// Members of one kind that form a cluster.
#[derive(Debug)]
pub struct Cluster {
    kind: Kind,
    program: PathBuf,
    home: TempDir,
    seats: [Seat; MEMBERS],
    members: [Option<Server>; MEMBERS],
}

impl Cluster {
    /// Starts them on empty directories and waits until each has answered a put.
    pub async fn start(kind: Kind, program: &Path, parent: &Path) -> Result<Self, SceneError> {
        std::fs::create_dir_all(parent)?;
        let home = tempfile::Builder::new().prefix(&format!("{kind}-cluster-")).tempdir_in(parent)?;
        let seats = Seat::together(home.path())?;
        let mut cluster = Self { kind, program: program.to_owned(), home, seats, members: Default::default() };
        for member in 0..MEMBERS {
            cluster.begin(member)?;
        }
        for member in 0..MEMBERS {
            cluster.wait_until_serving(member).await?;
        }
        Ok(cluster)
    }

    /// Where they serve clients.
    pub fn addresses(&self) -> [SocketAddr; MEMBERS] {
        self.seats.each_ref().map(|seat| seat.client)
    }

    /// The CPU clocks of those that run.
    pub fn clocks(&self) -> Result<Vec<CpuClock>, Errno> {
        self.members.iter().flatten().map(Server::cpu_clock).collect()
    }

    fn begin(&mut self, member: usize) -> Result<(), SceneError> {
        let started = Server::start_member(self.kind, &self.program, self.home.path(), &self.seats[member])?;
        self.members[member] = Some(started);
        Ok(())
    }

    /// Ends a member at once, as a lost machine would.
    fn kill(&mut self, member: usize) {
        self.members[member] = None;
    }

    async fn wait_until_serving(&self, member: usize) -> Result<(), SceneError> {
        let deadline = Instant::now() + PATIENCE;
        while !puts(self.seats[member].client).await {
            if deadline < Instant::now() {
                return Err(LoadError::Ended(format!("member {} does not serve", member + 1)).into());
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Which member leads, by its own word.
    async fn leader(&self) -> Result<usize, SceneError> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for (member, seat) in self.seats.iter().enumerate() {
                if let Some(status) = status(seat.client).await
                    && status.header.as_ref().is_some_and(|header| header.member_id == status.leader)
                {
                    return Ok(member);
                }
            }
            sleep(LOOK_INTERVAL).await;
        }
        Err(LoadError::Ended("there is no leader".to_owned()).into())
    }

    /// Waits until a member has applied what another one has now.
    async fn wait_until_level(&self, member: usize, with: usize) -> Result<(), SceneError> {
        let goal = status(self.seats[with].client).await.map(|status| status.raft_applied_index);
        let Some(goal) = goal else {
            return Err(LoadError::Ended("a member that runs has no status".to_owned()).into());
        };
        let deadline = Instant::now() + PATIENCE;
        while status(self.seats[member].client).await.is_none_or(|status| status.raft_applied_index < goal) {
            if deadline < Instant::now() {
                return Err(LoadError::Ended(format!("member {} does not catch up", member + 1)).into());
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }
}

/// What a member says of itself, if it says anything.
async fn status(server: SocketAddr) -> Option<StatusResponse> {
    let asked = async {
        let answer = Caller::connect(server).await?.ask("/etcdserverpb.Maintenance/Status", &StatusRequest {}).await?;
        let Answer::Message(message) = answer else { return Ok(None) };
        Ok::<_, CallError>(StatusResponse::decode(message).ok())
    };
    timeout(ATTEMPT_PATIENCE, asked).await.ok()?.ok()?
}

/// Whether a put is answered well.
async fn puts(server: SocketAddr) -> bool {
    let shape =
        Shape { workload: Workload::Put, key_order: KeyOrder::Sequential, keys: 1, value_bytes: VALUE_BYTES, seed: 0 };
    let asked = async { Caller::connect(server).await?.call(Requests::new(shape).draw(0)).await };
    matches!(timeout(ATTEMPT_PATIENCE, asked).await, Ok(Ok(Answer::Message(_))))
}

/// Puts through these servers in turn, every few milliseconds, until one is answered well.
async fn until_one_puts(servers: &[SocketAddr]) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut attempts = JoinSet::new();
    for &server in servers.iter().cycle() {
        attempts.spawn(puts(server));
        let next = Instant::now() + PROBE_INTERVAL;
        while let Ok(Some(answered)) = tokio::time::timeout_at(next, attempts.join_next()).await {
            if answered? {
                return Ok(());
            }
        }
        tokio::time::sleep_until(next).await;
        if deadline < Instant::now() {
            break;
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no leader came"))
}

impl Stage<'_> {
    /// Starts three members of a kind.
    pub async fn cluster(&self, kind: Kind) -> Result<Cluster, SceneError> {
        if self.options.size == Size::Full {
            nix::unistd::sync();
        }
        Cluster::start(kind, self.program(kind), &self.options.directory).await
    }

    /// Plays a scene of three members.
    pub(super) async fn clustered(&mut self, kind: Kind, scene: ClusterScene) -> Result<Vec<f64>, SceneError> {
        match scene {
            ClusterScene::PutOne => self.requests(kind, Workload::Put, 1).await,
            ClusterScene::PutMany => self.requests(kind, Workload::Put, self.scale.cluster.clients).await,
            ClusterScene::RangeMany => {
                self.requests(kind, Workload::LinearizableRange, self.scale.cluster.clients).await
            }
            ClusterScene::Idle => self.idle(kind).await,
            ClusterScene::LeaderLost => self.leader_lost(kind).await,
            ClusterScene::CatchUp => self.catch_up(kind).await,
        }
    }

    /// Clients in a closed loop, over connections to all members.
    async fn requests(&self, kind: Kind, workload: Workload, clients: usize) -> Result<Vec<f64>, SceneError> {
        let cluster = self.cluster(kind).await?;
        let plan = self.plan_for(cluster.addresses(), clients, self.shape(workload, self.options.keys, VALUE_BYTES));
        if workload != Workload::Put {
            let shape = Shape { workload: Workload::Put, key_order: KeyOrder::Sequential, ..plan.shape };
            run(&Plan { shape, span: Span::Count(self.options.keys), ..plan }, |_| ()).await?;
        }
        let mut meter = Meter::start(cluster.clocks()?)?;
        let mut cost = None;
        let report = run(&plan, |edge| match edge {
            Edge::Opened => meter.restart(),
            Edge::Closed => cost = Some(meter.read()),
        })
        .await?;
        let cost = cost.expect("a window that is over was closed")?;
        let latency = &report.latency;
        let (p50, p99) = (millis(latency, 0.5), millis(latency, 0.99));
        Ok(vec![report.per_second(), p50, p99, micros(cost.server, latency.requests()), cost.generator])
    }

    /// What three members use while nobody asks for anything.
    async fn idle(&self, kind: Kind) -> Result<Vec<f64>, SceneError> {
        let cluster = self.cluster(kind).await?;
        sleep(self.options.warm_up).await;
        let (meter, began) = (Meter::start(cluster.clocks()?)?, Instant::now());
        sleep(self.options.measured).await;
        let cost = meter.read()?;
        Ok(vec![cost.server.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0])
    }

    /// Leaders killed, one after the other, each until another one has put.
    async fn leader_lost(&self, kind: Kind) -> Result<Vec<f64>, SceneError> {
        let mut cluster = self.cluster(kind).await?;
        let mut times = Vec::new();
        for _ in 0..self.scale.cluster.leaders_lost {
            let leader = cluster.leader().await?;
            let others: Vec<usize> = (0..MEMBERS).filter(|&member| member != leader).collect();
            let survivors: Vec<SocketAddr> = others.iter().map(|&other| cluster.seats[other].client).collect();
            let killed = Instant::now();
            cluster.kill(leader);
            until_one_puts(&survivors).await?;
            times.push(killed.elapsed().as_secs_f64() * 1e3);
            cluster.begin(leader)?;
            cluster.wait_until_serving(leader).await?;
            cluster.wait_until_level(leader, others[0]).await?;
            sleep(Duration::from_millis(self.scale.settle_ms / 5)).await;
        }
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        Ok(vec![mean, times.iter().copied().fold(0.0, f64::max)])
    }

    /// A member that was away for very many entries comes back, while the others serve.
    async fn catch_up(&mut self, kind: Kind) -> Result<Vec<f64>, SceneError> {
        let rate = self.cluster_rate().await?;
        let mut cluster = self.cluster(kind).await?;
        let leader = cluster.leader().await?;
        let [away, other] = [(leader + 1) % MEMBERS, (leader + 2) % MEMBERS];
        cluster.kill(away);
        let present = [leader, other, leader].map(|member| cluster.seats[member].client);
        let Scale { clients, disturbed_ms, settle_ms, cluster: ClusterScale { clients: many, .. }, .. } = self.scale;
        let shape = self.shape(Workload::Put, self.options.dataset, VALUE_BYTES);
        let fill = self.plan_for(present, many, shape);
        run(&Plan { span: Span::Count(self.options.dataset), ..fill }, |_| ()).await?;
        sleep(Duration::from_millis(settle_ms)).await;

        let window = Duration::from_millis(disturbed_ms);
        let span = Span::Count((window.as_secs_f64() * rate as f64).ceil() as u64);
        let pace = Pace::Scheduled { per_second: rate };
        let plan = Plan { pace, span, ..self.plan_for(present, clients, shape) };
        let quiet = run(&plan, |_| ()).await?;
        let began = Instant::now();
        cluster.begin(away)?;
        let level = async {
            cluster.wait_until_level(away, leader).await?;
            Ok::<_, SceneError>(began.elapsed())
        };
        let disturbed = async { run(&plan, |_| ()).await.map_err(SceneError::from) };
        let (took, disturbed) = tokio::try_join!(level, disturbed)?;
        let [quiet, disturbed] = [&quiet, &disturbed].map(|report| millis(&report.latency, 0.99));
        Ok(vec![took.as_secs_f64(), quiet, disturbed, disturbed / quiet])
    }
}
