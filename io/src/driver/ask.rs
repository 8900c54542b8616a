//! What callers say to the driver, and what they get back.
//!
//! An [`Asker`] is a cheap clone in every service. It never waits for room: a full queue is an answer.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use detcd_core::ids::{Index, MemberId, Term, Ticket};
use detcd_core::raft::{EntryKind, Raft, Refusal};
use detcd_core::reply::{Rejected, Reply};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::clock::Instant;
use crate::store::compaction::Pin;

/// A request to the driver, with the way back to its caller.
#[derive(Debug)]
pub enum Ask {
    /// Put `payload` into the log; answer when it has been applied here.
    Propose {
        /// The id in the payload's own header.
        ticket: Ticket,
        /// Who it is for.
        kind: EntryKind,
        /// An encoded internal request, or membership change.
        payload: Bytes,
        /// Only if this member leads in this very term, and never forwarded.
        only_in: Option<Term>,
        /// The way back.
        answer: oneshot::Sender<Result<Answer, Unanswered>>,
    },
    /// Commit what is applied to the store at once, and tell when it is durable there.
    Flush {
        /// The way back.
        answer: oneshot::Sender<()>,
    },
    /// Make this member the leader, if it can be done. What came of it shows in the gauges.
    Transfer {
        /// The member.
        to: MemberId,
    },
    /// Tell how much of the log a member has, as its leader sees it.
    Progress {
        /// The member.
        of: MemberId,
        /// The way back; `None` if this member does not lead.
        answer: oneshot::Sender<Option<Progress>>,
    },
    /// Tell when everything that was committed at this moment is applied here (Raft thesis, section 6.4).
    Read {
        /// The way back.
        answer: oneshot::Sender<Result<(), Unanswered>>,
    },
}

/// How far a member's log has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// What the leader has on its disk.
    pub own: Index,
    /// What the member is known to have; `None` if it is no member.
    pub matched: Option<Index>,
}

/// What an applied command came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The reply, or why every member refused it alike.
    pub reply: Result<Reply, Rejected>,
    /// The store's revision after the command.
    pub revision: i64,
    /// The term of the command's entry.
    pub term: Term,
    /// Keeps the rows that the reply names, if it names any.
    pub pin: Option<Pin>,
}

/// Why there is no answer from the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unanswered {
    /// The queue is full, or too much is committed and not applied.
    TooManyRequests,
    /// The disk has no room for more of the log or the store.
    NoSpace,
    /// Raft refused.
    Refused(Refusal),
    /// The leader changed under a read.
    LeaderChanged,
    /// The member is stopping.
    Stopped,
}

/// Facts about the member that anybody may read at any time, each on its own.
#[derive(Debug, Default)]
pub struct Gauges {
    term: AtomicU64,
    leader: AtomicU64,
    vote: AtomicU64,
    state: AtomicU8,
    last: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    applied_term: AtomicU64,
    leading: Leading,
    no_room: AtomicBool,
    counted: Counted,
}

