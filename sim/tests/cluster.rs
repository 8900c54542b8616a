//! A few runs of clusters, and the proof that a seed is a run there, too.
#![cfg(madsim)]

use detcd_sim::options::{Kind, Options};
use detcd_sim::record::Lines;
use detcd_sim::run::run;

/// Once ended as a violation: a client that found nobody but a learner took its refusal for an answer.
#[test]
fn clusters_that_once_failed_keep_every_promise() {
    let verdict = run(&Options::draw(Kind::Cluster, 5_061), None, Lines::Forget);
    assert_eq!(verdict.violation, None);
}

#[test]
fn clusters_keep_every_promise() {
    for seed in 1..=4 {
        let verdict = run(&Options::draw(Kind::Cluster, seed), None, Lines::Forget);
        assert_eq!(verdict.violation, None, "cluster run {seed}");
        assert!(verdict.operations > 2_000, "cluster run {seed} did only {} operations", verdict.operations);
    }
}
