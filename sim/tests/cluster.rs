//! A few runs of clusters, and the proof that a seed is a run there, too.
#![cfg(madsim)]

use detcd_sim::options::{Kind, Options};
use detcd_sim::record::Lines;
use detcd_sim::run::run;

/// Each of these once ended as a violation; what it was about, in the order of the seeds: two votes that reached the disk at once, a member that was removed before it had heard of
/// anybody, a member that joined one that was alone and had much to apply.
#[test]
fn clusters_that_once_failed_keep_every_promise() {
    for seed in [3_221, 3_038, 4_018] {
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
