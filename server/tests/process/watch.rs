//! Watching through the real binary: every option, a client that does not read, progress, and the end of the member.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use detcd_proto::etcdserverpb as pb;
use detcd_proto::etcdserverpb::kv_client::KvClient;
use detcd_proto::etcdserverpb::watch_client::WatchClient;
use detcd_proto::mvccpb::Event;
use nix::sys::signal::Signal;
use pb::watch_request::RequestUnion;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

use crate::member::Home;

const PATIENCE: Duration = Duration::from_secs(20);

/// One watch stream and a client to write with.
struct Watcher {
    asks: Option<mpsc::Sender<pb::WatchRequest>>,
    responses: Streaming<pb::WatchResponse>,
    kv: KvClient<Channel>,
}

impl Watcher {
    async fn open(home: &Home) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", home.client_port)).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let (asks, requests) = mpsc::channel(100);
        let mut client = WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        let responses = client.watch(ReceiverStream::new(requests)).await.unwrap().into_inner();
        Self { asks: Some(asks), responses, kv: KvClient::new(channel) }
    }

    /// The same of a member that is still starting.
    async fn open_soon(home: &Home) -> Self {
        loop {
            let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", home.client_port)).unwrap();
            if endpoint.connect().await.is_ok() {
                return Self::open(home).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn ask(&self, union: RequestUnion) {
        let request = pb::WatchRequest { request_union: Some(union) };
        self.asks.as_ref().unwrap().send(request).await.unwrap();
    }

    /// Creates a watcher and takes the answer.
    async fn create(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.ask(RequestUnion::CreateRequest(request)).await;
        let answer = self.next().await;
        assert!(answer.created);
        answer
    }

    async fn next(&mut self) -> pb::WatchResponse {
        tokio::time::timeout(PATIENCE, self.responses.message()).await.unwrap().unwrap().unwrap()
    }

    /// Nothing comes.
    async fn is_silent(&mut self) {
        let waited = tokio::time::timeout(Duration::from_millis(150), self.responses.message()).await;
        assert!(waited.is_err(), "{waited:?}");
    }

    async fn put(&mut self, key: &str, value: impl Into<Bytes>) -> i64 {
        let request = pb::PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() };
        self.kv.put(request).await.unwrap().into_inner().header.unwrap().revision
    }

    async fn delete(&mut self, key: &str) -> i64 {
        let request = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.kv.delete_range(request).await.unwrap().into_inner().header.unwrap().revision
    }
}

fn prefix(key: &str) -> pb::WatchCreateRequest {
    let mut range_end = key.as_bytes().to_vec();
    *range_end.last_mut().unwrap() += 1;
    pb::WatchCreateRequest { key: key.to_owned().into(), range_end: range_end.into(), ..Default::default() }
}

/// Revision, key, value and previous value of each event; a delete has no value.
fn plain(events: &[Event]) -> Vec<(i64, String, Option<String>, Option<String>)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let one = |event: &Event| {
        let kv = event.kv.as_ref().unwrap();
        let value = (event.r#type == 0).then(|| text(&kv.value));
        (kv.mod_revision, text(&kv.key), value, event.prev_kv.as_ref().map(|prev| text(&prev.value)))
    };
    events.iter().map(one).collect()
}

fn row(
    revision: i64,
    key: &str,
    value: Option<&str>,
    prev: Option<&str>,
) -> (i64, String, Option<String>, Option<String>) {
    (revision, key.to_owned(), value.map(str::to_owned), prev.map(str::to_owned))
}

fn revision(response: &pb::WatchResponse) -> i64 {
    response.header.as_ref().unwrap().revision
}

#[tokio::test]
async fn watchers_see_what_they_ask_for() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, _client) = home.start().await;
    let mut watcher = Watcher::open(&home).await;
    assert_eq!((watcher.put("a1", "x").await, watcher.put("b", "x").await, watcher.delete("a1").await), (2, 3, 4));

    // What was, with what was before it.
    let past = pb::WatchCreateRequest { start_revision: 2, prev_kv: true, ..prefix("a") };
    let created = watcher.create(past).await;
    assert_eq!((created.watch_id, revision(&created), created.canceled), (0, 4, false));
    let events = watcher.next().await;
    assert_eq!((events.watch_id, revision(&events)), (0, 4));
    assert_eq!(plain(&events.events), [row(2, "a1", Some("x"), None), row(4, "a1", None, Some("x"))]);
    assert_eq!(events.events[1].kv.as_ref().unwrap().version, 0);

    // What comes, but no puts; and what comes later.
    let filtered = pb::WatchCreateRequest { filters: vec![0, 77], watch_id: 9, ..prefix("a") };
    assert_eq!(watcher.create(filtered).await.watch_id, 9);
    let future = pb::WatchCreateRequest { start_revision: 6, ..prefix("a") };
    assert_eq!(watcher.create(future).await.watch_id, 1);
    // The one that starts later is not there yet.
    watcher.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    watcher.is_silent().await;
    assert_eq!(watcher.put("a2", "y").await, 5);
    assert_eq!(plain(&watcher.next().await.events), [row(5, "a2", Some("y"), None)]);
    assert_eq!(watcher.delete("a2").await, 6);
    for id in [0, 1, 9] {
        let events = watcher.next().await;
        assert_eq!((events.watch_id, revision(&events)), (id, 6));
        let prev = (id == 0).then_some("y");
        assert_eq!(plain(&events.events), [row(6, "a2", None, prev)]);
    }
    watcher.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let progress = watcher.next().await;
    assert_eq!((progress.watch_id, revision(&progress), progress.events.len()), (-1, 6, 0));

    refusals(&mut watcher).await;

    // A client that asks no more still gets everything.
    watcher.asks = None;
    watcher.is_silent().await;
    assert_eq!(watcher.put("a3", "z").await, 7);
    assert_eq!(plain(&watcher.next().await.events), [row(7, "a3", Some("z"), None)]);
    let metrics = home.get(home.client_port, "/metrics");
    let has = |line: &str| assert!(metrics.contains(&format!("\netcd_debugging_mvcc_{line}\n")), "{line}:\n{metrics}");
    has("watch_stream_total 1");
    has("watcher_total 2");
    has("slow_watcher_total 0");
    has("events_total 8");
    has("pending_events_total 0");
}

