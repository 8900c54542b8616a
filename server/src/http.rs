//! What clients and peers get over plain HTTP: version, health, metrics.
//!
//! Paths, bodies and status codes are etcd's (`docs/protocol/http.md`). A gRPC request to a method that does not exist is answered in gRPC's way.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{self, RawQuery, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use axum::middleware::{self, Next};
use axum::routing::any;
use detcd_core::command::{AlarmKind, RangeRequest};
use detcd_io::store::backend::Backend;
use detcd_server::member::{Member, VERSION};
use detcd_server::pieces::TakesPieces;
use detcd_server::room::Kept;
use http_body_util::BodyExt as _;

use crate::deadline;
use crate::metrics::Metrics;
use crate::metrics::rpc::Rpcs;
use crate::piecewise::in_pieces;
use crate::vars;

const TEXT: &str = "text/plain; charset=utf-8";

struct Client<B> {
    member: Member<B>,
    metrics: Metrics,
}

impl<B> Clone for Client<B> {
    fn clone(&self) -> Self {
        Self { member: self.member.clone(), metrics: self.metrics.clone() }
    }
}

impl<B: Backend> Clone for WithMember<B> {
    fn clone(&self) -> Self {
        Self { member: self.member.clone() }
    }
}

struct WithMember<B> {
    member: Member<B>,
}

/// Everything on a client port: the gRPC services and the HTTP paths beside them.
pub(crate) fn client_router<B: Backend>(
    grpc: Router,
    member: Member<B>,
    metrics: Metrics,
    receive_max: usize,
) -> Router {
    let rpcs = Arc::clone(metrics.rpcs());
    let client = Client { member: member.clone(), metrics };
    let http = Router::new()
        .route("/health", any(health::<B>))
        .merge(LIVEZ.router())
        .merge(READYZ.router())
        .route("/metrics", any(scrape::<B>))
        .route("/debug/vars", any(variables::<B>))
        .with_state(client);
    grpc.layer(middleware::from_fn(deadline::within))
        .layer(middleware::from_fn(only_grpc))
        .merge(http)
        .merge(peer_paths(member))
        .fallback(not_found)
        .layer(middleware::from_fn(move |request, next| counted(request, next, Arc::clone(&rpcs), receive_max)))
}

/// Everything on a peer port.
pub(crate) fn peer_router<B: Backend>(member: Member<B>) -> Router {
    peer_paths(member).fallback(not_found)
}

fn peer_paths<B: Backend>(member: Member<B>) -> Router {
    Router::new().route("/version", any(version::<B>)).with_state(WithMember { member })
}

/// Lets only gRPC through to the services, as etcd does: a page in a browser could send anything else across origins.
async fn only_grpc(mut request: Request<Body>, next: Next) -> Response<Body> {
    if request.version() != Version::HTTP_2 {
        return text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned());
    }
    let kind = request.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !kind.starts_with(b"application/grpc") {
        let kind = String::from_utf8_lossy(kind);
        return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("invalid gRPC request content-type {kind:?}\n"));
    }
    request.extensions_mut().insert(TakesPieces);
    keep_room(in_pieces(next.run(request).await))
}

/// Ties the room that a response holds to its body: it is free again when the client has taken the last byte, or is gone.
fn keep_room(mut response: Response<Body>) -> Response<Body> {
    let Some(kept) = response.extensions_mut().remove::<Kept>() else { return response };
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            // Dropped with the body.
            let _ = &kept;
            frame
        }))
    })
}

/// Counts a request of gRPC, and answers one that is too large in etcd's words.
async fn counted(request: Request<Body>, next: Next, rpcs: Arc<Rpcs>, receive_max: usize) -> Response<Body> {
    let (request, call) = rpcs.begin(request);
    let response = etcds_size_error(next.run(request).await, receive_max);
    match call {
        Some(call) => call.answered(response),
        None => response,
    }
}

/// Says what gRPC's Go server says of a message above the limit; tonic has words and a code of its own.
fn etcds_size_error(mut response: Response<Body>, receive_max: usize) -> Response<Body> {
    let headers = response.headers_mut();
    if headers.get("grpc-status").is_some_and(|code| code == "11")
        && let Some(found) = headers.get("grpc-message").and_then(|text| size_found(text.to_str().ok()?))
    {
        let text = format!("grpc: received message larger than max ({found} vs. {receive_max})");
        headers.insert("grpc-status", HeaderValue::from_static("8"));
        headers.insert("grpc-message", HeaderValue::from_str(&text).expect("digits and plain words"));
    }
    response
}

