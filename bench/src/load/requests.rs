//! What the generator asks for: request templates encoded once, with only the key changing from one to the next.
//!
//! Which key an operation touches, and whether it reads or writes in a mixed load, follows from the seed and the
//! operation's number alone. So two servers under the same shape are asked for the same things, whatever their speed
//! and however the clients interleave.

use bytes::{Bytes, BytesMut};
use detcd_proto::etcdserverpb::{
    Compare, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, compare,
    request_op,
};
use prost::Message;

use super::framing::frame;
use super::stamp::{self, STAMP_BYTES};

/// Length of every key.
pub const KEY_BYTES: usize = 16;
/// Most keys that the digits of a key can tell apart.
pub const KEYS_MAX: u64 = 10_000_000_000;

/// Every key begins so.
pub const KEY_PREFIX: &[u8] = b"bench/";
/// The end of the range of all keys.
pub const KEY_PREFIX_END: &[u8] = b"bench0";
const KEY_ZERO: &[u8; KEY_BYTES] = b"bench/0000000000";
const KEY_DIGITS_AT: usize = 6;
/// Stands for the key while a template is encoded. Nothing else in a template holds sixteen such bytes in a row.
const KEY_MARK: &[u8; KEY_BYTES] = &[0xff; KEY_BYTES];

/// A method of the KV service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rpc {
    /// `KV.Put`
    Put,
    /// `KV.Range`
    Range,
    /// `KV.Txn`
    Txn,
}

impl Rpc {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Put, Self::Range, Self::Txn];

    /// The path of the method's URI.
    pub fn path(self) -> &'static str {
        match self {
            Self::Put => "/etcdserverpb.KV/Put",
            Self::Range => "/etcdserverpb.KV/Range",
            Self::Txn => "/etcdserverpb.KV/Txn",
        }
    }
}

/// One request, framed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// The method to call.
    pub rpc: Rpc,
    /// The message with gRPC's prefix.
    pub body: Bytes,
}

/// What a run is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Workload {
    /// Writes of one key each.
    Put,
    /// The same, with the time of their making at the start of the value ([`super::stamp`]).
    StampedPut,
    /// Reads of one key each, confirmed by the quorum.
    LinearizableRange,
    /// Reads of one key each from the member's own state.
    SerializableRange,
    /// A compare of the key's modification revision, and a put of it.
    Txn,
    /// Linearizable reads and puts.
    Mixed {
        /// How many of a hundred operations read.
        reads_percent: u64,
    },
}

/// In which order keys are taken from the key space.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyOrder {
    /// One after the other, and again from the first.
    Sequential,
    /// Drawn from the seed.
    Random,
}

/// Everything that decides the requests of a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shape {
    /// The kinds of operations.
    pub workload: Workload,
    /// How keys are chosen.
    pub key_order: KeyOrder,
    /// How many keys there are to choose from, 1 to [`KEYS_MAX`].
    pub keys: u64,
    /// Length of the values that are put.
    pub value_bytes: usize,
    /// Where chance comes from.
    pub seed: u64,
}

