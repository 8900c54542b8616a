//! The leader's clockwork against its promises, through pauses, lost answers and changes of leader – and against a slow twin that looks at every
//! lease on every tick.

use std::collections::BTreeMap;

use detcd_core::ids::{LeaseId, Term};
use detcd_core::lease::{Duties, Failure, Keeper, LeaseRow, Pace, Renewal};
use proptest::prelude::*;

const TICK: u64 = 100;
const EXTENSION: u64 = 1_000;

const fn pace(checkpoint_interval: u64) -> Pace {
    Pace {
        extension: EXTENSION,
        gap: 2 * TICK,
        grace: TICK,
        hold: 1_000,
        checkpoint_interval,
        retry: 500,
        revokes_max: 3,
        checkpoints_max: 2,
        #[cfg(mutants)]
        mutant: None,
    }
}

fn row(id: i64, ttl: i64, remaining: i64) -> LeaseRow {
    LeaseRow { id: LeaseId(id), ttl, remaining }
}

/// A keeper that leads in term 1 since `now`.
fn leading(pace: Pace, now: u64, rows: &[LeaseRow]) -> Keeper {
    let mut keeper = Keeper::new(pace);
    assert_eq!(keeper.tick(now, Some(Term(1))), Duties { prove: Some(Term(1)), ..Duties::default() });
    assert!(keeper.on_proof(Term(1), now));
    keeper.promote(Term(1), now, now, rows.iter().copied());
    keeper
}

/// A tick whose proof is given at once.
fn tick(keeper: &mut Keeper, now: u64) -> Duties {
    let duties = keeper.tick(now, Some(Term(1)));
    if let Some(term) = duties.prove {
        assert!(!keeper.on_proof(term, now));
    }
    duties
}

/// The first tick that revokes something, and what.
fn first_revocation(keeper: &mut Keeper, from: u64, upto: u64) -> Option<(u64, Vec<LeaseId>)> {
    (from..=upto).step_by(TICK as usize).find_map(|now| {
        let revoke = tick(keeper, now).revoke;
        (!revoke.is_empty()).then_some((now, revoke))
    })
}

#[test]
fn a_new_leader_gives_every_lease_an_extension() {
    let mut keeper = leading(pace(300_000), 0, &[row(1, 5, 0), row(2, 50, 3)]);
    assert_eq!(keeper.remaining(LeaseId(1), 0), Some(6_000));
    assert_eq!(first_revocation(&mut keeper, 0, 9_000), Some((4_000, vec![LeaseId(2)])), "the stored remainder counts");
    assert_eq!(first_revocation(&mut keeper, 4_100, 9_000), Some((6_000, vec![LeaseId(1)])));
}

#[test]
fn a_renewal_that_waits_through_a_pause_goes_first() {
    let mut keeper = leading(pace(300_000), 0, &[]);
    keeper.on_lease(row(1, 5, 0), 0);
    assert_eq!(first_revocation(&mut keeper, 0, 4_900), None);
    // Nothing ran for half a minute; the first tick after it finds everything over.
    let duties = keeper.tick(30_000, Some(Term(1)));
    assert_eq!(duties, Duties { prove: Some(Term(1)), ..Duties::default() });
    assert_eq!(keeper.renew(LeaseId(1), 30_001), Renewal::Prove(Term(1)), "who knows who leads now?");
    assert!(!keeper.on_proof(Term(1), 29_999));
    assert!(keeper.tick(30_100, Some(Term(1))).revoke.is_empty(), "a proof from before the end of the pause is none");
    assert!(!keeper.on_proof(Term(1), 30_100));
    assert_eq!(keeper.renew(LeaseId(1), 30_150), Renewal::Renewed { ttl: 5 });
    assert_eq!(first_revocation(&mut keeper, 30_200, 40_000), Some((35_200, vec![LeaseId(1)])));
}