/// The size in tonic's text, which comes percent-encoded.
fn size_found(text: &str) -> Option<u64> {
    let text = text.replace("%20", " ");
    let rest = text.strip_prefix("Error, decoded message length too large: found ")?;
    rest.split(' ').next()?.parse().ok()
}

/// A reply as Go's `http.Error` writes it.
pub(crate) fn text(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Services that etcd has and this server does not have yet.
const UNBUILT: [&str; 3] = ["etcdserverpb.Auth", "v3lockpb.Lock", "v3electionpb.Election"];

async fn not_found(uri: Uri, headers: HeaderMap) -> Response<Body> {
    let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        let mut parts = uri.path().trim_start_matches('/').rsplitn(2, '/');
        let (method, service) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let text = if UNBUILT.contains(&service) {
            format!("{method} of {service} is not built yet in detcd")
        } else {
            format!("unknown service {service}")
        };
        return tonic::Status::unimplemented(text).into_http();
    }
    text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned())
}

/// `Some` if the method is not GET: etcd names the one it allows.
fn refuse_method(method: &Method) -> Option<Response<Body>> {
    if method == Method::GET {
        return None;
    }
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n".to_owned());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    Some(response)
}

async fn version<B: Backend>(State(with): State<WithMember<B>>, method: Method) -> Response<Body> {
    if let Some(refused) = refuse_method(&method) {
        return refused;
    }
    let cluster = with.member.store().membership().cluster_version();
    let storage = with.member.store().storage_version();
    let body = format!(
        "{{\"etcdserver\":\"{VERSION}\",\"etcdcluster\":\"{}\",\"storage\":\"{}\"}}",
        cluster.map_or_else(|| "not_decided".to_owned(), |version| version.to_string()),
        storage.map_or_else(|| "3.5.0".to_owned(), |version| version.to_string()),
    );
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The values of one query parameter, repeated or not.
fn parameters<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a str> {
    let pairs = query.unwrap_or_default().split('&');
    pairs.filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

async fn health<B: Backend>(
    State(client): State<Client<B>>,
    method: Method,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    if let Some(refused) = refuse_method(&method) {
        return refused;
    }
    let serializable = parameters(query.as_deref(), "serializable").next() == Some("true");
    let excluded: Vec<&str> = parameters(query.as_deref(), "exclude").collect();
    let reason = if let Some(alarm) = alarm(&client.member, &excluded) {
        Some(format!("ALARM {alarm}"))
    } else if !serializable && client.member.asker().gauges().leader().is_none() {
        Some("RAFT NO LEADER".to_owned())
    } else {
        probe(&client.member, serializable).await.err().map(|error| format!("RANGE ERROR:{error}"))
    };
    client.metrics.on_health(reason.is_none());
    let Some(reason) = reason else {
        let mut response = Response::new(Body::from("{\"health\":\"true\",\"reason\":\"\"}"));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
        return response;
    };
    let body = serde_json::json!({ "health": "false", "reason": reason });
    text(StatusCode::SERVICE_UNAVAILABLE, format!("{body}\n"))
}

async fn variables<B: Backend>(State(client): State<Client<B>>, method: Method) -> Response<Body> {
    if let Some(refused) = refuse_method(&method) {
        return refused;
    }
    let mut response = Response::new(Body::from(vars::text(&client.member)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

/// The name of a raised alarm that is not excluded.
fn alarm<B: Backend>(member: &Member<B>, excluded: &[&str]) -> Option<&'static str> {
    let name = |kind| match kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
        AlarmKind::None | AlarmKind::Unknown(_) => "UNKNOWN",
    };
    member.store().alarms().iter().map(|alarm| name(alarm.kind)).find(|name| !excluded.contains(name))
}

/// Reads at most one key, as a client would.
async fn probe<B: Backend>(member: &Member<B>, serializable: bool) -> Result<(), String> {
    let key = bytes::Bytes::from_static(b"\0");
    let request = RangeRequest { key, limit: 1, keys_only: true, serializable, ..Default::default() };
    member.range(&request).await.map(drop).map_err(|status| status.message().to_owned())
}

/// The checks of `/livez` and `/readyz`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    const fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run<B: Backend>(self, member: &Member<B>) -> Result<(), String> {
        match self {
            Self::DataCorruption if member.store().alarms().any(AlarmKind::Corrupt) => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            Self::DataCorruption => Ok(()),
            Self::SerializableRead => probe(member, true).await,
            Self::LinearizableRead => probe(member, false).await,
            Self::NonLearner => {
                let id = member.identity().member;
                let learner = member.store().membership().get(id).is_some_and(|member| member.is_learner);
                if learner { Err("not supported for learner".to_owned()) } else { Ok(()) }
            }
        }
    }
}

async fn checked<B: Backend>(
    client: &Client<B>,
    kind: &'static str,
    checks: &[Check],
    excluded: &[&str],
    query: Option<&str>,
) -> Response<Body> {
    let verbose = parameters(query, "verbose").next().is_some();
    let (mut report, mut failed) = (String::new(), false);
    for check in checks.iter().filter(|check| !excluded.contains(&check.name())) {
        let result = check.run(&client.member).await;
        client.metrics.on_check(kind, check.name(), result.is_ok());
        match result {
            Ok(()) => writeln!(report, "[+]{} ok", check.name()).expect("a String takes every write"),
            Err(error) => {
                failed = true;
                writeln!(report, "[-]{} failed: {error}", check.name()).expect("a String takes every write");
            }
        }
    }
    if failed {
        return text(StatusCode::SERVICE_UNAVAILABLE, format!("{report}\n"));
    }
    text(StatusCode::OK, if verbose { format!("{report}ok\n") } else { "ok\n".to_owned() })
}

/// The checks of one path: all of them, or the one that is named behind it.
#[derive(Clone, Copy, Debug)]
struct Checks {
    kind: &'static str,
    all: &'static [Check],
}

const LIVEZ: Checks = Checks { kind: "livez", all: &[Check::SerializableRead] };
const READYZ: Checks = Checks {
    kind: "readyz",
    all: &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner],
};

