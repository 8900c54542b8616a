//! Every crash point of a short life, one after the other.
#![cfg(madsim)]

use std::sync::Mutex;

use detcd_sim::machine::CrashPoint;
use detcd_sim::record::Lines;
use detcd_sim::sweep::{play, points, scenario};

/// Enough that boot, append, cut, commit, mark and release are among them; a scenario that shrank shows here.
const POINTS_LEAST: usize = 1_000;

fn sweep(log_apart: bool) {
    let options = scenario(log_apart);
    let points = points(&options, None).expect("nothing goes wrong without a crash");
    assert!(points.len() >= POINTS_LEAST, "only {} points", points.len());
    let failed: Mutex<Vec<(CrashPoint, String)>> = Mutex::default();
    let halves = points.split_at(points.len() / 2);
    let (options, failures) = (&options, &failed);
    std::thread::scope(|scope| {
        for half in [halves.0, halves.1] {
            scope.spawn(move || {
                for point in half {
                    if let Err(violation) = play(options, None, Some(*point), Lines::Forget) {
                        failures.lock().expect("runs catch their panics").push((*point, violation.to_string()));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("runs catch their panics");
    assert!(failed.is_empty(), "{} of {} points: {:?}", failed.len(), points.len(), &failed[..failed.len().min(6)]);
}

#[test]
fn a_member_survives_a_crash_at_every_call() {
    sweep(false);
}

#[test]
fn and_with_its_log_in_a_directory_of_its_own() {
    sweep(true);
}
