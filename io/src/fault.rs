//! How this machine fails. A fault is never replicated and never an answer to a client: the member stops.
//!
//! The invariant: there is one closed list, and each entry says what an operator needs – which file, where in it, and why. Answers
//! that every member gives alike (`Rejected`) live in the engine and never appear here.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

use detcd_core::ids::{Index, MemberId, Term};

/// A failure of this machine.
///
/// Closed on purpose: a new way to fail is a new variant here, so that every place that sorts faults is seen by the compiler.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The operating system refused or failed a call on a file or directory.
    #[error("cannot {op} {}: {source}", .path.display())]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a verb: "open", "write", "sync".
        op: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds bytes that it cannot lawfully hold.
    #[error("{} is damaged at byte {offset}: {cause}", .file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in the file the damage shows.
        offset: u64,
        /// What is wrong there.
        cause: String,
    },
    /// A committed entry says what no command says. A later version may have written it; skipping it would be silent damage.
    #[error("entry {index} of term {term} of the log cannot be read: {cause}")]
    Entry {
        /// Its index.
        index: Index,
        /// Its term.
        term: Term,
        /// What is wrong with its payload.
        cause: String,
    },
    /// Files that belong together do not fit each other, or one of them is gone.
    #[error("{}: {cause}", .path.display())]
    Unfit {
        /// The directory or file.
        path: PathBuf,
        /// What does not fit.
        cause: String,
    },
    /// Another process holds the lock on a file.
    #[error("{} is locked by another process", .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// A file failed before, so that nobody knows what it holds; it is not written again.
    #[error("{} failed earlier and is not written again", .path.display())]
    AfterFault {
        /// The file or directory.
        path: PathBuf,
    },
    /// The store's engine failed, or holds what it cannot lawfully hold.
    #[error("cannot {action} the store: {cause}")]
    Store {
        /// What was tried, as a verb.
        action: &'static str,
        /// What the engine said, or what is wrong.
        cause: String,
    },
    /// A leader's heartbeat names entries as committed that this member told of and does not have.
    #[error(
        "{leader} has entries committed that this member acknowledged and does not have: its log was corrupted, truncated or \
         lost, or its directory is an older copy; remove the member and add it anew, with an empty directory"
    )]
    LogLost {
        /// The leader.
        leader: MemberId,
    },
    /// A part of the member ended although it is still needed.
    #[error("{0} is gone")]
    Gone(&'static str),
    /// The log holds a committed command that this version cannot carry out. Skipping it would be silent damage.
    #[error("a committed command is not built yet: {0}")]
    Unbuilt(&'static str),
}

impl Fault {
    /// Makes the fault of an entry whose payload does not decode; to be used with `map_err`.
    pub fn entry<E: fmt::Display>(index: Index, term: Term) -> impl Fn(E) -> Self {
        move |error| Self::Entry { index, term, cause: error.to_string() }
    }

    /// Makes the fault of a failed call; to be used with `map_err`.
    pub fn disk(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Disk { path: path.to_owned(), op, source }
    }

    /// Whether there was no room on the disk.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        matches!(self, Self::Disk { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_file_place_and_cause() {
        let fault = Fault::Corrupt { file: "a/b.wal".into(), offset: 24, cause: "crc mismatch".into() };
        assert_eq!(fault.to_string(), "a/b.wal is damaged at byte 24: crc mismatch");
        let fault = Fault::entry(Index(7), Term(2))("no command");
        assert_eq!(fault.to_string(), "entry 7 of term 2 of the log cannot be read: no command");
        let fault = Fault::disk("sync", Path::new("a/b.wal"))(io::Error::from(io::ErrorKind::StorageFull));
        assert!(fault.to_string().starts_with("cannot sync a/b.wal: "));
        assert!(fault.is_no_room());
        assert!(!Fault::Locked { path: "a".into() }.is_no_room());
    }
}
