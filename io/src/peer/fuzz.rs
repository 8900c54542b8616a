//! What the fuzzer calls, and the stable tests too: any bytes as what another member says.
//!
//! The invariants it checks, whatever the bytes: reading ends, without a panic, in messages or a typed error; how the bytes are cut makes no difference; what is set aside stays in proportion to what
//! arrived; every message that was read comes out the same when it is written and read again; over a connection comes only what its other end may say.

use bytes::BytesMut;
use detcd_core::ids::MemberId;
use detcd_core::raft::Message;

use super::codec::{self, Dropped, Envelope, Malformed, Received};
use super::inbox::message_size;
use super::stream::{Decoder, Encoder, Kind};

const REMOTE: MemberId = MemberId(2);
const LOCAL: MemberId = MemberId(1);

/// What a connection said until it ended, and how it ended.
pub type Heard = (Vec<Received>, Result<(), Malformed>);

/// Takes the bytes for a message, and behind a first byte for both streams; answers for the stream that this byte names, cut where it says.
///
/// # Panics
/// If one of the promises above is broken: then there is a bug.
pub fn listen(input: &[u8]) -> Heard {
    if let Ok(Received::Message(Envelope { from, to, message })) = codec::read(input.to_vec().into()) {
        let again = prost::Message::encode_to_vec(&codec::wire(from, to, &message));
        let received = Received::Message(Envelope { from, to, message });
        check_link(&received);
        assert_eq!(codec::read(again.into()), Ok(received));
    }
    let (head, bytes) = input.split_first().unwrap_or((&0, &[]));
    let step = usize::from(head >> 1) + 1;
    let [appends, messages] = Kind::ALL.map(|kind| {
        let whole = hear(kind, bytes, bytes.len().max(1));
        assert_eq!(hear(kind, bytes, step), whole, "however it is cut");
        assert_eq!(hear(kind, bytes, 1), whole, "byte by byte");
        check_again(kind, &whole.0);
        whole.0.iter().for_each(check_link);
        whole
    });
    if head & 1 == 0 { appends } else { messages }
}

/// Hears what a stream says, `step` bytes at a time.
pub fn hear(kind: Kind, bytes: &[u8], step: usize) -> Heard {
    let mut decoder = Decoder::new(kind, REMOTE, LOCAL);
    let mut heard = Vec::new();
    for chunk in bytes.chunks(step) {
        decoder.feed(chunk);
        assert!(decoder.capacity() <= 1024 + 4 * bytes.len(), "nothing is set aside for what was only announced");
        loop {
            match decoder.read() {
                Ok(Some(received)) => heard.push(received),
                Ok(None) => break,
                Err(malformed) => return (heard, Err(malformed)),
            }
        }
    }
    let sizes = heard.iter().map(|received| match received {
        Received::Message(envelope) => message_size(&envelope.message),
        Received::LinkHeartbeat | Received::Dropped(_) => 0,
    });
    // The smallest entry has a length of eight bytes, or two in a whole message, and is a struct of some sixty.
    assert!(sizes.sum::<usize>() <= 1024 + 256 * bytes.len());
    (heard, Ok(()))
}

/// Nothing is taken for another member's word, nothing that was for another member, and no snapshot without its store; all else is taken. What
/// is passed on may name its first sender.
fn check_link(received: &Received) {
    let taken = received.clone().over_link(REMOTE, LOCAL);
    let expected = match received {
        Received::LinkHeartbeat => Ok(None),
        Received::Dropped(why) => Err(*why),
        Received::Message(Envelope { from, to, message }) => match message {
            Message::Snapshot { .. } => Err(Dropped::SnapshotAlone),
            _ if *to != LOCAL => Err(Dropped::ForAnother(*to)),
            Message::Propose { .. } | Message::ReadIndex { .. } => Ok(Some(message.clone())),
            _ if *from != REMOTE => Err(Dropped::OfAnother(*from)),
            _ => Ok(Some(message.clone())),
        },
    };
    assert_eq!(taken, expected);
}

/// What was heard is heard again when it is said again.
fn check_again(kind: Kind, heard: &[Received]) {
    let mut encoder = Encoder::new(kind, REMOTE, LOCAL);
    let mut out = BytesMut::new();
    let mut said = Vec::new();
    for received in heard {
        match received {
            Received::Message(Envelope { message, .. }) => {
                encoder.put(message, &mut out);
                said.push(message.clone());
            }
            Received::LinkHeartbeat => encoder.heartbeat(&mut out),
            Received::Dropped(_) => {}
        }
    }
    let (again, ended) = hear(kind, &out, out.len().max(1));
    assert_eq!(ended, Ok(()));
    let again = again.into_iter().filter_map(|received| match received {
        Received::Message(envelope) => Some(envelope.message),
        Received::LinkHeartbeat | Received::Dropped(_) => None,
    });
    assert_eq!(again.collect::<Vec<_>>(), said);
}
