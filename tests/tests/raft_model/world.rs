//! A cluster as one state, and everything that may happen to it as actions.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use detcd_core::ids::{MemberId, Ticket};
use detcd_core::raft::progress::Flow;
use detcd_core::raft::role::Role;
use detcd_core::raft::{Config, Effect, EntryKind, Input, Message, Raft, Restored, Sync, Timer};
use detcd_tests::disk::Disk;
use stateright::{Model, Property};

use super::promise::{History, Promise};

/// Every promise is kept.
pub(crate) const KEPT: &str = "every promise is kept";
/// Two terms had leaders.
pub(crate) const LATER_LEADER: &str = "a later leader";
/// Something a client wrote is committed.
pub(crate) const CLIENT_ENTRY: &str = "a client's entry is committed";

/// How often each thing may happen. What has no bound here is bounded by what causes it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) elections: u8,
    pub(crate) proposals: u8,
    pub(crate) crashes: u8,
    pub(crate) beats: u8,
    pub(crate) repeats: u8,
    pub(crate) reads: u8,
    pub(crate) doubts: u8,
}

/// Where a model begins and how far it goes.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) disks: Vec<Restored>,
    pub(crate) bounds: Bounds,
    /// Member 1 leads, and all is quiet, before the first state.
    pub(crate) prelude: Prelude,
    pub(crate) scope: Scope,
}

/// What happened before the first state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Prelude {
    /// Everyone has just started.
    Started,
    /// Member 1 has been elected and its first entry is committed everywhere.
    Led,
}

/// Which messages are not always lost.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Scope {
    /// All.
    All,
    /// Those about votes.
    Votes,
    /// All but appends without entries, which only hurry things.
    Substance,
}

/// A message under way.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Packet {
    from: MemberId,
    to: MemberId,
    message: Message,
}

/// One member.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Member {
    pub(crate) raft: Raft,
    pub(crate) disk: Disk,
}

/// One state.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct World {
    members: Vec<Arc<Member>>,
    wire: BTreeSet<Arc<Packet>>,
    left: Bounds,
    pub(crate) history: Arc<History>,
    pub(crate) broken: Option<Promise>,
    scope: Scope,
}

/// One thing that happens.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Action {
    /// A message arrives.
    Deliver(Arc<Packet>),
    /// A message arrives and will arrive again.
    Repeat(Arc<Packet>),
    /// The oldest write of a member reaches its disk.
    Persist(usize),
    /// Power cut; so many writes under way survive. Then a restart.
    Crash(usize, usize),
    /// A member's patience ends.
    Elect(usize),
    /// A leader's heartbeat is due.
    Beat(usize),
    /// A leader looks for its quorum.
    Doubt(usize),
    /// A client proposes to a leader.
    Propose(usize),
    /// A client reads from a leader.
    Read(usize),
}

impl Cluster {
    pub(crate) fn only_votes(self) -> Self {
        Self { scope: Scope::Votes, ..self }
    }

    pub(crate) fn without_hurry(self) -> Self {
        Self { scope: Scope::Substance, ..self }
    }

    pub(crate) fn with_pre_vote(mut self) -> Self {
        self.config.pre_vote = true;
        self
    }
}

