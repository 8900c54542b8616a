//! The one table from refusals to what clients see: a gRPC code and etcd's text.
//!
//! etcd's clients recognise errors by their text, so the texts are protocol: `tests/golden/errors.tsv` holds them.

use detcd_core::raft::Refusal;
use detcd_core::reply::Rejected;
use detcd_core::watch;
use detcd_io::driver::ask::Unanswered;
use tonic::{Code, Status};

/// A refusal that no member shares with the others: this server's own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// The encoded request is larger than `--max-request-bytes`.
    TooLarge,
    /// No leader is known and the client asked for one (metadata `hasleader`).
    NoLeader,
    /// A linearizable read or membership question took longer than the request timeout.
    Timeout,
    /// The same, and a leader was lost shortly before this member was elected.
    TimeoutLeaderFailed,
    /// The same, and the leader or the majority was not connected all the time.
    TimeoutConnectionLost,
    /// A proposal found no leader within the request timeout.
    DeadlineExceeded,
    /// The metadata `client-api-version` is not text.
    ClientApiVersion,
    /// The member is stopping.
    Stopped,
    /// The client gave its watch stream up.
    WatchCanceled,
    /// The member was chosen to lead and cannot prove that it still does.
    NotPrimary,
    /// Only a leader does this.
    NotLeader,
    /// Nobody, or a learner, cannot lead.
    BadTransferee,
    /// Too few members have started for this change.
    NotEnoughStarted,
    /// Too few members are connected for this change.
    Unhealthy,
    /// Peer URLs that are none.
    BadMemberUrls,
    /// A learner that is behind cannot vote.
    LearnerNotReady,
    /// A learner does not do this.
    Learner,
    /// The target of a downgrade is no version.
    DowngradeFormat,
    /// The target of a downgrade is not one minor version below the cluster's.
    DowngradeTarget,
    /// The cluster has not agreed on a version yet.
    NoClusterVersion,
    /// There is a downgrade already.
    DowngradeInProcess,
    /// There is no downgrade to cancel.
    NoDowngrade,
    /// The action is none.
    UnknownMethod,
}

