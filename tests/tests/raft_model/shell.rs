//! What a member's effects do to the world around it, and what is looked at when they do.

use std::sync::Arc;

use detcd_core::ids::MemberId;
use detcd_core::raft::{Cause, Effect, Entry, EntryKind, Input, Mark, Message, Snapshot, Sync, Timer};

use super::promise::{Promise, change_of, survey};
use super::world::{Member, Pace, Packet, World, id_of, place_of};

/// Work of the state machine.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Task {
    Apply(Vec<Entry>),
    Install(Snapshot),
}

impl World {
    pub(super) fn perform(&mut self, at: usize, effects: Vec<Effect>) {
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
                    self.judge_message(at, to, &message);
                    self.wire.insert(Arc::new(Packet { from: id_of(at), to, message }));
                }
                Effect::Apply { entries } => self.give_work(at, Task::Apply(entries)),
                Effect::Install { snapshot } => self.give_work(at, Task::Install(snapshot)),
                Effect::MakeSnapshot { to } => {
                    let raft = &self.members[at].raft;
                    let mark = Mark::new(raft.applied(), raft.log().term_at(raft.applied()).unwrap());
                    let snapshot = Some(Snapshot { mark, configuration: raft.configuration().clone() });
                    self.step(at, Input::SnapshotMade { to, snapshot });
                }
                Effect::ReadReady { ticket, index } => {
                    if index.0 < ticket.0 {
                        self.broken = Some(Promise::FreshReads);
                    }
                }
                Effect::Arm { timer: Timer::LeaderAlive, .. } if !self.members[at].raft.is_leader() => {
                    self.step(at, Input::Expired(Timer::LeaderAlive));
                }
                Effect::Arm { .. } | Effect::Refused { .. } | Effect::LeaderChanged { .. } | Effect::Ignored { .. } => {
                }
            }
        }
    }

    fn give_work(&mut self, at: usize, task: Task) {
        match self.pace {
            Pace::Prompt => self.work(at, task),
            Pace::Slow => Arc::make_mut(&mut self.members[at]).task = Some(task),
        }
    }

    pub(super) fn work(&mut self, at: usize, task: Task) {
        let Member { raft, disk, .. } = &*self.members[at];
        let upto = match task {
            Task::Apply(entries) => {
                let next = raft.applied().next();
                let in_order = entries.first().is_some_and(|entry| entry.index == next);
                if !in_order || !entries.iter().all(|entry| disk.has(entry)) {
                    self.broken = Some(Promise::AppliedIsDurable);
                }
                for entry in entries.iter().filter(|entry| entry.kind == EntryKind::ConfChange) {
                    let change = change_of(entry);
                    self.step(at, Input::ConfigurationChanged { index: entry.index, change });
                }
                entries.last().expect("a batch is not empty").index
            }
            Task::Install(snapshot) => {
                if disk.last() < snapshot.mark.index {
                    self.broken = Some(Promise::AppliedIsDurable);
                }
                if !self.history.has(snapshot.mark) {
                    self.broken = Some(Promise::StateMachineSafety);
                }
                self.seen.installed = true;
                snapshot.mark.index
            }
        };
        self.step(at, Input::Applied { upto });
        let raft = &self.members[at].raft;
        let settled = raft.applied() == upto && raft.log().base().index <= upto;
        if settled && *raft.configuration() != self.history.configuration(upto) {
            self.broken.get_or_insert(Promise::SameConfiguration);
        }
    }

    /// Some messages say what must be true when they leave.
    fn judge_message(&mut self, at: usize, to: MemberId, message: &Message) {
        let raft = &self.members[at].raft;
        match message {
            Message::AppendAccepted { index, .. } if self.members[at].disk.last() < *index => {
                self.broken.get_or_insert(Promise::AcknowledgedIsDurable);
            }
            // A leader that retires has no time to wait for its heir.
            Message::TimeoutNow { .. }
                if raft.is_leader() && self.members[place_of(to)].disk.last() < raft.last().index =>
            {
                self.broken.get_or_insert(Promise::HeirIsComplete);
            }
            Message::VoteRequest { cause: Cause::Transfer, .. } => self.seen.inherited = true,
            _ => {}
        }
    }

    pub(super) fn judge(&mut self, at: usize) {
        let history = Arc::make_mut(&mut self.history);
        let members = self.members.iter().map(|member| &**member);
        let verdict = history.note(&self.members[at].raft, members.clone()).and_then(|()| survey(members));
        if let Err(promise) = verdict {
            self.broken.get_or_insert(promise);
        }
    }
}
