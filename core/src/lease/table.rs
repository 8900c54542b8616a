//! The replicated table: which leases there are, and which keys hang on them.
//!
//! It follows from the writes of apply alone, so every member has the same one. It holds durations and no moments. Keys without a
//! lease cost nothing here. Invariant: a key hangs on at most one lease, on one that exists, and both sides say so.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;

use crate::apply::Write;
use crate::ids::LeaseId;

/// What is stored of a lease.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct LeaseRow {
    /// Which.
    pub id: LeaseId,
    /// The time to live that was granted, in seconds.
    pub ttl: i64,
    /// What a new leader gives it, in seconds, from the last checkpoint; zero or less: all of it.
    pub remaining: i64,
}

impl LeaseRow {
    /// What a new leader gives it, in seconds.
    #[must_use]
    pub const fn allowance(&self) -> i64 {
        if 0 < self.remaining { self.remaining } else { self.ttl }
    }
}

/// All leases and their keys.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct LeaseTable {
    leases: BTreeMap<LeaseId, Held>,
    attached: BTreeMap<Bytes, LeaseId>,
}

#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct Held {
    ttl: i64,
    remaining: i64,
    keys: BTreeSet<Bytes>,
}

impl LeaseTable {
    /// Takes in one write of apply.
    pub fn on_write(&mut self, write: &Write) {
        match write {
            Write::Row { kv, .. } => self.attach(&kv.key, kv.lease),
            Write::Tombstone { key, .. } => self.detach(key),
            Write::Lease(row) => {
                let held = self.leases.entry(row.id).or_default();
                (held.ttl, held.remaining) = (row.ttl, row.remaining);
            }
            Write::LeaseRemoved(id) => {
                for key in self.leases.remove(id).map(|held| held.keys).unwrap_or_default() {
                    self.attached.remove(&key);
                }
            }
            _ => {}
        }
    }

    /// The live row of `key` names `lease`. One that does not exist is passed over, as etcd does with stores that say so.
    pub fn attach(&mut self, key: &[u8], lease: LeaseId) {
        if lease == LeaseId(0) {
            return self.detach(key);
        }
        if self.attached.get(key) == Some(&lease) {
            return;
        }
        self.detach(key);
        if let Some(held) = self.leases.get_mut(&lease) {
            // A copy, since the key is a slice of a whole request.
            let key = Bytes::copy_from_slice(key);
            held.keys.insert(key.clone());
            self.attached.insert(key, lease);
        }
    }

    /// `key` is gone, or names no lease any more.
    pub fn detach(&mut self, key: &[u8]) {
        if self.attached.is_empty() {
            return;
        }
        if let Some(lease) = self.attached.remove(key) {
            let held = self.leases.get_mut(&lease).expect("a key hangs on a lease that exists");
            assert!(held.keys.remove(key), "both sides of an attachment agree");
        }
    }

    /// A lease.
    #[must_use]
    pub fn get(&self, id: LeaseId) -> Option<LeaseRow> {
        self.leases.get(&id).map(|held| held.row(id))
    }

    /// The next keys of a lease after `after`, in key order, at most so many.
    #[must_use]
    pub fn keys(&self, id: LeaseId, after: Option<&[u8]>, max: usize) -> Vec<Bytes> {
        let Some(held) = self.leases.get(&id) else { return Vec::new() };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        held.keys.range::<[u8], _>((start, Bound::Unbounded)).take(max).cloned().collect()
    }

    /// All leases, by id.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = LeaseRow> + '_ {
        self.leases.iter().map(|(id, held)| held.row(*id))
    }
}

impl Held {
    const fn row(&self, id: LeaseId) -> LeaseRow {
        LeaseRow { id, ttl: self.ttl, remaining: self.remaining }
    }
}
