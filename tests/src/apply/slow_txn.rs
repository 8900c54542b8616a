//! The slow twin of a transaction: it copies the whole state, writes into the copy and reads from it at once.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use bytes::Bytes;
use detcd_core::apply::{EventKind, Outcome, Write};
use detcd_core::command::{
    Compare, CompareOperand, CompareResult, CompareTarget, DeleteRangeRequest, Op, PutRequest, RangeRequest, TxnRequest,
};
use detcd_core::ids::{LeaseId, Revision};
use detcd_core::mvcc::{KeyValue, RangeReply};
use detcd_core::reply::{OpReply, Rejected, TxnReply};

use super::slow::{self, History, State};
use super::store::Store;

/// What a client is told, with every row filled in.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Range(RangeReply),
    Put { revision: i64, prev: Option<KeyValue> },
    Delete { revision: i64, deleted: i64, prev: Vec<KeyValue> },
    Txn { revision: i64, succeeded: bool, responses: Vec<Self> },
}

/// One change, as a watcher is told: the row (none: deleted), the key, and what was there before the transaction.
pub type Change = (Option<KeyValue>, Bytes, Option<KeyValue>);

/// The slow twin: one transaction on a copy.
struct Slow<'a> {
    history: &'a History,
    leases: &'a BTreeSet<LeaseId>,
    before: &'a State,
    now: State,
    changes: Vec<Change>,
}

impl Slow<'_> {
    fn base(&self) -> i64 {
        self.history.current()
    }

    fn revision(&self) -> i64 {
        self.base() + i64::from(!self.changes.is_empty())
    }

    fn holds(&self, compare: &Compare) -> bool {
        let stored_to_given = |kv: &KeyValue| match (compare.target, &compare.operand) {
            (CompareTarget::Version, CompareOperand::Version(given)) => kv.version.cmp(given),
            (CompareTarget::Create, CompareOperand::Create(given)) => kv.created.cmp(given),
            (CompareTarget::Mod, CompareOperand::Mod(given)) => kv.modified.cmp(given),
            (CompareTarget::Lease, CompareOperand::Lease(given)) => kv.lease.0.cmp(given),
            (CompareTarget::Value, CompareOperand::Value(given)) => kv.value.cmp(given),
            (CompareTarget::Version, _) => kv.version.cmp(&0),
            (CompareTarget::Create, _) => kv.created.cmp(&0),
            (CompareTarget::Mod, _) => kv.modified.cmp(&0),
            (CompareTarget::Lease, _) => kv.lease.0.cmp(&0),
            (CompareTarget::Value, _) => kv.value.len().cmp(&0),
            (CompareTarget::Unknown(_), _) => Ordering::Equal,
        };
        let holds = |kv: &KeyValue| match compare.result {
            CompareResult::Equal => stored_to_given(kv).is_eq(),
            CompareResult::Greater => stored_to_given(kv).is_gt(),
            CompareResult::Less => stored_to_given(kv).is_lt(),
            CompareResult::NotEqual => stored_to_given(kv).is_ne(),
            CompareResult::Unknown(_) => true,
        };
        let keys: Vec<&KeyValue> =
            self.before.values().filter(|kv| slow::is_in(&kv.key, &compare.key, &compare.range_end)).collect();
        if keys.is_empty() {
            return compare.target != CompareTarget::Value && holds(&KeyValue::default());
        }
        keys.into_iter().all(holds)
    }

    /// The operations that run, the compares of this transaction and all inside it judged by the state before.
    fn way<'t>(&self, txn: &'t TxnRequest) -> (bool, &'t [Op]) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        (succeeded, if succeeded { &txn.success } else { &txn.failure })
    }

    fn check(&self, txn: &TxnRequest) -> Result<(), Rejected> {
        for op in self.way(txn).1 {
            match op {
                Op::Range(RangeRequest { revision: 0, .. }) | Op::DeleteRange(_) | Op::Empty => {}
                Op::Range(range) if range.revision > self.base() => return Err(Rejected::FutureRevision),
                Op::Range(range) if range.revision < self.history.compacted => return Err(Rejected::Compacted),
                Op::Range(_) => {}
                Op::Put(put) if put.lease.0 != 0 && !self.leases.contains(&put.lease) => {
                    return Err(Rejected::LeaseNotFound);
                }
                Op::Put(put) if (put.ignore_value || put.ignore_lease) && !self.before.contains_key(&put.key) => {
                    return Err(Rejected::KeyNotFound);
                }
                Op::Put(_) => {}
                Op::Txn(inner) => self.check(inner)?,
            }
        }
        Ok(())
    }

    fn run(&mut self, txn: &TxnRequest) -> Result<Told, Rejected> {
        let (succeeded, ops) = self.way(txn);
        let mut responses = Vec::new();
        for op in ops {
            responses.push(match op {
                Op::Range(range) => Told::Range(self.range(range)),
                Op::Put(put) => self.put(put)?,
                Op::DeleteRange(delete) => self.delete(delete),
                Op::Txn(inner) => self.run(inner)?,
                Op::Empty => panic!("not tried here"),
            });
        }
        Ok(Told::Txn { revision: 0, succeeded, responses })
    }

    fn range(&self, request: &RangeRequest) -> RangeReply {
        let state = if request.revision <= 0 { &self.now } else { &self.history.states[request.revision as usize] };
        slow::range(state, request, self.revision())
    }

    fn put(&mut self, request: &PutRequest) -> Result<Told, Rejected> {
        let old = self.now.get(&request.key).cloned();
        let modified = self.base() + 1;
        let mut kv = KeyValue {
            key: request.key.clone(),
            created: old.as_ref().map_or(modified, |old| old.created),
            modified,
            version: old.as_ref().map_or(0, |old| old.version) + 1,
            value: request.value.clone(),
            lease: request.lease,
        };
        if request.ignore_value {
            kv.value = old.as_ref().ok_or(Rejected::KeyNotFound)?.value.clone();
        }
        if request.ignore_lease {
            kv.lease = old.as_ref().ok_or(Rejected::KeyNotFound)?.lease;
        }
        self.now.insert(kv.key.clone(), kv.clone());
        let before = self.before.get(&kv.key).cloned();
        self.changes.push((Some(kv), request.key.clone(), before));
        Ok(Told::Put { revision: modified, prev: old.filter(|_| request.prev_kv) })
    }

    fn delete(&mut self, request: &DeleteRangeRequest) -> Told {
        let gone: Vec<KeyValue> =
            self.now.values().filter(|kv| slow::is_in(&kv.key, &request.key, &request.range_end)).cloned().collect();
        for kv in &gone {
            self.now.remove(&kv.key);
            self.changes.push((None, kv.key.clone(), self.before.get(&kv.key).cloned()));
        }
        let deleted = gone.len() as i64;
        Told::Delete { revision: self.revision(), deleted, prev: if request.prev_kv { gone } else { Vec::new() } }
    }
}

