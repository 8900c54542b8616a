//! One TCP connection that carries gRPC calls of any number of clients: the measured unary ones, and others as [`Call`]s.
//!
//! Straight over `h2`: no service stack, no codec, no retries. A call either ends with what the server answered or with
//! a [`CallError`], which means that the connection or the protocol broke and the run is over.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use http::{Method, StatusCode, Uri, Version};
use prost::Message;
use tokio::net::TcpStream;

use super::framing::{Malformed, Refusal, refusal, unframe};
use super::requests::{Request, Rpc};
use super::stream::{Call, Next};

/// What HTTP/2 grants without being asked: a client that grants no more than that is soon stuck unless it reads.
const NARROW_WINDOW_BYTES: u32 = 65_535;
/// Replies are bounded by etcd's own request limit and a margin; anything longer is a fault of the server.
const REPLY_BYTES_MAX: usize = 4 << 20;
/// Receive windows so wide that flow control never slows a server down.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

const _: () = assert!(REPLY_BYTES_MAX <= STREAM_WINDOW_BYTES as usize);

/// What the server said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The reply's message, not yet decoded.
    Message(Bytes),
    /// An error status.
    Refused(Refusal),
}

/// The connection or the protocol broke.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection.
    #[error("connection: {0}")]
    Socket(#[from] std::io::Error),
    /// The HTTP/2 connection or the stream was ended by an error.
    #[error("HTTP/2: {0}")]
    Http2(#[from] h2::Error),
    /// An HTTP status other than 200: not a gRPC server.
    #[error("HTTP status {0}")]
    HttpStatus(StatusCode),
    /// The reply is not gRPC.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A client's handle to a connection. Clones share the connection; each makes one call at a time.
#[derive(Clone)]
pub struct Caller {
    server: SocketAddr,
    sender: SendRequest<Bytes>,
    uris: Uris,
}

impl Caller {
    /// Opens a connection and lets a task drive it until the last clone is gone.
    pub async fn connect(server: SocketAddr) -> Result<Self, CallError> {
        Self::connect_with(server, STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES).await
    }

    /// A connection over which a server can send little that is not read.
    pub async fn connect_narrow(server: SocketAddr) -> Result<Self, CallError> {
        Self::connect_with(server, NARROW_WINDOW_BYTES, NARROW_WINDOW_BYTES).await
    }

    async fn connect_with(server: SocketAddr, stream: u32, connection: u32) -> Result<Self, CallError> {
        let socket = TcpStream::connect(server).await?;
        socket.set_nodelay(true)?;
        let (sender, driver) = Builder::new()
            .initial_window_size(stream)
            .initial_connection_window_size(connection)
            .enable_push(false)
            .handshake::<TcpStream, Bytes>(socket)
            .await?;
        // If it breaks, each call learns so from its own stream.
        tokio::spawn(async move { driver.await.ok() });
        Ok(Self { server, sender, uris: Uris::of(server) })
    }

    /// Begins a call of any method, to send and take messages at will.
    pub async fn open(&mut self, path: &str) -> Result<Call, CallError> {
        poll_fn(|context| self.sender.poll_ready(context)).await?;
        let (response, upload) = self.sender.send_request(head(uri(self.server, path)), false)?;
        Ok(Call::new(upload, response))
    }

    /// Makes one call of any unary method.
    pub async fn ask(&mut self, path: &str, message: &impl Message) -> Result<Answer, CallError> {
        let mut call = self.open(path).await?;
        call.send(message)?;
        call.close()?;
        let message = match call.next().await? {
            Next::Message(message) => message,
            Next::Ended(Some(refusal)) => return Ok(Answer::Refused(refusal)),
            Next::Ended(None) => return Err(Malformed::Short(0).into()),
        };
        match call.next().await? {
            Next::Ended(None) => Ok(Answer::Message(message)),
            Next::Ended(Some(refusal)) => Ok(Answer::Refused(refusal)),
            Next::Message(second) => Err(Malformed::Length { announced: 0, carried: second.len() }.into()),
        }
    }

    /// Makes one call and waits for its message and its status.
    pub async fn call(&mut self, request: Request) -> Result<Answer, CallError> {
        poll_fn(|context| self.sender.poll_ready(context)).await?;
        let head = head(self.uris.of_rpc(request.rpc).clone());
        let (response, mut upload) = self.sender.send_request(head, false)?;
        upload.send_data(request.body, true)?;

        let (parts, mut download) = response.await?.into_parts();
        if parts.status != StatusCode::OK {
            return Err(CallError::HttpStatus(parts.status));
        }
        let body = gather(&mut download).await?;
        let trailers = download.trailers().await?;
        // A reply without a body carries its status in the headers.
        if let Some(refusal) = refusal(trailers.as_ref().unwrap_or(&parts.headers))? {
            return Ok(Answer::Refused(refusal));
        }
        Ok(Answer::Message(unframe(body)?))
    }
}

/// Where each method lives on one server. Cloning a `Uri` copies no text.
#[derive(Clone)]
struct Uris {
    put: Uri,
    range: Uri,
    txn: Uri,
}

impl Uris {
    fn of(server: SocketAddr) -> Self {
        let of = |rpc: Rpc| uri(server, rpc.path());
        Self { put: of(Rpc::Put), range: of(Rpc::Range), txn: of(Rpc::Txn) }
    }

    fn of_rpc(&self, rpc: Rpc) -> &Uri {
        match rpc {
            Rpc::Put => &self.put,
            Rpc::Range => &self.range,
            Rpc::Txn => &self.txn,
        }
    }
}

fn uri(server: SocketAddr, path: &str) -> Uri {
    format!("http://{server}{path}").parse().expect("an address and a method's path make a URI")
}

fn head(uri: Uri) -> http::Request<()> {
    let mut head = http::Request::new(());
    *head.method_mut() = Method::POST;
    *head.uri_mut() = uri;
    *head.version_mut() = Version::HTTP_2;
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    head
}

/// All bytes of a reply's body. The usual reply is one chunk and is not copied.
async fn gather(download: &mut RecvStream) -> Result<Bytes, CallError> {
    let Some(first) = next_chunk(download).await? else { return Ok(Bytes::new()) };
    let Some(second) = next_chunk(download).await? else { return Ok(first) };
    let mut body = BytesMut::from(&first[..]);
    body.extend_from_slice(&second);
    while let Some(chunk) = next_chunk(download).await? {
        if REPLY_BYTES_MAX < body.len() + chunk.len() {
            return Err(Malformed::Endless(REPLY_BYTES_MAX).into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

async fn next_chunk(download: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let Some(chunk) = download.data().await else { return Ok(None) };
    let chunk = chunk?;
    download.flow_control().release_capacity(chunk.len())?;
    Ok(Some(chunk))
}