impl Checks {
    async fn answer<B: Backend>(
        self,
        client: Client<B>,
        name: Option<String>,
        method: Method,
        query: Option<String>,
    ) -> Response<Body> {
        if let Some(refused) = refuse_method(&method) {
            return refused;
        }
        let Some(name) = name else {
            let excluded: Vec<&str> = parameters(query.as_deref(), "exclude").collect();
            return checked(&client, self.kind, self.all, &excluded, query.as_deref()).await;
        };
        match self.all.iter().find(|check| check.name() == name) {
            // Who asks for one check gets it.
            Some(check) => checked(&client, self.kind, &[*check], &[], query.as_deref()).await,
            None => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        }
    }

    /// The path and everything behind it.
    fn router<B: Backend>(self) -> Router<Client<B>> {
        let root = move |State(client), method, RawQuery(query)| self.answer::<B>(client, None, method, query);
        let one = move |State(client), extract::Path(name), method, RawQuery(query)| {
            self.answer::<B>(client, Some(name), method, query)
        };
        let path = format!("/{}", self.kind);
        Router::new().route(&path, any(root)).route(&format!("{path}/{{check}}"), any(one))
    }
}

async fn scrape<B: Backend>(State(client): State<Client<B>>, method: Method) -> Response<Body> {
    if method != Method::GET && method != Method::HEAD {
        return refuse_method(&method).expect("neither is GET");
    }
    let mut response = Response::new(Body::from(client.metrics.text(&client.member)));
    let format = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format));
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use detcd_server::room::Room;

    use super::*;

    #[tokio::test]
    async fn room_is_held_until_the_body_is_taken() {
        let mut held = Room::new(1 << 20, Duration::ZERO).enter();
        held.grow_to(1 << 19).await.expect("an empty room");
        let kept = held.keep().expect("it is not small");
        let seen = Arc::downgrade(&kept);
        let mut response = Response::new(Body::from("reply"));
        response.extensions_mut().insert(kept);
        let response = keep_room(response);
        assert_eq!(seen.strong_count(), 1);
        let bytes = response.into_body().collect().await.expect("a body in memory").to_bytes();
        assert_eq!((bytes.as_ref(), seen.strong_count()), (&b"reply"[..], 0));
        assert!(Room::new(1 << 20, Duration::ZERO).enter().keep().is_none(), "small replies hold nothing");
    }
}
