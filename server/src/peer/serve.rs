//! The sockets of other members: HTTP/1 alone, and no patience with those who send a head slowly, do not read, or come in crowds.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use detcd_io::peer::bounds;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower_service::Service as _;

use super::client::BUFFER_BYTES;
use super::paced::Paced;
use super::routes::Cut;
use super::times;

/// Serves a listener until `closed` says so, then lets connections come to their end.
pub(crate) async fn serve<F>(listener: TcpListener, router: Router, closed: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(bounds::CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut closing = Box::pin(closed());
    loop {
        tokio::select! {
            biased;
            () = &mut closing => break,
            Some(_) = connections.join_next() => {}
            (place, socket) = accept(&listener, &places) => {
                let connection = one(socket, router.clone(), closed());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
        }
    }
    drop(listener);
    let _ = timeout(times::LAST_FLUSH, async { while connections.join_next().await.is_some() {} }).await;
}

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (tokio::sync::OwnedSemaphorePermit, TcpStream) {
    let place = Arc::clone(places).acquire_owned().await.expect("it is never closed");
    (place, crate::serve::accept(listener).await)
}

async fn one(socket: TcpStream, router: Router, closed: impl Future<Output = ()>) {
    // Messages are small, and each is waited for.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "cannot turn off the delay of small packets");
    }
    let service = service_fn(move |request: Request<Incoming>| answer(router.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(times::READ)
        .title_case_headers(true)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(Paced::new(socket, times::WRITE)), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a member's connection ended");
            }
            return;
        }
        () = closed => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(times::LAST_FLUSH, connection).await;
}

/// The answer to a request, or the end of its connection.
async fn answer(mut router: Router, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let response = match router.call(request.map(Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if response.extensions().get::<Cut>().is_some() {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    Ok(response)
}
