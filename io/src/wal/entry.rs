//! What records carry: the engine's entries, states and marks as etcd's protobuf bytes, and back.
//!
//! The invariant is presence: etcd writes some zeros and leaves others out, and its tools compare bytes. A normal entry has no type, an
//! empty payload no data field; a state and a metadata record have all their fields; a mark has its configuration unless it is the
//! first of a log.
//!
//! A record's type is not under its checksum, so an entry whose type rotted would pass for a hard state, and the other way round. Hence
//! both are read strictly: what no etcd ever writes is malformed.

use bytes::Bytes;
use prost::Message;

use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::{Configuration, Entry, EntryKind, HardState, Mark};
use detcd_proto::{etcdserverpb, raftpb, walpb};

use super::record::{Kind, encode};
use crate::codec::wire;

/// Whose log it is: the first record of every file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Metadata {
    /// The member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: u64,
}

/// A snapshot record: the log may be read from here on.
#[derive(Clone, Debug, PartialEq)]
pub struct Marked {
    /// Index and term of the last entry that the snapshot covers.
    pub mark: Mark,
    /// The members at that entry; absent in the first record of a log.
    pub conf_state: Option<raftpb::ConfState>,
}

/// etcd's numbers of the entry types that are written; a normal entry has none.
const CONF_CHANGE: u64 = 1;
const CONF_CHANGE_V2: u64 = 2;

/// A few protobuf fields on the stack: what stands before an entry's payload.
struct Fields {
    bytes: [u8; Self::BYTES_MAX],
    length: usize,
}

impl Fields {
    const BYTES_MAX: usize = 4 * 11;

    const fn new() -> Self {
        Self { bytes: [0; Self::BYTES_MAX], length: 0 }
    }

    fn with(mut self, tag: u8, value: u64) -> Self {
        self.push(tag);
        let mut rest = value;
        while rest >= 0x80 {
            self.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.push(rest as u8);
        self
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Appends the frame of an entry.
pub fn put_entry(out: &mut Vec<u8>, crc: &mut u32, entry: &Entry) {
    let kind = match entry.kind {
        EntryKind::Normal => Fields::new(),
        EntryKind::ConfChange => Fields::new().with(0x08, CONF_CHANGE),
        EntryKind::ConfChangeV2 => Fields::new().with(0x08, CONF_CHANGE_V2),
    };
    let fields = kind.with(0x10, entry.term.0).with(0x18, entry.index.0);
    if entry.payload.is_empty() {
        encode(out, crc, Kind::Entry, &[fields.as_slice()]);
    } else {
        let fields = fields.with(0x22, entry.payload.len() as u64);
        encode(out, crc, Kind::Entry, &[fields.as_slice(), &entry.payload]);
    }
}

/// Appends the frame of a hard state.
pub fn put_state(out: &mut Vec<u8>, crc: &mut u32, state: &HardState) {
    let vote = state.vote.map_or(0, |member| member.0);
    let fields = Fields::new().with(0x08, state.term.0).with(0x10, vote).with(0x18, state.commit.0);
    encode(out, crc, Kind::State, &[fields.as_slice()]);
}

/// Appends the frame of the metadata.
pub fn put_metadata(out: &mut Vec<u8>, crc: &mut u32, metadata: Metadata) {
    let fields = Fields::new().with(0x08, metadata.member.0).with(0x10, metadata.cluster);
    encode(out, crc, Kind::Metadata, &[fields.as_slice()]);
}

/// Appends the frame of a snapshot record.
pub fn put_mark(out: &mut Vec<u8>, crc: &mut u32, marked: &Marked) {
    let record = walpb::Snapshot {
        index: Some(marked.mark.index.0),
        term: Some(marked.mark.term.0),
        conf_state: marked.conf_state.clone(),
    };
    encode(out, crc, Kind::Snapshot, &[&record.encode_to_vec()]);
}

/// A configuration in etcd's words.
#[must_use]
pub fn conf_state(configuration: &Configuration) -> raftpb::ConfState {
    raftpb::ConfState {
        voters: configuration.voters.iter().map(|id| id.0).collect(),
        learners: configuration.learners.iter().map(|id| id.0).collect(),
        auto_leave: Some(false),
        ..raftpb::ConfState::default()
    }
}

/// Reads an entry; the payload is a slice of `data`.
pub fn entry(data: Bytes) -> Result<Entry, String> {
    let read = raftpb::Entry::decode(data).map_err(text)?;
    let kind = match read.r#type.unwrap_or_default() {
        0 => EntryKind::Normal,
        1 => EntryKind::ConfChange,
        2 => EntryKind::ConfChangeV2,
        other => return Err(format!("unknown entry type {other}")),
    };
    let entry = Entry {
        term: Term(read.term.unwrap_or_default()),
        index: Index(read.index.unwrap_or_default()),
        kind,
        payload: read.data.unwrap_or_default(),
    };
    if entry.term.0 == 0 || entry.index.0 == 0 {
        return Err("an entry without a term or an index".to_owned());
    }
    if kind != EntryKind::Normal && entry.payload.is_empty() {
        return Err("a membership change that changes nothing".to_owned());
    }
    Ok(entry)
}

/// Reads a hard state.
pub fn state(data: Bytes) -> Result<HardState, String> {
    match state_as_written(&data) {
        Some([term, vote, commit]) => Ok(hard_state(term, vote, commit)),
        None => decoded_state(data),
    }
}

fn decoded_state(data: Bytes) -> Result<HardState, String> {
    let read = raftpb::HardState::decode(data.clone()).map_err(text)?;
    let (Some(term), Some(vote), Some(commit)) = (read.term, read.vote, read.commit) else {
        return Err("a hard state without a term, vote or commit".to_owned());
    };
    if read.encoded_len() != data.len() {
        return Err("a hard state with more than a term, vote and commit".to_owned());
    }
    Ok(hard_state(term, vote, commit))
}

fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term: Term(term), vote: Some(vote).filter(|id| *id != 0).map(MemberId), commit: Index(commit) }
}

