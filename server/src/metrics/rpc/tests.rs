//! Counting of gRPC, over bodies made by hand.

use axum::body::Bytes;
use axum::http::HeaderValue;
use http_body_util::{BodyExt as _, StreamBody};

use super::body::Messages;
use super::*;

#[test]
fn the_table_is_what_the_services_are() {
    assert!(METHODS.is_sorted_by(|one, other| one.0 < other.0), "it is searched by halves");
    let defined = include_str!("../../../../proto/tests/methods.tsv");
    let rows = defined.lines().skip(1).map(|row| row.split('\t').collect::<Vec<_>>());
    // etcd begins to tell of these when they are first called.
    let mut told: Vec<_> = rows.filter(|row| !row[0].starts_with("/v3")).collect();
    told.sort_unstable();
    let told: Vec<_> = told.iter().map(|row| (row[0], row[3].replace('-', "_"))).collect();
    let table: Vec<_> = METHODS.iter().map(|(path, kind)| (*path, kind.label().to_owned())).collect();
    assert_eq!(table, told);
}

#[test]
fn messages_are_found_however_they_are_cut() {
    let bytes = b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\0\x01d";
    for piece in 1..=bytes.len() {
        let (mut messages, mut lengths) = (Messages::default(), Vec::new());
        bytes.chunks(piece).for_each(|bytes| messages.take(bytes, |length| lengths.push(length)));
        assert_eq!(lengths, [3, 0, 1], "in pieces of {piece}");
    }
}

fn request(path: &str) -> Request<Body> {
    let request = Request::post(path).version(Version::HTTP_2).header(CONTENT_TYPE, "application/grpc");
    request.body(Body::from(&b"\0\0\0\0\x02ab"[..])).expect("a request")
}

fn response(frames: Vec<http_body::Frame<Bytes>>) -> Response<Body> {
    let frames = tokio_stream::iter(frames.into_iter().map(Ok::<_, std::convert::Infallible>));
    Response::new(Body::new(StreamBody::new(frames)))
}

fn trailers(code: &'static str) -> http_body::Frame<Bytes> {
    http_body::Frame::trailers(HeaderMap::from_iter([(
        "grpc-status".parse().expect("a name"),
        HeaderValue::from_static(code),
    )]))
}

/// Started, received, sent, handled by code; of one method.
fn seen(rpcs: &Rpcs, path: &str) -> (u64, u64, u64, Vec<(&'static str, u64)>) {
    let method = &rpcs.methods[METHODS.binary_search_by(|(known, _)| (*known).cmp(path)).expect("a method")];
    let handled = CODES.iter().copied().zip(method.handled.iter().map(load)).filter(|(_, count)| *count > 0);
    (load(&method.started), load(&method.received), load(&method.sent), handled.collect())
}

const PUT: &str = "/etcdserverpb.KV/Put";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

#[tokio::test]
async fn a_request_is_counted_by_how_it_ends() {
    let rpcs = Arc::new(Rpcs::new(true));
    for (frames, takes) in [
        (vec![http_body::Frame::data(Bytes::from_static(b"\0\0\0\0\x04abcd")), trailers("0")], 2),
        (vec![trailers("5")], 1),
        (vec![http_body::Frame::data(Bytes::from_static(b"\0\0\0\0\x01a")), trailers("0")], 0),
        // Its client goes away in the middle of the answer, when the handler is done.
        (vec![http_body::Frame::data(Bytes::from_static(b"\0\0\0\0\x09a")), trailers("0")], 1),
    ] {
        let (request, call) = rpcs.begin(request(PUT));
        request.into_body().collect().await.expect("a body in memory");
        let mut body = call.expect("a known method").answered(response(frames)).into_body();
        for _ in 0..takes {
            body.frame().await.expect("a frame").expect("nothing fails");
        }
    }
    let expected = vec![("OK", 2), ("Canceled", 1), ("NotFound", 1)];
    assert_eq!(seen(&rpcs, PUT), (4, 4, 4, expected));
    assert_eq!((load(&rpcs.received_bytes), load(&rpcs.sent_bytes)), (8, 13));
    let place = METHODS.binary_search_by(|(known, _)| (*known).cmp(PUT)).expect("a method");
    assert_eq!(rpcs.methods[place].seconds.as_ref().expect("extensive").read().count, 4);
}

#[tokio::test]
async fn an_error_without_a_message_counts_at_once() {
    let rpcs = Arc::new(Rpcs::new(false));
    let (_request, call) = rpcs.begin(request(PUT));
    let mut refused = response(Vec::new());
    refused.headers_mut().insert("grpc-status", HeaderValue::from_static("99"));
    drop(call.expect("a known method").answered(refused));
    assert_eq!(seen(&rpcs, PUT), (1, 0, 1, vec![("Unknown", 1)]));
}

#[tokio::test]
async fn a_stream_counts_its_messages_and_its_end() {
    let rpcs = Arc::new(Rpcs::new(false));
    let (request, call) = rpcs.begin(request(WATCH));
    request.into_body().collect().await.expect("a body in memory");
    let both = Bytes::from_static(b"\0\0\0\0\x01a\0\0\0\0\x02bc");
    let answer = call.expect("a known method").answered(response(vec![http_body::Frame::data(both), trailers("1")]));
    answer.into_body().collect().await.expect("a body in memory");
    assert_eq!(seen(&rpcs, WATCH), (1, 2, 2, vec![("Canceled", 1)]));
}

#[test]
fn only_grpc_to_known_methods_is_counted() {
    let rpcs = Arc::new(Rpcs::new(false));
    let mut plain = request(PUT);
    *plain.version_mut() = Version::HTTP_11;
    let mut json = request(PUT);
    json.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for other in [plain, json, request("/etcdserverpb.KV/Nothing"), request("/metrics")] {
        assert!(rpcs.begin(other).1.is_none());
    }
    assert_eq!(seen(&rpcs, PUT), (0, 0, 0, Vec::new()));
}

#[test]
fn versions_of_clients_are_told_apart_up_to_a_bound() {
    let rpcs = Rpcs::new(false);
    let headers = |version: &str| {
        HeaderMap::from_iter([("client-api-version".parse().expect("a name"), version.parse().expect("a value"))])
    };
    rpcs.on_client(Unary, &HeaderMap::new());
    rpcs.on_client(Unary, &headers(&"9".repeat(VERSION_BYTES_MAX + 1)));
    rpcs.on_client(Unary, &headers(OTHER_VERSIONS));
    for version in 0..VERSIONS_MAX + 5 {
        rpcs.on_client(Unary, &headers(&version.to_string()));
    }
    rpcs.on_client(BidiStream, &headers("0"));
    let told = |at: usize| rpcs.clients[at].version.get().map(|version| version.to_string());
    let counts = |at: usize| rpcs.clients[at].requests.each_ref().map(load);
    assert_eq!((told(0).as_deref(), counts(0)), (Some("unknown"), [1, 0]));
    assert_eq!((told(1).as_deref(), counts(1)), (Some("0"), [1, 1]));
    assert_eq!((told(VERSIONS_MAX - 1), counts(VERSIONS_MAX - 1)), (None, [7 + 2, 0]));
}
