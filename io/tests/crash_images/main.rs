//! What the production store and the production log leave on a disk when they are cut short: every call that LMDB and the log make to the system is recorded, and from each
//! prefix of the calls come images of the disk, as a kill and as a power cut leave it. Each is opened as at any start.
//!
//! `make crash-images` makes many images of each prefix; the tests make a few.
#![allow(clippy::unwrap_used)]
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod hooks;
mod log;
mod platters;
mod recorder;
mod store;

use std::path::{Path, PathBuf};

use detcd_io::entropy::Entropy;
use tempfile::TempDir;

use self::platters::{Fate, Platters};
use self::recorder::Call;

/// Power cuts drawn for each prefix, and lives recorded: a sample, or what `CRASH_IMAGES` says.
struct Effort {
    lives: u64,
    cuts: u64,
}

impl Effort {
    fn asked(lives: u64) -> Self {
        let asked = std::env::var("CRASH_IMAGES").ok().and_then(|asked| asked.parse().ok());
        asked.map_or(Self { lives: 1, cuts: 1 }, |cuts| Self { lives, cuts })
    }
}

/// A directory in memory where there is one: images are many, and what a real disk would do is drawn anyway.
fn new_root() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}

/// What came of the images of a life.
struct Judged {
    images: usize,
    /// What each image that broke a promise was, and which.
    broken: Vec<String>,
}

/// Has an image of each prefix of `calls` judged as a kill leaves it, and `cuts` as power cuts do, with the newest number that was acknowledged before.
fn judge(
    (calls, cuts): (&[Call], u64),
    entropy: &mut Entropy,
    judge: impl FnMut(&Path, Option<usize>) -> Result<(), String>,
) -> Judged {
    judge_from(0, (calls, cuts), entropy, judge)
}

/// The same without images of what was there before call `first`.
fn judge_from(
    first: usize,
    (calls, cuts): (&[Call], u64),
    entropy: &mut Entropy,
    mut judge: impl FnMut(&Path, Option<usize>) -> Result<(), String>,
) -> Judged {
    let (mut platters, mut acknowledged) = (Platters::default(), None);
    let mut judged = Judged { images: 0, broken: Vec::new() };
    for place in 0..=calls.len() {
        // A store or a log that is not there yet is made once, in few calls.
        let cuts = if acknowledged.is_none() { cuts * 12 } else { cuts };
        let drawn = (0..cuts).map(|_| Fate::POWER_CUTS[entropy.draw(0, Fate::POWER_CUTS.len() as u64 - 1) as usize]);
        let fates: Vec<Fate> = [Fate::Killed].into_iter().chain(drawn).collect();
        for fate in fates.into_iter().filter(|_| first <= place) {
            let root = new_root();
            platters.crash(fate, entropy, root.path());
            judged.images += 1;
            if let Err(why) = judge(root.path(), acknowledged) {
                let next = calls.get(place).map_or_else(String::new, ToString::to_string);
                judged.broken.push(format!("{fate:?} after call {place} of {}, before {next}: {why}", calls.len()));
            }
        }
        let Some(call) = calls.get(place) else { break };
        platters.take(call);
        if let Call::Acknowledged { number } = call {
            acknowledged = Some(*number);
        }
    }
    judged
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

/// The root of a recorded life, by its real name.
fn real(root: &TempDir) -> PathBuf {
    root.path().canonicalize().unwrap()
}
