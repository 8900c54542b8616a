//! etcd's tables and the bytes of their keys and values.
//!
//! The names and encodings are etcd's, row for row, so that hashes over the same history are equal and a copy of the tables is an etcd database.
//! Facts: `docs/format/store.md`.

use bytes::{Bytes, BytesMut};
use detcd_core::alarm::Alarm;
use detcd_core::command::AlarmKind;
use detcd_core::ids::{MemberId, Revision};
use detcd_core::mvcc::KeyValue;
use detcd_proto::etcdserverpb as pb;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// One of etcd's top-level buckets.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Bucket {
    /// `key`: revision to key-value.
    Key,
    /// `meta`: applied index, term, storage version, compaction marks.
    Meta,
    /// `lease`: lease id to lease.
    Lease,
    /// `alarm`: raised alarms.
    Alarm,
    /// `cluster`: cluster version, downgrade information.
    Cluster,
    /// `members`: member id to member.
    Members,
    /// `members_removed`: ids that may never come back.
    MembersRemoved,
    /// `auth`: whether auth is on, and its revision.
    Auth,
    /// `authUsers`: user name to user.
    AuthUsers,
    /// `authRoles`: role name to role.
    AuthRoles,
}

impl Bucket {
    /// Every bucket, in the order of their names' bytes: the order in which etcd hashes them.
    pub const ALL: [Self; 10] = [
        Self::Alarm,
        Self::Auth,
        Self::AuthRoles,
        Self::AuthUsers,
        Self::Cluster,
        Self::Key,
        Self::Lease,
        Self::Members,
        Self::MembersRemoved,
        Self::Meta,
    ];

    /// etcd's name of the bucket.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Meta => "meta",
            Self::Lease => "lease",
            Self::Alarm => "alarm",
            Self::Cluster => "cluster",
            Self::Members => "members",
            Self::MembersRemoved => "members_removed",
            Self::Auth => "auth",
            Self::AuthUsers => "authUsers",
            Self::AuthRoles => "authRoles",
        }
    }
}

/// `meta/consistent_index`: the log index that the store has applied.
pub const APPLIED_INDEX: &[u8] = b"consistent_index";
/// `meta/term`: the term of that entry.
pub const APPLIED_TERM: &[u8] = b"term";
/// `meta/confState`: the Raft configuration, as JSON.
pub const CONF_STATE: &[u8] = b"confState";
/// `meta/storageVersion`: the version of this layout, as text.
pub const STORAGE_VERSION: &[u8] = b"storageVersion";
/// `meta/scheduledCompactRev`: a compaction that was decided.
pub const SCHEDULED_COMPACTION: &[u8] = b"scheduledCompactRev";
/// `meta/finishedCompactRev`: a compaction that was carried out.
pub const FINISHED_COMPACTION: &[u8] = b"finishedCompactRev";
/// `cluster/clusterVersion`.
pub const CLUSTER_VERSION: &[u8] = b"clusterVersion";
/// `cluster/downgrade`: a downgrade that is under way, as JSON.
pub const DOWNGRADE: &[u8] = b"downgrade";
/// `auth/authEnabled`.
pub const AUTH_ENABLED: &[u8] = b"authEnabled";

/// Bytes of a revision key; a tombstone has one more.
pub const REVISION_BYTES: usize = 17;
const TOMBSTONE_MARK: u8 = b't';

/// A row key of bucket `key`, on the stack. Ordered as in the store.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct RevisionKey {
    bytes: [u8; REVISION_BYTES + 1],
    len: usize,
}

impl RevisionKey {
    /// The key of a put at `revision`.
    #[must_use]
    pub fn put(revision: Revision) -> Self {
        let mut bytes = [0; REVISION_BYTES + 1];
        bytes[..8].copy_from_slice(&revision.main.to_be_bytes());
        bytes[8] = b'_';
        bytes[9..REVISION_BYTES].copy_from_slice(&revision.sub.to_be_bytes());
        Self { bytes, len: REVISION_BYTES }
    }

    /// The key of a tombstone at `revision`.
    #[must_use]
    pub fn tombstone(revision: Revision) -> Self {
        let mut key = Self::put(revision);
        key.bytes[REVISION_BYTES] = TOMBSTONE_MARK;
        key.len = REVISION_BYTES + 1;
        key
    }

    /// The bytes as stored.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Reads a stored key: the revision, and whether it marks a deletion. `None` if these are no such bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<(Revision, RowKind)> {
        let kind = match bytes.len() {
            REVISION_BYTES => RowKind::Put,
            len if len == REVISION_BYTES + 1 && bytes[REVISION_BYTES] == TOMBSTONE_MARK => RowKind::Tombstone,
            _ => return None,
        };
        if bytes[8] != b'_' {
            return None;
        }
        let main = i64::from_be_bytes(bytes[..8].try_into().ok()?);
        let sub = i64::from_be_bytes(bytes[9..REVISION_BYTES].try_into().ok()?);
        Some((Revision::new(main, sub), kind))
    }
}

/// What a row of bucket `key` records.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RowKind {
    /// A value was written.
    Put,
    /// The key was deleted.
    Tombstone,
}

/// Appends the bytes of `kv` as `mvccpb.KeyValue`: fields ascending, zero fields absent.
pub fn encode_key_value(kv: &KeyValue, out: &mut Vec<u8>) {
    bytes_field(1, &kv.key, out);
    int_field(2, kv.created, out);
    int_field(3, kv.modified, out);
    int_field(4, kv.version, out);
    bytes_field(5, &kv.value, out);
    int_field(6, kv.lease.0, out);
}

/// Appends the bytes of a tombstone's value: only the key.
pub fn encode_tombstone(key: &[u8], out: &mut Vec<u8>) {
    bytes_field(1, key, out);
}

