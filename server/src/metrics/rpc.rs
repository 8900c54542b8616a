//! What is counted of gRPC: requests by method and result, messages and their bytes, and the versions of clients.
//!
//! A request finds its method once, by its path in a sorted table; from then on counting is adding to atomics. Nothing is locked and nothing is allocated for a
//! count but the two bodies that are looked into. The number of series is bounded: the methods are a table, and of clients' versions only so many are told apart.

mod body;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Request, Response, Version};
use detcd_io::clock::Instant;
use detcd_io::stats::Histogram;

use self::Kind::{BidiStream, ServerStream, Unary};
use self::body::{CountedRequest, CountedResponse};
use super::families::{Families, SECONDS};

/// How a method takes and gives messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Unary,
    ServerStream,
    BidiStream,
}

impl Kind {
    const fn label(self) -> &'static str {
        match self {
            Unary => "unary",
            ServerStream => "server_stream",
            BidiStream => "bidi_stream",
        }
    }
}

/// The methods that etcd tells of before anybody has called one, by their paths.
#[rustfmt::skip]
const METHODS: &[(&str, Kind)] = &[
    ("/etcdserverpb.Auth/AuthDisable", Unary),
    ("/etcdserverpb.Auth/AuthEnable", Unary),
    ("/etcdserverpb.Auth/AuthStatus", Unary),
    ("/etcdserverpb.Auth/Authenticate", Unary),
    ("/etcdserverpb.Auth/RoleAdd", Unary),
    ("/etcdserverpb.Auth/RoleDelete", Unary),
    ("/etcdserverpb.Auth/RoleGet", Unary),
    ("/etcdserverpb.Auth/RoleGrantPermission", Unary),
    ("/etcdserverpb.Auth/RoleList", Unary),
    ("/etcdserverpb.Auth/RoleRevokePermission", Unary),
    ("/etcdserverpb.Auth/UserAdd", Unary),
    ("/etcdserverpb.Auth/UserChangePassword", Unary),
    ("/etcdserverpb.Auth/UserDelete", Unary),
    ("/etcdserverpb.Auth/UserGet", Unary),
    ("/etcdserverpb.Auth/UserGrantRole", Unary),
    ("/etcdserverpb.Auth/UserList", Unary),
    ("/etcdserverpb.Auth/UserRevokeRole", Unary),
    ("/etcdserverpb.Cluster/MemberAdd", Unary),
    ("/etcdserverpb.Cluster/MemberList", Unary),
    ("/etcdserverpb.Cluster/MemberPromote", Unary),
    ("/etcdserverpb.Cluster/MemberRemove", Unary),
    ("/etcdserverpb.Cluster/MemberUpdate", Unary),
    ("/etcdserverpb.KV/Compact", Unary),
    ("/etcdserverpb.KV/DeleteRange", Unary),
    ("/etcdserverpb.KV/Put", Unary),
    ("/etcdserverpb.KV/Range", Unary),
    ("/etcdserverpb.KV/RangeStream", ServerStream),
    ("/etcdserverpb.KV/Txn", Unary),
    ("/etcdserverpb.Lease/LeaseGrant", Unary),
    ("/etcdserverpb.Lease/LeaseKeepAlive", BidiStream),
    ("/etcdserverpb.Lease/LeaseLeases", Unary),
    ("/etcdserverpb.Lease/LeaseRevoke", Unary),
    ("/etcdserverpb.Lease/LeaseTimeToLive", Unary),
    ("/etcdserverpb.Maintenance/Alarm", Unary),
    ("/etcdserverpb.Maintenance/Defragment", Unary),
    ("/etcdserverpb.Maintenance/Downgrade", Unary),
    ("/etcdserverpb.Maintenance/Hash", Unary),
    ("/etcdserverpb.Maintenance/HashKV", Unary),
    ("/etcdserverpb.Maintenance/MoveLeader", Unary),
    ("/etcdserverpb.Maintenance/Snapshot", ServerStream),
    ("/etcdserverpb.Maintenance/Status", Unary),
    ("/etcdserverpb.Watch/Watch", BidiStream),
    ("/grpc.health.v1.Health/Check", Unary),
    ("/grpc.health.v1.Health/List", Unary),
    ("/grpc.health.v1.Health/Watch", ServerStream),
];

