//! Where the models begin: an empty cluster, or one with a past that the paper draws.

use bytes::Bytes;
use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::{Config, Configuration, Entry, EntryKind, HardState, Restored};

use super::world::{Bounds, Cluster, Prelude, Scope, id_of};

/// Members with nothing on their disks.
pub(crate) fn empty(members: usize, bounds: Bounds) -> Cluster {
    Cluster {
        config: config(),
        disks: vec![Restored::empty(voters(members)); members],
        bounds,
        prelude: Prelude::Started,
        scope: Scope::All,
    }
}

/// Members of whom the first leads, its first entry committed.
pub(crate) fn led(members: usize, bounds: Bounds) -> Cluster {
    Cluster { prelude: Prelude::Led, ..empty(members, bounds) }
}

/// Logs in the manner of the paper's figure 7: a tail that is missing, one that is foreign.
pub(crate) fn figure_7(bounds: Bounds) -> Cluster {
    with_past(&[(4, Some(0), &[1, 1, 4]), (3, None, &[1, 2, 2, 3]), (4, None, &[1])], bounds)
}

/// Members with logs given by their entries' terms, at these terms and votes.
fn with_past(past: &[(u64, Option<usize>, &[u64])], bounds: Bounds) -> Cluster {
    let disks = past.iter().map(|(term, vote, terms)| Restored {
        hard_state: HardState { term: Term(*term), vote: vote.map(id_of), commit: Index::ZERO },
        entries: log(terms),
        ..Restored::empty(voters(past.len()))
    });
    Cluster { config: config(), disks: disks.collect(), bounds, prelude: Prelude::Started, scope: Scope::All }
}

/// The cluster of the paper's figure 8, at (b): member 1 led term 2, member 3 was elected in term 3 by itself and member 2.
pub(crate) fn figure_8(bounds: Bounds) -> Cluster {
    let mut cluster = with_past(&[(3, None, &[1, 2]), (3, Some(2), &[1]), (3, Some(2), &[1, 3])], bounds);
    // One entry in each message, so that a copy can arrive without the next.
    cluster.config.limits.append_bytes_max = 1;
    cluster
}

fn config() -> Config {
    Config { pre_vote: false, ..Config::new(MemberId(1)) }
}

fn voters(members: usize) -> Configuration {
    Configuration::of_voters((0..members).map(id_of))
}

fn log(terms: &[u64]) -> Vec<Entry> {
    let entry = |(index, &term)| Entry {
        term: Term(term),
        index: Index(index),
        kind: EntryKind::Normal,
        // Different leaders wrote different things.
        payload: Bytes::from(vec![b'a' + u8::try_from(term).unwrap()]),
    };
    (1..).zip(terms).map(entry).collect()
}
