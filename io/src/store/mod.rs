//! The store: the key index in memory, what is not yet durable above it, and the backend below.
//!
//! One writer, the applier, absorbs outcomes; many readers look at points of history through [`ReadView`]. Index and overlay stand behind one
//! lock that is held for one command or one bounded chunk, never across an await and never while the backend is read.
//!
//! Reading order: [`buckets`] (etcd's tables), [`batch`], [`overlay`], [`backend`] (the trait), [`lmdb`], [`memory`], [`leases`],
//! [`load`] (start-up), [`hash`], [`compaction`], [`copying`] (defragmentation), [`export`] (as etcd's file), [`recent`] and [`history`] (what watchers read).

pub mod backend;
pub mod batch;
pub mod buckets;
pub mod compaction;
pub mod copying;
pub mod export;
pub mod hash;
pub mod history;
pub mod leases;
pub mod lmdb;
pub mod load;
pub mod memory;
pub mod meta;
pub mod overlay;
pub mod recent;
pub mod standing;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use detcd_core::alarm::Alarms;
use detcd_core::apply::{Event, Write};
use detcd_core::ids::{Index, LeaseId, Revision, Term};
use detcd_core::lease::{LeaseRow, LeaseTable};
use detcd_core::membership::{Membership, Version};
use detcd_core::mvcc::{CountChunk, Facts, KeyChunk, KeyIndex, KeyValue, Scan, View};
use tokio::sync::Notify;

use self::backend::{Backend, Size};
use self::batch::{Applied, Batch, Change, Row};
use self::buckets::{Bucket, RevisionKey};
use self::compaction::{Compactions, Pin};
use self::leases::Keeping;
use self::overlay::Overlay;
use self::recent::Recent;
use crate::codec::{downgrade, member};
use crate::fault::Fault;
use crate::stats::StoreStats;

/// The version of this layout: what `meta/storageVersion` says once the cluster has agreed on one.
pub const STORAGE_VERSION: Version = Version::new(3, 7, 0);
/// The oldest that has a name. The layouts from there on differ in nothing but that.
pub const STORAGE_VERSION_LEAST: Version = Version::new(3, 6, 0);

/// The version of the layout in a cluster of this version, as etcd's stores follow it. An older cluster's has none.
#[must_use]
pub fn layout_of(cluster: Version) -> Option<Version> {
    let layout = Version::new(cluster.major, cluster.minor, 0).min(STORAGE_VERSION);
    (STORAGE_VERSION_LEAST <= layout).then_some(layout)
}

/// A handle on the store. Clones share it.
pub struct Store<B> {
    shared: Arc<Shared<B>>,
}

impl<B> Clone for Store<B> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<B> {
    backend: B,
    state: RwLock<State>,
    /// Told when a compaction is applied.
    compacted: Notify,
    keeping: Keeping,
    allocated: AtomicU64,
    in_use: AtomicU64,
    stats: StoreStats,
    /// Rings when there is news for those who watch.
    news: Notify,
    /// The known bug that it carries, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    mutant: std::sync::OnceLock<crate::mutants::Mutant>,
}

/// What the lock guards.
struct State {
    index: KeyIndex,
    overlay: Overlay,
    recent: Recent,
    membership: Arc<Membership>,
    alarms: Arc<Alarms>,
    leases: LeaseTable,
    current: i64,
    compactions: Compactions,
    storage_version: Option<Version>,
}

