//! Where the models begin: an empty cluster, or one with a past that the paper draws.

use std::collections::BTreeSet;

use bytes::Bytes;
use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::{Change, Config, Configuration, Entry, EntryKind, HardState, Mark, Restored};
use detcd_tests::disk::first_life;

use super::promise::payload_of;
use super::world::{Bounds, Cluster, Pace, Prelude, Scope, id_of};

/// Members with nothing on their disks.
pub(crate) fn empty(members: usize, bounds: Bounds) -> Cluster {
    Cluster {
        config: config(),
        disks: vec![first_life(voters(members)); members],
        bounds,
        prelude: Prelude::Started,
        scope: Scope::All,
        pace: Pace::Prompt,
        apart: None,
        plan: Vec::new(),
    }
}

/// Members of whom the first leads, its first entry committed.
pub(crate) fn led(members: usize, bounds: Bounds) -> Cluster {
    Cluster { prelude: Prelude::Led, ..empty(members, bounds) }
}

/// Two voters and a learner, member 3; the first leads.
pub(crate) fn with_learner(bounds: Bounds) -> Cluster {
    let mut cluster = led(3, bounds);
    let listens = BTreeSet::from([id_of(2)]);
    for restored in &mut cluster.disks {
        restored.configuration = Configuration { learners: listens.clone(), ..voters(2) };
    }
    cluster
}

/// A sole voter with a store and no older log, and a member that knows nobody.
pub(crate) fn joining(bounds: Bounds) -> Cluster {
    let disks = vec![with_store(voters(1)), first_life(Configuration::default())];
    Cluster { disks, plan: vec![Change::AddVoter(id_of(1))], ..led(1, bounds) }
}

/// Three voters, of whom the last one lacks what the others have only as a store.
pub(crate) fn behind(bounds: Bounds) -> Cluster {
    let disks = vec![with_store(voters(3)), with_store(voters(3)), first_life(voters(3))];
    Cluster { disks, ..empty(3, bounds) }
}

/// The first of three voters led two changes through, until it was alone; the second one does not know how far they went.
pub(crate) fn two_changes(bounds: Bounds) -> Cluster {
    let mut cluster = with_past(&[(1, Some(0), &[1]), (1, Some(0), &[1]), (1, Some(0), &[1])], bounds);
    for restored in &mut cluster.disks[..2] {
        for (index, leaver) in [(2, 2), (3, 1)] {
            let payload = payload_of(Change::Remove(id_of(leaver))).into();
            let (term, index) = (Term(1), Index(index));
            restored.entries.push(Entry { term, index, kind: EntryKind::ConfChange, payload });
        }
    }
    cluster.disks[0].hard_state.commit = Index(3);
    cluster
}

/// A disk whose log begins behind entry 1.
fn with_store(configuration: Configuration) -> Restored {
    let base = Mark::new(Index(1), Term(1));
    let hard_state = HardState { term: Term(1), vote: None, commit: base.index };
    Restored { hard_state, base, applied: base.index, ..first_life(configuration) }
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
        ..first_life(voters(past.len()))
    });
    Cluster {
        config: config(),
        disks: disks.collect(),
        bounds,
        prelude: Prelude::Started,
        scope: Scope::All,
        pace: Pace::Prompt,
        apart: None,
        plan: Vec::new(),
    }
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