async fn refusals(watcher: &mut Watcher) {
    let refused = |answer: pb::WatchResponse| {
        assert!(answer.canceled && answer.created && answer.watch_id == -1 && answer.compact_revision == 0);
        assert_eq!(revision(&answer), 6);
        answer.cancel_reason
    };
    let taken = pb::WatchCreateRequest { watch_id: 9, ..prefix("a") };
    assert_eq!(refused(watcher.create(taken).await), "mvcc: duplicate watch ID provided on the WatchStream");
    let inverted = pb::WatchCreateRequest { range_end: "a".into(), ..prefix("a") };
    assert_eq!(refused(watcher.create(inverted).await), "mvcc: watcher range is empty");
    let negative = pb::WatchCreateRequest { start_revision: -1, ..prefix("a") };
    assert_eq!(refused(watcher.create(negative).await), "etcdserver: mvcc: required revision has been compacted");
    let cancel = |watch_id| RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id });
    watcher.ask(cancel(77)).await;
    watcher.ask(cancel(9)).await;
    let cancelled = watcher.next().await;
    assert!(cancelled.canceled && !cancelled.created && cancelled.cancel_reason.is_empty());
    assert_eq!((cancelled.watch_id, revision(&cancelled)), (9, 6));
}

#[tokio::test]
async fn what_is_compacted_ends_a_watcher_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, _client) = home.start().await;
    let mut watcher = Watcher::open(&home).await;
    watcher.create(prefix("a")).await;
    for value in ["1", "2", "3", "4"] {
        watcher.put("a", value).await;
        watcher.next().await;
    }
    watcher.kv.compact(pb::CompactionRequest { revision: 4, physical: true }).await.unwrap();
    let created = watcher.create(pb::WatchCreateRequest { start_revision: 3, ..prefix("a") }).await;
    assert_eq!((created.watch_id, created.canceled, revision(&created)), (1, false, 5));
    let ended = watcher.next().await;
    assert_eq!((ended.watch_id, ended.canceled, ended.compact_revision, revision(&ended)), (1, true, 4, 0));
    assert_eq!(ended.cancel_reason, "");
    // Its id is taken until the client gives it up; until then nobody is told of progress.
    watcher.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let again = watcher.create(pb::WatchCreateRequest { watch_id: 1, ..prefix("a") }).await;
    assert_eq!(again.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    watcher.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 1 })).await;
    assert!(watcher.next().await.canceled);
    // At the compaction itself everything is there, but for what was before it.
    let request = pb::WatchCreateRequest { start_revision: 4, prev_kv: true, ..prefix("a") };
    assert_eq!(watcher.create(request).await.watch_id, 2);
    let events = watcher.next().await.events;
    assert_eq!(plain(&events), [row(4, "a", Some("3"), None), row(5, "a", Some("4"), Some("3"))]);
    watcher.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    assert_eq!(watcher.next().await.watch_id, -1);
}

