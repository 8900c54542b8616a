//! Opening the store: one scan of the rows rebuilds the key index, the tables give membership and marks.
//!
//! Every row is checked as it is read; a row that etcd's rules forbid is a typed error, and nothing is written while loading.

use std::ops::Bound;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use detcd_core::alarm::Alarms;
use detcd_core::apply::Write;
use detcd_core::command::AlarmKind;
use detcd_core::ids::{Index, LeaseId, MemberId, Term};
use detcd_core::lease::LeaseTable;
use detcd_core::membership::{Member, Membership, Version};
use detcd_core::mvcc::KeyIndex;
use detcd_core::mvcc::index::{Gathering, Misplaced, RowFacts};
use tokio::sync::Notify;

use super::backend::{Backend, Slice, Visit};
use super::batch::Applied;
use super::buckets::{self, Bucket, RevisionKey, RowHead, RowKind};
use super::compaction::Compactions;
use super::leases::{self, Keeping, LeaseRules};
use super::overlay::Overlay;
use super::{Shared, State, Store, layout_of};
use crate::clock::Instant;
use crate::codec::{downgrade, member};
use crate::fault::Fault;
use crate::stats::StoreStats;

impl<B: Backend> Store<B> {
    /// Opens what `backend` holds.
    ///
    /// # Errors
    /// The backend failed, or a row is not what this version may find. A store with authentication enabled, or one that needs what is not
    /// built yet, is refused by name.
    pub async fn load(backend: B, rules: LeaseRules) -> Result<Self, Fault> {
        Self::load_in_steps_of(Gathering::ROWS_MAX, backend, rules).await
    }

    /// The same, with so many rows worked into the index at a time.
    ///
    /// # Errors
    /// As above.
    pub async fn load_in_steps_of(rows_max: usize, backend: B, rules: LeaseRules) -> Result<Self, Fault> {
        let began = Instant::now();
        refuse_unbuilt(&backend)?;
        let mut leases = load_leases(&backend)?;
        let (index, last) = load_index(rows_max, &backend, &mut leases)?;
        let scheduled = revision_row(&backend, buckets::SCHEDULED_COMPACTION)?.unwrap_or(-1);
        let finished = revision_row(&backend, buckets::FINISHED_COMPACTION)?.unwrap_or(-1);
        let mut overlay = Overlay::default();
        overlay.open().applied = load_applied(&backend)?;
        let state = State {
            index,
            overlay,
            recent: super::recent::Recent::default(),
            membership: Arc::new(load_membership(&backend)?),
            alarms: Arc::new(load_alarms(&backend)?),
            leases,
            // A compaction may have removed the newest rows, tombstones (etcd issue 17780).
            current: last.max(scheduled).max(finished).max(1),
            compactions: Compactions::restored(scheduled, finished),
            storage_version: version_row(&backend, Bucket::Meta, buckets::STORAGE_VERSION)?,
        };
        let took = began.elapsed();
        tracing::info!(keys = state.index.live(), revision = state.current, ?took, "loaded the store");
        let size = backend.size().await?;
        let store = Self {
            shared: Arc::new(Shared {
                backend,
                state: RwLock::new(state),
                compacted: Notify::new(),
                keeping: Keeping::new(rules),
                allocated: AtomicU64::new(0),
                in_use: AtomicU64::new(0),
                stats: StoreStats::default(),
                news: Notify::new(),
                #[cfg(mutants)]
                mutant: std::sync::OnceLock::new(),
            }),
        };
        store.tell_size(size);
        Ok(store)
    }
}

#[cfg(mutants)]
impl<B: Backend> Store<B> {
    /// Gives a store that was just loaded a known bug.
    pub(crate) fn infect(&self, mutant: Option<crate::mutants::Mutant>) -> Result<(), Fault> {
        use crate::mutants::Mutant;
        let finished = revision_row(&self.shared.backend, buckets::FINISHED_COMPACTION)?.unwrap_or(-1);
        let mut state = self.write();
        match mutant {
            Some(Mutant::CompactionForgotten) => state.compactions = Compactions::restored(finished, finished),
            Some(Mutant::HashAtRestart) => state.compactions.hash_what_is_left(finished),
            Some(Mutant::Index(mutant)) => state.index.mutant = Some(mutant),
            Some(Mutant::TombstoneNotIndexed) => state.index.forget_first_tombstones(),
            _ => {}
        }
        drop(state);
        if let Some(mutant) = mutant {
            let _ = self.shared.mutant.set(mutant);
        }
        Ok(())
    }
}

