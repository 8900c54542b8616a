//! A steady load through all members, and what must be true of it afterwards: every acknowledged write is in everybody's history, once, at
//! its revision; reads never went back; a watcher that moved between members missed nothing and saw nothing twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use detcd_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{Cluster, PATIENCE, REQUEST};

const WRITERS: usize = 6;
const READERS: usize = 2;
/// What the load writes starts with it.
const PREFIX: &str = "key-";

/// A write as the history has it: revision, key, value.
type Written = (i64, String, String);

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    members: Mutex<Vec<Channel>>,
    /// By revision.
    acknowledged: Mutex<BTreeMap<i64, (String, String)>>,
    /// The newest acknowledged write of each key.
    newest: Mutex<BTreeMap<String, i64>>,
    reads: AtomicU64,
}

/// A load that goes on until it is checked.
pub(crate) struct Load {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
    watcher: JoinHandle<Vec<Written>>,
}

impl Load {
    /// Starts it, with a watcher whose first member is `watched`.
    pub(crate) fn start(cluster: &Cluster, watched: usize) -> Self {
        let shared = Arc::new(Shared::default());
        *shared.members.lock().unwrap() = cluster.nodes.iter().map(|node| node.channel.clone()).collect();
        let mut tasks = Vec::new();
        for writer in 0..WRITERS {
            tasks.push(tokio::spawn(write(Arc::clone(&shared), writer)));
        }
        for reader in 0..READERS {
            tasks.push(tokio::spawn(read(Arc::clone(&shared), reader)));
        }
        let watcher = tokio::spawn(watch(Arc::clone(&shared), watched));
        Self { shared, tasks, watcher }
    }

    /// Uses one more member.
    pub(crate) fn follow(&self, cluster: &Cluster) {
        *self.shared.members.lock().unwrap() = cluster.nodes.iter().map(|node| node.channel.clone()).collect();
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.shared.acknowledged.lock().unwrap().len()
    }

