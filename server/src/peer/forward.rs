//! What this member asks of another one's services: its leases if it leads, a promotion, its version. One question at a time on a connection; a few connections are kept for the next.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::request::Builder;
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use detcd_core::ids::LeaseId;
use detcd_core::membership::{self, Version};
use detcd_core::reply::Rejected;
use detcd_io::boot::url::Url;
use detcd_io::codec::member;
use detcd_proto::{etcdserverpb as pb, leasepb};
use detcd_server::forward::{Asking, Forward, Unheard, Versions};
use detcd_server::lease::LeaseSeen;
use detcd_server::status::{self, Refused};
use prost::Message as _;

use super::client::{Connection, says};
use super::times;

/// Connections to one member that wait for a question. More are closed.
const IDLE_MAX: usize = 8;
/// Members for whom they are kept. More: those of another are closed.
const MEMBERS_MAX: usize = 64;

/// The way to other members' services. Clones share its connections.
#[derive(Clone, Default)]
pub(crate) struct Http {
    idle: Arc<Mutex<BTreeMap<String, Vec<Connection>>>>,
}

/// A question that can be asked more than once.
#[derive(Clone)]
struct Question {
    path: String,
    /// A protobuf message, for a POST; otherwise it is a GET.
    body: Option<Bytes>,
}

impl Question {
    fn request(&self) -> Builder {
        match &self.body {
            None => Request::get(&self.path),
            Some(body) if body.is_empty() => Request::post(&self.path),
            Some(_) => Request::post(&self.path).header(CONTENT_TYPE, HeaderValue::from_static("application/protobuf")),
        }
    }
}

impl Http {
    /// The first answer that one of the URLs gives.
    async fn ask(&self, urls: &[String], question: &Question) -> Result<(StatusCode, Bytes), Unheard> {
        for url in urls.iter().filter_map(|url| Url::parse(url).ok()) {
            match self.ask_one(&url, question).await {
                Ok(answer) => return Ok(answer),
                Err(error) => tracing::debug!(url = url.as_str(), path = question.path, %error, "no answer"),
            }
        }
        Err(Unheard::Again)
    }

    async fn ask_one(&self, url: &Url, question: &Question) -> io::Result<(StatusCode, Bytes)> {
        let mut connection = match self.take(url) {
            Some(connection) => connection,
            None => Connection::open(url).await?,
        };
        let body = says(question.body.clone().unwrap_or_default());
        let request = question.request().body(body).map_err(io::Error::other)?;
        let answer = connection.ask_all(request, times::ANSWER).await?;
        self.keep(url, connection);
        Ok(answer)
    }

    fn take(&self, url: &Url) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(url.as_str())?;
        connections.retain(Connection::is_open);
        connections.pop()
    }

    fn keep(&self, url: &Url, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if MEMBERS_MAX <= idle.len() && !idle.contains_key(url.as_str()) {
            idle.pop_first();
        }
        let connections = idle.entry(url.as_str().to_owned()).or_default();
        if connections.len() < IDLE_MAX {
            connections.push(connection);
        }
    }
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim_end().to_owned()
}

fn lease_keep_alive(id: LeaseId, status: StatusCode, body: Bytes) -> Result<Option<i64>, Unheard> {
    match status {
        StatusCode::OK => {
            let answer = pb::LeaseKeepAliveResponse::decode(body).ok().filter(|answer| answer.id == id.0);
            answer.map(|answer| Some(answer.ttl)).ok_or(Unheard::Again)
        }
        StatusCode::NOT_FOUND => Ok(None),
        // It does not lead, or lags.
        _ => Err(Unheard::Again),
    }
}

fn lease_seen(id: LeaseId, status: StatusCode, body: Bytes) -> Result<Option<LeaseSeen>, Unheard> {
    match status {
        StatusCode::OK => {
            let answer = leasepb::LeaseInternalResponse::decode(body).ok();
            let answer = answer.and_then(|answer| answer.lease_time_to_live_response);
            let answer = answer.filter(|answer| answer.id == id.0).ok_or(Unheard::Again)?;
            Ok(Some(LeaseSeen { left: answer.ttl, ttl: answer.granted_ttl, keys: answer.keys }))
        }
        StatusCode::NOT_FOUND => Ok(None),
        _ => Err(Unheard::Again),
    }
}

fn promoted(status: StatusCode, body: &[u8]) -> Result<Vec<membership::Member>, Unheard> {
    match status {
        StatusCode::OK => {
            let rows: Vec<serde_json::Value> = serde_json::from_slice(body).map_err(|_| Unheard::Again)?;
            let members = rows.iter().map(|row| member::decode(row.to_string().as_bytes()));
            members.collect::<Result<_, _>>().map_err(|_| Unheard::Again)
        }
        StatusCode::NOT_FOUND => Err(Unheard::Refused(status::rejected(Rejected::MemberNotFound).1.to_owned())),
        StatusCode::PRECONDITION_FAILED => {
            let not_ready = status::refused(Refused::LearnerNotReady).1;
            let said =
                if text(body).contains(not_ready) { not_ready } else { status::rejected(Rejected::MemberNotLearner).1 };
            Err(Unheard::Refused(said.to_owned()))
        }
        _ => Err(Unheard::Again),
    }
}

