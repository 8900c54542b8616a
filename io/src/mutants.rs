//! Known bugs of this crate's parts, for builds that prove the simulator's oracles can fail.
//!
//! Under `--cfg mutants` a value can carry one of these; in a normal build neither the list nor the fields exist.

/// A bug, and where it is.
#[cfg(mutants)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Mutant {
    /// The log writer reports writes before their sync (etcd issue 14370 in spirit).
    ReportBeforeSync,
    /// The error of a sync is passed over.
    SyncErrorIgnored,
    /// A failed sync is tried again, on pages that the system calls clean.
    SyncErrorRetried,
    /// The directory is not synced when a new log file gets its name.
    CutWithoutDirSync,
    /// A log that was found is relied on without syncing its names.
    NamesNotSettled,
    /// A record at the log's end is taken although its checksum is wrong.
    TornTailAccepted,
    /// A log of an only voter is cut and wiped where it looks torn, however far its store has gone.
    RottenEndCut,
    /// What a frame head says is not looked at twice.
    HeadsUnchecked,
    /// Hard states are not written.
    HardStateNotWritten,
    /// A log snapshot is marked at what is applied instead of at what is durable, and files are released behind it.
    MarkBeforeStoreDurable,
    /// The applied index is committed ahead of the rows (etcd issue 13766).
    IndexBeforeRows,
    /// The rows are committed ahead of the applied index (etcd issue 14685).
    RowsBeforeIndex,
    /// A batch leaves the overlay when it is handed to the committer.
    OverlayDroppedAtSeal,
    /// The directory of the store is not synced after its files were made.
    StoreNameNotSynced,
    /// A sweep goes one revision too far.
    SweepOneTooFar,
    /// The decision to compact is not stored.
    CompactionNotStored,
    /// What is committed while the store is copied is not carried over.
    CopyMissesBatches,
    /// Rows that a compaction removes while the store is copied stay in the copy.
    CopyKeepsTheDead,
    /// A snapshot reads the store as it is at each step, not as it was at the first.
    CopyOfAMovingStore,
    /// The decision to compact is forgotten at a restart.
    CompactionForgotten,
    /// A sweep that a crash cut short takes its hash over what is left.
    HashAtRestart,
    /// A hash of the keys and its revision are read at two moments (etcd 3.7.2, Hash).
    HashAndRevisionApart,
    /// Raised alarms are not stored.
    AlarmNotStored,
    /// The previous value of a change is the one before it.
    PrevOneTooOld,
    /// Transactions are not held against the quota.
    QuotaForgetsTxn,
    /// What reaches the quota exactly still passes.
    QuotaReached,
    /// A compaction by age takes the newest revision instead of the one that is old enough.
    YoungCompacted,
    /// What a compaction by age proposed counts as done, without being proposed.
    OldKept,
    /// A transaction that writes a key twice is proposed.
    DuplicateKeysTaken,
    /// A piece of a watch response may be as large as the limit.
    FragmentAtLimit,
    /// The overlay is not bounded.
    OverlayUnbounded,
    /// A read waits until no applied change waits for its commit.
    ReadsWaitForBatch,
    /// The log of recent revisions takes twice its room.
    RecentTooLarge,
    /// A member reads the ranges of a transaction, and checks them, only for callers of its own (etcd issue 18667).
    RangesOnlyForCallers,
    /// The update of a member makes a voter of it (etcd issue 21694).
    UpdateMakesVoter,
    /// The directory is not synced when a received store gets its name (etcd issue 22340). (Lives in the backend.)
    ReceivedNameNotSynced,
    /// A start takes the newest received store, whether or not the log tells of it (etcd 3.7.2, MinimalEtcdVersion).
    NewestFileInstalled,
    /// The index is made without tombstones of keys that nothing else is known of (etcd issue 19179).
    TombstoneNotIndexed,
    /// A promotion or a removal changes the configuration, and not the rows of members (etcd issues 19557 and 20967).
    ChangeNotStored,
    /// The messages of a step are sent in reverse (etcd 3.7.3, order).
    MessagesReversed,
    /// A sweep removes all rows at once.
    SweepUnbounded,
    /// A snapshot has no leases.
    LeasesNotExported,
    /// A serializable read does not see the last revision.
    SerializableBehind,
    /// Whoever looks at a lease is not told of its last key.
    LastKeyUntold,
    /// One of compacting the index.
    Index(detcd_core::mvcc::index::Mutant),
    /// One of watching.
    Watch(detcd_core::watch::Mutant),
}

