//! The scoreboard: how many seeds each known bug takes until an oracle sees it (`docs/scoreboard.md`). Only in builds that hold the bugs.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Mutex;

use crate::asked::Asked;
use crate::board::{Board, UNKNOWN};
use crate::command::{on_threads, say};
use crate::failures::cannot_write;
use crate::mutants::{self, Mutant, hunted};
use crate::options::{Kind, Options};
use crate::record::Lines;
use crate::run::run;

/// Seeds after which a bug counts as not found.
const SEEDS_MAX: u64 = 2_000;

/// How often each bug is looked for, and how far apart the first seeds of two hunts are.
const HUNTS: u64 = 5;
const BETWEEN_HUNTS: u64 = 1_000_000;

/// What it took to find a bug.
struct Found {
    seeds: u64,
    promise: String,
    seconds: u64,
}

/// What it took in several hunts.
struct Hunts {
    found: Vec<Found>,
    /// The most seeds of a hunt.
    count: u64,
}

impl Hunts {
    fn of(mutant: Mutant, kind: Kind, first: u64, count: u64, jobs: u64) -> Self {
        let hunts = (0..HUNTS).map(|hunt| first.wrapping_add(hunt * BETWEEN_HUNTS));
        let found = hunts.filter_map(|first| hunt(mutant, kind, first, count, jobs)).collect();
        Self { found, count }
    }

    /// Whether every one found it.
    fn is_found(&self) -> bool {
        self.found.len() as u64 == HUNTS
    }

    /// The cells of its row: seeds of the hunt in the middle, of the quickest and the longest one, what saw it, and the virtual time in the middle.
    fn row(&self) -> String {
        let Self { found, count } = self;
        let missed = HUNTS - found.len() as u64;
        if found.is_empty() || HUNTS / 2 < missed {
            return format!("not found in {count}, {missed} times of {HUNTS} | | ");
        }
        let sorted = |of: fn(&Found) -> u64| {
            let mut numbers: Vec<u64> = found.iter().map(of).collect();
            numbers.sort_unstable();
            numbers
        };
        let (seeds, seconds) = (sorted(|found| found.seeds), sorted(|found| found.seconds));
        // Hunts without a catch were longer than all others.
        let middle = HUNTS as usize / 2;
        let most = if missed > 0 { format!("not in {count}") } else { seeds[seeds.len() - 1].to_string() };
        let mut promises: Vec<(usize, &str)> = Vec::new();
        for Found { promise, .. } in found {
            match promises.iter_mut().find(|(_, known)| known == promise) {
                Some((times, _)) => *times += 1,
                None => promises.push((1, promise)),
            }
        }
        promises.sort_by_key(|(times, _)| std::cmp::Reverse(*times));
        let promises: Vec<&str> = promises.into_iter().map(|(_, promise)| promise).collect();
        format!("{} ({} to {most}) | {} | {} s", seeds[middle], seeds[0], promises.join(", "), seconds[middle])
    }
}

/// Looks for every bug, or for one, from the first seed on and with at most so many seeds each, and writes the table, after each bug. Rows of bugs that it does not look for stay.
pub(crate) fn score(hunt: &Asked, scoreboard: &Path) -> io::Result<bool> {
    // The runs of a bug panic on purpose.
    std::panic::set_hook(Box::new(|_| {}));
    let kind = hunt.subject.kind;
    let count = if hunt.count <= 1 { SEEDS_MAX } else { hunt.count };
    let commit = if hunt.subject.commit.is_empty() { UNKNOWN } else { &hunt.subject.commit };
    let only = hunt.subject.mutant.as_ref().map(|(mutant, _)| *mutant);
    let mut board = Board::read(&before(scoreboard).map_err(cannot_write(scoreboard))?, kind);
    let (mut found_some, mut missed) = (0, 0);
    for (mutant, what) in hunted(kind).iter().filter(|(mutant, _)| only.is_none_or(|only| only == *mutant)) {
        let hunts = Hunts::of(*mutant, kind, hunt.seed, count, hunt.jobs);
        missed += u64::from(!hunts.is_found());
        found_some += u64::from(hunts.is_found());
        let row = format!("| `{}` | {what} | {} | {commit} |", mutant.name(), hunts.row());
        say(&row);
        board.rows.insert(mutant.name(), row);
        std::fs::write(scoreboard, board.page(kind, &mutants::names(Some(kind)))).map_err(cannot_write(scoreboard))?;
    }
    say(&format!("{found_some} found, {missed} missed"));
    Ok(missed == 0)
}

/// The page as it is. Whether it can be read and written shows here, and not after the first hunt.
fn before(scoreboard: &Path) -> io::Result<String> {
    let mut file = File::options().read(true).append(true).create(true).open(scoreboard)?;
    let mut page = String::new();
    file.read_to_string(&mut page)?;
    Ok(page)
}

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
