//! The Watch service: decode, ask, encode.
//!
//! The half of a stream that takes requests runs as a task of its own and ends with them: a client that has nothing more to ask still gets everything. The
//! half that answers is driven by the client's appetite; what keys held before is looked up only when the answer is on its way.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use detcd_core::apply::EventKind;
use detcd_core::mvcc::KeyValue;
use detcd_core::watch::{Create, Delivery, Events, Filter, Interest, What, fragment};
use detcd_io::driver::bounds;
use detcd_io::store::backend::Backend;
use detcd_proto::etcdserverpb as pb;
use detcd_proto::etcdserverpb::watch_server::Watch;
use detcd_proto::mvccpb;
use pb::watch_request::RequestUnion;
use prost::Message as _;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::fanout::handle::{Gone, Requests};
use crate::fanout::outbox::{Message, Outbox};
use crate::member::{Member, respond};
use crate::mutants::mutated;
use crate::reply::key_value;
use crate::status::{self, Refused};

/// The id of an answer that is about no watcher.
const NO_ID: i64 = -1;

/// The service over a member.
pub struct WatchService<B> {
    member: Member<B>,
}

impl<B: Backend> WatchService<B> {
    /// The service over `member`.
    #[must_use]
    pub const fn new(member: Member<B>) -> Self {
        Self { member }
    }
}

#[tonic::async_trait]
impl<B: Backend> Watch for WatchService<B> {
    type WatchStream = Responses<B>;

    async fn watch(&self, request: Request<Streaming<pb::WatchRequest>>) -> Result<Response<Responses<B>>, Status> {
        self.member.check_metadata(request.metadata())?;
        let wants_leader = self.member.wants_leader(request.metadata());
        let requests = self.member.fanout().open(wants_leader).await.map_err(|Gone| Refused::Stopped)?;
        let outbox = Arc::clone(&requests.outbox);
        let reading = tokio::spawn(read(requests, request.into_inner()));
        respond(Responses { member: self.member.clone(), outbox, reading, ready: VecDeque::new(), preparing: None })
    }
}

/// Takes requests until there are no more.
async fn read(requests: Requests, mut stream: Streaming<pb::WatchRequest>) {
    loop {
        let request = match stream.message().await {
            Ok(Some(request)) => request,
            // The client has nothing more to ask.
            Ok(None) => return,
            Err(status) if status.code() == Code::Cancelled => {
                requests.outbox.end(Refused::WatchCanceled.into());
                return;
            }
            Err(status) => {
                requests.outbox.count_receive_failure();
                requests.outbox.end(status);
                return;
            }
        };
        let asked = match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => requests.create(create(request)).await,
            Some(RequestUnion::CancelRequest(request)) => requests.cancel(request.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => requests.progress().await,
            None => Ok(()),
        };
        if asked == Err(Gone) {
            requests.outbox.end(Refused::Stopped.into());
            return;
        }
    }
}

fn create(request: pb::WatchCreateRequest) -> Create {
    use pb::watch_create_request::FilterType;
    let drops = |filter: FilterType| request.filters.contains(&(filter as i32));
    let filter = Filter { no_put: drops(FilterType::Noput), no_delete: drops(FilterType::Nodelete) };
    Create {
        id: request.watch_id,
        interest: Interest { filter, prev_kv: request.prev_kv, fragment: request.fragment },
        key: request.key,
        range_end: request.range_end,
        start: request.start_revision,
        progress: request.progress_notify,
    }
}

/// What a client gets, in order, as it takes it.
pub struct Responses<B: Backend> {
    member: Member<B>,
    outbox: Arc<Outbox>,
    reading: JoinHandle<()>,
    /// Pieces of a response that was cut.
    ready: VecDeque<pb::WatchResponse>,
    preparing: Option<Preparing>,
}

/// Changes on their way into a response.
struct Preparing {
    id: i64,
    revision: i64,
    events: Events,
    interest: Interest,
    done: Vec<mvccpb::Event>,
}

