//! What every service of a member shares: the way to the log, the store to read from, who this is, and the limits.
//!
//! A service decodes, asks here, and encodes. The checks that etcd makes for every request – leader wanted, size, deadline – are made once, here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use detcd_core::ids::{MemberId, Ticket};
use detcd_core::raft::Refusal;
use detcd_io::clock::Instant;
use detcd_io::codec::entry::{self, Field};
use detcd_io::copier::Copies;
use detcd_io::defragmenter;
use detcd_io::driver::ask::{Answer, Asker, Unanswered};
use detcd_io::driver::bounds;
use detcd_io::fault::Fault;
use detcd_io::peer::Transport;
use detcd_io::stats::ops::{self, Op};
use detcd_io::stats::{self, Histogram, Outcomes};
use detcd_io::store::Store;
use detcd_io::store::backend::Backend;
use detcd_proto::etcdserverpb as pb;
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

use crate::fanout::handle::Handle;
use crate::forward::Forward;
use crate::promotions::Promotions;
use crate::room::Room;
use crate::status::{self, Refused};

/// The version of etcd that this server is, to everybody who asks.
pub const VERSION: &str = "3.7.3";

/// How often a request that found no leader asks again.
const LEADER_POLL: Duration = Duration::from_millis(50);

/// Who this member is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The cluster.
    pub cluster: u64,
    /// The member.
    pub member: MemberId,
    /// Its name.
    pub name: String,
}

/// What one request may ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RequestLimits {
    /// Whether changes of the membership that endanger the majority are refused.
    pub strict_reconfig: bool,
    /// Bytes of an encoded request.
    pub request_bytes_max: usize,
    /// Operations in one transaction.
    pub txn_ops_max: usize,
    /// How long a request may wait for the log: 5 s and two election timeouts.
    pub timeout: Duration,
    /// How long a leader may have been lost before another one is elected: two election timeouts.
    pub leader_loss: Duration,
    /// Bytes of the store at which writes stop; below zero: never.
    pub quota_bytes: i64,
    /// Bytes at which a watch response is cut for who wants that.
    pub fragment_bytes: usize,
    /// The known bug that services carry, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    pub mutant: Option<detcd_io::mutants::Mutant>,
}

/// The way to those who look after the store.
#[derive(Clone, Debug)]
pub struct Upkeep {
    /// Takes requests to defragment.
    pub defragment: mpsc::Sender<defragmenter::Ask>,
    /// Makes copies.
    pub copies: Copies,
}

/// The way to other members.
#[derive(Clone)]
pub struct Network {
    /// What carries Raft's messages, and knows who is connected.
    pub transport: Arc<dyn Transport>,
    /// What asks other members' services.
    pub forward: Arc<dyn Forward>,
}

/// Counters of the services.
#[derive(Debug)]
pub struct Counts {
    /// Proposals that failed.
    pub proposals_failed: AtomicU64,
    /// Proposals that wait.
    pub proposals_pending: AtomicU64,
    /// Linearizable reads that failed.
    pub reads_failed: AtomicU64,
    /// Requests that went through the log, from the proposal to the reply, by [`Op`].
    pub requests: Box<[Outcomes]>,
    /// Ranges, with the wait for the log.
    pub ranges: Outcomes,
    /// Transactions that write nothing, without that wait.
    pub read_txns: Outcomes,
    /// Hashes of the whole store.
    pub hashes: Histogram,
    /// Hashes of its keys.
    pub key_hashes: Histogram,
    /// Lives of the copies that clients take away.
    pub snapshots: Histogram,
    /// Learners that were to be promoted.
    pub promotions: Promotions,
}

impl Default for Counts {
    fn default() -> Self {
        let counter = || AtomicU64::new(0);
        Self {
            proposals_failed: counter(),
            proposals_pending: counter(),
            reads_failed: counter(),
            requests: ops::NAMES.iter().map(|_| Outcomes::new(stats::DISK)).collect(),
            ranges: Outcomes::new(stats::DISK),
            read_txns: Outcomes::new(stats::DISK),
            hashes: Histogram::new(stats::HASH),
            key_hashes: Histogram::new(stats::HASH),
            snapshots: Histogram::new(stats::SNAPSHOT),
            promotions: Promotions::default(),
        }
    }
}

/// A member, as its services see it. Clones share it.
pub struct Member<B> {
    inner: Arc<Inner<B>>,
}

struct Inner<B> {
    asker: Asker,
    store: Store<B>,
    identity: Identity,
    limits: RequestLimits,
    counts: Counts,
    room: Room,
    fanout: Handle,
    upkeep: Upkeep,
    network: Network,
    faults: mpsc::Sender<Fault>,
}

