//! Who waits for what: proposals by their ticket, reads by the index they need.
//!
//! Reply channels live here, in the shell, never in the engine. A caller that went away is noticed only when its answer comes.

use std::collections::{BTreeMap, VecDeque};

use detcd_core::ids::{Index, Ticket};
use tokio::sync::oneshot;

use super::ask::{Answer, Unanswered};

type ProposalCaller = oneshot::Sender<Result<Answer, Unanswered>>;
type ReadCaller = oneshot::Sender<Result<(), Unanswered>>;

/// Everyone who waits.
#[derive(Debug, Default)]
pub(super) struct Callers {
    proposals: BTreeMap<Ticket, ProposalCaller>,
    asked: BTreeMap<Ticket, Vec<ReadCaller>>,
    ready: VecDeque<(Index, Vec<ReadCaller>)>,
}

impl Callers {
    /// How many proposals wait.
    pub(super) fn proposals(&self) -> usize {
        self.proposals.len()
    }

    pub(super) fn add_proposal(&mut self, ticket: Ticket, caller: ProposalCaller) {
        self.proposals.insert(ticket, caller);
    }

    /// Reads that share one question to the engine.
    pub(super) fn add_reads(&mut self, ticket: Ticket, callers: Vec<ReadCaller>) {
        self.asked.insert(ticket, callers);
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
        for caller in self.asked.remove(&ticket).into_iter().flatten() {
            let _ = caller.send(Err(why));
        }
    }

    /// The reads of `ticket` may look once `index` is applied.
    pub(super) fn read_at(&mut self, ticket: Ticket, index: Index) {
        if let Some(callers) = self.asked.remove(&ticket) {
            self.ready.push_back((index, callers));
        }
    }

    /// Everything up to `applied` may be read now.
    pub(super) fn release(&mut self, applied: Index) {
        let mut later = VecDeque::new();
        for (index, callers) in std::mem::take(&mut self.ready) {
            if applied < index {
                later.push_back((index, callers));
                continue;
            }
            for caller in callers {
                let _ = caller.send(Ok(()));
            }
        }
        self.ready = later;
    }

    /// Forgets proposals whose caller gave up, so that their number stays bounded by those that wait.
    pub(super) fn sweep(&mut self) {
        self.proposals.retain(|_, caller| !caller.is_closed());
    }
}
