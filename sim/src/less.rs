//! Less of a run: words that take something away from the options that a seed draws. A seed, its kind and such words are a run again, so that a shrunk run is one line.
//!
//! A word without a number takes a kind of trouble or of work away; one with a number (`clients=2`) sets how much there is. `dice=N` leaves the options as
//! they are and lets everything that the run itself leaves to chance fall otherwise.

use crate::cluster::options::{Clocks, Operations, Storms, Weather};
use crate::machine::Crash;
use crate::options::{Kind, Options, Steps};

/// Words without a number, in the order in which a shrinker tries them: what fills most of a diagram goes first.
pub const WORDS: [&str; 35] = [
    "operations",
    "cuts",
    "weather",
    "blackouts",
    "moves",
    "clocks",
    "mixture",
    "crashes",
    "power-cuts",
    "kills",
    "pauses",
    "failing-syncs",
    "full-disks",
    "slow-disks",
    "rot",
    "watchers",
    "lists",
    "trust",
    "holders",
    "upkeep",
    "steps",
    "quota",
    "crowd",
    "large-values",
    "impatience",
    "unlawful",
    "compactions",
    "retention",
    "hashes",
    "streams",
    "rewrites",
    "transactions",
    "deletes",
    "ranges",
    "flaps",
];

/// Words with a number.
pub const NUMBERS: [&str; 8] = ["trouble", "calm", "members", "clients", "keys", "rate", "value-bytes", "dice"];

/// How many keys are left of a crowd.
const FEW_KEYS: u64 = 40;

/// What is taken away. Each word stands there once.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Less {
    words: Vec<(String, Option<u64>)>,
}

impl Less {
    /// Nothing is.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { words: Vec::new() }
    }

    /// Reads `crashes,clients=2`.
    ///
    /// # Errors
    /// A word that nobody knows, or one whose number is missing, wrong or too much.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut less = Self::nothing();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                None if WORDS.contains(&word) => less = less.and(word, None),
                Some((name, number)) if NUMBERS.contains(&name) => {
                    let number = number.parse().map_err(|_| format!("{word:?}: {number:?} is no number"))?;
                    less = less.and(name, Some(number));
                }
                _ => {
                    return Err(format!(
                        "no word {word:?}: {}, or one of these and a number: {}",
                        WORDS.join(" "),
                        NUMBERS.join("= ")
                    ));
                }
            }
        }
        Ok(less)
    }

    /// The same, and this.
    #[must_use]
    pub fn and(&self, name: &str, number: Option<u64>) -> Self {
        let mut words: Vec<_> = self.words.iter().filter(|(other, _)| other != name).cloned().collect();
        words.push((name.to_owned(), number));
        Self { words }
    }

    /// Whether nothing is taken away.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.words.is_empty()
    }

    /// The options that are left of those that the seed draws.
    #[must_use]
    pub fn of(&self, kind: Kind, seed: u64) -> Options {
        let mut options = Options::draw(kind, seed);
        for (name, number) in &self.words {
            match number {
                None => take_away(&mut options, name),
                Some(number) => set(&mut options, name, *number),
            }
        }
        options
    }
}

impl std::fmt::Display for Less {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, (name, number)) in self.words.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            match number {
                None => write!(f, "{comma}{name}")?,
                Some(number) => write!(f, "{comma}{name}={number}")?,
            }
        }
        Ok(())
    }
}

fn take_away(options: &mut Options, name: &str) {
    let (faults, load, cluster) = (&mut options.faults, &mut options.load, &mut options.cluster);
    let weights = &mut load.weights;
    match name {
        "operations" => cluster.operations = Operations::NONE,
        "cuts" => cluster.storms = Storms::NONE,
        "flaps" => cluster.storms.flaps = 0,
        "weather" => cluster.weather = Weather::FAIR,
        "blackouts" => cluster.blackout_millis = 0,
        "moves" => cluster.move_millis = 0,
        "clocks" => cluster.clocks = Clocks::RIGHT,
        "mixture" => cluster.mixed = None,
        "crashes" => faults.crash_millis = 0,
        "power-cuts" => leave_out(&mut faults.crashes, Crash::PowerCut),
        "kills" => leave_out(&mut faults.crashes, Crash::Kill),
        "pauses" => faults.pause_millis = 0,
        "failing-syncs" => faults.sync_millis = 0,
        "full-disks" => faults.full_millis = 0,
        "slow-disks" => (faults.slow.millis, faults.disk_millis) = (0, 0),
        "rot" => faults.rot = 0,
        "watchers" => options.watch.clients = 0,
        "lists" => options.watch.page = None,
        "trust" => options.watch.trusts = false,
        "holders" => load.holders = 0,
        "upkeep" => load.upkeep_millis = 0,
        "steps" => options.member.steps = Steps::USUAL,
        "quota" => options.member.quota_bytes = 0,
        "crowd" => {
            load.keys = if load.crowd.take().is_some() { FEW_KEYS } else { load.keys };
        }
        "large-values" => load.values.large = 0,
        "impatience" => load.impatience = 0,
        "unlawful" => load.unlawful = 0,
        "compactions" => weights.compact = 0,
        "retention" => options.member.retention_seconds = 0,
        "hashes" => weights.hash = 0,
        "streams" => weights.stream = 0,
        "rewrites" => load.rewrites = 0,
        "transactions" => weights.txn = 0,
        "deletes" => weights.delete = 0,
        "ranges" => weights.range = 0,
        _ => unreachable!("words are parsed"),
    }
}

/// One kind stays.
fn leave_out(crashes: &mut Vec<Crash>, crash: Crash) {
    if crashes.len() > 1 {
        crashes.retain(|each| *each != crash);
    }
}

/// Sets how much there is. Never more than the seed drew, but for dice, and never nothing.
fn set(options: &mut Options, name: &str, number: u64) {
    let at_most = |drawn: u64| number.clamp(1, drawn.max(1));
    let load = &mut options.load;
    match name {
        "trouble" => options.trouble_seconds = at_most(options.trouble_seconds),
        "calm" => options.calm_seconds = at_most(options.calm_seconds),
        "members" => options.cluster.members = usize::try_from(at_most(options.cluster.members as u64)).unwrap_or(1),
        "clients" => load.clients = at_most(load.clients),
        "keys" => load.keys = at_most(load.keys),
        "rate" => load.rate = at_most(load.rate),
        "value-bytes" => load.values.bytes_max = at_most(load.values.bytes_max),
        "dice" => options.seed = number,
        _ => unreachable!("words are parsed"),
    }
}
