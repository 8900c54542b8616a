//! What other members want to know of this one, or have done by it: who belongs to the cluster, hashes, leases, promotions. Statuses, texts and headers are etcd's.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use axum::routing::any;
use bytes::Bytes;
use detcd_core::ids::{LeaseId, MemberId};
use detcd_core::membership;
use detcd_core::reply::Rejected;
use detcd_io::codec::member::encode;
use detcd_io::store::backend::Backend;
use detcd_proto::etcdserverpb::maintenance_server::Maintenance as _;
use detcd_proto::{etcdserverpb as pb, leasepb};
use detcd_server::grpc::maintenance::MaintenanceService;
use detcd_server::member::Member;
use detcd_server::status::{self, Refused};
use prost::Message as _;
use tokio::time::timeout;

use super::routes::{cut, refuse_method};
use super::{times, wire};
use crate::http::text;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/protobuf";
const LEASE_BYTES_MAX: usize = 64 << 10;
const HASH_BYTES_MAX: usize = 64 << 10;

struct With<B>(Member<B>);

impl<B> Clone for With<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Everything that other members ask of a member, but for the transport.
pub(crate) fn router<B: Backend>(member: Member<B>) -> Router {
    Router::new()
        .route("/members", any(members::<B>))
        .route("/members/hashkv", any(hash::<B>))
        .route("/members/promote/", any(promote::<B>))
        .route("/members/promote/{*id}", any(promote::<B>))
        .route("/downgrade/enabled", any(downgrade_enabled::<B>))
        .route("/leases", any(renew::<B>))
        .route("/leases/internal", any(look::<B>))
        .with_state(With(member))
}

fn signed<B: Backend>(member: &Member<B>, mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(wire::CLUSTER, wire::id_value(member.identity().cluster));
    response
}

fn says(kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Members as Go writes them.
fn json<'a>(members: impl Iterator<Item = &'a membership::Member>) -> String {
    let members: Vec<String> = members.map(|member| String::from_utf8_lossy(&encode(member)).into_owned()).collect();
    format!("[{}]\n", members.join(","))
}

async fn members<B: Backend>(State(With(member)): State<With<B>>, method: Method) -> Response<Body> {
    if let Some(refused) = refuse_method(&method, &Method::GET) {
        return refused;
    }
    signed(&member, says(JSON, json(member.store().membership().iter())))
}

async fn promote<B: Backend>(
    State(With(member)): State<With<B>>,
    method: Method,
    id: Option<Path<String>>,
) -> Response<Body> {
    let id = id.map_or_else(String::new, |Path(id)| id);
    if let Some(refused) = refuse_method(&method, &Method::POST) {
        return refused;
    }
    let is_plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = if is_plain { id.parse().ok() } else { None };
    let Some(id) = parsed.map(MemberId) else {
        return signed(&member, text(StatusCode::NOT_FOUND, format!("member {id} not found in cluster\n")));
    };
    let answered = member.promote_member(id).await;
    let response = match &answered {
        Ok(members) => says(JSON, json(members.iter())),
        Err(refused) => not_promoted(refused.message()),
    };
    signed(&member, response)
}

fn not_promoted(why: &str) -> Response<Body> {
    let is = |rejected| why == status::rejected(rejected).1;
    if is(Rejected::MemberNotFound) {
        text(StatusCode::NOT_FOUND, "membership: ID not found\n".to_owned())
    } else if is(Rejected::MemberNotLearner) {
        text(StatusCode::PRECONDITION_FAILED, "membership: can only promote a learner member\n".to_owned())
    } else if why == status::refused(Refused::LearnerNotReady).1 {
        text(StatusCode::PRECONDITION_FAILED, format!("{why}\n"))
    } else {
        let mut response = says(JSON, "{\"message\":\"Internal Server Error\"}");
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    }
}

