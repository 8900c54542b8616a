//! What commands are called where they are counted: etcd's names for the internal requests, and the operations inside one.

use detcd_core::command::{AuthCommand, Command};
use detcd_core::reply::{OpReply, Reply, TxnReply};

use crate::codec::entry::Field;

/// Declares the kinds of commands and their names.
macro_rules! ops {
    ($($name:ident),* $(,)?) => {
        /// A kind of command, as a place in a table.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[expect(missing_docs, reason = "the names are the requests'")]
        pub enum Op { $($name),* }

        /// Their names, in the order of [`Op`].
        pub const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

ops! {
    Put, DeleteRange, Txn, Range, Compaction, LeaseGrant, LeaseRevoke, LeaseCheckpoint, Alarm, ClusterVersionSet, ClusterMemberAttrSet,
    DowngradeInfoSet, DowngradeVersionTest, AuthEnable, AuthDisable, AuthStatus, Authenticate, AuthUserAdd, AuthUserDelete, AuthUserGet,
    AuthUserChangePassword, AuthUserGrantRole, AuthUserRevokeRole, AuthUserList, AuthRoleList, AuthRoleAdd, AuthRoleDelete, AuthRoleGet,
    AuthRoleGrantPermission, AuthRoleRevokePermission,
}

impl Op {
    /// The kind of a command, and how many ranges come ahead of it: a lone put or delete reads what it replaces if it has to.
    pub(crate) fn of(command: &Command) -> (Self, u64) {
        match command {
            Command::Put(put) => (Self::Put, u64::from(put.prev_kv || put.ignore_value || put.ignore_lease)),
            Command::DeleteRange(delete) => (Self::DeleteRange, u64::from(delete.prev_kv)),
            Command::Compaction(_) => (Self::Compaction, 0),
            Command::Txn(_) => (Self::Txn, 0),
            Command::Range(_) => (Self::Range, 0),
            Command::LeaseGrant(_) => (Self::LeaseGrant, 0),
            Command::LeaseRevoke(_) => (Self::LeaseRevoke, 0),
            Command::LeaseCheckpoint(_) => (Self::LeaseCheckpoint, 0),
            Command::Alarm(_) => (Self::Alarm, 0),
            Command::Auth(command) => (Self::of_auth(command), 0),
            Command::ClusterVersionSet(_) => (Self::ClusterVersionSet, 0),
            Command::ClusterMemberAttrSet(_) => (Self::ClusterMemberAttrSet, 0),
            Command::DowngradeInfoSet(_) => (Self::DowngradeInfoSet, 0),
            Command::DowngradeVersionTest(_) => (Self::DowngradeVersionTest, 0),
        }
    }

    const fn of_auth(command: &AuthCommand) -> Self {
        match command {
            AuthCommand::Enable => Self::AuthEnable,
            AuthCommand::Disable => Self::AuthDisable,
            AuthCommand::Status => Self::AuthStatus,
            AuthCommand::Authenticate { .. } => Self::Authenticate,
            AuthCommand::UserAdd(_) => Self::AuthUserAdd,
            AuthCommand::UserDelete { .. } => Self::AuthUserDelete,
            AuthCommand::UserGet { .. } => Self::AuthUserGet,
            AuthCommand::UserChangePassword(_) => Self::AuthUserChangePassword,
            AuthCommand::UserGrantRole { .. } => Self::AuthUserGrantRole,
            AuthCommand::UserRevokeRole { .. } => Self::AuthUserRevokeRole,
            AuthCommand::UserList => Self::AuthUserList,
            AuthCommand::RoleList => Self::AuthRoleList,
            AuthCommand::RoleAdd { .. } => Self::AuthRoleAdd,
            AuthCommand::RoleDelete { .. } => Self::AuthRoleDelete,
            AuthCommand::RoleGet { .. } => Self::AuthRoleGet,
            AuthCommand::RoleGrantPermission(_) => Self::AuthRoleGrantPermission,
            AuthCommand::RoleRevokePermission(_) => Self::AuthRoleRevokePermission,
        }
    }
}

impl From<Field> for Op {
    fn from(field: Field) -> Self {
        match field {
            Field::Put => Self::Put,
            Field::DeleteRange => Self::DeleteRange,
            Field::Txn => Self::Txn,
            Field::Compaction => Self::Compaction,
            Field::Alarm => Self::Alarm,
            Field::LeaseGrant => Self::LeaseGrant,
            Field::LeaseRevoke => Self::LeaseRevoke,
            Field::LeaseCheckpoint => Self::LeaseCheckpoint,
            Field::ClusterVersionSet => Self::ClusterVersionSet,
            Field::ClusterMemberAttrSet => Self::ClusterMemberAttrSet,
            Field::DowngradeInfoSet => Self::DowngradeInfoSet,
        }
    }
}

/// How many operations of a kind ran.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Operations {
    /// Ranges.
    pub ranges: u64,
    /// Puts.
    pub puts: u64,
    /// Range deletes.
    pub deletes: u64,
}

impl Operations {
    /// Those that `reply` tells of.
    #[must_use]
    pub fn of_reply(reply: &Reply) -> Self {
        match reply {
            Reply::Put(_) => Self { puts: 1, ..Self::default() },
            Reply::DeleteRange(_) => Self { deletes: 1, ..Self::default() },
            Reply::Range(_) => Self { ranges: 1, ..Self::default() },
            Reply::Txn(reply) => Self::of_txn(reply),
            Reply::LeaseGrant(_) | Reply::Members(_) | Reply::Alarms(_) | Reply::Empty => Self::default(),
        }
    }

    /// Those that ran in a transaction, and in those inside it. They are as deep as a message can be.
    #[must_use]
    pub fn of_txn(reply: &TxnReply) -> Self {
        let mut all = Self::default();
        for response in &reply.responses {
            match response {
                OpReply::Range(_) => all.ranges += 1,
                OpReply::Put(_) => all.puts += 1,
                OpReply::DeleteRange(_) => all.deletes += 1,
                OpReply::Txn(inner) => {
                    let inner = Self::of_txn(inner);
                    all.ranges += inner.ranges;
                    all.puts += inner.puts;
                    all.deletes += inner.deletes;
                }
                OpReply::Empty => {}
            }
        }
        all
    }

    /// All of them.
    #[must_use]
    pub const fn sum(self) -> u64 {
        self.ranges + self.puts + self.deletes
    }
}

#[cfg(test)]
mod tests {
    use detcd_core::reply::{DeleteRangeReply, PutReply};

    use super::*;

    #[test]
    fn names_stand_at_their_places() {
        assert_eq!(NAMES[Op::LeaseRevoke as usize], "LeaseRevoke");
        assert_eq!(NAMES[Op::AuthRoleRevokePermission as usize], "AuthRoleRevokePermission");
        assert_eq!(NAMES.len(), Op::AuthRoleRevokePermission as usize + 1);
    }

    #[test]
    fn operations_inside_transactions_are_found() {
        let put = || OpReply::Put(PutReply { revision: 2, prev: None });
        let inner = TxnReply { revision: 0, succeeded: false, responses: vec![put(), OpReply::Empty] };
        let delete = OpReply::DeleteRange(DeleteRangeReply { revision: 2, deleted: 3, prev: Vec::new() });
        let outer = TxnReply { revision: 2, succeeded: true, responses: vec![put(), OpReply::Txn(inner), delete] };
        let found = Operations::of_reply(&Reply::Txn(outer));
        assert_eq!((found, found.sum()), (Operations { ranges: 0, puts: 2, deletes: 1 }, 3));
    }
}
