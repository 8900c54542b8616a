//! A few standard runs, and the proof that a seed is a run.
#![cfg(madsim)]

use detcd_sim::options::Options;
use detcd_sim::record::Lines;
use detcd_sim::run::run;

#[test]
fn standard_runs_keep_every_promise() {
    for seed in 1..=4 {
        let verdict = run(&Options::draw(seed), None, Lines::Forget);
        assert_eq!(verdict.violation, None, "seed {seed}");
        assert!(verdict.operations > 5_000, "seed {seed} did only {} operations", verdict.operations);
    }
}

#[test]
fn one_seed_is_one_run() {
    let hashes = [9, 9, 10].map(|seed| run(&Options::draw(seed), None, Lines::Forget).hash);
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[1], hashes[2]);
}
