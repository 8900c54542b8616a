//! Leases through the one door, against a slow twin: a plain list of leases and a look at every key for who hangs where.

use std::collections::BTreeMap;

use bytes::Bytes;
use detcd_core::apply::{Event, EventKind, Outcome, Write};
use detcd_core::command::{
    Command, LeaseCheckpoint, LeaseCheckpointRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
};
use detcd_core::ids::{LeaseId, Revision};
use detcd_core::lease::{LeaseRow, LeaseTable, TTL_SECONDS_MAX};
use detcd_core::mvcc::ReadPoint;
use detcd_core::reply::{LeaseGranted, Rejected, Reply};
use proptest::prelude::*;

mod support;
use detcd_tests::apply::store::{Store, bytes, put, range};
use support::{any_delete, any_put, any_slices, any_txn};

fn grant(id: i64, ttl: i64) -> Command {
    Command::LeaseGrant(LeaseGrantRequest { ttl, id: LeaseId(id) })
}

fn revoke(id: i64) -> Command {
    Command::LeaseRevoke(LeaseRevokeRequest { id: LeaseId(id) })
}

fn checkpoint(times: &[(i64, i64)]) -> Command {
    let each = |(id, remaining_ttl): &(i64, i64)| LeaseCheckpoint { id: LeaseId(*id), remaining_ttl: *remaining_ttl };
    Command::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints: times.iter().map(each).collect() })
}

fn refused(rejected: Rejected) -> Outcome {
    Outcome { reply: Err(rejected), writes: vec![], events: vec![] }
}

#[test]
fn a_grant_is_raised_to_the_least_and_refused_by_etcds_rules() {
    let mut store = Store::default();
    for (id, ttl, granted) in [(5, 60, 60), (-6, 1, 2), (7, -3, 2), (8, TTL_SECONDS_MAX, TTL_SECONDS_MAX)] {
        let outcome = store.apply(grant(id, ttl), &[1]);
        let id = LeaseId(id);
        assert_eq!(outcome.reply, Ok(Reply::LeaseGrant(LeaseGranted { id, ttl: granted })));
        assert_eq!(outcome.writes, [Write::Lease(LeaseRow { id, ttl: granted, remaining: 0 })]);
    }
    assert_eq!((store.current, store.leases.rows().len()), (1, 6), "no revision is spent on a lease");
    assert_eq!(store.outcome(grant(5, 60), &[1]), refused(Rejected::LeaseExists));
    assert_eq!(store.outcome(grant(5, TTL_SECONDS_MAX + 1), &[1]), refused(Rejected::LeaseTtlTooLarge));
    assert_eq!(store.outcome(grant(0, TTL_SECONDS_MAX + 1), &[1]), refused(Rejected::LeaseNotFound));
}

#[test]
fn a_revocation_deletes_the_keys_in_order_and_in_one_revision() {
    let mut store = Store::default();
    for key in ["c", "a", "b", "d"] {
        store.apply(Command::Put(PutRequest { lease: LeaseId(1), ..put(key, "") }), &[1]);
    }
    store.put("b", "without");
    let outcome = store.apply(revoke(1), &[2, 1]);
    let at = |sub| Revision::new(7, sub);
    let tombstone = |sub, key| Write::Tombstone { revision: at(sub), key: bytes(key) };
    let writes = vec![tombstone(0, "a"), tombstone(1, "c"), tombstone(2, "d"), Write::LeaseRemoved(LeaseId(1))];
    let event = |sub, prev| Event { kind: EventKind::Delete, revision: at(sub), prev: Some(Revision::new(prev, 0)) };
    let events = vec![event(0, 3), event(1, 2), event(2, 5)];
    assert_eq!(outcome, Outcome { reply: Ok(Reply::Empty), writes, events });
    assert_eq!(store.outcome(revoke(1), &[1]), refused(Rejected::LeaseNotFound));
    let empty = store.apply(revoke(-2), &[1]);
    assert_eq!((empty.writes, store.current), (vec![Write::LeaseRemoved(LeaseId(-2))], 7), "no key, no revision");
}