/// What a transaction comes to by the slow twin: the answer, the changes, the state after it.
pub fn slowly(
    history: &History,
    leases: &BTreeSet<LeaseId>,
    txn: &TxnRequest,
) -> (Result<Told, Rejected>, Vec<Change>, State) {
    let before = history.states.last().expect("a state");
    let mut slow = Slow { history, leases, before, now: before.clone(), changes: Vec::new() };
    let told = slow.check(txn).and_then(|()| slow.run(txn)).map(|told| match told {
        Told::Txn { succeeded, responses, .. } => Told::Txn { revision: slow.revision(), succeeded, responses },
        told => told,
    });
    match told {
        Ok(_) => (told, slow.changes, slow.now),
        Err(_) => (told, Vec::new(), before.clone()),
    }
}

/// What a client is told, all rows read and ranges evaluated after the transaction was carried out.
pub fn tell(store: &Store, reply: &TxnReply, slices: &[usize]) -> Told {
    let row = |at: &Revision| store.rows[at].clone();
    let tell_op = |op: &OpReply| match op {
        OpReply::Range(read) => Told::Range(store.range_at(&read.request, &read.point, slices).expect("was checked")),
        OpReply::Put(reply) => Told::Put { revision: reply.revision, prev: reply.prev.as_ref().map(row) },
        OpReply::DeleteRange(reply) => {
            let prev = reply.prev.iter().map(row).collect();
            Told::Delete { revision: reply.revision, deleted: reply.deleted, prev }
        }
        OpReply::Txn(reply) => tell(store, reply, slices),
        OpReply::Empty => panic!("not tried here"),
    };
    let responses = reply.responses.iter().map(tell_op).collect();
    Told::Txn { revision: reply.revision, succeeded: reply.succeeded, responses }
}

/// The changes of an outcome as a watcher is told them.
pub fn changes(store: &Store, outcome: &Outcome) -> Vec<Change> {
    let rows = |write: &&Write| matches!(write, Write::Row { .. } | Write::Tombstone { .. });
    let writes: Vec<&Write> = outcome.writes.iter().filter(rows).collect();
    assert_eq!(writes.len(), outcome.events.len(), "each change is told");
    let change = |(sub, (write, event)): (usize, (&Write, &detcd_core::apply::Event))| {
        let (kv, key, revision, kind) = match write {
            Write::Row { revision, kv } => (Some(kv.clone()), kv.key.clone(), revision, EventKind::Put),
            Write::Tombstone { revision, key } => (None, key.clone(), revision, EventKind::Delete),
            other => panic!("not a change of a key: {other:?}"),
        };
        assert_eq!((event.revision, event.kind), (*revision, kind));
        assert_eq!(revision.sub, sub as i64);
        (kv, key, event.prev.map(|at| store.rows[&at].clone()))
    };
    writes.into_iter().zip(&outcome.events).enumerate().map(change).collect()
}
