//! A checker that never failed has proved nothing: each known bug must be found, and as the broken promise that it is.

use detcd_core::ids::MemberId;
use detcd_core::raft::{Change, Mutant};
use stateright::{Checker, HasDiscoveries, Model};

use super::promise::Promise;
use super::starts;
use super::world::{Bounds, Cluster, KEPT};

/// Walks until a promise breaks.
fn is_found(mutant: Mutant, promise: Promise, mut cluster: Cluster) {
    cluster.config.mutant = Some(mutant);
    let begin = std::time::Instant::now();
    let checker = cluster.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let states = checker.unique_state_count();
    let path = checker.discovery(KEPT).unwrap_or_else(|| panic!("{mutant:?} is not found in {states} states"));
    let broken = path.last_state().broken;
    let steps = path.into_actions().len();
    eprintln!("{mutant:?}: {broken:?} after {steps} steps, {states} states, {:.1?}", begin.elapsed());
    assert_eq!(broken, Some(promise));
}

#[test]
fn a_vote_that_leaves_before_it_is_durable() {
    let bounds = Bounds { elections: 2, crashes: 1, ..Bounds::default() };
    is_found(Mutant::VoteBeforeDurable, Promise::ElectionSafety, starts::empty(3, bounds).only_votes());
}

#[test]
fn a_second_vote_in_the_same_term() {
    let bounds = Bounds { elections: 2, ..Bounds::default() };
    is_found(Mutant::VoteTwice, Promise::ElectionSafety, starts::empty(3, bounds).only_votes());
}

#[test]
fn a_vote_for_a_candidate_with_an_older_log() {
    let bounds = Bounds { elections: 1, proposals: 1, ..Bounds::default() };
    is_found(Mutant::VoteWithoutLogCheck, Promise::LeaderCompleteness, starts::led(3, bounds));
}

#[test]
fn an_acknowledgement_that_leaves_before_it_is_durable() {
    let bounds = Bounds { proposals: 1, ..Bounds::default() };
    is_found(Mutant::AcceptBeforeDurable, Promise::AcknowledgedIsDurable, starts::led(3, bounds));
}

#[test]
fn an_own_copy_that_counts_before_it_is_durable() {
    let bounds = Bounds { proposals: 1, ..Bounds::default() };
    is_found(Mutant::OwnMatchAtAppend, Promise::AppliedIsDurable, starts::led(3, bounds));
    let bounds = Bounds { elections: 1, ..Bounds::default() };
    is_found(Mutant::OwnMatchAtAppend, Promise::AppliedIsDurable, starts::empty(1, bounds));
}

#[test]
fn an_older_terms_entry_that_is_counted() {
    let bounds = Bounds { elections: 2, ..Bounds::default() };
    is_found(Mutant::CommitOlderTerm, Promise::LeaderCompleteness, starts::figure_8(bounds).without_hurry());
}

#[test]
fn an_append_after_a_place_that_differs() {
    let bounds = Bounds { elections: 1, ..Bounds::default() };
    is_found(Mutant::AppendWithoutMatch, Promise::LogMatching, starts::figure_7(bounds));
}

#[test]
fn a_heartbeat_that_commits_what_is_not_matched() {
    let bounds = Bounds { elections: 1, beats: 1, ..Bounds::default() };
    is_found(Mutant::HeartbeatCommitUncapped, Promise::StateMachineSafety, starts::figure_7(bounds));
}

#[test]
fn a_read_before_the_own_term_is_committed() {
    let bounds = Bounds { elections: 1, proposals: 1, reads: 1, ..Bounds::default() };
    is_found(Mutant::ReadBeforeOwnCommit, Promise::FreshReads, starts::led(3, bounds));
}

#[test]
fn a_read_without_asking_who_leads() {
    let bounds = Bounds { elections: 1, reads: 1, ..Bounds::default() };
    is_found(Mutant::ReadWithoutQuorum, Promise::FreshReads, starts::led(3, bounds));
}

#[test]
fn a_read_that_an_older_answer_proves() {
    let bounds = Bounds { elections: 1, reads: 2, ..Bounds::default() };
    is_found(Mutant::ReadTokenReused, Promise::FreshReads, starts::led(3, bounds).without_hurry());
}

#[test]
fn a_learner_that_counts() {
    let bounds = Bounds { proposals: 1, ..Bounds::default() };
    is_found(Mutant::LearnerCounts, Promise::CommittedIsDurable, starts::with_learner(bounds));
}

#[test]
fn a_change_before_the_last_one_is_applied() {
    let bounds = Bounds { elections: 1, proposals: 1, changes: 2, ..Bounds::default() };
    let cluster = starts::led(3, bounds).with_plan(&LEAVE_ONE).without_hurry().apart(0, 2);
    is_found(Mutant::TwoChangesInFlight, Promise::LeaderCompleteness, cluster);
}

#[test]
fn a_campaign_before_a_committed_change_is_applied() {
    let bounds = Bounds { elections: 2, ..Bounds::default() };
    is_found(Mutant::CampaignBeforeChange, Promise::ElectionSafety, starts::two_changes(bounds).slowly().only_votes());
}

#[test]
fn an_heir_that_is_told_too_early() {
    let bounds = Bounds { proposals: 1, transfers: 1, ..Bounds::default() };
    is_found(Mutant::TransferWhileBehind, Promise::HeirIsComplete, starts::led(3, bounds));
}

#[test]
fn a_snapshot_that_leaves_the_configuration_as_it_was() {
    let bounds = Bounds { changes: 1, trims: 1, ..Bounds::default() };
    is_found(Mutant::SnapshotWithoutConfiguration, Promise::SameConfiguration, starts::joining(bounds));
}

#[test]
fn a_snapshot_that_is_acknowledged_before_it_is_durable() {
    let bounds = Bounds { elections: 1, ..Bounds::default() };
    is_found(Mutant::SnapshotBeforeDurable, Promise::AcknowledgedIsDurable, starts::behind(bounds));
}

/// Two steps from three voters to the first alone.
const LEAVE_ONE: [Change; 2] = [Change::Remove(MemberId(3)), Change::Remove(MemberId(2))];
