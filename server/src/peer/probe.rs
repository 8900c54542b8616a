//! How long another member takes to answer, asked from time to time as etcd's prober does.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, StatusCode};
use bytes::Bytes;
use detcd_io::clock::Instant;
use tokio::sync::watch;
use tokio::time::sleep;

use super::client::{Connection, says};
use super::remote::Remote;
use super::times;

/// Between two probes, the first of them and those of a member that does not answer apart.
const PAUSE: Duration = Duration::from_secs(30);
/// Before those.
const PAUSE_AT_FIRST: Duration = Duration::from_secs(5);

/// Probes a member until it is talked to no more.
pub(super) async fn probe(remote: Arc<Remote>, mut stop: watch::Receiver<bool>) {
    let (mut connection, mut pause, mut has_failed) = (None, PAUSE_AT_FIRST, false);
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep(pause) => {}
        }
        match ask(&remote, &mut connection).await {
            Ok(took) => {
                remote.talk.round_trips.observe(took);
                (pause, has_failed) = (PAUSE, false);
            }
            Err(error) => {
                connection = None;
                if !has_failed {
                    tracing::warn!(remote = %remote.id(), %error, "prober detected unhealthy status");
                }
                (pause, has_failed) = (PAUSE_AT_FIRST, true);
            }
        }
    }
}

async fn ask(remote: &Remote, connection: &mut Option<Connection>) -> io::Result<Duration> {
    let Some(url) = remote.url() else {
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no URL of it can be used"));
    };
    if !connection.as_ref().is_some_and(Connection::is_open) {
        *connection = Some(Connection::open(&url).await?);
    }
    let connection = connection.as_mut().expect("opened above");
    let request = Request::get("/raft/probing").body(says(Bytes::new())).map_err(io::Error::other)?;
    let asked = Instant::now();
    match connection.ask_all(request, times::ANSWER).await? {
        (StatusCode::OK, text) if is_well(&text) => Ok(asked.elapsed()),
        (status, _) => Err(io::Error::other(format!("it answered {status}"))),
    }
}

fn is_well(text: &[u8]) -> bool {
    let said: Option<serde_json::Value> = serde_json::from_slice(text).ok();
    said.is_some_and(|said| said["OK"] == true)
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_a_member_says_that_it_is_well() {
        assert!(super::is_well(br#"{"OK":true,"Now":"2026-01-01T00:00:00Z"}"#));
        for text in ["", "{}", "[]", r#"{"OK":false}"#, r#"{"OK":"true"}"#] {
            assert!(!super::is_well(text.as_bytes()), "{text}");
        }
    }
}
