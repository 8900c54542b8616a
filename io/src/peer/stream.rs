//! The two streams that members keep open: bytes in, messages out, however the bytes are cut; and the other way round.
//!
//! One stream carries appends ([`msgappv2`]), the other everything, each message behind its length as 8 bytes, big endian. The state is that of one connection: a new connection
//! begins anew.
//!
//! Nothing is set aside for what was only announced: a buffer grows with what has arrived.

use bytes::{Buf as _, BytesMut};
use detcd_core::ids::MemberId;
use detcd_core::raft::Message;

use super::bounds;
use super::codec::{self, Malformed, Received};
use super::msgappv2::{self, put_sized};

/// Which of the two.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Appends only.
    Appends,
    /// Everything; appends only while the other is not open.
    Messages,
}

/// The writing end of one connection.
#[derive(Clone, Debug)]
pub struct Encoder {
    from: MemberId,
    to: MemberId,
    /// On the stream of appends.
    appends: Option<msgappv2::Encoder>,
}

/// The reading end of one connection.
#[derive(Clone, Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// On the stream of appends.
    appends: Option<msgappv2::Decoder>,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Appends, Self::Messages];

    /// Where the stream is asked for; the asking member's id follows.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Appends => "/raft/stream/msgapp/",
            Self::Messages => "/raft/stream/message/",
        }
    }
}

impl Encoder {
    /// For what `from`, this member, sends to `to`.
    #[must_use]
    pub fn new(kind: Kind, from: MemberId, to: MemberId) -> Self {
        Self { from, to, appends: (kind == Kind::Appends).then(msgappv2::Encoder::default) }
    }

    /// Appends the bytes of a message.
    ///
    /// # Panics
    /// On the stream of appends, if it is none.
    pub fn put(&mut self, message: &Message, out: &mut BytesMut) {
        match &mut self.appends {
            Some(encoder) => encoder.put(self.from, self.to, message, out),
            None => put_sized(&codec::wire(self.from, self.to, message), out),
        }
    }

    /// Appends a sign of life.
    pub fn heartbeat(&self, out: &mut BytesMut) {
        match &self.appends {
            Some(_) => msgappv2::Encoder::heartbeat(out),
            None => put_sized(&codec::link_heartbeat(), out),
        }
    }
}

impl Decoder {
    /// For what `remote` sends to this member, `local`.
    #[must_use]
    pub fn new(kind: Kind, remote: MemberId, local: MemberId) -> Self {
        let appends = (kind == Kind::Appends).then(|| msgappv2::Decoder::new(remote, local));
        Self { buffer: BytesMut::new(), appends }
    }

    /// Takes bytes that arrived. Everything that they complete is to be read before more is fed.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next thing that was said, if it has arrived whole.
    ///
    /// # Errors
    /// No member sends such bytes. Nothing that follows can be read.
    pub fn read(&mut self) -> Result<Option<Received>, Malformed> {
        match &mut self.appends {
            Some(decoder) => decoder.read(&mut self.buffer),
            None => match take_sized(&mut self.buffer, bounds::FRAME_BYTES_MAX)? {
                Some(bytes) => codec::read(bytes.freeze()).map(Some),
                None => Ok(None),
            },
        }
    }

    /// Bytes that are set aside.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

/// Takes what stands behind its length from the front of `buffer`, if it is all there.
pub(super) fn take_sized(buffer: &mut BytesMut, most: usize) -> Result<Option<BytesMut>, Malformed> {
    let Some(head) = buffer.first_chunk::<8>() else { return Ok(None) };
    let found = u64::from_be_bytes(*head);
    let length = usize::try_from(found).ok().filter(|length| *length <= most);
    let length = length.ok_or(Malformed::TooLarge { what: "a frame", found, most: most as u64 })?;
    if buffer.len() - 8 < length {
        return Ok(None);
    }
    buffer.advance(8);
    Ok(Some(buffer.split_to(length)))
}
