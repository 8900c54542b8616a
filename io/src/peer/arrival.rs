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

#[cfg(test)]
mod tests {
    use detcd_core::ids::{Index, Term};
    use detcd_core::raft::{Configuration, Mark};
    use raftpb::MessageType;

    use super::*;

    fn sent(from: u64, to: u64) -> raftpb::Message {
        let configuration = Configuration { voters: [MemberId(1), MemberId(2)].into(), ..Configuration::default() };
        let snapshot = Snapshot { mark: Mark::new(Index(7), Term(3)), configuration };
        codec::wire(MemberId(from), MemberId(to), &Message::Snapshot { term: Term(3), snapshot })
    }

    #[test]
    fn a_store_is_taken_of_a_member_that_is_one_and_for_this_one() {
        let directory = Directory::new(1, MemberId(1));
        directory.set([MemberId(1), MemberId(2)], [MemberId(4)]);
        let refused = |wire| accept(&directory, wire).err();
        assert_eq!(refused(sent(2, 1)), None);
        assert_eq!(refused(raftpb::Message { snapshot: None, ..sent(2, 1) }), Some(NotTaken::Nothing));
        assert_eq!(refused(sent(2, 3)), Some(NotTaken::ForAnother));
        assert_eq!(refused(sent(4, 1)), Some(NotTaken::Member(SnapshotRefused::Removed)));
        assert_eq!(refused(sent(4, 3)), Some(NotTaken::Member(SnapshotRefused::Removed)), "it is told first");
    }

    #[test]
    fn of_another_kind_nothing_else_is_asked() {
        let directory = Directory::new(1, MemberId(1));
        let vote = MessageType::MsgVote.into();
        assert_eq!(accept(&directory, raftpb::Message { r#type: Some(vote), ..sent(2, 1) }), Err(NotTaken::Kind));
        let nonsense = raftpb::Message { r#type: Some(vote), term: None, snapshot: None, ..sent(2, 1) };
        assert_eq!(accept(&directory, nonsense), Err(NotTaken::Kind));
        let nonsense = raftpb::Message { term: None, ..sent(2, 1) };
        assert!(matches!(accept(&directory, nonsense), Err(NotTaken::Head(_))));
    }
}
