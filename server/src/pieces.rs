//! A large answer to a range, encoded piece by piece as its client takes it.
//!
//! Encoded at once, ten megabytes would keep a thread of the runtime from everybody else, and be in memory twice. Protobuf's fields follow each other: the pieces'
//! bytes are the message's.

use std::sync::{Arc, Mutex, PoisonError};
use std::vec;

use bytes::{BufMut as _, Bytes, BytesMut};
use detcd_proto::etcdserverpb::{RangeResponse, ResponseHeader};
use detcd_proto::mvccpb::KeyValue;
use prost::Message as _;

/// Keys and values of a piece: it ends with the first that reaches beyond.
const PIECE_BYTES: usize = 64 * 1024;
/// Answers with less than that are encoded at once.
const LEAST_BYTES: usize = 2 * PIECE_BYTES;
/// One byte that says that nothing is compressed, and four for the length.
const PREFIX_BYTES: usize = 5;

/// In the extensions of a request: whoever sends its answer can send [`Pieces`].
#[derive(Clone, Copy, Debug)]
pub struct TakesPieces;

/// In the extensions of a response: what is to be sent in place of its message. It is taken once; clones share what is left.
#[derive(Clone, Debug)]
pub struct Pieces(Arc<Mutex<Rest>>);

/// What is not encoded yet.
#[derive(Debug)]
struct Rest {
    /// The length of the whole message, until it was told.
    length: Option<u32>,
    header: Option<ResponseHeader>,
    kvs: vec::IntoIter<KeyValue>,
    more: bool,
    count: i64,
}

impl Pieces {
    /// Takes a large answer over; what remains of it is empty. `None`: it is small, or too long for any message.
    pub fn of(response: &mut RangeResponse) -> Option<Self> {
        let length = u32::try_from(response.encoded_len()).ok()?;
        if (length as usize) < LEAST_BYTES {
            return None;
        }
        let RangeResponse { header, kvs, more, count } = std::mem::take(response);
        Some(Self(Arc::new(Mutex::new(Rest { length: Some(length), header, kvs: kvs.into_iter(), more, count }))))
    }

    /// The next bytes of the message with its prefix.
    #[must_use]
    pub fn next(&self) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

impl Rest {
    fn next(&mut self) -> Option<Bytes> {
        let length = self.length.take();
        if length.is_none() && self.kvs.len() == 0 {
            return None;
        }
        let mut piece = RangeResponse { header: self.header.take(), ..RangeResponse::default() };
        let mut bytes = 0;
        while bytes < PIECE_BYTES
            && let Some(pair) = self.kvs.next()
        {
            bytes += pair.key.len() + pair.value.len();
            piece.kvs.push(pair);
        }
        if self.kvs.len() == 0 {
            (piece.more, piece.count) = (self.more, self.count);
        }
        let mut encoded = BytesMut::with_capacity(PREFIX_BYTES + piece.encoded_len());
        if let Some(length) = length {
            encoded.put_u8(0);
            encoded.put_u32(length);
        }
        piece.encode(&mut encoded).expect("a buffer that grows has room");
        Some(encoded.freeze())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn pairs() -> impl Strategy<Value = Vec<KeyValue>> {
        let sizes = prop_oneof![0..2_000_usize, Just(PIECE_BYTES), 0..3 * PIECE_BYTES];
        let pair = (sizes, any::<i64>(), 0..3_i64).prop_map(|(size, revision, lease)| KeyValue {
            key: Bytes::from(size.to_string()),
            value: Bytes::from(vec![b'v'; size]),
            create_revision: revision,
            lease,
            ..KeyValue::default()
        });
        vec(pair, 0..40)
    }

    proptest! {
        #[test]
        fn pieces_are_the_message(kvs in pairs(), revision in any::<i64>(), more in any::<bool>(), count in 0..9_i64) {
            let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
            let whole = RangeResponse { header, kvs, more, count };
            let mut response = whole.clone();
            let Some(pieces) = Pieces::of(&mut response) else {
                prop_assert!(whole.encoded_len() < LEAST_BYTES && response == whole);
                return Ok(());
            };
            let largest = whole.kvs.iter().map(KeyValue::encoded_len).max().unwrap_or(0);
            let mut sent = Vec::new();
            while let Some(piece) = pieces.next() {
                prop_assert!(piece.len() <= 2 * PIECE_BYTES + largest);
                sent.extend_from_slice(&piece);
            }
            let (prefix, message) = sent.split_at(PREFIX_BYTES);
            prop_assert_eq!(prefix, [&[0][..], &(message.len() as u32).to_be_bytes()].concat());
            prop_assert_eq!(message, whole.encode_to_vec());
        }
    }
}