impl<B> Clone for Member<B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<B: Backend> Member<B> {
    /// A member; a failure of the machine that a service meets goes to `faults`.
    #[must_use]
    pub fn new(
        asker: Asker,
        store: Store<B>,
        identity: Identity,
        limits: RequestLimits,
        (fanout, upkeep, network): (Handle, Upkeep, Network),
        faults: mpsc::Sender<Fault>,
    ) -> Self {
        let room = Room::new(bounds::REPLY_BYTES_MAX, limits.timeout);
        let counts = Counts::default();
        Self {
            inner: Arc::new(Inner { asker, store, identity, limits, counts, room, fanout, upkeep, network, faults }),
        }
    }

    /// The way to the log.
    #[must_use]
    pub fn asker(&self) -> &Asker {
        &self.inner.asker
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store<B> {
        &self.inner.store
    }

    /// Who this is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &RequestLimits {
        &self.inner.limits
    }

    /// Room for replies under preparation.
    #[must_use]
    pub fn room(&self) -> &Room {
        &self.inner.room
    }

    /// The way to the watchers.
    #[must_use]
    pub fn fanout(&self) -> &Handle {
        &self.inner.fanout
    }

    /// The way to the upkeep of the store.
    #[must_use]
    pub fn upkeep(&self) -> &Upkeep {
        &self.inner.upkeep
    }

    /// What carries Raft's messages to other members.
    #[must_use]
    pub fn transport(&self) -> &dyn Transport {
        &*self.inner.network.transport
    }

    /// The way to other members' services.
    #[must_use]
    pub fn forward(&self) -> &dyn Forward {
        &*self.inner.network.forward
    }

