//! The KV service: decode, ask, encode.

use detcd_core::apply::{Application, Step};
use detcd_core::command::TxnRequest;
use detcd_core::mvcc::{Progress, ReadPoint, StreamRead, validate};
use detcd_core::reply::{Rejected, Reply, TxnReply};
use detcd_io::clock::Instant;
use detcd_io::codec::entry::Field;
use detcd_io::codec::request;
use detcd_io::driver::bounds;
use detcd_io::stats::add;
use detcd_io::stats::ops::Operations;
use detcd_io::store::backend::Backend;
use detcd_io::store::compaction::Pin;
use detcd_proto::etcdserverpb as pb;
use detcd_proto::etcdserverpb::kv_server::Kv;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::stream_chunk::ChunkSize;
use crate::member::{Member, respond};
use crate::mutants::mutated;
use crate::pieces::{Pieces, TakesPieces};
use crate::quota::Cost;
use crate::reply::{Replier, key_value, range_response};
use crate::status;

/// Chunks of a range stream that may wait for its client.
const STREAM_CHUNKS_MAX: usize = 2;

/// The service over a member.
pub struct KvService<B> {
    member: Member<B>,
}

impl<B: Backend> KvService<B> {
    /// The service over `member`.
    #[must_use]
    pub const fn new(member: Member<B>) -> Self {
        Self { member }
    }

    async fn barrier(&self, serializable: bool) -> Result<(), Status> {
        if serializable { Ok(()) } else { self.member.read_barrier().await }
    }

    /// Takes a request through the log and picks the reply, with what keeps the rows that it names.
    async fn apply(&self, field: Field, message: &impl prost::Message) -> Result<(Reply, Option<Pin>), Status> {
        let answer = self.member.propose(field, message).await?;
        Ok((answer.reply.map_err(refuse)?, answer.pin))
    }

    /// Runs a transaction that writes nothing on this member's own state.
    async fn read_only(&self, request: TxnRequest) -> Result<(TxnReply, Option<Pin>), Status> {
        let view = self.member.store().view();
        let mut application = Application::begin_read(request);
        loop {
            let step = application.advance(&view, bounds::READ_KEYS_PER_TURN);
            match step.map_err(|fault| self.member.fail(fault))? {
                Step::More => tokio::task::yield_now().await,
                Step::Done(outcome) => {
                    assert!(outcome.writes.is_empty(), "a read-only transaction writes nothing");
                    return match outcome.reply.map_err(refuse)? {
                        Reply::Txn(reply) => {
                            if Operations::of_txn(&reply).sum() > 1 {
                                add(&self.member.store().stats().txns, 1);
                            }
                            Ok((reply, Some(view.pin())))
                        }
                        other => unreachable!("a transaction is answered by one, not by {other:?}"),
                    };
                }
                Step::Unbuilt(what) => unreachable!("transactions are built, {what} is not"),
            }
        }
    }
}

fn refuse(why: Rejected) -> Status {
    status::status(status::rejected(why))
}