fn versions(status: StatusCode, body: &[u8]) -> Result<Versions, Unheard> {
    let json: serde_json::Value = serde_json::from_slice(body).map_err(|_| Unheard::Again)?;
    let server = json.get("etcdserver").and_then(serde_json::Value::as_str).filter(|_| status == StatusCode::OK);
    // What follows a hyphen or a plus says nothing that is compared.
    let numbers = server.and_then(|server| server.split(['-', '+']).next());
    let server = numbers.and_then(Version::parse).ok_or(Unheard::Again)?;
    Ok(Versions { server })
}

impl Forward for Http {
    fn renew_lease(&self, urls: Vec<String>, id: LeaseId) -> Asking<Option<i64>> {
        let (http, request) = (self.clone(), pb::LeaseKeepAliveRequest { id: id.0 });
        Box::pin(async move {
            let question = Question { path: "/leases".to_owned(), body: Some(request.encode_to_vec().into()) };
            let (status, body) = http.ask(&urls, &question).await?;
            lease_keep_alive(id, status, body)
        })
    }

    fn look_at_lease(&self, urls: Vec<String>, id: LeaseId, wants_keys: bool) -> Asking<Option<LeaseSeen>> {
        let http = self.clone();
        let look = pb::LeaseTimeToLiveRequest { id: id.0, keys: wants_keys };
        let request = leasepb::LeaseInternalRequest { lease_time_to_live_request: Some(look) };
        Box::pin(async move {
            let question = Question { path: "/leases/internal".to_owned(), body: Some(request.encode_to_vec().into()) };
            let (status, body) = http.ask(&urls, &question).await?;
            lease_seen(id, status, body)
        })
    }

    fn promote(&self, urls: Vec<String>, id: u64) -> Asking<Vec<membership::Member>> {
        let http = self.clone();
        Box::pin(async move {
            let question = Question { path: format!("/members/promote/{id}"), body: Some(Bytes::new()) };
            let (status, body) = http.ask(&urls, &question).await?;
            promoted(status, &body)
        })
    }

    fn versions(&self, urls: Vec<String>) -> Asking<Versions> {
        let http = self.clone();
        Box::pin(async move {
            let question = Question { path: "/version".to_owned(), body: None };
            let (status, body) = http.ask(&urls, &question).await?;
            versions(status, &body)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_believed_only_if_they_are_to_the_question() {
        let id = LeaseId(7);
        let renewed = |of: i64| pb::LeaseKeepAliveResponse { header: None, id: of, ttl: 9 }.encode_to_vec().into();
        assert_eq!(lease_keep_alive(id, StatusCode::OK, renewed(7)), Ok(Some(9)));
        assert_eq!(lease_keep_alive(id, StatusCode::OK, renewed(8)), Err(Unheard::Again));
        assert_eq!(lease_keep_alive(id, StatusCode::NOT_FOUND, Bytes::new()), Ok(None));
        assert_eq!(lease_keep_alive(id, StatusCode::BAD_REQUEST, Bytes::new()), Err(Unheard::Again));
        assert_eq!(lease_seen(id, StatusCode::OK, Bytes::new()), Err(Unheard::Again));
        assert_eq!(lease_seen(id, StatusCode::NOT_FOUND, Bytes::new()), Ok(None));
    }

    #[test]
    fn versions_and_refusals_are_read_in_etcds_words() {
        let version = |text: &str| versions(StatusCode::OK, text.as_bytes()).map(|versions| versions.server);
        let json = "{\"etcdserver\":\"3.6.1-rc.0\",\"etcdcluster\":\"not_decided\"}";
        assert_eq!(version(json), Ok(Version::new(3, 6, 1)));
        assert_eq!(version("{}"), Err(Unheard::Again));
        assert_eq!(version("<html>"), Err(Unheard::Again));
        let refused = |status, body: &str| promoted(status, body.as_bytes()).unwrap_err();
        let not_ready = status::refused(Refused::LearnerNotReady).1;
        let said = format!("{not_ready}\n");
        assert_eq!(refused(StatusCode::PRECONDITION_FAILED, &said), Unheard::Refused(not_ready.to_owned()));
        let not_learner = status::rejected(Rejected::MemberNotLearner).1;
        let said = "membership: can only promote a learner member\n";
        assert_eq!(refused(StatusCode::PRECONDITION_FAILED, said), Unheard::Refused(not_learner.to_owned()));
        assert_eq!(refused(StatusCode::INTERNAL_SERVER_ERROR, ""), Unheard::Again);
        let members = "[{\"id\":18446744073709551615,\"peerURLs\":[\"http://h:1\"],\"name\":\"n\"}]";
        let members = promoted(StatusCode::OK, members.as_bytes()).unwrap();
        assert_eq!((members.len(), members[0].id.0, members[0].name.as_str()), (1, u64::MAX, "n"));
    }
}