/// How many bytes [`encode_key_value`] writes.
#[must_use]
pub fn key_value_len(kv: &KeyValue) -> usize {
    let bytes_len = |bytes: &Bytes| match bytes.len() {
        0 => 0,
        len => key_len(1) + encoded_len_varint(len as u64) + len,
    };
    let int_len = |value: i64| if value == 0 { 0 } else { key_len(1) + encoded_len_varint(value.cast_unsigned()) };
    bytes_len(&kv.key)
        + bytes_len(&kv.value)
        + int_len(kv.created)
        + int_len(kv.modified)
        + int_len(kv.version)
        + int_len(kv.lease.0)
}

/// Reads a stored `mvccpb.KeyValue`. Key and value are slices of `bytes`.
///
/// # Errors
/// The bytes are no such message.
pub fn decode_key_value(bytes: Bytes) -> Result<KeyValue, prost::DecodeError> {
    let kv = detcd_proto::mvccpb::KeyValue::decode(bytes)?;
    Ok(KeyValue {
        key: kv.key,
        value: kv.value,
        created: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: detcd_core::ids::LeaseId(kv.lease),
    })
}

/// What the key index and the leases need of a stored `mvccpb.KeyValue`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RowHead<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The revision that created it.
    pub created: i64,
    /// Writes since then.
    pub version: i64,
    /// The lease that it hangs on, or zero.
    pub lease: i64,
}

impl<'a> RowHead<'a> {
    /// Reads it without a copy: a start does so for every row. `None` if the bytes are no such message, or one with anything unusual in it: then
    /// [`decode_key_value`] says which.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (mut head, mut rest) = (Self::default(), bytes);
        while let Some((tag, behind)) = rest.split_first() {
            rest = behind;
            let number = short_varint(&mut rest)?;
            let target = match *tag {
                BYTES_1 | BYTES_5 => {
                    let (field, behind) = rest.split_at_checked(usize::try_from(number).ok()?)?;
                    rest = behind;
                    if *tag == BYTES_1 {
                        head.key = field;
                    }
                    continue;
                }
                INT_2 => &mut head.created,
                INT_3 => continue,
                INT_4 => &mut head.version,
                INT_6 => &mut head.lease,
                _ => return None,
            };
            *target = number.cast_signed();
        }
        Some(head)
    }
}

/// The fields of `mvccpb.KeyValue` with their wire types: key, created, modified, version, value, lease.
const BYTES_1: u8 = 1 << 3 | 2;
const INT_2: u8 = 2 << 3;
const INT_3: u8 = 3 << 3;
const INT_4: u8 = 4 << 3;
const BYTES_5: u8 = 5 << 3 | 2;
const INT_6: u8 = 6 << 3;

/// A number of at most nine bytes, that is, a positive one.
fn short_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0..9 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn bytes_field(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        encode_key(tag, WireType::LengthDelimited, out);
        encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
}

fn int_field(tag: u32, value: i64, out: &mut Vec<u8>) {
    if value != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(value.cast_unsigned(), out);
    }
}

/// The key of an alarm's row: the protobuf `etcdserverpb.AlarmMember`. Its value is empty.
#[must_use]
pub fn alarm_key(alarm: Alarm) -> Bytes {
    let member = pb::AlarmMember { member_id: alarm.member.0, alarm: alarm.kind.number() };
    member.encode_to_vec().into()
}

/// Reads such a key.
///
/// # Errors
/// The bytes are no such message.
pub fn parse_alarm_key(bytes: &[u8]) -> Result<Alarm, prost::DecodeError> {
    let member = pb::AlarmMember::decode(bytes)?;
    Ok(Alarm { member: MemberId(member.member_id), kind: AlarmKind::from_number(member.alarm) })
}

/// The key of a member's row: its id in lower-case hex, unpadded.
#[must_use]
pub fn member_key(id: MemberId) -> Bytes {
    let mut out = BytesMut::new();
    std::fmt::Write::write_fmt(&mut out, format_args!("{:x}", id.0)).expect("a buffer grows");
    out.freeze()
}

/// Reads such a key, also that of a removed member's row.
#[must_use]
pub fn parse_member_key(key: &[u8]) -> Option<MemberId> {
    let text = std::str::from_utf8(key).ok()?;
    u64::from_str_radix(text, 16).ok().map(MemberId)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_number() -> impl Strategy<Value = i64> {
        prop_oneof![Just(0), 1..300_i64, any::<i64>()]
    }

    prop_compose! {
        fn any_kv()(
            key in prop::collection::vec(any::<u8>(), 0..200),
            value in prop::collection::vec(any::<u8>(), 0..300),
            numbers in (any_number(), any_number(), any_number(), any_number()),
        ) -> KeyValue {
            let (created, modified, version, lease) = numbers;
            let lease = detcd_core::ids::LeaseId(lease);
            KeyValue { key: key.into(), value: value.into(), created, modified, version, lease }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn the_head_of_a_row_is_what_the_whole_row_says(
            kv in any_kv(),
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
            cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        ) {
            let mut bytes = Vec::new();
            encode_key_value(&kv, &mut bytes);
            if let (Some((place, byte)), false) = (damage, bytes.is_empty()) {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            let whole = decode_key_value(Bytes::copy_from_slice(&bytes));
            let is_usual = damage.is_none() && cut.is_none();
            match RowHead::read(&bytes) {
                Some(head) => {
                    let whole = whole.expect("the head was read");
                    let expected =
                        RowHead { key: &whole.key, created: whole.created, version: whole.version, lease: whole.lease.0 };
                    prop_assert_eq!(head, expected);
                }
                None => prop_assert!(!is_usual || [kv.created, kv.modified, kv.version, kv.lease.0].iter().any(|n| *n < 0)),
            }
        }
    }
}
