//! What the simulator's command does: campaigns of seeds, so many at a time, and what it prints of them.
//!
//! A failure prints the one line that repeats it. The last line is the count that a campaign's ledger gets.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::asked::{Asked, asks_for_help, help, parse};
use crate::check::{Promise, Violation};
use crate::failures::{Wanted, cannot_write};
use crate::ledger::{self, Entry};
use crate::run::Verdict;

/// One run in so many is repeated to see whether its trace repeats, too.
const REPEAT_EVERY: u64 = 20;
/// Failures of a campaign that are shrunk and drawn.
const EXPLAINED_MAX: usize = 2;

/// Runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if asks_for_help(&words) {
        say(&help());
        return ExitCode::SUCCESS;
    }
    match parse(&words) {
        Err(why) => {
            say(&format!("{why}\n--help tells all words"));
            ExitCode::from(2)
        }
        Ok(asked) => match work(&asked) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                say(&error.to_string());
                ExitCode::from(2)
            }
        },
    }
}

/// Says whether everything is as it must be.
fn work(asked: &Asked) -> io::Result<bool> {
    match &asked.scoreboard {
        Some(path) => crate::mutants::score(asked, path),
        None => campaign(asked),
    }
}

/// Runs `work` on every seed, on so many threads, until it says enough. The results come in no order.
pub(crate) fn on_threads(jobs: u64, first: u64, count: u64, work: &(dyn Fn(u64) -> bool + Sync)) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if count <= place || !work(first.wrapping_add(place)) {
                        next.fetch_max(count, Ordering::Relaxed);
                        return;
                    }
                }
            });
        }
    });
}

/// What runs have come to.
#[derive(Default)]
struct Tally {
    seconds: u64,
    operations: usize,
    failed: BTreeMap<u64, Violation>,
    /// What was asked for cannot be written: no seed is to blame, and none is begun any more.
    error: Option<io::Error>,
}

fn campaign(asked: &Asked) -> io::Result<bool> {
    let ledger = asked.ledger.as_deref();
    let mut ledger = ledger.map(|path| ledger::open(path).map_err(cannot_write(path))).transpose()?;
    let begin = Instant::now();
    let tally: Mutex<Tally> = Mutex::default();
    on_threads(asked.jobs, asked.seed, asked.count, &|seed| {
        let played = one(asked, seed);
        let mut tally = tally.lock().expect("runs catch their panics");
        match played {
            Ok(verdict) => tally.add(asked, seed, verdict),
            Err(error) => tally.error = Some(error),
        }
        tally.error.is_none()
    });
    let Tally { seconds, operations, failed, error } = tally.into_inner().expect("runs catch their panics");
    error.map_or(Ok(()), Err)?;
    // Before failures are shrunk: their further runs are in neither sum.
    let (real, busy) = (begin.elapsed().as_secs_f64(), busy_seconds());
    for (seed, violation) in failed.iter().take(EXPLAINED_MAX) {
        match asked.subject.explain(*seed, violation, &asked.wanted) {
            Ok(lines) => lines.iter().for_each(|line| say(line)),
            Err(error) => say(&format!("no diagram of seed {seed}: {error}")),
        }
    }
    say(&format!("{seconds} virtual seconds and {operations} operations in {real:.1} s"));
    if let Some(busy) = busy.filter(|busy| *busy > 0.0) {
        say(&format!("{:.0} virtual seconds per second of one core", seconds as f64 / busy));
    }
    say(&format!("{} passed, {} failed", asked.count - failed.len() as u64, failed.len()));
    if let (Some(file), Some(path)) = (&mut ledger, &asked.ledger) {
        let failed: Vec<u64> = failed.keys().copied().collect();
        let (commit, kind) = (asked.subject.commit.as_str(), asked.subject.kind.word());
        let entry = Entry { commit, kind, first: asked.seed, count: asked.count, failed: &failed };
        entry.write(file).map_err(cannot_write(path))?;
    }
    Ok(failed.is_empty())
}

impl Tally {
    fn add(&mut self, asked: &Asked, seed: u64, verdict: Verdict) {
        self.seconds += verdict.seconds;
        self.operations += verdict.operations;
        if let Some(violation) = verdict.violation {
            say(&format!("FAILED seed {seed}: {violation}\n  repeat: {}", asked.subject.repeat(seed, &violation)));
            self.failed.insert(seed, violation);
        }
    }
}

fn one(asked: &Asked, seed: u64) -> io::Result<Verdict> {
    let Asked { subject, lines, wanted, .. } = asked;
    let (mut verdict, made) = subject.play(seed, *lines, wanted)?;
    made.iter().for_each(|line| say(line));
    if asked.check_determinism && (seed.wrapping_sub(asked.seed)).is_multiple_of(REPEAT_EVERY) {
        let (again, _) = subject.play(seed, *lines, &Wanted::default())?;
        verdict.seconds += again.seconds;
        if again.hash != verdict.hash {
            let what = format!("trace {:016x}, then {:016x}", verdict.hash, again.hash);
            verdict.violation = verdict.violation.or_else(|| Some(Violation::new(Promise::Determinism, what)));
        }
    }
    Ok(verdict)
}

/// Seconds of processor time that this process has used, where the system tells: hundredths, as Linux counts them.
fn busy_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; user and system time are the 12th and 13th words behind it.
    let mut words = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || words.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}

#[expect(clippy::print_stdout, reason = "a command speaks to its caller")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}
