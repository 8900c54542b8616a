//! One run: clients over connections, at a pace, for a span.
//!
//! In a closed loop each client asks again as soon as it is answered, which finds the highest throughput. At a scheduled
//! pace the operations have start times of their own and a latency counts from there, so that a server which stops for
//! a second is charged for everybody who would have asked in that second (no coordinated omission).
//!
//! A request counts if its answer arrives inside the measured window. A run that a server did not survive, in which it
//! refused more than was allowed, or in which its replies did not answer the requests, ends with an error.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::client::{Answer, CallError, Caller};
use super::framing::Refusal;
use super::report::{Latency, Report};
use super::requests::{KEYS_MAX, Requests, Rpc, Shape, WrongReply};

/// Clients share this many histograms: few enough to stay in the cache, enough that threads seldom meet.
const SHARDS: usize = 4;
/// A run in which nothing is answered for this long is over.
pub(super) const STALL: Duration = Duration::from_secs(15);
const CLIENTS_MAX: usize = 100_000;
const VALUE_BYTES_MAX: usize = 1 << 20;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The client ports that connections take turns on; one server stands there three times.
    pub servers: [SocketAddr; 3],
    /// How many requests are under way at most; each client has one.
    pub clients: usize,
    /// The TCP connections that the clients are spread over.
    pub connections: usize,
    /// What is asked.
    pub shape: Shape,
    /// For how long.
    pub span: Span,
    /// How fast.
    pub pace: Pace,
    /// Error statuses to put up with before the run fails.
    pub refusals_allowed: u64,
}

/// For how long a run lasts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Span {
    /// For a time, the first part of which is not measured.
    Window {
        /// The part that is not measured.
        warm_up: Duration,
        /// The part that is.
        measured: Duration,
    },
    /// For a number of operations, all measured.
    Count(u64),
}

/// How fast the clients ask.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pace {
    /// As soon as they are answered.
    Closed,
    /// By a clock, all clients together.
    Scheduled {
        /// Operations that start per second.
        per_second: u64,
    },
}

