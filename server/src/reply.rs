//! The engine's replies as etcd's responses: revisions become rows, and ranges inside transactions are read at their points.
//!
//! Rows are read here, outside apply and by the answering member alone, in bounded turns with yields between them.

use detcd_core::command::RangeRequest;
use detcd_core::ids::Revision;
use detcd_core::mvcc::{KeyValue, Progress, RangeRead, RangeReply, ReadPoint, View as _};
use detcd_core::reply::{DeleteRangeReply, OpReply, PutReply, RangeAt, Rejected, TxnReply};
use detcd_io::clock::Instant;
use detcd_io::driver::ask::Unanswered;
use detcd_io::driver::bounds;
use detcd_io::stats::add;
use detcd_io::store::ReadView;
use detcd_io::store::backend::Backend;
use detcd_proto::etcdserverpb as pb;
use detcd_proto::mvccpb;
use tonic::{Response, Status};

use crate::member::Member;
use crate::mutants::mutated;
use crate::room::{Held, NoRoom};
use crate::status;

/// A stored key and value as clients see it.
#[must_use]
pub fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.created,
        mod_revision: kv.modified,
        version: kv.version,
        value: kv.value,
        lease: kv.lease.0,
    }
}

fn revision_header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() })
}

/// Evaluates replies for one request, and holds room for them as long as it lives.
pub struct Replier<'a, B> {
    member: &'a Member<B>,
    view: ReadView<B>,
    held: Held,
    held_bytes: usize,
}

impl<'a, B: Backend> Replier<'a, B> {
    /// A replier over the present store.
    #[must_use]
    pub fn new(member: &'a Member<B>) -> Self {
        Self { member, view: member.store().view(), held: member.room().enter(), held_bytes: 0 }
    }

    /// A response that keeps its room until its client has taken it.
    #[must_use]
    pub fn respond<T>(self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        if let Some(kept) = self.held.keep() {
            response.extensions_mut().insert(kept);
        }
        response
    }

    /// The view it reads through.
    #[must_use]
    pub const fn view(&self) -> &ReadView<B> {
        &self.view
    }

    /// Runs a range to its end.
    ///
    /// # Errors
    /// The revision was compacted meanwhile, or the machine failed.
    pub async fn range(&mut self, mut read: RangeRead) -> Result<RangeReply, Status> {
        add(&self.member.store().stats().ranges, 1);
        let before = self.held_bytes;
        loop {
            let progress = read.advance(&self.view, bounds::READ_KEYS_PER_TURN);
            self.hold(before + read.held_bytes()).await?;
            match progress.map_err(|fault| self.member.fail(fault))? {
                Progress::Done(reply) => return Ok(reply),
                Progress::Rejected(why) => return Err(status::status(status::rejected(why))),
                Progress::More => tokio::task::yield_now().await,
            }
        }
    }

    async fn hold(&mut self, bytes: usize) -> Result<(), Status> {
        self.held_bytes = bytes;
        let grown = self.held.grow_to(bytes).await;
        grown.map_err(|NoRoom| status::status(status::unanswered(Unanswered::TooManyRequests)))
    }

    /// A range at its point, as part of a transaction: its header has only a revision.
    async fn range_at(&mut self, at: &RangeAt) -> Result<pb::RangeResponse, Status> {
        let read = RangeRead::new(&at.request, &at.point).map_err(|why| status::status(status::rejected(why)))?;
        let mut response = range_response(self.range(read).await?);
        let revision = response.header.take().map_or(0, |header| header.revision);
        response.header = revision_header(revision);
        Ok(response)
    }

    /// A put.
    ///
    /// # Errors
    /// The machine failed.
    pub fn put(&self, reply: &PutReply) -> Result<pb::PutResponse, Status> {
        let prev_kv = reply.prev.map(|prev| self.prev(prev).map(key_value)).transpose()?;
        Ok(pb::PutResponse { header: revision_header(reply.revision), prev_kv })
    }