#[test]
fn a_checkpoint_passes_over_what_is_gone() {
    let mut store = Store::default();
    let outcome = store.apply(checkpoint(&[(9, 1), (1, 30), (-2, 0)]), &[1]);
    let row = |id, remaining| Write::Lease(LeaseRow { id: LeaseId(id), ttl: 60, remaining });
    assert_eq!(outcome, Outcome { reply: Ok(Reply::Empty), writes: vec![row(1, 30), row(-2, 0)], events: vec![] });
    let allowances: Vec<_> = store.leases.rows().map(|row| row.allowance()).collect();
    assert_eq!(allowances, [60, 30]);
}

#[test]
fn a_key_that_names_a_lease_that_is_not_there_hangs_on_none() {
    let mut table = LeaseTable::default();
    table.attach(&bytes("k"), LeaseId(4));
    assert_eq!(table.keys(LeaseId(4), None, usize::MAX), Vec::<Bytes>::new());
    assert_eq!(table.rows().len(), 0);
    table.detach(&bytes("k"));
}

/// The slow twin: leases as a list, attachments by a look at every live key.
#[derive(Default)]
struct Slow {
    leases: BTreeMap<LeaseId, (i64, i64)>,
}

impl Slow {
    fn attachments(store: &Store) -> BTreeMap<LeaseId, Vec<Bytes>> {
        let all = range("\0", "\0");
        let kvs = store.range_at(&all, &ReadPoint::now(store), &[usize::MAX]).expect("lawful").kvs;
        let mut attached: BTreeMap<LeaseId, Vec<Bytes>> = BTreeMap::new();
        for kv in kvs.into_iter().filter(|kv| kv.lease != LeaseId(0)) {
            attached.entry(kv.lease).or_default().push(kv.key);
        }
        attached
    }

    fn play(&mut self, command: &Command) -> Option<Result<(), Rejected>> {
        match command {
            Command::LeaseGrant(LeaseGrantRequest { id, ttl }) => Some(if self.leases.contains_key(id) {
                Err(Rejected::LeaseExists)
            } else {
                self.leases.insert(*id, ((*ttl).max(2), 0));
                Ok(())
            }),
            Command::LeaseRevoke(LeaseRevokeRequest { id }) => {
                Some(self.leases.remove(id).map(|_| ()).ok_or(Rejected::LeaseNotFound))
            }
            Command::LeaseCheckpoint(request) => {
                for each in &request.checkpoints {
                    if let Some(lease) = self.leases.get_mut(&each.id) {
                        lease.1 = each.remaining_ttl;
                    }
                }
                Some(Ok(()))
            }
            _ => None,
        }
    }
}

fn any_command() -> impl Strategy<Value = Command> {
    let id = || prop::sample::select(vec![1i64, -2, 9]);
    prop_oneof![
        6 => any_put().prop_map(Command::Put),
        2 => any_delete().prop_map(Command::DeleteRange),
        3 => any_txn().prop_map(Command::Txn),
        3 => (id(), 0..9i64).prop_map(|(id, ttl)| grant(id, ttl)),
        2 => id().prop_map(revoke),
        1 => prop::collection::vec((id(), 0..9i64), 0..3).prop_map(|times| checkpoint(&times)),
    ]
}

proptest! {
    #[test]
    fn the_table_is_what_the_keys_and_the_slow_twin_say(
        commands in prop::collection::vec((any_command(), any_slices()), 0..40)
    ) {
        let mut store = Store::default();
        let mut slow = Slow { leases: [(LeaseId(1), (60, 0)), (LeaseId(-2), (60, 0))].into() };
        for (command, slices) in commands {
            let before = Slow::attachments(&store);
            let outcome = store.apply(command.clone(), &slices);
            if let Some(expected) = slow.play(&command) {
                prop_assert_eq!(outcome.reply.map(|_| ()), expected, "{:?}", command);
            }
            let rows: BTreeMap<_, _> = store.leases.rows().map(|row| (row.id, (row.ttl, row.remaining))).collect();
            prop_assert_eq!(&rows, &slow.leases);
            let attached = Slow::attachments(&store);
            for id in [1, -2, 9].map(LeaseId) {
                let expected = attached.get(&id).cloned().unwrap_or_default();
                prop_assert_eq!(store.leases.keys(id, None, usize::MAX), expected);
            }
            if let Command::LeaseRevoke(LeaseRevokeRequest { id }) = command {
                let gone = before.get(&id).map_or(0, Vec::len);
                prop_assert_eq!(outcome.events.len(), if rows.contains_key(&id) { 0 } else { gone });
                prop_assert!(!attached.contains_key(&id), "keys go with their lease");
            }
        }
    }
}
