//! What this member says to another on one stream, which the other has opened.
//!
//! There is one connection at a time: a new one replaces the old. While there is none, nothing is gathered. Everything that waits goes out together, in parts of a bounded size; if the other side does not
//! take them, the connection ends, and what it had taken is reported as lost.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use detcd_core::raft::Message;
use detcd_io::peer::bounds;
use detcd_io::peer::outbox::{Full, Outbox};
use detcd_io::peer::stream::{Encoder, Kind};
use detcd_io::stats::add;
use http_body::{Body, Frame};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::counts::Talk;
use super::remote::Remote;
use super::times;

/// Bytes of messages that are handed to the connection at once, unless a single message is larger.
const PART_BYTES: usize = 256 << 10;

/// The writing side of a stream, connected or not.
#[derive(Debug)]
pub(super) struct Link {
    kind: Kind,
    outbox: Outbox,
    /// The number of the present connection; zero for none.
    present: AtomicU64,
    /// Dropped, the connection before it ends.
    replaced: Mutex<Option<oneshot::Sender<()>>>,
    connections: AtomicU64,
}

/// One connection's end in a [`Link`].
#[derive(Debug)]
pub(super) struct Opened {
    number: u64,
    replaced: oneshot::Receiver<()>,
    sink: mpsc::Sender<Bytes>,
}

/// The body of the response that carries a stream.
#[derive(Debug)]
pub(super) struct Spoken(mpsc::Receiver<Bytes>);

impl Body for Spoken {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|part| part.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Link {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            outbox: Outbox::new(bounds::STREAM_MESSAGES_MAX, bounds::STREAM_BYTES_MAX),
            present: AtomicU64::new(0),
            replaced: Mutex::new(None),
            connections: AtomicU64::new(0),
        }
    }

    /// Whether there is a connection.
    pub(super) fn is_open(&self) -> bool {
        self.present.load(Ordering::Acquire) != 0
    }

    /// How many connections there were.
    #[cfg(test)]
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Gathers a message for the connection.
    pub(super) fn push(&self, message: Message) -> Result<(), Full> {
        self.outbox.push(message)
    }

    /// Takes a new connection, which replaces the present one.
    pub(super) fn open(&self) -> (Opened, Spoken) {
        let (tell, replaced) = oneshot::channel();
        let (sink, spoken) = mpsc::channel(1);
        let mut present = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        *present = Some(tell);
        self.present.store(number, Ordering::Release);
        (Opened { number, replaced, sink }, Spoken(spoken))
    }

    /// The connection ended, if it is the present one. What nobody will send any more is returned.
    fn close(&self, number: u64) -> VecDeque<Message> {
        let present = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        if self.present.load(Ordering::Acquire) != number {
            return VecDeque::new();
        }
        self.present.store(0, Ordering::Release);
        drop(present);
        self.outbox.take()
    }
}

/// Why a connection is written to no more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// The other side closed it, or does not read.
    Lost,
    /// There is a newer one.
    Replaced,
    /// The member is talked to no more.
    Stopped,
}

/// Writes to a connection until it ends.
pub(super) async fn write(remote: Arc<Remote>, kind: Kind, opened: Opened, mut stop: watch::Receiver<bool>) {
    let link = remote.link(kind);
    let Opened { number, mut replaced, sink } = opened;
    let mut encoder = Encoder::new(link.kind, remote.local(), remote.id());
    let mut ticks = interval(times::HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut out = BytesMut::new();
    let end = loop {
        let mut is_last = false;
        tokio::select! {
            biased;
            _ = &mut replaced => break End::Replaced,
            () = sink.closed() => break End::Lost,
            _ = stop.wait_for(|stop| *stop) => is_last = true,
            () = link.outbox.filled() => {}
            _ = ticks.tick() => encoder.heartbeat(&mut out),
        }
        let patience = if is_last { times::LAST_FLUSH } else { times::WRITE };
        let said = say(link.outbox.take(), &mut encoder, &mut out, (&sink, &remote.talk));
        match timeout(patience, said).await {
            Ok(true) if is_last => break End::Stopped,
            Ok(true) => {}
            Ok(false) | Err(_) => {
                // What was taken is gone, or on a connection of which nobody knows.
                remote.report_lost();
                break End::Lost;
            }
        }
    };
    if !link.close(number).is_empty() {
        remote.report_lost();
    }
    tracing::info!(remote = %remote.id(), stream = kind.path(), ?end, "a stream to a member ended");
}

/// Hands what there is to the connection. Answers whether it was taken.
async fn part(out: &mut BytesMut, sink: &mpsc::Sender<Bytes>, talk: &Talk) -> bool {
    let bytes = out.split().freeze();
    let length = bytes.len() as u64;
    let is_taken = sink.send(bytes).await.is_ok();
    if is_taken {
        add(&talk.sent_bytes, length);
    }
    is_taken
}

/// Hands everything to the connection, in parts. Answers whether it was taken.
async fn say(
    messages: VecDeque<Message>,
    encoder: &mut Encoder,
    out: &mut BytesMut,
    (sink, talk): (&mpsc::Sender<Bytes>, &Talk),
) -> bool {
    for message in messages {
        encoder.put(&message, out);
        if PART_BYTES <= out.len() && !part(out, sink, talk).await {
            return false;
        }
    }
    out.is_empty() || part(out, sink, talk).await
}
