//! A whole member in one process: real boot, log writer, committer, driver and services over a disk and a store in memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use detcd_core::ids::MemberId;
use detcd_core::mvcc::index::Gathering;
use detcd_core::raft;
use detcd_io::boot::execute::{Start, boot};
use detcd_io::boot::machine::Machine;
use detcd_io::driver::{Ended, Peers};
use detcd_io::entropy::Entropy;
use detcd_io::fault::Fault;
use detcd_io::store::backend::{Backend, Committed, RawRow, Size, Slice, Visit};
use detcd_io::store::batch::Batch;
use detcd_io::store::buckets::Bucket;
use detcd_io::store::memory::{MemoryBackend, MemoryFrozen};
use detcd_proto::etcdserverpb as pb;
use detcd_proto::etcdserverpb::kv_server::Kv as _;
use detcd_server::compose::{Assembled, assemble, lease_rules};
use detcd_server::config::{self, Config};
use detcd_server::forward::Nobody;
use detcd_server::grpc::kv::KvService;
use detcd_server::member::Member;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::{Request, Status};

use crate::disk::GatedDisk;

/// A store in memory that can be full.
#[derive(Clone, Default)]
pub(crate) struct FullStore {
    memory: MemoryBackend,
    is_full: Arc<AtomicBool>,
}

impl FullStore {
    pub(crate) fn fill(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::SeqCst);
    }
}

impl Backend for FullStore {
    type Frozen = MemoryFrozen;

    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.memory.get(bucket, key)
    }

    fn scan(&self, slice: Slice<'_>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), Fault> {
        self.memory.scan(slice, visit)
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed, Fault> {
        if self.is_full.load(Ordering::SeqCst) { Ok(Committed::NoRoom) } else { self.memory.commit(batch).await }
    }

    async fn size(&self) -> Result<Size, Fault> {
        self.memory.size().await
    }

    fn freeze(&self) -> Result<MemoryFrozen, Fault> {
        self.memory.freeze()
    }

    async fn load(&self, rows: &[RawRow]) -> Result<Committed, Fault> {
        if self.is_full.load(Ordering::SeqCst) { Ok(Committed::NoRoom) } else { self.memory.load(rows).await }
    }

    async fn beside(&self) -> Result<Self, Fault> {
        Ok(Self { memory: MemoryBackend::default(), is_full: Arc::clone(&self.is_full) })
    }

    async fn replace(&self, copy: Self) -> Result<(), Fault> {
        self.memory.replace(copy.memory).await
    }

    async fn detach(&self, copy: Self, to: &Path) -> Result<(), Fault> {
        self.memory.detach(copy.memory, to).await
    }

    async fn discard(&self, _: Self) {}
}

/// What survives a life.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) disk: GatedDisk,
    pub(crate) store: FullStore,
}

/// A member that is assembled; its driver may be held back.
pub(crate) struct Life {
    pub(crate) member: Member<FullStore>,
    /// The driver's end, once it runs.
    pub(crate) driver: JoinHandle<Result<Ended, Fault>>,
    release: Option<oneshot::Sender<()>>,
    _stop: oneshot::Sender<()>,
}

fn config() -> Config {
    let words = ["--name=a", "--data-dir=d"].map(str::to_owned);
    let outcome = config::read(&words, &[], |_| unreachable!("no file is named"));
    match outcome.result.unwrap() {
        config::Request::Start(config) => *config,
        other => panic!("{other:?}"),
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self { disk: GatedDisk::new(), store: FullStore::default() }
    }

    /// Boots and assembles a member whose driver waits for [`Life::release`].
    pub(crate) async fn assemble(&self) -> Life {
        let config = config();
        let start = Start {
            places: config.data.places.clone(),
            asked: config.asked.clone(),
            machine: Machine { arch: "amd64".to_owned(), unsupported_arch: None, fd_limit: 1024 },
            segment_bytes: 4096,
            raft: raft::Config::new(MemberId(0)),
            leases: lease_rules(&config),
            gathered_rows_max: Gathering::ROWS_MAX,
        };
        let booted = boot(&self.disk, &start, |_| std::future::ready(Ok(self.store.clone()))).await.unwrap();
        let alone = Peers::alone(booted.metadata.cluster, booted.metadata.member);
        let Assembled { driver, writer, committer, member, stop, claim, .. } =
            assemble(booted, &config, Entropy::seeded(1), 0, (alone, Arc::new(Nobody)));
        let (release, released) = oneshot::channel();
        tokio::spawn(writer.run());
        tokio::spawn(committer.run());
        let driver = tokio::spawn(async move {
            let _claim = claim;
            released.await.unwrap();
            driver.run().await
        });
        Life { member, driver, release: Some(release), _stop: stop }
    }

    /// A member that leads.
    pub(crate) async fn live(&self) -> Life {
        let mut life = self.assemble().await;
        life.release();
        life.member.read_barrier().await.unwrap();
        life
    }
}

impl Life {
    pub(crate) fn release(&mut self) {
        self.release.take().unwrap().send(()).unwrap();
    }

    pub(crate) fn put(&self, value: impl Into<Bytes>) -> JoinHandle<Result<(), Status>> {
        let service = KvService::new(self.member.clone());
        let request = pb::PutRequest { key: "k".into(), value: value.into(), ..Default::default() };
        tokio::spawn(async move { service.put(Request::new(request)).await.map(drop) })
    }

    /// The value of the key, read through the log.
    pub(crate) async fn get(&self) -> Result<Bytes, Status> {
        let service = KvService::new(self.member.clone());
        let request = pb::RangeRequest { key: "k".into(), ..Default::default() };
        let response = service.range(Request::new(request)).await?.into_inner();
        Ok(response.kvs.first().map(|kv| kv.value.clone()).unwrap_or_default())
    }
}

/// Lets everything that can happen without the test happen.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}
