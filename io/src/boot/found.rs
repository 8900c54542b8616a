//! What is on disk, classified: the directory as far as its names tell, before anything in it is opened.
//!
//! Invariant: a [`Found`] is an observation. It holds no handle and promises nothing about a moment later; the exclusive lock
//! does that, and `Locked` is how a start learns that somebody else holds it.

/// The data directory (and the WAL directory, where it lies apart).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Found {
    /// There is no such directory yet.
    Absent,
    /// A directory without any name in it.
    Empty,
    /// Only names that no member writes. etcd starts there, with a warning for each.
    Foreign {
        /// The names, sorted.
        names: Vec<String>,
    },
    /// `member` is there.
    Member(MemberFound),
    /// Only `proxy`: a proxy of etcd's second API lived here.
    Proxy,
    /// `member` and `proxy`.
    Both,
    /// The path is a member's inner directory: the operator meant its parent.
    InsideMember {
        /// The names that tell.
        names: Vec<String>,
    },
    /// Something that has to be a directory is none, or cannot be read.
    Damaged {
        /// The path that is wrong.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The directory does not take a file.
    NotWritable {
        /// The directory.
        path: String,
        /// The system's answer.
        cause: String,
    },
    /// Another process runs on it.
    Locked {
        /// The file that is locked.
        path: String,
    },
}

/// A directory that holds `member`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MemberFound {
    /// The log has at least one segment: this member was initialized.
    pub log: Presence,
    /// `member/lmdb` is there: our store.
    pub store: Presence,
    /// `member/snap/db` is there: etcd's store.
    pub etcd_store: Presence,
    /// Our store holds the marker of an import that is not finished.
    pub import_marker: Presence,
    /// Names beside `member` that no member writes, sorted.
    pub foreign: Vec<String>,
}

/// Whether something is there.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Presence {
    /// It is not.
    #[default]
    Absent,
    /// It is.
    Present,
}

impl Presence {
    /// `Present` if the condition holds.
    #[must_use]
    pub const fn when(there: bool) -> Self {
        if there { Self::Present } else { Self::Absent }
    }
}
