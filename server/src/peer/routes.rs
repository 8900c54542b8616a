//! What other members ask of the transport: streams, and to take messages. Statuses, texts and headers are etcd's, and so is the order of the checks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderValue, LOCATION};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use axum::routing::any;
use bytes::{Bytes, BytesMut};
use detcd_core::ids::MemberId;
use detcd_core::raft::Message;
use detcd_io::peer::codec::{self, Envelope, Received};
use detcd_io::peer::stream::Kind;
use detcd_io::peer::{Incoming, Standing, bounds};
use detcd_io::stats::add;
use detcd_server::log::timestamp;
use detcd_server::member::VERSION;
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::receive::snapshot;
use super::{Network, times, wire};
use crate::http::text;

/// Everything below `/raft`.
pub(crate) fn router(network: Network) -> Router {
    Router::new()
        .route("/raft", any(post))
        .route("/raft/snapshot", any(snapshot))
        .route("/raft/probing", any(probing))
        .route("/raft/stream", any(redirected))
        .route("/raft/stream/", any(stream))
        .route("/raft/stream/{*of}", any(stream))
        .with_state(network)
}

/// In the extensions of a response: it is not sent, the connection ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut;

/// A response that is never sent.
pub(super) fn cut() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(Cut);
    response
}

/// A response with nothing in it.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// What Go says of a path that ends in a slash only; a link for those who might show it.
async fn redirected(method: Method) -> Response<Body> {
    let mut response = empty(StatusCode::TEMPORARY_REDIRECT);
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/raft/stream/"));
    if method == Method::GET {
        *response.body_mut() = Body::from("<a href=\"/raft/stream/\">Temporary Redirect</a>.\n\n");
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    }
    response
}

/// Refuses another method than `allowed`, before anything else is looked at.
pub(super) fn refuse_method(method: &Method, allowed: &Method) -> Option<Response<Body>> {
    if method == allowed {
        return None;
    }
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n".to_owned());
    let allowed = HeaderValue::from_str(allowed.as_str()).expect("a method's name");
    response.headers_mut().insert(ALLOW, allowed);
    Some(response)
}

impl Network {
    /// Refuses who is not talked to.
    pub(super) fn refuse(&self, headers: &HeaderMap) -> Option<Response<Body>> {
        let why = wire::check(headers, self.shared.directory.cluster()).err()?;
        tracing::warn!(from = wire::text(headers, &wire::FROM), ?why, "a member is not talked to");
        Some(match why.text() {
            Some(said) => text(StatusCode::PRECONDITION_FAILED, said.to_owned()),
            None => cut(),
        })
    }

    /// Remembers who posts something and may want an answer.
    pub(super) fn meet_sender(&self, headers: &HeaderMap) {
        let id = wire::text(headers, &wire::FROM).and_then(wire::parse_id);
        if let (Some(id), Some(urls)) = (id, wire::text(headers, &wire::PEER_URLS)) {
            self.meet(id, urls);
        }
    }

    /// Adds which cluster this is.
    pub(super) fn signed(&self, mut response: Response<Body>) -> Response<Body> {
        response.headers_mut().insert(wire::CLUSTER, wire::id_value(self.shared.directory.cluster()));
        response
    }
}

