//! Members over real sockets: they hear each other on both streams, find each other again, answer strangers, send stores, and lose nothing to those who wish them ill.

use std::path::Path;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, BytesMut};
use detcd_core::ids::{Index, Term};
use detcd_core::raft::{Configuration, Entry, EntryKind, Mark, Snapshot};
use detcd_io::copier::copier;
use detcd_io::disk::{MemoryDisk, RealDisk};
use detcd_io::peer::spool::spool;
use detcd_io::peer::{Arrivals, SnapshotRefused, codec, inbox};
use detcd_io::store::backend::{Backend as _, RawRow};
use detcd_io::store::buckets::Bucket;
use detcd_io::store::copying::Chunk;
use detcd_io::store::memory::MemoryBackend;
use prost::Message as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;

const CLUSTER: u64 = 0x1000;
const PATIENCE: Duration = Duration::from_secs(20);

/// A member that only talks.
struct Talker {
    id: MemberId,
    address: String,
    network: Network,
    directory: Directory,
    arrivals: Arrivals,
    server: JoinHandle<()>,
    snap: TempDir,
}

async fn serving(address: &str, network: &Network) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = router(network.clone());
    (address, tokio::spawn(serve::serve(listener, router, std::future::pending)))
}

impl Talker {
    async fn new(id: u64) -> Self {
        let (inbox, arrivals) = inbox();
        let directory = Directory::new(CLUSTER, MemberId(id));
        let snap = TempDir::new().unwrap();
        let (spool, spooler) = spool(RealDisk, snap.path());
        tokio::spawn(spool.run());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let membership: Membership = Arc::new(|| Bytes::from_static(b"{}"));
        let network = Network::new(directory.clone(), inbox, spooler, membership, &[format!("http://{address}")]);
        let server = tokio::spawn(serve::serve(listener, router(network.clone()), std::future::pending));
        Self { id: MemberId(id), address, network, directory, arrivals, server, snap }
    }

    fn knows(&self, others: &[&Self]) {
        self.directory.set(others.iter().map(|other| other.id).chain([self.id]), []);
        let peers: Vec<Peer> =
            others.iter().map(|other| Peer { id: other.id, urls: vec![format!("http://{}", other.address)] }).collect();
        self.network.set_peers(&peers);
    }

    /// Waits until the other hears both streams of this one.
    async fn is_heard_by(&self, other: &Self) {
        let heard = async {
            let remote = self.network.peer(other.id).unwrap();
            while !Kind::ALL.iter().all(|kind| remote.link(*kind).is_open()) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, heard).await.expect("both streams are opened");
    }

    async fn next(&mut self) -> Incoming {
        timeout(PATIENCE, self.arrivals.recv()).await.expect("something arrives").expect("the network lives")
    }

    async fn next_message(&mut self) -> (MemberId, Message) {
        loop {
            if let Incoming::Message { from, message } = self.next().await {
                return (from, message);
            }
        }
    }
}

use detcd_io::peer::stream::Kind;

fn append(index: u64, bytes: usize) -> Message {
    let entry = Entry {
        term: Term(2),
        index: Index(index + 1),
        kind: EntryKind::Normal,
        payload: Bytes::from(vec![b'x'; bytes]),
    };
    let previous = Mark::new(Index(index), Term(u64::from(index > 0) * 2));
    Message::Append { term: Term(2), previous, entries: vec![entry], commit: Index(index) }
}

