//! Why a log could not be read, in etcd's words where etcd has words for it.
//!
//! The invariant: whatever bytes a file holds, reading it ends in records or in one of these, with the file and the place in it; and
//! only what a power cut in the middle of a write can explain counts as repairable.

use std::path::{Path, PathBuf};

use crate::fault::Fault;

/// What is wrong at one place of one file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeErrorKind {
    /// The file ends inside a frame.
    #[error("unexpected EOF")]
    UnexpectedEof,
    /// The frame says that it is longer than the rest of the file.
    #[error("unexpected EOF: [wal] max entry size limit exceeded, recBytes: {record_bytes}, entryLimit({limit_bytes})")]
    TooLong {
        /// What the frame says.
        record_bytes: u64,
        /// What can be there.
        limit_bytes: u64,
    },
    /// A record of the last file is wrong, and a whole sector of it is zeros: it was never written completely.
    #[error("unexpected EOF: a sector of the record was never written")]
    TornWrite,
    /// The record is longer than any that is ever written.
    #[error("a record of {record_bytes} bytes is longer than any lawful one")]
    Oversize {
        /// What the frame says.
        record_bytes: u64,
    },
    /// A record does not carry the running checksum.
    #[error("walpb: crc mismatch: expected: {expected:x} computed: {computed:x}")]
    Crc {
        /// What the record says.
        expected: u32,
        /// What its data and all before it give.
        computed: u32,
    },
    /// The record's bytes, or those it carries, are no lawful encoding.
    #[error("malformed record: {0}")]
    Malformed(String),
    /// The record is of a type that is not known.
    #[error("unexpected block type {0}")]
    UnknownType(i64),
    /// An entry does not follow the one before.
    #[error("wal: slice bounds out of range: entry {index} after {last}")]
    Gap {
        /// The entry's index.
        index: u64,
        /// The last index before it.
        last: u64,
    },
    /// Two metadata records differ: files of two members were mixed.
    #[error("wal: conflicting metadata found")]
    MetadataConflict,
    /// The record of the snapshot to start from has another term.
    #[error("wal: snapshot mismatch")]
    SnapshotMismatch,
    /// No more can be read from here on, but there was more: this is no write that a crash cut off.
    #[error("the log ends at entry {last}, but the store has applied entry {applied}")]
    Short {
        /// The last entry that can be read.
        last: u64,
        /// How far the store is.
        applied: u64,
    },
}

impl DecodeErrorKind {
    /// Whether a write cut off by a crash explains it, so that repair may cut the file there.
    #[must_use]
    pub const fn is_repairable(&self) -> bool {
        matches!(self, Self::UnexpectedEof | Self::TooLong { .. } | Self::TornWrite)
    }
}

/// Damage in a file of the log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{kind}: in file '{}' at position: {offset}", base_name(.file))]
pub struct DecodeError {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// The file.
    pub file: PathBuf,
    /// Where the frame starts in which it is wrong.
    pub offset: u64,
}

/// Why a log could not be created, opened or read.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The disk failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A file is damaged.
    #[error(transparent)]
    Damaged(#[from] DecodeError),
    /// There is a log already where one should be made.
    #[error("wal: {} exists already", .dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// No file can hold the place to start from.
    #[error("wal: file not found: no file in {} holds index {index}", .dir.display())]
    FileNotFound {
        /// The directory.
        dir: PathBuf,
        /// The index to start from.
        index: u64,
    },
    /// A file in the middle is gone.
    #[error("wal: file sequence numbers (starting from {seq}) do not increase continuously in {}", .dir.display())]
    Sequence {
        /// The directory.
        dir: PathBuf,
        /// The number after which one is missing.
        seq: u64,
    },
    /// There is no record of the snapshot to start from.
    #[error("wal: snapshot not found: no record of index {index} in {}", .dir.display())]
    SnapshotNotFound {
        /// The directory.
        dir: PathBuf,
        /// The index to start from.
        index: u64,
    },
    /// No metadata record, so nobody knows whose log it is.
    #[error("wal: no metadata in {}", .dir.display())]
    NoMetadata {
        /// The directory.
        dir: PathBuf,
    },
}

impl WalError {
    /// Whether cutting the last file may help.
    #[must_use]
    pub const fn is_repairable(&self) -> bool {
        matches!(self, Self::Damaged(error) if error.kind.is_repairable())
    }
}

impl From<WalError> for Fault {
    fn from(error: WalError) -> Self {
        let cause = error.to_string();
        match error {
            WalError::Fault(fault) => fault,
            WalError::Damaged(DecodeError { kind, file, offset }) => {
                Self::Corrupt { file, offset, cause: kind.to_string() }
            }
            WalError::Exists { dir }
            | WalError::FileNotFound { dir, .. }
            | WalError::Sequence { dir, .. }
            | WalError::SnapshotNotFound { dir, .. }
            | WalError::NoMetadata { dir } => Self::Unfit { path: dir, cause },
        }
    }
}

fn base_name(path: &Path) -> std::path::Display<'_> {
    Path::new(path.file_name().unwrap_or(path.as_os_str())).display()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_in_the_words_of_etcd() {
        let kind = DecodeErrorKind::Crc { expected: 0xabc, computed: 0x12 };
        let error = DecodeError { kind, file: "member/wal/0-0.wal".into(), offset: 40 };
        assert_eq!(
            error.to_string(),
            "walpb: crc mismatch: expected: abc computed: 12: in file '0-0.wal' at position: 40"
        );
        let fault = Fault::from(WalError::Damaged(error));
        assert_eq!(
            fault.to_string(),
            "member/wal/0-0.wal is damaged at byte 40: walpb: crc mismatch: expected: abc computed: 12"
        );
    }

    #[test]
    fn only_what_a_cut_off_write_explains_is_repairable() {
        assert!(DecodeErrorKind::UnexpectedEof.is_repairable());
        assert!(DecodeErrorKind::TornWrite.is_repairable());
        assert!(DecodeErrorKind::TooLong { record_bytes: 9, limit_bytes: 8 }.is_repairable());
        assert!(!DecodeErrorKind::Crc { expected: 1, computed: 2 }.is_repairable());
        assert!(!DecodeErrorKind::UnknownType(0).is_repairable());
        assert!(!DecodeErrorKind::Short { last: 1, applied: 2 }.is_repairable());
        assert!(!DecodeErrorKind::Oversize { record_bytes: 1 << 40 }.is_repairable());
    }
}
