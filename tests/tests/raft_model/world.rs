//! A cluster as one state, and everything that may happen to it as actions.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use detcd_core::ids::{MemberId, Ticket};
use detcd_core::raft::progress::{Flow, Progress, Shipment};
use detcd_core::raft::role::{Leader, Role};
use detcd_core::raft::{Change, Config, EntryKind, Input, Message, Raft, Restored, Timer};
use detcd_tests::disk::Disk;
use stateright::{Model, Property};

use super::promise::{History, Promise, payload_of};
use super::shell::Task;

/// Every promise is kept.
pub(crate) const KEPT: &str = "every promise is kept";
/// Two terms had leaders.
pub(crate) const LATER_LEADER: &str = "a later leader";
/// Something a client wrote is committed.
pub(crate) const CLIENT_ENTRY: &str = "a client's entry is committed";
/// Every change of the plan is committed.
pub(crate) const CHANGED: &str = "the membership changed as planned";
/// A store took another one's place.
pub(crate) const INSTALLED: &str = "a snapshot is installed";
/// Somebody campaigned on request.
pub(crate) const INHERITED: &str = "an heir leads";

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
    pub(crate) changes: u8,
    pub(crate) transfers: u8,
    pub(crate) trims: u8,
    pub(crate) losses: u8,
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
    pub(crate) pace: Pace,
    /// Members that never hear each other.
    pub(crate) apart: Option<(usize, usize)>,
    /// The changes of the membership, in their order.
    pub(crate) plan: Vec<Change>,
}

/// What happened before the first state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Prelude {
    /// Everyone has just started.
    Started,
    /// Member 1 has been elected and its first entry is committed everywhere.
    Led,
}

/// When the state machine does what it is asked to do.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Pace {
    /// At once.
    Prompt,
    /// At any time later.
    Slow,
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
    pub(super) from: MemberId,
    pub(super) to: MemberId,
    pub(super) message: Message,
}

/// One member.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Member {
    pub(crate) raft: Raft,
    pub(crate) disk: Disk,
    /// What the state machine has not done yet.
    pub(super) task: Option<Task>,
}

/// One state.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct World {
    pub(super) members: Vec<Arc<Member>>,
    pub(super) wire: BTreeSet<Arc<Packet>>,
    left: Bounds,
    pub(crate) history: Arc<History>,
    pub(crate) broken: Option<Promise>,
    pub(crate) seen: Seen,
    pub(super) scope: Scope,
    pub(super) pace: Pace,
    apart: Option<(usize, usize)>,
}

/// What has happened at least once.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Seen {
    pub(super) installed: bool,
    pub(super) inherited: bool,
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
    /// An operator wants the next change of the plan.
    Change(usize),
    /// An operator wants another leader.
    Transfer(usize, MemberId),
    /// A member forgets what it has applied.
    Trim(usize),
    /// A snapshot is known to be lost.
    Lose(usize, MemberId),
    /// The state machine does what it was asked to do.
    Work(usize),
}

impl Cluster {
    pub(crate) fn only_votes(self) -> Self {
        Self { scope: Scope::Votes, ..self }
    }

    pub(crate) fn without_hurry(self) -> Self {
        Self { scope: Scope::Substance, ..self }
    }

    pub(crate) fn with_plan(self, plan: &[Change]) -> Self {
        Self { plan: plan.to_vec(), ..self }
    }

    pub(crate) fn apart(self, one: usize, other: usize) -> Self {
        Self { apart: Some((one, other)), ..self }
    }

    pub(crate) fn slowly(self) -> Self {
        Self { pace: Pace::Slow, ..self }
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
        let begin = &self.disks[0];
        let mut world = World {
            members: Vec::new(),
            wire: BTreeSet::new(),
            left: self.bounds,
            history: Arc::new(History::new(begin.base, begin.configuration.clone())),
            broken: None,
            seen: Seen::default(),
            scope: self.scope,
            pace: if self.prelude == Prelude::Led { Pace::Prompt } else { self.pace },
            apart: None,
        };
        for (at, restored) in self.disks.iter().enumerate() {
            let config = Config { id: id_of(at), ..self.config.clone() };
            let disk = Disk::new(restored);
            let raft = Raft::restore(config, restored.clone()).unwrap();
            world.members.push(Arc::new(Member { raft, disk, task: None }));
        }
        for at in 0..self.disks.len() {
            world.start(at);
        }
        if self.prelude == Prelude::Led {
            world.lead(0);
        }
        (world.pace, world.apart) = (self.pace, self.apart);
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
            Action::Change(at) => {
                let payload = payload_of(self.plan[self.plan.len() - usize::from(world.left.changes)]).into();
                world.left.changes -= 1;
                world.step(
                    at,
                    Input::Proposed { ticket: Ticket(0), kind: EntryKind::ConfChange, payload, only_in: None },
                );
            }
            Action::Transfer(at, to) => {
                world.left.transfers -= 1;
                world.step(at, Input::TransferAsked { to });
            }
            Action::Trim(at) => {
                world.left.trims -= 1;
                let upto = world.members[at].raft.applied();
                world.step(at, Input::Trimmed { upto });
            }
            Action::Lose(at, to) => {
                world.left.losses -= 1;
                world.step(at, Input::SnapshotSent { to, is_received: false });
            }
            Action::Work(at) => {
                let task = Arc::make_mut(&mut world.members[at]).task.take();
                world.work(at, task.expect("only who has work works"));
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
            Property::sometimes(CHANGED, |model: &Self, world: &World| world.history.changes() == model.plan.len()),
            Property::sometimes(INSTALLED, |_, world: &World| world.seen.installed),
            Property::sometimes(INHERITED, |_, world: &World| world.seen.inherited),
        ]
    }
}