#[tonic::async_trait]
impl<B: Backend> Kv for KvService<B> {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        if request.get_ref().serializable {
            self.member.check_metadata_at_any(request.metadata())?;
        } else {
            self.member.check_metadata(request.metadata())?;
        }
        let takes_pieces = request.extensions().get::<TakesPieces>().is_some();
        let request = request::range(request.into_inner());
        validate::range(&request).map_err(refuse)?;
        let (reply, replier) = self.member.range(&request).await?;
        let mut response = range_response(reply);
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        response.header = Some(self.member.header(revision));
        let pieces = if takes_pieces { Pieces::of(&mut response) } else { None };
        let mut response = replier.respond(response);
        if let Some(pieces) = pieces {
            response.extensions_mut().insert(pieces);
        }
        Ok(response)
    }

    type RangeStreamStream = ReceiverStream<Result<pb::RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        self.member.check_metadata(request.metadata())?;
        let request = request::range(request.into_inner());
        validate::range_stream(&request).map_err(refuse)?;
        self.barrier(request.serializable).await?;
        let view = self.member.store().view();
        let read = StreamRead::new(&request, &ReadPoint::now(&view)).map_err(refuse)?;
        let (chunks, stream) = mpsc::channel(STREAM_CHUNKS_MAX);
        let member = self.member.clone();
        tokio::spawn(async move {
            if let Err(status) = stream_range(&member, read, &chunks).await {
                // The client may be gone, too.
                let _ = chunks.send(Err(status)).await;
            }
        });
        respond(ReceiverStream::new(stream))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        let request = request.into_inner();
        let checked = request::put(request.clone());
        let cost = Cost::of_put(&checked);
        self.member.check_quota(cost).await?;
        validate::put(&checked).map_err(refuse)?;
        let (reply, _pin) = self.apply(Field::Put, &request).await?;
        let Reply::Put(reply) = reply else { unreachable!("a put is answered by a put, not by {reply:?}") };
        self.member.recheck_quota(cost).await?;
        let mut response = Replier::new(&self.member).put(&reply)?;
        response.header = Some(self.member.header(reply.revision));
        respond(response)
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        let request = request.into_inner();
        validate::delete_range(&request::delete_range(request.clone())).map_err(refuse)?;
        let (reply, _pin) = self.apply(Field::DeleteRange, &request).await?;
        let Reply::DeleteRange(reply) = reply else { unreachable!("a delete is answered by one, not by {reply:?}") };
        let mut replier = Replier::new(&self.member);
        let mut response = replier.delete_range(&reply).await?;
        response.header = Some(self.member.header(reply.revision));
        Ok(replier.respond(response))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        let request = request.into_inner();
        let checked = request::txn(request.clone());
        let cost = self.member.cost_of_txn(&checked);
        self.member.check_quota(cost).await?;
        match validate::txn(&checked, self.member.limits().txn_ops_max) {
            Err(Rejected::DuplicateKey) if mutated!(self.member.limits(), DuplicateKeysTaken) => {}
            checked => checked.map_err(refuse)?,
        }
        let (reply, _pin) = if checked.is_read_only() {
            self.barrier(checked.is_serializable()).await?;
            let began = Instant::now();
            let read = self.read_only(checked).await;
            self.member.counts().read_txns.observe(read.is_ok(), began.elapsed());
            read?
        } else {
            let (reply, pin) = self.apply(Field::Txn, &request).await?;
            let Reply::Txn(reply) = reply else { unreachable!("a transaction is answered by one, not by {reply:?}") };
            self.member.recheck_quota(cost).await?;
            (reply, pin)
        };
        let mut replier = Replier::new(&self.member);
        let mut response = replier.txn(&reply).await?;
        response.header = Some(self.member.header(reply.revision));
        Ok(replier.respond(response))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        let request = request.into_inner();
        let answer = self.member.propose(Field::Compaction, &request).await?;
        // One that comes too late waits as well: its caller wants the rows to be gone.
        if request.physical && matches!(answer.reply, Ok(_) | Err(Rejected::Compacted)) {
            self.member.store().compactions_done().await;
            let flushed = self.member.asker().flush().await;
            flushed.map_err(|why| status::status(status::unanswered(why)))?;
        }
        answer.reply.map_err(refuse)?;
        respond(pb::CompactionResponse { header: Some(self.member.header(answer.revision)) })
    }
}

/// Sends a range in chunks of bounded size. Waits for its client between chunks, holding no lock and no transaction.
async fn stream_range<B: Backend>(
    member: &Member<B>,
    mut read: StreamRead,
    chunks: &mpsc::Sender<Result<pb::RangeStreamResponse, Status>>,
) -> Result<(), Status> {
    let mut size = ChunkSize::new(member.limits().request_bytes_max);
    let stats = member.store().stats();
    let mut began = Instant::now();
    loop {
        // Taken anew for each turn: a slow client holds no compaction up.
        let progress = read.advance(&member.store().view(), size.keys(), bounds::READ_KEYS_PER_TURN);
        match progress.map_err(|fault| member.fail(fault))? {
            Progress::More => tokio::task::yield_now().await,
            Progress::Rejected(why) => return Err(refuse(why)),
            Progress::Done(chunk) => {
                let is_last = chunk.end.is_some();
                add(&stats.ranges, 1);
                stats.range.observe(true, began.elapsed());
                let response = pb::RangeResponse {
                    header: chunk.end.as_ref().map(|end| member.header(end.revision)),
                    kvs: chunk.kvs.into_iter().map(key_value).collect(),
                    more: chunk.end.as_ref().is_some_and(|end| end.more),
                    count: chunk.end.as_ref().map_or(0, |end| end.count),
                };
                size.on_chunk(prost::Message::encoded_len(&response));
                let message = pb::RangeStreamResponse { range_response: Some(response) };
                if chunks.send(Ok(message)).await.is_err() || is_last {
                    return Ok(());
                }
                began = Instant::now();
            }
        }
    }
}
