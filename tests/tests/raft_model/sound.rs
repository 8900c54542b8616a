//! The engine keeps its promises in every state of these models, and the models get where they are meant to get.

use detcd_core::raft::Change;
use stateright::{Checker, Model};

use super::starts;
use super::world::{Bounds, CHANGED, CLIENT_ENTRY, Cluster, INHERITED, INSTALLED, KEPT, LATER_LEADER, id_of};

/// Walks all states of a model. Each name in `reached` is something that must happen in at least one of them.
fn keeps_its_promises(cluster: Cluster, reached: &[&'static str]) {
    let begin = std::time::Instant::now();
    let bounds = cluster.bounds;
    let checker = cluster.checker().threads(2).spawn_bfs().join();
    let (states, depth, time) = (checker.unique_state_count(), checker.max_depth(), begin.elapsed());
    eprintln!("{states} states, depth {depth}, {time:.1?}: {bounds:?}");
    assert!(checker.is_done());
    checker.assert_no_discovery(KEPT);
    for name in reached {
        checker.assert_any_discovery(name);
    }
}

#[test]
fn section_5_2_one_leader_per_term() {
    let bounds = Bounds { elections: 3, crashes: 1, ..Bounds::default() };
    keeps_its_promises(starts::empty(3, bounds).only_votes(), &[LATER_LEADER]);
}

#[test]
fn section_5_3_conflicting_logs_are_brought_into_line() {
    let bounds = Bounds { elections: 1, beats: 1, ..Bounds::default() };
    keeps_its_promises(starts::figure_7(bounds), &[CLIENT_ENTRY]);
    let bounds = Bounds { elections: 1, repeats: 1, ..Bounds::default() };
    keeps_its_promises(starts::figure_7(bounds), &[CLIENT_ENTRY]);
}

#[test]
fn section_5_4_1_committed_entries_survive_an_election() {
    let bounds = Bounds { elections: 1, proposals: 1, crashes: 1, ..Bounds::default() };
    keeps_its_promises(starts::led(3, bounds).without_hurry(), &[CLIENT_ENTRY, LATER_LEADER]);
    let bounds = Bounds { elections: 1, proposals: 1, repeats: 1, ..Bounds::default() };
    keeps_its_promises(starts::led(3, bounds).without_hurry(), &[CLIENT_ENTRY, LATER_LEADER]);
    let bounds = Bounds { elections: 1, proposals: 1, ..Bounds::default() };
    keeps_its_promises(starts::led(3, bounds), &[CLIENT_ENTRY, LATER_LEADER]);
}

#[test]
fn section_5_4_2_older_terms_commit_with_the_own_one() {
    let bounds = Bounds { elections: 2, ..Bounds::default() };
    keeps_its_promises(starts::figure_8(bounds).without_hurry(), &[CLIENT_ENTRY, LATER_LEADER]);
}

#[test]
fn two_members_with_everything() {
    let bounds = Bounds { elections: 2, proposals: 1, crashes: 2, ..Bounds::default() };
    keeps_its_promises(starts::empty(2, bounds), &[CLIENT_ENTRY, LATER_LEADER]);
    let bounds = Bounds { elections: 2, proposals: 1, crashes: 1, beats: 1, ..Bounds::default() };
    keeps_its_promises(starts::empty(2, bounds).without_hurry(), &[CLIENT_ENTRY, LATER_LEADER]);
    let bounds = Bounds { elections: 2, proposals: 1, crashes: 1, repeats: 1, ..Bounds::default() };
    keeps_its_promises(starts::empty(2, bounds).without_hurry(), &[CLIENT_ENTRY, LATER_LEADER]);
}

#[test]
fn one_member_with_everything() {
    let bounds = Bounds { elections: 3, proposals: 3, crashes: 3, reads: 2, ..Bounds::default() };
    keeps_its_promises(starts::empty(1, bounds), &[CLIENT_ENTRY, LATER_LEADER]);
}

#[test]
fn thesis_section_6_4_reads_are_fresh() {
    let bounds = Bounds { elections: 1, crashes: 1, reads: 1, ..Bounds::default() };
    keeps_its_promises(starts::led(3, bounds).without_hurry(), &[LATER_LEADER]);
    let bounds = Bounds { elections: 1, proposals: 1, reads: 1, ..Bounds::default() };
    keeps_its_promises(starts::led(3, bounds).without_hurry(), &[CLIENT_ENTRY, LATER_LEADER]);
}

#[test]
#[ignore = "larger bounds: make model-larger"]
fn reads_are_fresh_whoever_crashes_and_writes() {
    let bounds = Bounds { elections: 1, proposals: 1, crashes: 1, reads: 1, ..Bounds::default() };
    keeps_its_promises(starts::led(3, bounds).without_hurry(), &[CLIENT_ENTRY, LATER_LEADER]);
}

#[test]
fn thesis_section_9_6_pre_vote_changes_no_promise() {
    let bounds = Bounds { elections: 3, crashes: 1, doubts: 2, ..Bounds::default() };
    keeps_its_promises(starts::empty(2, bounds).with_pre_vote().without_hurry(), &[LATER_LEADER]);
    let bounds = Bounds { elections: 1, doubts: 2, ..Bounds::default() };
    keeps_its_promises(starts::led(3, bounds).with_pre_vote().without_hurry(), &[LATER_LEADER]);
}

#[test]
fn thesis_section_4_1_one_change_at_a_time() {
    let bounds = Bounds { elections: 1, changes: 2, ..Bounds::default() };
    let plan = [Change::Remove(id_of(2)), Change::Remove(id_of(1))];
    let cluster = starts::led(3, bounds).with_plan(&plan).without_hurry().apart(0, 2);
    keeps_its_promises(cluster, &[CHANGED, LATER_LEADER]);
    let bounds = Bounds { crashes: 1, ..bounds };
    let cluster = starts::led(3, bounds).with_plan(&plan).without_hurry().apart(0, 2);
    keeps_its_promises(cluster, &[CHANGED, LATER_LEADER]);
}

#[test]
fn nobody_who_can_win_is_two_changes_late() {
    let bounds = Bounds { elections: 2, crashes: 1, ..Bounds::default() };
    keeps_its_promises(starts::two_changes(bounds).slowly().without_hurry(), &[LATER_LEADER]);
}

#[test]
fn thesis_section_4_2_1_a_learner_is_promoted() {
    let plan = [Change::AddVoter(id_of(2))];
    let bounds = Bounds { elections: 1, changes: 1, beats: 1, ..Bounds::default() };
    keeps_its_promises(starts::with_learner(bounds).with_plan(&plan).without_hurry(), &[CHANGED, LATER_LEADER]);
    let bounds = Bounds { elections: 1, changes: 1, crashes: 1, ..Bounds::default() };
    keeps_its_promises(starts::with_learner(bounds).with_plan(&plan).without_hurry(), &[CHANGED, LATER_LEADER]);
    let bounds = Bounds { proposals: 1, changes: 1, ..Bounds::default() };
    keeps_its_promises(starts::with_learner(bounds).with_plan(&plan).without_hurry(), &[CHANGED, CLIENT_ENTRY]);
}

#[test]
fn thesis_section_4_2_2_a_leader_removes_itself() {
    let bounds = Bounds { elections: 1, changes: 1, ..Bounds::default() };
    let plan = [Change::Remove(id_of(0))];
    let reached = [CHANGED, INHERITED, LATER_LEADER];
    keeps_its_promises(starts::led(3, bounds).with_plan(&plan).without_hurry(), &reached);
    let bounds = Bounds { elections: 0, crashes: 1, ..bounds };
    keeps_its_promises(starts::led(3, bounds).with_plan(&plan).without_hurry(), &reached);
}

#[test]
#[ignore = "larger bounds: make model-larger"]
fn a_leader_removes_itself_while_somebody_crashes_and_another_campaigns() {
    let bounds = Bounds { elections: 1, changes: 1, crashes: 1, ..Bounds::default() };
    let cluster = starts::led(3, bounds).with_plan(&[Change::Remove(id_of(0))]).without_hurry();
    keeps_its_promises(cluster, &[CHANGED, INHERITED, LATER_LEADER]);
}

#[test]
fn thesis_section_3_10_leadership_moves() {
    let bounds = Bounds { proposals: 1, transfers: 1, ..Bounds::default() };
    keeps_its_promises(starts::led(3, bounds).without_hurry(), &[CLIENT_ENTRY, INHERITED, LATER_LEADER]);
    let bounds = Bounds { crashes: 1, ..bounds };
    keeps_its_promises(starts::led(3, bounds).without_hurry(), &[CLIENT_ENTRY, INHERITED, LATER_LEADER]);
}

#[test]
fn section_7_a_snapshot_brings_a_member_up() {
    let bounds = Bounds { elections: 1, crashes: 1, ..Bounds::default() };
    keeps_its_promises(starts::behind(bounds).without_hurry(), &[INSTALLED]);
    let bounds = Bounds { elections: 1, beats: 1, losses: 1, ..Bounds::default() };
    keeps_its_promises(starts::behind(bounds).without_hurry(), &[INSTALLED]);
    let bounds = Bounds { elections: 2, ..Bounds::default() };
    keeps_its_promises(starts::behind(bounds).without_hurry().slowly(), &[INSTALLED, LATER_LEADER]);
}

#[test]
fn a_member_joins_with_a_snapshot() {
    let bounds = Bounds { elections: 1, crashes: 1, changes: 1, proposals: 1, trims: 1, beats: 1, ..Bounds::default() };
    keeps_its_promises(starts::joining(bounds).without_hurry(), &[CHANGED, INSTALLED, LATER_LEADER]);
}
