//! One record of the log as bytes: the frame around it, the running checksum, and the rule that tells a torn write from damage.
//!
//! Pure: no file is known here. The layout is etcd's to the byte:
//!
//! ```text
//! 8 bytes, little endian: length of the record; top byte 0x80 | padding if there is padding
//! the record:             08 <type>  10 <crc>  [1a <length> <data>]
//! 0..7 zero bytes:        the next frame starts at a multiple of 8
//! ```
//!
//! The checksum is one CRC-32C over the `data` of all records since the log began; each record holds the value after its own data, so a
//! record that is moved, lost or repeated shows in the next one. Padding and lengths are not covered.

use bytes::Bytes;
use crc32c::crc32c_append;
use prost::Message;

use detcd_proto::walpb;

use crate::codec::wire::{self, number_bytes};

/// Length of the field before each record.
pub const FRAME_HEAD_BYTES: u64 = 8;

/// A disk writes this much at once or not at all; a power cut leaves zeros where a whole sector was not written.
pub const SECTOR_BYTES: u64 = 512;

const FRAME_ALIGN_BYTES: usize = 8;
const LENGTH_MASK: u64 = 0x00ff_ffff_ffff_ffff;
const PADDED: u64 = 0x80;

const TAG_TYPE: u8 = 0x08;
const TAG_CRC: u8 = 0x10;
const TAG_DATA: u8 = 0x1a;

/// What a record holds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// Which member and cluster the log belongs to; repeated at the head of every file.
    Metadata,
    /// An entry of the Raft log.
    Entry,
    /// Term, vote and commit.
    State,
    /// The running checksum at the end of the file before.
    Crc,
    /// The log may be read from this index on.
    Snapshot,
    /// None of these. Zero is one of them: an absent type.
    Unknown(i64),
}

impl Kind {
    const fn number(self) -> i64 {
        match self {
            Self::Metadata => 1,
            Self::Entry => 2,
            Self::State => 3,
            Self::Crc => 4,
            Self::Snapshot => 5,
            Self::Unknown(number) => number,
        }
    }

    const fn of(number: i64) -> Self {
        match number {
            1 => Self::Metadata,
            2 => Self::Entry,
            3 => Self::State,
            4 => Self::Crc,
            5 => Self::Snapshot,
            _ => Self::Unknown(number),
        }
    }
}

/// A record as it was read, before its checksum was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// What it holds.
    pub kind: Kind,
    /// The checksum it carries.
    pub crc: u32,
    /// What it carries; a slice of what was read, not a copy.
    pub data: Bytes,
}

impl Record {
    /// Reads the bytes between frame head and padding.
    pub fn parse(bytes: Bytes) -> Result<Self, prost::DecodeError> {
        Self::as_written(&bytes).map_or_else(|| Self::decoded(bytes), Ok)
    }

    fn decoded(bytes: Bytes) -> Result<Self, prost::DecodeError> {
        let record = walpb::Record::decode(bytes)?;
        Ok(Self {
            kind: Kind::of(record.r#type.unwrap_or_default()),
            crc: record.crc.unwrap_or_default(),
            data: record.data.unwrap_or_default(),
        })
    }

    /// The record, if it is in the form that every writer gives it.
    fn as_written(bytes: &Bytes) -> Option<Self> {
        let [TAG_TYPE, kind @ ..0x80, TAG_CRC, rest @ ..] = &bytes[..] else { return None };
        let mut rest = rest;
        let crc = u32::try_from(wire::number(&mut rest)?).ok()?;
        let [TAG_DATA, data @ ..] = rest else { return None };
        let mut data = data;
        let is_whole = wire::number(&mut data)? == data.len() as u64;
        is_whole.then(|| Self { kind: Kind::of(i64::from(*kind)), crc, data: bytes.slice_ref(data) })
    }
}

/// The first eight bytes of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameHead {
    /// Length of the record.
    pub record_bytes: u64,
    /// Length of the padding behind it.
    pub pad_bytes: u64,
}

impl FrameHead {
    /// Reads a frame head; `None` is the end of the file's records (preallocated zeros).
    #[must_use]
    pub const fn parse(bytes: [u8; 8]) -> Option<Self> {
        let field = u64::from_le_bytes(bytes);
        if field == 0 {
            return None;
        }
        let top = field >> 56;
        let pad_bytes = if top & PADDED == 0 { 0 } else { top & 0x7 };
        Some(Self { record_bytes: field & LENGTH_MASK, pad_bytes })
    }