async fn probing() -> Response<Body> {
    let now = timestamp(std::time::SystemTime::now());
    let mut response = Response::new(Body::from(format!("{{\"OK\":true,\"Now\":\"{now}\"}}\n")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

async fn stream(State(network): State<Network>, request: Request<Body>) -> Response<Body> {
    if let Some(refused) = refuse_method(request.method(), &Method::GET) {
        return refused;
    }
    let mut response = opened(&network, request.uri().path(), request.headers());
    response.headers_mut().insert(wire::SERVER_VERSION, HeaderValue::from_static(VERSION));
    network.signed(response)
}

/// The response that is the stream, or why there is none.
fn opened(network: &Network, path: &str, headers: &HeaderMap) -> Response<Body> {
    if let Some(refused) = network.refuse(headers) {
        return refused;
    }
    let missing = |said: &str| text(StatusCode::NOT_FOUND, format!("{said}\n"));
    let named = Kind::ALL.into_iter().find_map(|kind| Some((kind, path.strip_prefix(kind.path())?)));
    let Some((kind, id)) = named.filter(|(_, id)| !id.contains('/')) else { return missing("invalid path") };
    let Some(id) = wire::parse_id(id) else { return missing("invalid from") };
    if network.shared.directory.standing(id) == Standing::Removed {
        return text(StatusCode::GONE, "removed member\n".to_owned());
    }
    let Some(remote) = network.peer(id) else {
        if let Some(urls) = wire::text(headers, &wire::PEER_URLS) {
            network.meet(id, urls);
        }
        return missing("error sender not found");
    };
    if wire::text(headers, &wire::TO) != Some(&format!("{:x}", network.shared.directory.member().0)) {
        return text(StatusCode::PRECONDITION_FAILED, "to field mismatch\n".to_owned());
    }
    Response::new(Body::new(remote.speak(kind)))
}

async fn post(State(network): State<Network>, request: Request<Body>) -> Response<Body> {
    if let Some(refused) = refuse_method(request.method(), &Method::POST) {
        return refused;
    }
    network.signed(posted(&network, request).await)
}

async fn posted(network: &Network, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    if let Some(refused) = network.refuse(&head.headers) {
        return refused;
    }
    network.meet_sender(&head.headers);
    let refused = |said: &str| text(StatusCode::BAD_REQUEST, format!("{said}\n"));
    let (bytes, _room) = match read_all(network, body).await {
        Ok(read) => read,
        Err(NotRead::NoRoom) => {
            return text(StatusCode::SERVICE_UNAVAILABLE, "too many raft messages are being read\n".to_owned());
        }
        Err(NotRead::Broken) => return refused("error reading raft message"),
    };
    let unreadable = || refused("error unmarshalling raft message");
    let length = bytes.len() as u64;
    let Ok(wire) = codec::parse(bytes) else { return unreadable() };
    let (from, to) = (MemberId(wire.from.unwrap_or_default()), MemberId(wire.to.unwrap_or_default()));
    add(&network.talk(from).received_bytes, length);
    let directory = &network.shared.directory;
    if to != directory.member() || directory.standing(from) == Standing::Removed {
        tracing::warn!(%from, %to, "a message is not for this member, or of a removed one");
        return broken(StatusCode::INTERNAL_SERVER_ERROR, "error processing raft message\n");
    }
    match codec::meaning(wire) {
        Err(malformed) => {
            tracing::warn!(%from, error = %malformed, "a message that no member sends");
            unreadable()
        }
        // Without its store a snapshot says nothing.
        Ok(Received::Message(Envelope { message: Message::Snapshot { .. }, .. })) => empty(StatusCode::NO_CONTENT),
        Ok(Received::Message(Envelope { message, .. })) => {
            let from = passed_on_by(&message, &head.headers).unwrap_or(from);
            match network.shared.inbox.deliver(Incoming::Message { from, message }).await {
                Ok(()) => empty(StatusCode::NO_CONTENT),
                Err(_) => broken(StatusCode::INTERNAL_SERVER_ERROR, "error processing raft message\n"),
            }
        }
        Ok(Received::LinkHeartbeat | Received::Dropped(_)) => empty(StatusCode::NO_CONTENT),
    }
}

/// Who hands on what another member said first.
fn passed_on_by(message: &Message, headers: &HeaderMap) -> Option<MemberId> {
    let is_passed_on = matches!(message, Message::Propose { .. } | Message::ReadIndex { .. });
    if is_passed_on { wire::text(headers, &wire::FROM).and_then(wire::parse_id) } else { None }
}

/// Why a body was not read.
enum NotRead {
    /// Too much is being read for others.
    NoRoom,
    /// It is too long, too slow, or cut off.
    Broken,
}

/// Reads a message. Its bytes hold room until the permit is dropped.
async fn read_all(network: &Network, mut body: Body) -> Result<(Bytes, Option<OwnedSemaphorePermit>), NotRead> {
    let mut bytes = BytesMut::new();
    let mut room: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = timeout(times::READ, body.frame()).await.map_err(|_| NotRead::Broken)? {
        let Ok(data) = frame.map_err(|_| NotRead::Broken)?.into_data() else { continue };
        if bounds::FRAME_BYTES_MAX - bytes.len() < data.len() {
            return Err(NotRead::Broken);
        }
        let permits = u32::try_from(data.len()).expect("bounded above");
        let more = std::sync::Arc::clone(&network.shared.posted).try_acquire_many_owned(permits);
        let more = more.map_err(|_| NotRead::NoRoom)?;
        match &mut room {
            Some(room) => room.merge(more),
            None => room = Some(more),
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes.freeze(), room))
}

/// A response that says so much and then breaks off, with its connection.
fn broken(status: StatusCode, said: &'static str) -> Response<Body> {
    let mut response = text(status, String::new());
    *response.body_mut() = Body::new(Broken::Says(Bytes::from_static(said.as_bytes())));
    response
}

/// Its body.
enum Broken {
    Says(Bytes),
    /// Until what was said has left.
    Leaves,
    Breaks,
}

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match std::mem::replace(&mut *self, Self::Breaks) {
            Self::Says(bytes) => {
                *self = Self::Leaves;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Leaves => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Self::Breaks => Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
        }
    }
}