impl<B: Backend> Store<B> {
    /// The backend, for what is below the overlay.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.shared.backend
    }

    /// The store's revision.
    #[must_use]
    pub fn current(&self) -> i64 {
        self.read().current
    }

    /// The revision of the last compaction; -1 if there was none.
    #[must_use]
    pub fn compacted(&self) -> i64 {
        self.read().compactions.compacted()
    }

    /// Who belongs to the cluster now.
    #[must_use]
    pub fn membership(&self) -> Arc<Membership> {
        Arc::clone(&self.read().membership)
    }

    /// Sets how many members may only listen.
    pub fn limit_learners(&self, learners_max: usize) {
        Arc::make_mut(&mut self.write().membership).limit_learners(learners_max);
    }

    /// Which alarms are raised now.
    #[must_use]
    pub fn alarms(&self) -> Arc<Alarms> {
        Arc::clone(&self.read().alarms)
    }

    /// The version of the layout, once decided.
    #[must_use]
    pub fn storage_version(&self) -> Option<Version> {
        self.read().storage_version
    }

    /// The log position that everything readable here comes from.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.write().overlay.open().applied
    }

    /// The size after the last commit.
    #[must_use]
    pub fn size(&self) -> Size {
        Size {
            allocated: self.shared.allocated.load(Ordering::Relaxed),
            in_use: self.shared.in_use.load(Ordering::Relaxed),
        }
    }

    /// What is counted.
    #[must_use]
    pub fn stats(&self) -> &StoreStats {
        &self.shared.stats
    }

    /// Keys that are alive now.
    #[must_use]
    pub fn live_keys(&self) -> usize {
        self.read().index.live()
    }

    /// A view of the present for one command or one read.
    #[must_use]
    pub fn view(&self) -> ReadView<B> {
        let state = self.read();
        let (membership, alarms) = (Arc::clone(&state.membership), Arc::clone(&state.alarms));
        let pin = state.compactions.pin();
        drop(state);
        ReadView { store: self.clone(), membership, alarms, pin }
    }

    /// Takes in what one entry wrote; the entry's place goes with it into the same transaction. The events are there for watchers from the moment on
    /// at which reads see the revision, and not before.
    pub(crate) fn absorb(&self, writes: Vec<Write>, events: &[Event], index: Index, term: Term) {
        let mut state = self.write();
        let before = state.overlay.open().applied;
        assert!(before.index < index && before.term <= term, "entries are applied once and in order");
        state.overlay.open().applied = Applied { index, term };
        state.recent.absorb(&writes, events);
        for write in writes {
            if matches!(write, Write::Compacted(_)) {
                self.shared.compacted.notify_one();
            }
            self.shared.keeping.on_write(&mut state.leases, &write);
            state.absorb_one(write);
        }
    }

    /// Operations and row bytes that are not durable yet.
    #[must_use]
    pub fn pending(&self) -> (usize, usize) {
        self.read().overlay.pending()
    }

    /// Changes in the batch being filled, and whether another one is on its way.
    pub(crate) fn open_batch(&self) -> (usize, bool) {
        let state = self.read();
        (state.overlay.open_operations(), state.overlay.is_committing())
    }

    /// Closes the batch being filled.
    pub(crate) fn seal(&self) -> Arc<Batch> {
        self.write().overlay.seal()
    }

    /// Forgets the sealed batch: it is durable, and the backend has this size now.
    pub(crate) fn retire(&self, size: Size) {
        self.write().overlay.retire();
        self.tell_size(size);
    }

    /// The backend has this size now.
    pub(crate) fn tell_size(&self, size: Size) {
        self.shared.allocated.store(size.allocated, Ordering::Relaxed);
        self.shared.in_use.store(size.in_use, Ordering::Relaxed);
    }

    /// One row of a table, as it is now.
    ///
    /// # Errors
    /// The backend failed.
    pub fn table_row(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let above = self.read().overlay.table_row(bucket, &Bytes::copy_from_slice(key));
        above.map_or_else(|| self.shared.backend.get(bucket, key), Ok)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.shared.state.read().expect("a panic ends the process")
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.shared.state.write().expect("a panic ends the process")
    }
}