    /// Whether these bytes are the head that every writer gives a record of this length. No checksum covers them.
    #[must_use]
    pub const fn is_written_as(self, bytes: [u8; 8]) -> bool {
        field_of(self.record_bytes).0 == u64::from_le_bytes(bytes)
    }

    /// Length of what follows the head.
    #[must_use]
    pub const fn body_bytes(self) -> u64 {
        self.record_bytes + self.pad_bytes
    }
}

/// Appends the frame of one record to `out` and moves the running checksum on. `parts` are its data, in pieces so that a large payload
/// is copied only once: into `out`.
pub fn encode(out: &mut Vec<u8>, crc: &mut u32, kind: Kind, parts: &[&[u8]]) {
    assert!(kind != Kind::Crc, "a checksum record has no data, and is written by encode_crc");
    let data_bytes = parts.iter().map(|part| part.len()).sum::<usize>();
    for part in parts {
        *crc = crc32c_append(*crc, part);
    }
    let record_bytes = head_bytes(kind, *crc) + 1 + number_bytes(data_bytes as u64) + data_bytes;
    let pad_bytes = put_frame_head(out, record_bytes);
    put_record_head(out, kind, *crc);
    out.push(TAG_DATA);
    put_varint(out, data_bytes as u64);
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&[0; FRAME_ALIGN_BYTES][..pad_bytes]);
}

/// Appends the frame that opens a file: the running checksum at the end of the file before, zero in the first file.
pub fn encode_crc(out: &mut Vec<u8>, previous: u32) {
    let pad_bytes = put_frame_head(out, head_bytes(Kind::Crc, previous));
    put_record_head(out, Kind::Crc, previous);
    out.extend_from_slice(&[0; FRAME_ALIGN_BYTES][..pad_bytes]);
}

/// Whether a frame body that does not check out was only partly written: some sector of it, or the part of a sector that it touches,
/// is all zeros. `offset` is the body's place in the file.
#[must_use]
pub fn is_torn(body: &[u8], offset: u64) -> bool {
    let mut rest = body;
    let mut place = offset;
    while !rest.is_empty() {
        let in_sector = (SECTOR_BYTES - place % SECTOR_BYTES) as usize;
        let (sector, behind) = rest.split_at(in_sector.min(rest.len()));
        if sector.iter().all(|byte| *byte == 0) {
            return true;
        }
        place += sector.len() as u64;
        rest = behind;
    }
    false
}

/// Appends a protobuf varint.
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The head of a record of this length, and the length of its padding.
const fn field_of(record_bytes: u64) -> (u64, u64) {
    let pad_bytes = record_bytes.next_multiple_of(FRAME_ALIGN_BYTES as u64) - record_bytes;
    let top = if pad_bytes == 0 { 0 } else { PADDED | pad_bytes };
    (record_bytes | top << 56, pad_bytes)
}

fn put_frame_head(out: &mut Vec<u8>, record_bytes: usize) -> usize {
    assert!(record_bytes as u64 <= LENGTH_MASK);
    let (field, pad_bytes) = field_of(record_bytes as u64);
    let pad_bytes = pad_bytes as usize;
    out.reserve(FRAME_ALIGN_BYTES + record_bytes + pad_bytes);
    out.extend_from_slice(&field.to_le_bytes());
    pad_bytes
}

fn put_record_head(out: &mut Vec<u8>, kind: Kind, crc: u32) {
    out.push(TAG_TYPE);
    put_varint(out, kind.number() as u64);
    out.push(TAG_CRC);
    put_varint(out, u64::from(crc));
}

