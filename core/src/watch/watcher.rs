//! One watcher: a cursor, and what it wants to see.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Change;
use super::progress::Reporting;
use crate::apply::EventKind;

/// Changes that several watchers may share.
pub type Events = Arc<Selection>;

/// Some changes, in order.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Selection {
    changes: Vec<Change>,
    bytes: usize,
}

impl FromIterator<Change> for Selection {
    fn from_iter<I: IntoIterator<Item = Change>>(changes: I) -> Self {
        let changes: Vec<Change> = changes.into_iter().collect();
        let bytes = changes.iter().map(Change::cost_bytes).sum();
        Self { changes, bytes }
    }
}

impl core::ops::Deref for Selection {
    type Target = [Change];

    fn deref(&self) -> &[Change] {
        &self.changes
    }
}

impl Selection {
    /// What they count for where memory is bounded.
    #[must_use]
    pub const fn cost_bytes(&self) -> usize {
        self.bytes
    }
}

/// Which kinds of changes a watcher does not want.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Filter {
    /// No puts.
    pub no_put: bool,
    /// No deletes.
    pub no_delete: bool,
}

/// Which changes, and how they are told.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Interest {
    /// What is left out.
    pub filter: Filter,
    /// With what the keys held before.
    pub prev_kv: bool,
    /// In pieces if they are large.
    pub fragment: bool,
}

/// Where a watcher stands.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum State {
    /// It is offered every revision as it comes, from its cursor on.
    Following,
    /// It is behind, at its cursor.
    Lagging,
    /// It was told that it ended; only its id is left.
    Compacted,
}

/// A watcher.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Watcher {
    /// The cursor: nothing below it is ever offered again. Of a follower it counts only if it lies beyond the position.
    pub(super) next: i64,
    /// What the client asked for; zero for what comes next.
    pub(super) start: i64,
    pub(super) state: State,
    pub(super) interest: Interest,
    /// Whether progress is due; `None` if it is not wanted.
    pub(super) reporting: Option<Reporting>,
}

impl Filter {
    /// How many filters there are.
    pub(super) const COUNT: usize = 4;

    /// Whether a change of this kind is told.
    #[must_use]
    pub const fn passes(self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }

    pub(super) const fn number(self) -> usize {
        self.no_put as usize * 2 + self.no_delete as usize
    }
}

impl Watcher {
    /// Raises the cursor. It is never lowered (etcd issue 20221).
    pub(super) fn raise(&mut self, next: i64) {
        self.next = self.next.max(next);
    }

    /// It was given changes: the next progress report is left out.
    pub(super) fn on_events(&mut self) {
        if let Some(reporting) = &mut self.reporting {
            *reporting = Reporting::Told;
        }
    }
}
