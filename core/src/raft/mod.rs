//! Agreement on a log: Raft, as etcd speaks it, as a value.
//!
//! [`Raft::step`] is the only door. An [`Input`] says what happened, [`Effect`]s say what to do; a step cannot fail, and
//! what it refuses or ignores is an effect with a reason. There is no clock (a timer is an effect that comes back as an
//! input), no dice (the shell draws within a [`Delay`]) and no disk (a write is an effect that comes back as a count).
//! Equal members given equal inputs stay equal, which is what the model checker lives on.
//!
//! What the shell must do: carry out `Append` effects in order, and say `Persisted` with their number once those that
//! need a sync are synced; start timers anew when they are armed; hand `Apply` batches to the state machine and say
//! `Applied`. Messages may be lost, doubled and reordered, and [`gather`]ed.
//!
//! What the engine promises: an effect that exists is already allowed. Votes and acknowledgements wait inside for the
//! writes before them; a leader's appends do not wait for its own disk, but its own copy counts only once it is there;
//! entries reach the state machine when they are committed and on the local disk.
//!
//! Reading order: [`entry`], [`message`], [`input`], [`effect`] (the words); [`role`], `elect` and [`transfer`] (who leads);
//! `replicate` and [`progress`] (the leader's side), `follow` (the other side), [`snapshot`] and [`gather`] (both); [`log`] and [`durable`] (what is kept);
//! `commit` and [`quorum`] (when it counts); [`member`] and `change` (who counts); [`read`] and `forward` (clients of any member); `check` (what always holds).

mod change;
mod check;
mod commit;
pub mod config;
pub mod durable;
pub mod effect;
mod elect;
pub mod entry;
mod follow;
mod forward;
mod gather;
pub mod input;
pub mod log;
pub mod member;
pub mod message;
pub mod progress;
pub mod quorum;
pub mod read;
mod receive;
mod replicate;
pub mod restored;
pub mod role;
pub mod snapshot;
pub mod transfer;

#[cfg(mutants)]
pub use config::Mutant;
pub use config::{Config, Delay, Limits, Ticks};
pub use effect::{Effect, Effects, Ignored, Refusal, Sync, Write};
pub use entry::{Entry, EntryKind, HardState, Mark};
pub use gather::gather;
pub use input::{Input, Timer};
pub use member::{Change, Configuration};
pub use message::{Cause, Message, Proposal};
pub use restored::{Malformed, Restored};
pub use snapshot::Snapshot;

use crate::ids::{Index, MemberId, Term};
use durable::{Ballot, Durable};
use log::Log;
use replicate::Say;
use role::{Follower, Role};

/// One member's part in the agreement.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Raft {
    config: Config,
    configuration: Configuration,
    hard_state: HardState,
    log: Log,
    durable: Durable,
    role: Role,
    /// The newest entry that the state machine has carried out.
    applied: Index,
    /// The newest entry that was handed to it, by itself or within a snapshot.
    applying: Index,
    /// The snapshot that took the log's place and waits for its turn to take the store's.
    arrived: Option<Snapshot>,
}

// A compile error here means the engine stopped being a value.
const _: () = {
    const fn value<T: Clone + Eq + core::hash::Hash + core::fmt::Debug + Send + 'static>() {}
    value::<Raft>();
    value::<Input>();
    value::<Effect>();
    value::<Restored>();
};

impl Raft {
    /// A member that goes on where its disk says it stopped. [`Raft::start`] sets it going.
    pub fn restore(config: Config, restored: Restored) -> Result<Self, Malformed> {
        assert!(config.heartbeat.max < config.election.min, "a leader must speak before patience ends");
        let found = restored.hard_state;
        let (hard_state, restored, run) = restored.parse(config.id)?;
        let durable = Durable::new(found, run.last().index);
        Ok(Self {
            config,
            configuration: restored.configuration,
            hard_state,
            log: Log::new(run),
            durable,
            role: Role::Follower(Follower::default()),
            applied: restored.applied,
            applying: restored.applied,
            arrived: None,
        })
    }

    /// Arms the first timer and hands over what is known to be committed. A sole voter has nobody to wait for.
    pub fn start(&mut self, effects: &mut Effects) {
        if self.is_sole_voter() {
            effects.push(Effect::Arm { timer: Timer::Election, within: Delay::exactly(Ticks(0)) });
        } else {
            self.arm_election(effects);
        }
        self.settle((self.term(), self.leader()), effects);
    }