fn head_bytes(kind: Kind, crc: u32) -> usize {
    2 + number_bytes(kind.number() as u64) + number_bytes(u64::from(crc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_log_starts_with_the_bytes_that_etcd_writes() {
        let mut out = Vec::new();
        encode_crc(&mut out, 0);
        assert_eq!(out, [0x04, 0, 0, 0, 0, 0, 0, 0x84, 0x08, 0x04, 0x10, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_record_is_what_prost_writes_inside_its_frame() {
        let mut crc = 7;
        for length in [0, 1, 5, 126, 127, 128, 300, 20_000] {
            let data = vec![0xa5; length];
            let mut out = Vec::new();
            encode(&mut out, &mut crc, Kind::Entry, &[&data[..length / 3], &data[length / 3..]]);
            assert_eq!(out.len() % 8, 0);
            let head = FrameHead::parse(out[..8].try_into().unwrap()).unwrap();
            assert_eq!(out.len() as u64, FRAME_HEAD_BYTES + head.body_bytes());
            let record = walpb::Record { r#type: Some(2), crc: Some(crc), data: Some(data.into()) };
            assert_eq!(record.encode_to_vec(), out[8..8 + head.record_bytes as usize]);
        }
    }

    #[test]
    fn the_checksum_runs_on_from_record_to_record() {
        let (mut crc, mut out) = (0, Vec::new());
        encode(&mut out, &mut crc, Kind::State, &[b"abc"]);
        encode(&mut out, &mut crc, Kind::State, &[b"de", b"f"]);
        assert_eq!(crc, crc32c_append(0, b"abcdef"));
    }

    #[test]
    fn every_type_has_its_number_and_no_other_is_known() {
        for number in -3..20 {
            let kind = Kind::of(number);
            assert_eq!(kind.number(), number);
            assert_eq!(kind == Kind::Unknown(number), !(1..=5).contains(&number), "{number}");
        }
    }

    #[test]
    fn padding_counts_only_under_its_flag() {
        assert_eq!(FrameHead::parse([0; 8]), None);
        let plain = FrameHead::parse([8, 0, 0, 0, 0, 0, 0, 0x07]).unwrap();
        assert_eq!(plain, FrameHead { record_bytes: 8, pad_bytes: 0 });
        let padded = FrameHead::parse([9, 1, 0, 0, 0, 0, 0, 0x87]).unwrap();
        assert_eq!(padded, FrameHead { record_bytes: 265, pad_bytes: 7 });
    }

    #[test]
    fn a_record_as_written_is_what_the_generated_code_reads() {
        for (length, crc) in [(0, 0), (1, 127), (5, 128), (200, u32::MAX)] {
            let data = Some(vec![0xa5; length].into());
            let written = walpb::Record { r#type: Some(2), crc: Some(crc), data }.encode_to_vec();
            let whole = Record::as_written(&written.clone().into()).expect("every writer writes it so");
            assert_eq!(Record::decoded(written.clone().into()), Ok(whole));
            // Whatever else it takes it reads in the same way.
            for (at, wrong) in
                (0..written.len().min(16)).flat_map(|at| [0, 1, 7, 0x1a, 0x7f, 0x80, 0xff].map(|wrong| (at, wrong)))
            {
                let mut bytes = written.clone();
                bytes[at] = wrong;
                for bytes in [Bytes::from(bytes.clone()), Bytes::from(bytes).slice(..at)] {
                    if let Some(record) = Record::as_written(&bytes) {
                        assert_eq!(Record::decoded(bytes.clone()), Ok(record), "{bytes:?}");
                    }
                }
            }
        }
        for other in [&[0x08, 4, 0x10, 0][..], &[0x10, 9, 0x08, 2, 0x1a, 0], &[0x08, 2, 0x10, 9, 0x1a, 0, 0x20, 1]] {
            assert_eq!(Record::as_written(&Bytes::copy_from_slice(other)), None);
            assert!(Record::parse(Bytes::copy_from_slice(other)).is_ok(), "read the long way");
        }
    }

    #[test]
    fn only_a_whole_zero_piece_of_a_sector_is_a_torn_write() {
        let mut body = vec![1_u8; 1200];
        assert!(!is_torn(&body, 8));
        body[100..400].fill(0);
        assert!(!is_torn(&body, 8), "300 zero bytes inside one sector are damage");
        body[504..1016].fill(0);
        assert!(is_torn(&body, 8), "one whole sector");
        let mut body = vec![1_u8; 1200];
        body[..8].fill(0);
        assert!(is_torn(&body, 504), "the first piece ends at the first sector boundary");
        assert!(!is_torn(&body, 8));
        assert!(!is_torn(&[], 8));
    }
}