/// Term, vote and commit, if they are in the form that every writer gives them.
fn state_as_written(data: &[u8]) -> Option<[u64; 3]> {
    let mut rest = data;
    let mut numbers = [0; 3];
    for (number, tag) in numbers.iter_mut().zip([0x08, 0x10, 0x18]) {
        rest = rest.strip_prefix(&[tag])?;
        *number = wire::number(&mut rest)?;
    }
    let shortest = numbers.iter().map(|number| 1 + wire::number_bytes(*number)).sum::<usize>();
    (rest.is_empty() && data.len() == shortest).then_some(numbers)
}

/// Reads the metadata.
pub fn metadata(data: Bytes) -> Result<Metadata, String> {
    let read = etcdserverpb::Metadata::decode(data).map_err(text)?;
    Ok(Metadata { member: MemberId(read.node_id.unwrap_or_default()), cluster: read.cluster_id.unwrap_or_default() })
}

/// Reads a snapshot record.
pub fn mark(data: Bytes) -> Result<Marked, String> {
    let read = walpb::Snapshot::decode(data).map_err(text)?;
    let mark = Mark { index: Index(read.index.unwrap_or_default()), term: Term(read.term.unwrap_or_default()) };
    Ok(Marked { mark, conf_state: read.conf_state })
}

/// Whether a hard state is the one before the first election and the first commit: etcd never writes that one.
#[must_use]
pub fn is_empty(state: &HardState) -> bool {
    state.term.0 == 0 && state.vote.is_none() && state.commit.0 == 0
}