#[tokio::test]
async fn large_responses_come_in_pieces_if_asked() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, _client) = home.start().await;
    let mut watcher = Watcher::open(&home).await;
    for number in 0..3 {
        watcher.put(&format!("a{number}"), vec![b'v'; 1_200_000]).await;
    }
    let request = pb::DeleteRangeRequest { key: "a".into(), range_end: "b".into(), ..Default::default() };
    watcher.create(pb::WatchCreateRequest { prev_kv: true, fragment: true, ..prefix("a") }).await;
    watcher.create(pb::WatchCreateRequest { prev_kv: true, ..prefix("a") }).await;
    watcher.kv.delete_range(request).await.unwrap();
    let mut pieces = Vec::new();
    for _ in 0..4 {
        let piece = watcher.next().await;
        pieces.push((piece.watch_id, piece.fragment, piece.events.len()));
    }
    assert_eq!(pieces, [(0, true, 1), (0, true, 1), (0, false, 1), (1, false, 3)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_delays_nobody_and_misses_nothing() {
    const WRITES: usize = 3_000;
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, _client) = home.start().await;
    let (mut slow, mut quick) = (Watcher::open(&home).await, Watcher::open(&home).await);
    slow.create(prefix("k")).await;
    quick.create(prefix("k")).await;
    let mut writer = quick.kv.clone();
    let writing = tokio::spawn(async move {
        for number in 0..WRITES {
            let key = format!("k{}", number % 10);
            let value = format!("{number}:{}", "v".repeat(8_000));
            let request = pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
            writer.put(request).await.unwrap();
        }
    });
    for watcher in [&mut quick, &mut slow] {
        let mut expected = 2;
        while expected < 2 + WRITES as i64 {
            let response = watcher.next().await;
            for event in &response.events {
                assert_eq!(event.kv.as_ref().unwrap().mod_revision, expected);
                expected += 1;
            }
        }
    }
    writing.await.unwrap();
}

#[tokio::test]
async fn progress_is_told_when_nothing_happens() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let mut child = home.command().arg("--watch-progress-notify-interval=200ms").spawn().unwrap();
    let mut watcher = Watcher::open_soon(&home).await;
    watcher.create(prefix("a")).await;
    watcher.create(pb::WatchCreateRequest { progress_notify: true, ..prefix("b") }).await;
    let mut told = Vec::new();
    let began = Instant::now();
    for _ in 0..4 {
        let progress = watcher.next().await;
        assert_eq!((progress.watch_id, progress.events.len()), (1, 0));
        told.push(revision(&progress));
        if told.len() == 2 {
            watcher.put("x", "1").await;
        }
    }
    assert_eq!((told[0], told[3]), (1, 2));
    assert!(Duration::from_millis(600) <= began.elapsed(), "{:?}", began.elapsed());
    child.kill().unwrap();
    child.wait().unwrap();
}