impl<B: Backend> Stream for Responses<B> {
    type Item = Result<pb::WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(response)));
            }
            if let Some(preparing) = self.preparing.take() {
                match self.prepare(preparing) {
                    Ok(Some(unfinished)) => {
                        self.preparing = Some(unfinished);
                        // Others get their turn between two parts of a large one.
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Ok(None) => continue,
                    Err(status) => return Poll::Ready(Some(Err(status))),
                }
            }
            match std::task::ready!(self.outbox.poll_next(context)) {
                Ok(message) => self.take(message),
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
        }
    }
}

impl<B: Backend> Responses<B> {
    fn take(&mut self, message: Message) {
        let response = match message {
            Message::Created { id, revision } => pb::WatchResponse { created: true, ..self.response(id, revision) },
            Message::Refused { why, revision } => pb::WatchResponse {
                created: true,
                canceled: true,
                cancel_reason: status::watch_refused(why).to_owned(),
                ..self.response(NO_ID, revision)
            },
            Message::Cancelled { id, revision } => pb::WatchResponse { canceled: true, ..self.response(id, revision) },
            Message::Progress { id, revision } => self.response(id, revision),
            Message::Delivery(Delivery { to, what: What::Compacted { compacted } }) => {
                pb::WatchResponse { canceled: true, compact_revision: compacted, ..self.response(to.id, 0) }
            }
            Message::Delivery(Delivery { to, what: What::Events { revision, events, interest } }) => {
                let done = Vec::with_capacity(events.len());
                self.preparing = Some(Preparing { id: to.id, revision, events, interest, done });
                return;
            }
        };
        self.ready.push_back(response);
    }

    fn response(&self, watch_id: i64, revision: i64) -> pb::WatchResponse {
        pb::WatchResponse { header: Some(self.member.header(revision)), watch_id, ..pb::WatchResponse::default() }
    }

    /// Works on a response for one turn. Gives it back if it is not finished.
    fn prepare(&mut self, mut preparing: Preparing) -> Result<Option<Preparing>, Status> {
        let turn = preparing.events.iter().skip(preparing.done.len()).take(bounds::READ_KEYS_PER_TURN);
        for change in turn {
            let prev = if preparing.interest.prev_kv { self.member.store().before(change) } else { Ok(None) };
            let prev = prev.map_err(|fault| self.member.fail(fault))?;
            preparing.done.push(event(change.kind, change.kv.clone(), prev));
        }
        if preparing.done.len() < preparing.events.len() {
            return Ok(Some(preparing));
        }
        let Preparing { id, revision, interest, done, .. } = preparing;
        let response = self.response(id, revision);
        if interest.fragment {
            let limits = self.member.limits();
            let limit = limits.fragment_bytes + usize::from(mutated!(limits, FragmentAtLimit));
            self.ready.extend(cut(&response, done, limit));
        } else {
            self.ready.push_back(pb::WatchResponse { events: done, ..response });
        }
        Ok(None)
    }
}

impl<B: Backend> Drop for Responses<B> {
    fn drop(&mut self) {
        self.reading.abort();
        self.outbox.close();
    }
}

fn event(kind: EventKind, kv: KeyValue, prev: Option<KeyValue>) -> mvccpb::Event {
    let kind = match kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    mvccpb::Event { r#type: kind as i32, kv: Some(key_value(kv)), prev_kv: prev.map(key_value) }
}

/// Cuts a response by etcd's rule; all pieces but the last say that more follows.
fn cut(frame: &pb::WatchResponse, events: Vec<mvccpb::Event>, limit: usize) -> Vec<pb::WatchResponse> {
    // A field of bytes: its tag (11 needs one byte), its length, and what it holds.
    let size = |event: &mvccpb::Event| {
        let bytes = event.encoded_len();
        1 + prost::length_delimiter_len(bytes) + bytes
    };
    let sizes: Vec<usize> = events.iter().map(size).collect();
    let piece = pb::WatchResponse { fragment: true, ..frame.clone() };
    let counts = fragment::pieces(&sizes, frame.encoded_len(), piece.encoded_len(), limit);
    let (last, mut events) = (counts.len() - 1, events.into_iter());
    let cut = counts.into_iter().enumerate().map(|(place, count)| pb::WatchResponse {
        fragment: place < last,
        events: events.by_ref().take(count).collect(),
        ..frame.clone()
    });
    cut.collect()
}
