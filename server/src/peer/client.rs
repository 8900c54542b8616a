//! One connection to another member, for one request at a time.
//!
//! Whatever is not answered in time is an error; a reply is read up to a bound. Dropped, the connection is gone.

use std::io;
use std::time::Duration;

use axum::http::header::{HOST, HeaderValue};
use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use detcd_io::boot::url::{Scheme, Url};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::paced::Paced;
use super::times;

/// Bytes of a reply that is read whole.
pub(super) const REPLY_BYTES_MAX: usize = 1 << 20;
/// What hyper gathers of a head, and of a body between two reads.
pub(super) const BUFFER_BYTES: usize = 128 << 10;

/// What a request says.
pub(super) type Says = UnsyncBoxBody<Bytes, io::Error>;

/// The connection.
pub(super) struct Connection {
    sender: SendRequest<Says>,
    host: HeaderValue,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    /// Connects to the member at `url`.
    pub(super) async fn open(url: &Url) -> io::Result<Self> {
        if url.scheme() != Scheme::Http {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "only http is built yet"));
        }
        let socket = timed("connect", times::DIAL, TcpStream::connect(url.authority())).await?;
        // Messages are small, and each is waited for.
        socket.set_nodelay(true)?;
        let paced = TokioIo::new(Paced::new(socket, times::WRITE));
        let (sender, connection) = http1::Builder::new()
            .title_case_headers(true)
            .max_buf_size(BUFFER_BYTES)
            .handshake(paced)
            .await
            .map_err(io::Error::other)?;
        let host = HeaderValue::from_str(url.authority()).map_err(io::Error::other)?;
        // What ends it shows in the request under way.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, host, task })
    }

    /// Whether another request can be made.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Asks, and waits at most `patience` for the head of the reply.
    pub(super) async fn ask(
        &mut self,
        mut request: Request<Says>,
        patience: Duration,
    ) -> io::Result<Response<Incoming>> {
        request.headers_mut().insert(HOST, self.host.clone());
        let asking = async {
            self.sender.ready().await.map_err(io::Error::other)?;
            self.sender.send_request(request).await.map_err(io::Error::other)
        };
        timed("answer", patience, asking).await
    }

    /// Asks, and reads the whole reply.
    pub(super) async fn ask_all(
        &mut self,
        request: Request<Says>,
        patience: Duration,
    ) -> io::Result<(StatusCode, Bytes)> {
        let reply = self.ask(request, patience).await?;
        let status = reply.status();
        Ok((status, rest(reply).await?))
    }
}

/// The rest of a reply.
pub(super) async fn rest(reply: Response<Incoming>) -> io::Result<Bytes> {
    let reading = async {
        let body = Limited::new(reply.into_body(), REPLY_BYTES_MAX).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(io::Error::other)
    };
    timed("finish its answer", times::READ, reading).await
}

/// A request that says all of `bytes`.
pub(super) fn says(bytes: Bytes) -> Says {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

async fn timed<T>(what: &str, patience: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(patience, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("it did not {what} in time"))),
    }
}
