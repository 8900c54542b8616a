//! What services use of the fan-out: they open streams and pass their clients' wishes on, each with a credit of its stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use detcd_core::watch::{Create, StreamId};
use detcd_io::driver::bounds;
use tokio::sync::{Semaphore, mpsc};

use super::outbox::{Counts, Credit, Line, Outbox, OutboxSize};

/// A request to the fan-out.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) stream: StreamId,
    pub(super) wish: Wish,
}

/// What a stream wants.
#[derive(Debug)]
pub(super) enum Wish {
    /// To be there.
    Open { outbox: Arc<Outbox>, wants_leader: bool },
    /// A watcher.
    Create(Create, Credit),
    /// A watcher less.
    Cancel(i64, Credit),
    /// To know how far its watchers are.
    Progress(Credit),
}

/// The fan-out is gone: the member is stopping.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Gone;

/// The services' end of the fan-out. Clones share it.
#[derive(Clone, Debug)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
    line: Arc<Line>,
    size: OutboxSize,
    last: Arc<AtomicU64>,
}

/// One open stream: the end of it that takes requests.
#[derive(Debug)]
pub(crate) struct Requests {
    stream: StreamId,
    asks: mpsc::Sender<Ask>,
    credits: Arc<Semaphore>,
    pub(crate) outbox: Arc<Outbox>,
}

impl Handle {
    pub(super) fn new(asks: mpsc::Sender<Ask>, line: Arc<Line>, size: OutboxSize) -> Self {
        Self { asks, line, size, last: Arc::default() }
    }

    /// What is counted.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.line.counts
    }

    /// Opens a stream.
    pub(crate) async fn open(&self, wants_leader: bool) -> Result<Requests, Gone> {
        let stream = StreamId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let outbox = Arc::new(Outbox::new(stream, self.size, Arc::clone(&self.line)));
        let wish = Wish::Open { outbox: Arc::clone(&outbox), wants_leader };
        self.asks.send(Ask { stream, wish }).await.map_err(|_| Gone)?;
        let credits = Arc::new(Semaphore::new(bounds::WATCH_CONTROLS_MAX));
        Ok(Requests { stream, asks: self.asks.clone(), credits, outbox })
    }
}

impl Requests {
    pub(crate) async fn create(&self, create: Create) -> Result<(), Gone> {
        let credit = self.credit().await?;
        self.ask(Wish::Create(create, credit)).await
    }

    pub(crate) async fn cancel(&self, id: i64) -> Result<(), Gone> {
        let credit = self.credit().await?;
        self.ask(Wish::Cancel(id, credit)).await
    }

    pub(crate) async fn progress(&self) -> Result<(), Gone> {
        let credit = self.credit().await?;
        self.ask(Wish::Progress(credit)).await
    }

    async fn credit(&self) -> Result<Credit, Gone> {
        Arc::clone(&self.credits).acquire_owned().await.map_err(|_| Gone)
    }

    async fn ask(&self, wish: Wish) -> Result<(), Gone> {
        self.asks.send(Ask { stream: self.stream, wish }).await.map_err(|_| Gone)
    }
}