impl World {
    fn actions_of(&self, at: usize, actions: &mut Vec<Action>) {
        let Member { raft, disk, task } = &*self.members[at];
        let unsynced = disk.unsynced();
        if task.is_some() {
            actions.push(Action::Work(at));
        }
        if 0 < self.left.trims && raft.log().base().index < raft.applied() {
            actions.push(Action::Trim(at));
        }
        if 0 < unsynced {
            actions.push(Action::Persist(at));
        }
        if 0 < self.left.crashes {
            actions.extend((0..=unsynced).map(|survive| Action::Crash(at, survive)));
        }
        if let Role::Leader(leader) = raft.role() {
            self.actions_on_members(at, leader, actions);
            let wanted = [
                (self.left.beats, Action::Beat(at)),
                (self.left.doubts, Action::Doubt(at)),
                (self.left.proposals, Action::Propose(at)),
                (self.left.reads, Action::Read(at)),
                (self.left.changes, Action::Change(at)),
            ];
            actions.extend(wanted.into_iter().filter(|(left, _)| 0 < *left).map(|(_, action)| action));
        } else if 0 < self.left.elections {
            actions.push(Action::Elect(at));
        }
    }

    fn actions_on_members(&self, at: usize, leader: &Leader, actions: &mut Vec<Action>) {
        for (&member, progress) in &leader.members {
            if 0 < self.left.transfers {
                actions.push(Action::Transfer(at, member));
            }
            if 0 < self.left.losses && matches!(progress.flow, Flow::Snapshot(Shipment::Sent(_))) {
                actions.push(Action::Lose(at, member));
            }
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
        self.members[at] = Arc::new(Member { raft, disk, task: None });
        self.start(at);
    }

    fn start(&mut self, at: usize) {
        let mut effects = Vec::new();
        Arc::make_mut(&mut self.members[at]).raft.start(&mut effects);
        self.judge(at);
        self.perform(at, effects);
    }

    /// One input and all that follows from it at once: a batch is applied, a lease is over, a lone commit index is written.
    pub(super) fn step(&mut self, at: usize, input: Input) {
        if self.broken.is_some() {
            return;
        }
        let mut effects = Vec::new();
        let raft = &mut Arc::make_mut(&mut self.members[at]).raft;
        if catch_unwind(AssertUnwindSafe(|| raft.step(input, &mut effects))).is_err() {
            self.broken = Some(Promise::NoAssertionFails);
            return;
        }
        self.judge(at);
        self.perform(at, effects);
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
        let (members, scope, apart) = (&self.members, self.scope, self.apart);
        self.wire.retain(|packet| {
            let ends = (place_of(packet.from), place_of(packet.to));
            if apart.is_some_and(|(one, other)| ends == (one, other) || ends == (other, one)) {
                return false;
            }
            let Member { raft, disk, .. } = &*members[place_of(packet.to)];
            let message = &packet.message;
            let Some(term) = message.term() else { return true };
            let awaited = match (raft.role(), message) {
                (_, Message::Append { entries, .. }) => scope != Scope::Substance || !entries.is_empty(),
                (Role::Candidate(_), Message::VoteGranted { .. } | Message::VoteRefused { .. }) => true,
                (Role::PreCandidate(_), Message::PreVoteGranted { .. } | Message::PreVoteRefused { .. }) => true,
                (Role::Leader(leader), Message::AppendAccepted { index, .. }) => {
                    let is_news =
                        |progress: &Progress| progress.matched < *index || matches!(progress.flow, Flow::Probe(_));
                    leader.members.get(&packet.from).is_some_and(is_news)
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

pub(super) fn place_of(id: MemberId) -> usize {
    usize::try_from(id.0 - 1).expect("members are few")
}
