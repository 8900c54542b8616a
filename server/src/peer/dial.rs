//! What another member says: this member opens both streams, and hears.
//!
//! A stream that fails, says nothing for too long or says what no member says ends, and is opened again after a while, for ever.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, StatusCode};
use bytes::Bytes;
use detcd_io::boot::url::Url;
use detcd_io::peer::Incoming;
use detcd_io::peer::stream::{Decoder, Kind};
use detcd_io::stats::add;
use http_body_util::BodyExt as _;
use hyper::body::Incoming as Body;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::client::{Connection, rest, says};
use super::remote::Remote;
use super::{times, wire};

/// The same complaint is not repeated more often than that.
const COMPLAINT: Duration = Duration::from_secs(30);

/// Hears a stream until the member is talked to no more.
pub(super) async fn hear(remote: Arc<Remote>, kind: Kind, mut stop: watch::Receiver<bool>) {
    let mut complaints = Complaints::default();
    loop {
        let next = Instant::now() + times::REDIAL;
        let ended = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = remote.shared.inbox.closed() => return,
            ended = hear_once(&remote, kind) => ended,
        };
        if let Err(error) = ended {
            complaints.tell(&remote, kind, &error);
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep_until(next) => {}
        }
    }
}

async fn hear_once(remote: &Remote, kind: Kind) -> io::Result<()> {
    let Some(url) = remote.url() else {
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no URL of it can be used"));
    };
    let opened = open(remote, kind, &url).await;
    // The connection lives as long as its body is read.
    let (_connection, body) = opened.inspect_err(|_| remote.was_not_at(&url))?;
    let _hearing = remote.heard();
    tracing::info!(remote = %remote.id(), stream = kind.path(), "a stream of a member is open");
    listen(remote, kind, body).await
}

/// Asks for a stream.
async fn open(remote: &Remote, kind: Kind, url: &Url) -> io::Result<(Connection, Body)> {
    let shared = &remote.shared;
    let request = shared.introduced(Request::get(format!("{}{:x}", kind.path(), remote.local().0)));
    let request = request.header(wire::TO, wire::id_value(remote.id().0)).body(says(Bytes::new()));
    let mut connection = Connection::open(url).await?;
    let reply = connection.ask(request.map_err(io::Error::other)?, times::READ).await?;
    if !wire::has_streams(reply.headers()) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "it does not say that it has such streams"));
    }
    match reply.status() {
        StatusCode::OK => Ok((connection, reply.into_body())),
        StatusCode::GONE => {
            // Nobody takes it only if the driver is gone.
            let _ = shared.inbox.deliver(Incoming::Removed { by: remote.id() }).await;
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "it says that this member was removed"))
        }
        status => {
            let text = rest(reply).await.unwrap_or_default();
            let text = String::from_utf8_lossy(text.get(..200).unwrap_or(&text)).trim_end().to_owned();
            Err(io::Error::other(format!("it answered {status}: {text}")))
        }
    }
}

async fn listen(remote: &Remote, kind: Kind, mut body: Body) -> io::Result<()> {
    let mut decoder = Decoder::new(kind, remote.id(), remote.local());
    loop {
        let frame = match timeout(times::READ, body.frame()).await {
            Ok(Some(frame)) => frame.map_err(io::Error::other)?,
            Ok(None) => return Ok(()),
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "it says nothing any more")),
        };
        let Ok(bytes) = frame.into_data() else { continue };
        decoder.feed(&bytes);
        add(&remote.talk.received_bytes, bytes.len() as u64);
        let malformed = |error| {
            add(&remote.talk.received_failures, 1);
            io::Error::new(io::ErrorKind::InvalidData, error)
        };
        while let Some(received) = decoder.read().map_err(malformed)? {
            match received.over_link(remote.id(), remote.local()) {
                Ok(None) => remote.shared.counts.on_heartbeat(),
                Ok(Some(message)) => {
                    let incoming = Incoming::Message { from: remote.id(), message };
                    if remote.shared.inbox.deliver(incoming).await.is_err() {
                        return Ok(());
                    }
                }
                Err(why) => tracing::debug!(remote = %remote.id(), %why, "dropped"),
            }
        }
    }
}

/// What was complained of last, and when.
#[derive(Default)]
struct Complaints {
    last: Option<(String, Instant)>,
}

impl Complaints {
    fn tell(&mut self, remote: &Remote, kind: Kind, error: &io::Error) {
        let (text, now) = (error.to_string(), Instant::now());
        if self.last.as_ref().is_some_and(|(last, at)| *last == text && now < *at + COMPLAINT) {
            return;
        }
        tracing::warn!(remote = %remote.id(), stream = kind.path(), error = text, "cannot hear a member");
        self.last = Some((text, now));
    }
}
