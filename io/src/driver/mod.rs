//! The driver: one owner of the engine. It gathers what happened, steps, hands the effects on, applies what is committed; and again.
//!
//! It never waits for a file: writes go to the log writer and the committer, and come back as reports. It applies in bounded turns, so that a long apply
//! delays a heartbeat by no more than one turn. One wake serves everything that is ready.
//!
//! The way of a put through here: [`ask`] (queue) → [`detcd_core::raft`] → `Append` → the log writer → `Persisted` → `Apply` → [`crate::applier`] →
//! the caller's answer.

pub mod ask;
pub mod bounds;
mod callers;
mod durable;
mod peers;
mod probe;
mod snapshots;
mod timers;

use std::sync::Arc;
use std::time::Duration;

use detcd_core::ids::{Index, MemberId};
use detcd_core::raft::effect::Ignored;
use detcd_core::raft::role::Role;
use detcd_core::raft::{Effect, Effects, Input, Limits, Message, Raft, Refusal, gather};
use tokio::sync::{mpsc, oneshot};

use self::ask::{Ask, Asker, Gauges, Progress, Tickets, Unanswered, count};
use self::callers::Callers;
use self::durable::Durable;
pub use self::peers::Peers;
use self::probe::Onlooker;
pub use self::probe::Probe;
use self::timers::Timers;
use crate::applier::{Applier, Budget, Harvest};
use crate::clock::Instant;
use crate::committer::{Completion, Job};
use crate::entropy::Entropy;
use crate::fault::Fault;
use crate::installer::{self, Staged};
use crate::peer::Incoming;
use crate::shipper::Shipment;
use crate::store::Store;
use crate::store::backend::Backend;
use crate::store::overlay::OverlayMax;
use crate::wal;

/// How a driver behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This member.
    pub member: MemberId,
    /// The heartbeat interval: the engine's tick.
    pub tick: Duration,
    /// The longest that an applied change waits for its commit.
    pub batch_interval: Duration,
    /// Changes after which a batch is committed at once.
    pub batch_operations: usize,
    /// What may be applied and not yet durable.
    pub overlay_max: OverlayMax,
    /// What is applied between two looks at timers and messages.
    pub apply_turn: Budget,
    /// Applied entries between two log snapshots.
    pub snapshot_entries: u64,
    /// Entries kept in memory behind the applied index for slow members.
    pub catch_up_entries: u64,
    /// The base of the log at start: the newest mark.
    pub marked: Index,
    /// The seed of request ids.
    pub wall_millis: u64,
    /// The known bug that it carries, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    pub mutant: Option<crate::mutants::Mutant>,
}

/// The driver's ends of its queues to the log writer and the committer.
#[derive(Debug)]
pub struct Lines {
    /// To the log writer.
    pub log: mpsc::Sender<wal::Batch>,
    /// From the log writer.
    pub reports: mpsc::Receiver<wal::Report>,
    /// To the committer.
    pub jobs: mpsc::Sender<Job>,
    /// From the committer.
    pub completions: mpsc::Receiver<Completion>,
    /// To and from those who carry whole stores.
    pub carriers: CarrierLines,
}

/// The driver's ends of its queues to those who carry whole stores.
#[derive(Debug)]
pub struct CarrierLines {
    /// To the shipper: who needs a copy of the store.
    pub wanted: mpsc::Sender<MemberId>,
    /// To the installer.
    pub installs: mpsc::Sender<installer::Job>,
    /// From both.
    pub carried: mpsc::Receiver<Carried>,
}

/// What those who carry whole stores have ready.
#[derive(Debug)]
pub enum Carried {
    /// By the shipper, for another member.
    Shipment(Shipment),
    /// By the installer, from another member.
    Staged(Staged),
}

/// The owner of the engine.
pub struct Driver<B> {
    raft: Raft,
    effects: Effects,
    timers: Timers,
    queues: Queues,
    applier: Applier<B>,
    durable: Durable<B>,
    callers: Callers,
    harvest: Harvest,
    peers: Peers,
    turnover: Turnover,
    asker: Asker,
    onlooker: Onlooker,
}

/// Who asks.
struct Queues {
    asks: mpsc::Receiver<Ask>,
    urgent: mpsc::Receiver<Ask>,
    stop: oneshot::Receiver<()>,
}