/// More than a stream's room holds: who finds none at one tick is told at the next.
#[tokio::test]
async fn progress_is_told_to_each_of_very_many_watchers() {
    const WATCHERS: i64 = 1_500;
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let mut child = home.command().arg("--watch-progress-notify-interval=100ms").spawn().unwrap();
    let mut watcher = Watcher::open_soon(&home).await;
    let mut told = std::collections::BTreeSet::new();
    for id in 1..=WATCHERS {
        let request = pb::WatchCreateRequest { progress_notify: true, watch_id: id, ..prefix("p") };
        watcher.ask(RequestUnion::CreateRequest(request)).await;
        loop {
            let response = watcher.next().await;
            if response.created {
                break;
            }
            told.insert(response.watch_id);
        }
    }
    let end = Instant::now() + PATIENCE;
    while told.len() < WATCHERS as usize {
        assert!(Instant::now() < end, "only {} were told", told.len());
        told.insert(watcher.next().await.watch_id);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Where hundreds follow, news rests between two tellings; what is asked meanwhile waits for it, and what is asked then waits, too: a watcher from the past would have the report
/// withheld.
#[tokio::test]
async fn progress_that_is_asked_for_comes_behind_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, _client) = home.start().await;
    let mut crowd = Watcher::open(&home).await;
    for _ in 0..400 {
        crowd.create(prefix("a")).await;
    }
    let drained = tokio::spawn(async move { while let Ok(Some(_)) = crowd.responses.message().await {} });
    let mut watcher = Watcher::open(&home).await;
    watcher.create(prefix("a")).await;
    for _ in 0..20 {
        watcher.put("a", "1").await;
        let written = watcher.put("a", "2").await;
        watcher.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
        let past = pb::WatchCreateRequest { start_revision: 1, watch_id: 7, ..prefix("z") };
        watcher.ask(RequestUnion::CreateRequest(past)).await;
        watcher.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 7 })).await;
        let mut told = 0;
        let progress = loop {
            let response = watcher.next().await;
            let Some(event) = response.events.last() else { break response };
            told = event.kv.as_ref().unwrap().mod_revision;
        };
        assert_eq!((progress.watch_id, told, revision(&progress)), (-1, written, written));
        let (created, canceled) = (watcher.next().await, watcher.next().await);
        assert_eq!((created.watch_id, created.created, canceled.watch_id, canceled.canceled), (7, true, 7, true));
    }
    drained.abort();
}

/// Go's client writes what is asked at once as very many small frames. What is not answered yet waits at the client, and costs nobody the connection.
#[tokio::test]
async fn a_burst_of_small_requests_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, _client) = home.start().await;
    let socket = TcpStream::connect(("127.0.0.1", home.client_port)).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    let driven = tokio::spawn(connection);
    let path = format!("http://127.0.0.1:{}/etcdserverpb.Watch/Watch", home.client_port);
    let bursts: Vec<_> = (0..8).map(|_| tokio::spawn(create_at_once(client.clone(), path.clone(), 5_000))).collect();
    for burst in bursts {
        burst.await.unwrap();
    }
    driven.abort();
}

/// Asks for so many watchers on a stream of its own, a frame for each, before it reads the first answer.
async fn create_at_once(mut client: h2::client::SendRequest<Bytes>, path: String, count: usize) {
    let head = http::Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    let (response, mut requests) = client.send_request(head.body(()).unwrap(), false).unwrap();
    let request_union = Some(RequestUnion::CreateRequest(prefix("a")));
    let message = pb::WatchRequest { request_union }.encode_to_vec();
    let frame = Bytes::from([&[0, 0, 0, 0, message.len() as u8][..], &message].concat());
    for _ in 0..count {
        requests.send_data(frame.clone(), false).unwrap();
    }
    let (mut body, mut held, mut told) = (response.await.unwrap().into_body(), BytesMut::new(), 0);
    while told < count {
        let data = tokio::time::timeout(PATIENCE, body.data()).await.unwrap().unwrap();
        let data = data.unwrap_or_else(|error| panic!("{told} were answered: {error}"));
        body.flow_control().release_capacity(data.len()).unwrap();
        held.extend_from_slice(&data);
        while let Some(length) = held.get(1..5).map(|length| u32::from_be_bytes(length.try_into().unwrap()) as usize)
            && 5 + length <= held.len()
        {
            let response = pb::WatchResponse::decode(&held.split_to(5 + length)[5..]).unwrap();
            assert!(response.created);
            told += 1;
        }
    }
}

#[tokio::test]
async fn a_member_that_ends_serves_watchers_to_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (mut member, _client) = home.start().await;
    let mut watcher = Watcher::open(&home).await;
    watcher.create(prefix("a")).await;
    watcher.put("a", "1").await;
    assert_eq!(watcher.next().await.events.len(), 1);
    let began = Instant::now();
    member.signal(Signal::SIGTERM);
    let ended = tokio::time::timeout(PATIENCE, watcher.responses.message()).await.unwrap();
    assert_eq!(ended.map_err(|status| status.code()), Err(Code::Unknown), "the connection breaks");
    let seconds = began.elapsed().as_secs_f64();
    assert!((6.5..12.0).contains(&seconds), "{seconds} s");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&member.wait()), Some(15));
}
