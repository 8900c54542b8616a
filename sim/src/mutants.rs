//! Known bugs, put back in on purpose: the proof that the oracles can fail.
//!
//! A build with `--cfg mutants` holds them all and a run chooses one, through a field of the value it lives in; a normal build holds none and this list is
//! empty.

use std::path::Path;
use std::process::ExitCode;

use detcd_io::boot::execute::Start;

/// A bug, by name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mutant {}

impl Mutant {
    /// The bug of this name.
    #[must_use]
    pub const fn parse(_name: &str) -> Option<Self> {
        None
    }
}

/// Gives a member the bug.
#[must_use]
pub fn infect(start: Start, mutant: Option<Mutant>) -> Start {
    match mutant {
        None => start,
        Some(mutant) => match mutant {},
    }
}

/// Whether clients are served before the log is replayed.
#[must_use]
pub const fn serves_before_replay(mutant: Option<Mutant>) -> bool {
    match mutant {
        None => false,
        Some(mutant) => match mutant {},
    }
}

/// Looks for every bug.
pub(crate) fn score(_first: u64, _count: u64, _jobs: u64, _scoreboard: &Path) -> ExitCode {
    crate::command::say("this build holds no mutants");
    ExitCode::FAILURE
}