/// What comes and goes with whole stores and members.
#[derive(Debug, Default)]
struct Turnover {
    /// The copy of the store that goes with the next snapshot's message.
    shipment: Option<Shipment>,
    /// Up to when entries are kept for a member that is being sent the store.
    shipping_until: Option<Instant>,
    /// When it ends because it was removed.
    removed_due: Option<Instant>,
    /// Whether the store that counts is another one now.
    is_installing: bool,
}

/// How a driver ended well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// The member was removed from its cluster, for good.
    Removed,
    /// A leader sent a store: the member has to start again, on that one.
    Installing,
}

/// What a wait ended with.
enum Wake {
    Asks,
    Arrived(Incoming),
    Carried(Carried),
    Urgent(Ask),
    Report(Option<wal::Report>),
    Completion(Option<Completion>),
    Sent,
    Time,
    Stop,
}

/// Everything the driver runs on.
pub struct Parts<B> {
    /// The engine, restored and not started.
    pub raft: Raft,
    /// The store that it applies to.
    pub store: Store<B>,
    /// Its queues.
    pub lines: Lines,
    /// Its line to other members.
    pub peers: Peers,
    /// Where delays are drawn.
    pub entropy: Entropy,
    /// How it behaves.
    pub settings: Settings,
    /// Told when the member shall end; dropping the other end says the same.
    pub stop: oneshot::Receiver<()>,
}

impl<B: Backend> Driver<B> {
    /// A driver and the services' end of its queue.
    #[must_use]
    pub fn new(parts: Parts<B>) -> (Self, Asker) {
        let Parts { raft, store, lines, peers, entropy, settings, stop } = parts;
        let (sender, asks) = mpsc::channel(bounds::ASKS_MAX);
        let (urgent_sender, urgent) = mpsc::channel(bounds::URGENT_ASKS_MAX);
        let gauges = Arc::new(Gauges::default());
        let tickets = Tickets::new(settings.member, settings.wall_millis);
        let asker = Asker::new(sender, urgent_sender, Arc::clone(&gauges), tickets);
        let applied = store.applied();
        gauges.tell_applied(applied.index, applied.term);
        #[cfg_attr(not(mutants), expect(unused_mut, reason = "changed in builds with mutants"))]
        let mut applier = Applier::new(store.clone());
        #[cfg(mutants)]
        {
            applier.mutant = settings.mutant.map(|mutant| (mutant, settings.member));
        }
        let driver = Self {
            raft,
            effects: Effects::new(),
            timers: Timers::new(settings.tick, entropy),
            queues: Queues { asks, urgent, stop },
            applier,
            durable: Durable::new(store, lines, settings),
            callers: Callers::default(),
            harvest: Harvest::default(),
            peers,
            turnover: Turnover::default(),
            asker: asker.clone(),
            onlooker: Onlooker::default(),
        };
        (driver, asker)
    }

    /// The same, looked at by `probe`.
    #[must_use]
    pub fn with_probe(self, probe: Arc<dyn Probe>) -> Self {
        Self { onlooker: Onlooker::new(probe), ..self }
    }

    /// Runs until it is told to stop, or until the machine fails.
    ///
    /// # Errors
    /// The machine failed: nothing more was promised to anybody, and the member must end.
    pub async fn run(mut self) -> Result<Ended, Fault> {
        self.peers.follow(&self.durable.store.membership());
        self.onlooker.on_step();
        self.raft.start(&mut self.effects);
        self.carry_out(Instant::now())?;
        loop {
            let mut urgent = None;
            match self.wait().await {
                Wake::Stop => return self.durable.finish().await.map(|()| Ended::Stopped),
                Wake::Asks | Wake::Time | Wake::Sent => {}
                Wake::Arrived(incoming) => self.on_arrived(incoming),
                Wake::Carried(Carried::Shipment(shipment)) => self.on_shipment(shipment)?,
                Wake::Carried(Carried::Staged(staged)) => self.on_staged(staged),
                Wake::Urgent(ask) => urgent = Some(ask),
                Wake::Report(report) => self.on_report(report)?,
                Wake::Completion(completion) => self.durable.on_completion(completion)?,
            }
            let mut now = Instant::now();
            if self.turnover.removed_due.is_some_and(|due| due <= now) {
                return self.durable.finish().await.map(|()| Ended::Removed);
            }
            self.take_arrivals();
            self.take_asks(urgent, now);
            self.take_reports()?;
            self.expire(now);
            self.carry_out(now)?;
            if self.apply()? {
                now = Instant::now();
            }
            // A question may just have been answered, and the next one is due.
            self.ask_for_reads();
            self.carry_out(now)?;
            self.durable.hand_on(&self.raft, now)?;
            self.tell();
            if self.turnover.is_installing {
                return Ok(Ended::Installing);
            }
        }
    }

