//! Clusters of real processes on loopback: killed, stopped, grown, wiped and cut, under a load that is checked afterwards.

mod damage;
mod downgrade;
mod forced;
mod growth;
mod kills;
mod leadership;
mod leases;
mod load;
mod wiped;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use detcd_proto::etcdserverpb as pb;
use nix::sys::signal::Signal;
use pb::cluster_client::ClusterClient;
use pb::kv_client::KvClient;
use pb::maintenance_client::MaintenanceClient;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::member::{Home, Member};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one request may take: a stopped process answers nothing.
const REQUEST: Duration = Duration::from_secs(3);
/// The ports from here on are below those that the kernel gives to clients, so nobody takes a member's while it is down.
const FIRST_PORT: u16 = 10_000;
const PORTS: u16 = 20_000;

static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

fn own_port() -> u16 {
    let process = u16::try_from(std::process::id() * 64 % u32::from(PORTS)).unwrap();
    loop {
        let next = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST_PORT + (process + next % PORTS) % PORTS;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// One member and a connection to it that outlives its restarts.
pub(crate) struct Node {
    pub home: Home,
    pub channel: Channel,
    process: Option<Member>,
}

impl Node {
    fn new(directory: &TempDir, number: usize) -> Self {
        let name = format!("m{number}");
        let home = Home::of_cluster(&directory.path().join(&name), &name, own_port(), own_port());
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", home.client_port)).unwrap();
        Self { home, channel: endpoint.connect_timeout(REQUEST).timeout(PATIENCE).connect_lazy(), process: None }
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    pub(crate) fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    pub(crate) fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.as_ref().unwrap().signal(signal);
    }

    /// Stops the member until it gets a SIGCONT.
    pub(crate) fn pause(&self) {
        self.process.as_ref().unwrap().pause();
    }

    pub(crate) fn spawn(&mut self) {
        self.process = Some(self.home.spawn());
    }

    /// Waits until the member serves linearizable reads.
    pub(crate) async fn serves(&mut self) {
        self.home.serves(self.process.as_mut().unwrap()).await;
    }

    pub(crate) async fn start(&mut self) {
        self.spawn();
        self.serves().await;
    }

    /// Waits until the process ends.
    pub(crate) fn ended(&mut self) -> std::process::ExitStatus {
        self.process.take().unwrap().wait()
    }

    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.ended();
    }

    /// What the member says of itself, if it answers.
    pub(crate) async fn status(&self) -> Option<pb::StatusResponse> {
        let mut client = self.maintenance();
        let asked = tokio::time::timeout(REQUEST, client.status(pb::StatusRequest {})).await;
        Some(asked.ok()?.ok()?.into_inner())
    }

    pub(crate) async fn id(&self) -> u64 {
        self.status().await.unwrap().header.unwrap().member_id
    }

    /// Writes until it works.
    pub(crate) async fn put(&self, key: &str, value: &str) -> i64 {
        let (mut client, began) = (self.kv(), Instant::now());
        loop {
            let put =
                pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
            match tokio::time::timeout(REQUEST, client.put(put)).await {
                Ok(Ok(response)) => return response.into_inner().header.unwrap().revision,
                failed => assert!(began.elapsed() < PATIENCE, "{failed:?}\n{}", self.home.log()),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub(crate) struct Cluster {
    pub nodes: Vec<Node>,
    directory: TempDir,
}

impl Cluster {
    /// A new cluster that serves.
    pub(crate) async fn of(count: usize) -> Self {
        Self::of_with(count, &[]).await
    }

    /// The same, with these flags for each member.
    pub(crate) async fn of_with(count: usize, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut nodes: Vec<_> = (0..count).map(|number| Node::new(&directory, number)).collect();
        let all = nodes.iter().map(|node| node.home.in_cluster()).collect::<Vec<_>>().join(",");
        for node in &mut nodes {
            node.home.place(&all, "new");
            node.home.add(flags);
            node.spawn();
        }
        for node in &mut nodes {
            node.serves().await;
        }
        Self { nodes, directory }
    }

    /// Who leads: a running member but `not` which says so itself.
    pub(crate) async fn leader_but(&self, not: Option<usize>) -> usize {
        let began = Instant::now();
        loop {
            for (i, node) in self.nodes.iter().enumerate() {
                if not == Some(i) || !node.is_running() {
                    continue;
                }
                if let Some(status) = node.status().await
                    && status.leader == status.header.unwrap().member_id
                {
                    return i;
                }
            }
            assert!(began.elapsed() < PATIENCE, "nobody leads: {}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn leader(&self) -> usize {
        self.leader_but(None).await
    }

    pub(crate) async fn follower(&self) -> usize {
        (self.leader().await + 1) % self.nodes.len()
    }

    /// Waits until all members have the same hash at the same revision, and gives the revision.
    pub(crate) async fn agree(&self) -> i64 {
        let began = Instant::now();
        loop {
            let mut hashes = Vec::new();
            for node in self.nodes.iter().filter(|node| node.is_running()) {
                let response =
                    node.maintenance().hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap().into_inner();
                hashes.push((response.hash_revision, response.compact_revision, response.hash));
            }
            if hashes.iter().all(|hash| *hash == hashes[0]) {
                return hashes[0].0;
            }
            assert!(began.elapsed() < PATIENCE, "they do not agree: {hashes:?}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Adds a member and starts it; a member is known to the cluster before it runs.
    pub(crate) async fn add(&mut self, by: usize, is_learner: bool) -> u64 {
        let node = Node::new(&self.directory, self.nodes.len());
        self.nodes.push(node);
        self.join(by, self.nodes.len() - 1, is_learner).await
    }

    /// Lets a member without data join.
    pub(crate) async fn join(&mut self, by: usize, joining: usize, is_learner: bool) -> u64 {
        let request = pb::MemberAddRequest { peer_ur_ls: vec![self.nodes[joining].home.peer_url()], is_learner };
        let began = Instant::now();
        let added = loop {
            // Refused while another change is under way or a member is not connected yet.
            match self.nodes[by].cluster().member_add(request.clone()).await {
                Ok(added) => break added.into_inner(),
                Err(refused) => assert!(began.elapsed() < PATIENCE, "{refused}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let urls: Vec<_> = added.members.iter().flat_map(|member| &member.peer_ur_ls).collect();
        let named = self.nodes.iter().filter(|node| urls.contains(&&node.home.peer_url()));
        let all = named.map(|node| node.home.in_cluster()).collect::<Vec<_>>().join(",");
        self.nodes[joining].home.place(&all, "existing");
        self.nodes[joining].spawn();
        added.member.unwrap().id
    }

    pub(crate) async fn remove(&self, by: usize, id: u64) {
        let began = Instant::now();
        while let Err(refused) = self.nodes[by].cluster().member_remove(pb::MemberRemoveRequest { id }).await {
            assert!(began.elapsed() < PATIENCE, "{refused}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The end of everybody's log.
    pub(crate) fn logs(&self) -> String {
        let tail = |log: String| log.lines().rev().take(15).map(|line| format!("{line}\n")).collect::<String>();
        self.nodes
            .iter()
            .enumerate()
            .map(|(i, node)| format!("m{i}, newest first:\n{}", tail(node.home.log())))
            .collect()
    }
}