impl State {
    fn absorb_one(&mut self, write: Write) {
        if matches!(write, Write::Member(_) | Write::MemberRemoved(_) | Write::ClusterVersion(_) | Write::Downgrade(_))
        {
            Arc::make_mut(&mut self.membership).on_write(&write);
        }
        let batch = self.overlay.open();
        match write {
            Write::Row { revision, kv } => {
                self.index.put(&kv.key, revision);
                self.current = revision.main;
                batch.push_row(Row { revision, change: Change::Put(kv) });
            }
            Write::Tombstone { revision, key } => {
                self.index.delete(&key, revision);
                self.current = revision.main;
                batch.push_row(Row { revision, change: Change::Tombstone(key) });
            }
            Write::Member(row) => {
                let key = buckets::member_key(row.id);
                batch.tables.insert((Bucket::Members, key), Some(member::encode(&row).into()));
            }
            Write::MemberRemoved(id) => {
                let key = buckets::member_key(id);
                batch.tables.insert((Bucket::Members, key.clone()), None);
                batch.tables.insert((Bucket::MembersRemoved, key), Some(Bytes::from_static(b"removed")));
            }
            Write::ClusterVersion(version) => {
                let place = (Bucket::Cluster, Bytes::from_static(buckets::CLUSTER_VERSION));
                batch.tables.insert(place, Some(version.to_string().into()));
                if let Some(layout) = layout_of(version) {
                    let place = (Bucket::Meta, Bytes::from_static(buckets::STORAGE_VERSION));
                    batch.tables.insert(place, Some(layout.to_string().into()));
                    self.storage_version = Some(layout);
                }
            }
            Write::Downgrade(downgrade) => {
                let place = (Bucket::Cluster, Bytes::from_static(buckets::DOWNGRADE));
                batch.tables.insert(place, Some(downgrade::encode(&downgrade).into()));
            }
            Write::AlarmRaised(alarm) => {
                Arc::make_mut(&mut self.alarms).on_write(&write);
                batch.tables.insert((Bucket::Alarm, buckets::alarm_key(alarm)), Some(Bytes::new()));
            }
            Write::AlarmLowered(alarm) => {
                Arc::make_mut(&mut self.alarms).on_write(&write);
                batch.tables.insert((Bucket::Alarm, buckets::alarm_key(alarm)), None);
            }
            Write::Compacted(revision) => {
                let place = (Bucket::Meta, Bytes::from_static(buckets::SCHEDULED_COMPACTION));
                batch.tables.insert(place, Some(compaction::mark(revision)));
                self.compactions.on_compacted(revision);
            }
            Write::Lease(row) => {
                batch.tables.insert((Bucket::Lease, leases::lease_key(row.id)), Some(leases::encode_lease(&row)));
            }
            Write::LeaseRemoved(id) => {
                batch.tables.insert((Bucket::Lease, leases::lease_key(id)), None);
            }
        }
    }
}

/// The store as the engine's rules see it. Row and index answers for a fixed point do not change while it lives.
pub struct ReadView<B> {
    store: Store<B>,
    membership: Arc<Membership>,
    alarms: Arc<Alarms>,
    pin: Pin,
}

impl<B> ReadView<B> {
    /// Keeps the rows that this view sees, for as long as a compaction may wait.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.pin.clone()
    }
}

impl<B: Backend> View for ReadView<B> {
    type Fault = Fault;

    fn current(&self) -> i64 {
        self.store.current()
    }

    fn compacted(&self) -> i64 {
        self.store.compacted()
    }

    fn swept(&self) -> i64 {
        self.store.swept()
    }

    fn key_at(&self, key: &[u8], at: Revision) -> Option<Facts> {
        self.store.read().index.get(key, at)
    }

    fn keys(&self, scan: &Scan<'_>) -> KeyChunk {
        self.store.read().index.keys(scan)
    }

    fn count(&self, scan: &Scan<'_>) -> CountChunk {
        self.store.read().index.count(scan)
    }

    fn row(&self, at: Revision) -> Result<KeyValue, Fault> {
        if let Some(row) = self.store.read().overlay.row(at) {
            return Ok(put_row(row));
        }
        let key = RevisionKey::put(at);
        let bytes = self.store.shared.backend.get(Bucket::Key, key.as_slice())?;
        let damaged = |cause: String| Fault::Store { action: "read a row", cause: format!("revision {at}: {cause}") };
        let bytes = bytes.ok_or_else(|| damaged("the index knows it, the store does not".to_owned()))?;
        buckets::decode_key_value(bytes).map_err(|error| damaged(error.to_string()))
    }

    fn lease(&self, id: LeaseId) -> Option<LeaseRow> {
        self.store.lease(id)
    }

    fn lease_keys(&self, id: LeaseId, after: Option<&[u8]>, max: usize) -> Vec<Bytes> {
        self.store.lease_keys(id, after, max)
    }

    fn lease_ttl_min(&self) -> i64 {
        self.store.shared.keeping.rules.ttl_min
    }

    fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    fn membership(&self) -> &Membership {
        &self.membership
    }
}

fn put_row(row: &Row) -> KeyValue {
    match &row.change {
        Change::Put(kv) => kv.clone(),
        Change::Tombstone(_) => unreachable!("a live key is held by a put, not by the tombstone at {}", row.revision),
    }
}

#[cfg(test)]
mod tests;
