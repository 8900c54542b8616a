//! What every member answers alike: the result of one applied command.
//!
//! A reply holds no rows. It names them by revision, and a range inside a transaction is named by its request and the
//! point at which it must be read: only the member whose client waits evaluates it, outside apply. Invariant: a reply is
//! a function of the log alone, so that a member without a client may drop it unread.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::alarm::Alarm;
use crate::command::RangeRequest;
use crate::ids::{LeaseId, Revision};
use crate::membership::Member;
use crate::mvcc::ReadPoint;

/// The answer to one command.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Reply {
    /// To a put.
    Put(PutReply),
    /// To a range that went through the log: read it there.
    Range(Box<RangeAt>),
    /// To a range delete.
    DeleteRange(DeleteRangeReply),
    /// To a transaction.
    Txn(TxnReply),
    /// To the grant of a lease.
    LeaseGrant(LeaseGranted),
    /// To a membership change: the members after it.
    Members(Vec<Member>),
    /// To an alarm request: the alarms that it was about.
    Alarms(Vec<Alarm>),
    /// To a command whose answer carries nothing.
    Empty,
}

impl Reply {
    /// Whether the answer names rows, or ranges of them, that are still to be read.
    #[must_use]
    pub fn names_rows(&self) -> bool {
        match self {
            Self::Put(reply) => reply.prev.is_some(),
            Self::DeleteRange(reply) => !reply.prev.is_empty(),
            Self::Range(_) | Self::Txn(_) => true,
            Self::LeaseGrant(_) | Self::Members(_) | Self::Alarms(_) | Self::Empty => false,
        }
    }
}

/// The answer to a put, alone or inside a transaction.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct PutReply {
    /// The store's revision after it.
    pub revision: i64,
    /// The row that held the key before, if asked for and there.
    pub prev: Option<Revision>,
}

/// The answer to a range delete, alone or inside a transaction.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct DeleteRangeReply {
    /// The store's revision after it; unchanged if nothing was deleted.
    pub revision: i64,
    /// How many keys were deleted.
    pub deleted: i64,
    /// The rows that were deleted, in key order, if asked for.
    pub prev: Vec<Revision>,
}

/// The answer to a transaction.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct TxnReply {
    /// The store's revision after the outermost transaction; zero in one that lies inside another.
    pub revision: i64,
    /// Whether the compares held.
    pub succeeded: bool,
    /// One answer for each operation that ran.
    pub responses: Vec<OpReply>,
}

/// The answer to the grant of a lease.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct LeaseGranted {
    /// Which.
    pub id: LeaseId,
    /// The time to live that was granted, in seconds; it may be more than was asked for.
    pub ttl: i64,
}

/// The answer to one operation of a transaction.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum OpReply {
    /// To a range: read it there.
    Range(Box<RangeAt>),
    /// To a put.
    Put(PutReply),
    /// To a range delete.
    DeleteRange(DeleteRangeReply),
    /// To a transaction inside the transaction.
    Txn(TxnReply),
    /// To an operation that was not given.
    Empty,
}

/// A range and the point at which it is to be read.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RangeAt {
    /// The range as asked.
    pub request: RangeRequest,
    /// What "now" means for it.
    pub point: ReadPoint,
}

/// An error that is an answer: the same on every member, and never a failure of this machine.
///
/// The texts and codes that clients know are the shell's.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Rejected {
    /// A request without a key.
    EmptyKey,
    /// The key that was to be kept is missing; also an operation that was not given.
    KeyNotFound,
    /// A value next to "keep the value".
    ValueProvided,
    /// A lease next to "keep the lease".
    LeaseProvided,
    /// A transaction with more operations than allowed.
    TooManyOps,
    /// A transaction that would write one key twice.
    DuplicateKey,
    /// An unknown sort order or target.
    InvalidSortOption,
    /// A stream of a range in another order than by key.
    StreamSort,
    /// A stream of a range with revision filters.
    StreamFilter,
    /// The revision asked for is no longer there.
    Compacted,
    /// The revision asked for is not there yet.
    FutureRevision,
    /// The database quota is used up.
    NoSpace,
    /// The members' data differ.
    Corrupt,
    /// No such lease.
    LeaseNotFound,
    /// The lease exists already.
    LeaseExists,
    /// The lease would live too long.
    LeaseTtlTooLarge,
    /// A member with this id exists.
    MemberExists,
    /// No such member.
    MemberNotFound,
    /// The member was removed; its id never returns.
    MemberRemoved,
    /// Another member has one of these peer URLs.
    PeerUrlExists,
    /// Only learners can be promoted.
    MemberNotLearner,
    /// More learners than allowed.
    TooManyLearners,
    /// Enabling authentication without a user `root`.
    RootUserNotExist,
    /// Enabling authentication while `root` lacks its role.
    RootRoleNotExist,
    /// The user exists already.
    UserAlreadyExist,
    /// A user without a name.
    UserEmpty,
    /// No such user.
    UserNotFound,
    /// The role exists already.
    RoleAlreadyExist,
    /// No such role.
    RoleNotFound,
    /// A role without a name.
    RoleEmpty,
    /// A permission was to be granted, but none was given.
    PermissionNotGiven,
    /// The user may not do this.
    PermissionDenied,
    /// The user does not have the role.
    RoleNotGranted,
    /// The role does not have the permission.
    PermissionNotGranted,
    /// Authentication is off.
    AuthNotEnabled,
    /// Wrong user or password.
    AuthFailed,
    /// The token is not, or no longer, valid.
    InvalidAuthToken,
    /// The user that the whole store depends on cannot be removed.
    InvalidAuthManagement,
    /// The request was checked against an older auth store.
    AuthOldRevision,
}