async fn downgrade_enabled<B: Backend>(State(With(member)): State<With<B>>, method: Method) -> Response<Body> {
    if let Some(refused) = refuse_method(&method, &Method::GET) {
        return refused;
    }
    let response = match member.read_barrier().await {
        Ok(()) => says("text/plain", member.store().membership().downgrade().enabled.to_string()),
        Err(refused) => {
            let said = format!("failed linearized read: {}\n", refused.message());
            text(StatusCode::INTERNAL_SERVER_ERROR, said)
        }
    };
    signed(&member, response)
}

async fn hash<B: Backend>(State(With(member)): State<With<B>>, request: Request<Body>) -> Response<Body> {
    if let Some(refused) = refuse_method(request.method(), &Method::GET) {
        return refused;
    }
    let (head, body) = request.into_parts();
    if is_of_another_cluster(&member, &head.headers) {
        return text(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch\n".to_owned());
    }
    let refused = |said: &str| text(StatusCode::BAD_REQUEST, format!("{said}\n"));
    let Ok(bytes) = read(body, HASH_BYTES_MAX).await else { return refused("error reading body") };
    let Some(revision) = asked_revision(&bytes) else { return refused("error unmarshalling request") };
    let service = MaintenanceService::new(member.clone());
    match service.hash_kv(tonic::Request::new(pb::HashKvRequest { revision })).await {
        Ok(hashed) => signed(&member, says(JSON, hash_json(hashed.get_ref()))),
        Err(status) => refused(status.message().trim_start_matches("etcdserver: ")),
    }
}

fn is_of_another_cluster<B: Backend>(member: &Member<B>, headers: &HeaderMap) -> bool {
    let said = headers.get(wire::CLUSTER).filter(|value| !value.is_empty());
    said.is_some_and(|value| *value != wire::id_value(member.identity().cluster))
}

/// The revision in a request as Go's decoder takes it: zero if it is not there, whatever else is.
fn asked_revision(bytes: &[u8]) -> Option<i64> {
    match serde_json::from_slice(bytes).ok()? {
        serde_json::Value::Null => Some(0),
        serde_json::Value::Object(fields) => {
            let named =
                fields.into_iter().filter(|(name, value)| name.eq_ignore_ascii_case("revision") && !value.is_null());
            named.map(|(_, value)| value.as_i64()).next_back().unwrap_or(Some(0))
        }
        _ => None,
    }
}

/// A hash as Go writes the message's struct: numbers, and what is zero left out.
fn hash_json(hashed: &pb::HashKvResponse) -> String {
    let revision = hashed.header.as_ref().map_or(0, |header| header.revision);
    let numbers = [
        ("hash", i64::from(hashed.hash)),
        ("compact_revision", hashed.compact_revision),
        ("hash_revision", hashed.hash_revision),
    ];
    let header = if revision == 0 { String::new() } else { format!("\"revision\":{revision}") };
    let rest = numbers.into_iter().filter(|(_, number)| *number != 0);
    let rest: String = rest.map(|(name, number)| format!(",\"{name}\":{number}")).collect();
    format!("{{\"header\":{{{header}}}{rest}}}")
}

/// Why a request about a lease gets no answer.
async fn lease_request<T: prost::Message + Default>(request: Request<Body>) -> Result<T, Response<Body>> {
    if request.method() != Method::POST {
        return Err(text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n".to_owned()));
    }
    let body = match read(request.into_body(), LEASE_BYTES_MAX).await {
        Ok(body) => body,
        Err(Unread::TooLong) => {
            let mut response = text(StatusCode::PAYLOAD_TOO_LARGE, "request body too large\n".to_owned());
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return Err(response);
        }
        Err(Unread::Broken) => return Err(text(StatusCode::BAD_REQUEST, "error reading body\n".to_owned())),
    };
    T::decode(body).map_err(|_| text(StatusCode::BAD_REQUEST, "error unmarshalling request\n".to_owned()))
}

const NOT_PRIMARY: &str = "not a primary lessor\n";
const LEASE_NOT_FOUND: &str = "lease not found\n";
const LEASE_LATE: &str = "waiting for node to catch up its applied index has timed out\n";

async fn renew<B: Backend>(State(With(member)): State<With<B>>, request: Request<Body>) -> Response<Body> {
    let asked: pb::LeaseKeepAliveRequest = match lease_request(request).await {
        Ok(asked) => asked,
        Err(refused) => return refused,
    };
    match member.renew_lease_here(LeaseId(asked.id)).await {
        Ok(0) => text(StatusCode::NOT_FOUND, LEASE_NOT_FOUND.to_owned()),
        Ok(ttl) => {
            let response = pb::LeaseKeepAliveResponse { header: None, id: asked.id, ttl };
            says(PROTOBUF, response.encode_to_vec())
        }
        Err(_) => text(StatusCode::BAD_REQUEST, NOT_PRIMARY.to_owned()),
    }
}

async fn look<B: Backend>(State(With(member)): State<With<B>>, request: Request<Body>) -> Response<Body> {
    let asked: leasepb::LeaseInternalRequest = match lease_request(request).await {
        Ok(asked) => asked,
        Err(refused) => return refused,
    };
    let Some(asked) = asked.lease_time_to_live_request else { return cut() };
    let looking = member.look_at_lease_here(LeaseId(asked.id), asked.keys);
    let seen = match timeout(times::LEASE, looking).await {
        Ok(Ok(Some(seen))) => seen,
        Ok(Ok(None)) => return text(StatusCode::NOT_FOUND, LEASE_NOT_FOUND.to_owned()),
        Ok(Err(_)) => return text(StatusCode::INTERNAL_SERVER_ERROR, NOT_PRIMARY.to_owned()),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, LEASE_LATE.to_owned()),
    };
    let response = leasepb::LeaseInternalResponse {
        lease_time_to_live_response: Some(pb::LeaseTimeToLiveResponse {
            header: Some(pb::ResponseHeader::default()),
            id: asked.id,
            ttl: seen.left,
            granted_ttl: seen.ttl,
            keys: seen.keys,
        }),
    };
    says(PROTOBUF, response.encode_to_vec())
}

/// Why a body was not read.
enum Unread {
    TooLong,
    Broken,
}

/// Reads a short body, in time.
async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Unread> {
    match timeout(times::READ, to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_long(&error) => Err(Unread::TooLong),
        Ok(Err(_)) | Err(_) => Err(Unread::Broken),
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_taken_as_gos_decoder_takes_them() {
        let cases: [(&[u8], Option<i64>); 10] = [
            (b"{}", Some(0)),
            (b"null", Some(0)),
            (b" {\"revision\":7}\n", Some(7)),
            (b"{\"Revision\":-1,\"other\":[]}", Some(-1)),
            (b"{\"revision\":null}", Some(0)),
            (b"{\"revision\":\"7\"}", None),
            (b"{\"revision\":1.5}", None),
            (b"[]", None),
            (b"", None),
            (b"{\"revision\":7}x", None),
        ];
        for (bytes, revision) in cases {
            assert_eq!(asked_revision(bytes), revision, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn hashes_are_written_as_go_writes_them() {
        let header = Some(pb::ResponseHeader { revision: 9, ..Default::default() });
        let hashed = pb::HashKvResponse { header, hash: 5, compact_revision: -1, hash_revision: 9 };
        let text = "{\"header\":{\"revision\":9},\"hash\":5,\"compact_revision\":-1,\"hash_revision\":9}";
        assert_eq!(hash_json(&hashed), text);
        assert_eq!(hash_json(&pb::HashKvResponse::default()), "{\"header\":{}}");
    }

    #[test]
    fn promotions_are_refused_in_etcds_words() {
        let of = |why: &str| not_promoted(why).status().as_u16();
        assert_eq!(of(status::rejected(Rejected::MemberNotFound).1), 404);
        assert_eq!(of(status::rejected(Rejected::MemberNotLearner).1), 412);
        assert_eq!(of(status::refused(Refused::LearnerNotReady).1), 412);
        assert_eq!(of("etcdserver: request timed out"), 500);
    }
}