    fn step(&mut self, input: Input) {
        self.onlooker.on_step();
        self.raft.step(input, &mut self.effects);
    }

    /// Waits for something to happen; does not wait while there is something to apply.
    async fn wait(&mut self) -> Wake {
        if !self.applier.is_idle() && self.durable.has_room_to_apply() {
            // Others, the log's report among them, get their turn between two turns of apply.
            tokio::task::yield_now().await;
            return Wake::Time;
        }
        let moments =
            [self.timers.nearest(), self.durable.deadline(), self.callers.reads_due(), self.turnover.removed_due];
        let deadline = moments.into_iter().flatten().min();
        let takes_asks = self.durable.takes_proposals();
        tokio::select! {
            biased;
            report = self.durable.lines.reports.recv() => Wake::Report(report),
            completion = self.durable.lines.completions.recv() => Wake::Completion(completion),
            _ = &mut self.queues.stop => Wake::Stop,
            ask = self.queues.urgent.recv() => ask.map_or(Wake::Stop, Wake::Urgent),
            incoming = self.peers.recv() => Wake::Arrived(incoming),
            Some(carried) = self.durable.lines.carriers.carried.recv() => Wake::Carried(carried),
            sent = send(&self.durable.lines.log, &mut self.durable.outgoing), if !takes_asks => sent,
            ask = self.queues.asks.recv(), if takes_asks => {
                match ask {
                    Some(ask) => { self.durable.first_ask = Some(ask); Wake::Asks }
                    None => Wake::Stop,
                }
            }
            () = self.timers.alarm.until(deadline) => Wake::Time,
        }
    }

    /// Takes in what other members said, up to a bound.
    fn take_arrivals(&mut self) {
        for _ in 0..bounds::ARRIVALS_PER_TURN {
            let Some(incoming) = self.peers.arrivals.try_recv() else { break };
            self.on_arrived(incoming);
        }
    }

    fn on_arrived(&mut self, incoming: Incoming) {
        let input = match incoming {
            Incoming::Message { from, message } => Input::Received { from, message },
            Incoming::Unreachable { member } => Input::Unreachable { member },
            Incoming::SnapshotSent { to, is_received } => Input::SnapshotSent { to, is_received },
            Incoming::Snapshot { from, message, path, answer } => {
                return self.on_snapshot_received(from, message, path, answer);
            }
            Incoming::Removed { by } => {
                if self.turnover.removed_due.is_none() {
                    tracing::warn!(%by, "another member says that this one was removed from the cluster; it stops");
                    self.turnover.removed_due = Some(Instant::now());
                }
                return;
            }
        };
        self.step(input);
    }

    /// Takes up what is waiting, up to a bound; what is urgent first, and even while the log writer lags.
    fn take_asks(&mut self, mut urgent: Option<Ask>, now: Instant) {
        for _ in 0..bounds::URGENT_ASKS_MAX {
            let Some(ask) = urgent.take().or_else(|| self.queues.urgent.try_recv().ok()) else { break };
            self.take(ask, bounds::UNAPPLIED_URGENT_MAX);
        }
        if self.durable.takes_proposals() {
            for _ in 0..bounds::ASKS_PER_TURN {
                let Some(ask) = self.durable.first_ask.take().or_else(|| self.queues.asks.try_recv().ok()) else {
                    break;
                };
                self.take(ask, bounds::UNAPPLIED_MAX);
            }
        }
        self.callers.give_up_overdue(now);
        self.ask_for_reads();
        if self.callers.proposals() > bounds::ASKS_MAX * 2 {
            self.callers.sweep();
        }
    }

