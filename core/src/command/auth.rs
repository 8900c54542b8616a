//! The commands about users, roles and the switch, as the log carries them.
//!
//! Passwords reach the log only hashed; a plain one that an old log holds is kept as it is. Nothing is interpreted here.

use alloc::string::String;

use bytes::Bytes;

use super::open_enum;

/// Every auth request of the log.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum AuthCommand {
    /// Switch authentication on.
    Enable,
    /// Switch it off.
    Disable,
    /// Is it on, and at which revision.
    Status,
    /// Hand out a simple token.
    Authenticate {
        /// The user.
        name: String,
        /// The password; empty in the log of a careful server.
        password: String,
        /// The token that every member will know.
        simple_token: String,
    },
    /// Create a user.
    UserAdd(UserAdd),
    /// Remove a user.
    UserDelete {
        /// The user.
        name: String,
    },
    /// Describe a user.
    UserGet {
        /// The user.
        name: String,
    },
    /// Give a user another password.
    UserChangePassword(UserChangePassword),
    /// Give a user a role.
    UserGrantRole {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// Take a role from a user.
    UserRevokeRole {
        /// The user.
        name: String,
        /// The role.
        role: String,
    },
    /// List the users.
    UserList,
    /// List the roles.
    RoleList,
    /// Create a role.
    RoleAdd {
        /// The role.
        name: String,
    },
    /// Remove a role.
    RoleDelete {
        /// The role.
        role: String,
    },
    /// Describe a role.
    RoleGet {
        /// The role.
        role: String,
    },
    /// Allow a role a range of keys.
    RoleGrantPermission(RoleGrantPermission),
    /// Take a range of keys from a role.
    RoleRevokePermission(RoleRevokePermission),
}

/// Creates a user.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct UserAdd {
    /// The user.
    pub name: String,
    /// The plain password; empty in the log of a careful server.
    pub password: String,
    /// `Some(true)`: the user has none; `None`: the options were absent.
    pub no_password: Option<bool>,
    /// The password's hash in base64.
    pub hashed_password: String,
}

/// Gives a user another password.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct UserChangePassword {
    /// The user.
    pub name: String,
    /// The plain password; empty in the log of a careful server.
    pub password: String,
    /// The password's hash in base64.
    pub hashed_password: String,
}

open_enum! {
    /// What a permission allows.
    PermissionKind {
        /// Reading.
        Read = 0,
        /// Writing.
        Write = 1,
        /// Both.
        ReadWrite = 2,
    }
}

/// A range of keys and what may be done there.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Permission {
    /// What is allowed.
    pub kind: PermissionKind,
    /// The first key.
    pub key: Bytes,
    /// As in [`super::RangeRequest::range_end`].
    pub range_end: Bytes,
}

/// Allows a role a range of keys.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct RoleGrantPermission {
    /// The role.
    pub name: String,
    /// The permission; absent on the wire is an error of its own.
    pub permission: Option<Permission>,
}

/// Takes a range of keys from a role.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct RoleRevokePermission {
    /// The role.
    pub role: String,
    /// The first key.
    pub key: Bytes,
    /// As in [`super::RangeRequest::range_end`].
    pub range_end: Bytes,
}
