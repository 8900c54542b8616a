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