fn damaged(what: &str, cause: impl std::fmt::Display) -> Fault {
    Fault::Store { action: "load", cause: format!("{what}: {cause}") }
}

/// A key for an error text: what is too long is cut.
fn shown(key: &[u8]) -> String {
    const SHOWN_BYTES: usize = 32;
    let start = key[..key.len().min(SHOWN_BYTES)].escape_ascii().to_string();
    if key.len() > SHOWN_BYTES { format!("{start}... ({} bytes)", key.len()) } else { start }
}

fn refuse_unbuilt<B: Backend>(backend: &B) -> Result<(), Fault> {
    if backend.get(Bucket::Auth, buckets::AUTH_ENABLED)?.is_some_and(|on| on.as_ref() == [1]) {
        return Err(Fault::Unbuilt("authentication, which this store has enabled"));
    }
    match version_row(backend, Bucket::Meta, buckets::STORAGE_VERSION)? {
        Some(version) if layout_of(version) != Some(version) => {
            Err(damaged("storage version", format!("version {:?} is not supported", version.to_string())))
        }
        _ => Ok(()),
    }
}

fn all<B: Backend>(backend: &B, bucket: Bucket, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), Fault> {
    backend.scan(Slice { bucket, start: Bound::Unbounded, end: Bound::Unbounded }, visit)
}

fn load_leases<B: Backend>(backend: &B) -> Result<LeaseTable, Fault> {
    let mut leases = LeaseTable::default();
    let mut broken = None;
    all(backend, Bucket::Lease, &mut |key, value| match leases::decode_lease(key, value) {
        Ok(row) => {
            leases.on_write(&Write::Lease(row));
            Visit::More
        }
        Err(cause) => {
            broken = Some(damaged(&format!("lease {}", key.escape_ascii()), cause));
            Visit::Enough
        }
    })?;
    broken.map_or(Ok(leases), Err)
}

/// One pass over the rows, in revision order; keys are attached to their leases on the way. Returns the newest main revision.
fn load_index<B: Backend>(rows_max: usize, backend: &B, leases: &mut LeaseTable) -> Result<(KeyIndex, i64), Fault> {
    let (mut rows, mut last, mut broken) = (Gathering::in_steps_of(rows_max), 0, None);
    all(backend, Bucket::Key, &mut |key, value| match load_row(&mut rows, leases, key, value) {
        Ok(main) => {
            last = main;
            Visit::More
        }
        Err(cause) => {
            broken = Some(damaged(&format!("table key of data.mdb, row {}", shown(key)), cause));
            Visit::Enough
        }
    })?;
    if let Some(fault) = broken {
        return Err(fault);
    }
    let index = rows.finish().map_err(|found| damaged("table key of data.mdb", misplaced(found)))?;
    Ok((index, last))
}

fn load_row(rows: &mut Gathering, leases: &mut LeaseTable, key: &[u8], value: &[u8]) -> Result<i64, String> {
    // Every write has a positive revision; a scan shows a negative one behind all others.
    let (revision, kind) = RevisionKey::parse(key).filter(|(revision, _)| revision.main > 0).ok_or("not a revision")?;
    let whole;
    let head = match RowHead::read(value) {
        Some(head) => head,
        None => {
            let read = buckets::decode_key_value(Bytes::copy_from_slice(value));
            whole = read.map_err(|error| error.to_string())?;
            RowHead { key: &whole.key, created: whole.created, version: whole.version, lease: whole.lease.0 }
        }
    };
    let facts = match kind {
        RowKind::Put => RowFacts::Put { key: head.key, created: head.created, version: head.version },
        RowKind::Tombstone => RowFacts::Tombstone { key: head.key },
    };
    rows.add(revision, facts).map_err(misplaced)?;
    match kind {
        RowKind::Put => leases.attach(head.key, LeaseId(head.lease)),
        RowKind::Tombstone => leases.detach(head.key),
    }
    Ok(revision.main)
}

