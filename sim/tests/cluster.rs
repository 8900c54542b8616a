//! A few runs of clusters, and the proof that a seed is a run there, too.
#![cfg(madsim)]

use detcd_sim::options::{Kind, Options};
use detcd_sim::record::Lines;
use detcd_sim::run::run;

/// Once ended as violations: a client that found nobody but a learner took its refusal for an answer; a member that had been
/// away put elections off, since there were no pre-votes, for longer than requests may wait; a sweep of three rows at a time
/// took longer than its client waited, at the pace that it was set to; a sole member applied in one turn what its impatient
/// clients had sent one after the other while its disk was slow; a member with an old log and a short election timeout kept
/// the only one that could win from campaigning; a machine was lost while others had not applied the removal before it, which
/// was one loss too many; one of which only the ledger tells; a leader that handed over to an absent member refused to revoke a lease, and asked again seconds later; a new leader
/// could commit nothing until the other voter had taken over a store, and leases ended later by that time; a member that had been removed said so, which is lawful, where its log
/// had rotted besides.
#[test]
fn clusters_that_once_failed_keep_every_promise() {
    for seed in [5_061, 1_795_318_447, 26, 100_160, 102_231, 103_059, 108_608, 110_903, 129_465, 1_796_037_105] {
        let verdict = run(&Options::draw(Kind::Cluster, seed), None, Lines::Forget);
        assert_eq!(verdict.violation, None, "cluster run {seed}");
    }
}

#[test]
fn clusters_keep_every_promise() {
    for seed in 1..=4 {
        let verdict = run(&Options::draw(Kind::Cluster, seed), None, Lines::Forget);
        assert_eq!(verdict.violation, None, "cluster run {seed}");
        assert!(verdict.operations > 2_000, "cluster run {seed} did only {} operations", verdict.operations);
    }
}
