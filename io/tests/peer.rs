//! What etcd's own code says between members, against ours, in both directions; then any bytes, cut anywhere.
//!
//! `make corpus` writes `tests/golden/peer/`: every message of a long conversation of etcd's raft library, and two streams as etcd's transport wrote them. The fuzzer's function runs here too, over them
//! and over whatever a fuzzer once found.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::{Entry, EntryKind, Mark, Message};
use detcd_io::peer::codec::{self, Dropped, Envelope, Malformed, Received};
use detcd_io::peer::fuzz::{hear, listen};
use detcd_io::peer::stream::{Decoder, Encoder, Kind};
use detcd_io::peer::{bounds, codec::wire};
use proptest::collection::vec;
use proptest::prelude::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(root().join("tests/golden/peer").join(name)).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

/// etcd's conversation: each message's kind and bytes.
fn conversation() -> Vec<(String, Vec<u8>)> {
    let text = String::from_utf8(golden("messages.txt")).unwrap();
    let lines = text.lines().map(|line| line.split_once(' ').unwrap());
    lines.map(|(kind, hex)| (kind.to_owned(), unhex(hex))).collect()
}

#[test]
fn every_message_of_etcd_is_read_and_written_to_the_byte() {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (kind, bytes) in conversation() {
        let Received::Message(envelope) = codec::read(bytes.clone().into()).unwrap() else { panic!("{kind}") };
        let word = envelope.message.to_string().split(' ').next().unwrap().to_owned();
        let mut again = wire(envelope.from, envelope.to, &envelope.message);
        if let Some(snapshot) = &mut again.snapshot {
            snapshot.data = Some(Bytes::from_static(b"{\"Root\":{}}"));
        }
        assert_eq!(prost::Message::encode_to_vec(&again), bytes, "{kind}: {}", envelope.message);
        assert_eq!(kind == "MsgSnap", word == "snapshot");
        *seen.entry(word).or_default() += 1;
    }
    let words: Vec<_> = seen.keys().map(String::as_str).collect();
    let all = [
        "append",
        "append-accepted",
        "append-rejected",
        "heartbeat",
        "heartbeat-answered",
        "pre-vote-granted",
        "pre-vote-refused",
        "pre-vote-request",
        "propose",
        "read-index",
        "read-index-answered",
        "snapshot",
        "timeout-now",
        "vote-granted",
        "vote-refused",
        "vote-request",
    ];
    assert_eq!(words, all);
}

#[test]
fn etcds_streams_are_read_and_written_to_the_byte() {
    for (kind, name) in [(Kind::Appends, "msgapp.stream"), (Kind::Messages, "message.stream")] {
        let bytes = golden(name);
        let mut decoder = Decoder::new(kind, MemberId(1), MemberId(2));
        let mut encoder = Encoder::new(kind, MemberId(1), MemberId(2));
        let (mut out, mut messages, mut heartbeats) = (BytesMut::new(), 0, 0);
        decoder.feed(&bytes);
        while let Some(received) = decoder.read().unwrap() {
            match received {
                Received::LinkHeartbeat => {
                    heartbeats += 1;
                    encoder.heartbeat(&mut out);
                }
                other => {
                    let message = other.over_link(MemberId(1), MemberId(2)).unwrap().unwrap();
                    assert_eq!(kind == Kind::Appends, matches!(message, Message::Append { .. }));
                    encoder.put(&message, &mut out);
                    messages += 1;
                }
            }
        }
        assert_eq!(out, bytes, "{name}");
        assert!(10 <= messages && 2 <= heartbeats, "{name}: {messages} {heartbeats}");
    }
}

/// The messages of one stream as its fuzzer's input.
fn seed(kind: Kind, name: &str) -> Vec<u8> {
    [&[u8::from(kind == Kind::Messages)][..], &golden(name)].concat()
}

/// The seed of this name is this input; `WRITE_SEEDS=1` writes it.
fn check_seed(name: &str, input: &[u8]) {
    let path = root().join("fuzz/seeds/peer").join(format!("etcd-{name}"));
    if std::env::var_os("WRITE_SEEDS").is_some() {
        fs::write(&path, input).unwrap();
    }
    assert_eq!(fs::read(&path).unwrap(), input, "WRITE_SEEDS=1 writes the seeds anew");
}

