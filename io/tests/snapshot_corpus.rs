//! The corpus of the `snapshot` fuzz target: stores of the real etcd as a leader sends them, whole, cut, changed, and over a disk that fails.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use detcd_io::peer::snapshot_fuzz::{Outcome, body, receive};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A body of this store, behind the byte of choices.
fn input(choices: u8, name: &str) -> Vec<u8> {
    input_of(choices, &format!("tests/golden/etcd/{name}/member/snap/db"))
}

fn input_of(choices: u8, database: &str) -> Vec<u8> {
    [&[choices][..], &body(&fs::read(root().join(database)).unwrap())].concat()
}

/// Whole, and with each trouble, in small steps and large ones.
#[test]
fn a_store_of_etcd_is_taken_over_unless_something_goes_wrong() {
    for name in ["young", "restored", "version-3.6", "unfinished-compaction", "learner"] {
        for step in [0, 63] {
            let came_to = |trouble: u8| receive(&input(trouble + step * 4, name));
            assert!(matches!(came_to(0), Outcome::Staged { rows } if rows > 3), "{name}: {:?}", came_to(0));
            for trouble in 1..4 {
                assert!(matches!(came_to(trouble), Outcome::Refused(_)), "{name}: {:?}", came_to(trouble));
            }
        }
    }
}

#[test]
fn what_is_damaged_is_refused_and_leaves_nothing() {
    let sound = input(0, "young");
    let mut told = Vec::new();
    for place in (1..sound.len()).step_by(97) {
        let mut cut = sound.clone();
        cut.truncate(place);
        told.push(receive(&cut));
        let mut changed = sound.clone();
        changed[place] ^= 0x41;
        told.push(receive(&changed));
    }
    assert!(told.iter().any(|outcome| matches!(outcome, Outcome::NotTaken(_))));
    assert!(told.iter().filter(|outcome| matches!(outcome, Outcome::Refused(_))).count() > 50);
}

#[test]
fn the_corpus_keeps_every_promise() {
    let directory = root().join("fuzz/seeds/snapshot");
    if std::env::var("WRITE_SEEDS").is_ok() {
        fs::create_dir_all(&directory).unwrap();
        for name in ["young", "learner"] {
            fs::write(directory.join(name), input(0, name)).unwrap();
        }
        fs::write(directory.join("levels"), input_of(0, "fuzz/seeds/bbolt/small-pages")).unwrap();
        fs::write(directory.join("cut"), &input(1, "young")[..300]).unwrap();
    }
    let mut staged = 0;
    for entry in fs::read_dir(directory).unwrap() {
        staged += usize::from(matches!(receive(&fs::read(entry.unwrap().path()).unwrap()), Outcome::Staged { .. }));
    }
    assert!(staged >= 2);
}
