//! What a person gets to see of a run: a smaller run that breaks the same promise, a page, the history as a file.

use std::io;
use std::path::{Path, PathBuf};

use crate::check::{Promise, Violation};
use crate::film::Film;
use crate::history;
use crate::less::Less;
use crate::mutants::Mutant;
use crate::options::Kind;
use crate::record::{Lines, Recorder, Trace};
use crate::report::{Source, page};
use crate::run::{Verdict, run_into};
use crate::shrink::{Broken, Shrunk, shrink};

/// Where pages go.
const PAGES: &str = "target/sim";

/// Which runs, and how they are called.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subject {
    /// What kind.
    pub kind: Kind,
    /// What is taken away from what their seeds draw.
    pub less: Less,
    /// The bug in them, if somebody put one there, and its name.
    pub mutant: Option<(Mutant, String)>,
    /// Which code.
    pub commit: String,
}

/// What is made of a run besides its verdict.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    /// A page, whatever comes of it.
    pub report: bool,
    /// Its history, in this directory.
    pub history: Option<PathBuf>,
    /// Neither of a run that keeps every promise.
    pub only_broken: bool,
}

impl Subject {
    fn mutant(&self) -> Option<Mutant> {
        self.mutant.as_ref().map(|(mutant, _)| *mutant)
    }

    /// Where the page of a seed goes. Kinds share seeds, and their pages must not.
    #[must_use]
    pub fn page(&self, seed: u64) -> PathBuf {
        Path::new(PAGES).join(format!("{}-{seed}.html", self.kind.word()))
    }

    /// Runs a seed, and makes of it what is wanted. Says where, one line each.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn play(&self, seed: u64, lines: Lines, wanted: &Wanted) -> io::Result<(Verdict, Vec<String>)> {
        let options = self.less.of(self.kind, seed);
        let (film, recorder) = (Film::default(), Recorder::default());
        let trace = if wanted.report { Trace::filmed(film.clone()) } else { Trace::new(lines) };
        let verdict = run_into(&options, self.mutant(), &trace, &recorder);
        let mut made = Vec::new();
        let is_kept = !wanted.only_broken || verdict.violation.is_some();
        if wanted.report && is_kept {
            let history = recorder.history();
            let source = Source {
                options: &options,
                less: &self.less,
                seed,
                mutant: self.mutant.as_ref().map(|(_, name)| name.as_str()),
                commit: &self.commit,
                verdict: &verdict,
                shots: &film.shots(),
                history: &history,
            };
            let path = self.page(seed);
            std::fs::create_dir_all(PAGES).map_err(cannot_write(Path::new(PAGES)))?;
            std::fs::write(&path, page(&source)).map_err(cannot_write(&path))?;
            made.push(format!("diagram of seed {seed}: {}", path.display()));
        }
        if let Some(directory) = wanted.history.as_ref().filter(|_| is_kept) {
            std::fs::create_dir_all(directory).map_err(cannot_write(directory))?;
            let path = directory.join(format!("{}-{seed}.jsonl", self.kind.word()));
            let head = history::Head { subject: self, seed, options: &options };
            history::write(&path, &head, &recorder.history()).map_err(cannot_write(&path))?;
            made.push(format!("history of seed {seed}: {}", path.display()));
        }
        Ok((verdict, made))
    }

    /// The line that repeats a seed's run.
    #[must_use]
    pub fn command(&self, seed: u64) -> String {
        let less = if self.less.is_nothing() { String::new() } else { format!(" LESS={}", self.less) };
        let mutant = self.mutant.as_ref().map_or_else(String::new, |(_, name)| format!(" MUTANT={name}"));
        format!("make sim KIND={} SEED={seed} N=1{less}{mutant}", self.kind.word())
    }

    /// The line that repeats a failure: some show only in a run that is played twice.
    #[must_use]
    pub fn repeat(&self, seed: u64, violation: &Violation) -> String {
        let is_of_two = violation.promise == Promise::Determinism;
        format!("{}{}", self.command(seed), if is_of_two { " TWICE=1" } else { "" })
    }

    /// Makes a failure one that a person can read, and says how, in lines. A run that is less already is taken as it is, and drawn unless it was.
    ///
    /// # Errors
    /// A page cannot be written.
    pub fn explain(&self, seed: u64, violation: &Violation, made: &Wanted) -> io::Result<Vec<String>> {
        if violation.promise == Promise::Determinism {
            // Each of the two plays by itself may keep every promise: there is nothing to shrink and nothing to draw.
            return Ok(vec![format!("  compare: {} TRACE=1 prints both plays", self.repeat(seed, violation))]);
        }
        if !self.less.is_nothing() {
            return if made.report { Ok(Vec::new()) } else { self.draw(seed) };
        }
        let broken = Broken {
            kind: self.kind,
            seed,
            less: self.less.clone(),
            mutant: self.mutant(),
            violation: violation.clone(),
        };
        let Shrunk { broken, attempts, seconds } = quietly(|| shrink(&broken));
        let smaller = Self { less: broken.less, ..self.clone() };
        let command = smaller.command(seed);
        let mut lines = vec![
            format!("SHRUNK seed {seed} in {attempts} runs of {seconds} virtual seconds: {}", broken.violation),
            format!("  repeat: {command}"),
            format!("  diagram: {command} REPORT=1, then look at {}", smaller.page(seed).display()),
        ];
        lines.extend(smaller.draw(seed)?);
        Ok(lines)
    }

    /// Plays a seed that broke a promise once more, for its page.
    fn draw(&self, seed: u64) -> io::Result<Vec<String>> {
        let wanted = Wanted { report: true, only_broken: true, ..Wanted::default() };
        let (verdict, made) = quietly(|| self.play(seed, Lines::Forget, &wanted))?;
        if verdict.violation.is_none() {
            let why = "keeps every promise when it is played again, and is not decided by its seed";
            return Ok(vec![format!("  no diagram: seed {seed} {why}: {} TWICE=1", self.command(seed))]);
        }
        Ok(made.iter().map(|line| format!("  {line}")).collect())
    }
}

/// Names the file in its error.
pub(crate) fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |error| io::Error::new(error.kind(), format!("cannot write {path}: {error}"))
}

/// Does this without a word about panics: they are findings, told once.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let done = work();
    std::panic::set_hook(hook);
    done
}
