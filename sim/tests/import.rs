//! Every crash point of an import, one after the other.
#![cfg(madsim)]

use std::path::Path;

use detcd_sim::import::{Files, play, points};

/// An import has looks, writes, syncs and renames; one that shrank shows here.
const POINTS_LEAST: usize = 120;
/// What a power cut leaves is drawn: each point is played with so many draws.
const DRAWS: u64 = 3;

fn files(case: &str) -> Files {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/etcd").join(case);
    let mut files = Files::new();
    for part in ["member/wal", "member/snap"] {
        for entry in std::fs::read_dir(root.join(part)).expect("the directory is in the repository") {
            let path = entry.expect("it can be listed").path();
            let name = path.strip_prefix(&root).expect("it lies below").to_owned();
            files.insert(name, std::fs::read(&path).expect("it can be read"));
        }
    }
    files
}

fn sweep(case: &str) {
    let files = files(case);
    let undisturbed = play(&files, None, 1).expect("nothing goes wrong without a crash");
    assert!(!undisturbed.tables.is_empty());
    let points = points(undisturbed.calls);
    assert!(points.len() >= POINTS_LEAST, "only {} points", points.len());
    for point in points {
        for seed in 0..DRAWS {
            match play(&files, Some(point), seed) {
                Ok(imported) => assert!(imported.tables == undisturbed.tables, "{point:?}, draw {seed}: other tables"),
                Err(violation) => panic!("{point:?}, draw {seed}: {violation}"),
            }
        }
    }
}

#[test]
fn an_import_survives_a_crash_at_every_call() {
    sweep("killed");
}

#[test]
fn and_one_of_a_restored_directory() {
    sweep("restored");
}