#[test]
fn a_renewal_waits_until_what_is_stored_is_cleared() {
    let mut keeper = leading(pace(2_000), 0, &[]);
    keeper.on_lease(row(1, 10, 0), 0);
    let mut checkpoints = Vec::new();
    for now in (100..=2_000).step_by(100) {
        checkpoints.extend(tick(&mut keeper, now).checkpoint);
    }
    assert_eq!(checkpoints.iter().map(|each| each.remaining_ttl).collect::<Vec<_>>(), [8]);
    assert_eq!(keeper.renew(LeaseId(1), 2_010), Renewal::Clear(Term(1)), "it may reach the table yet");
    keeper.on_lease(row(1, 10, 0), 2_020);
    assert_eq!(keeper.renew(LeaseId(1), 2_030), Renewal::Clear(Term(1)), "that was not it");
    keeper.on_lease(row(1, 10, 8), 2_040);
    assert_eq!(keeper.renew(LeaseId(1), 2_050), Renewal::Clear(Term(1)));
    keeper.on_lease(row(1, 10, 0), 2_060);
    assert_eq!(keeper.renew(LeaseId(1), 2_070), Renewal::Renewed { ttl: 10 });
}

#[test]
fn a_renewal_that_waits_for_the_log_is_not_overtaken_by_the_end() {
    let mut keeper = leading(pace(300_000), 0, &[row(1, 9, 3)]);
    assert_eq!(first_revocation(&mut keeper, 0, 3_900), None);
    assert_eq!(keeper.renew(LeaseId(1), 3_950), Renewal::Clear(Term(1)));
    assert_eq!(first_revocation(&mut keeper, 4_000, 9_000), Some((5_000, vec![LeaseId(1)])), "it was spared");
}

#[test]
fn a_renewal_that_waits_for_a_proof_is_not_overtaken_by_the_end() {
    let mut keeper = leading(pace(300_000), 0, &[]);
    keeper.on_lease(row(1, 3, 0), 0);
    keeper.on_lease(row(2, 3, 0), 0);
    let unproved = |keeper: &mut Keeper, now| keeper.tick(now, Some(Term(1))).revoke;
    assert!((TICK..=2_900).step_by(TICK as usize).all(|now| unproved(&mut keeper, now).is_empty()));
    assert_eq!(keeper.renew(LeaseId(1), 2_950), Renewal::Prove(Term(1)), "the last proof is too old");
    // The proof was asked for then, and comes when both would be over.
    assert!(unproved(&mut keeper, 3_000).is_empty() && !keeper.on_proof(Term(1), 3_000));
    assert_eq!(unproved(&mut keeper, 3_100), [LeaseId(2)], "whose client has not come");
    assert_eq!(keeper.renew(LeaseId(1), 3_150), Renewal::Renewed { ttl: 3 });
    assert_eq!(first_revocation(&mut keeper, 3_200, 9_000), Some((6_200, vec![LeaseId(1)])));
}

#[test]
fn a_lease_that_is_being_revoked_is_not_renewed() {
    let mut keeper = leading(pace(300_000), 0, &[row(1, 2, 0)]);
    assert_eq!(first_revocation(&mut keeper, 0, 9_000), Some((3_000, vec![LeaseId(1)])));
    assert_eq!(keeper.renew(LeaseId(1), 3_010), Renewal::Ending);
    assert_eq!(keeper.remaining(LeaseId(1), 3_010), Some(0));
    keeper.on_revoke_failed(Term(1), LeaseId(1), Failure::Rejected, 3_020);
    assert_eq!(first_revocation(&mut keeper, 3_100, 9_000), Some((3_600, vec![LeaseId(1)])), "it is tried again");
    keeper.on_revoke_failed(Term(1), LeaseId(1), Failure::Unanswered, 3_620);
    assert_eq!(keeper.renew(LeaseId(1), 3_630), Renewal::Ending, "the one before may be in the log");
    assert_eq!(first_revocation(&mut keeper, 3_700, 9_000), Some((4_200, vec![LeaseId(1)])));
    keeper.on_revoke_failed(Term(1), LeaseId(1), Failure::Refused, 4_210);
    assert_eq!(keeper.renew(LeaseId(1), 4_220), Renewal::Ending, "it still may");
    keeper.on_removed(LeaseId(1));
    assert_eq!(keeper.renew(LeaseId(1), 4_230), Renewal::Missing);
    assert_eq!(first_revocation(&mut keeper, 4_300, 9_000), None);
}

