//! Committed entries: an entry's payload to the engine's typed command, and back to bytes for those that this member itself proposes.
//!
//! A payload that cannot be understood is a [`Undecodable`]: the member stops, because skipping a committed entry would make it differ from the others.

use bytes::Bytes;
use detcd_core::command::{
    AlarmAction, AlarmKind, AlarmRequest, AuthCommand, ClusterMemberAttrSetRequest, ClusterVersionSetRequest, Command,
    CompactionRequest, DowngradeInfoSetRequest, DowngradeVersionTestRequest, Header, LeaseCheckpoint,
    LeaseCheckpointRequest, LeaseGrantRequest, LeaseRevokeRequest, Permission, PermissionKind, Request,
    RoleGrantPermission, RoleRevokePermission, UserAdd, UserChangePassword,
};
use detcd_core::ids::{LeaseId, MemberId, Ticket};
use detcd_core::membership::{ConfChange, ConfChangeKind, Version};
use detcd_proto::etcdserverpb as pb;
use detcd_proto::raftpb;
use prost::Message as _;

use super::member;
use super::request::{delete_range, put, range, txn};

/// Why a committed entry's payload cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum Undecodable {
    /// No such message.
    #[error("not an internal request: {0}")]
    Bytes(#[from] prost::DecodeError),
    /// The header with the request's id is missing.
    #[error("the request has no header")]
    NoHeader,
    /// No field, or none that this version knows.
    #[error("the request names no command that this version knows")]
    NoCommand,
    /// A version that is not three numbers.
    #[error("not a version: {0:?}")]
    Version(String),
    /// A membership change with a kind or context that makes no sense.
    #[error("not a membership change: {0}")]
    ConfChange(String),
}

/// Reads the payload of a normal entry.
///
/// # Errors
/// [`Undecodable`]: the member cannot go on.
pub fn decode(payload: Bytes) -> Result<Request, Undecodable> {
    let request = pb::InternalRaftRequest::decode(payload)?;
    let header = match &request.header {
        Some(header) => {
            Header { id: Ticket(header.id), username: header.username.clone(), auth_revision: header.auth_revision }
        }
        None if request.id != 0 => Header { id: Ticket(request.id), ..Header::default() },
        None => return Err(Undecodable::NoHeader),
    };
    let command = command(request)?;
    Ok(Request { header, command })
}

/// The one field that is set. The order of the looks is that of the hot path; a request with several never comes from a member.
fn command(request: pb::InternalRaftRequest) -> Result<Command, Undecodable> {
    if let Some(request) = request.put {
        return Ok(Command::Put(put(request)));
    }
    if let Some(request) = request.txn {
        return Ok(Command::Txn(txn(request)));
    }
    if let Some(request) = request.delete_range {
        return Ok(Command::DeleteRange(delete_range(request)));
    }
    if let Some(request) = request.range {
        return Ok(Command::Range(range(request)));
    }
    if let Some(request) = request.compaction {
        return Ok(Command::Compaction(CompactionRequest { revision: request.revision, physical: request.physical }));
    }
    if let Some(command) = lease_command(&request) {
        return Ok(command);
    }
    if let Some(alarm) = &request.alarm {
        return Ok(Command::Alarm(AlarmRequest {
            action: AlarmAction::from_number(alarm.action),
            member: MemberId(alarm.member_id),
            alarm: AlarmKind::from_number(alarm.alarm),
        }));
    }
    if let Some(command) = cluster_command(&request)? {
        return Ok(command);
    }
    user_command(&request).or_else(|| role_command(&request)).map(Command::Auth).ok_or(Undecodable::NoCommand)
}

fn lease_command(request: &pb::InternalRaftRequest) -> Option<Command> {
    if let Some(grant) = &request.lease_grant {
        return Some(Command::LeaseGrant(LeaseGrantRequest { ttl: grant.ttl, id: LeaseId(grant.id) }));
    }
    if let Some(revoke) = &request.lease_revoke {
        return Some(Command::LeaseRevoke(LeaseRevokeRequest { id: LeaseId(revoke.id) }));
    }
    let checkpoints = request.lease_checkpoint.as_ref()?.checkpoints.iter();
    let checkpoints =
        checkpoints.map(|each| LeaseCheckpoint { id: LeaseId(each.id), remaining_ttl: each.remaining_ttl }).collect();
    Some(Command::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints }))
}

fn cluster_command(request: &pb::InternalRaftRequest) -> Result<Option<Command>, Undecodable> {
    if let Some(set) = &request.cluster_version_set {
        let version = Version::parse(&set.ver).ok_or_else(|| Undecodable::Version(set.ver.clone()))?;
        return Ok(Some(Command::ClusterVersionSet(ClusterVersionSetRequest { version })));
    }
    if let Some(set) = &request.cluster_member_attr_set {
        let attributes = set.member_attributes.clone().unwrap_or_default();
        return Ok(Some(Command::ClusterMemberAttrSet(ClusterMemberAttrSetRequest {
            member: MemberId(set.member_id),
            name: attributes.name,
            client_urls: attributes.client_urls,
        })));
    }
    if let Some(set) = &request.downgrade_info_set {
        let set = DowngradeInfoSetRequest { enabled: set.enabled, version: set.ver.clone() };
        return Ok(Some(Command::DowngradeInfoSet(set)));
    }
    let test = request.downgrade_version_test.as_ref();
    Ok(test.map(|test| Command::DowngradeVersionTest(DowngradeVersionTestRequest { version: test.ver.clone() })))
}