#[cfg(mutants)]
impl Mutant {
    /// The bug of watching that this is, if it is one.
    #[must_use]
    pub const fn of_watching(self) -> Option<detcd_core::watch::Mutant> {
        match self {
            Self::Watch(mutant) => Some(mutant),
            _ => None,
        }
    }
}

/// Takes the ranges out of a transaction.
#[cfg(mutants)]
pub(crate) fn without_ranges(command: &mut detcd_core::command::Command) {
    use detcd_core::command::{Command, Op};
    fn strip(ops: &mut Vec<Op>) {
        ops.retain(|op| !matches!(op, Op::Range(_)));
        for op in ops {
            if let Op::Txn(inner) = op {
                strip(&mut inner.success);
                strip(&mut inner.failure);
            }
        }
    }
    if let Command::Txn(request) = command {
        strip(&mut request.success);
        strip(&mut request.failure);
    }
}

/// Puts the messages of a step in reverse, and leaves everything else where it stands.
#[cfg(mutants)]
pub(crate) fn reverse_messages(effects: &mut detcd_core::raft::Effects) {
    use detcd_core::raft::Effect;
    let is_message = |effect: &Effect| matches!(effect, Effect::Send { .. });
    let mut messages: Vec<Effect> = effects.iter().filter(|effect| is_message(effect)).cloned().collect();
    for effect in effects.iter_mut().filter(|effect| is_message(effect)) {
        *effect = messages.pop().expect("there are as many");
    }
}

/// Changes what a change of the membership writes.
#[cfg(mutants)]
pub(crate) fn tamper(
    mutant: Mutant,
    is_update: bool,
    membership: &detcd_core::membership::Membership,
    writes: &mut Vec<detcd_core::apply::Write>,
) {
    use detcd_core::apply::Write;
    match mutant {
        Mutant::UpdateMakesVoter if is_update => {
            for write in writes {
                if let Write::Member(member) = write {
                    member.is_learner = false;
                }
            }
        }
        Mutant::ChangeNotStored => writes.retain(|write| match write {
            Write::Member(member) => {
                membership.get(member.id).is_none_or(|known| known.is_learner == member.is_learner)
            }
            Write::MemberRemoved(_) => false,
            _ => true,
        }),
        _ => {}
    }
}

/// What a committer with such a bug makes durable on its own, ahead of the rest of a batch.
///
/// # Errors
/// The backend failed.
#[cfg(mutants)]
pub(crate) fn first_part<B: crate::store::backend::Backend>(
    mutant: Option<Mutant>,
    backend: &B,
    batch: &crate::store::batch::Batch,
) -> Result<Option<crate::store::batch::Batch>, crate::fault::Fault> {
    use crate::store::batch::{Applied, Batch};
    use crate::store::buckets::{self, Bucket};
    Ok(match mutant {
        Some(Mutant::IndexBeforeRows) => Some(Batch { applied: batch.applied, ..Batch::default() }),
        Some(Mutant::RowsBeforeIndex) => {
            let index = backend.get(Bucket::Meta, buckets::APPLIED_INDEX)?.unwrap_or_default();
            let index = index.as_ref().try_into().map_or(0, u64::from_be_bytes);
            let applied = Applied { index: detcd_core::ids::Index(index), ..batch.applied };
            Some(Batch { applied, ..batch.clone() })
        }
        Some(Mutant::CompactionNotStored) => {
            let mut batch = batch.clone();
            let decided =
                batch.tables.remove(&(Bucket::Meta, bytes::Bytes::from_static(buckets::SCHEDULED_COMPACTION)));
            if decided.is_some() { Some(batch) } else { None }
        }
        Some(Mutant::AlarmNotStored) => {
            let mut batch = batch.clone();
            let before = batch.tables.len();
            batch.tables.retain(|(bucket, _), value| *bucket != Bucket::Alarm || value.is_none());
            (batch.tables.len() < before).then_some(batch)
        }
        _ => None,
    })
}

/// Whether a value carries the named bug. Always `false`, and free, in a normal build.
macro_rules! mutated {
    ($value:expr, $mutant:ident) => {{
        #[cfg(mutants)]
        let mutated = $value.mutant == Some($crate::mutants::Mutant::$mutant);
        #[cfg(not(mutants))]
        let mutated = false;
        mutated
    }};
}
pub(crate) use mutated;