    /// The row that a command replaced. It is missing only if a compaction lost its patience with this very reply.
    fn prev(&self, at: Revision) -> Result<KeyValue, Status> {
        self.view.row(at).map_err(|fault| {
            let is_swept = at <= Revision::end_of(self.view.swept());
            if is_swept { status::status(status::rejected(Rejected::Compacted)) } else { self.member.fail(fault) }
        })
    }

    /// A range delete.
    ///
    /// # Errors
    /// The machine failed.
    pub async fn delete_range(&mut self, reply: &DeleteRangeReply) -> Result<pb::DeleteRangeResponse, Status> {
        let mut prev_kvs = Vec::with_capacity(reply.prev.len());
        for (count, prev) in reply.prev.iter().enumerate() {
            if count % bounds::READ_KEYS_PER_TURN == bounds::READ_KEYS_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
            let kv = self.prev(*prev)?;
            self.hold(self.held_bytes + kv.key.len() + kv.value.len()).await?;
            prev_kvs.push(key_value(kv));
        }
        Ok(pb::DeleteRangeResponse { header: revision_header(reply.revision), deleted: reply.deleted, prev_kvs })
    }

    /// A transaction, with those inside it.
    ///
    /// # Errors
    /// The machine failed.
    pub async fn txn(&mut self, reply: &TxnReply) -> Result<pb::TxnResponse, Status> {
        let mut responses = Vec::with_capacity(reply.responses.len());
        for op in &reply.responses {
            responses.push(self.op(op).await?);
        }
        Ok(pb::TxnResponse { header: revision_header(reply.revision), succeeded: reply.succeeded, responses })
    }

    async fn op(&mut self, op: &OpReply) -> Result<pb::ResponseOp, Status> {
        use pb::response_op::Response;
        let response = match op {
            OpReply::Range(at) => Some(Response::ResponseRange(self.range_at(at).await?)),
            OpReply::Put(reply) => Some(Response::ResponsePut(self.put(reply)?)),
            OpReply::DeleteRange(reply) => Some(Response::ResponseDeleteRange(self.delete_range(reply).await?)),
            OpReply::Txn(reply) => Some(Response::ResponseTxn(Box::pin(self.txn(reply)).await?)),
            OpReply::Empty => None,
        };
        Ok(pb::ResponseOp { response })
    }
}

impl<B: Backend> Member<B> {
    /// Answers a range that was checked, and counts it. The replier holds the room of what it answers.
    ///
    /// # Errors
    /// No leader in time, a revision that is not there, or the machine failed.
    pub async fn range(&self, request: &RangeRequest) -> Result<(RangeReply, Replier<'_, B>), Status> {
        let asked = Instant::now();
        let answered = self.range_uncounted(request).await;
        self.counts().ranges.observe(answered.is_ok(), asked.elapsed());
        answered
    }

    async fn range_uncounted(&self, request: &RangeRequest) -> Result<(RangeReply, Replier<'_, B>), Status> {
        if !request.serializable {
            self.read_barrier().await?;
        }
        let began = Instant::now();
        let mut replier = Replier::new(self);
        let mut point = ReadPoint::now(replier.view());
        if request.serializable && mutated!(self.limits(), SerializableBehind) {
            point.revision = point.compacted.max(point.revision - 1).max(1);
            point.at = Revision::end_of(point.revision);
        }
        let read = match RangeRead::new(request, &point) {
            Ok(read) => replier.range(read).await,
            Err(why) => Err(status::status(status::rejected(why))),
        };
        self.store().stats().range.observe(read.is_ok(), began.elapsed());
        read.map(|reply| (reply, replier))
    }
}

/// A range's result; the header has only its revision.
#[must_use]
pub fn range_response(reply: RangeReply) -> pb::RangeResponse {
    pb::RangeResponse {
        header: revision_header(reply.revision),
        kvs: reply.kvs.into_iter().map(key_value).collect(),
        more: reply.more,
        count: reply.count,
    }
}
