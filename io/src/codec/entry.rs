//! Committed entries: an entry's payload to the engine's typed command, and back to bytes for those that this member itself proposes.
//!
//! A payload that cannot be understood is a [`Undecodable`]: the member stops, because skipping a committed entry would make it differ from the others.

use bytes::{Buf as _, Bytes, BytesMut};
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
use prost::encoding::{WireType, decode_key, decode_varint, message};

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
    if let Some(request) = decode_common(&payload) {
        return Ok(request);
    }
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

/// The field of the internal request that a message of ours goes into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Field {
    /// `put`.
    Put = 4,
    /// `delete_range`.
    DeleteRange = 5,
    /// `txn`.
    Txn = 6,
    /// `compaction`.
    Compaction = 7,
    /// `alarm`.
    Alarm = 10,
    /// `lease_grant`.
    LeaseGrant = 8,
    /// `lease_revoke`.
    LeaseRevoke = 9,
    /// `lease_checkpoint`.
    LeaseCheckpoint = 11,
    /// `cluster_version_set`.
    ClusterVersionSet = 1300,
    /// `cluster_member_attr_set`.
    ClusterMemberAttrSet = 1301,
    /// `downgrade_info_set`.
    DowngradeInfoSet = 1302,
}

/// The number of the header's field.
const HEADER: u32 = 100;

/// The payload that carries `message` in `field` under `ticket`, with nobody's name on it.
///
/// Written field by field, in the order of their numbers: the generated struct has a place for every request there is, and moving it about
/// costs more than the encoding.
#[must_use]
pub fn encode(ticket: Ticket, field: Field, message: &impl prost::Message) -> Bytes {
    let header = pb::RequestHeader { id: ticket.0, ..pb::RequestHeader::default() };
    let number = field as u32;
    let len = message::encoded_len(number, message) + message::encoded_len(HEADER, &header);
    let mut out = BytesMut::with_capacity(len);
    if number < HEADER {
        message::encode(number, message, &mut out);
        message::encode(HEADER, &header, &mut out);
    } else {
        message::encode(HEADER, &header, &mut out);
        message::encode(number, message, &mut out);
    }
    assert!(out.len() == len);
    out.freeze()
}

/// The common requests, without the generated struct: a header and one of put, delete and txn. `None`: look again, thoroughly.
fn decode_common(payload: &Bytes) -> Option<Request> {
    let mut rest = payload.clone();
    let (mut header, mut command) = (None, None);
    while rest.has_remaining() {
        let (number, wire) = decode_key(&mut rest).ok()?;
        let len = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
        if wire != WireType::LengthDelimited || rest.remaining() < len {
            return None;
        }
        let body = rest.split_to(len);
        match number {
            4 if command.is_none() => command = Some(Command::Put(put(pb::PutRequest::decode(body).ok()?))),
            5 if command.is_none() => {
                command = Some(Command::DeleteRange(delete_range(pb::DeleteRangeRequest::decode(body).ok()?)));
            }
            6 if command.is_none() => command = Some(Command::Txn(txn(pb::TxnRequest::decode(body).ok()?))),
            HEADER if header.is_none() => header = Some(pb::RequestHeader::decode(body).ok()?),
            _ => return None,
        }
    }
    let header = header?;
    let header = Header { id: Ticket(header.id), username: header.username, auth_revision: header.auth_revision };
    Some(Request { header, command: command? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thoroughly(payload: &Bytes) -> Request {
        let request = pb::InternalRaftRequest::decode(payload.clone()).expect("our own payload");
        let id = Ticket(request.header.as_ref().expect("our own payload").id);
        Request { header: Header { id, ..Header::default() }, command: command(request).expect("our own payload") }
    }

    #[test]
    fn common_requests_are_understood_as_any_other() {
        let put = pb::PutRequest { key: "k".into(), value: "v".into(), lease: 3, prev_kv: true, ..Default::default() };
        let delete = pb::DeleteRangeRequest { key: "a".into(), range_end: "b".into(), prev_kv: true };
        let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put.clone())) };
        let txn = pb::TxnRequest { compare: vec![pb::Compare::default()], success: vec![op], failure: Vec::new() };
        for payload in [
            encode(Ticket(7), Field::Put, &put),
            encode(Ticket(u64::MAX), Field::DeleteRange, &delete),
            encode(Ticket(9), Field::Txn, &txn),
        ] {
            assert!(decode_common(&payload).is_some());
            assert_eq!(decode(payload.clone()).expect("our own payload"), thoroughly(&payload));
        }
        let set = detcd_proto::membershippb::ClusterVersionSetRequest { ver: "3.7.0".into() };
        let payload = encode(Ticket(1), Field::ClusterVersionSet, &set);
        assert!(decode_common(&payload).is_none());
        assert_eq!(decode(payload.clone()).expect("our own payload"), thoroughly(&payload));
    }

    #[test]
    fn a_payload_without_header_or_command_is_refused() {
        assert!(matches!(decode(Bytes::from_static(b"\xff")), Err(Undecodable::Bytes(_))));
        assert!(matches!(decode(Bytes::from_static(b"\x22\x00")), Err(Undecodable::NoHeader)));
        let header = pb::RequestHeader { id: 1, ..Default::default() };
        let bare = pb::InternalRaftRequest { header: Some(header), ..Default::default() };
        assert!(matches!(decode(bare.encode_to_vec().into()), Err(Undecodable::NoCommand)));
    }
}
