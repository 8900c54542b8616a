//! The lease keeper's task: asks the keeper what is due, and takes it to the driver.
//!
//! It decides nothing; the clockwork is [`detcd_core::lease::Keeper`]. It never waits for an answer, since a tick that comes late counts as a gap: what it
//! asked for it looks after on later ticks. Invariant: a checkpoint is in the driver's queue before anybody can see that it is under way, so
//! that whatever clears it comes behind it in the log.

use std::sync::atomic::Ordering;
use std::time::Duration;

use detcd_core::ids::{LeaseId, Term, Ticket};
use detcd_core::lease::{Duties, Failure, Keeper};
use detcd_core::raft::EntryKind;
use detcd_core::reply::Rejected;
use detcd_proto::etcdserverpb as pb;
use tokio::sync::oneshot;

use crate::clock::Instant;
use crate::codec::entry::{self, Field};
use crate::driver::ask::{Answer, Ask, Asker, Unanswered};
use crate::driver::bounds;
use crate::store::Store;
use crate::store::backend::Backend;

/// The task of one member's leases.
pub struct LeaseKeeper<B> {
    store: Store<B>,
    asker: Asker,
    /// How long an answer may take.
    patience: Duration,
    proof: Option<Proof>,
    asked: Vec<Asked>,
}

/// A question whether this member leads.
struct Proof {
    term: Term,
    /// When it was asked, by the keeper's time.
    at: u64,
    until: Instant,
    answer: oneshot::Receiver<Result<(), Unanswered>>,
}

/// A proposal under way.
struct Asked {
    term: Term,
    what: What,
    until: Instant,
    answer: oneshot::Receiver<Result<Answer, Unanswered>>,
}

enum What {
    Revoke(LeaseId),
    Checkpoint(Vec<LeaseId>),
}

impl<B: Backend> LeaseKeeper<B> {
    /// The task for `store`; an answer may take as long as a client's request.
    #[must_use]
    pub const fn new(store: Store<B>, asker: Asker, patience: Duration) -> Self {
        Self { store, asker, patience, proof: None, asked: Vec::new() }
    }

    /// Runs until the driver is gone.
    pub async fn run(mut self) {
        let tick = self.store.lease_rules().tick;
        while !self.asker.is_closed() {
            tokio::time::sleep(tick).await;
            self.take_proof();
            self.take_answers();
            self.tick();
            self.rest().await;
        }
    }

    /// Waits for something to keep: a member that nobody asks for anything is not to be woken ten times a second.
    async fn rest(&self) {
        let is_idle = self.proof.is_none() && self.asked.is_empty();
        if is_idle && self.store.with_keeper(|keeper, _| keeper.is_at_rest()) {
            tokio::select! {
                biased;
                () = self.asker.closed() => {}
                () = self.asker.gauges().leading_changed() => {}
                () = self.store.lease_granted() => {}
            }
        }
    }

    fn take_proof(&mut self) {
        let Some(proof) = &mut self.proof else { return };
        match proof.answer.try_recv() {
            Ok(Ok(())) => {
                // Answered by the leader of a term; that this member still leads in it says that it was the one.
                if self.asker.gauges().leading() == Some(proof.term) {
                    self.store.on_leadership_proved(proof.term, proof.at);
                }
                self.proof = None;
            }
            Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => self.proof = None,
            Err(oneshot::error::TryRecvError::Empty) => {
                if proof.until <= Instant::now() || self.asker.gauges().leading() != Some(proof.term) {
                    self.proof = None;
                }
            }
        }
    }

