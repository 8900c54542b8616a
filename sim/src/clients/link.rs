//! How a client reaches the member, or one of several: over madsim-tonic in whole-server runs, through the [`Door`] in engine runs.
//!
//! madsim passes Rust values and not bytes, so over the simulated network every message is encoded and decoded here, in both directions. Behind the door nothing is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use detcd_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::kv_server::Kv as _;
use pb::lease_client::LeaseClient;
use pb::lease_server::Lease as _;
use pb::maintenance_client::MaintenanceClient;
use pb::maintenance_server::Maintenance as _;
use pb::watch_client::WatchClient;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use crate::door::{Door, Fetched};
use crate::gate::{GATE, Gates};
use crate::options::Kind;
use crate::world::address;

/// Every way to the member, or the members, of a run. Clones share it.
#[derive(Clone, Default)]
pub struct Ways {
    /// Past the network.
    pub door: Door,
    /// Past the network to the other members of a cluster.
    others: Vec<Door>,
    /// What makes simulated watch streams slow.
    pub gates: Gates,
    /// How many links there are.
    links: Arc<AtomicUsize>,
}

impl Ways {
    /// The ways to all members of a cluster, of which there is at least one.
    #[must_use]
    pub fn to_all(mut doors: Vec<Door>, gates: Gates) -> Self {
        let door = doors.remove(0);
        Self { door, others: doors, gates, ..Self::default() }
    }

    /// The link of one client in a run of this kind.
    #[must_use]
    pub fn link(&self, kind: Kind) -> Link {
        let first = self.links.fetch_add(1, Ordering::Relaxed);
        if kind.has_network() {
            let url = |place| format!("http://{}", address(place));
            let channel = |place| Endpoint::from_shared(url(place)).expect("an address").connect_lazy();
            let channels = (0..=self.others.len()).map(channel).collect();
            return Link::Network(Round::new(channels, first), self.gates.clone());
        }
        Link::Doors(Round::new([&self.door].into_iter().chain(&self.others).cloned().collect(), first))
    }
}

/// One client's way to the member.
#[derive(Clone)]
pub enum Link {
    /// The generated clients.
    Network(Round<Channel>, Gates),
    /// The services themselves.
    Doors(Round<Door>),
}

/// The ways to all members, and the one that a client goes now. Whoever gets no answer, or an error, goes to the next member. Clones make rounds of their own.
pub struct Round<W> {
    ways: Vec<W>,
    at: AtomicUsize,
    /// Where the last visit was.
    visited: AtomicUsize,
}

/// A visit at a member. Its end moves the client on, unless it was good.
struct Visit<'a, W> {
    round: &'a Round<W>,
    was_good: bool,
}

impl<W> Round<W> {
    const fn new(ways: Vec<W>, first: usize) -> Self {
        Self { ways, at: AtomicUsize::new(first), visited: AtomicUsize::new(0) }
    }

    fn way(&self) -> &W {
        &self.ways[self.at.load(Ordering::Relaxed) % self.ways.len()]
    }

    fn move_on(&self) {
        self.at.fetch_add(1, Ordering::Relaxed);
    }

    async fn visit<T>(&self, visiting: impl AsyncFnOnce(&W) -> Result<T, Status>) -> Result<T, Status> {
        self.visited.store(self.at.load(Ordering::Relaxed) % self.ways.len(), Ordering::Relaxed);
        let mut visit = Visit { round: self, was_good: false };
        let answered = visiting(self.way()).await;
        visit.was_good = answered.is_ok();
        answered
    }
}

impl<W: Clone> Clone for Round<W> {
    fn clone(&self) -> Self {
        Self::new(self.ways.clone(), self.at.load(Ordering::Relaxed))
    }
}

impl<W> Drop for Visit<'_, W> {
    fn drop(&mut self) {
        if !self.was_good {
            self.round.move_on();
        }
    }
}

/// How the simulated gRPC says that a connection was refused.
const NOT_CONNECTED: &str = "transport error";

/// Whether a member refused what another one may do: it is not there, or it is a learner.
pub(crate) fn is_elsewhere(status: &Status) -> bool {
    let text = status.message();
    text == NOT_CONNECTED || text.contains("connection refused") || text.contains("rpc not supported for learner")
}

/// A message, by way of its bytes.
fn wire<T: Message + Default>(message: &T) -> Result<T, Status> {
    T::decode(message.encode_to_vec().as_slice()).map_err(|error| Status::data_loss(error.to_string()))
}

