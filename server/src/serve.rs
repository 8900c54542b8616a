//! The sockets of clients: gRPC and HTTP/1 on one port, and everything of a connection in one task.

use std::pin::{Pin, pin};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower_service::Service as _;

use crate::gather::Gathered;
use crate::streams::{Begun, Graceful, Together};

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests that were given up before they were looked at, which a connection may hold. hyper's default of 20 ends the connection, and all that goes on there with it, when a client gives up a
/// few dozen requests together; etcd has no such bound.
const GIVEN_UP_MAX: usize = 4_096;
/// Bytes of requests that a stream may have sent and nobody has read yet.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
/// The same of a connection; etcd's has no such bound besides those of its streams. The HTTP/2 library ends a connection whose unread small frames, each taken for up to 256 bytes, are more
/// than half of this. Ten streams full of the smallest messages, of five bytes, are less, and forty full of usual ones: flow control holds those up before.
const CONNECTION_WINDOW_BYTES: u32 = 128 << 20;
/// After a connection could not be taken, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves a listener until it is told to close, then lets connections come to their end.
pub(crate) async fn serve(listener: TcpListener, router: Router, streams_max: u32, closed: watch::Receiver<bool>) {
    let router = router.with_state(());
    let mut connections = JoinSet::new();
    let mut closing = pin!(until_closed(closed.clone()));
    loop {
        tokio::select! {
            biased;
            () = &mut closing => break,
            Some(_) = connections.join_next() => {}
            socket = accept(&listener) => {
                connections.spawn(one(socket, router.clone(), streams_max, closed.clone()));
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Waits until listeners are told to close.
pub(crate) async fn until_closed(mut closed: watch::Receiver<bool>) {
    // A dropped sender closes as well.
    let _ = closed.wait_for(|closed| *closed).await;
}

/// The next connection, however long there is no room for one.
pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => return socket,
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection.
async fn one(socket: TcpStream, router: Router, streams_max: u32, closed: watch::Receiver<bool>) {
    // A reply held back for the client's delayed acknowledgement would cost 40 ms.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "cannot turn off the delay of small packets");
    }
    let (begun, output) = (Begun::default(), Gathered::new(socket));
    let mut builder = auto::Builder::new(begun.clone());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        .max_pending_accept_reset_streams(GIVEN_UP_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(Some(KEEPALIVE_INTERVAL))
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let service = service_fn(move |request: Request<Incoming>| router.clone().call(request.map(Body::new)));
    let connection = pin!(builder.serve_connection(TokioIo::new(output.clone()), service));
    let closing = pin!(until_closed(closed));
    if let Err(error) = Together::new(connection, (begun, output), closing).await {
        tracing::debug!(%error, "a client's connection ended");
    }
}

impl<I, S, B> Graceful for auto::Connection<'_, I, S, Begun>
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: axum::body::HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    fn close(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::any;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    /// `GET http://a/` by HPACK's static table.
    const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];

    fn frame(into: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        into.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        into.extend_from_slice(&[kind, flags]);
        into.extend_from_slice(&stream.to_be_bytes());
        into.extend_from_slice(payload);
    }

    /// What a connection answers to so many requests that are given up at once, and one more: a kind of frame.
    async fn answer_after(given_up: u32) -> u8 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_close, closed) = watch::channel(false);
        let router = Router::new().route("/", any(async || "here"));
        tokio::spawn(serve(listener, router, u32::MAX, closed));
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut bytes, SETTINGS, 0, 0, &[]);
        for stream in 0..given_up {
            frame(&mut bytes, HEADERS, END_HEADERS, 2 * stream + 1, GET);
            frame(&mut bytes, RST_STREAM, 0, 2 * stream + 1, &CANCEL);
        }
        let last = 2 * given_up + 1;
        frame(&mut bytes, HEADERS, END_HEADERS | END_STREAM, last, GET);
        socket.write_all(&bytes).await.unwrap();
        loop {
            let mut head = [0; 9];
            socket.read_exact(&mut head).await.unwrap();
            let [_, a, b, kind, _, stream @ ..] = head;
            socket.read_exact(&mut vec![0; usize::from(a) << 8 | usize::from(b)]).await.unwrap();
            if kind == GOAWAY || kind == HEADERS && u32::from_be_bytes(stream) == last {
                return kind;
            }
        }
    }

    #[tokio::test]
    async fn a_client_may_give_up_many_requests_at_once() {
        assert_eq!(answer_after(0).await, HEADERS);
        assert_eq!(answer_after(1_000).await, HEADERS);
        assert_eq!(answer_after(10_000).await, GOAWAY, "but not any number");
    }
}
