//! The log's beginning in another form: a store for a member that needs entries which are gone (Raft paper, section 7).
//!
//! Raft knows where a snapshot stands and who the members were there. The store's bytes travel and are kept beside it.

use core::fmt;

use super::entry::Mark;
use super::member::Configuration;

/// What a store at some place of the log means to Raft.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Snapshot {
    /// The newest entry that the store includes.
    pub mark: Mark,
    /// The members as of that entry.
    pub configuration: Configuration,
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.mark, self.configuration)
    }
}