#[test]
fn the_fuzzers_function_holds_over_its_seeds() {
    // The last one of each kind, of those that one member sends to the other if there are any: they come over the link.
    let over_link = |input: &Vec<u8>| {
        let Ok(Received::Message(Envelope { from, to, .. })) = codec::read(input.clone().into()) else { return false };
        (from, to) == (MemberId(2), MemberId(1))
    };
    let (last, others): (Vec<_>, Vec<_>) = conversation().into_iter().partition(|(_, input)| over_link(input));
    for (kind, input) in others.into_iter().chain(last).collect::<BTreeMap<_, _>>() {
        check_seed(&kind, &input);
    }
    for (kind, name) in [(Kind::Appends, "msgapp.stream"), (Kind::Messages, "message.stream")] {
        let input = seed(kind, name);
        check_seed(name, &input);
        // Every place at which it can be cut, and every bit that can flip near its beginning.
        for cut in 0..input.len() {
            let _ = listen(&input[..cut]);
        }
        for bit in 0..1024 {
            let mut input = input[..400].to_vec();
            input[bit / 8] ^= 1 << (bit % 8);
            let _ = listen(&input);
        }
    }
    for entry in fs::read_dir(root().join("fuzz/seeds/peer")).unwrap() {
        let _ = listen(&fs::read(entry.unwrap().path()).unwrap());
    }
    for (_, input) in conversation() {
        let _ = listen(&input);
    }
}

fn whole(message: &Message) -> Vec<u8> {
    let mut out = BytesMut::new();
    Encoder::new(Kind::Appends, MemberId(2), MemberId(1)).put(message, &mut out);
    out.to_vec()
}

fn append(term: u64, previous: (u64, u64), terms: &[u64], commit: u64) -> Message {
    let entries = terms.iter().zip(previous.0 + 1..).map(|(&term, index)| Entry {
        term: Term(term),
        index: Index(index),
        kind: EntryKind::Normal,
        payload: Bytes::from(vec![7; (index % 5) as usize]),
    });
    Message::Append {
        term: Term(term),
        previous: Mark::new(Index(previous.0), Term(previous.1)),
        entries: entries.collect(),
        commit: Index(commit),
    }
}

#[test]
fn an_append_that_continues_says_little_else_it_is_whole() {
    let mut encoder = Encoder::new(Kind::Appends, MemberId(2), MemberId(1));
    let mut frames = |message: &Message| {
        let mut out = BytesMut::new();
        encoder.put(message, &mut out);
        out[0]
    };
    assert_eq!(frames(&append(3, (0, 0), &[1, 3], 0)), 2);
    assert_eq!(frames(&append(3, (2, 3), &[], 2)), 1);
    assert_eq!(frames(&append(3, (2, 3), &[3, 3], 2)), 1);
    // A repetition, an entry of an older term before it, a later term.
    assert_eq!(frames(&append(3, (2, 3), &[3], 2)), 2);
    assert_eq!(frames(&append(4, (3, 3), &[4], 2)), 2);
    assert_eq!(frames(&append(4, (4, 4), &[4], 2)), 1);
}

#[test]
fn no_length_and_no_count_is_believed_before_the_bytes_are_there() {
    let giant = |kind, bytes: &[u8]| hear(kind, bytes, bytes.len()).1;
    let length = (bounds::FRAME_BYTES_MAX as u64 + 1).to_be_bytes();
    assert!(matches!(giant(Kind::Messages, &length), Err(Malformed::TooLarge { what: "a frame", .. })));
    assert!(matches!(giant(Kind::Messages, &[0xff; 8]), Err(Malformed::TooLarge { .. })));
    assert!(matches!(giant(Kind::Appends, &[&[2][..], &length].concat()), Err(Malformed::TooLarge { .. })));
    let begun = whole(&append(1, (0, 0), &[1], 0));
    let count = |count: u64| [&begun[..], &[1], &count.to_be_bytes()].concat();
    assert!(matches!(giant(Kind::Appends, &count(u64::MAX)), Err(Malformed::TooLarge { what: "entries", .. })));
    assert_eq!(giant(Kind::Appends, &count(1000)), Ok(()));
    // Entries of a frame share one bound.
    let entry = [&count(3)[..], &(bounds::FRAME_BYTES_MAX as u64 + 1).to_be_bytes()].concat();
    assert!(matches!(giant(Kind::Appends, &entry), Err(Malformed::TooLarge { what: "a frame", .. })));
    assert_eq!(giant(Kind::Appends, &[1]), Err(Malformed::NothingToContinue));
    assert_eq!(giant(Kind::Appends, &[3]), Err(Malformed::Frame(3)));
}