/// A reply that is well-formed and does not answer the request.
#[derive(Debug, thiserror::Error)]
pub enum WrongReply {
    /// The message does not decode.
    #[error("the reply does not decode: {0}")]
    Undecodable(#[from] prost::DecodeError),
    /// A reply without the header that every reply has.
    #[error("the reply to a put has no header")]
    NoHeader,
    /// A range that did not find its key with a value of the expected length.
    #[error("the range found {found} keys instead of one with a value of {value_bytes} bytes")]
    NotFound {
        /// How many keys came.
        found: usize,
        /// The length that the value should have had.
        value_bytes: usize,
    },
    /// A transaction whose comparison, which always holds, was answered with no.
    #[error("the transaction's comparison failed")]
    NotSucceeded,
}

/// The source of a run's requests.
#[derive(Clone, Debug)]
pub struct Requests {
    shape: Shape,
    put: Template,
    range: Template,
    txn: Template,
}

impl Requests {
    /// Encodes the templates.
    pub fn new(shape: Shape) -> Self {
        assert!(1 <= shape.keys);
        assert!(shape.keys <= KEYS_MAX);
        assert!(shape.workload != Workload::StampedPut || STAMP_BYTES <= shape.value_bytes);
        let key = || KEY_MARK.as_slice().into();
        let serializable = shape.workload == Workload::SerializableRange;
        let range = RangeRequest { key: key(), serializable, ..RangeRequest::default() };
        let put = PutRequest { key: key(), value: value(shape.value_bytes).into(), ..PutRequest::default() };
        let txn = TxnRequest {
            compare: vec![Compare {
                // Always true, but the server cannot know before it has looked the key up.
                result: compare::CompareResult::Less as i32,
                target: compare::CompareTarget::Mod as i32,
                target_union: Some(compare::TargetUnion::ModRevision(1 << 62)),
                key: key(),
                ..Compare::default()
            }],
            success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put.clone())) }],
            failure: vec![RequestOp { request: Some(request_op::Request::RequestRange(range.clone())) }],
        };
        Self {
            shape,
            put: Template::new(Rpc::Put, frame(&put), 1),
            range: Template::new(Rpc::Range, frame(&range), 1),
            txn: Template::new(Rpc::Txn, frame(&txn), 3),
        }
    }

    /// The request of an operation, by the operation's number.
    pub fn draw(&self, op: u64) -> Request {
        let chance = scramble(self.shape.seed, op);
        let number = match self.shape.key_order {
            KeyOrder::Sequential => op % self.shape.keys,
            KeyOrder::Random => chance % self.shape.keys,
        };
        let template = match self.shape.workload {
            Workload::StampedPut => return self.stamped(&key(number)),
            Workload::Put => &self.put,
            Workload::LinearizableRange | Workload::SerializableRange => &self.range,
            Workload::Txn => &self.txn,
            Workload::Mixed { reads_percent } if scramble(chance, op) % 100 < reads_percent => &self.range,
            Workload::Mixed { .. } => &self.put,
        };
        template.with_key(&key(number))
    }

    /// A put that tells when it was made. The value is the last thing in the message.
    fn stamped(&self, key: &[u8; KEY_BYTES]) -> Request {
        let Request { rpc, body } = self.put.with_key(key);
        let mut body = BytesMut::from(body);
        let value_at = body.len() - self.shape.value_bytes;
        body[value_at..value_at + STAMP_BYTES].copy_from_slice(&stamp::now());
        Request { rpc, body: body.freeze() }
    }

    /// Whether the reply answers the request. Keys that are read must have been put by a run of the same value length.
    pub fn verify(&self, rpc: Rpc, message: Bytes) -> Result<(), WrongReply> {
        match rpc {
            Rpc::Put => match PutResponse::decode(message)?.header {
                Some(_) => Ok(()),
                None => Err(WrongReply::NoHeader),
            },
            Rpc::Range => {
                let found = RangeResponse::decode(message)?.kvs;
                let value_bytes = self.shape.value_bytes;
                match found.as_slice() {
                    [pair] if pair.value.len() == value_bytes => Ok(()),
                    _ => Err(WrongReply::NotFound { found: found.len(), value_bytes }),
                }
            }
            Rpc::Txn => match TxnResponse::decode(message)?.succeeded {
                true => Ok(()),
                false => Err(WrongReply::NotSucceeded),
            },
        }
    }
}

/// A request's bytes and the places in them where the key stands.
#[derive(Clone, Debug)]
struct Template {
    rpc: Rpc,
    framed: Bytes,
    key_at: Vec<usize>,
}

impl Template {
    fn new(rpc: Rpc, framed: Bytes, keys: usize) -> Self {
        let windows = framed.windows(KEY_BYTES).enumerate();
        let key_at: Vec<usize> = windows.filter_map(|(at, window)| (window == KEY_MARK).then_some(at)).collect();
        assert_eq!(key_at.len(), keys);
        Self { rpc, framed, key_at }
    }

    fn with_key(&self, key: &[u8; KEY_BYTES]) -> Request {
        let mut body = BytesMut::from(&self.framed[..]);
        for &at in &self.key_at {
            body[at..at + KEY_BYTES].copy_from_slice(key);
        }
        Request { rpc: self.rpc, body: body.freeze() }
    }
}

/// The key of a number.
pub fn key(mut number: u64) -> [u8; KEY_BYTES] {
    assert!(number < KEYS_MAX);
    let mut key = *KEY_ZERO;
    for digit in key[KEY_DIGITS_AT..].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    key
}

/// A value that looks like text and compresses badly.
fn value(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| b'a' + (scramble(0, at) % 26) as u8).collect()
}