    /// The counters.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.inner.counts
    }

    /// A response header with the store's `revision`.
    #[must_use]
    pub fn header(&self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.inner.identity.cluster,
            member_id: self.inner.identity.member.0,
            revision,
            raft_term: self.inner.asker.gauges().applied_term().0,
        }
    }

    /// Whether this member only listens.
    #[must_use]
    pub fn is_learner(&self) -> bool {
        self.inner.store.membership().get(self.inner.identity.member).is_some_and(|member| member.is_learner)
    }

    /// What etcd asks of every request's metadata.
    ///
    /// # Errors
    /// This member is a learner; or no leader although the client wants one, or a client version that is not text.
    pub fn check_metadata(&self, metadata: &MetadataMap) -> Result<(), Status> {
        if self.is_learner() {
            return Err(Refused::Learner.into());
        }
        self.check_metadata_at_any(metadata)
    }

    /// The same for what a learner does, too: its own state, and reads of it.
    ///
    /// # Errors
    /// As [`Self::check_metadata`], but for the learner.
    pub fn check_metadata_at_any(&self, metadata: &MetadataMap) -> Result<(), Status> {
        if let Some(version) = metadata.get("client-api-version")
            && std::str::from_utf8(version.as_bytes()).is_err()
        {
            return Err(Refused::ClientApiVersion.into());
        }
        if self.wants_leader(metadata) && self.inner.asker.gauges().leader().is_none() {
            return Err(Refused::NoLeader.into());
        }
        Ok(())
    }

    /// Whether a client wants to be served only while there is a leader.
    #[must_use]
    pub fn wants_leader(&self, metadata: &MetadataMap) -> bool {
        metadata.get("hasleader").is_some_and(|value| value.as_bytes() == b"true")
    }

    /// Takes `message` through the log, as the request of `field`, and waits until it is applied here.
    ///
    /// # Errors
    /// etcd's status for a request that is too large, refused, late or rejected.
    pub async fn propose(&self, field: Field, message: &impl prost::Message) -> Result<Answer, Status> {
        let began = Instant::now();
        let answered = self.propose_in_time(field, message).await;
        self.inner.counts.requests[Op::from(field) as usize].observe(answered.is_ok(), began.elapsed());
        answered
    }

    async fn propose_in_time(&self, field: Field, message: &impl prost::Message) -> Result<Answer, Status> {
        let ticket = self.inner.asker.ticket();
        let payload = entry::encode(ticket, field, message);
        if payload.len() > self.inner.limits.request_bytes_max {
            return Err(Refused::TooLarge.into());
        }
        let leaderless = AtomicBool::new(false);
        self.wait_for_answer(self.propose_to_leader(ticket, payload, &leaderless), &leaderless).await
    }

    /// Takes a membership change through the log and waits until it is applied here.
    ///
    /// # Errors
    /// etcd's status for a proposal that is late or refused.
    pub async fn propose_change(&self, encode: impl FnOnce(Ticket) -> Bytes) -> Result<Answer, Status> {
        let ticket = self.inner.asker.ticket();
        let payload = encode(ticket);
        let leaderless = AtomicBool::new(false);
        let proposing = async {
            loop {
                leaderless.store(self.inner.asker.gauges().leader().is_none(), Ordering::Relaxed);
                match self.inner.asker.propose_change(ticket, payload.clone()).await {
                    // Nothing was appended; the change before it will be over soon.
                    Err(Unanswered::Refused(why @ (Refusal::NoLeader | Refusal::ChangePending))) => {
                        leaderless.store(why == Refusal::NoLeader, Ordering::Relaxed);
                        tokio::time::sleep(LEADER_POLL).await;
                    }
                    answered => return answered,
                }
            }
        };
        self.wait_for_answer(proposing, &leaderless).await
    }

    async fn wait_for_answer(
        &self,
        proposing: impl Future<Output = Result<Answer, Unanswered>>,
        leaderless: &AtomicBool,
    ) -> Result<Answer, Status> {
        let counts = &self.inner.counts;
        counts.proposals_pending.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        let waited = tokio::time::timeout(self.inner.limits.timeout, proposing).await;
        counts.proposals_pending.fetch_sub(1, Ordering::Relaxed);
        let answer = match waited {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => Err(status::status(status::unanswered(why))),
            // A request that finds no leader is never proposed and keeps the bare text; one that was proposed, to a leader that is lost by now, gets etcd's.
            Err(_) if leaderless.load(Ordering::Relaxed) => Err(Refused::DeadlineExceeded.into()),
            Err(_) => Err(self.why_late(began).into()),
        };
        answer.inspect_err(|_| {
            counts.proposals_failed.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Why a proposal that began then has no answer yet, as far as this member can tell.
    fn why_late(&self, began: Instant) -> Refused {
        let Inner { asker, store, limits, identity, network, .. } = &*self.inner;
        if asker.gauges().elected_at().is_some_and(|at| at < began + limits.leader_loss && began < at) {
            return Refused::TimeoutLeaderFailed;
        }
        let own = identity.member;
        let is_connected = |id| network.transport.active_since(id).is_some_and(|since| since < began);
        let is_lost = match asker.gauges().leader() {
            None => false,
            Some(leader) if leader == own => {
                let membership = store.membership();
                let connected = membership.iter().filter(|member| member.id == own || is_connected(member.id)).count();
                connected < membership.iter().len() / 2 + 1
            }
            Some(leader) => !is_connected(leader),
        };
        if is_lost { Refused::TimeoutConnectionLost } else { Refused::Timeout }
    }

    /// Proposes once there is a leader, and says meanwhile whether there is none.
    async fn propose_to_leader(
        &self,
        ticket: Ticket,
        payload: Bytes,
        leaderless: &AtomicBool,
    ) -> Result<Answer, Unanswered> {
        loop {
            leaderless.store(self.inner.asker.gauges().leader().is_none(), Ordering::Relaxed);
            match self.inner.asker.propose(ticket, payload.clone(), None).await {
                Err(Unanswered::Refused(Refusal::NoLeader)) => {
                    leaderless.store(true, Ordering::Relaxed);
                    tokio::time::sleep(LEADER_POLL).await;
                }
                answered => return answered,
            }
        }
    }

    /// Waits until the store here has everything that was committed when this was called.
    ///
    /// # Errors
    /// No leader within the request timeout, or it changed meanwhile.
    pub async fn read_barrier(&self) -> Result<(), Status> {
        let asking = async {
            loop {
                match self.inner.asker.read_barrier().await {
                    Err(Unanswered::Refused(Refusal::NoLeader)) => tokio::time::sleep(LEADER_POLL).await,
                    answered => return answered,
                }
            }
        };
        let result = match tokio::time::timeout(self.inner.limits.timeout, asking).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(status::status(status::unanswered(why))),
            Err(_) => {
                self.asker().gauges().counted().slow_reads.fetch_add(1, Ordering::Relaxed);
                return Err(Refused::Timeout.into());
            }
        };
        result.inspect_err(|_| {
            self.inner.counts.reads_failed.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// A failure of the machine that a request met: the member stops, and the client is told that it is gone.
    pub fn fail(&self, fault: Fault) -> Status {
        // If the queue is full, another fault is already on its way.
        let _ = self.inner.faults.try_send(fault);
        Refused::Stopped.into()
    }
}

/// A response without metadata.
pub(crate) fn respond<T>(message: T) -> Result<Response<T>, Status> {
    Ok(Response::new(message))
}