/// A leader that hands over refuses its own revocations too, for up to an election timeout.
#[test]
fn a_refused_revocation_is_due_again_on_the_next_tick() {
    let mut keeper = leading(pace(300_000), 0, &[row(1, 2, 0)]);
    assert_eq!(first_revocation(&mut keeper, 0, 2_900), None);
    for now in (3_000..4_000).step_by(100) {
        assert_eq!(first_revocation(&mut keeper, now, now), Some((now, vec![LeaseId(1)])));
        keeper.on_revoke_failed(Term(1), LeaseId(1), Failure::Refused, now + 1);
        assert_eq!(tick(&mut keeper, now + 1).revoke, [LeaseId(1)]);
        keeper.on_revoke_failed(Term(1), LeaseId(1), Failure::Refused, now + 1);
    }
    assert_eq!(keeper.renew(LeaseId(1), 4_000), Renewal::Renewed { ttl: 2 }, "nothing of it is in the log");
    assert_eq!(first_revocation(&mut keeper, 4_000, 9_000), Some((6_000, vec![LeaseId(1)])));
}

#[test]
fn a_keeper_is_at_rest_while_it_has_nothing_to_keep() {
    let mut keeper = Keeper::new(pace(300_000));
    assert!(keeper.is_at_rest());
    keeper.tick(0, Some(Term(1)));
    assert!(!keeper.is_at_rest(), "it waits for its proof");
    let mut keeper = leading(pace(300_000), 0, &[]);
    assert!(keeper.is_at_rest());
    keeper.on_lease(row(1, 2, 0), 0);
    assert!(!keeper.is_at_rest());
    keeper.on_removed(LeaseId(1));
    assert!(keeper.is_at_rest());
}

#[test]
fn many_ends_are_spread_over_ticks() {
    let rows: Vec<LeaseRow> = (1..=8).map(|id| row(id, 2, 0)).collect();
    let mut keeper = leading(pace(300_000), 0, &rows);
    let mut counts = Vec::new();
    for now in (100..=3_500).step_by(100) {
        counts.push(tick(&mut keeper, now).revoke.len());
    }
    assert_eq!(counts[29..], [3, 3, 2, 0, 0, 0]);
}

#[test]
fn who_does_not_lead_keeps_nothing() {
    let mut keeper = leading(pace(300_000), 0, &[row(1, 2, 0)]);
    assert_eq!(keeper.tick(100, None), Duties::default());
    assert_eq!((keeper.renew(LeaseId(1), 110), keeper.by_deadline()), (Renewal::NotLeading, None));
    assert_eq!(keeper.tick(200, Some(Term(3))).prove, Some(Term(3)));
    assert_eq!(keeper.renew(LeaseId(1), 210), Renewal::Prove(Term(3)));
    assert!(!keeper.on_proof(Term(2), 220), "a proof of another term is none");
    assert!(keeper.on_proof(Term(3), 220));
}

/// What happens next.
#[derive(Clone, Debug)]
enum Act {
    /// A tick after so long; whether its proof comes, what becomes of what it asks for.
    Tick(u64, bool, Fate),
    /// So long without a tick.
    Pause(u64),
    Grant(i64, i64),
    /// A renewal at the leader, or at the one before it.
    Renew(i64, bool),
    /// What was under way arrives.
    Settle,
    /// Another member leads.
    Change,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Applied,
    Refused,
    UnderWay,
    /// It arrives later, and nobody waits for it any more.
    GivenUp,
}

fn act() -> impl Strategy<Value = Act> {
    let fate =
        || prop::sample::select(vec![Fate::Applied, Fate::Applied, Fate::Refused, Fate::UnderWay, Fate::GivenUp]);
    prop_oneof![
        12 => (1..=TICK, prop::bool::weighted(0.9), fate()).prop_map(|(after, proof, fate)| Act::Tick(after, proof, fate)),
        2 => (1..9_000u64).prop_map(Act::Pause),
        2 => (1..5i64, 2..9i64).prop_map(|(id, ttl)| Act::Grant(id, ttl)),
        6 => (1..5i64, prop::bool::weighted(0.3)).prop_map(|(id, before)| Act::Renew(id, before)),
        2 => Just(Act::Settle),
        1 => Just(Act::Change),
    ]
}