impl Model for Cluster {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut world = World {
            members: Vec::new(),
            wire: BTreeSet::new(),
            left: self.bounds,
            history: Arc::default(),
            broken: None,
            scope: self.scope,
        };
        for (at, restored) in self.disks.iter().enumerate() {
            let config = Config { id: id_of(at), ..self.config.clone() };
            let disk = Disk::new(restored);
            let raft = Raft::restore(config, restored.clone()).unwrap();
            world.members.push(Arc::new(Member { raft, disk }));
        }
        for at in 0..self.disks.len() {
            world.start(at);
        }
        if self.prelude == Prelude::Led {
            world.lead(0);
        }
        world.forget_the_past();
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_some() {
            return;
        }
        for packet in &world.wire {
            actions.push(Action::Deliver(packet.clone()));
            if 0 < world.left.repeats {
                actions.push(Action::Repeat(packet.clone()));
            }
        }
        for at in 0..world.members.len() {
            world.actions_of(at, actions);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Deliver(packet) => {
                world.wire.remove(&packet);
                world.deliver(&packet);
            }
            Action::Repeat(packet) => {
                world.left.repeats -= 1;
                world.deliver(&packet);
            }
            Action::Persist(at) => {
                Arc::make_mut(&mut world.members[at]).disk.sync(1);
                world.step(at, Input::Persisted { writes: 1 });
            }
            Action::Crash(at, survive) => {
                world.left.crashes -= 1;
                world.crash(self, at, survive);
            }
            Action::Elect(at) => {
                world.left.elections -= 1;
                world.step(at, Input::Expired(Timer::Election));
            }
            Action::Beat(at) => {
                world.left.beats -= 1;
                world.step(at, Input::Expired(Timer::Heartbeat));
            }
            Action::Doubt(at) => {
                world.left.doubts -= 1;
                world.step(at, Input::Expired(Timer::LeaderAlive));
            }
            Action::Propose(at) => {
                let payload = Bytes::from(vec![world.left.proposals]);
                world.left.proposals -= 1;
                world.step(at, Input::Proposed { ticket: Ticket(0), kind: EntryKind::Normal, payload, only_in: None });
            }
            Action::Read(at) => {
                world.left.reads -= 1;
                // The ticket says what the answer must include.
                let ticket = Ticket(world.history.committed());
                world.step(at, Input::ReadAsked { ticket });
            }
        }
        world.forget_the_past();
        // A candidate whose vote is still being written does nothing when its timer expires.
        let idle = world.members == last.members && world.wire == last.wire && world.broken.is_none();
        (!idle).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(KEPT, |_, world: &World| world.broken.is_none()),
            Property::sometimes(LATER_LEADER, |_, world: &World| 1 < world.history.leaders()),
            Property::sometimes(CLIENT_ENTRY, |_, world: &World| world.history.has_client_entry()),
        ]
    }
}

impl World {
    fn actions_of(&self, at: usize, actions: &mut Vec<Action>) {
        let Member { raft, disk } = &*self.members[at];
        let unsynced = disk.unsynced();
        if 0 < unsynced {
            actions.push(Action::Persist(at));
        }
        if 0 < self.left.crashes {
            actions.extend((0..=unsynced).map(|survive| Action::Crash(at, survive)));
        }
        if raft.is_leader() {
            let wanted = [
                (self.left.beats, Action::Beat(at)),
                (self.left.doubts, Action::Doubt(at)),
                (self.left.proposals, Action::Propose(at)),
                (self.left.reads, Action::Read(at)),
            ];
            actions.extend(wanted.into_iter().filter(|(left, _)| 0 < *left).map(|(_, action)| action));
        } else if 0 < self.left.elections {
            actions.push(Action::Elect(at));
        }
    }

    fn deliver(&mut self, packet: &Packet) {
        let at = place_of(packet.to);
        self.step(at, Input::Received { from: packet.from, message: packet.message.clone() });
    }

    fn crash(&mut self, cluster: &Cluster, at: usize, survive: usize) {
        let mut disk = self.members[at].disk.clone();
        disk.crash(survive);
        let config = Config { id: id_of(at), ..cluster.config.clone() };
        let restored = disk.restored();
        let raft = Raft::restore(config, restored).unwrap();
        self.members[at] = Arc::new(Member { raft, disk });
        self.start(at);
    }

    fn start(&mut self, at: usize) {
        let mut effects = Vec::new();
        Arc::make_mut(&mut self.members[at]).raft.start(&mut effects);
        self.perform(at, effects);
        self.judge(at);
    }

    /// One input and all that follows from it at once: a batch is applied, a lease is over, a lone commit index is written.
    fn step(&mut self, at: usize, input: Input) {
        if self.broken.is_some() {
            return;
        }
        let mut effects = Vec::new();
        let raft = &mut Arc::make_mut(&mut self.members[at]).raft;
        if catch_unwind(AssertUnwindSafe(|| raft.step(input, &mut effects))).is_err() {
            self.broken = Some(Promise::NoAssertionFails);
            return;
        }
        self.perform(at, effects);
        self.judge(at);
    }

