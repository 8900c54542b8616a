//! The applier: committed entries, one by one and in order, through the engine's rules into the store.
//!
//! Called by the driver in bounded turns. A command that touches many keys is worked off over several turns, and nothing of it is seen before its last. An
//! entry that cannot be understood or carried out is a [`Fault`]: nothing committed is ever skipped.

use std::collections::VecDeque;

use detcd_core::apply::{Application, Outcome, Step};
use detcd_core::ids::{Index, Term, Ticket};
use detcd_core::membership::{ConfChange, ConfChangeKind};
use detcd_core::raft::{Change, Entry, EntryKind};
use detcd_core::reply::Reply;

use crate::clock::Instant;
use crate::codec::entry::{decode, decode_conf_change};
use crate::driver::ask::Answer;
use crate::driver::bounds;
use crate::fault::Fault;
use crate::stats::ops::Op;
use crate::store::Store;
use crate::store::backend::Backend;
use crate::store::compaction::Pin;

/// What one turn may cost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Budget {
    /// Commands finished.
    pub commands: usize,
    /// Keys looked at in one command.
    pub keys: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { commands: bounds::APPLY_COMMANDS_PER_TURN, keys: bounds::APPLY_KEYS_PER_TURN }
    }
}

/// What the turns of one wake came to.
#[derive(Debug, Default)]
pub struct Harvest {
    /// Answers, by the ticket of their request.
    pub answers: Vec<(Ticket, Answer)>,
    /// Membership changes that were carried out, with what each means to Raft.
    pub changes: Vec<(Index, Option<Change>)>,
}

/// Applies entries to the store.
pub struct Applier<B> {
    store: Store<B>,
    waiting: VecDeque<Entry>,
    current: Option<Current>,
    applied: Index,
    /// The known bug that it carries, and whose it is, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    pub mutant: Option<(crate::mutants::Mutant, detcd_core::ids::MemberId)>,
}

/// A command in the middle of its work.
struct Current {
    index: Index,
    term: Term,
    ticket: Ticket,
    application: Application,
    counts: Counts,
}

/// What is to be done with a command's outcome besides.
enum Counts {
    /// It is counted.
    Request(Counted),
    /// Raft is told, if it takes effect.
    Change(Option<Change>),
}

/// What is known of a command, for those who count, before it is applied.
struct Counted {
    op: Op,
    ranges: u64,
    began: Instant,
}

impl<B: Backend> Applier<B> {
    /// An applier that goes on where the store stands.
    #[must_use]
    pub fn new(store: Store<B>) -> Self {
        let applied = store.applied().index;
        Self {
            store,
            waiting: VecDeque::new(),
            current: None,
            applied,
            #[cfg(mutants)]
            mutant: None,
        }
    }

    /// The newest entry that is applied.
    #[must_use]
    pub const fn applied(&self) -> Index {
        self.applied
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.current.is_none()
    }

    /// Hands in committed entries. Those that the store already holds are passed over: a restart replays from the log's base.
    pub fn push(&mut self, entries: Vec<Entry>) {
        let after = self.waiting.back().map(|last| last.index).or_else(|| self.current.as_ref().map(|now| now.index));
        let after = after.unwrap_or(self.applied);
        if let Some(first) = entries.first() {
            assert!(first.index <= after.next(), "committed entries come without a gap");
        }
        self.waiting.extend(entries.into_iter().filter(|entry| after < entry.index));
    }

    /// Works for one turn. What it came to is added to `harvest`; watchers are woken once.
    ///
    /// # Errors
    /// The machine failed, or an entry cannot be carried out.
    pub fn work(&mut self, budget: Budget, harvest: &mut Harvest) -> Result<(), Fault> {
        let before = self.store.current();
        self.work_on(budget, harvest)?;
        if before != self.store.current() {
            self.store.tell_news();
        }
        Ok(())
    }