/// The ends of the measured part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Edge {
    /// It begins now.
    Opened,
    /// It has just ended.
    Closed,
}

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The plan makes no sense.
    #[error("{0}")]
    Plan(&'static str),
    /// The server could not be spoken with, or no longer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The server answered something else than it was asked.
    #[error(transparent)]
    Wrong(#[from] WrongReply),
    /// The server refused more than was allowed.
    #[error("{count} requests were refused, the last with {refusal}")]
    Refused {
        /// How many by then.
        count: u64,
        /// One of them.
        refusal: Refusal,
    },
    /// Nothing was answered for a long time.
    #[error("no request was answered for {} seconds", STALL.as_secs())]
    Stalled,
    /// Nothing was answered in the measured window.
    #[error("no request was answered in the measured time")]
    NothingDone,
    /// The server does not have the method.
    #[error("not served: {0}")]
    NotServed(Refusal),
    /// A stream that should have gone on has ended.
    #[error("a stream ended: {0}")]
    Ended(String),
    /// Watchers were told of something else than what was written.
    #[error("{told} events for {written} that were due")]
    Events {
        /// What the watchers got.
        told: u64,
        /// What they should have got.
        written: u64,
    },
    /// No thread, or no runtime for it.
    #[error("a thread: {0}")]
    Thread(std::io::Error),
    /// A client's task ended by itself.
    #[error("a client stopped: {0}")]
    Client(#[from] JoinError),
}

/// Runs the plan. `on_edge` is called where the measured part begins and ends, to read other clocks.
pub async fn run(plan: &Plan, mut on_edge: impl FnMut(Edge)) -> Result<Report, LoadError> {
    plan.check()?;
    let callers = connect(plan).await?;
    let work = Arc::new(Work::new(plan));
    let mut clients = JoinSet::new();
    if let Span::Count(_) = plan.span {
        on_edge(Edge::Opened);
        work.enter(Phase::Measured);
    }
    let mut opened = Instant::now();
    for client in 0..plan.clients {
        let caller = callers[client % callers.len()].clone();
        clients.spawn(drive(caller, Arc::clone(&work), client % SHARDS));
    }

    if let Span::Window { warm_up, measured } = plan.span {
        pass(&mut clients, warm_up).await?;
        on_edge(Edge::Opened);
        opened = Instant::now();
        work.enter(Phase::Measured);
        pass(&mut clients, measured).await?;
        work.enter(Phase::Closed);
        let elapsed = opened.elapsed();
        on_edge(Edge::Closed);
        finish(&mut clients, &work).await?;
        return work.report(elapsed);
    }
    finish(&mut clients, &work).await?;
    let elapsed = opened.elapsed();
    on_edge(Edge::Closed);
    work.report(elapsed)
}

impl Plan {
    fn check(&self) -> Result<(), LoadError> {
        if !(1..=CLIENTS_MAX).contains(&self.clients) {
            return Err(LoadError::Plan("there must be at least one client and at most 100000"));
        }
        if !(1..=self.clients).contains(&self.connections) {
            return Err(LoadError::Plan("there must be at least one connection and at most one per client"));
        }
        if !(1..=KEYS_MAX).contains(&self.shape.keys) {
            return Err(LoadError::Plan("there must be at least one key and at most 10000000000"));
        }
        if VALUE_BYTES_MAX < self.shape.value_bytes {
            return Err(LoadError::Plan("values must not be longer than a mebibyte"));
        }
        if self.pace == (Pace::Scheduled { per_second: 0 }) {
            return Err(LoadError::Plan("a scheduled pace must be at least one operation per second"));
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    WarmUp,
    Measured,
    Closed,
}

/// What the clients of a run share.
struct Work {
    requests: Requests,
    pace: Pace,
    /// Operations have numbers from 0 to just below this.
    ops_max: u64,
    refusals_allowed: u64,
    /// The start time of operation 0 at a scheduled pace.
    epoch: Instant,
    op_next: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
    phase: AtomicU8,
    /// Wakes clients that wait for their turn when the window closes.
    closed: watch::Sender<bool>,
    latencies: [Mutex<[Latency; Rpc::ALL.len()]>; SHARDS],
}

impl Work {
    fn new(plan: &Plan) -> Self {
        Self {
            requests: Requests::new(plan.shape),
            pace: plan.pace,
            ops_max: match plan.span {
                Span::Window { .. } => u64::MAX,
                Span::Count(ops) => ops,
            },
            refusals_allowed: plan.refusals_allowed,
            epoch: Instant::now(),
            op_next: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::WarmUp as u8),
            closed: watch::Sender::new(false),
            latencies: Default::default(),
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
        self.closed.send_replace(phase == Phase::Closed);
    }

    fn is_in(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Acquire) == phase as u8
    }

    /// The next operation's number, until there is none.
    fn take_op(&self) -> Option<u64> {
        if self.is_in(Phase::Closed) {
            return None;
        }
        let op = self.op_next.fetch_add(1, Ordering::Relaxed);
        (op < self.ops_max).then_some(op)
    }

    /// Waits for the operation's turn and tells from when its latency counts: from its scheduled start if its client
    /// was still busy then, which is the server's doing; from now if only the timer was late. Nothing if the window
    /// closed meanwhile.
    async fn start(&self, op: u64, closed: &mut watch::Receiver<bool>) -> Option<Instant> {
        let Pace::Scheduled { per_second } = self.pace else { return Some(Instant::now()) };
        let after = u128::from(op) * 1_000_000_000 / u128::from(per_second);
        let due = self.epoch + Duration::from_nanos(u64::try_from(after).ok()?);
        if due <= Instant::now() {
            return Some(due);
        }
        tokio::select! {
            () = sleep_until(due) => Some(Instant::now()),
            () = until_closed(closed) => None,
        }
    }

    fn on_message(&self, shard: usize, rpc: Rpc, latency: Duration) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        if self.is_in(Phase::Measured) {
            self.latencies[shard].lock().expect("recording does not panic")[rpc as usize].record(latency);
        }
    }

    fn on_refused(&self, refusal: Refusal) -> Result<(), LoadError> {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let count = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if self.refusals_allowed < count { Err(LoadError::Refused { count, refusal }) } else { Ok(()) }
    }

    fn report(&self, elapsed: Duration) -> Result<Report, LoadError> {
        let mut by_rpc = <[Latency; Rpc::ALL.len()]>::default();
        for shard in &self.latencies {
            let shard = shard.lock().expect("recording does not panic");
            by_rpc.iter_mut().zip(shard.iter()).for_each(|(whole, part)| whole.merge(part));
        }
        let (answered, refused) = (self.answered.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed));
        let report = Report::new(elapsed, by_rpc, answered, refused);
        if report.requests() == 0 { Err(LoadError::NothingDone) } else { Ok(report) }
    }
}

/// Opens the connections, one after the other.
async fn connect(plan: &Plan) -> Result<Vec<Caller>, CallError> {
    let mut callers = Vec::with_capacity(plan.connections);
    for server in plan.servers.into_iter().cycle().take(plan.connections) {
        callers.push(Caller::connect(server).await?);
    }
    Ok(callers)
}

/// One client: the next operation, its answer, and again. The first answer to each method is looked into.
async fn drive(mut caller: Caller, work: Arc<Work>, shard: usize) -> Result<(), LoadError> {
    let mut closed = work.closed.subscribe();
    let mut verified: Vec<Rpc> = Vec::new();
    while let Some(op) = work.take_op() {
        let Some(started) = work.start(op, &mut closed).await else { break };
        let request = work.requests.draw(op);
        let rpc = request.rpc;
        let answer = caller.call(request).await?;
        let latency = started.elapsed();
        match answer {
            Answer::Refused(refusal) => work.on_refused(refusal)?,
            Answer::Message(message) => {
                work.on_message(shard, rpc, latency);
                if !verified.contains(&rpc) {
                    work.requests.verify(rpc, message)?;
                    verified.push(rpc);
                }
            }
        }
    }
    Ok(())
}

async fn until_closed(closed: &mut watch::Receiver<bool>) {
    while !*closed.borrow_and_update() {
        // The sender lives as long as the work that the waiting client holds.
        closed.changed().await.expect("the run is not over while a client takes part in it");
    }
}

type Clients = JoinSet<Result<(), LoadError>>;

/// Lets time pass while the clients work. Ends early with the first failure.
async fn pass(clients: &mut Clients, time: Duration) -> Result<(), LoadError> {
    tokio::select! {
        () = sleep(time) => Ok(()),
        ended = all_ended(clients) => {
            ended?;
            Err(LoadError::NothingDone)
        }
    }
}

/// Waits for the clients as long as some of them are still answered.
async fn finish(clients: &mut Clients, work: &Work) -> Result<(), LoadError> {
    let mut ended = pin!(all_ended(clients));
    loop {
        let answered = work.answered.load(Ordering::Relaxed);
        if let Ok(ended) = timeout(STALL, ended.as_mut()).await {
            return ended;
        }
        if answered == work.answered.load(Ordering::Relaxed) {
            return Err(LoadError::Stalled);
        }
    }
}

async fn all_ended(clients: &mut Clients) -> Result<(), LoadError> {
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::requests::{KeyOrder, Workload};
    use super::*;

    fn plan() -> Plan {
        Plan {
            servers: [SocketAddr::from(([127, 0, 0, 1], 1)); 3],
            clients: 10,
            connections: 2,
            shape: Shape {
                workload: Workload::Put,
                key_order: KeyOrder::Sequential,
                keys: 10,
                value_bytes: 256,
                seed: 1,
            },
            span: Span::Count(100),
            pace: Pace::Closed,
            refusals_allowed: 0,
        }
    }

    #[test]
    fn a_plan_without_sense_is_refused_before_anything_is_opened() {
        assert!(plan().check().is_ok());
        let shape = plan().shape;
        for senseless in [
            Plan { clients: 0, ..plan() },
            Plan { connections: 0, ..plan() },
            Plan { connections: 11, ..plan() },
            Plan { shape: Shape { keys: 0, ..shape }, ..plan() },
            Plan { shape: Shape { value_bytes: VALUE_BYTES_MAX + 1, ..shape }, ..plan() },
            Plan { pace: Pace::Scheduled { per_second: 0 }, ..plan() },
        ] {
            assert!(matches!(senseless.check(), Err(LoadError::Plan(_))), "{senseless:?}");
        }
    }

    #[tokio::test]
    async fn a_late_operation_counts_from_its_scheduled_start() {
        let work = Work::new(&Plan { pace: Pace::Scheduled { per_second: 1_000_000_000 }, ..plan() });
        sleep(Duration::from_millis(1)).await;
        let mut closed = work.closed.subscribe();
        let started = work.start(500_000, &mut closed).await;
        assert_eq!(started, Some(work.epoch + Duration::from_nanos(500_000)));
    }

    #[tokio::test]
    async fn a_client_that_waits_for_its_turn_stops_when_the_window_closes() {
        let work = Work::new(&Plan { pace: Pace::Scheduled { per_second: 1 }, ..plan() });
        let mut closed = work.closed.subscribe();
        work.enter(Phase::Closed);
        assert_eq!(work.start(1_000_000, &mut closed).await, None);
        assert_eq!(work.take_op(), None);
    }

    #[test]
    fn a_fixed_count_ends_after_so_many_operations() {
        let work = Work::new(&Plan { span: Span::Count(3), ..plan() });
        let taken: Vec<u64> = std::iter::from_fn(|| work.take_op()).collect();
        assert_eq!(taken, [0, 1, 2]);
    }

    #[test]
    fn only_what_is_answered_in_the_window_is_measured() {
        let work = Work::new(&plan());
        work.on_message(0, Rpc::Put, Duration::from_millis(1));
        assert!(matches!(work.report(Duration::from_secs(1)), Err(LoadError::NothingDone)));
        work.enter(Phase::Measured);
        work.on_message(1, Rpc::Put, Duration::from_millis(1));
        work.on_message(3, Rpc::Range, Duration::from_millis(1));
        work.enter(Phase::Closed);
        work.on_message(1, Rpc::Put, Duration::from_millis(1));
        let report = work.report(Duration::from_secs(1)).expect("two were answered");
        assert_eq!((report.requests(), report.answered), (2, 4));
        assert_eq!(Rpc::ALL.map(|rpc| report.of(rpc).requests()), [1, 1, 0]);
    }

    #[test]
    fn refusals_beyond_the_allowed_fail_the_run() {
        let work = Work::new(&Plan { refusals_allowed: 1, ..plan() });
        let refusal = Refusal { code: 8, message: "too many requests".to_owned() };
        assert!(work.on_refused(refusal.clone()).is_ok());
        assert!(matches!(work.on_refused(refusal), Err(LoadError::Refused { count: 2, .. })));
    }
}
