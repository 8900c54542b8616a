//! The floor: the least that a server of durable puts must do.
//!
//! The same gRPC stack as detcd, but a put is only written, as the bytes of its request, to a file whose space is
//! already allocated; one thread gathers what has come meanwhile and makes it durable with one fdatasync. There is no
//! log format, no consensus, no store and no reading. What detcd costs above this is what its guarantees cost.
//!
//! One thing it does keep: no put is answered before its bytes are synced.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;

use detcd_proto::etcdserverpb::kv_server::{Kv, KvServer};
use detcd_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RangeStreamResponse, ResponseHeader, TxnRequest, TxnResponse,
};
use nix::fcntl::{FallocateFlags, fallocate};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tonic::codegen::BoxStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// The name of the file in the data directory.
pub const FILE_NAME: &str = "floor";
/// Its size, that of a segment of etcd's log. When it is full, writing goes on at its start.
const FILE_BYTES: u64 = 64 << 20;
/// The longest put that is accepted.
const PUT_BYTES_MAX: usize = 32 << 10;
/// Puts that are made durable together at most.
const GROUP_MAX: usize = 1024;
/// Puts that wait for the next group at most; beyond that, their clients wait.
const QUEUE_MAX: usize = 4096;

const _: () = assert!(GROUP_MAX * PUT_BYTES_MAX <= FILE_BYTES as usize);

/// The KV service that can only put.
#[derive(Clone, Debug)]
pub struct Floor {
    queue: mpsc::Sender<Write>,
}

/// The one that writes. It needs a thread of its own.
#[derive(Debug)]
pub struct Writer {
    file: File,
    at: u64,
    revision: i64,
    queue: mpsc::Receiver<Write>,
}

#[derive(Debug)]
struct Write {
    bytes: Vec<u8>,
    synced: oneshot::Sender<i64>,
}

/// Creates the file in the directory and both sides of the queue.
pub fn open(directory: &Path) -> io::Result<(Floor, Writer)> {
    let file = OpenOptions::new().create_new(true).write(true).open(directory.join(FILE_NAME))?;
    let bytes = i64::try_from(FILE_BYTES).expect("a constant far below the limit");
    fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    file.sync_all()?;
    let (sender, queue) = mpsc::channel(QUEUE_MAX);
    Ok((Floor { queue: sender }, Writer { file, at: 0, revision: 0, queue }))
}

/// Serves until the listener fails.
pub async fn serve(floor: Floor, listen: SocketAddr) -> Result<(), tonic::transport::Error> {
    let service = KvServer::new(floor).max_decoding_message_size(PUT_BYTES_MAX);
    Server::builder().tcp_nodelay(true).max_concurrent_streams(u32::MAX).add_service(service).serve(listen).await
}

impl Writer {
    /// Writes until the service is gone or the disk fails. Blocks.
    pub fn run(mut self) -> io::Result<()> {
        let mut group = Vec::with_capacity(GROUP_MAX);
        let mut bytes = Vec::new();
        while 0 < self.queue.blocking_recv_many(&mut group, GROUP_MAX) {
            bytes.clear();
            group.iter().for_each(|write: &Write| bytes.extend_from_slice(&write.bytes));
            self.append(&bytes)?;
            for write in group.drain(..) {
                self.revision += 1;
                // A client that has gone away wants no answer.
                let _ = write.synced.send(self.revision);
            }
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if FILE_BYTES < self.at + bytes.len() as u64 {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at)?;
        self.file.sync_data()?;
        self.at += bytes.len() as u64;
        assert!(self.at <= FILE_BYTES);
        Ok(())
    }
}

#[tonic::async_trait]
impl Kv for Floor {
    type RangeStreamStream = BoxStream<RangeStreamResponse>;

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let stopped = || Status::unavailable("the writer has stopped");
        let (synced, answer) = oneshot::channel();
        let bytes = request.into_inner().encode_to_vec();
        self.queue.send(Write { bytes, synced }).await.map_err(|_| stopped())?;
        let revision = answer.await.map_err(|_| stopped())?;
        let header = ResponseHeader { cluster_id: 1, member_id: 1, revision, raft_term: 1 };
        Ok(Response::new(PutResponse { header: Some(header), ..PutResponse::default() }))
    }

    async fn range(&self, _: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        Err(only_puts())
    }

    async fn range_stream(&self, _: Request<RangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(only_puts())
    }

    async fn delete_range(&self, _: Request<DeleteRangeRequest>) -> Result<Response<DeleteRangeResponse>, Status> {
        Err(only_puts())
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        Err(only_puts())
    }

    async fn compact(&self, _: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        Err(only_puts())
    }
}

fn only_puts() -> Status {
    Status::unimplemented("the floor only puts")
}
