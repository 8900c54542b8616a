//! What waits for the client of one watch stream: a bounded queue with one writer, the fan-out, and one reader, the response stream.
//!
//! A full outbox refuses changes and never makes the writer wait: the watcher lags instead. When the reader has taken half of it, the fan-out is told.
//! Answers to requests always find room, because a stream takes up a request only with a credit, which is given back when the answer has left.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use detcd_core::watch::{Delivery, Refusal, StreamId, Taken, What};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tonic::Status;

/// A place among the requests under way of one stream.
pub(super) type Credit = OwnedSemaphorePermit;

/// Something to tell a client.
#[derive(Debug)]
pub(crate) enum Message {
    /// A watcher is there.
    Created { id: i64, revision: i64 },
    /// A watcher was not created.
    Refused { why: Refusal, revision: i64 },
    /// A watcher was cancelled by its client.
    Cancelled { id: i64, revision: i64 },
    /// Everything up to a revision was told; with id -1 for all watchers of the stream.
    Progress { id: i64, revision: i64 },
    /// What a watcher gets.
    Delivery(Delivery),
}

/// How large an outbox is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OutboxSize {
    /// Bytes of changes. A single message may be larger.
    pub bytes: usize,
    /// Messages, answers apart.
    pub messages: usize,
}

/// What all outboxes tell the fan-out, and what is counted.
#[derive(Debug, Default)]
pub struct Line {
    turns: Mutex<Turns>,
    bell: Notify,
    pub(super) counts: Counts,
}

/// Streams with something new.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// They were full and have room again.
    pub(super) drained: Vec<StreamId>,
    /// Nobody reads them any more.
    pub(super) closed: Vec<StreamId>,
}

/// What is counted about watching.
#[derive(Debug, Default)]
pub struct Counts {
    /// Open streams.
    pub streams: AtomicU64,
    /// Watchers.
    pub watchers: AtomicU64,
    /// Watchers that lag.
    pub slow_watchers: AtomicU64,
    /// Changes that left for clients, since start.
    pub events: AtomicU64,
    /// Changes that wait for clients.
    pub pending_events: AtomicU64,
    /// Streams that ended because their requests could not be read, since start.
    pub receive_failures: AtomicU64,
}

impl Line {
    /// Takes up what streams have told.
    pub(super) fn take(&self) -> Turns {
        std::mem::take(&mut *self.turns.lock().expect("a panic ends the process"))
    }

    /// Waits until some stream tells something.
    pub(super) async fn wait(&self) {
        self.bell.notified().await;
    }

    fn tell(&self, tell: impl FnOnce(&mut Turns)) {
        tell(&mut self.turns.lock().expect("a panic ends the process"));
        self.bell.notify_one();
    }
}

/// The queue of one stream.
#[derive(Debug)]
pub(crate) struct Outbox {
    id: StreamId,
    size: OutboxSize,
    line: Arc<Line>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Queued>,
    bytes: usize,
    /// Messages that are no answers.
    messages: usize,
    /// Something was refused since the reader made room.
    is_starved: bool,
    end: Option<Status>,
    reader: Option<Waker>,
}

#[derive(Debug)]
struct Queued {
    message: Message,
    credit: Option<Credit>,
}

impl Outbox {
    pub(super) fn new(id: StreamId, size: OutboxSize, line: Arc<Line>) -> Self {
        Self { id, size, line, state: Mutex::default() }
    }

    /// Offers changes, or the end of a watcher.
    pub(super) fn offer(&self, delivery: Delivery) -> Taken {
        let (bytes, events) = cost(&delivery);
        let mut state = self.lock();
        let is_full = self.size.messages <= state.messages || self.size.bytes < state.bytes + bytes;
        if is_full && 0 < state.messages {
            state.is_starved = true;
            return Taken::Full;
        }
        self.line.counts.pending_events.fetch_add(events, Ordering::Relaxed);
        state.bytes += bytes;
        self.push(state, Message::Delivery(delivery), None);
        Taken::Yes
    }

    /// Tells progress, if there is room: it is only a courtesy.
    pub(super) fn offer_progress(&self, id: i64, revision: i64) {
        let state = self.lock();
        if state.messages < self.size.messages {
            self.push(state, Message::Progress { id, revision }, None);
        }
    }

    /// Answers a request.
    pub(super) fn answer(&self, message: Message, credit: Credit) {
        self.push(self.lock(), message, Some(credit));
    }

    /// Tells more about a watcher that was just created.
    pub(super) fn add(&self, delivery: Delivery) {
        self.push(self.lock(), Message::Delivery(delivery), None);
    }

    /// Ends the stream after what is in it.
    pub(crate) fn end(&self, status: Status) {
        let mut state = self.lock();
        state.end.get_or_insert(status);
        wake(state);
    }

    /// The next message, or the end.
    pub(crate) fn poll_next(&self, context: &Context<'_>) -> Poll<Result<Message, Status>> {
        let mut state = self.lock();
        let Some(Queued { message, credit }) = state.queue.pop_front() else {
            if let Some(status) = state.end.take() {
                return Poll::Ready(Err(status));
            }
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        if credit.is_none() {
            state.messages -= 1;
        }
        if let Message::Delivery(delivery) = &message {
            let (bytes, events) = cost(delivery);
            state.bytes -= bytes;
            self.line.counts.pending_events.fetch_sub(events, Ordering::Relaxed);
            self.line.counts.events.fetch_add(events, Ordering::Relaxed);
        }
        let has_room = state.bytes <= self.size.bytes / 2 && state.messages <= self.size.messages / 2;
        if has_room && std::mem::take(&mut state.is_starved) {
            drop(state);
            self.line.tell(|turns| turns.drained.push(self.id));
        }
        Poll::Ready(Ok(message))
    }

    /// The reader is gone.
    pub(crate) fn close(&self) {
        let queue = std::mem::take(&mut self.lock().queue);
        let events = |queued: &Queued| match &queued.message {
            Message::Delivery(delivery) => cost(delivery).1,
            _ => 0,
        };
        self.line.counts.pending_events.fetch_sub(queue.iter().map(events).sum(), Ordering::Relaxed);
        self.line.tell(|turns| turns.closed.push(self.id));
    }

    pub(crate) fn count_receive_failure(&self) {
        self.line.counts.receive_failures.fetch_add(1, Ordering::Relaxed);
    }

    fn push(&self, mut state: MutexGuard<'_, State>, message: Message, credit: Option<Credit>) {
        if credit.is_none() {
            state.messages += 1;
        }
        state.queue.push_back(Queued { message, credit });
        wake(state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a panic ends the process")
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}

/// Bytes and number of the changes.
fn cost(delivery: &Delivery) -> (usize, u64) {
    match &delivery.what {
        What::Events { events, .. } => (events.cost_bytes(), events.len() as u64),
        What::Compacted { .. } => (0, 0),
    }
}