fn user_command(request: &pb::InternalRaftRequest) -> Option<AuthCommand> {
    if request.auth_enable.is_some() {
        return Some(AuthCommand::Enable);
    }
    if request.auth_disable.is_some() {
        return Some(AuthCommand::Disable);
    }
    if request.auth_status.is_some() {
        return Some(AuthCommand::Status);
    }
    if let Some(ask) = &request.authenticate {
        let (name, password) = (ask.name.clone(), ask.password.clone());
        return Some(AuthCommand::Authenticate { name, password, simple_token: ask.simple_token.clone() });
    }
    if let Some(add) = &request.auth_user_add {
        return Some(AuthCommand::UserAdd(UserAdd {
            name: add.name.clone(),
            password: add.password.clone(),
            no_password: add.options.as_ref().map(|options| options.no_password),
            hashed_password: add.hashed_password.clone(),
        }));
    }
    if let Some(delete) = &request.auth_user_delete {
        return Some(AuthCommand::UserDelete { name: delete.name.clone() });
    }
    if let Some(get) = &request.auth_user_get {
        return Some(AuthCommand::UserGet { name: get.name.clone() });
    }
    if let Some(change) = &request.auth_user_change_password {
        return Some(AuthCommand::UserChangePassword(UserChangePassword {
            name: change.name.clone(),
            password: change.password.clone(),
            hashed_password: change.hashed_password.clone(),
        }));
    }
    if let Some(grant) = &request.auth_user_grant_role {
        return Some(AuthCommand::UserGrantRole { user: grant.user.clone(), role: grant.role.clone() });
    }
    if let Some(revoke) = &request.auth_user_revoke_role {
        return Some(AuthCommand::UserRevokeRole { name: revoke.name.clone(), role: revoke.role.clone() });
    }
    request.auth_user_list.is_some().then_some(AuthCommand::UserList)
}

fn role_command(request: &pb::InternalRaftRequest) -> Option<AuthCommand> {
    if request.auth_role_list.is_some() {
        return Some(AuthCommand::RoleList);
    }
    if let Some(add) = &request.auth_role_add {
        return Some(AuthCommand::RoleAdd { name: add.name.clone() });
    }
    if let Some(delete) = &request.auth_role_delete {
        return Some(AuthCommand::RoleDelete { role: delete.role.clone() });
    }
    if let Some(get) = &request.auth_role_get {
        return Some(AuthCommand::RoleGet { role: get.role.clone() });
    }
    if let Some(grant) = &request.auth_role_grant_permission {
        let permission = grant.perm.as_ref().map(|permission| Permission {
            kind: PermissionKind::from_number(permission.perm_type),
            key: permission.key.clone(),
            range_end: permission.range_end.clone(),
        });
        return Some(AuthCommand::RoleGrantPermission(RoleGrantPermission { name: grant.name.clone(), permission }));
    }
    let revoke = request.auth_role_revoke_permission.as_ref()?;
    Some(AuthCommand::RoleRevokePermission(RoleRevokePermission {
        role: revoke.role.clone(),
        key: revoke.key.clone(),
        range_end: revoke.range_end.clone(),
    }))
}

/// Reads the payload of a membership entry.
///
/// # Errors
/// [`Undecodable`]: the member cannot go on.
pub fn decode_conf_change(payload: Bytes) -> Result<ConfChange, Undecodable> {
    let change = raftpb::ConfChange::decode(payload)?;
    let unclear = |what: &str| Undecodable::ConfChange(what.to_owned());
    let node = MemberId(change.node_id.unwrap_or(0));
    let context = change.context.as_deref().unwrap_or_default();
    let context = || member::decode_context(context).map_err(|error| Undecodable::ConfChange(error.to_string()));
    let kind = match raftpb::ConfChangeType::try_from(change.r#type.unwrap_or(0)) {
        Ok(raftpb::ConfChangeType::ConfChangeAddNode) => {
            let context = context()?;
            if context.is_promote { ConfChangeKind::Promote } else { ConfChangeKind::AddVoter(context.member) }
        }
        Ok(raftpb::ConfChangeType::ConfChangeAddLearnerNode) => ConfChangeKind::AddLearner(context()?.member),
        Ok(raftpb::ConfChangeType::ConfChangeRemoveNode) => ConfChangeKind::Remove,
        Ok(raftpb::ConfChangeType::ConfChangeUpdateNode) => {
            ConfChangeKind::Update { peer_urls: context()?.member.peer_urls }
        }
        Err(_) => return Err(unclear("unknown kind")),
    };
    match &kind {
        ConfChangeKind::AddVoter(member) | ConfChangeKind::AddLearner(member) if member.id != node => {
            Err(unclear("the context is about another member"))
        }
        _ => Ok(ConfChange { id: Ticket(change.id.unwrap_or(0)), node, kind }),
    }
}

/// The payload of `request` under `ticket`, with nobody's name on it.
#[must_use]
pub fn encode(ticket: Ticket, mut request: pb::InternalRaftRequest) -> Bytes {
    request.header = Some(pb::RequestHeader { id: ticket.0, ..pb::RequestHeader::default() });
    request.encode_to_vec().into()
}