/// What the driver counts, since start where nothing else is said.
#[derive(Debug, Default)]
pub struct Counted {
    /// Leaders seen.
    pub leader_changes: AtomicU64,
    /// Proposals handed to Raft.
    pub proposals: AtomicU64,
    /// Heartbeats to a member that this leader sent later than two intervals after the one before.
    pub late_heartbeats: AtomicU64,
    /// Answers to questions of readers that had been given up.
    pub slow_reads: AtomicU64,
    /// Stores of a leader that are being taken over now.
    pub installing: AtomicU64,
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Leadership of this member.
#[derive(Debug, Default)]
struct Leading {
    /// The term in which it leads; zero if it does not.
    term: AtomicU64,
    /// When it was elected last.
    since: Mutex<Option<Instant>>,
    changed: Notify,
}

/// etcd's names for the roles, follower first.
const STATES: [(&str, &str); 4] = [
    ("follower", "StateFollower"),
    ("pre-candidate", "StatePreCandidate"),
    ("candidate", "StateCandidate"),
    ("leader", "StateLeader"),
];

impl Gauges {
    /// The current Raft term.
    pub fn term(&self) -> Term {
        Term(self.term.load(Ordering::Relaxed))
    }
    /// The leader, if one is known.
    pub fn leader(&self) -> Option<MemberId> {
        Some(MemberId(self.leader.load(Ordering::Relaxed))).filter(|id| id.0 != 0)
    }
    /// Whether this member leads.
    pub fn leads(&self) -> bool {
        self.leading().is_some()
    }
    /// The term in which this member leads.
    pub fn leading(&self) -> Option<Term> {
        Some(Term(self.leading.term.load(Ordering::Acquire))).filter(|term| term.0 != 0)
    }
    /// Waits until [`Self::leading`] changes, or did since somebody waited last. One may wait.
    pub(crate) async fn leading_changed(&self) {
        self.leading.changed.notified().await;
    }
    /// When this member was elected last.
    pub fn elected_at(&self) -> Option<Instant> {
        *self.leading.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Whom the member has voted for in the current term.
    pub fn vote(&self) -> Option<MemberId> {
        Some(MemberId(self.vote.load(Ordering::Relaxed))).filter(|id| id.0 != 0)
    }
    /// What the member is in Raft, in etcd's words.
    pub fn state(&self) -> &'static str {
        STATES[usize::from(self.state.load(Ordering::Relaxed))].1
    }
    /// The newest entry of the log.
    pub fn last(&self) -> Index {
        Index(self.last.load(Ordering::Relaxed))
    }
    /// The commit index.
    pub fn committed(&self) -> Index {
        Index(self.committed.load(Ordering::Relaxed))
    }
    /// The newest applied index.
    pub fn applied(&self) -> Index {
        Index(self.applied.load(Ordering::Relaxed))
    }
    /// The term of the newest applied entry: the `raft_term` of response headers.
    pub fn applied_term(&self) -> Term {
        Term(self.applied_term.load(Ordering::Relaxed))
    }
    /// Whether the disk is too full for proposals.
    pub fn no_room(&self) -> bool {
        self.no_room.load(Ordering::Relaxed)
    }
    /// What is counted.
    pub const fn counted(&self) -> &Counted {
        &self.counted
    }

    pub(super) fn tell_raft(&self, raft: &Raft) {
        let (term, number) = (raft.term().0, |id: Option<MemberId>| id.map_or(0, |id| id.0));
        self.term.store(term, Ordering::Relaxed);
        self.leader.store(number(raft.leader()), Ordering::Relaxed);
        let leading = if raft.is_leader() { term } else { 0 };
        if self.leading.term.swap(leading, Ordering::AcqRel) != leading {
            if leading != 0 {
                *self.leading.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
            self.leading.changed.notify_one();
        }
        self.vote.store(number(raft.hard_state().vote), Ordering::Relaxed);
        let state = STATES.iter().zip(0..).find(|((name, _), _)| *name == raft.role().name());
        let (_, state) = state.expect("every role has a name");
        self.state.store(state, Ordering::Relaxed);
        self.last.store(raft.last().index.0, Ordering::Relaxed);
        self.committed.store(raft.commit().0, Ordering::Relaxed);
    }
    /// As if it had been elected.
    #[cfg(test)]
    pub(crate) fn elect(&self, term: Term) {
        self.leading.term.store(term.0, Ordering::Release);
        self.leading.changed.notify_one();
    }
    pub(super) fn tell_applied(&self, index: Index, term: Term) {
        self.applied.store(index.0, Ordering::Relaxed);
        self.applied_term.store(term.0, Ordering::Relaxed);
    }
    pub(super) fn tell_room(&self, no_room: bool) {
        self.no_room.store(no_room, Ordering::Relaxed);
    }
}

/// The services' end of the driver's queue.
#[derive(Clone, Debug)]
pub struct Asker {
    asks: mpsc::Sender<Ask>,
    urgent: mpsc::Sender<Ask>,
    gauges: Arc<Gauges>,
    tickets: Arc<Tickets>,
}

impl Asker {
    pub(crate) fn new(
        asks: mpsc::Sender<Ask>,
        urgent: mpsc::Sender<Ask>,
        gauges: Arc<Gauges>,
        tickets: Tickets,
    ) -> Self {
        Self { asks, urgent, gauges, tickets: Arc::new(tickets) }
    }

    /// A fresh request id.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.tickets.next()
    }

    /// What is known of the member.
    #[must_use]
    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// The same, to be kept.
    #[must_use]
    pub fn shared_gauges(&self) -> Arc<Gauges> {
        Arc::clone(&self.gauges)
    }

    /// Proposes `payload`, whose header carries `ticket`, and waits until it has been applied here.
    ///
    /// # Errors
    /// [`Unanswered`]; the request may still be carried out later, except after `TooManyRequests` and `NoSpace`.
    pub async fn propose(&self, ticket: Ticket, payload: Bytes, only_in: Option<Term>) -> Result<Answer, Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.ask(Ask::Propose { ticket, kind: EntryKind::Normal, payload, only_in, answer })?;
        answered.await.unwrap_or(Err(Unanswered::Stopped))
    }