    /// Waits until so many more writes are acknowledged.
    pub(crate) async fn progress(&self, writes: usize) {
        let (began, goal) = (Instant::now(), self.acknowledged() + writes);
        while self.acknowledged() < goal {
            assert!(began.elapsed() < PATIENCE, "the load stands still: {} of {goal}", self.acknowledged());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the load, checks it on every member, and tells how much it was.
    pub(crate) async fn check(self, cluster: &Cluster) -> String {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let running: Vec<_> = cluster.nodes.iter().filter(|node| node.is_running()).collect();
        let last = running[0].put("key-end", "end").await;
        assert_eq!(cluster.agree().await, last, "something was written behind the end");
        let first = history(&running[0].channel, last).await;
        for node in &running[1..] {
            assert!(
                history(&node.channel, last).await == first,
                "members have different histories\n{}",
                cluster.logs()
            );
        }
        let values: BTreeSet<_> = first.iter().map(|(_, _, value)| value).collect();
        assert_eq!(values.len(), first.len(), "a write was carried out twice");
        let by_revision: BTreeMap<_, _> = first.iter().map(|(at, key, value)| (at, (key, value))).collect();
        let acknowledged = self.shared.acknowledged.lock().unwrap().clone();
        for (at, (key, value)) in &acknowledged {
            assert_eq!(by_revision.get(at), Some(&(key, value)), "acknowledged at {at}\n{}", cluster.logs());
        }
        for node in &running {
            let range = pb::RangeRequest { key: PREFIX.into(), range_end: "key.".into(), ..Default::default() };
            let now = node.kv().range(range).await.unwrap().into_inner();
            let newest: BTreeMap<_, _> = first.iter().map(|(at, key, _)| (key.as_bytes(), *at)).collect();
            let read: BTreeMap<_, _> = now.kvs.iter().map(|kv| (&kv.key[..], kv.mod_revision)).collect();
            assert_eq!(read, newest);
        }
        let watched = tokio::time::timeout(PATIENCE, self.watcher).await.unwrap().unwrap();
        let from = watched[0].0;
        let expected: Vec<_> = first.into_iter().filter(|(at, _, _)| from <= *at).collect();
        assert!(watched == expected, "the watcher saw {} writes of {}", watched.len(), expected.len());
        let reads = self.shared.reads.load(Ordering::Relaxed);
        assert!(reads > 20, "only {reads} linearizable reads");
        format!("{} acknowledged writes, {} watched, {reads} linearizable reads", acknowledged.len(), watched.len())
    }
}

impl Shared {
    fn member(&self, turn: usize) -> Channel {
        let members = self.members.lock().unwrap();
        members[turn % members.len()].clone()
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// Each value is sent once: what became of one that failed stays open.
async fn write(shared: Arc<Shared>, writer: usize) {
    for number in 0.. {
        if shared.is_over() {
            return;
        }
        let (key, value) = (format!("{PREFIX}{writer}-{}", number % 5), format!("{writer}/{number}"));
        let put = pb::PutRequest { key: key.clone().into(), value: value.clone().into(), ..Default::default() };
        let mut client = KvClient::new(shared.member(writer + number));
        let Ok(Ok(response)) = tokio::time::timeout(REQUEST, client.put(put)).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let at = response.into_inner().header.unwrap().revision;
        let before = shared.acknowledged.lock().unwrap().insert(at, (key.clone(), value));
        assert_eq!(before, None, "revision {at} has two meanings");
        shared.newest.lock().unwrap().insert(key, at);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// Through any member, a read that began after a write was acknowledged sees it.
async fn read(shared: Arc<Shared>, reader: usize) {
    for turn in reader.. {
        if shared.is_over() {
            return;
        }
        let key = format!("{PREFIX}{}-{}", turn % WRITERS, turn % 5);
        let newest = shared.newest.lock().unwrap().get(&key).copied().unwrap_or(0);
        let last = shared.acknowledged.lock().unwrap().keys().last().copied().unwrap_or(0);
        let mut client = KvClient::new(shared.member(turn));
        let range = pb::RangeRequest { key: key.clone().into(), ..Default::default() };
        if let Ok(Ok(response)) = tokio::time::timeout(REQUEST, client.range(range)).await {
            let response = response.into_inner();
            let revision = response.header.unwrap().revision;
            assert!(last <= revision, "a read at {revision} after a write at {last} was acknowledged");
            let seen = response.kvs.first().map_or(0, |kv| kv.mod_revision);
            assert!(newest <= seen, "{key} is from {seen}, but a write at {newest} was acknowledged");
            shared.reads.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn open(channel: &Channel, start_revision: i64) -> Option<tonic::Streaming<pb::WatchResponse>> {
    let (ask, requests) = tokio::sync::mpsc::channel(1);
    let create =
        pb::WatchCreateRequest { key: PREFIX.into(), range_end: "key.".into(), start_revision, ..Default::default() };
    ask.send(pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await.unwrap();
    // The sender lives as long as the stream: its end would end it.
    let requests = tokio_stream::StreamExt::chain(ReceiverStream::new(requests), tokio_stream::pending());
    let mut client = WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
    Some(tokio::time::timeout(REQUEST, client.watch(requests)).await.ok()?.ok()?.into_inner())
}

/// Adds a response's events; their revisions go up.
fn take(response: pb::WatchResponse, events: &mut Vec<Written>) {
    assert!(!response.canceled, "{}", response.cancel_reason);
    for event in response.events {
        let kv = event.kv.unwrap();
        let last = events.last().map_or(0, |(at, _, _)| *at);
        assert!(last < kv.mod_revision, "an event of {} after one of {last}", kv.mod_revision);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        events.push((kv.mod_revision, text(&kv.key), text(&kv.value)));
    }
}

/// Watches until the end was seen, and goes on at the next member when one fails.
async fn watch(shared: Arc<Shared>, first: usize) -> Vec<Written> {
    let mut events: Vec<Written> = Vec::new();
    for turn in first.. {
        let from = events.last().map_or(1, |(at, _, _)| at + 1);
        let Some(mut responses) = open(&shared.member(turn), from).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Silence of a stopped member is an end like any other.
        while let Ok(Ok(Some(response))) = tokio::time::timeout(REQUEST, responses.message()).await {
            take(response, &mut events);
            if events.last().is_some_and(|(_, _, value)| value == "end") {
                return events;
            }
        }
    }
    unreachable!("there is always another member");
}

/// All that a member holds of the load, up to a revision.
async fn history(channel: &Channel, upto: i64) -> Vec<Written> {
    let mut events = Vec::new();
    let mut responses = open(channel, 1).await.unwrap();
    while events.last().is_none_or(|(at, _, _)| *at < upto) {
        let response = tokio::time::timeout(PATIENCE, responses.message()).await.unwrap().unwrap().unwrap();
        take(response, &mut events);
    }
    events
}