/// A cluster as its leases see it: one table, the leader's keeper, and the one of the leader before it, who does not know.
struct World {
    now: u64,
    term: Term,
    table: BTreeMap<LeaseId, LeaseRow>,
    /// How long each lease was promised to live.
    promises: BTreeMap<LeaseId, u64>,
    keeper: Keeper,
    before: Option<Keeper>,
    revocations: Vec<LeaseId>,
    checkpoints: Vec<LeaseRow>,
}

impl World {
    fn new() -> Self {
        let (table, promises) = (BTreeMap::new(), BTreeMap::new());
        let keeper = leading(pace(2_000), 0, &[]);
        let (revocations, checkpoints) = (Vec::new(), Vec::new());
        Self { now: 0, term: Term(1), table, promises, keeper, before: None, revocations, checkpoints }
    }

    fn play(&mut self, act: &Act) {
        match *act {
            Act::Pause(millis) => self.now += millis,
            Act::Tick(after, proof, fate) => self.tick(after, proof, fate),
            Act::Grant(id, ttl) => self.grant(row(id, ttl, 0)),
            Act::Renew(id, true) => {
                let now = self.now;
                let renewal = self.before.as_mut().map(|before| before.renew(LeaseId(id), now));
                if let Some(Renewal::Renewed { ttl }) = renewal {
                    self.promise(LeaseId(id), ttl);
                }
            }
            Act::Renew(id, false) => self.renew(LeaseId(id)),
            Act::Settle => self.settle(true),
            Act::Change => self.change(),
        }
    }

    fn promise(&mut self, id: LeaseId, ttl: i64) {
        assert!(self.table.contains_key(&id), "no answer about {id:?}, which is gone");
        let until = self.promises.entry(id).or_default();
        *until = (*until).max(self.now + 1000 * ttl as u64);
    }

    fn tick(&mut self, after: u64, proof: bool, fate: Fate) {
        self.now += after;
        let duties = self.keeper.tick(self.now, Some(self.term));
        if proof && let Some(term) = duties.prove {
            assert!(!self.keeper.on_proof(term, self.now));
        }
        assert!(duties.revoke.len() <= 3 && duties.checkpoint.len() <= 2);
        for id in duties.revoke {
            assert!(self.promises[&id] <= self.now, "{id:?} is revoked early");
            match fate {
                Fate::Refused => self.keeper.on_revoke_failed(self.term, id, Failure::Refused, self.now),
                Fate::Applied | Fate::UnderWay => self.revocations.push(id),
                Fate::GivenUp => {
                    self.revocations.push(id);
                    self.keeper.on_revoke_failed(self.term, id, Failure::Unanswered, self.now);
                }
            }
        }
        for each in duties.checkpoint {
            match fate {
                Fate::Refused => self.keeper.on_checkpoint_failed(self.term, each.id, Failure::Refused, self.now),
                Fate::Applied | Fate::UnderWay | Fate::GivenUp => {
                    self.checkpoints.push(LeaseRow { remaining: each.remaining_ttl, ..self.table[&each.id] });
                    if matches!(fate, Fate::GivenUp) {
                        self.keeper.on_checkpoint_failed(self.term, each.id, Failure::Unanswered, self.now);
                    }
                }
            }
        }
        if matches!(fate, Fate::Applied) {
            self.settle(true);
        }
    }

    /// The log takes in what was under way, or drops it.
    fn settle(&mut self, is_kept: bool) {
        for row in std::mem::take(&mut self.checkpoints) {
            if is_kept && self.table.contains_key(&row.id) {
                self.store(row);
            }
        }
        for id in std::mem::take(&mut self.revocations) {
            if is_kept {
                self.table.remove(&id);
                self.promises.remove(&id);
                self.keeper.on_removed(id);
            }
        }
    }

    fn store(&mut self, row: LeaseRow) {
        self.table.insert(row.id, row);
        self.keeper.on_lease(row, self.now);
    }

    fn grant(&mut self, row: LeaseRow) {
        if !self.table.contains_key(&row.id) {
            self.store(row);
            self.promise(row.id, row.ttl);
        }
    }

