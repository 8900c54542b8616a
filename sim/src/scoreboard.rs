//! The scoreboard: how many seeds each known bug takes until an oracle sees it (`docs/scoreboard.md`). Only in builds that hold the bugs.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

use crate::command::{on_threads, say};
use crate::mutants::{Mutant, hunted};
use crate::options::{Kind, Options};
use crate::record::Lines;
use crate::run::run;

/// Seeds after which a bug counts as not found.
const SEEDS_MAX: u64 = 2_000;

/// What it took to find a bug.
struct Found {
    seeds: u64,
    promise: String,
    seconds: u64,
}

/// Looks for every bug, or for one, from the first seed on and with at most so many seeds each, and writes the table. Rows of bugs that it does not look for stay.
pub(crate) fn score(
    (kind, only): (Kind, Option<Mutant>),
    (first, count): (u64, u64),
    jobs: u64,
    scoreboard: &Path,
) -> ExitCode {
    // The runs of a bug panic on purpose.
    std::panic::set_hook(Box::new(|_| {}));
    let count = if count <= 1 { SEEDS_MAX } else { count };
    let before = std::fs::read_to_string(scoreboard).unwrap_or_default();
    let (alone, together) = before.split_once(CLUSTERS).unwrap_or((&before, ""));
    let mut table = match kind {
        Kind::Engine | Kind::Server => String::from(HEAD),
        Kind::Cluster | Kind::Services => format!("{alone}{CLUSTERS}{CLUSTERS_HEAD}"),
    };
    let mine = if kind.is_of_several() { together } else { alone };
    let (mut found_some, mut missed) = (0, 0);
    for (mutant, what) in hunted(kind) {
        if only.is_some_and(|only| only != *mutant) {
            for row in mine.lines().filter(|line| is_row_of(line, *mutant)) {
                let _ = writeln!(table, "{row}");
            }
            continue;
        }
        let found = hunt(*mutant, kind, first, count, jobs);
        let row = match &found {
            Some(Found { seeds, promise, seconds }) => format!("{seeds} | {promise} | {seconds} s"),
            None => format!("not found in {count} | | "),
        };
        missed += u64::from(found.is_none());
        found_some += u64::from(found.is_some());
        let row = format!("| `{}` | {what} | {row} |", mutant.name());
        say(&row);
        let _ = writeln!(table, "{row}");
    }
    if !kind.is_of_several() && before.contains(CLUSTERS) {
        let _ = write!(table, "\n{CLUSTERS}{together}");
    }
    if let Err(error) = std::fs::write(scoreboard, table) {
        say(&format!("cannot write {}: {error}", scoreboard.display()));
        return ExitCode::FAILURE;
    }
    say(&format!("{found_some} found, {missed} missed"));
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_row_of(line: &str, mutant: Mutant) -> bool {
    line.starts_with(&format!("| `{}` |", mutant.name()))
}

const HEAD: &str = "# Scoreboard: known bugs and what finds them

Written by `make mutants`. Each bug is put back into the member, in a build that holds them all, and engine runs of the simulator look for it: how many seeds until the
first broken promise, which promise, and the virtual time of those runs together.

| Bug | What it is | Seeds | Oracle | Virtual time |
|---|---|---|---|---|
";

const CLUSTERS: &str = "## Between members\n";
const CLUSTERS_HEAD: &str = "
The same, looked for by cluster runs (`make mutants KIND=cluster`).

| Bug | What it is | Seeds | Oracle | Virtual time |
|---|---|---|---|---|
";

/// Runs seeds in their order until one of them breaks a promise.
fn hunt(mutant: Mutant, kind: Kind, first: u64, count: u64, jobs: u64) -> Option<Found> {
    let best: Mutex<Option<(u64, String)>> = Mutex::default();
    let seconds = Mutex::new(0);
    on_threads(jobs, first, count, &|seed| {
        let verdict = run(&Options::draw(kind, seed), Some(mutant), Lines::Forget);
        *seconds.lock().expect("runs catch their panics") += verdict.seconds;
        let mut best = best.lock().expect("runs catch their panics");
        if let Some(violation) = verdict.violation
            && best.as_ref().is_none_or(|(earlier, _)| seed < *earlier)
        {
            *best = Some((seed, violation.promise.to_string()));
        }
        best.is_none()
    });
    let (seed, promise) = best.into_inner().expect("runs catch their panics")?;
    let seconds = seconds.into_inner().expect("runs catch their panics");
    Some(Found { seeds: seed.wrapping_sub(first) + 1, promise, seconds })
}
