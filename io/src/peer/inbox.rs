//! What has arrived and waits for the driver: bounded in messages and in bytes, so that members which say much wait at their sockets.

use std::sync::Arc;

use detcd_core::raft::Message;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};

use super::{Incoming, bounds};

/// The network's end. Clones share it.
#[derive(Clone, Debug)]
pub struct Inbox {
    sender: mpsc::Sender<Held>,
    bytes: Arc<Semaphore>,
}

/// The driver's end.
#[derive(Debug)]
pub struct Arrivals {
    receiver: mpsc::Receiver<Held>,
}

/// Something that arrived, and the bytes that it holds until it is taken.
#[derive(Debug)]
struct Held {
    incoming: Incoming,
    _bytes: Option<OwnedSemaphorePermit>,
}

/// Nobody takes anything any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Closed;

/// Makes both ends.
#[must_use]
pub fn inbox() -> (Inbox, Arrivals) {
    let (sender, receiver) = mpsc::channel(bounds::ARRIVALS_MAX);
    (Inbox { sender, bytes: Arc::new(Semaphore::new(bounds::ARRIVED_BYTES_MAX)) }, Arrivals { receiver })
}

impl Inbox {
    /// Hands it to the driver; waits while there is no room.
    ///
    /// # Errors
    /// The driver is gone.
    pub async fn deliver(&self, incoming: Incoming) -> Result<(), Closed> {
        let bytes = match permits(&incoming) {
            0 => None,
            permits => Some(Arc::clone(&self.bytes).acquire_many_owned(permits).await.map_err(|_| Closed)?),
        };
        self.sender.send(Held { incoming, _bytes: bytes }).await.map_err(|_| Closed)
    }

    /// The same for one who does not wait: it is lost if there is no room, which is the answer. Nobody takes what comes for a driver that is gone.
    #[must_use]
    pub fn offer(&self, incoming: Incoming) -> bool {
        let bytes = match permits(&incoming) {
            0 => None,
            permits => match Arc::clone(&self.bytes).try_acquire_many_owned(permits) {
                Ok(bytes) => Some(bytes),
                Err(why) => return why == TryAcquireError::Closed,
            },
        };
        !matches!(self.sender.try_send(Held { incoming, _bytes: bytes }), Err(TrySendError::Full(_)))
    }

    /// Whether the driver is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Waits until the driver is gone.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }
}

impl Arrivals {
    /// The next one; `None` when nobody can send any more.
    pub async fn recv(&mut self) -> Option<Incoming> {
        Some(self.receiver.recv().await?.incoming)
    }

    /// The next one that is there already.
    pub fn try_recv(&mut self) -> Option<Incoming> {
        Some(self.receiver.try_recv().ok()?.incoming)
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        // Who waits for bytes must not wait for ever: what is queued is dropped, and gives them back.
        self.receiver.close();
        while self.receiver.try_recv().is_ok() {}
    }
}

/// How many bytes of those that may wait it takes; all of them, if it is larger.
fn permits(incoming: &Incoming) -> u32 {
    let size = match incoming {
        Incoming::Message { message, .. } | Incoming::Snapshot { message, .. } => message_size(message),
        Incoming::Unreachable { .. } | Incoming::SnapshotSent { .. } | Incoming::Removed { .. } => 0,
    };
    u32::try_from(size.min(bounds::ARRIVED_BYTES_MAX)).expect("bounded beside its name")
}

/// About what a message costs in memory.
#[must_use]
pub fn message_size(message: &Message) -> usize {
    let payloads = match message {
        Message::Propose { proposals } => {
            proposals.iter().map(|proposal| proposal.payload.len() + size_of_val(proposal)).sum()
        }
        Message::Append { entries, .. } => entries.iter().map(|entry| entry.payload.len() + size_of_val(entry)).sum(),
        Message::Heartbeat { context, .. } | Message::HeartbeatAnswered { context, .. } => context.len(),
        Message::ReadIndex { token, .. } | Message::ReadIndexAnswered { token, .. } => token.len(),
        Message::Snapshot { snapshot, .. } => snapshot.configuration.members().count() * 32,
        Message::TransferLeader
        | Message::TimeoutNow { .. }
        | Message::AppendAccepted { .. }
        | Message::AppendRejected { .. }
        | Message::VoteRequest { .. }
        | Message::VoteGranted { .. }
        | Message::VoteRefused { .. }
        | Message::PreVoteRequest { .. }
        | Message::PreVoteGranted { .. }
        | Message::PreVoteRefused { .. } => 0,
    };
    payloads + size_of_val(message)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use detcd_core::ids::{Index, MemberId, Term};

    use super::*;

    fn heartbeat(bytes: usize) -> Incoming {
        let context = Bytes::from(vec![0; bytes]);
        Incoming::Message {
            from: MemberId(2),
            message: Message::Heartbeat { term: Term(1), commit: Index(1), context },
        }
    }

    #[tokio::test]
    async fn bytes_that_wait_are_bounded_and_come_back_when_they_are_taken() {
        let (inbox, mut arrivals) = inbox();
        inbox.deliver(heartbeat(bounds::ARRIVED_BYTES_MAX / 2)).await.unwrap();
        // Larger than all the room: it gets in, alone.
        let giant = tokio::spawn({
            let inbox = inbox.clone();
            async move { inbox.deliver(heartbeat(bounds::ARRIVED_BYTES_MAX + 1)).await }
        });
        tokio::task::yield_now().await;
        assert!(!giant.is_finished());
        assert!(arrivals.recv().await.is_some());
        giant.await.unwrap().unwrap();
        assert!(arrivals.try_recv().is_some());
        assert!(arrivals.try_recv().is_none());
    }

    #[tokio::test]
    async fn what_is_offered_without_room_is_lost() {
        let (inbox, mut arrivals) = inbox();
        assert!(inbox.offer(heartbeat(bounds::ARRIVED_BYTES_MAX / 2)));
        assert!(!inbox.offer(heartbeat(bounds::ARRIVED_BYTES_MAX / 2)), "no room for its bytes");
        assert!(arrivals.try_recv().is_some());
        assert!(inbox.offer(heartbeat(bounds::ARRIVED_BYTES_MAX + 1)), "alone");
        let unreachable = || Incoming::Unreachable { member: MemberId(2) };
        assert_eq!((0..bounds::ARRIVALS_MAX).filter(|_| inbox.offer(unreachable())).count(), bounds::ARRIVALS_MAX - 1);
        assert_eq!(std::iter::from_fn(|| arrivals.try_recv()).count(), bounds::ARRIVALS_MAX);
        drop(arrivals);
        assert!(inbox.offer(heartbeat(1)), "nobody is there to take it");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_driver_that_is_gone() {
        let (inbox, arrivals) = inbox();
        inbox.deliver(heartbeat(bounds::ARRIVED_BYTES_MAX)).await.unwrap();
        let late = tokio::spawn({
            let inbox = inbox.clone();
            async move { inbox.deliver(heartbeat(1)).await }
        });
        tokio::task::yield_now().await;
        drop(arrivals);
        assert_eq!(late.await.unwrap(), Err(Closed));
        assert!(inbox.is_closed());
        inbox.closed().await;
    }
}