/// Rows are worked in many at a time, so this may be an earlier one than the last that was read.
fn misplaced(found: Misplaced) -> String {
    format!("{:?} at revision {}_{}", found.why, found.at.main, found.at.sub)
}

fn load_applied<B: Backend>(backend: &B) -> Result<Applied, Fault> {
    let number = |key: &[u8]| -> Result<u64, Fault> {
        let Some(bytes) = backend.get(Bucket::Meta, key)? else { return Ok(0) };
        let bytes =
            bytes.as_ref().try_into().map_err(|_| damaged(&key.escape_ascii().to_string(), "not eight bytes"))?;
        Ok(u64::from_be_bytes(bytes))
    };
    Ok(Applied { index: Index(number(buckets::APPLIED_INDEX)?), term: Term(number(buckets::APPLIED_TERM)?) })
}

fn revision_row<B: Backend>(backend: &B, key: &[u8]) -> Result<Option<i64>, Fault> {
    let Some(bytes) = backend.get(Bucket::Meta, key)? else { return Ok(None) };
    let parsed =
        RevisionKey::parse(&bytes).ok_or_else(|| damaged(&key.escape_ascii().to_string(), "not a revision"))?;
    Ok(Some(parsed.0.main))
}

fn version_row<B: Backend>(backend: &B, bucket: Bucket, key: &[u8]) -> Result<Option<Version>, Fault> {
    let Some(bytes) = backend.get(bucket, key)? else { return Ok(None) };
    let text = std::str::from_utf8(&bytes).ok();
    let version = text.and_then(Version::parse);
    version.map(Some).ok_or_else(|| damaged(&key.escape_ascii().to_string(), "not a version"))
}

fn load_alarms<B: Backend>(backend: &B) -> Result<Alarms, Fault> {
    let (mut alarms, mut broken) = (Vec::new(), None);
    all(backend, Bucket::Alarm, &mut |key, _| {
        match buckets::parse_alarm_key(key) {
            Ok(alarm) if alarm.kind != AlarmKind::None => alarms.push(alarm),
            Ok(_) => broken = Some(damaged(&format!("alarm {}", key.escape_ascii()), "no kind")),
            Err(error) => broken = Some(damaged(&format!("alarm {}", key.escape_ascii()), error)),
        }
        Visit::More
    })?;
    broken.map_or_else(|| Ok(alarms.into_iter().collect()), Err)
}

fn load_membership<B: Backend>(backend: &B) -> Result<Membership, Fault> {
    let mut members: Vec<Member> = Vec::new();
    let mut broken = None;
    all(backend, Bucket::Members, &mut |key, value| match member::decode(value) {
        Ok(row) if buckets::member_key(row.id) == key => {
            members.push(row);
            Visit::More
        }
        Ok(_) => {
            broken = Some(damaged(&format!("member {}", key.escape_ascii()), "the row is about another member"));
            Visit::Enough
        }
        Err(error) => {
            broken = Some(damaged(&format!("member {}", key.escape_ascii()), error));
            Visit::Enough
        }
    })?;
    let mut removed: Vec<MemberId> = Vec::new();
    all(backend, Bucket::MembersRemoved, &mut |key, _| {
        match buckets::parse_member_key(key) {
            Some(id) => removed.push(id),
            None => broken = Some(damaged(&format!("removed member {}", key.escape_ascii()), "not an id")),
        }
        Visit::More
    })?;
    if let Some(fault) = broken {
        return Err(fault);
    }
    let version = version_row(backend, Bucket::Cluster, buckets::CLUSTER_VERSION)?;
    let mut membership = Membership::restore(members, removed, version)
        .ok_or_else(|| damaged("members", "an id is both a member and removed"))?;
    if let Some(bytes) = backend.get(Bucket::Cluster, buckets::DOWNGRADE)? {
        let downgrade = downgrade::decode(&bytes).map_err(|error| damaged("downgrade", error))?;
        membership.on_write(&Write::Downgrade(downgrade));
    }
    Ok(membership)
}
