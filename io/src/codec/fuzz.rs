//! What the fuzzer calls, and the stable tests too: any bytes as the requests of a log.
//!
//! The invariant it checks: the short way of reading the common requests says what the thorough one says.

use bytes::{BufMut, Bytes, BytesMut};
use detcd_core::command::Command;

use super::entry::decode;

/// Field 1 of a request: an old member's ticket. With it every payload has a header, and none is read the short way.
const OLD_TICKET: [u8; 2] = [0x08, 0x01];

/// The first byte, and behind it the requests that can be read: each a length in two bytes, most significant first, and a
/// payload. What cannot be read is passed over.
///
/// # Panics
/// If a request reads differently the other way: then there is a bug.
#[must_use]
pub fn commands(input: &[u8]) -> (u8, Vec<Command>) {
    let (first, mut rest) = input.split_first().map_or((0, input), |(first, rest)| (*first, rest));
    let mut commands = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (payload, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)).min(behind.len()));
        rest = behind;
        let thorough = decode([&OLD_TICKET, payload].concat().into()).map(|request| request.command);
        if let Ok(request) = decode(Bytes::copy_from_slice(payload)) {
            assert_eq!(thorough.as_ref().ok(), Some(&request.command));
        }
        commands.extend(thorough);
    }
    (first, commands)
}

/// An input that is these payloads, of less than 64 KiB each.
#[must_use]
pub fn input(first: u8, payloads: &[Bytes]) -> Bytes {
    let mut input = BytesMut::new();
    input.put_u8(first);
    for payload in payloads {
        input.put_u16(u16::try_from(payload.len()).expect("a short request"));
        input.put_slice(payload);
    }
    input.freeze()
}