/// gRPC's codes by their numbers, as Go names them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const OK: usize = 0;
const CANCELED: usize = 1;
const UNKNOWN: usize = 2;

const MILLI: u64 = 1_000_000;
/// The buckets of the handling time, in nanoseconds.
const HANDLING: &[u64] = &[
    5 * MILLI,
    10 * MILLI,
    25 * MILLI,
    50 * MILLI,
    100 * MILLI,
    250 * MILLI,
    500 * MILLI,
    1_000 * MILLI,
    2_500 * MILLI,
    5_000 * MILLI,
    10_000 * MILLI,
];

/// How many versions of clients are told apart; the last place is for all others.
const VERSIONS_MAX: usize = 32;
const VERSION_BYTES_MAX: usize = 64;
const OTHER_VERSIONS: &str = "other";

#[derive(Debug, Default)]
struct Method {
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    handled: [AtomicU64; CODES.len()],
    seconds: Option<Histogram>,
}

/// Requests of clients of one version: single ones, and streams.
#[derive(Debug, Default)]
struct Clients {
    version: OnceLock<Box<str>>,
    requests: [AtomicU64; 2],
}

/// The counters of one server.
#[derive(Debug)]
pub(crate) struct Rpcs {
    methods: Box<[Method]>,
    clients: [Clients; VERSIONS_MAX],
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

/// One request that is being answered. If it is dropped before its end, its client is gone.
#[derive(Debug)]
pub(crate) struct Call {
    rpcs: Arc<Rpcs>,
    method: usize,
    began: Option<Instant>,
    has_sent: bool,
    has_ended: bool,
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Rpcs {
    /// Nothing was counted yet. `extensive`: how long requests take is told for each method.
    pub(crate) fn new(extensive: bool) -> Self {
        let method = |_| Method { seconds: extensive.then(|| Histogram::new(HANDLING)), ..Method::default() };
        Self {
            methods: METHODS.iter().map(method).collect(),
            clients: Default::default(),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
        }
    }

    /// Begins to count a request, if it is one of gRPC to a known method, and what it sends.
    pub(crate) fn begin(self: &Arc<Self>, request: Request<Body>) -> (Request<Body>, Option<Call>) {
        let is_grpc = request.version() == Version::HTTP_2
            && request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let path = request.uri().path();
        let found = if is_grpc { METHODS.binary_search_by(|(method, _)| (*method).cmp(path)).ok() } else { None };
        let Some(method) = found else { return (request, None) };
        let counted = &self.methods[method];
        count(&counted.started, 1);
        self.on_client(METHODS[method].1, request.headers());
        let began = counted.seconds.as_ref().map(|_| Instant::now());
        let call = Call { rpcs: Arc::clone(self), method, began, has_sent: false, has_ended: false };
        let rpcs = Arc::clone(self);
        (request.map(|body| Body::new(CountedRequest::new(body, rpcs, method))), Some(call))
    }

    fn on_client(&self, kind: Kind, headers: &HeaderMap) {
        let version = match headers.get("client-api-version").map(|value| std::str::from_utf8(value.as_bytes())) {
            None => Some("unknown"),
            Some(Ok(version)) => {
                Some(version).filter(|text| text.len() <= VERSION_BYTES_MAX && *text != OTHER_VERSIONS)
            }
            // Refused as a whole.
            Some(Err(_)) => return,
        };
        let (others, places) = self.clients.split_last().expect("a place for the others");
        let same = |place: &&Clients| {
            version.is_some_and(|version| **place.version.get_or_init(|| version.into()) == *version)
        };
        let place = places.iter().find(same).unwrap_or(others);
        count(&place.requests[usize::from(kind != Unary)], 1);
    }

    /// Tells everything.
    pub(super) fn add(&self, out: &mut Families) {
        let each = || self.methods.iter().zip(METHODS);
        type Get = fn(&Method) -> &AtomicU64;
        let simple: [(&str, &str, Get); 3] = [
            ("grpc_server_started_total", "Requests that were begun.", |method| &method.started),
            ("grpc_server_msg_received_total", "Messages that came from clients.", |method| &method.received),
            ("grpc_server_msg_sent_total", "Messages that went to clients.", |method| &method.sent),
        ];
        for (name, help, counter) in simple {
            let mut series = out.counters(name, help);
            each().for_each(|(method, named)| series.count(&labels(named), load(counter(method))));
        }
        let mut series = out.counters("grpc_server_handled_total", "Requests that ended, by their result.");
        for (method, named) in each() {
            for (code, handled) in CODES.iter().zip(&method.handled) {
                let [kind, service, name] = labels(named);
                series.count(&[("grpc_code", code), name, service, kind], load(handled));
            }
        }
        let mut series =
            out.histograms("grpc_server_handling_seconds", "Time from the beginning of a request to its end.");
        for (method, named) in each() {
            if let Some(seconds) = &method.seconds {
                series.histogram(&labels(named), SECONDS, seconds);
            }
        }
        let (name, help) =
            ("etcd_network_client_grpc_received_bytes_total", "Bytes of messages that came from clients.");
        out.counter(name, help, load(&self.received_bytes));
        let (name, help) = ("etcd_network_client_grpc_sent_bytes_total", "Bytes of messages that went to clients.");
        out.counter(name, help, load(&self.sent_bytes));
        let mut series = out.counters("etcd_server_client_requests_total", "Requests by the version of their client.");
        for (at, clients) in self.clients.iter().enumerate() {
            let version =
                if at + 1 == VERSIONS_MAX { Some(OTHER_VERSIONS) } else { clients.version.get().map(|v| &**v) };
            for (kind, requests) in ["unary", "stream"].iter().zip(&clients.requests) {
                if let Some(version) = version.filter(|_| load(requests) > 0) {
                    series.count(&[("client_api_version", version), ("type", kind)], load(requests));
                }
            }
        }
    }
}

fn labels((path, kind): &(&'static str, Kind)) -> [(&'static str, &'static str); 3] {
    let (service, method) = path.trim_start_matches('/').split_once('/').expect("a path has a service and a method");
    [("grpc_type", kind.label()), ("grpc_service", service), ("grpc_method", method)]
}

impl Call {
    /// The answer begins: what it sends is counted, and how it ends.
    pub(crate) fn answered(mut self, response: Response<Body>) -> Response<Body> {
        if let Some(code) = code(response.headers()) {
            self.end(code);
            return response;
        }
        response.map(|body| Body::new(CountedResponse::new(body, self)))
    }

    fn on_sent(&mut self, bytes: u64) {
        self.has_sent = true;
        count(&self.rpcs.methods[self.method].sent, 1);
        count(&self.rpcs.sent_bytes, bytes);
        // Its handler is done: whether the client takes all of it changes nothing.
        if METHODS[self.method].1 == Unary {
            self.end(OK);
        }
    }

    fn end(&mut self, code: usize) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let method = &self.rpcs.methods[self.method];
        // A single request counts as answered by one message, be it an error.
        if METHODS[self.method].1 == Unary && !self.has_sent {
            count(&method.sent, 1);
        }
        count(&method.handled[code], 1);
        if let (Some(seconds), Some(began)) = (&method.seconds, self.began) {
            seconds.observe(began.elapsed());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(CANCELED);
    }
}

/// The result that headers or trailers tell.
fn code(headers: &HeaderMap) -> Option<usize> {
    let status = headers.get("grpc-status")?;
    let code = status.to_str().ok().and_then(|text| text.parse().ok());
    Some(code.filter(|code| *code < CODES.len()).unwrap_or(UNKNOWN))
}

#[cfg(test)]
mod tests;