    fn renew(&mut self, id: LeaseId) {
        for _ in 0..3 {
            match self.keeper.renew(id, self.now) {
                Renewal::Renewed { ttl } => return self.promise(id, ttl),
                Renewal::Missing => return assert!(!self.table.contains_key(&id), "it was said to be gone"),
                Renewal::Ending => return assert!(self.revocations.contains(&id), "nobody revokes it"),
                Renewal::Prove(term) => assert!(!self.keeper.on_proof(term, self.now)),
                Renewal::Clear(term) => {
                    assert_eq!(term, self.term);
                    // The log's order: checkpoints that are under way first.
                    let revocations = std::mem::take(&mut self.revocations);
                    self.settle(true);
                    self.revocations = revocations;
                    self.store(LeaseRow { remaining: 0, ..self.table[&id] });
                }
                Renewal::NotLeading => panic!("it leads"),
            }
        }
        panic!("a renewal that never ends");
    }

    fn change(&mut self) {
        // The old leader's last entries may have come through, or not.
        let is_kept = self.now.is_multiple_of(2);
        self.settle(is_kept);
        self.term = self.term.next();
        let mut next = Keeper::new(pace(2_000));
        next.tick(self.now, Some(self.term));
        assert!(next.on_proof(self.term, self.now));
        next.promote(self.term, self.now, self.now, self.table.values().copied());
        self.before = Some(std::mem::replace(&mut self.keeper, next));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_lease_ends_before_what_was_promised(acts in prop::collection::vec(act(), 1..120)) {
        let mut world = World::new();
        for act in &acts {
            world.play(act);
        }
        // Whatever it was: in the end every lease goes, not long after the last promise and a leader's extension.
        let last = world.promises.values().copied().max().unwrap_or(0).max(world.now + 9_000) + 2 * EXTENSION + 1_000;
        while world.now < last {
            world.tick(TICK, true, Fate::Applied);
        }
        prop_assert_eq!(world.table.len(), 0);
    }

    #[test]
    fn in_quiet_times_the_ends_are_the_slow_twins(
        starts in prop::collection::vec((1..9i64, 2..6i64), 0..9),
        renewals in prop::collection::vec((0..80u64, 1..9i64), 0..30),
    ) {
        let mut keeper = leading(Pace { revokes_max: 100, ..pace(300_000) }, 0, &[]);
        let mut slow: BTreeMap<LeaseId, (i64, u64)> = BTreeMap::new();
        for (id, ttl) in starts {
            slow.entry(LeaseId(id)).or_insert_with(|| {
                keeper.on_lease(row(id, ttl, 0), 0);
                (ttl, 1000 * ttl as u64)
            });
        }
        for at in 0..80 {
            let now = 100 * at;
            let due: Vec<LeaseId> = slow.iter().filter(|(_, (_, end))| *end <= now).map(|(id, _)| *id).collect();
            let mut revoked = tick(&mut keeper, now).revoke;
            revoked.sort_unstable();
            prop_assert_eq!(&revoked, &due);
            for id in due {
                slow.remove(&id);
                keeper.on_removed(id);
            }
            let mut by_deadline: Vec<(u64, LeaseId)> = slow.iter().map(|(id, (_, end))| (*end, *id)).collect();
            by_deadline.sort_unstable();
            prop_assert_eq!(keeper.by_deadline(), Some(by_deadline.into_iter().map(|(_, id)| id).collect()));
            for (_, id) in renewals.iter().filter(|(when, _)| *when == at) {
                let id = LeaseId(*id);
                let expected = slow.get_mut(&id).map_or(Renewal::Missing, |(ttl, end)| {
                    *end = now + 1000 * *ttl as u64;
                    Renewal::Renewed { ttl: *ttl }
                });
                let mut renewal = keeper.renew(id, now);
                if slow.is_empty() && renewal == Renewal::Prove(Term(1)) {
                    // Who keeps nothing proves nothing until somebody asks.
                    keeper.on_proof(Term(1), now);
                    renewal = keeper.renew(id, now);
                }
                prop_assert_eq!(renewal, expected);
            }
        }
    }
}
