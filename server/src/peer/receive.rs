//! A snapshot that another member sends: the message first ([`detcd_io::peer::arrival`]), then its store to the end of the body, straight to the disk.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use detcd_io::clock::Instant;
use detcd_io::peer::arrival::{Announced, Head, NotTaken, accept};
use detcd_io::peer::spool::{self, NoFile};
use detcd_io::peer::{self, SnapshotRefused};
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
    /// Its store is not taken.
    NotTaken(NotTaken),
    /// Another one is under way.
    Busy,
    /// It did not come to the disk.
    File(String),
    /// It came, and is not taken over.
    Member(SnapshotRefused),
}

impl From<NotTaken> for Refused {
    fn from(why: NotTaken) -> Self {
        Self::NotTaken(why)
    }
}

impl Refused {
    fn response(self) -> Response<Body> {
        let (status, said) = match self {
            Self::NotTaken(NotTaken::Nothing) => return cut(),
            Self::NotTaken(NotTaken::Head(why)) => {
                (StatusCode::BAD_REQUEST, format!("failed to decode raft message ({why})\n"))
            }
            Self::NotTaken(NotTaken::Kind) => (StatusCode::BAD_REQUEST, "wrong raft message type\n".to_owned()),
            Self::NotTaken(NotTaken::ForAnother) => {
                let said = "failed to process raft message (cannot process message to mismatch member)\n";
                (StatusCode::INTERNAL_SERVER_ERROR, said.to_owned())
            }
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "another snapshot is being received\n".to_owned()),
            Self::File(why) => (StatusCode::INTERNAL_SERVER_ERROR, format!("failed to save KV snapshot ({why})\n")),
            Self::NotTaken(NotTaken::Member(why)) | Self::Member(why) => {
                (StatusCode::INTERNAL_SERVER_ERROR, format!("failed to process raft message ({why})\n"))
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
    let response = match receive(&network, Reader { body }).await {
        Ok(()) => empty(StatusCode::NO_CONTENT),
        Err(refused) => refused.response(),
    };
    network.signed(response)
}

async fn receive(network: &Network, mut reader: Reader) -> Result<(), Refused> {
    let (wire, first) = reader.head().await?;
    let Announced { from, message, snapshot } = accept(&network.shared.directory, wire)?;
    let talk = network.talk(from);
    let Some(file) = network.shared.spooler.begin(snapshot.mark.index) else {
        talk.received.begin();
        talk.received.fail();
        return Err(Refused::Busy);
    };
    let arriving = Arriving::begin(Arc::clone(&talk));
    tracing::info!(%from, what = %message, "receiving a snapshot");
    let (path, _turn) = save(file, (first, reader), (&talk, &network.shared.counts)).await?;
    tracing::info!(%from, what = %message, path = %path.display(), "received a snapshot");
    let (answer, answered) = oneshot::channel();
    let incoming = peer::Incoming::Snapshot { from, message, path, answer };
    let stopping = || Refused::Member(SnapshotRefused::Stopping);
    network.shared.inbox.deliver(incoming).await.map_err(|_| stopping())?;
    answered.await.map_err(|_| stopping())?.map_err(Refused::Member)?;
    arriving.done();
    Ok(())
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
    (first, mut reader): (Bytes, Reader),
    (talk, counts): (&Talk, &Counts),
) -> Result<(std::path::PathBuf, spool::Turn), Refused> {
    let began = Instant::now();
    let failed = |error: NoFile| Refused::File(error.to_string());
    if !first.is_empty() {
        file.write(first).await.map_err(failed)?;
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

/// A body.
struct Reader {
    body: Body,
}

impl Reader {
    /// The message, and what came with it of the store.
    async fn head(&mut self) -> Result<(raftpb::Message, Bytes), NotTaken> {
        let mut head = Head::default();
        loop {
            if let Some(message) = head.read()? {
                return Ok((message, head.into_rest()));
            }
            match self.more().await {
                Ok(Some(bytes)) => head.feed(&bytes),
                Ok(None) => return Err(head.ended()),
                Err(_) => return Err(Head::lost()),
            }
        }
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
