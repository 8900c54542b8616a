//! What the replicated log carries, as one closed enum.
//!
//! `Command` has every variant of etcd's internal Raft request, so that a committed entry is either understood or stops
//! the member: nothing committed is ever skipped. The bytes are etcd's and are coded outside the engine. Invariant: a
//! value here says all that the bytes said, so that every member decides alike; numbers of open enums that this version
//! does not know are kept ([`CompareResult::Unknown`] counts as true, for one).

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::ids::{LeaseId, MemberId, Ticket};
use crate::membership::Version;

mod auth;

pub use auth::{
    AuthCommand, Permission, PermissionKind, RoleGrantPermission, RoleRevokePermission, UserAdd, UserChangePassword,
};

/// Declares an enum that is open on the wire: unknown numbers are kept.
macro_rules! open_enum {
    ($(#[$meta:meta])* $name:ident { $(#[$zero_meta:meta])* $zero:ident = 0, $($(#[$variant_meta:meta])* $variant:ident = $number:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
        pub enum $name {
            $(#[$zero_meta])*
            #[default]
            $zero,
            $($(#[$variant_meta])* $variant,)*
            /// A number that this version does not know.
            Unknown(i32),
        }

        impl $name {
            /// The value of a number on the wire.
            #[must_use]
            pub const fn from_number(number: i32) -> Self {
                match number {
                    0 => Self::$zero,
                    $($number => Self::$variant,)*
                    other => Self::Unknown(other),
                }
            }

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> i32 {
                match self {
                    Self::$zero => 0,
                    $(Self::$variant => $number,)*
                    Self::Unknown(other) => other,
                }
            }
        }
    };
}
use open_enum;

/// Who asked, and under which ticket.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Header {
    /// Finds the caller when the entry comes back committed.
    pub id: Ticket,
    /// The authenticated user; empty when authentication is off.
    pub username: String,
    /// The revision of the auth store under which the user was checked.
    pub auth_revision: u64,
}

/// One committed entry's request: the header and the command.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Request {
    /// Who asked.
    pub header: Header,
    /// What for.
    pub command: Command,
}

/// Everything that etcd 3.7 puts into the log, membership changes apart ([`crate::membership::ConfChange`]).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Command {
    /// Read a range at this place in the log.
    Range(RangeRequest),
    /// Write one key.
    Put(PutRequest),
    /// Delete a range.
    DeleteRange(DeleteRangeRequest),
    /// Compare, then run one of two lists of operations.
    Txn(TxnRequest),
    /// Forget history before a revision.
    Compaction(CompactionRequest),
    /// Create a lease.
    LeaseGrant(LeaseGrantRequest),
    /// End a lease and delete its keys.
    LeaseRevoke(LeaseRevokeRequest),
    /// Remember how long leases have left.
    LeaseCheckpoint(LeaseCheckpointRequest),
    /// List, raise or lower an alarm.
    Alarm(AlarmRequest),
    /// Users, roles and the switch.
    Auth(AuthCommand),
    /// The version that all members speak.
    ClusterVersionSet(ClusterVersionSetRequest),
    /// A member publishes its name and client URLs.
    ClusterMemberAttrSet(ClusterMemberAttrSetRequest),
    /// Starts or ends a downgrade.
    DowngradeInfoSet(DowngradeInfoSetRequest),
    /// Nothing; etcd's tests write it into logs.
    DowngradeVersionTest(DowngradeVersionTestRequest),
}

open_enum! {
    /// The order of a range's result.
    SortOrder {
        /// As the index has them.
        None = 0,
        /// Smallest first.
        Ascend = 1,
        /// Largest first.
        Descend = 2,
    }
}

open_enum! {
    /// What a range's result is sorted by.
    SortTarget {
        /// The key's bytes.
        Key = 0,
        /// The key's version.
        Version = 1,
        /// The revision of its creation.
        Create = 2,
        /// The revision of its last change.
        Mod = 3,
        /// The value's bytes.
        Value = 4,
    }
}

/// Reads the keys from `key` to `range_end`.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct RangeRequest {
    /// The first key.
    pub key: Bytes,
    /// Empty: just `key`; one zero byte: everything from `key`; else the first key that is out.
    pub range_end: Bytes,
    /// At most so many results, if above zero.
    pub limit: i64,
    /// The revision to read at; zero or less: now.
    pub revision: i64,
    /// In which order.
    pub sort_order: SortOrder,
    /// Sorted by what.
    pub sort_target: SortTarget,
    /// The serving member's own state will do. Decided by the shell; no effect here.
    pub serializable: bool,
    /// Without values.
    pub keys_only: bool,
    /// Without keys.
    pub count_only: bool,
    /// Drop keys changed before it; zero: off.
    pub min_mod_revision: i64,
    /// Drop keys changed after it; zero: off.
    pub max_mod_revision: i64,
    /// Drop keys created before it; zero: off.
    pub min_create_revision: i64,
    /// Drop keys created after it; zero: off.
    pub max_create_revision: i64,
}

/// Writes one key.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct PutRequest {
    /// The key.
    pub key: Bytes,
    /// Its new value.
    pub value: Bytes,
    /// The lease it is attached to.
    pub lease: LeaseId,
    /// Answer with what was there before.
    pub prev_kv: bool,
    /// Keep the present value.
    pub ignore_value: bool,
    /// Keep the present lease.
    pub ignore_lease: bool,
}

