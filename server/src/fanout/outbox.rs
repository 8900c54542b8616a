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
    /// Readers that have changes to read and are not woken yet.
    readers: Mutex<Vec<Waker>>,
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
    /// The most bytes that changes ever waited with, one message alone apart, since start.
    pub fullest_bytes: AtomicU64,
    /// The most messages that ever waited on one stream, answers apart, since start.
    pub fullest_messages: AtomicU64,
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

    /// Wakes those who have got changes. All offers of a turn are made by then, so that a connection sends what its streams got at once.
    pub(super) fn wake_readers(&self) {
        let readers = std::mem::take(&mut *self.readers.lock().expect("a panic ends the process"));
        readers.into_iter().for_each(Waker::wake);
    }

    fn wake_later(&self, reader: Option<Waker>) {
        if let Some(reader) = reader {
            self.readers.lock().expect("a panic ends the process").push(reader);
        }
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
    /// Nobody reads any more.
    is_closed: bool,
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

    /// Offers changes, or the end of a watcher. Who reads is woken by [`Line::wake_readers`].
    pub(super) fn offer(&self, delivery: Delivery) -> Taken {
        let (bytes, events) = cost(&delivery);
        let mut state = self.lock();
        if state.is_closed {
            return Taken::Yes;
        }
        let is_full = self.size.messages <= state.messages || self.size.bytes < state.bytes + bytes;
        if is_full && 0 < state.messages {
            state.is_starved = true;
            return Taken::Full;
        }
        self.line.counts.pending_events.fetch_add(events, Ordering::Relaxed);
        state.bytes += bytes;
        if 0 < state.messages {
            self.line.counts.fullest_bytes.fetch_max(state.bytes as u64, Ordering::Relaxed);
        }
        self.queue(&mut state, Message::Delivery(delivery), None);
        self.line.wake_later(state.reader.take());
        Taken::Yes
    }

    /// Tells progress, if there is room: it is only a courtesy.
    pub(super) fn offer_progress(&self, id: i64, revision: i64) -> Taken {
        let state = self.lock();
        if self.size.messages <= state.messages {
            return Taken::Full;
        }
        self.push(state, Message::Progress { id, revision }, None);
        Taken::Yes
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
        let mut state = self.lock();
        state.is_closed = true;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
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
        self.queue(&mut state, message, credit);
        wake(state);
    }

    fn queue(&self, state: &mut State, message: Message, credit: Option<Credit>) {
        if credit.is_none() {
            state.messages += 1;
            self.line.counts.fullest_messages.fetch_max(state.messages as u64, Ordering::Relaxed);
        }
        state.queue.push_back(Queued { message, credit });
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use detcd_core::apply::EventKind;
    use detcd_core::mvcc::KeyValue;
    use detcd_core::watch::{Before, Change, Interest, WatcherId};
    use tokio::sync::Semaphore;

    fn delivery(bytes: usize) -> Delivery {
        let kv = KeyValue { value: Bytes::from(vec![b'v'; bytes]), modified: 2, ..KeyValue::default() };
        let change = Change { kind: EventKind::Put, kv, before: Before::Nothing };
        let events = Arc::new([change].into_iter().collect());
        let to = WatcherId { stream: StreamId(1), id: 0 };
        Delivery { to, what: What::Events { revision: 2, events, interest: Interest::default() } }
    }

    fn outbox(bytes: usize, messages: usize) -> Outbox {
        Outbox::new(StreamId(1), OutboxSize { bytes, messages }, Arc::default())
    }

    fn pop(outbox: &Outbox) -> Option<Message> {
        match outbox.poll_next(&Context::from_waker(Waker::noop())) {
            Poll::Ready(next) => Some(next.unwrap()),
            Poll::Pending => None,
        }
    }

    fn pending(outbox: &Outbox) -> u64 {
        outbox.line.counts.pending_events.load(Ordering::Relaxed)
    }

    fn fullest(outbox: &Outbox) -> (u64, u64) {
        let counts = &outbox.line.counts;
        (counts.fullest_bytes.load(Ordering::Relaxed), counts.fullest_messages.load(Ordering::Relaxed))
    }

    #[test]
    fn a_full_outbox_refuses_and_tells_once_when_it_has_room() {
        let outbox = outbox(1 << 20, 4);
        for _ in 0..4 {
            assert_eq!(outbox.offer(delivery(1)), Taken::Yes);
        }
        assert_eq!((outbox.offer(delivery(1)), pending(&outbox)), (Taken::Full, 4));
        assert!(pop(&outbox).is_some());
        assert!(outbox.line.take().drained.is_empty(), "one place is not half of it");
        assert!(pop(&outbox).is_some());
        assert_eq!(outbox.line.take().drained, [StreamId(1)]);
        assert!(pop(&outbox).is_some() && pop(&outbox).is_some() && pop(&outbox).is_none());
        assert!(outbox.line.take().drained.is_empty(), "nobody was refused since");
        assert_eq!(pending(&outbox), 0);
        assert_eq!(fullest(&outbox).1, 4);
    }

    #[test]
    fn one_message_may_be_larger_than_all_room() {
        let outbox = outbox(100, 9);
        assert_eq!(outbox.offer(delivery(5_000)), Taken::Yes);
        assert_eq!(outbox.offer(delivery(0)), Taken::Full);
        assert_eq!(fullest(&outbox), (0, 1), "one message alone does not count");
        assert!(pop(&outbox).is_some());
        assert_eq!(outbox.line.take().drained, [StreamId(1)]);
        assert_eq!(outbox.offer(delivery(0)), Taken::Yes);
    }

    #[test]
    fn answers_find_room_and_give_their_credit_back_when_they_leave() {
        let (outbox, credits) = (outbox(0, 1), Arc::new(Semaphore::new(1)));
        assert_eq!(outbox.offer(delivery(1)), Taken::Yes);
        outbox.offer_progress(-1, 2);
        let credit = Arc::clone(&credits).try_acquire_owned().unwrap();
        outbox.answer(Message::Cancelled { id: 0, revision: 2 }, credit);
        assert!(matches!(pop(&outbox), Some(Message::Delivery(_))));
        assert_eq!(credits.available_permits(), 0);
        assert!(matches!(pop(&outbox), Some(Message::Cancelled { .. })), "progress found no room");
        assert_eq!(credits.available_permits(), 1);
    }

    #[test]
    fn what_nobody_reads_any_more_is_not_pending() {
        let outbox = outbox(1 << 20, 4);
        assert_eq!(outbox.offer(delivery(1)), Taken::Yes);
        outbox.end(Status::unavailable("over"));
        outbox.close();
        assert_eq!((outbox.offer(delivery(1)), pending(&outbox)), (Taken::Yes, 0));
        assert_eq!(outbox.line.take().closed, [StreamId(1)]);
        let end = outbox.poll_next(&Context::from_waker(Waker::noop()));
        assert!(matches!(end, Poll::Ready(Err(status)) if status.message() == "over"));
    }
}
