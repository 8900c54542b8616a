//! What waits to be sent to one member on one way: bounded, filled without waiting, and on a stream taken whole, so that everything that gathered goes out in one write.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use detcd_core::raft::Message;
use tokio::sync::Notify;

use super::inbox::message_size;

/// The queue. Anybody fills it, and several may take from it.
#[derive(Debug)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    messages_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Message>,
    bytes: usize,
}

/// There was no room; this is the message.
#[derive(Debug, Eq, PartialEq)]
pub struct Full(pub Message);

impl Outbox {
    /// An empty queue with so much room.
    #[must_use]
    pub fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self { waiting: Mutex::default(), filled: Notify::new(), messages_max, bytes_max }
    }

    /// Adds a message.
    ///
    /// # Errors
    /// There is no room. A message that is larger than all the room there is finds room when nothing waits.
    pub fn push(&self, message: Message) -> Result<(), Full> {
        let size = message_size(&message);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = waiting.messages.is_empty();
        if !is_first && (self.messages_max <= waiting.messages.len() || self.bytes_max < waiting.bytes + size) {
            return Err(Full(message));
        }
        waiting.messages.push_back(message);
        waiting.bytes += size;
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes everything that waits, oldest first. Nothing, if nothing does.
    pub fn take(&self) -> VecDeque<Message> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner)).messages
    }

    /// Takes the oldest message.
    pub fn pop(&self) -> Option<Message> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let message = waiting.messages.pop_front()?;
        waiting.bytes -= message_size(&message);
        Some(message)
    }

    /// Waits until something does.
    pub async fn filled(&self) {
        while self.waiting.lock().unwrap_or_else(PoisonError::into_inner).messages.is_empty() {
            self.filled.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use detcd_core::ids::{Index, Term};

    use super::*;

    fn message(bytes: usize) -> Message {
        Message::Heartbeat { term: Term(1), commit: Index(1), context: Bytes::from(vec![0; bytes]) }
    }

    #[test]
    fn what_finds_no_room_comes_back() {
        let outbox = Outbox::new(2, 1000);
        assert_eq!(outbox.push(message(0)), Ok(()));
        assert_eq!(outbox.push(message(1000)), Err(Full(message(1000))));
        assert_eq!(outbox.push(message(1)), Ok(()));
        assert_eq!(outbox.push(message(2)), Err(Full(message(2))));
        assert_eq!(outbox.take(), [message(0), message(1)]);
        // Alone, it is never too large; and the room is free again.
        assert_eq!(outbox.push(message(5000)), Ok(()));
        assert_eq!(outbox.take(), [message(5000)]);
        assert!(outbox.take().is_empty());
        outbox.push(message(1000)).unwrap();
        assert_eq!(outbox.pop(), Some(message(1000)));
        assert_eq!(outbox.pop(), None);
        outbox.push(message(1)).unwrap();
        assert_eq!(outbox.push(message(1)), Ok(()), "what was popped holds no room");
    }

    #[tokio::test]
    async fn who_waits_is_woken_once_something_is_there() {
        let outbox = std::sync::Arc::new(Outbox::new(2, 1000));
        let taker = tokio::spawn({
            let outbox = std::sync::Arc::clone(&outbox);
            async move {
                outbox.filled().await;
                outbox.take().len()
            }
        });
        tokio::task::yield_now().await;
        assert!(!taker.is_finished());
        outbox.push(message(1)).unwrap();
        outbox.push(message(2)).unwrap();
        assert_eq!(taker.await.unwrap(), 2);
        // The wake-up of an earlier filling is no filling.
        outbox.push(message(1)).unwrap();
        let _ = outbox.take();
        tokio::select! {
            biased;
            () = outbox.filled() => panic!("nothing waits"),
            () = tokio::task::yield_now() => {}
        }
    }
}