    /// Asks where the readers that have gathered may read, unless a question is open.
    fn ask_for_reads(&mut self) {
        if self.callers.wants_to_ask() {
            let ticket = self.asker.ticket();
            self.callers.ask(ticket, Instant::now());
            self.step(Input::ReadAsked { ticket });
        }
    }

    fn take(&mut self, ask: Ask, unapplied_max: u64) {
        match ask {
            Ask::Propose { ticket, kind, payload, only_in, answer } => {
                if let Some(why) = self.refusal(unapplied_max) {
                    let _ = answer.send(Err(why));
                    return;
                }
                self.callers.add_proposal(ticket, answer);
                count(&self.asker.gauges().counted().proposals);
                self.step(Input::Proposed { ticket, kind, payload, only_in });
            }
            Ask::Read { answer } => self.callers.add_read(answer),
            Ask::Progress { of, answer } => drop(answer.send(self.progress(of))),
            Ask::Transfer { to } => self.step(Input::TransferAsked { to }),
            Ask::Flush { answer } => self.durable.flush(answer),
        }
    }

    fn progress(&self, of: MemberId) -> Option<Progress> {
        let Role::Leader(leader) = self.raft.role() else { return None };
        let own = self.raft.persisted();
        let matched = if of == self.raft.id() {
            self.raft.configuration().contains(of).then_some(own)
        } else {
            leader.members.get(&of).map(|progress| progress.matched)
        };
        Some(Progress { own, matched })
    }

    /// Why nothing may be proposed now.
    fn refusal(&self, unapplied_max: u64) -> Option<Unanswered> {
        if self.durable.is_full() {
            return Some(Unanswered::NoSpace);
        }
        let unapplied = self.raft.commit().distance_from(self.applier.applied());
        (unapplied > unapplied_max).then_some(Unanswered::TooManyRequests)
    }

    fn take_reports(&mut self) -> Result<(), Fault> {
        while let Ok(report) = self.durable.lines.reports.try_recv() {
            self.on_report(Some(report))?;
        }
        Ok(())
    }

    fn on_report(&mut self, report: Option<wal::Report>) -> Result<(), Fault> {
        if let Some(writes) = self.durable.on_report(report)? {
            self.step(Input::Persisted { writes });
        }
        Ok(())
    }

    fn expire(&mut self, now: Instant) {
        while let Some(timer) = self.timers.expire(now) {
            self.step(Input::Expired(timer));
        }
    }

    /// Carries out what the engine asked for, in its order.
    fn carry_out(&mut self, now: Instant) -> Result<(), Fault> {
        loop {
            self.onlooker.look(&self.raft);
            if self.effects.is_empty() {
                return Ok(());
            }
            self.carry_out_once(now)?;
        }
    }

