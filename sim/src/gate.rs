//! Appetite: what makes a simulated watch stream slow.
//!
//! madsim passes messages through queues without bounds, so a server never notices that a client does not read. Here each response of a watch stream
//! needs a credit, which the client gives back when it has read the message. Without a credit the stream is not asked for its next message – exactly what flow
//! control does to the real one.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use detcd_proto::etcdserverpb as pb;
use detcd_proto::etcdserverpb::watch_server::Watch;
use detcd_server::grpc::watch::{Responses, WatchService};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::store::SimBackend;

/// The request metadata that names a stream's gate.
pub const GATE: &str = "sim-gate";

/// The gates of all streams of a run. Clones share them.
#[derive(Clone, Default)]
pub struct Gates {
    gates: Arc<Mutex<BTreeMap<u64, Gate>>>,
}

#[derive(Default)]
struct Gate {
    credits: u64,
    waiting: Option<Waker>,
}

impl Gates {
    /// A new gate with so many credits: its number.
    #[must_use]
    pub fn open(&self, credits: u64) -> u64 {
        let mut gates = self.lock();
        let number = gates.keys().next_back().map_or(1, |last| last + 1);
        gates.insert(number, Gate { credits, waiting: None });
        number
    }

    /// The client has read a message.
    pub fn give(&self, number: u64) {
        let waiting = self.lock().get_mut(&number).and_then(|gate| {
            gate.credits += 1;
            gate.waiting.take()
        });
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    fn poll_take(&self, number: u64, context: &Context<'_>) -> Poll<()> {
        let mut gates = self.lock();
        let Some(gate) = gates.get_mut(&number) else { return Poll::Ready(()) };
        if gate.credits == 0 {
            gate.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn took(&self, number: u64) {
        if let Some(gate) = self.lock().get_mut(&number) {
            gate.credits -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Gate>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The Watch service behind gates.
pub struct GatedWatch {
    inner: WatchService<SimBackend>,
    gates: Gates,
}

impl GatedWatch {
    /// `inner` behind `gates`.
    #[must_use]
    pub const fn new(inner: WatchService<SimBackend>, gates: Gates) -> Self {
        Self { inner, gates }
    }
}

#[tonic::async_trait]
impl Watch for GatedWatch {
    type WatchStream = GatedResponses;

    async fn watch(&self, request: Request<Streaming<pb::WatchRequest>>) -> Result<Response<GatedResponses>, Status> {
        let number = request.metadata().get(GATE).and_then(|number| number.to_str().ok()?.parse().ok()).unwrap_or(0);
        let gates = self.gates.clone();
        let response = self.inner.watch(request).await?;
        Ok(response.map(|inner| GatedResponses { inner, gates, number }))
    }
}

/// Responses that wait for credits.
pub struct GatedResponses {
    inner: Responses<SimBackend>,
    gates: Gates,
    number: u64,
}

impl Stream for GatedResponses {
    type Item = Result<pb::WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        std::task::ready!(self.gates.poll_take(self.number, context));
        let next = std::task::ready!(Pin::new(&mut self.inner).poll_next(context));
        self.gates.took(self.number);
        Poll::Ready(next)
    }
}
