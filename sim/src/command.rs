//! What the simulator's command does: campaigns of seeds, so many at a time, and what it prints of them.
//!
//! A failure prints the one line that repeats it. The last line is the count that a campaign's ledger gets.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::asked::{Asked, asks_for_help, help, parse};
use crate::check::{Promise, Violation};
use crate::failures::Wanted;
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
        Ok(asked) => match &asked.scoreboard {
            Some(path) => {
                let only = asked.subject.mutant.as_ref().map(|(mutant, _)| *mutant);
                crate::mutants::score((asked.subject.kind, only), (asked.seed, asked.count), asked.jobs, path)
            }
            None => campaign(&asked),
        },
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

fn campaign(asked: &Asked) -> ExitCode {
    let begin = Instant::now();
    let failed: Mutex<BTreeMap<u64, Violation>> = Mutex::default();
    let (seconds, operations) = (AtomicU64::new(0), AtomicU64::new(0));
    on_threads(asked.jobs, asked.seed, asked.count, &|seed| {
        let verdict = one(asked, seed);
        seconds.fetch_add(verdict.seconds, Ordering::Relaxed);
        operations.fetch_add(verdict.operations as u64, Ordering::Relaxed);
        if let Some(violation) = verdict.violation {
            say(&format!("FAILED seed {seed}: {violation}\n  repeat: {}", asked.subject.command(seed)));
            failed.lock().expect("runs catch their panics").insert(seed, violation);
        }
        true
    });
    let failed = failed.into_inner().expect("runs catch their panics");
    for (seed, violation) in failed.iter().take(EXPLAINED_MAX) {
        match asked.subject.explain(*seed, violation) {
            Ok(text) => say(&text),
            Err(error) => say(&format!("no diagram of seed {seed}: {error}")),
        }
    }
    let real = begin.elapsed().as_secs_f64();
    let (seconds, operations) = (seconds.into_inner(), operations.into_inner());
    say(&format!("{seconds} virtual seconds and {operations} operations in {real:.1} s"));
    if let Some(busy) = busy_seconds() {
        say(&format!("{:.0} virtual seconds per second of one core", seconds as f64 / busy));
    }
    say(&format!("{} passed, {} failed", asked.count - failed.len() as u64, failed.len()));
    if let Some(ledger) = &asked.ledger
        && let Err(error) = enter(asked, ledger, &failed)
    {
        say(&format!("cannot write {}: {error}", ledger.display()));
        return ExitCode::FAILURE;
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(asked: &Asked, seed: u64) -> Verdict {
    let Asked { subject, lines, wanted, .. } = asked;
    let played = subject.play(seed, *lines, wanted);
    let (mut verdict, made) = played.expect("what was asked for can be written");
    made.iter().for_each(|line| say(line));
    if asked.check_determinism && (seed.wrapping_sub(asked.seed)).is_multiple_of(REPEAT_EVERY) {
        let again = subject.play(seed, *lines, &Wanted::default()).expect("nothing is written").0;
        if again.hash != verdict.hash {
            let what = format!("trace {:016x}, then {:016x}", verdict.hash, again.hash);
            verdict.violation = verdict.violation.or_else(|| Some(Violation::new(Promise::Determinism, what)));
        }
    }
    verdict
}

/// Seconds of processor time that this process has used, where the system tells: hundredths, as Linux counts them.
fn busy_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; user and system time are the 12th and 13th words behind it.
    let mut words = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || words.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}

/// Adds a line to the ledger: commit, kind, seeds, verdict.
fn enter(asked: &Asked, ledger: &std::path::Path, failed: &BTreeMap<u64, Violation>) -> std::io::Result<()> {
    use std::io::Write as _;
    let is_new = !ledger.exists();
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(ledger)?;
    if is_new {
        writeln!(file, "commit\tkind\tseeds\tverdict")?;
    }
    let last = asked.seed.wrapping_add(asked.count - 1);
    let verdict = match failed.keys().next() {
        None => format!("{} passed", asked.count),
        Some(first) => format!("{} failed, first {first}", failed.len()),
    };
    writeln!(file, "{}\t{}\t{}..={last}\t{verdict}", asked.subject.commit, asked.subject.kind.word(), asked.seed)
}

#[expect(clippy::print_stdout, reason = "a command speaks to its caller")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}
