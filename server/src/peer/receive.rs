//! A snapshot that another member sends: the message first, then its store to the end of the body, straight to the disk.
//!
//! What the receiver can refuse, it refuses before it takes the store; etcd does so after it, in the same words.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request, Response, StatusCode};
use bytes::{Buf as _, Bytes, BytesMut};
use detcd_core::ids::{Index, MemberId};
use detcd_core::raft::Message;
use detcd_io::clock::Instant;
use detcd_io::peer::codec::{self, Envelope, Malformed, Received};
use detcd_io::peer::spool::{self, NoFile};
use detcd_io::peer::{self, SnapshotRefused, Standing, bounds};
use detcd_io::stats::add;
use detcd_proto::raftpb;
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::counts::{Counts, Talk};
use super::routes::{cut, empty, refuse_method};
use super::{Network, times};
use crate::http::text;

/// Why there is no snapshot, as its sender is told.
enum Refused {
    /// Not the message that it must begin with.
    Head(String),
    /// A message, but of another kind.
    Kind,
    /// A snapshot of nothing: the connection ends.
    Nothing,
    /// Another one is under way.
    Busy,
    /// It did not come to the disk.
    File(String),
    /// It came, and is not taken over.
    Member(SnapshotRefused),
    /// It is for another member.
    ForAnother,
}

impl Refused {
    fn response(self) -> Response<Body> {
        let (status, said) = match self {
            Self::Nothing => return cut(),
            Self::Head(why) => (StatusCode::BAD_REQUEST, format!("failed to decode raft message ({why})\n")),
            Self::Kind => (StatusCode::BAD_REQUEST, "wrong raft message type\n".to_owned()),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "another snapshot is being received\n".to_owned()),
            Self::File(why) => (StatusCode::INTERNAL_SERVER_ERROR, format!("failed to save KV snapshot ({why})\n")),
            Self::Member(why) => {
                (StatusCode::INTERNAL_SERVER_ERROR, format!("failed to process raft message ({why})\n"))
            }
            Self::ForAnother => {
                let said = "failed to process raft message (cannot process message to mismatch member)\n";
                (StatusCode::INTERNAL_SERVER_ERROR, said.to_owned())
            }
        };
        text(status, said)
    }
}

pub(super) async fn snapshot(State(network): State<Network>, request: Request<Body>) -> Response<Body> {
    if let Some(refused) = refuse_method(request.method(), &Method::POST) {
        return refused;
    }
    let (head, body) = request.into_parts();
    if let Some(refused) = network.refuse(&head.headers) {
        return network.signed(refused);
    }
    network.meet_sender(&head.headers);
    let response = match receive(&network, Reader { body, rest: BytesMut::new() }).await {
        Ok(()) => empty(StatusCode::NO_CONTENT),
        Err(refused) => refused.response(),
    };
    network.signed(response)
}

async fn receive(network: &Network, mut reader: Reader) -> Result<(), Refused> {
    let (from, message, index) = accept(network, reader.head().await?)?;
    let talk = network.talk(from);
    let Some(file) = network.shared.spooler.begin(index) else {
        talk.received.begin();
        talk.received.fail();
        return Err(Refused::Busy);
    };
    let arriving = Arriving::begin(Arc::clone(&talk));
    tracing::info!(%from, what = %message, "receiving a snapshot");
    let (path, _turn) = save(file, reader, (&talk, &network.shared.counts)).await?;
    tracing::info!(%from, what = %message, path = %path.display(), "received a snapshot");
    let (answer, answered) = oneshot::channel();
    let incoming = peer::Incoming::Snapshot { from, message, path, answer };
    let stopping = || Refused::Member(SnapshotRefused::Stopping);
    network.shared.inbox.deliver(incoming).await.map_err(|_| stopping())?;
    answered.await.map_err(|_| stopping())?.map_err(Refused::Member)?;
    arriving.done();
    Ok(())
}