    fn take_answers(&mut self) {
        let now = Instant::now();
        let store = &self.store;
        self.asked.retain_mut(|asked| match asked.answer.try_recv() {
            Ok(Ok(answer)) => {
                match answer.reply {
                    Ok(_) if matches!(asked.what, What::Revoke(_)) => {
                        store.lease_counts().expired.fetch_add(1, Ordering::Relaxed);
                    }
                    // Gone by another's hand.
                    Ok(_) | Err(Rejected::LeaseNotFound) => {}
                    // An alarm forbids it for now.
                    Err(_) => asked.fail(store, Failure::Rejected),
                }
                false
            }
            Ok(Err(why)) => {
                tracing::debug!(?why, "a lease's proposal was refused");
                asked.fail(store, Failure::Refused);
                false
            }
            Err(oneshot::error::TryRecvError::Closed) => {
                asked.fail(store, Failure::Unanswered);
                false
            }
            Err(oneshot::error::TryRecvError::Empty) if asked.until <= now => {
                asked.fail(store, Failure::Unanswered);
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
        });
    }

    fn tick(&mut self) {
        let store = self.store.clone();
        store.with_keeper(|keeper, now| {
            let leading = self.asker.gauges().leading();
            let Duties { prove, revoke, checkpoint } = keeper.tick(now, leading);
            if let Some(term) = prove {
                self.prove(term, now);
            }
            let Some(term) = leading else { return };
            for id in revoke {
                let message = pb::LeaseRevokeRequest { id: id.0 };
                self.ask(keeper, now, term, What::Revoke(id), |ticket| {
                    entry::encode(ticket, Field::LeaseRevoke, &message)
                });
            }
            if !checkpoint.is_empty() {
                let ids = checkpoint.iter().map(|each| each.id).collect();
                let each = |each: &detcd_core::command::LeaseCheckpoint| pb::LeaseCheckpoint {
                    id: each.id.0,
                    remaining_ttl: each.remaining_ttl,
                };
                let message = pb::LeaseCheckpointRequest { checkpoints: checkpoint.iter().map(each).collect() };
                self.ask(keeper, now, term, What::Checkpoint(ids), |ticket| {
                    entry::encode(ticket, Field::LeaseCheckpoint, &message)
                });
            }
        });
    }

    /// Asks for a proof of leadership, unless that is under way.
    fn prove(&mut self, term: Term, at: u64) {
        if self.proof.is_some() {
            return;
        }
        let (answer, answered) = oneshot::channel();
        if self.asker.try_urgently(Ask::Read { answer }) {
            self.proof = Some(Proof { term, at, until: Instant::now() + self.patience, answer: answered });
        }
    }

    /// Proposes for this term alone: a member that was voted out in the meantime changes nothing.
    fn ask(
        &mut self,
        keeper: &mut Keeper,
        now: u64,
        term: Term,
        what: What,
        encode: impl FnOnce(Ticket) -> bytes::Bytes,
    ) {
        let ticket = self.asker.ticket();
        let (answer, answered) = oneshot::channel();
        let (kind, payload) = (EntryKind::Normal, encode(ticket));
        let only_in = Some(term);
        #[cfg(mutants)]
        let only_in = only_in
            .filter(|_| self.store.lease_rules().pace.mutant != Some(detcd_core::lease::Mutant::RevokedInAnyTerm));
        let ask = Ask::Propose { ticket, kind, payload, only_in, answer };
        if bounds::KEEPER_ASKS_MAX <= self.asked.len() || !self.asker.try_urgently(ask) {
            return what.fail(keeper, term, Failure::Refused, now);
        }
        self.asked.push(Asked { term, what, until: Instant::now() + self.patience, answer: answered });
    }
}

impl Asked {
    fn fail<B: Backend>(&self, store: &Store<B>, why: Failure) {
        store.with_keeper(|keeper, now| self.what.fail(keeper, self.term, why, now));
    }
}

impl What {
    fn fail(&self, keeper: &mut Keeper, term: Term, why: Failure, now: u64) {
        match self {
            Self::Revoke(id) => keeper.on_revoke_failed(term, *id, why, now),
            Self::Checkpoint(ids) => ids.iter().for_each(|id| keeper.on_checkpoint_failed(term, *id, why, now)),
        }
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use std::sync::Arc;

    use detcd_core::apply::Write;
    use detcd_core::command::Command;
    use detcd_core::ids::{Index, MemberId};
    use detcd_core::lease::LeaseRow;
    use tokio::sync::mpsc;

    use super::*;
    use crate::driver::ask::{Gauges, Tickets};
    use crate::store::leases::LeaseRules;
    use crate::store::memory::MemoryBackend;

    const TERM: Term = Term(3);

    /// A leader that was voted out revokes nothing in a later term, which may have renewed the lease (etcd issue 15247). The simulator cannot see
    /// this: there nothing comes between what the keeper asks for and the driver that takes it.
    #[tokio::test(start_paused = true)]
    async fn revocations_and_checkpoints_hold_in_their_term_alone() {
        let rules = LeaseRules::new(Duration::from_millis(100), 10);
        let store = Store::load(MemoryBackend::default(), rules).await.unwrap();
        let leases =
            [(1, 2), (2, 3_600)].map(|(id, ttl)| Write::Lease(LeaseRow { id: LeaseId(id), ttl, remaining: 0 }));
        store.absorb(leases.to_vec(), &[], Index(1), TERM);
        let (asks, _asks) = mpsc::channel(1);
        let (urgent, mut asked) = mpsc::channel(16);
        let gauges = Arc::new(Gauges::default());
        gauges.elect(TERM);
        let tickets = Tickets::new(MemberId(1), 0);
        let asker = Asker::new(asks, urgent, gauges, tickets);
        tokio::spawn(LeaseKeeper::new(store, asker, Duration::from_secs(7)).run());
        let (mut revoked, mut remembered) = (0, 0);
        while revoked == 0 || remembered == 0 {
            match asked.recv().await.unwrap() {
                Ask::Read { answer } => answer.send(Ok(())).unwrap(),
                Ask::Propose { payload, only_in, .. } => {
                    assert_eq!(only_in, Some(TERM));
                    match entry::decode(payload).unwrap().command {
                        Command::LeaseRevoke(request) => revoked = request.id.0,
                        _ => remembered += 1,
                    }
                }
                other => panic!("a keeper does not ask for {other:?}"),
            }
        }
        assert_eq!(revoked, 1, "the one that was over");
    }

    async fn next(asked: &mut mpsc::Receiver<Ask>) -> Ask {
        let asked = tokio::time::timeout(Duration::from_secs(60), asked.recv()).await;
        asked.expect("it asks for nothing").expect("it is there")
    }

    /// A member that follows, or has no leases, is woken by nothing but what it waits for.
    #[tokio::test(start_paused = true)]
    async fn a_keeper_at_rest_takes_up_what_comes() {
        let rules = LeaseRules::new(Duration::from_millis(100), 10);
        let store = Store::load(MemoryBackend::default(), rules).await.unwrap();
        let (asks, _asks) = mpsc::channel(1);
        let (urgent, mut asked) = mpsc::channel(16);
        let gauges = Arc::new(Gauges::default());
        let asker = Asker::new(asks, urgent, Arc::clone(&gauges), Tickets::new(MemberId(1), 0));
        tokio::spawn(LeaseKeeper::new(store.clone(), asker, Duration::from_secs(7)).run());
        let hour = Duration::from_secs(3_600);
        assert!(tokio::time::timeout(hour, asked.recv()).await.is_err(), "it follows");

        let begin = Instant::now();
        gauges.elect(TERM);
        let Ask::Read { answer } = next(&mut asked).await else { panic!("it proves that it leads") };
        answer.send(Ok(())).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(1), "elected {:?} ago", begin.elapsed());
        assert!(tokio::time::timeout(hour, asked.recv()).await.is_err(), "it has nothing to keep");

        let begin = Instant::now();
        let granted = Write::Lease(LeaseRow { id: LeaseId(1), ttl: 2, remaining: 0 });
        store.absorb(vec![granted], &[], Index(1), TERM);
        let only_in = loop {
            match next(&mut asked).await {
                Ask::Read { answer } => answer.send(Ok(())).unwrap(),
                Ask::Propose { only_in, .. } => break only_in,
                other => panic!("a keeper does not ask for {other:?}"),
            }
        };
        let after = begin.elapsed();
        assert_eq!(only_in, Some(TERM));
        assert!(Duration::from_secs(2) <= after && after < Duration::from_secs(3), "revoked after {after:?}");
    }
}