fn granted(term: u64) -> Message {
    Message::VoteGranted { term: Term(term) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_hear_each_other_on_both_streams_in_order() {
    let (mut a, mut b, mut c) = (Talker::new(1).await, Talker::new(2).await, Talker::new(3).await);
    a.knows(&[&b, &c]);
    b.knows(&[&a, &c]);
    c.knows(&[&a, &b]);
    a.is_heard_by(&b).await;
    a.is_heard_by(&c).await;
    b.is_heard_by(&a).await;
    for index in 0..3000 {
        a.network.send(b.id, append(index, 100));
        if index % 100 == 0 {
            a.network.send(b.id, granted(index + 1));
            a.network.send(c.id, granted(index + 1));
        }
    }
    b.network.send(a.id, granted(77));
    assert_eq!(a.next_message().await, (b.id, granted(77)));
    let (mut appends, mut others) = (0, 0);
    while (appends, others) != (3000, 30) {
        let (from, message) = b.next_message().await;
        assert_eq!(from, a.id);
        if let Message::VoteGranted { term } = message {
            assert_eq!(term, Term(others * 100 + 1));
            others += 1;
        } else {
            assert_eq!(message, append(appends, 100));
            appends += 1;
        }
    }
    for count in 0..30 {
        assert_eq!(c.next_message().await, (a.id, granted(count * 100 + 1)));
    }
    assert!(a.network.active_since(b.id).is_some());
    assert!(a.network.active_since(MemberId(9)).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_with_nothing_to_say_stay_open() {
    let (a, b) = (Talker::new(1).await, Talker::new(2).await);
    a.knows(&[&b]);
    b.knows(&[&a]);
    a.is_heard_by(&b).await;
    let since = b.network.active_since(a.id).unwrap();
    sleep(times::READ + Duration::from_secs(1)).await;
    let remote = a.network.peer(b.id).unwrap();
    for kind in Kind::ALL {
        assert!(remote.link(kind).is_open());
        assert_eq!(remote.link(kind).connections(), 1, "the first one still");
    }
    assert_eq!(b.network.active_since(a.id), Some(since));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_append_arrives_whole() {
    let (a, mut b) = (Talker::new(1).await, Talker::new(2).await);
    a.knows(&[&b]);
    b.knows(&[&a]);
    a.is_heard_by(&b).await;
    a.network.send(b.id, append(0, 30 << 20));
    assert_eq!(b.next_message().await, (a.id, append(0, 30 << 20)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_find_each_other_again_and_what_was_lost_is_reported() {
    let (mut a, mut b) = (Talker::new(1).await, Talker::new(2).await);
    a.knows(&[&b]);
    b.knows(&[&a]);
    a.is_heard_by(&b).await;
    b.is_heard_by(&a).await;
    // The streams that a speaks on end on a's own listener; then b is gone as a server, too.
    a.server.abort();
    b.server.abort();
    let lost = async {
        while a.network.peer(b.id).unwrap().link(Kind::Messages).is_open() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, lost).await.expect("the end is seen");
    a.network.send(b.id, granted(1));
    loop {
        if let Incoming::Unreachable { member } = a.next().await {
            assert_eq!(member, b.id);
            break;
        }
    }
    (a.address, a.server) = serving(&a.address, &a.network).await;
    (b.address, b.server) = serving(&b.address, &b.network).await;
    a.is_heard_by(&b).await;
    b.is_heard_by(&a).await;
    a.network.send(b.id, granted(2));
    assert_eq!(b.next_message().await, (a.id, granted(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_posts_and_is_answered_by_post() {
    let (mut a, mut b) = (Talker::new(1).await, Talker::new(2).await);
    a.knows(&[&b]);
    // b does not know a: no stream in either direction.
    a.network.send(b.id, append(0, 10));
    assert_eq!(b.next_message().await, (a.id, append(0, 10)));
    b.network.send(a.id, granted(5));
    assert_eq!(a.next_message().await, (b.id, granted(5)));
    assert!(b.network.peer(a.id).is_none());
    // Once it is known, it is a stranger no more.
    b.knows(&[&a]);
    assert!(b.network.others.read().unwrap().strangers.is_empty());
    a.is_heard_by(&b).await;
    // A read that is passed on keeps its first sender, and names who passed it on.
    let read = Message::ReadIndex { origin: MemberId(3), token: Bytes::from_static(b"8 bytes.") };
    a.network.send(b.id, read.clone());
    assert_eq!(b.next_message().await, (a.id, read));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_dropped_hears_what_was_said_before_and_nothing_after() {
    let (a, mut b) = (Talker::new(1).await, Talker::new(2).await);
    a.knows(&[&b]);
    b.knows(&[&a]);
    a.is_heard_by(&b).await;
    (1..=100).for_each(|term| a.network.send(b.id, granted(term)));
    a.network.set_peers(&[]);
    a.network.send(b.id, granted(101));
    for term in 1..=100 {
        assert_eq!(b.next_message().await, (a.id, granted(term)));
    }
    // It is told that it was removed, and by whom.
    a.directory.set([a.id], [b.id]);
    loop {
        match b.next().await {
            Incoming::Removed { by } => break assert_eq!(by, a.id),
            Incoming::Message { message, .. } => panic!("{message}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_member_costs_the_others_nothing() {
    let (a, mut b, mut c) = (Talker::new(1).await, Talker::new(2).await, Talker::new(3).await);
    a.knows(&[&b, &c]);
    b.knows(&[&a]);
    c.knows(&[&a]);
    a.is_heard_by(&b).await;
    a.is_heard_by(&c).await;
    // Nobody takes what arrives at b: first its own queue fills, then the sockets, then a's queue.
    let mut a = a;
    let reported = async {
        loop {
            for index in 0..200 {
                a.network.send(b.id, append(index, 1 << 20));
            }
            if let Ok(Some(Incoming::Unreachable { member })) =
                timeout(Duration::from_millis(50), a.arrivals.recv()).await
            {
                return member;
            }
        }
    };
    assert_eq!(timeout(PATIENCE, reported).await.unwrap(), b.id);
    a.network.send(c.id, granted(1));
    let told = timeout(Duration::from_secs(2), c.next_message()).await.expect("at once");
    assert_eq!(told, (a.id, granted(1)));
    // What did arrive is sound.
    assert!(matches!(b.next_message().await, (_, Message::Append { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_finds_no_room_is_reported_at_once() {
    let mut a = Talker::new(1).await;
    // Connections are made, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let urls = vec![format!("http://{}", silent.local_addr().unwrap())];
    a.network.set_peers(&[Peer { id: MemberId(2), urls }]);
    for _ in 0..bounds::PIPELINE_MESSAGES_MAX + bounds::PIPELINE_WORKERS + 1 {
        a.network.send(MemberId(2), granted(1));
    }
    let reported = timeout(times::READ / 2, a.next()).await.expect("nothing was given up yet");
    assert!(matches!(reported, Incoming::Unreachable { member: MemberId(2) }));
}

fn snapshot(index: u64) -> Message {
    let configuration = Configuration::of_voters([MemberId(1), MemberId(2)]);
    Message::Snapshot { term: Term(3), snapshot: Snapshot { mark: Mark::new(Index(index), Term(2)), configuration } }
}

async fn copy(megabytes: u8) -> Copied {
    let store = MemoryBackend::default();
    let rows: Vec<RawRow> = (0..megabytes)
        .map(|at| RawRow { bucket: Bucket::Key, key: vec![at; 17].into(), value: Some(vec![at; 1 << 20].into()) })
        .collect();
    store.load(&rows).await.unwrap();
    let disk = MemoryDisk::new();
    detcd_io::disk::Disk::create_dir_all(&disk, Path::new("snap")).await.unwrap();
    let (copier, copies) = copier(store, disk, Path::new("snap"), Chunk::USUAL, Arc::default());
    tokio::spawn(copier.run());
    copies.make().await.unwrap()
}

async fn bytes_of(copy: &Copied) -> Vec<u8> {
    copy.read(0, usize::try_from(copy.size_bytes()).unwrap()).await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_arrives_whole_and_its_sender_is_told_what_became_of_it() {
    let (mut a, mut b) = (Talker::new(1).await, Talker::new(2).await);
    a.knows(&[&b]);
    for verdict in [Ok(()), Err(SnapshotRefused::Refused("no".to_owned()))] {
        let copy = copy(20).await;
        let bytes = bytes_of(&copy).await;
        assert!(20 << 20 < bytes.len());
        a.network.send_snapshot(b.id, snapshot(9), copy);
        let Incoming::Snapshot { from, message, path, answer } = b.next().await else { panic!("not a snapshot") };
        assert_eq!((from, message), (a.id, snapshot(9)));
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert_eq!(path.parent(), Some(b.snap.path()));
        answer.send(verdict.clone()).unwrap();
        loop {
            if let Incoming::SnapshotSent { to, is_received } = a.next().await {
                assert_eq!((to, is_received), (b.id, verdict.is_ok()));
                break;
            }
        }
    }
    // To nobody, and to one who is not there.
    a.network.send_snapshot(MemberId(9), snapshot(9), copy(1).await);
    loop {
        if let Incoming::SnapshotSent { to, is_received } = a.next().await {
            break assert_eq!((to, is_received), (MemberId(9), false));
        }
    }
}

/// What a server answers to raw bytes, to the end of the connection.
async fn answer_to(talker: &Talker, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(&talker.address).await.unwrap();
    let mut answer = Vec::new();
    let talking = async {
        // It may be refused before it was read.
        let _ = socket.write_all(request).await;
        let _ = socket.read_to_end(&mut answer).await;
    };
    timeout(PATIENCE, talking).await.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

const INTRODUCTION: &str = "Host: h\r\nX-Server-From: 2\r\nX-Server-Version: 3.7.3\r\nX-Min-Cluster-Version: 3.0.0\r\n\
                            X-Etcd-Cluster-ID: 1000\r\nX-Raft-To: 1\r\nConnection: close\r\n";

fn request(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    [format!("{line} HTTP/1.1\r\n{headers}{length}\r\n").as_bytes(), body].concat()
}

/// Status and text.
fn verdict(answer: &str) -> (u16, String) {
    let status = answer.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let text = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    // Of a chunked body, the first chunk.
    let text = if answer.to_lowercase().contains("transfer-encoding: chunked") {
        text.split("\r\n").nth(1).unwrap_or_default()
    } else {
        text
    };
    (status, text.trim_end().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_refused_in_etcds_order_and_words() {
    let (a, b) = (Talker::new(1).await, Talker::new(2).await);
    a.knows(&[&b]);
    a.directory.set([a.id, b.id], [MemberId(4)]);
    let with = |from: &str, to: &str| INTRODUCTION.replace(from, to);
    let other_cluster = with("1000", "1001");
    let both_wrong = with("1000", "1001").replace("3.7.3", "2.3.0");
    let not_to = with("X-Raft-To: 1", "X-Raft-To: 01");
    let cases: &[(&str, &str, u16, &str)] = &[
        ("POST /raft/stream/msgapp/2", "Host: h\r\nConnection: close\r\n", 405, "Method Not Allowed"),
        ("GET /raft", "Host: h\r\nConnection: close\r\n", 405, "Method Not Allowed"),
        ("PUT /raft/snapshot", "Host: h\r\nConnection: close\r\n", 405, "Method Not Allowed"),
        ("GET /raft/stream/x/2", &both_wrong, 412, "incompatible version"),
        ("GET /raft/stream/x/2", &other_cluster, 412, "cluster ID mismatch"),
        ("POST /raft", &other_cluster, 412, "cluster ID mismatch"),
        ("POST /raft/snapshot", &both_wrong, 412, "incompatible version"),
        ("GET /raft/stream/x/2", INTRODUCTION, 404, "invalid path"),
        ("GET /raft/stream/msgapp", INTRODUCTION, 404, "invalid path"),
        ("GET /raft/stream/msgapp/2/", INTRODUCTION, 404, "invalid path"),
        ("GET /raft/stream/", INTRODUCTION, 404, "invalid path"),
        ("GET /raft/stream/msgapp/xyz", INTRODUCTION, 404, "invalid from"),
        ("GET /raft/stream/msgapp/4", INTRODUCTION, 410, "removed member"),
        ("GET /raft/stream/msgapp/5", INTRODUCTION, 404, "error sender not found"),
        ("GET /raft/stream/msgapp/1", INTRODUCTION, 404, "error sender not found"),
        ("GET /raft/stream/msgapp/2", &not_to, 412, "to field mismatch"),
        ("GET /raft/stream", INTRODUCTION, 307, "<a href=\"/raft/stream/\">Temporary Redirect</a>."),
        ("POST /raft", INTRODUCTION, 500, "error processing raft message"),
        ("POST /raft/snapshot", INTRODUCTION, 400, "failed to decode raft message (EOF)"),
        ("GET /raft/", INTRODUCTION, 404, ""),
    ];
    for (line, headers, status, text) in cases {
        let answer = answer_to(&a, &request(line, headers, b"")).await;
        assert_eq!(verdict(&answer), (*status, (*text).to_owned()), "{line}: {answer}");
        let is_signed = answer.contains("X-Etcd-Cluster-Id: 1000\r\n");
        assert_eq!(is_signed, ![405, 307].contains(status) && *line != "GET /raft/", "{line}: {answer}");
        let is_stream = line.starts_with("GET /raft/stream/");
        assert_eq!(answer.contains("X-Server-Version: 3.7.3\r\n"), is_stream, "{line}: {answer}");
    }
    // A version that is none: not a word.
    assert_eq!(answer_to(&a, &request("POST /raft", &with("3.7.3", "3.7"), b"")).await, "");
    let probe = answer_to(&a, &request("DELETE /raft/probing", "Host: h\r\nConnection: close\r\n", b"")).await;
    assert!(verdict(&probe).1.starts_with("{\"OK\":true,\"Now\":\"20"), "{probe}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posted_messages_get_etcds_answers() {
    let (mut a, b) = (Talker::new(1).await, Talker::new(2).await);
    a.knows(&[&b]);
    a.directory.set([a.id, b.id], [MemberId(4)]);
    let post = |from: u64, to: u64, message: &Message| {
        let body = codec::wire(MemberId(from), MemberId(to), message).encode_to_vec();
        request("POST /raft", INTRODUCTION, &body)
    };
    assert_eq!(verdict(&answer_to(&a, &post(2, 1, &granted(1))).await), (204, String::new()));
    assert_eq!(a.next_message().await, (b.id, granted(1)));
    let refused = (500, "error processing raft message".to_owned());
    for (from, to) in [(2, 3), (2, 0), (4, 1)] {
        let answer = answer_to(&a, &post(from, to, &granted(1))).await;
        assert_eq!(verdict(&answer), refused);
        assert!(!answer.ends_with("0\r\n\r\n"), "it breaks off: {answer}");
    }
    let unreadable = (400, "error unmarshalling raft message".to_owned());
    assert_eq!(verdict(&answer_to(&a, &request("POST /raft", INTRODUCTION, b"\xff")).await), unreadable);
    let termless = post(2, 1, &granted(0));
    assert_eq!(verdict(&answer_to(&a, &termless).await), unreadable);
    // Local kinds, and a snapshot without its store, are taken and go nowhere.
    for ignored in [request("POST /raft", INTRODUCTION, &[8, 1, 0x10, 1, 0x18, 2]), post(2, 1, &snapshot(3))] {
        assert_eq!(verdict(&answer_to(&a, &ignored).await), (204, String::new()));
    }
    assert!(a.arrivals.try_recv().is_none());
}

fn snapshot_body(message: &Message, store: &[u8]) -> Vec<u8> {
    let wire = codec::wire(MemberId(2), MemberId(1), message);
    let mut body = BytesMut::new();
    body.put_u64(wire.encoded_len() as u64);
    wire.encode(&mut body).unwrap();
    body.put_slice(store);
    body.to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_are_cut_off_or_not_meant_for_here_leave_nothing() {
    let (mut a, b) = (Talker::new(1).await, Talker::new(2).await);
    a.knows(&[&b]);
    let post = |body: &[u8]| request("POST /raft/snapshot", INTRODUCTION, body);
    let whole = snapshot_body(&snapshot(7), &[7; 100_000]);
    let decode = |why: &str| (400, format!("failed to decode raft message ({why})"));
    assert_eq!(verdict(&answer_to(&a, &post(&whole[..4])).await), decode("unexpected EOF"));
    assert_eq!(verdict(&answer_to(&a, &post(&whole[..12])).await), decode("unexpected EOF"));
    assert_eq!(verdict(&answer_to(&a, &post(&[0xff; 9])).await), decode("rafthttp: error limit exceeded"));
    let other_kind = snapshot_body(&granted(1), b"");
    assert_eq!(verdict(&answer_to(&a, &post(&other_kind)).await), (400, "wrong raft message type".to_owned()));
    let mut elsewhere = whole.clone();
    elsewhere[11] = 9;
    let elsewhere = verdict(&answer_to(&a, &post(&elsewhere)).await);
    let mismatch = "failed to process raft message (cannot process message to mismatch member)";
    assert_eq!(elsewhere, (500, mismatch.to_owned()));
    // Cut off in the middle of the store.
    let mut socket = TcpStream::connect(&a.address).await.unwrap();
    let cut = post(&whole);
    socket.write_all(&cut[..cut.len() - 1]).await.unwrap();
    drop(socket);
    // One that is refused; while it waits, there is no place for another.
    let mut socket = TcpStream::connect(&a.address).await.unwrap();
    let incoming = loop {
        // The file of the one before is given up a moment after its connection.
        socket.write_all(&post(&whole)).await.unwrap();
        let mut head = [0; 12];
        tokio::select! {
            incoming = a.next() => break incoming,
            _ = socket.read_exact(&mut head) => assert_eq!(&head[9..], b"503"),
        }
        socket = TcpStream::connect(&a.address).await.unwrap();
    };
    let Incoming::Snapshot { path, answer, .. } = incoming else { panic!("not a snapshot") };
    let busy = (503, "another snapshot is being received".to_owned());
    assert_eq!(verdict(&answer_to(&a, &post(&whole)).await), busy);
    assert_eq!(std::fs::read(&path).unwrap(), vec![7; 100_000]);
    answer.send(Err(SnapshotRefused::Removed)).unwrap();
    let mut text = Vec::new();
    socket.read_to_end(&mut text).await.unwrap();
    let removed = "failed to process raft message (cannot process message from removed member)";
    assert_eq!(verdict(&String::from_utf8(text).unwrap()), (500, removed.to_owned()));
    // Nothing but the file that was handed over, which is its receiver's.
    let left: Vec<_> = std::fs::read_dir(a.snap.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [path]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hostile_lose_their_connections_and_nobody_else_does() {
    let (a, mut b) = (Talker::new(1).await, Talker::new(2).await);
    a.knows(&[&b]);
    b.knows(&[&a]);
    a.is_heard_by(&b).await;
    // A head without end, a length that is a lie, a body that stops.
    let endless =
        [b"GET /raft/stream/msgapp/2 HTTP/1.1\r\n".as_slice(), &b"X-A: bbbbbbbbbbbbbb\r\n".repeat(20_000)].concat();
    assert_eq!(verdict(&answer_to(&a, &endless).await).0, 431);
    let lie = format!("POST /raft HTTP/1.1\r\n{INTRODUCTION}Content-Length: 99999999999\r\n\r\nabc");
    let began = Instant::now();
    assert_eq!(verdict(&answer_to(&a, lie.as_bytes()).await), (400, "error reading raft message".to_owned()));
    assert!(began.elapsed() < times::READ * 2);
    assert_eq!(a.network.shared.posted.available_permits(), bounds::POSTED_BYTES_MAX);
    // More than a message may be.
    let long = request("POST /raft", INTRODUCTION, &vec![0; bounds::FRAME_BYTES_MAX + 1]);
    let refused = verdict(&answer_to(&a, &long).await);
    assert!(refused.0 == 400 || refused.0 == 0, "{refused:?}");
    // Slow heads.
    let mut slow = TcpStream::connect(&a.address).await.unwrap();
    slow.write_all(b"GET /raft/str").await.unwrap();
    let mut rest = Vec::new();
    timeout(times::READ * 2, slow.read_to_end(&mut rest)).await.expect("cut off").unwrap();
    a.network.send(b.id, granted(3));
    assert_eq!(b.next_message().await, (a.id, granted(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_lies_is_opened_anew() {
    let mut a = Talker::new(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    a.directory.set([a.id, MemberId(2)], []);
    a.network.set_peers(&[Peer { id: MemberId(2), urls: vec![format!("http://{address}")] }]);
    let head = "HTTP/1.1 200 OK\r\nX-Server-Version: 3.7.3\r\n\r\n";
    let mut sound = BytesMut::new();
    let message = codec::wire(MemberId(2), MemberId(1), &granted(8)).encode_to_vec();
    sound.put_u64(message.len() as u64);
    sound.put_slice(&message);
    let answers: Vec<Vec<u8>> = vec![
        [head.as_bytes(), &[0xff; 9]].concat(),
        [head.as_bytes(), &[2, 0xff]].concat(),
        b"HTTP/1.1 200 OK\r\nX-Server-Version: x\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        b"nonsense\r\n\r\n".to_vec(),
        [head.as_bytes(), &sound].concat(),
    ];
    let mut open = Vec::new();
    let mut asked = 0;
    for answer in &answers {
        // Both streams are asked for again and again; only one of them is given something.
        loop {
            let (mut socket, _) = timeout(PATIENCE, listener.accept()).await.expect("it tries again").unwrap();
            let mut buffer = BytesMut::new();
            while !buffer.ends_with(b"\r\n\r\n") {
                assert!(socket.read_buf(&mut buffer).await.unwrap() > 0);
            }
            asked += 1;
            let is_message = buffer.chunk().starts_with(b"GET /raft/stream/message/1 HTTP/1.1\r\n");
            if is_message {
                socket.write_all(answer).await.unwrap();
                open.push(socket);
                break;
            }
        }
    }
    assert_eq!(a.next_message().await, (MemberId(2), granted(8)));
    assert!(answers.len() <= asked);
    assert!(a.network.active_since(MemberId(2)).is_some());
}