/// Whether the store of this message is taken.
fn accept(network: &Network, wire: raftpb::Message) -> Result<(MemberId, Message, Index), Refused> {
    if wire.r#type.unwrap_or_default() != i32::from(raftpb::MessageType::MsgSnap) {
        return Err(Refused::Kind);
    }
    if wire.snapshot.is_none() {
        return Err(Refused::Nothing);
    }
    let received = codec::meaning(wire).map_err(|error| Refused::Head(format!("proto: {error}")))?;
    let Received::Message(Envelope { from, to, message: message @ Message::Snapshot { .. } }) = received else {
        return Err(Refused::Kind);
    };
    let directory = &network.shared.directory;
    if directory.standing(from) == Standing::Removed {
        return Err(Refused::Member(SnapshotRefused::Removed));
    }
    if to != directory.member() {
        return Err(Refused::ForAnother);
    }
    let Message::Snapshot { snapshot, .. } = &message else { unreachable!("matched above") };
    let index = snapshot.mark.index;
    Ok((from, message, index))
}

/// A store on its way; given up, or dropped by a connection that ends, it is lost.
struct Arriving {
    talk: Arc<Talk>,
    began: Instant,
    is_done: bool,
}

impl Arriving {
    fn begin(talk: Arc<Talk>) -> Self {
        talk.received.begin();
        Self { talk, began: Instant::now(), is_done: false }
    }

    fn done(mut self) {
        self.is_done = true;
        self.talk.received.done.observe(self.began.elapsed());
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if !self.is_done {
            self.talk.received.fail();
        }
    }
}

async fn save(
    mut file: spool::Incoming,
    mut reader: Reader,
    (talk, counts): (&Talk, &Counts),
) -> Result<(std::path::PathBuf, spool::Turn), Refused> {
    let began = Instant::now();
    let failed = |error: NoFile| Refused::File(error.to_string());
    if !reader.rest.is_empty() {
        file.write(reader.rest.split().freeze()).await.map_err(failed)?;
    }
    while let Some(bytes) = reader.more().await.map_err(|error| Refused::File(error.to_string()))? {
        add(&talk.received_bytes, bytes.len() as u64);
        file.write(bytes).await.map_err(failed)?;
    }
    let written = Instant::now();
    let saved = file.finish().await.map_err(failed)?;
    counts.synced.observe(written.elapsed());
    counts.stored.observe(began.elapsed());
    Ok(saved)
}

/// A body, and what was read of it and not used yet.
struct Reader {
    body: Body,
    rest: BytesMut,
}

impl Reader {
    /// The message, behind its length.
    async fn head(&mut self) -> Result<raftpb::Message, Refused> {
        self.fill(8).await?;
        let length = self.rest.get_u64();
        let limit = bounds::FRAME_BYTES_MAX;
        let length = usize::try_from(length).ok().filter(|length| *length <= limit);
        let length = length.ok_or_else(|| Refused::Head("rafthttp: error limit exceeded".to_owned()))?;
        self.fill(length).await?;
        let parsed = codec::parse(self.rest.split_to(length).freeze());
        parsed.map_err(|error: Malformed| Refused::Head(format!("proto: {error}")))
    }

    /// Reads until so much is there.
    async fn fill(&mut self, length: usize) -> Result<(), Refused> {
        let is_first = self.rest.is_empty() && length == 8;
        while self.rest.len() < length {
            match self.more().await {
                Ok(Some(bytes)) => self.rest.extend_from_slice(&bytes),
                Ok(None) if is_first && self.rest.is_empty() => return Err(Refused::Head("EOF".to_owned())),
                Ok(None) | Err(_) => return Err(Refused::Head("unexpected EOF".to_owned())),
            }
        }
        Ok(())
    }

    /// What comes next; `None` at the end.
    async fn more(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let frame = timeout(times::READ, self.body.frame()).await;
            let frame = frame.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
            match frame.transpose().map_err(io::Error::other)?.map(http_body::Frame::into_data) {
                None => return Ok(None),
                Some(Ok(bytes)) => return Ok(Some(bytes)),
                Some(Err(_trailers)) => {}
            }
        }
    }
}