    fn perform(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append(write) => {
                    let harmless = write.sync == Sync::NotNeeded;
                    let disk = &mut Arc::make_mut(&mut self.members[at]).disk;
                    disk.write(write);
                    if harmless && disk.unsynced() == 1 {
                        disk.sync(1);
                        self.step(at, Input::Persisted { writes: 1 });
                    }
                }
                Effect::Send { to, message } => {
                    self.wire.insert(Arc::new(Packet { from: id_of(at), to, message }));
                }
                Effect::Apply { entries } => {
                    let Member { raft, disk } = &*self.members[at];
                    let next = raft.applied().next();
                    let in_order = entries.first().is_some_and(|entry| entry.index == next);
                    if !in_order || entries.iter().any(|entry| disk.entry(entry.index) != Some(entry)) {
                        self.broken = Some(Promise::AppliedIsDurable);
                    }
                    let upto = entries.last().expect("a batch is not empty").index;
                    self.step(at, Input::Applied { upto });
                }
                Effect::ReadReady { ticket, index } => {
                    if index.0 < ticket.0 {
                        self.broken = Some(Promise::FreshReads);
                    }
                }
                Effect::Arm { timer: Timer::LeaderAlive, .. } if !self.members[at].raft.is_leader() => {
                    self.step(at, Input::Expired(Timer::LeaderAlive));
                }
                Effect::Arm { .. }
                | Effect::MakeSnapshot { .. }
                | Effect::Install { .. }
                | Effect::Refused { .. }
                | Effect::LeaderChanged { .. }
                | Effect::Ignored { .. } => {}
            }
        }
    }

    fn judge(&mut self, at: usize) {
        let history = Arc::make_mut(&mut self.history);
        let verdict = history.note(&self.members[at].raft);
        let verdict = verdict.and_then(|()| history.survey(self.members.iter().map(|member| &**member)));
        if let Err(promise) = verdict {
            self.broken.get_or_insert(promise);
        }
    }

    /// A member wins an election without any trouble.
    fn lead(&mut self, at: usize) {
        self.step(at, Input::Expired(Timer::Election));
        loop {
            let busy = (0..self.members.len()).find(|&at| 0 < self.members[at].disk.unsynced());
            if let Some(at) = busy {
                Arc::make_mut(&mut self.members[at]).disk.sync(1);
                self.step(at, Input::Persisted { writes: 1 });
            } else if let Some(packet) = self.wire.pop_first() {
                self.deliver(&packet);
            } else {
                break;
            }
        }
        assert!(self.members[at].raft.is_leader());
    }

    /// Forgets the messages that can change nothing any more, whatever happens: the disk does not go back to an older term,
    /// and a role that ended in a term does not come back in it.
    fn forget_the_past(&mut self) {
        let (members, scope) = (&self.members, self.scope);
        self.wire.retain(|packet| {
            let Member { raft, disk } = &*members[place_of(packet.to)];
            let message = &packet.message;
            let Some(term) = message.term() else { return true };
            let awaited = match (raft.role(), message) {
                (_, Message::Append { entries, .. }) => scope != Scope::Substance || !entries.is_empty(),
                (Role::Candidate(_), Message::VoteGranted { .. } | Message::VoteRefused { .. }) => true,
                (Role::PreCandidate(_), Message::PreVoteGranted { .. } | Message::PreVoteRefused { .. }) => true,
                (Role::Leader(leader), Message::AppendAccepted { index, .. }) => {
                    let progress = &leader.members[&packet.from];
                    progress.matched < *index || matches!(progress.flow, Flow::Probe(_))
                }
                (Role::Leader(_), Message::VoteGranted { .. } | Message::VoteRefused { .. }) => false,
                (Role::Leader(_), _) => true,
                (_, _) => !message.is_answer(),
            };
            let about_votes =
                matches!(message, Message::VoteRequest { .. }) || matches!(message, Message::VoteGranted { .. });
            let past = term < disk.term() && !message.is_from_leader();
            !past && (awaited || disk.term() < term) && (scope != Scope::Votes || about_votes)
        });
    }
}

pub(crate) fn id_of(at: usize) -> MemberId {
    MemberId(at as u64 + 1)
}

fn place_of(id: MemberId) -> usize {
    usize::try_from(id.0 - 1).expect("members are few")
}