#[test]
fn only_appends_come_on_their_stream() {
    let message = Message::TimeoutNow { term: Term(5) };
    let bytes = prost::Message::encode_to_vec(&wire(MemberId(2), MemberId(1), &message));
    let frame = [&[2][..], &(bytes.len() as u64).to_be_bytes(), &bytes].concat();
    assert_eq!(hear(Kind::Appends, &frame, frame.len()), (vec![], Err(Malformed::NotAnAppend(14))));
    assert_eq!(hear(Kind::Messages, &frame[1..], frame.len()).1, Ok(()));
}

#[test]
fn what_no_member_says_is_malformed_and_what_is_local_is_dropped() {
    use detcd_proto::raftpb::{self, ConfState, Entry, Message as Wire};
    let entry = |kind, term, index, data: &'static [u8]| Entry {
        r#type: Some(kind),
        term: Some(term),
        index: Some(index),
        data: Some(Bytes::from_static(data)),
    };
    let base = |kind| Wire { r#type: Some(kind), to: Some(1), from: Some(2), term: Some(5), ..Wire::default() };
    let read = |wire: Wire| codec::read(prost::Message::encode_to_vec(&wire).into());
    let entries = |kind, entries| read(Wire { entries, index: Some(0), log_term: Some(0), ..base(kind) });
    assert_eq!(read(Wire { from: Some(0), ..base(8) }), Ok(Received::Dropped(Dropped::OfNobody(8))));
    assert_eq!(read(Wire { term: Some(0), ..base(8) }), Err(Malformed::Term(0, 8)));
    assert_eq!(read(Wire { term: Some(u64::MAX), ..base(5) }), Err(Malformed::Term(u64::MAX, 5)));
    assert_eq!(read(Wire { index: Some(u64::MAX), ..base(4) }), Err(Malformed::Index(u64::MAX)));
    assert_eq!(read(Wire { commit: Some(u64::MAX), ..base(8) }), Err(Malformed::Index(u64::MAX)));
    assert!(matches!(entries(3, vec![entry(0, 5, 2, b"gap")]), Err(Malformed::Entries(_))));
    assert!(matches!(entries(3, vec![entry(0, 5, 1, b""), entry(0, 4, 2, b"")]), Err(Malformed::Entries(_))));
    assert_eq!(entries(3, vec![entry(0, 6, 1, b"")]), Err(Malformed::EntryTerm));
    assert_eq!(entries(3, vec![entry(1, 5, 1, b"")]), Err(Malformed::Entry(1, 0)));
    assert_eq!(entries(3, vec![entry(3, 5, 1, b"x")]), Err(Malformed::Entry(3, 1)));
    // A proposal with a term, without entries, with an empty one.
    assert_eq!(read(base(2)), Err(Malformed::Term(5, 2)));
    let timeless = |kind, entries| read(Wire { term: None, entries, ..base(kind) });
    assert_eq!(timeless(2, vec![]), Err(Malformed::EntryCount(0, 2)));
    assert_eq!(timeless(2, vec![entry(0, 0, 0, b"")]), Err(Malformed::Entry(0, 0)));
    assert_eq!(timeless(15, vec![]), Err(Malformed::EntryCount(0, 15)));
    let snapshot = |index, conf_state| {
        let metadata = raftpb::SnapshotMetadata { index: Some(index), term: Some(5), conf_state };
        read(Wire { snapshot: Some(raftpb::Snapshot { data: None, metadata: Some(metadata) }), ..base(7) })
    };
    let of = |voters: &[u64], learners: &[u64]| {
        Some(ConfState { voters: voters.to_vec(), learners: learners.to_vec(), ..ConfState::default() })
    };
    assert!(matches!(snapshot(3, of(&[1, 2], &[3])), Ok(Received::Message(_))));
    assert_eq!(snapshot(0, of(&[1], &[])), Err(Malformed::Snapshot("a place in the log")));
    assert_eq!(snapshot(3, None), Err(Malformed::Snapshot("members")));
    let joint = Some(ConfState { voters_outgoing: vec![1], ..of(&[1], &[]).unwrap() });
    for unsound in [of(&[], &[1]), of(&[1, 1], &[]), of(&[1], &[1]), of(&[0], &[]), joint] {
        assert_eq!(snapshot(3, unsound), Err(Malformed::Snapshot("a configuration of one step")));
    }
    assert_eq!(read(base(7)), Err(Malformed::Snapshot("metadata")));
    assert_eq!(read(base(13)), Err(Malformed::Term(5, 13)));
    let long = Bytes::from(vec![0; bounds::CONTEXT_BYTES_MAX + 1]);
    assert!(matches!(read(Wire { context: Some(long), ..base(9) }), Err(Malformed::TooLarge { .. })));
    for kind in [0, 1, 10, 11, 12, 19, 20, 21, 22, 23] {
        assert_eq!(read(base(kind)), Ok(Received::Dropped(Dropped::Local(kind))));
    }
    assert_eq!(read(base(24)), Ok(Received::Dropped(Dropped::UnknownKind(24))));
    assert_eq!(codec::read(Bytes::new()), Ok(Received::Dropped(Dropped::OfNobody(0))));
    assert_eq!(codec::read(Bytes::from_static(&[8, 8])), Ok(Received::LinkHeartbeat));
    // Members before 3.7 write every field of a sign of life.
    let old = Wire { to: Some(0), from: Some(0), term: Some(0), reject: Some(false), ..base(8) };
    assert_eq!(read(old), Ok(Received::LinkHeartbeat));
}

