//! A few runs of each kind, and the proof that a seed is a run.
#![cfg(madsim)]

use detcd_sim::less::Less;
use detcd_sim::options::{Kind, Options};
use detcd_sim::record::Lines;
use detcd_sim::run::run;

#[test]
fn runs_of_each_kind_keep_every_promise() {
    let runs = [(Kind::Engine, 1), (Kind::Engine, 2), (Kind::Server, 3), (Kind::Server, 4), (Kind::Services, 12)];
    for (kind, seed) in runs {
        let verdict = run(&Options::draw(kind, seed), None, Lines::Forget);
        assert_eq!(verdict.violation, None, "{kind:?} run {seed}");
        assert!(verdict.operations > 5_000, "{kind:?} run {seed} did only {} operations", verdict.operations);
    }
}

/// Each of these once ended as a violation; what it was about, in the order of the seeds: the size of a store that went by an older measure when an alarm was raised, a disk
/// that stayed full beyond the end of a pause, a committer whose last words nobody read, and commits that waited until a hundred log files were removed.
#[test]
fn runs_that_once_failed_keep_every_promise() {
    for seed in [500_513, 500_713, 501_808, 1_032] {
        let verdict = run(&Options::draw(Kind::Engine, seed), None, Lines::Forget);
        assert_eq!(verdict.violation, None, "engine run {seed}");
    }
}

/// Without what was added to runs since.
#[test]
fn a_lease_waits_for_its_renewal_under_a_slow_disk() {
    let less = Less::parse("rot,retention,crowd,unlawful").expect("these words are known");
    let verdict = run(&less.of(Kind::Engine, 559_930), None, Lines::Forget);
    assert_eq!(verdict.violation, None);
}

/// A commit that began on a slow disk a moment before everything was healed, on a store that had just been full, took longer than clients were given.
#[test]
fn a_slow_commit_may_outlast_the_trouble() {
    let verdict = run(&Options::draw(Kind::Server, 460_266), None, Lines::Forget);
    assert_eq!(verdict.violation, None);
}

/// Each of these once ended while its watchers still read, a message a millisecond, what they were behind.
#[test]
fn watchers_of_whole_servers_get_the_time_that_they_need() {
    for (kind, seed) in
        [(Kind::Server, 450_169), (Kind::Services, 60_028), (Kind::Services, 60_115), (Kind::Services, 72_191)]
    {
        let verdict = run(&Options::draw(kind, seed), None, Lines::Forget);
        assert_eq!(verdict.violation, None, "{kind:?} run {seed}");
    }
}

#[test]
fn one_seed_is_one_run() {
    for kind in Kind::ALL {
        let hashes = [9, 9, 10].map(|seed| run(&Options::draw(kind, seed), None, Lines::Forget).hash);
        assert_eq!(hashes[0], hashes[1], "{kind:?}");
        assert_ne!(hashes[1], hashes[2], "{kind:?}");
    }
}