/// A number that depends on every bit of both (the finishing steps of SplitMix64).
fn scramble(seed: u64, number: u64) -> u64 {
    let mut mixed = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::framing::unframe;
    use super::*;

    const SHAPE: Shape =
        Shape { workload: Workload::Put, key_order: KeyOrder::Sequential, keys: 50, value_bytes: 256, seed: 7 };

    fn put(request: Request) -> PutRequest {
        assert_eq!(request.rpc, Rpc::Put);
        PutRequest::decode(unframe(request.body).expect("framed by us")).expect("encoded by us")
    }

    fn keys(shape: Shape, ops: u64) -> Vec<Vec<u8>> {
        let requests = Requests::new(shape);
        (0..ops).map(|op| put(requests.draw(op)).key.to_vec()).collect()
    }

    #[test]
    fn a_key_is_its_number_in_digits() {
        assert_eq!(&key(0), b"bench/0000000000");
        assert_eq!(&key(9_876_543_210), b"bench/9876543210");
    }

    #[test]
    fn a_drawn_put_differs_from_another_in_its_key_only() {
        let requests = Requests::new(SHAPE);
        let (first, second) = (put(requests.draw(3)), put(requests.draw(4)));
        assert_eq!(first.key.to_vec(), b"bench/0000000003");
        assert_eq!(second.key.to_vec(), b"bench/0000000004");
        assert_eq!(first.value.len(), 256);
        assert_eq!(PutRequest { key: second.key.clone(), ..first }, second);
    }

    #[test]
    fn a_stamped_put_tells_its_age_and_keeps_its_length() {
        let requests = Requests::new(Shape { workload: Workload::StampedPut, ..SHAPE });
        let (plain, stamped) = (put(Requests::new(SHAPE).draw(3)), put(requests.draw(3)));
        assert_eq!((&stamped.key, stamped.value.len()), (&plain.key, plain.value.len()));
        assert_eq!(stamped.value[STAMP_BYTES..], plain.value[STAMP_BYTES..]);
        let age = stamp::age(&stamped.value).expect("a stamp");
        assert!(age < std::time::Duration::from_secs(60), "{age:?}");
    }

    #[test]
    fn sequential_keys_wrap_at_the_end_of_the_key_space() {
        let keys = keys(SHAPE, 51);
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 50);
        assert_eq!(keys[0], keys[50]);
    }

    #[test]
    fn random_keys_follow_from_the_seed_and_reach_the_whole_key_space() {
        let random = Shape { key_order: KeyOrder::Random, ..SHAPE };
        let drawn = keys(random, 1000);
        assert_eq!(drawn, keys(random, 1000));
        assert_ne!(drawn, keys(Shape { seed: 8, ..random }, 1000));
        assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), 50);
    }

    #[test]
    fn a_transaction_names_one_key_in_all_its_parts() {
        let requests = Requests::new(Shape { workload: Workload::Txn, ..SHAPE });
        let drawn = requests.draw(12);
        assert_eq!(drawn.rpc, Rpc::Txn);
        let txn = TxnRequest::decode(unframe(drawn.body).expect("framed by us")).expect("encoded by us");
        let expected = b"bench/0000000012".to_vec();
        assert_eq!(txn.compare[0].key.to_vec(), expected);
        let Some(request_op::Request::RequestPut(put)) = &txn.success[0].request else { panic!("not a put") };
        assert_eq!(put.key.to_vec(), expected);
        let Some(request_op::Request::RequestRange(range)) = &txn.failure[0].request else { panic!("not a range") };
        assert_eq!(range.key.to_vec(), expected);
    }

    #[test]
    fn only_the_serializable_load_reads_serializably() {
        for (workload, serializable) in [(Workload::LinearizableRange, false), (Workload::SerializableRange, true)] {
            let drawn = Requests::new(Shape { workload, ..SHAPE }).draw(0);
            assert_eq!(drawn.rpc, Rpc::Range);
            let range = RangeRequest::decode(unframe(drawn.body).expect("framed by us")).expect("encoded by us");
            assert_eq!(range.serializable, serializable);
        }
    }

    #[test]
    fn a_mixed_load_reads_as_often_as_it_says() {
        let requests = Requests::new(Shape { workload: Workload::Mixed { reads_percent: 90 }, ..SHAPE });
        let reads = (0..10_000).filter(|&op| requests.draw(op).rpc == Rpc::Range).count();
        assert!((8_800..=9_200).contains(&reads), "{reads} reads of 10000");
    }

    #[test]
    fn a_reply_that_does_not_answer_is_found_out() {
        let requests = Requests::new(SHAPE);
        let empty = Bytes::new;
        assert!(matches!(requests.verify(Rpc::Put, empty()), Err(WrongReply::NoHeader)));
        assert!(matches!(requests.verify(Rpc::Range, empty()), Err(WrongReply::NotFound { found: 0, .. })));
        assert!(matches!(requests.verify(Rpc::Txn, empty()), Err(WrongReply::NotSucceeded)));
        let garbage = Bytes::from_static(&[0xff]);
        assert!(matches!(requests.verify(Rpc::Put, garbage), Err(WrongReply::Undecodable(_))));
        let yes = TxnResponse { succeeded: true, ..TxnResponse::default() }.encode_to_vec();
        assert!(requests.verify(Rpc::Txn, yes.into()).is_ok());
    }
}