/// Visits the member, or, where nobody is or nobody may answer, the next one.
macro_rules! somewhere {
    ($round:expr, $visiting:expr) => {{
        let mut others = $round.ways.len() - 1;
        loop {
            match $round.visit($visiting).await {
                Err(status) if others > 0 && is_elsewhere(&status) => others -= 1,
                answered => break answered,
            }
        }
    }};
}

/// Methods with one request and one response.
macro_rules! unary {
    ($($name:ident: $client:ident, $service:ident, $request:ident -> $response:ident;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`.")]
        ///
        /// # Errors
        /// The member's own, or it cannot be reached.
        pub async fn $name(&self, request: &pb::$request) -> Result<pb::$response, Status> {
            match self {
                Self::Network(channels, _) => somewhere!(channels, async |channel: &Channel| {
                    let mut client = $client::new(channel.clone());
                    // Boxed, or every call through a door would be as large as this one.
                    wire(Box::pin(client.$name(wire(request)?)).await?.get_ref())
                }),
                Self::Doors(doors) => somewhere!(doors, {
                    let request = Request::new(request.clone());
                    async |door: &Door| {
                        door.ask(|services| async move { services.$service.$name(request).await }).await
                    }
                }),
            }
        }
    )*};
}

impl Link {
    unary! {
        put: KvClient, kv, PutRequest -> PutResponse;
        range: KvClient, kv, RangeRequest -> RangeResponse;
        delete_range: KvClient, kv, DeleteRangeRequest -> DeleteRangeResponse;
        txn: KvClient, kv, TxnRequest -> TxnResponse;
        compact: KvClient, kv, CompactionRequest -> CompactionResponse;
        hash_kv: MaintenanceClient, maintenance, HashKvRequest -> HashKvResponse;
        alarm: MaintenanceClient, maintenance, AlarmRequest -> AlarmResponse;
        defragment: MaintenanceClient, maintenance, DefragmentRequest -> DefragmentResponse;
        move_leader: MaintenanceClient, maintenance, MoveLeaderRequest -> MoveLeaderResponse;
        status: MaintenanceClient, maintenance, StatusRequest -> StatusResponse;
        lease_grant: LeaseClient, lease, LeaseGrantRequest -> LeaseGrantResponse;
        lease_revoke: LeaseClient, lease, LeaseRevokeRequest -> LeaseRevokeResponse;
        lease_leases: LeaseClient, lease, LeaseLeasesRequest -> LeaseLeasesResponse;
        lease_time_to_live: LeaseClient, lease, LeaseTimeToLiveRequest -> LeaseTimeToLiveResponse;
    }

    /// How many members there are.
    #[must_use]
    pub const fn places(&self) -> usize {
        match self {
            Self::Network(channels, _) => channels.ways.len(),
            Self::Doors(doors) => doors.ways.len(),
        }
    }

    /// Goes to the member at `place` next.
    pub fn go_to(&self, place: usize) {
        match self {
            Self::Network(channels, _) => channels.at.store(place, Ordering::Relaxed),
            Self::Doors(doors) => doors.at.store(place, Ordering::Relaxed),
        }
    }

    /// The place of the member that was asked last.
    #[must_use]
    pub fn place(&self) -> usize {
        match self {
            Self::Network(channels, _) => channels.visited.load(Ordering::Relaxed),
            Self::Doors(doors) => doors.visited.load(Ordering::Relaxed),
        }
    }

    /// A range, chunk by chunk.
    ///
    /// # Errors
    /// The member's own, or it cannot be reached.
    pub async fn range_stream(&self, request: &pb::RangeRequest) -> Result<Streaming<pb::RangeStreamResponse>, Status> {
        match self {
            Self::Network(channels, _) => {
                let stream = somewhere!(channels, async |channel: &Channel| {
                    let mut client = KvClient::new(channel.clone());
                    Box::pin(client.range_stream(wire(request)?)).await
                })?;
                let stream = stream.into_inner();
                let by_wire = stream.map(|message| message.and_then(|message| wire(&message)));
                Ok(Streaming::from_stream(Box::pin(by_wire)))
            }
            Self::Doors(doors) => {
                let stream = somewhere!(doors, {
                    let request = Request::new(request.clone());
                    async |door: &Door| {
                        door.ask(|services| async move { services.kv.range_stream(request).await }).await
                    }
                })?;
                Ok(Streaming::from_stream(Box::pin(stream)))
            }
        }
    }

    /// A snapshot, piece by piece.
    ///
    /// # Errors
    /// The member's own, or it cannot be reached.
    pub async fn snapshot(&self, request: &pb::SnapshotRequest) -> Result<Streaming<pb::SnapshotResponse>, Status> {
        match self {
            Self::Network(channels, _) => {
                let stream = somewhere!(channels, async |channel: &Channel| {
                    MaintenanceClient::new(channel.clone()).snapshot(wire(request)?).await
                })?;
                let stream = stream.into_inner();
                let by_wire = stream.map(|message| message.and_then(|message| wire(&message)));
                Ok(Streaming::from_stream(Box::pin(by_wire)))
            }
            Self::Doors(doors) => {
                let stream = somewhere!(doors, {
                    let request = Request::new(*request);
                    async |door: &Door| {
                        door.ask(|services| async move { services.maintenance.snapshot(request).await }).await
                    }
                })?;
                Ok(Streaming::from_stream(Box::pin(stream)))
            }
        }
    }

    /// One renewal over a stream of its own. `None`: the stream ended without an answer.
    ///
    /// # Errors
    /// The member's own, or it cannot be reached.
    pub async fn renew(
        &self,
        request: pb::LeaseKeepAliveRequest,
    ) -> Result<Option<pb::LeaseKeepAliveResponse>, Status> {
        match self {
            Self::Network(channels, _) => somewhere!(channels, async |channel: &Channel| {
                let requests = tokio_stream::iter([wire(&request)?]);
                let mut answers = LeaseClient::new(channel.clone()).lease_keep_alive(requests).await?.into_inner();
                answers.message().await?.map(|answer| wire(&answer)).transpose()
            }),
            Self::Doors(doors) => {
                somewhere!(doors, {
                    let asking = move |services: Arc<crate::door::Services>| async move {
                        let requests = Streaming::from_stream(Box::pin(tokio_stream::iter([Ok(request)])));
                        let mut answers = services.lease.lease_keep_alive(Request::new(requests)).await?.into_inner();
                        Ok(Response::new(answers.next().await.transpose()?))
                    };
                    async move |door: &Door| door.ask(asking).await
                })
            }
        }
    }

    /// A watch stream, of which so many messages may wait for the client.
    ///
    /// # Errors
    /// The member's own, or it cannot be reached.
    pub async fn watch(&self, requests: mpsc::Receiver<pb::WatchRequest>, appetite: u64) -> Result<Watching, Status> {
        match self {
            Self::Network(channels, gates) => {
                // A stream that ended, or that its client had enough of, is followed by one of another member.
                channels.move_on();
                let gate = gates.open(appetite);
                let requests = ReceiverStream::new(requests).filter_map(|request| wire(&request).ok());
                let mut request = Request::new(requests);
                let number = gate.to_string().parse().map_err(|_| Status::internal("digits are lawful"))?;
                request.metadata_mut().insert(GATE, number);
                let responses = WatchClient::new(channels.way().clone()).watch(request).await?.into_inner();
                Ok(Watching::Network { responses, gates: gates.clone(), gate })
            }
            Self::Doors(doors) => {
                doors.move_on();
                for _ in doors.ways.iter().skip(1).filter(|_| !doors.way().is_open()) {
                    doors.move_on();
                }
                doors.way().watch(requests, appetite).map(Watching::Door)
            }
        }
    }
}

/// A watch stream, as its client reads it.
pub enum Watching {
    /// Over the network, through a gate.
    Network {
        /// What the member says.
        responses: Streaming<pb::WatchResponse>,
        /// All gates.
        gates: Gates,
        /// This stream's.
        gate: u64,
    },
    /// Through the door.
    Door(Fetched<pb::WatchResponse>),
}

impl Watching {
    /// The next message. `None`: there is no other.
    ///
    /// # Errors
    /// What the stream ends with.
    pub async fn message(&mut self) -> Result<Option<pb::WatchResponse>, Status> {
        match self {
            Self::Network { responses, .. } => responses.message().await?.map(|message| wire(&message)).transpose(),
            Self::Door(fetched) => fetched.responses.message().await,
        }
    }

    /// The client has done with a message.
    pub fn done(&self) {
        match self {
            Self::Network { gates, gate, .. } => gates.give(*gate),
            // Room came back when it was taken.
            Self::Door(_) => {}
        }
    }
}