/// What a rejection says to a client.
#[must_use]
pub const fn rejected(why: Rejected) -> (Code, &'static str) {
    use Code::{
        DataLoss, FailedPrecondition, InvalidArgument, NotFound, OutOfRange, PermissionDenied, ResourceExhausted,
    };
    use Code::{Unauthenticated, Unimplemented};
    match why {
        Rejected::EmptyKey => (InvalidArgument, "etcdserver: key is not provided"),
        Rejected::KeyNotFound => (InvalidArgument, "etcdserver: key not found"),
        Rejected::ValueProvided => (InvalidArgument, "etcdserver: value is provided"),
        Rejected::LeaseProvided => (InvalidArgument, "etcdserver: lease is provided"),
        Rejected::TooManyOps => (InvalidArgument, "etcdserver: too many operations in txn request"),
        Rejected::DuplicateKey => (InvalidArgument, "etcdserver: duplicate key given in txn request"),
        Rejected::InvalidSortOption => (InvalidArgument, "etcdserver: invalid sort option"),
        Rejected::StreamSort => (Unimplemented, "RangeStream does not support custom sort orders"),
        Rejected::StreamFilter => (Unimplemented, "RangeStream does not support revision filters"),
        Rejected::Compacted => (OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
        Rejected::FutureRevision => (OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
        Rejected::NoSpace => (ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        Rejected::Corrupt => (DataLoss, "etcdserver: corrupt cluster"),
        Rejected::LeaseNotFound => (NotFound, "etcdserver: requested lease not found"),
        Rejected::LeaseExists => (FailedPrecondition, "etcdserver: lease already exists"),
        Rejected::LeaseTtlTooLarge => (OutOfRange, "etcdserver: too large lease TTL"),
        Rejected::MemberExists => (FailedPrecondition, "etcdserver: member ID already exist"),
        Rejected::MemberNotFound | Rejected::MemberRemoved => (NotFound, "etcdserver: member not found"),
        Rejected::PeerUrlExists => (FailedPrecondition, "etcdserver: Peer URLs already exists"),
        Rejected::MemberNotLearner => (FailedPrecondition, "etcdserver: can only promote a learner member"),
        Rejected::TooManyLearners => (FailedPrecondition, "etcdserver: too many learner members in cluster"),
        Rejected::RootUserNotExist => (FailedPrecondition, "etcdserver: root user does not exist"),
        Rejected::RootRoleNotExist => (FailedPrecondition, "etcdserver: root user does not have root role"),
        Rejected::UserAlreadyExist => (FailedPrecondition, "etcdserver: user name already exists"),
        Rejected::UserEmpty => (InvalidArgument, "etcdserver: user name is empty"),
        Rejected::UserNotFound => (FailedPrecondition, "etcdserver: user name not found"),
        Rejected::RoleAlreadyExist => (FailedPrecondition, "etcdserver: role name already exists"),
        Rejected::RoleNotFound => (FailedPrecondition, "etcdserver: role name not found"),
        Rejected::RoleEmpty => (InvalidArgument, "etcdserver: role name is empty"),
        Rejected::PermissionNotGiven => (InvalidArgument, "etcdserver: permission not given"),
        Rejected::PermissionDenied => (PermissionDenied, "etcdserver: permission denied"),
        Rejected::RoleNotGranted => (FailedPrecondition, "etcdserver: role is not granted to the user"),
        Rejected::PermissionNotGranted => (FailedPrecondition, "etcdserver: permission is not granted to the role"),
        Rejected::AuthNotEnabled => (FailedPrecondition, "etcdserver: authentication is not enabled"),
        Rejected::AuthFailed => (InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"),
        Rejected::InvalidAuthToken => (Unauthenticated, "etcdserver: invalid auth token"),
        Rejected::InvalidAuthManagement => (InvalidArgument, "etcdserver: invalid auth management"),
        Rejected::AuthOldRevision => (InvalidArgument, "etcdserver: revision of auth store is old"),
    }
}

/// What a refusal of this server says to a client.
#[must_use]
pub const fn refused(why: Refused) -> (Code, &'static str) {
    match why {
        Refused::TooLarge => (Code::InvalidArgument, "etcdserver: request is too large"),
        Refused::NoLeader => (Code::Unavailable, "etcdserver: no leader"),
        Refused::Timeout => (Code::Unavailable, "etcdserver: request timed out"),
        Refused::TimeoutLeaderFailed => {
            (Code::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure")
        }
        Refused::TimeoutConnectionLost => {
            (Code::Unavailable, "etcdserver: request timed out, possibly due to connection lost")
        }
        Refused::DeadlineExceeded => (Code::DeadlineExceeded, "context deadline exceeded"),
        Refused::ClientApiVersion => (Code::InvalidArgument, "etcdserver: invalid client api version"),
        Refused::Stopped => (Code::Unavailable, "etcdserver: server stopped"),
        Refused::WatchCanceled => (Code::Cancelled, "etcdserver: watch canceled"),
        Refused::NotPrimary => (Code::Unknown, "not a primary lessor"),
        Refused::NotLeader => (Code::FailedPrecondition, "etcdserver: not leader"),
        Refused::BadTransferee => (Code::FailedPrecondition, "etcdserver: bad leader transferee"),
        // Unknown on etcd's wire, too.
        Refused::NotEnoughStarted => {
            (Code::Unknown, "etcdserver: re-configuration failed due to not enough started members")
        }
        Refused::Unhealthy => (Code::Unavailable, "etcdserver: unhealthy cluster"),
        Refused::BadMemberUrls => (Code::InvalidArgument, "etcdserver: given member URLs are invalid"),
        Refused::LearnerNotReady => {
            (Code::FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader")
        }
        Refused::Learner => (Code::FailedPrecondition, "etcdserver: rpc not supported for learner"),
        Refused::DowngradeFormat => (Code::InvalidArgument, "etcdserver: wrong downgrade target version format"),
        Refused::DowngradeTarget => (Code::InvalidArgument, "etcdserver: invalid downgrade target version"),
        Refused::NoClusterVersion => {
            (Code::FailedPrecondition, "etcdserver: cluster version not found during downgrade")
        }
        Refused::DowngradeInProcess => {
            (Code::FailedPrecondition, "etcdserver: cluster has a downgrade job in progress")
        }
        Refused::NoDowngrade => (Code::FailedPrecondition, "etcdserver: no inflight downgrade job"),
        Refused::UnknownMethod => (Code::Unknown, "etcdserver: unknown method"),
    }
}

/// What a request that got no answer from the log says to a client. `TooManyRequests` is Unknown on etcd's wire, too.
#[must_use]
pub const fn unanswered(why: Unanswered) -> (Code, &'static str) {
    match why {
        Unanswered::TooManyRequests => (Code::Unknown, "etcdserver: too many requests"),
        Unanswered::NoSpace => rejected(Rejected::NoSpace),
        Unanswered::LeaderChanged | Unanswered::Refused(Refusal::LeaderChanged) => {
            (Code::Unavailable, "etcdserver: leader changed")
        }
        Unanswered::Stopped => refused(Refused::Stopped),
        Unanswered::Refused(Refusal::TooMany) => (Code::Unknown, "etcdserver: too many requests"),
        Unanswered::Refused(Refusal::NoLeader) => refused(Refused::DeadlineExceeded),
        Unanswered::Refused(
            Refusal::NotInTerm | Refusal::Empty | Refusal::Transferring | Refusal::ChangePending | Refusal::JointChange,
        ) => (Code::Unknown, "raft proposal dropped"),
    }
}

/// Why a watcher was not created: the reason in an answer, not a status.
#[must_use]
pub const fn watch_refused(why: watch::Refusal) -> &'static str {
    match why {
        watch::Refusal::NegativeStart => rejected(Rejected::Compacted).1,
        watch::Refusal::EmptyRange => "mvcc: watcher range is empty",
        watch::Refusal::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream",
    }
}

/// The status of a row of the table.
#[must_use]
pub fn status((code, text): (Code, &'static str)) -> Status {
    Status::new(code, text)
}

impl From<Refused> for Status {
    fn from(why: Refused) -> Self {
        status(refused(why))
    }
}