fn text(error: prost::DecodeError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::record::{FrameHead, Record};
    use super::*;

    /// The data of the only frame in `frame`.
    fn data(frame: &[u8]) -> Bytes {
        let head = FrameHead::parse(frame[..8].try_into().unwrap()).unwrap();
        Record::parse(Bytes::copy_from_slice(&frame[8..8 + head.record_bytes as usize])).unwrap().data
    }

    fn framed(put: impl FnOnce(&mut Vec<u8>, &mut u32)) -> Bytes {
        let (mut out, mut crc) = (Vec::new(), 0);
        put(&mut out, &mut crc);
        data(&out)
    }

    fn some_entry(kind: EntryKind, payload: &'static [u8]) -> Entry {
        Entry { term: Term(2), index: Index(300), kind, payload: Bytes::from_static(payload) }
    }

    #[test]
    fn zeros_are_written_where_etcd_writes_them() {
        let state = HardState { term: Term(1), vote: None, commit: Index(1) };
        assert_eq!(framed(|out, crc| put_state(out, crc, &state))[..], [0x08, 1, 0x10, 0, 0x18, 1]);
        let metadata = Metadata { member: MemberId(0), cluster: 5 };
        assert_eq!(framed(|out, crc| put_metadata(out, crc, metadata))[..], [0x08, 0, 0x10, 5]);
        let first = Marked { mark: Mark { index: Index(0), term: Term(0) }, conf_state: None };
        assert_eq!(framed(|out, crc| put_mark(out, crc, &first))[..], [0x08, 0, 0x10, 0]);
        let conf_state = raftpb::ConfState { voters: vec![1, 300], auto_leave: Some(false), ..Default::default() };
        let later = Marked { mark: Mark { index: Index(9), term: Term(2) }, conf_state: Some(conf_state) };
        assert_eq!(
            framed(|out, crc| put_mark(out, crc, &later))[..],
            [0x08, 9, 0x10, 2, 0x1a, 7, 0x08, 1, 0x08, 0xac, 0x02, 0x28, 0]
        );
    }

    #[test]
    fn a_normal_entry_has_no_type_and_an_empty_one_no_data() {
        let empty = some_entry(EntryKind::Normal, b"");
        assert_eq!(framed(|out, crc| put_entry(out, crc, &empty))[..], [0x10, 2, 0x18, 0xac, 0x02]);
        let normal = some_entry(EntryKind::Normal, b"xy");
        assert_eq!(
            framed(|out, crc| put_entry(out, crc, &normal))[..],
            [0x10, 2, 0x18, 0xac, 0x02, 0x22, 2, b'x', b'y']
        );
        let change = some_entry(EntryKind::ConfChange, b"z");
        assert_eq!(
            framed(|out, crc| put_entry(out, crc, &change))[..],
            [0x08, 1, 0x10, 2, 0x18, 0xac, 0x02, 0x22, 1, b'z']
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        for kind in [EntryKind::Normal, EntryKind::ConfChange, EntryKind::ConfChangeV2] {
            for payload in [&b""[..], b"payload"] {
                if payload.is_empty() && kind != EntryKind::Normal {
                    continue;
                }
                let wanted =
                    Entry { term: Term(u64::MAX), index: Index(u64::MAX), kind, payload: Bytes::from_static(payload) };
                assert_eq!(entry(framed(|out, crc| put_entry(out, crc, &wanted))), Ok(wanted));
            }
        }
        let wanted = HardState { term: Term(7), vote: Some(MemberId(u64::MAX)), commit: Index(3) };
        assert_eq!(state(framed(|out, crc| put_state(out, crc, &wanted))), Ok(wanted));
    }

    #[test]
    fn a_state_as_written_is_what_the_generated_code_reads() {
        for (term, vote, commit) in [(0, 0, 0), (1, 127, 128), (u64::MAX, u64::MAX, u64::MAX), (300, 0, 1 << 40)] {
            let written = framed(|out, crc| put_state(out, crc, &hard_state(term, vote, commit)));
            assert_eq!(state_as_written(&written), Some([term, vote, commit]));
            assert_eq!(decoded_state(written.clone()), Ok(hard_state(term, vote, commit)));
            for (at, wrong) in
                (0..written.len()).flat_map(|at| [0, 1, 0x08, 0x10, 0x7f, 0x80, 0xff].map(|wrong| (at, wrong)))
            {
                let mut bytes = written.to_vec();
                bytes[at] = wrong;
                for bytes in [&bytes[..], &bytes[..at], &[&bytes[..], &[wrong]].concat()] {
                    if let Some([term, vote, commit]) = state_as_written(bytes) {
                        let decoded = decoded_state(Bytes::copy_from_slice(bytes));
                        assert_eq!(decoded, Ok(hard_state(term, vote, commit)), "{bytes:?}");
                    }
                }
            }
        }
        assert!(state(Bytes::from_static(&[0x08, 0x81, 0, 0x10, 0, 0x18, 0])).is_err(), "longer than it is written");
    }

    #[test]
    fn an_entry_is_no_state_and_a_state_no_entry() {
        for (kind, payload) in [(EntryKind::Normal, &b""[..]), (EntryKind::Normal, b"x"), (EntryKind::ConfChange, b"x")]
        {
            let entry = Entry { kind, payload: Bytes::from_static(payload), ..some_entry(kind, b"") };
            assert!(state(framed(|out, crc| put_entry(out, crc, &entry))).is_err());
        }
        for term in 1..5 {
            let state = HardState { term: Term(term), vote: Some(MemberId(1)), commit: Index(1) };
            assert!(entry(framed(|out, crc| put_state(out, crc, &state))).is_err());
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(state(Bytes::new()).is_err());
        assert_eq!(mark(Bytes::new()), Ok(Marked { mark: Mark { index: Index(0), term: Term(0) }, conf_state: None }));
        assert_eq!(entry(Bytes::from_static(&[0x08, 9])), Err("unknown entry type 9".to_owned()));
        assert!(entry(Bytes::from_static(&[0x22, 200, 1])).is_err());
        let nowhere = Err("an entry without a term or an index".to_owned());
        assert_eq!(entry(Bytes::from_static(&[0x10, 1, 0x18, 0])), nowhere);
        assert_eq!(entry(Bytes::from_static(&[0x10, 0, 0x18, 1])), nowhere);
        assert!(entry(Bytes::from_static(&[0x10, 1, 0x18, 1])).is_ok());
        assert!(mark(Bytes::from_static(&[0x08])).is_err());
        assert!(metadata(Bytes::from_static(&[0xff])).is_err());
    }
}