    /// Proposes a membership change, whose id is `ticket`, and waits until it has been applied here.
    ///
    /// # Errors
    /// [`Unanswered`]; the change may still be carried out later.
    pub async fn propose_change(&self, ticket: Ticket, payload: Bytes) -> Result<Answer, Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.ask(Ask::Propose { ticket, kind: EntryKind::ConfChange, payload, only_in: None, answer })?;
        answered.await.unwrap_or(Err(Unanswered::Stopped))
    }

    /// How much of the log a member has; `None` if this member does not lead.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn progress(&self, of: MemberId) -> Result<Option<Progress>, Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.ask(Ask::Progress { of, answer })?;
        answered.await.map_err(|_| Unanswered::Stopped)
    }

    /// Asks for another leader.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub fn transfer(&self, to: MemberId) -> Result<(), Unanswered> {
        self.ask(Ask::Transfer { to })
    }

    /// Waits until the store here has everything that was committed when this was called.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn read_barrier(&self) -> Result<(), Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.ask(Ask::Read { answer })?;
        answered.await.unwrap_or(Err(Unanswered::Stopped))
    }

    /// Waits until everything that is applied is durable in the store.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn flush(&self) -> Result<(), Unanswered> {
        let (answer, answered) = oneshot::channel();
        // This one waits for room: it is the member's own housekeeping, and few ask for it.
        self.asks.send(Ask::Flush { answer }).await.map_err(|_| Unanswered::Stopped)?;
        answered.await.map_err(|_| Unanswered::Stopped)
    }

    /// Waits until the driver is gone.
    pub async fn stopped(&self) {
        self.asks.closed().await;
    }

    /// As [`Self::propose`], past everything that waits; for leases alone. Waits for room.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn propose_urgently(
        &self,
        ticket: Ticket,
        payload: Bytes,
        only_in: Option<Term>,
    ) -> Result<Answer, Unanswered> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask::Propose { ticket, kind: EntryKind::Normal, payload, only_in, answer };
        self.urgent.send(ask).await.map_err(|_| Unanswered::Stopped)?;
        answered.await.unwrap_or(Err(Unanswered::Stopped))
    }

    /// As [`Self::read_barrier`], past everything that waits; for leases alone. Waits for room.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn read_barrier_urgently(&self) -> Result<(), Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.urgent.send(Ask::Read { answer }).await.map_err(|_| Unanswered::Stopped)?;
        answered.await.unwrap_or(Err(Unanswered::Stopped))
    }

    /// Hands in a request past everything that waits, for one who looks for the answer later. Says whether there was room.
    pub(crate) fn try_urgently(&self, ask: Ask) -> bool {
        self.urgent.try_send(ask).is_ok()
    }

    /// Whether the driver is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.asks.is_closed()
    }

    /// Waits until the driver is gone.
    pub(crate) async fn closed(&self) {
        self.asks.closed().await;
    }

    fn ask(&self, ask: Ask) -> Result<(), Unanswered> {
        self.asks.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unanswered::TooManyRequests,
            mpsc::error::TrySendError::Closed(_) => Unanswered::Stopped,
        })
    }
}

/// etcd's request ids: two bytes of the member's id, then a counter that starts at the wall clock, so that ids of one member
/// do not repeat across restarts.
#[derive(Debug)]
pub struct Tickets {
    prefix: u64,
    counter: AtomicU64,
}

const COUNTER_BITS: u32 = 48;
const COUNTER_MASK: u64 = (1 << COUNTER_BITS) - 1;

impl Tickets {
    /// Ids for `member`, seeded by the milliseconds of the wall clock at start.
    #[must_use]
    pub fn new(member: MemberId, wall_millis: u64) -> Self {
        let seed = (wall_millis & ((1 << 40) - 1)) << 8;
        Self { prefix: (member.0 & 0xffff) << COUNTER_BITS, counter: AtomicU64::new(seed) }
    }

    /// Whether an id is one of these.
    #[cfg(mutants)]
    pub(crate) const fn is_own(&self, ticket: Ticket) -> bool {
        ticket.0 & !COUNTER_MASK == self.prefix
    }

    /// The next id.
    pub fn next(&self) -> Ticket {
        let count = self.counter.fetch_add(1, Ordering::Relaxed) + 1;
        Ticket(self.prefix | (count & COUNTER_MASK))
    }
}
