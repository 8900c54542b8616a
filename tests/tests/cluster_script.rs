//! `tests/cluster.sh`, which `make cluster` runs: whoever starts it hears that members did not start, and why.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

fn cluster(detcd: &str) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster.sh");
    let directory = std::env::temp_dir().join(format!("detcd-cluster-{}", std::process::id()));
    let ended = Command::new("sh").arg(script).arg(detcd).arg(&directory).output().unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    ended
}

#[test]
fn members_that_do_not_start_fail_the_script() {
    let ended = cluster("/nonexistent/detcd");
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let said = String::from_utf8(ended.stderr).unwrap();
    for member in ["m0", "m1", "m2"] {
        assert!(said.contains(&format!("{member} ended with status 127; the end of ")), "{said}");
    }
    assert!(said.contains("/m0.log:") && said.contains("/nonexistent/detcd"), "where the log is, and its end: {said}");
}
