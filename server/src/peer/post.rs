//! What goes to another member by POST: messages while no stream is open, and snapshots.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Request, StatusCode};
use bytes::{BufMut as _, Bytes, BytesMut};
use detcd_core::raft::Message;
use detcd_io::clock::Instant;
use detcd_io::copier::Copied;
use detcd_io::peer::{Incoming, codec};
use detcd_io::stats::add;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::client::{Connection, rest, says};
use super::remote::Remote;
use super::times;

/// Bytes of a snapshot that are read at once.
const READ_BYTES: usize = 256 << 10;

/// Posts messages one by one until the member is talked to no more.
pub(super) async fn work(remote: Arc<Remote>, mut stop: watch::Receiver<bool>) {
    let mut connection = None;
    loop {
        let is_stopping = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => true,
            () = remote.posts.filled() => false,
        };
        let flushing = async {
            while let Some(message) = remote.posts.pop() {
                if let Err(error) = post(&remote, &mut connection, &message).await {
                    connection = None;
                    tracing::debug!(remote = %remote.id(), %error, "a message did not reach a member");
                    remote.report_lost();
                }
            }
        };
        if is_stopping {
            // What takes longer is lost; nobody wants to know any more.
            let _ = timeout(times::LAST_FLUSH, flushing).await;
            return;
        }
        flushing.await;
    }
}

async fn post(remote: &Remote, connection: &mut Option<Connection>, message: &Message) -> io::Result<()> {
    let bytes = codec::wire(remote.local(), remote.id(), message).encode_to_vec();
    let length = bytes.len() as u64;
    let Some(url) = remote.url() else {
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no URL of it can be used"));
    };
    let posting = async {
        if !connection.as_ref().is_some_and(Connection::is_open) {
            *connection = Some(Connection::open(&url).await?);
        }
        let request = remote.shared.introduced(Request::post("/raft"));
        let request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/protobuf"));
        let request = request.body(says(bytes.into())).map_err(io::Error::other)?;
        let connection = connection.as_mut().expect("opened above");
        let (status, text) = connection.ask_all(request, times::POST).await?;
        accepted(remote, status, &text).await
    };
    posting.await.inspect(|()| add(&remote.talk.sent_bytes, length)).inspect_err(|_| remote.was_not_at(&url))
}

/// Whether an answer says that what was posted was taken.
async fn accepted(remote: &Remote, status: StatusCode, text: &[u8]) -> io::Result<()> {
    if status == StatusCode::NO_CONTENT {
        return Ok(());
    }
    if status == StatusCode::FORBIDDEN {
        let _ = remote.shared.inbox.deliver(Incoming::Removed { by: remote.id() }).await;
    }
    let text = String::from_utf8_lossy(text.get(..200).unwrap_or(text));
    Err(io::Error::other(format!("it answered {status}: {}", text.trim_end())))
}

/// Sends a snapshot with its store, and tells the engine how that ended.
pub(super) async fn send_snapshot(remote: Arc<Remote>, message: Message, copy: Copied) {
    let (began, size) = (Instant::now(), copy.size_bytes());
    remote.talk.shipped.begin();
    let sent = match Arc::clone(&remote.snapshot).try_acquire_owned() {
        Err(_) => Err(io::Error::new(io::ErrorKind::WouldBlock, "another one is on its way")),
        Ok(_turn) => {
            let mut stop = remote.stopping();
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => Err(io::Error::other("the member is talked to no more")),
                sent = post_snapshot(&remote, &message, copy) => sent,
            }
        }
    };
    match &sent {
        Ok(()) => tracing::info!(remote = %remote.id(), what = %message, "a snapshot was sent"),
        Err(error) => tracing::warn!(remote = %remote.id(), what = %message, %error, "a snapshot was not sent"),
    }
    if sent.is_ok() {
        add(&remote.talk.sent_bytes, size);
        remote.talk.shipped.done.observe(began.elapsed());
    } else {
        remote.talk.shipped.fail();
        remote.report_lost();
    }
    let incoming = Incoming::SnapshotSent { to: remote.id(), is_received: sent.is_ok() };
    // Nobody takes it only if the driver is gone.
    let _ = remote.shared.inbox.deliver(incoming).await;
}

async fn post_snapshot(remote: &Remote, message: &Message, copy: Copied) -> io::Result<()> {
    let Some(url) = remote.url() else {
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no URL of it can be used"));
    };
    tracing::info!(remote = %remote.id(), what = %message, bytes = copy.size_bytes(), "sending a snapshot");
    let (parts, body) = mpsc::channel(1);
    let (said, is_said) = oneshot::channel();
    let feeding = feed(snapshot_head(remote, message), copy, parts, said);
    let posting = async {
        let mut connection = Connection::open(&url).await?;
        let request = remote.shared.introduced(Request::post("/raft/snapshot"));
        let request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let request = request.body(Store(body).boxed_unsync()).map_err(io::Error::other)?;
        // While it is sent, the socket's own patience is what ends it.
        let mut asking = Box::pin(connection.ask(request, FOREVER));
        let reply = tokio::select! {
            reply = &mut asking => reply?,
            _ = is_said => match timeout(times::SNAPSHOT_ANSWER, asking).await {
                Ok(reply) => reply?,
                Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time")),
            },
        };
        let status = reply.status();
        accepted(remote, status, &rest(reply).await.unwrap_or_default()).await
    };
    let (posted, ()) = tokio::join!(posting, feeding);
    posted.inspect_err(|_| remote.was_not_at(&url))
}

/// Longer than any store takes.
const FOREVER: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);

/// The message, behind its length, with the members as etcd's old store would have them.
fn snapshot_head(remote: &Remote, message: &Message) -> Bytes {
    let mut wire = codec::wire(remote.local(), remote.id(), message);
    if let Some(snapshot) = &mut wire.snapshot {
        snapshot.data = Some((remote.shared.membership)());
    }
    let mut head = BytesMut::with_capacity(8 + wire.encoded_len());
    head.put_u64(wire.encoded_len() as u64);
    wire.encode(&mut head).expect("there is room for its length");
    head.freeze()
}

/// A part of a request's body, or why there is no more.
type Part = Result<Bytes, io::Error>;

/// Reads the store, no further ahead than the connection takes it. Says when the last byte was taken.
async fn feed(head: Bytes, copy: Copied, parts: mpsc::Sender<Part>, said: oneshot::Sender<()>) {
    if parts.send(Ok(head)).await.is_err() {
        return;
    }
    let mut offset = 0;
    while offset < copy.size_bytes() {
        let read = copy.read(offset, READ_BYTES).await.map_err(io::Error::other);
        let read =
            read.and_then(|bytes| if bytes.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) });
        offset += read.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let is_end = read.is_err();
        if parts.send(read).await.is_err() || is_end {
            return;
        }
    }
    // Whoever waits for it may be gone.
    let _ = said.send(());
}

/// A body that ends well only if all of the store was read.
struct Store(mpsc::Receiver<Part>);

impl Body for Store {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|part| part.map(|bytes| bytes.map(Frame::data)))
    }
}