    /// Takes one thing that happened and says what to do. The only way to change a member.
    pub fn step(&mut self, input: Input, effects: &mut Effects) {
        let before = (self.term(), self.leader());
        match input {
            Input::Expired(Timer::Election) => self.on_election_expired(effects),
            Input::Expired(Timer::Heartbeat) => self.on_heartbeat_expired(effects),
            Input::Expired(Timer::LeaderAlive) => self.on_leader_alive_expired(effects),
            Input::Expired(Timer::Transfer) => self.on_transfer_expired(effects),
            Input::Received { from, message } => self.on_received(from, message, effects),
            Input::Persisted { writes } => self.on_persisted(writes, effects),
            Input::Proposed { ticket, kind, payload, only_in } => {
                self.on_proposed(ticket, Proposal { kind, payload }, only_in, effects);
            }
            Input::ReadAsked { ticket } => self.on_read_asked(ticket, effects),
            Input::Applied { upto } => self.on_applied(upto, effects),
            Input::Trimmed { upto } => self.on_trimmed(upto),
            Input::ConfigurationChanged { index, change } => self.on_configuration_changed(index, change, effects),
            Input::TransferAsked { to } => self.on_transfer_asked(to, effects),
            Input::SnapshotMade { to, snapshot } => self.on_snapshot_made(to, snapshot, effects),
            Input::SnapshotSent { to, is_received } => self.on_snapshot_sent(to, is_received, effects),
            Input::Unreachable { member } => self.on_unreachable(member),
        }
        self.settle(before, effects);
    }

    /// Ends a step: writes what changed, releases what may go, tells what is news.
    fn settle(&mut self, before: (Term, Option<MemberId>), effects: &mut Effects) {
        self.durable.settle(&self.log, self.hard_state, effects);
        let (term, leader) = (self.term(), self.leader());
        if before != (term, leader) {
            effects.push(Effect::LeaderChanged { term, leader });
        }
        self.hand_over(effects);
        self.check();
    }

    fn ignore(&self, from: Option<MemberId>, why: Ignored, effects: &mut Effects) {
        effects.push(Effect::Ignored { from, why });
    }

    fn votes(&self) -> bool {
        self.configuration.voters.contains(&self.config.id)
    }

    fn is_sole_voter(&self) -> bool {
        self.configuration.is_sole_voter(self.config.id)
    }

    fn other_voters(&self) -> impl Iterator<Item = MemberId> {
        self.configuration.voters.iter().copied().filter(|&voter| voter != self.config.id)
    }

    fn others(&self) -> impl Iterator<Item = MemberId> {
        self.configuration.members().filter(|&member| member != self.config.id)
    }
}

/// What may be looked at from outside.
impl Raft {
    /// This member.
    #[must_use]
    pub const fn id(&self) -> MemberId {
        self.config.id
    }

    /// The present term.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The leader of the present term, if known.
    #[must_use]
    pub const fn leader(&self) -> Option<MemberId> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
            Role::Leader(_) => Some(self.config.id),
        }
    }

    /// Whether this member leads.
    #[must_use]
    pub const fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// What this member is, with the role's own data.
    #[must_use]
    pub const fn role(&self) -> &Role {
        &self.role
    }

    /// Who belongs to the cluster, as far as it is applied here.
    #[must_use]
    pub const fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Term, vote and commit index, as they are or will be on disk.
    #[must_use]
    pub const fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The newest entry known to be committed.
    #[must_use]
    pub const fn commit(&self) -> Index {
        self.hard_state.commit
    }

    /// The newest entry of the log.
    #[must_use]
    pub fn last(&self) -> Mark {
        self.log.last()
    }

    /// The newest entry of the present log that is on this member's disk. The store must not get ahead of it.
    #[must_use]
    pub const fn persisted(&self) -> Index {
        self.durable.last()
    }

    /// The term and the vote that are on this member's disk.
    #[must_use]
    pub const fn ballot(&self) -> Ballot {
        self.durable.ballot()
    }

    /// The newest entry that the state machine has carried out.
    #[must_use]
    pub const fn applied(&self) -> Index {
        self.applied
    }

    /// How many writes are under way.
    #[must_use]
    pub fn writing(&self) -> usize {
        self.durable.writing()
    }

    /// The log in memory.
    #[must_use]
    pub const fn log(&self) -> &Log {
        &self.log
    }
}