    fn carry_out_once(&mut self, now: Instant) -> Result<(), Fault> {
        let mut effects = std::mem::take(&mut self.effects);
        #[cfg(mutants)]
        if self.durable.mutant() == Some(crate::mutants::Mutant::MessagesReversed) {
            crate::mutants::reverse_messages(&mut effects);
        }
        gather(&mut effects, Limits::DEFAULT.append_bytes_max);
        let mut lost = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Append(write) => self.durable.push(write),
                Effect::Arm { timer, within } => self.timers.arm(timer, within, now),
                Effect::Apply { entries } => self.applier.push(entries),
                Effect::ReadReady { ticket, index } => {
                    if !self.callers.read_at(ticket, index) {
                        count(&self.asker.gauges().counted().slow_reads);
                    }
                }
                Effect::Refused { ticket, why } => self.callers.refuse(ticket, unanswered(why)),
                Effect::LeaderChanged { term, leader } => {
                    self.timers.forget_heartbeats();
                    if leader.is_some() {
                        count(&self.asker.gauges().counted().leader_changes);
                    }
                    tracing::info!(term = term.0, leader = leader.map(|id| id.to_string()), "leader changed");
                }
                // To go on would be to vote and to acknowledge without what others count on: as etcd's, it ends.
                Effect::Ignored { from: Some(leader), why: Ignored::CommitBeyondLog } => {
                    return Err(Fault::LogLost { leader });
                }
                Effect::Ignored { from, why } => {
                    tracing::debug!(from = from.map(|id| id.to_string()), ?why, "ignored");
                }
                Effect::MakeSnapshot { to } => lost.extend(self.ask_for_copy(to)),
                Effect::Install { snapshot } => {
                    tracing::info!(index = snapshot.mark.index.0, "starting again on the store that a leader sent");
                    self.turnover.is_installing = true;
                }
                Effect::Send { to, message } if matches!(message, Message::Snapshot { .. }) => {
                    lost.extend(self.ship(to, message));
                }
                Effect::Send { to, message } => {
                    if matches!(message, Message::Heartbeat { .. }) {
                        self.watch_heartbeat(to, now);
                    }
                    self.peers.send(to, message);
                }
            }
        }
        self.effects = effects;
        for input in lost {
            self.step(input);
        }
        Ok(())
    }

    /// A leader that is late with its heartbeats will soon not be one.
    fn watch_heartbeat(&mut self, to: MemberId, now: Instant) {
        if let Some(late) = self.timers.late_by(to, now) {
            tracing::warn!(%to, ?late, "leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk");
            count(&self.asker.gauges().counted().late_heartbeats);
        }
    }

    /// One turn of apply, then the answers it made, then the reads it released. Tells whether there was something to apply.
    fn apply(&mut self) -> Result<bool, Fault> {
        let has_work = !self.applier.is_idle() && self.durable.has_room_to_apply();
        if has_work {
            self.applier.work(self.durable.apply_turn(), &mut self.harvest)?;
            self.follow_changes();
            let upto = self.applier.applied();
            if self.applier.is_idle() && self.raft.applied() < upto {
                self.step(Input::Applied { upto });
                self.trim(upto);
            }
            self.carry_out(Instant::now())?;
            let applied = self.durable.store.applied();
            self.asker.gauges().tell_applied(applied.index, applied.term);
            for (ticket, answer) in self.harvest.answers.drain(..) {
                self.callers.answer(ticket, answer);
            }
        }
        if self.durable.may_read() {
            self.callers.release(self.applier.applied());
        }
        Ok(has_work)
    }

    /// Tells the engine and the transport of membership changes that were carried out.
    fn follow_changes(&mut self) {
        if self.harvest.changes.is_empty() {
            return;
        }
        for (index, change) in std::mem::take(&mut self.harvest.changes) {
            self.step(Input::ConfigurationChanged { index, change });
        }
        let membership = self.durable.store.membership();
        self.peers.follow(&membership);
        if membership.is_removed(self.raft.id()) && self.turnover.removed_due.is_none() {
            tracing::warn!("this member was removed from the cluster and stops");
            self.turnover.removed_due = Some(Instant::now() + REMOVED_PAUSE);
        }
    }

    /// Lets the engine forget entries far behind, a good many at a time.
    fn trim(&mut self, applied: Index) {
        let mut kept = self.durable.catch_up_entries();
        if self.is_shipping() {
            kept = kept.max(bounds::SHIPPING_ENTRIES_MAX);
        }
        let upto = Index(applied.0.saturating_sub(kept));
        if self.durable.trimmed.plus(kept.clamp(1, bounds::TRIM_ENTRIES_MOST)) <= upto {
            self.durable.trimmed = upto;
            self.step(Input::Trimmed { upto });
        }
    }

    fn tell(&self) {
        self.asker.gauges().tell_raft(&self.raft);
        self.asker.gauges().tell_room(self.durable.is_full());
    }
}

/// How long a removed member goes on, so that those who wait for the removal hear of it.
const REMOVED_PAUSE: Duration = Duration::from_secs(1);

/// Waits for room in the log writer's queue and sends what gathered.
async fn send(log: &mpsc::Sender<wal::Batch>, outgoing: &mut wal::Batch) -> Wake {
    // A closed queue shows as a missing report next.
    if let Ok(permit) = log.reserve().await {
        permit.send(std::mem::take(outgoing));
    }
    Wake::Sent
}

const fn unanswered(why: Refusal) -> Unanswered {
    match why {
        Refusal::LeaderChanged => Unanswered::LeaderChanged,
        Refusal::TooMany => Unanswered::TooManyRequests,
        why => Unanswered::Refused(why),
    }
}
