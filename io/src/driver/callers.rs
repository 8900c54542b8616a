//! Who waits for what: proposals by their ticket, reads by the index they need.
//!
//! Reply channels live here, in the shell, never in the engine. A caller that went away is noticed only when its answer comes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use detcd_core::ids::{Index, Ticket};
use tokio::sync::oneshot;

use super::ask::{Answer, Unanswered};
use super::bounds::{READ_QUESTIONS_MAX, READS_GATHERED_MAX};
use crate::clock::Instant;

/// How long a question to the leader may stay without an answer, as in etcd.
const READ_PATIENCE: Duration = Duration::from_millis(500);

type ProposalCaller = oneshot::Sender<Result<Answer, Unanswered>>;
pub(super) type ReadCaller = oneshot::Sender<Result<(), Unanswered>>;

/// Everyone who waits.
#[derive(Debug, Default)]
pub(super) struct Callers {
    proposals: BTreeMap<Ticket, ProposalCaller>,
    /// Reads that wait until a question may be asked for them.
    gathered: Vec<ReadCaller>,
    asked: BTreeMap<Ticket, Asked>,
    ready: VecDeque<(Index, Vec<ReadCaller>)>,
}

/// Reads that share one question, and when it is asked once more.
#[derive(Debug)]
struct Asked {
    due: Instant,
    callers: Vec<ReadCaller>,
}

impl Callers {
    /// How many proposals wait.
    pub(super) fn proposals(&self) -> usize {
        self.proposals.len()
    }

    pub(super) fn add_proposal(&mut self, ticket: Ticket, caller: ProposalCaller) {
        self.proposals.insert(ticket, caller);
    }

    /// A read waits for the next question.
    pub(super) fn add_read(&mut self, caller: ReadCaller) {
        if self.gathered.len() < READS_GATHERED_MAX {
            self.gathered.push(caller);
        } else {
            let _ = caller.send(Err(Unanswered::TooManyRequests));
        }
    }

    /// Whether a question is to be asked. While one is open, reads gather for the next: under load a question serves many.
    pub(super) fn wants_to_ask(&self) -> bool {
        !self.gathered.is_empty() && self.asked.len() < READ_QUESTIONS_MAX
    }

    /// The reads that gathered share the question of `ticket`.
    pub(super) fn ask(&mut self, ticket: Ticket, now: Instant) {
        let callers = std::mem::take(&mut self.gathered);
        self.asked.insert(ticket, Asked { due: now + READ_PATIENCE, callers });
    }

    /// When the oldest question is to be asked once more.
    pub(super) fn reads_due(&self) -> Option<Instant> {
        self.asked.values().map(|asked| asked.due).min()
    }

    /// Takes back questions that were not answered in time: what was asked of a leader, or its answer, may be lost. Their readers, but for those that gave up, wait for the next
    /// question, which gets a new ticket.
    pub(super) fn give_up_overdue(&mut self, now: Instant) {
        if self.asked.is_empty() {
            return;
        }
        let overdue = self.asked.extract_if(.., |_, asked| asked.due <= now);
        self.gathered.extend(overdue.flat_map(|(_, asked)| asked.callers).filter(|caller| !caller.is_closed()));
    }

    /// The proposal of `ticket` was applied. A ticket of another member's client is nobody's here.
    pub(super) fn answer(&mut self, ticket: Ticket, answer: Answer) {
        if let Some(caller) = self.proposals.remove(&ticket) {
            // A caller that stopped waiting needs no answer.
            let _ = caller.send(Ok(answer));
        }
    }

    /// The engine refused `ticket`, be it a proposal or a read.
    pub(super) fn refuse(&mut self, ticket: Ticket, why: Unanswered) {
        if let Some(caller) = self.proposals.remove(&ticket) {
            let _ = caller.send(Err(why));
        }
        for caller in self.asked.remove(&ticket).into_iter().flat_map(|asked| asked.callers) {
            let _ = caller.send(Err(why));
        }
    }

    /// The reads of `ticket` may look once `index` is applied. Answers whether the question was still open.
    pub(super) fn read_at(&mut self, ticket: Ticket, index: Index) -> bool {
        let Some(Asked { callers, .. }) = self.asked.remove(&ticket) else { return false };
        self.ready.push_back((index, callers));
        true
    }

    /// Everything up to `applied` may be read now.
    pub(super) fn release(&mut self, applied: Index) {
        self.ready.retain_mut(|(index, callers)| {
            let may_read = *index <= applied;
            if may_read {
                for caller in callers.drain(..) {
                    let _ = caller.send(Ok(()));
                }
            }
            !may_read
        });
    }

    /// Forgets proposals whose caller gave up, so that their number stays bounded by those that wait.
    pub(super) fn sweep(&mut self) {
        self.proposals.retain(|_, caller| !caller.is_closed());
    }
}