/// Deletes the keys from `key` to `range_end`.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct DeleteRangeRequest {
    /// The first key.
    pub key: Bytes,
    /// As in [`RangeRequest::range_end`].
    pub range_end: Bytes,
    /// Answer with what was deleted.
    pub prev_kv: bool,
}

/// If all compares hold, runs `success`, else `failure`.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct TxnRequest {
    /// All must hold.
    pub compare: Vec<Compare>,
    /// Runs if they do.
    pub success: Vec<Op>,
    /// Runs if one does not.
    pub failure: Vec<Op>,
}

/// One operation of a transaction.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Op {
    /// Read.
    Range(RangeRequest),
    /// Write.
    Put(PutRequest),
    /// Delete.
    DeleteRange(DeleteRangeRequest),
    /// A transaction inside the transaction.
    Txn(TxnRequest),
    /// No operation was given: refused at the door, skipped in the log.
    Empty,
}

open_enum! {
    /// The relation that a compare asks for: stored value first.
    CompareResult {
        /// Stored = given.
        Equal = 0,
        /// Stored > given.
        Greater = 1,
        /// Stored < given.
        Less = 2,
        /// Stored != given.
        NotEqual = 3,
    }
}

open_enum! {
    /// What of a key is compared.
    CompareTarget {
        /// Its version.
        Version = 0,
        /// The revision of its creation.
        Create = 1,
        /// The revision of its last change.
        Mod = 2,
        /// Its value.
        Value = 3,
        /// Its lease.
        Lease = 4,
    }
}

/// What a compare's given side holds; it need not match the target, and then counts as zero or empty.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub enum CompareOperand {
    /// Nothing was given.
    #[default]
    Unset,
    /// A version.
    Version(i64),
    /// A revision of creation.
    Create(i64),
    /// A revision of last change.
    Mod(i64),
    /// A value.
    Value(Bytes),
    /// A lease.
    Lease(i64),
}

/// One condition of a transaction, about one key or every key of a range.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Compare {
    /// The relation.
    pub result: CompareResult,
    /// What is compared.
    pub target: CompareTarget,
    /// The first key.
    pub key: Bytes,
    /// The given side.
    pub operand: CompareOperand,
    /// As in [`RangeRequest::range_end`].
    pub range_end: Bytes,
}

/// Forget what was superseded at or before a revision.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct CompactionRequest {
    /// The revision that stays readable.
    pub revision: i64,
    /// Answer only when the rows are gone.
    pub physical: bool,
}

/// Creates a lease.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct LeaseGrantRequest {
    /// Its time to live in seconds.
    pub ttl: i64,
    /// Its id, chosen before the request was proposed.
    pub id: LeaseId,
}

/// Ends a lease.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct LeaseRevokeRequest {
    /// Which.
    pub id: LeaseId,
}

/// How long one lease has left.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct LeaseCheckpoint {
    /// Which lease.
    pub id: LeaseId,
    /// Seconds.
    pub remaining_ttl: i64,
}

/// How long several leases have left.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct LeaseCheckpointRequest {
    /// One each.
    pub checkpoints: Vec<LeaseCheckpoint>,
}

open_enum! {
    /// What is done with an alarm.
    AlarmAction {
        /// List.
        Get = 0,
        /// Raise.
        Activate = 1,
        /// Lower.
        Deactivate = 2,
    }
}

open_enum! {
    /// The kinds of alarm. Unknown ones are stored and listed too.
    AlarmKind {
        /// Any, when listing.
        None = 0,
        /// The database quota is used up.
        NoSpace = 1,
        /// The members' data differ.
        Corrupt = 2,
    }
}

/// Lists, raises or lowers an alarm.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct AlarmRequest {
    /// Which of these.
    pub action: AlarmAction,
    /// Whose alarm.
    pub member: MemberId,
    /// Which alarm.
    pub alarm: AlarmKind,
}

/// Sets the version that all members speak.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct ClusterVersionSetRequest {
    /// The version.
    pub version: Version,
}

/// A member's name and client URLs.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct ClusterMemberAttrSetRequest {
    /// Whose.
    pub member: MemberId,
    /// Its name.
    pub name: String,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
}

/// Starts or ends a downgrade.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct DowngradeInfoSetRequest {
    /// Whether one is under way.
    pub enabled: bool,
    /// The version it leads to.
    pub version: String,
}

/// Nothing; etcd's tests write it into logs.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct DowngradeVersionTestRequest {
    /// Some version.
    pub version: String,
}

impl TxnRequest {
    /// Whether both lists hold only ranges, so that it need not go through the log.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| matches!(op, Op::Range(_)))
    }

    /// Whether it is read-only and every range of both lists is content with the serving member's own state.
    #[must_use]
    pub fn is_serializable(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| matches!(op, Op::Range(range) if range.serializable))
    }

    /// The list that runs.
    #[must_use]
    pub fn branch(&self, succeeded: bool) -> &[Op] {
        if succeeded { &self.success } else { &self.failure }
    }
}
