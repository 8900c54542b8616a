//! The stream of appends, etcd's `msgappv2`: an append that continues the one before it needs to say little more than its entries.
//!
//! Three frames: a sign of life, entries that continue, a whole message. Both ends of a connection keep where the last append ended; a new connection knows nothing, so its first append is whole.
//!
//! ```text
//! 00                                                     the connection lives
//! 01  count  (length entry)*  commit                     entries after the last ones, all numbers 8 bytes, big endian
//! 02  length message
//! ```

use bytes::{Buf as _, BufMut as _, BytesMut};
use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::{Entry, Mark, Message};
use detcd_proto::raftpb::MessageType;

use super::bounds;
use super::codec::{self, Envelope, Malformed, Received};
use super::shape::at_most;
use super::stream::take_sized;

const HEARTBEAT: u8 = 0;
const ENTRIES: u8 = 1;
const WHOLE: u8 = 2;

/// Where the last append of a connection ended; nowhere, at its start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Place {
    term: Term,
    index: Index,
}

/// The writing end of one connection.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    place: Place,
}

impl Encoder {
    /// Appends the frame of a message, which must be an append.
    ///
    /// # Panics
    /// If it is none: nothing else is routed here.
    pub fn put(&mut self, from: MemberId, to: MemberId, message: &Message, out: &mut BytesMut) {
        let Message::Append { term, previous, entries, commit } = message else {
            panic!("only appends have a place on this stream")
        };
        let last = entries.last().map_or(previous.index, |entry| entry.index);
        if self.place == (Place { term: previous.term, index: previous.index }) && previous.term == *term {
            out.put_u8(ENTRIES);
            out.put_u64(entries.len() as u64);
            for entry in entries {
                put_sized(&codec::entry(entry), out);
            }
            out.put_u64(commit.0);
        } else {
            out.put_u8(WHOLE);
            put_sized(&codec::wire(from, to, message), out);
        }
        self.place = Place { term: *term, index: last };
    }

    /// Appends a sign of life.
    pub fn heartbeat(out: &mut BytesMut) {
        out.put_u8(HEARTBEAT);
    }
}

/// Appends a message behind its length.
pub(super) fn put_sized(message: &impl prost::Message, out: &mut BytesMut) {
    let length = message.encoded_len();
    out.reserve(8 + length);
    out.put_u64(length as u64);
    message.encode(out).expect("there is room for its length");
}

/// The reading end of one connection.
#[derive(Clone, Debug)]
pub struct Decoder {
    remote: MemberId,
    local: MemberId,
    place: Place,
    reading: Reading,
}

/// What comes next.
#[derive(Clone, Debug)]
enum Reading {
    Kind,
    Count,
    Entries(Entries),
    Whole,
}

/// A frame of entries, as far as it has come.
#[derive(Clone, Debug, Default)]
struct Entries {
    left: usize,
    bytes: usize,
    entries: Vec<Entry>,
}

impl Decoder {
    /// For what `remote` sends to this member, `local`.
    #[must_use]
    pub const fn new(remote: MemberId, local: MemberId) -> Self {
        let place = Place { term: Term(0), index: Index::ZERO };
        Self { remote, local, place, reading: Reading::Kind }
    }

    /// Takes the next frame from the front of `buffer`, or as much of it as is there.
    ///
    /// # Errors
    /// No member sends such bytes. Nothing that follows can be read.
    pub fn read(&mut self, buffer: &mut BytesMut) -> Result<Option<Received>, Malformed> {
        loop {
            match &mut self.reading {
                Reading::Kind => {
                    let Some(kind) = buffer.first().copied() else { return Ok(None) };
                    buffer.advance(1);
                    match kind {
                        HEARTBEAT => return Ok(Some(Received::LinkHeartbeat)),
                        ENTRIES if self.place.term.0 == 0 => return Err(Malformed::NothingToContinue),
                        ENTRIES => self.reading = Reading::Count,
                        WHOLE => self.reading = Reading::Whole,
                        other => return Err(Malformed::Frame(other)),
                    }
                }
                Reading::Count => {
                    let Some(left) = take_number(buffer) else { return Ok(None) };
                    let left = usize::try_from(left).unwrap_or(usize::MAX);
                    at_most("entries", left, bounds::FRAME_ENTRIES_MAX)?;
                    self.reading = Reading::Entries(Entries { left, ..Entries::default() });
                }
                Reading::Entries(frame) => {
                    if !frame.read(buffer)? {
                        return Ok(None);
                    }
                    let Some(commit) = take_number(buffer) else { return Ok(None) };
                    let entries = std::mem::take(&mut frame.entries);
                    self.reading = Reading::Kind;
                    return self.continued(entries, commit).map(Some);
                }
                Reading::Whole => {
                    let Some(bytes) = take_sized(buffer, bounds::FRAME_BYTES_MAX)? else { return Ok(None) };
                    self.reading = Reading::Kind;
                    return self.whole(codec::parse(bytes.freeze())?).map(Some);
                }
            }
        }
    }

    fn continued(&mut self, entries: Vec<Entry>, commit: u64) -> Result<Received, Malformed> {
        let Place { term, index } = self.place;
        // No overflow: an index that was read, and a frame's entries, are far below that.
        self.place.index = index.plus(entries.len() as u64);
        let message = codec::append(term, Mark::new(index, term), entries, codec::index(Some(commit))?)?;
        Ok(Received::Message(Envelope { from: self.remote, to: self.local, message }))
    }

    fn whole(&mut self, wire: detcd_proto::raftpb::Message) -> Result<Received, Malformed> {
        let kind = wire.r#type.unwrap_or_default();
        if kind != i32::from(MessageType::MsgApp) {
            return Err(Malformed::NotAnAppend(kind));
        }
        let received = codec::meaning(wire)?;
        if let Received::Message(Envelope { message: Message::Append { term, previous, entries, .. }, .. }) = &received
        {
            let index = entries.last().map_or(previous.index, |entry| entry.index);
            self.place = Place { term: *term, index };
        }
        Ok(received)
    }
}

impl Entries {
    /// Takes the entries that are there. Answers whether those were all.
    fn read(&mut self, buffer: &mut BytesMut) -> Result<bool, Malformed> {
        while 0 < self.left {
            let Some(bytes) = take_sized(buffer, bounds::FRAME_BYTES_MAX - self.bytes)? else { return Ok(false) };
            self.bytes += bytes.len();
            self.entries.push(codec::parse_entry(bytes.freeze())?);
            self.left -= 1;
        }
        Ok(true)
    }
}

fn take_number(buffer: &mut BytesMut) -> Option<u64> {
    buffer.try_get_u64().ok()
}