#[test]
fn a_connection_speaks_for_one_member_only() {
    let of = |from, to, message| Received::Message(Envelope { from: MemberId(from), to: MemberId(to), message });
    let over = |received: Received| received.over_link(MemberId(2), MemberId(1));
    let granted = Message::VoteGranted { term: Term(1) };
    assert_eq!(over(of(2, 1, granted.clone())), Ok(Some(granted.clone())));
    assert_eq!(over(of(2, 3, granted.clone())), Err(Dropped::ForAnother(MemberId(3))));
    assert_eq!(over(of(3, 1, granted)), Err(Dropped::OfAnother(MemberId(3))));
    let read = Message::ReadIndex { origin: MemberId(3), token: Bytes::from_static(b"12345678") };
    assert_eq!(over(of(3, 1, read.clone())), Ok(Some(read)));
    assert_eq!(over(Received::LinkHeartbeat), Ok(None));
    let snapshot = Message::Snapshot { term: Term(1), snapshot: detcd_core::raft::Snapshot::default() };
    assert_eq!(over(of(2, 1, snapshot)), Err(Dropped::SnapshotAlone));
}

prop_compose! {
    /// Appends as leaders of rising terms send them: some continue, some repeat, some jump.
    fn appends()(steps in vec((0u64..3, 0u64..4, 0usize..5, any::<u8>()), 1..20)) -> Vec<Message> {
        let (mut term, mut last) = (1, (0, 0));
        let mut messages = Vec::new();
        for (later, back, count, commit) in steps {
            term += later / 2;
            let index: u64 = last.0 - back.min(last.0) / 3;
            let previous = if index == 0 { (0, 0) } else { (index, if index == last.0 { last.1 } else { 1 }) };
            messages.push(append(term, previous, &vec![term; count], u64::from(commit)));
            last = if count == 0 { previous } else { (index + count as u64, term) };
        }
        messages
    }
}

proptest! {
    #[test]
    fn appends_arrive_as_they_were_sent_however_they_are_cut(messages in appends(), step in 1usize..60) {
        let mut encoder = Encoder::new(Kind::Appends, MemberId(2), MemberId(1));
        let mut out = BytesMut::new();
        for message in &messages {
            encoder.put(message, &mut out);
            encoder.heartbeat(&mut out);
        }
        let (heard, ended) = hear(Kind::Appends, &out, step);
        prop_assert_eq!(ended, Ok(()));
        let heard: Vec<_> = heard
            .into_iter()
            .filter_map(|received| received.over_link(MemberId(2), MemberId(1)).unwrap())
            .collect();
        prop_assert_eq!(heard, messages);
    }

    #[test]
    fn any_bytes_end_well(bytes in vec(any::<u8>(), 0..300), start in 0usize..2000) {
        let _ = listen(&bytes);
        // The same behind a sound beginning.
        for (kind, name) in [(Kind::Appends, "msgapp.stream"), (Kind::Messages, "message.stream")] {
            let mut input = seed(kind, name);
            input.truncate(start);
            input.extend_from_slice(&bytes);
            let _ = listen(&input);
        }
    }
}
