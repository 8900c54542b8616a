//! Conversations between members, as text: each file under `scripts/raft` makes the claim that is its name.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use detcd_core::raft::Ignored;
use detcd_tests::script;

fn scripts() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/raft");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    paths
}

#[test]
fn every_conversation_goes_as_recorded() {
    let failures: Vec<_> = scripts().iter().filter_map(|path| script::check(path).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(25 <= scripts().len());
}

#[test]
fn every_reason_to_ignore_appears_in_some_conversation() {
    let hear = |path: &PathBuf| script::hear(&std::fs::read_to_string(path).unwrap()).unwrap().ignored;
    let seen: BTreeSet<_> = scripts().iter().flat_map(hear).collect();
    let unseen: Vec<_> = Ignored::ALL.into_iter().filter(|why| !seen.contains(why)).collect();
    assert!(unseen.is_empty(), "no script shows {unseen:?}");
}

#[test]
fn a_changed_answer_is_noticed() {
    let text = "# Why.\nmember 1 of 1\nshow 1\n----\n1: leader\n";
    assert_ne!(script::hear(text).unwrap().text, text);
    assert!(script::hear("expire 1 dinner\n----\n").is_err());
}
