//! The engine's timers against the real clock: a closed set, so a small array-like map and a linear look for the nearest.

use std::collections::BTreeMap;
use std::time::Duration;

use detcd_core::raft::{Delay, Timer};

use crate::clock::Instant;
use crate::entropy::Entropy;

/// Armed timers. Arming one again replaces it.
#[derive(Debug)]
pub(super) struct Timers {
    armed: BTreeMap<Timer, Instant>,
    tick: Duration,
    entropy: Entropy,
}

impl Timers {
    /// Timers whose delays count in `tick`s.
    pub(super) fn new(tick: Duration, entropy: Entropy) -> Self {
        Self { armed: BTreeMap::new(), tick, entropy }
    }

    /// Draws a delay from `within` and arms `timer` with it. The draw is in milliseconds, finer than ticks: fewer split votes.
    pub(super) fn arm(&mut self, timer: Timer, within: Delay, now: Instant) {
        let tick = u64::try_from(self.tick.as_millis()).unwrap_or(u64::MAX);
        let min = u64::from(within.min.0).saturating_mul(tick);
        let max = u64::from(within.max.0).saturating_mul(tick);
        let millis = self.entropy.draw(min, max);
        self.armed.insert(timer, now + Duration::from_millis(millis));
    }

    /// When the next timer runs out.
    pub(super) fn nearest(&self) -> Option<Instant> {
        self.armed.values().min().copied()
    }

    /// Takes one timer that has run out, in the order of the timers, not of their deadlines.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Timer> {
        let timer = *self.armed.iter().find(|(_, at)| **at <= now)?.0;
        self.armed.remove(&timer);
        Some(timer)
    }
}
