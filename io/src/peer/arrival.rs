//! A snapshot that another member sends, as far as its store: the message at the head of the body, and whether the store behind it is taken.
//!
//! Nothing is set aside for what was only announced. What the receiver can refuse, it refuses before it takes the store; etcd does so after it, in the same words.

use bytes::{Buf as _, Bytes, BytesMut};
use detcd_core::ids::MemberId;
use detcd_core::raft::{Message, Snapshot};
use detcd_proto::raftpb;

use super::codec::{self, Envelope, Received};
use super::{Directory, SnapshotRefused, Standing, bounds};

/// Bytes of the message's length.
const LENGTH_BYTES: usize = 8;

/// Why the store is not taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NotTaken {
    /// Not the message that it must begin with.
    Head(String),
    /// A message, but of another kind.
    Kind,
    /// A snapshot of nothing: the connection ends.
    Nothing,
    /// It is for another member.
    ForAnother,
    /// This member does not want it.
    Member(SnapshotRefused),
}

/// The message of a snapshot whose store is taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Announced {
    /// Its sender.
    pub from: MemberId,
    /// The message.
    pub message: Message,
    /// Where the store stands.
    pub snapshot: Snapshot,
}

/// The beginning of a body, as far as it is there.
#[derive(Debug, Default)]
pub struct Head {
    length: Option<usize>,
    bytes: BytesMut,
}

impl Head {
    /// Adds bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that are set aside.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The message, once all of it is there.
    ///
    /// # Errors
    /// It is none, or longer than any.
    pub fn read(&mut self) -> Result<Option<raftpb::Message>, NotTaken> {
        let length = match self.length {
            Some(length) => length,
            None if self.bytes.len() < LENGTH_BYTES => return Ok(None),
            None => {
                let length = usize::try_from(self.bytes.get_u64()).ok();
                let length = length.filter(|length| *length <= bounds::FRAME_BYTES_MAX);
                length.ok_or_else(|| NotTaken::Head("rafthttp: error limit exceeded".to_owned()))?
            }
        };
        self.length = Some(length);
        if self.bytes.len() < length {
            return Ok(None);
        }
        let parsed = codec::parse(self.bytes.split_to(length).freeze());
        parsed.map(Some).map_err(|error| NotTaken::Head(format!("proto: {error}")))
    }

    /// What it means that the body ends here, before the message did.
    #[must_use]
    pub fn ended(&self) -> NotTaken {
        let is_empty = self.length.is_none() && self.bytes.is_empty();
        NotTaken::Head(if is_empty { "EOF" } else { "unexpected EOF" }.to_owned())
    }

    /// The connection was lost.
    #[must_use]
    pub fn lost() -> NotTaken {
        NotTaken::Head("unexpected EOF".to_owned())
    }

    /// What came behind the message already: the first bytes of the store.
    #[must_use]
    pub fn into_rest(self) -> Bytes {
        self.bytes.freeze()
    }
}

/// Whether the store of this message is taken.
///
/// # Errors
/// It is not.
pub fn accept(directory: &Directory, wire: raftpb::Message) -> Result<Announced, NotTaken> {
    if wire.r#type.unwrap_or_default() != i32::from(raftpb::MessageType::MsgSnap) {
        return Err(NotTaken::Kind);
    }
    if wire.snapshot.is_none() {
        return Err(NotTaken::Nothing);
    }
    let received = codec::meaning(wire).map_err(|error| NotTaken::Head(format!("proto: {error}")))?;
    let Received::Message(Envelope { from, to, message }) = received else { return Err(NotTaken::Kind) };
    let Message::Snapshot { snapshot, .. } = &message else { return Err(NotTaken::Kind) };
    if directory.standing(from) == Standing::Removed {
        return Err(NotTaken::Member(SnapshotRefused::Removed));
    }
    if to != directory.member() {
        return Err(NotTaken::ForAnother);
    }
    let snapshot = snapshot.clone();
    Ok(Announced { from, message, snapshot })
}