    fn work_on(&mut self, budget: Budget, harvest: &mut Harvest) -> Result<(), Fault> {
        for _ in 0..budget.commands {
            let current = match self.current.take() {
                Some(current) => Some(current),
                None => match self.waiting.pop_front() {
                    Some(entry) => self.begin(entry)?,
                    None => return Ok(()),
                },
            };
            let Some(mut current) = current else { continue };
            let view = self.store.view();
            match current.application.advance(&view, budget.keys)? {
                Step::More => {
                    self.current = Some(current);
                    return Ok(());
                }
                Step::Done(outcome) => self.finish(&current, outcome, view.pin(), harvest),
                Step::Unbuilt(what) => return Err(Fault::Unbuilt(what)),
            }
        }
        Ok(())
    }

    /// Starts on an entry. `None`: it carries no command, and is done.
    fn begin(&mut self, entry: Entry) -> Result<Option<Current>, Fault> {
        let (index, term) = (entry.index, entry.term);
        let undecodable = Fault::entry(index, term);
        let (ticket, application, counts) = match entry.kind {
            EntryKind::Normal if entry.payload.is_empty() => {
                self.store.absorb(Vec::new(), &[], index, term);
                self.applied = index;
                return Ok(None);
            }
            EntryKind::Normal => {
                #[cfg_attr(not(mutants), expect(unused_mut, reason = "changed in builds with mutants"))]
                let mut request = decode(entry.payload).map_err(undecodable)?;
                #[cfg(mutants)]
                if let Some((crate::mutants::Mutant::RangesOnlyForCallers, own)) = self.mutant
                    && !crate::driver::ask::Tickets::new(own, 0).is_own(request.header.id)
                {
                    crate::mutants::without_ranges(&mut request.command);
                }
                let (op, ranges) = Op::of(&request.command);
                let counted = Counted { op, ranges, began: Instant::now() };
                (request.header.id, Application::begin(request.command), Counts::Request(counted))
            }
            EntryKind::ConfChange => {
                let change = decode_conf_change(entry.payload).map_err(undecodable)?;
                let counts = Counts::Change(raft_change(&change));
                (change.id, Application::begin_conf_change(change), counts)
            }
            EntryKind::ConfChangeV2 => return Err(Fault::Unbuilt("a joint membership change, which etcd never logs")),
        };
        Ok(Some(Current { index, term, ticket, application, counts }))
    }

    fn finish(
        &mut self,
        current: &Current,
        #[cfg_attr(not(mutants), expect(unused_mut, reason = "changed in builds with mutants"))] mut outcome: Outcome,
        pin: Pin,
        harvest: &mut Harvest,
    ) {
        #[cfg(mutants)]
        if let (Some((mutant, _)), Counts::Change(change)) = (self.mutant, &current.counts) {
            crate::mutants::tamper(mutant, change.is_none(), &self.store.membership(), &mut outcome.writes);
        }
        match &current.counts {
            Counts::Request(Counted { op, ranges, began }) => {
                self.store.stats().on_applied(*op, *ranges, &outcome, began.elapsed());
            }
            // A refused change is spent without effect, and Raft has to know that it is over.
            Counts::Change(change) => harvest.changes.push((current.index, change.filter(|_| outcome.reply.is_ok()))),
        }
        let pin = outcome.reply.as_ref().is_ok_and(Reply::names_rows).then_some(pin);
        self.store.absorb(outcome.writes, &outcome.events, current.index, current.term);
        self.applied = current.index;
        let revision = self.store.current();
        harvest.answers.push((current.ticket, Answer { reply: outcome.reply, revision, term: current.term, pin }));
    }
}

/// What a membership change means to Raft, which knows nothing of addresses.
fn raft_change(change: &ConfChange) -> Option<Change> {
    match &change.kind {
        ConfChangeKind::AddVoter(_) | ConfChangeKind::Promote => Some(Change::AddVoter(change.node)),
        ConfChangeKind::AddLearner(_) => Some(Change::AddLearner(change.node)),
        ConfChangeKind::Remove => Some(Change::Remove(change.node)),
        ConfChangeKind::Update { .. } => None,
    }
}
