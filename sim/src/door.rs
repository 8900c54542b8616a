//! The way to a member without a network between: its services, called in its own process.
//!
//! An *engine run* is about what lies below gRPC. Its clients hand requests to the handlers as they are, with no channel and no encoding. Each request is a
//! task of the member's node, so it ends with the member, stands still while the member is paused, and ends when its client gives up.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use detcd_proto::etcdserverpb as pb;
use detcd_server::grpc::kv::KvService;
use detcd_server::grpc::lease::LeaseService;
use detcd_server::grpc::maintenance::MaintenanceService;
use detcd_server::grpc::watch::WatchService;
use detcd_server::member::Member;
use madsim::runtime::NodeHandle;
use madsim::task::JoinHandle;
use pb::watch_server::Watch as _;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::store::SimBackend;

/// What a member answers with.
pub struct Services {
    /// Keys.
    pub kv: KvService<SimBackend>,
    /// Leases.
    pub lease: LeaseService<SimBackend>,
    /// The rest.
    pub maintenance: MaintenanceService<SimBackend>,
    watch: WatchService<SimBackend>,
}

impl Services {
    /// The services of `member`.
    #[must_use]
    pub fn new(member: &Member<SimBackend>) -> Self {
        Self {
            kv: KvService::new(member.clone()),
            lease: LeaseService::new(member.clone()),
            maintenance: MaintenanceService::new(member.clone()),
            watch: WatchService::new(member.clone()),
        }
    }
}

/// Where clients find the member that serves now, if one does. Clones share it.
#[derive(Clone, Default)]
pub struct Door {
    open: Arc<Mutex<Option<Open>>>,
}

#[derive(Clone)]
struct Open {
    services: Arc<Services>,
    node: NodeHandle,
}

/// A task of the member that ends with whoever waits for it.
struct Errand<T>(JoinHandle<T>);

impl<T> Drop for Errand<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a client reads, and the task that fetches it.
pub struct Fetched<T> {
    /// What the member says.
    pub responses: Streaming<T>,
    _errand: Errand<()>,
}

impl Door {
    /// A member on `node` serves.
    pub fn open(&self, services: Services, node: NodeHandle) {
        *self.lock() = Some(Open { services: Arc::new(services), node });
    }

    /// Whether a member serves.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.lock().is_some()
    }

    /// No member serves.
    pub fn close(&self) {
        *self.lock() = None;
    }

    /// What a client gets where nobody listens.
    fn enter(&self) -> Result<Open, Status> {
        self.lock().clone().ok_or_else(|| Status::unavailable("connection refused"))
    }

    /// Asks the member for one thing.
    ///
    /// # Errors
    /// The member's own, or there is none, or it ended meanwhile.
    pub async fn ask<T, F>(&self, ask: impl FnOnce(Arc<Services>) -> F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
    {
        let Open { services, node } = self.enter()?;
        let mut errand = Errand(node.spawn(ask(services)));
        let answered = (&mut errand.0).await;
        Ok(answered.map_err(|_| Status::unavailable("the member is gone"))??.into_inner())
    }

    /// Opens a watch stream, of which so many messages may wait for the client.
    ///
    /// # Errors
    /// There is no member.
    pub fn watch(
        &self,
        requests: mpsc::Receiver<pb::WatchRequest>,
        appetite: u64,
    ) -> Result<Fetched<pb::WatchResponse>, Status> {
        let Open { services, node } = self.enter()?;
        let requests = Streaming::from_stream(Box::pin(ReceiverStream::new(requests).map(Ok)));
        let (plate, responses) = mpsc::channel(usize::try_from(appetite).unwrap_or(usize::MAX));
        let fetching = node.spawn(async move {
            let mut responses = match services.watch.watch(Request::new(requests)).await {
                Ok(responses) => responses.into_inner(),
                Err(status) => return drop(plate.send(Err(status)).await),
            };
            // As flow control has it: the next message is asked for only when there is room for it.
            while let Ok(place) = plate.reserve().await {
                let Some(response) = responses.next().await else { return };
                place.send(response);
            }
        });
        let responses = Streaming::from_stream(Box::pin(ReceiverStream::new(responses)));
        Ok(Fetched { responses, _errand: Errand(fetching) })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
