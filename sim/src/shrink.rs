//! A smaller run that breaks the same promise: simpler options, one after the other, as long as the promise still breaks.
//!
//! The order of what is tried follows from the options alone, and every run from its options, so that shrinking a seed always ends at the same run. It is bounded by
//! the number of runs and by their virtual time. Oracles stay what they are: only what happens is made less.

use crate::check::{Promise, Violation};
use crate::less::{Less, WORDS};
use crate::mutants::Mutant;
use crate::options::{Kind, Options};
use crate::record::Lines;
use crate::run::{Verdict, run};

/// Runs that are tried at most.
pub const ATTEMPTS_MAX: u64 = 250;
/// Virtual seconds that are tried at most: less than a minute of one core.
pub const SECONDS_MAX: u64 = 3_000;
/// Letters of a violation's text that must stay, where its promise alone says little.
const TEXT_MAX: usize = 60;

/// A run that broke a promise.
#[derive(Clone, Debug)]
pub struct Broken {
    /// What kind.
    pub kind: Kind,
    /// Which seed.
    pub seed: u64,
    /// What was taken away already.
    pub less: Less,
    /// The bug in it, if somebody put one there.
    pub mutant: Option<Mutant>,
    /// The promise, and what shows it.
    pub violation: Violation,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest run that was found.
    pub broken: Broken,
    /// Runs that it took.
    pub attempts: u64,
    /// Their virtual seconds.
    pub seconds: u64,
}

/// What a run of these options comes to.
pub type Play<'a> = &'a mut dyn FnMut(&Options) -> Verdict;

/// Looks for a smaller run that breaks the same promise.
#[must_use]
pub fn shrink(broken: &Broken) -> Shrunk {
    shrink_by(broken, &mut |options| run(options, broken.mutant, Lines::Forget))
}

/// The same, where runs are whatever `play` makes of options.
#[must_use]
pub fn shrink_by(broken: &Broken, play: Play<'_>) -> Shrunk {
    let mut shrunk = Shrunk { broken: broken.clone(), attempts: 0, seconds: 0 };
    loop {
        let mut is_smaller = false;
        for (name, number) in steps(&shrunk.broken) {
            is_smaller |= shrunk.attempt(name, number, play);
        }
        if !is_smaller || shrunk.is_spent() {
            return shrunk;
        }
    }
}

/// What to try, in this order: first what makes all further attempts shorter.
fn steps(broken: &Broken) -> Vec<(&'static str, Option<u64>)> {
    let options = broken.less.of(broken.kind, broken.seed);
    let mut steps = Vec::new();
    // How much is answered in the end is the very thing that this promise is about.
    let is_about_the_end = matches!(broken.violation.promise, Promise::Progress | Promise::Latency);
    if !is_about_the_end {
        steps.push(("calm", Some(2)));
    }
    // Until then, nothing is different if the trouble ends right after it.
    let seen = broken.violation.evidence.at.map(|at| ("trouble", Some(at.as_secs() + 1)));
    steps.extend(seen);
    steps.extend([3, 8, 20].map(|seconds| ("trouble", Some(seconds))));
    steps.extend(WORDS.map(|word| (word, None)));
    if !is_about_the_end {
        steps.extend([("clients", Some(2)), ("clients", Some(options.load.clients.div_ceil(2)))]);
    }
    steps.extend([("members", Some(3)), ("keys", Some(3)), ("value-bytes", Some(16)), ("rate", Some(50))]);
    steps.extend([1, 2, 3].map(|less| ("trouble", Some(options.trouble_seconds.saturating_sub(less)))));
    steps
}

impl Shrunk {
    const fn is_spent(&self) -> bool {
        ATTEMPTS_MAX <= self.attempts || SECONDS_MAX <= self.seconds
    }

    /// Tries with so much less, as the dice fall and once as they might have fallen. Says whether the promise still breaks.
    fn attempt(&mut self, name: &'static str, number: Option<u64>, play: Play<'_>) -> bool {
        let before = self.options(&self.broken.less);
        let less = self.broken.less.and(name, number);
        if !is_less(&self.options(&less), &before) {
            return false;
        }
        let other = self.broken.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.attempts) >> 40;
        self.still_breaks(less.clone(), play) || self.still_breaks(less.and("dice", Some(other)), play)
    }

    fn options(&self, less: &Less) -> Options {
        less.of(self.broken.kind, self.broken.seed)
    }

    fn still_breaks(&mut self, less: Less, play: Play<'_>) -> bool {
        if self.is_spent() {
            return false;
        }
        let options = self.options(&less);
        let verdict = play(&options);
        self.attempts += 1;
        // A run that ended in a panic tells no time.
        self.seconds += if verdict.seconds == 0 { options.trouble_seconds } else { verdict.seconds };
        let Some(violation) = verdict.violation.filter(|violation| is_same(violation, &self.broken.violation)) else {
            return false;
        };
        (self.broken.less, self.broken.violation) = (less, violation);
        true
    }
}

/// Whether something is less than before. Some words change nothing, or take away what is gone.
fn is_less(options: &Options, before: &Options) -> bool {
    let is_longer = options.trouble_seconds > before.trouble_seconds
        || options.load.clients > before.load.clients
        || options.calm_seconds > before.calm_seconds;
    !is_longer && options != before
}

/// Whether two runs broke the same promise. Where the promise can break in very different ways, by the same words, too, numbers apart.
fn is_same(violation: &Violation, other: &Violation) -> bool {
    let words = |violation: &Violation| {
        let letters = violation.what.chars().filter(|letter| !letter.is_ascii_digit());
        letters.take(TEXT_MAX).collect::<String>()
    };
    let is_vague = matches!(violation.promise, Promise::Assertion | Promise::Fault | Promise::Recovery);
    violation.promise == other.promise && (!is_vague || words(violation) == words(other))
}
