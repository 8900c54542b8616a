//! The engine's timers against the real clock: a closed set, so a small array-like map and a linear look for the nearest.

use std::collections::BTreeMap;
use std::time::Duration;

use detcd_core::ids::MemberId;
use detcd_core::raft::{Delay, Timer};

use crate::clock::{Alarm, Instant};
use crate::entropy::Entropy;

/// Armed timers. Arming one again replaces it.
#[derive(Debug)]
pub(super) struct Timers {
    armed: BTreeMap<Timer, Instant>,
    tick: Duration,
    entropy: Entropy,
    /// When each member was sent the last heartbeat.
    heartbeats: BTreeMap<MemberId, Instant>,
    /// What wakes the driver when the next of anything is due.
    pub(super) alarm: Alarm,
}

impl Timers {
    /// Timers whose delays count in `tick`s.
    pub(super) fn new(tick: Duration, entropy: Entropy) -> Self {
        Self { armed: BTreeMap::new(), tick, entropy, heartbeats: BTreeMap::new(), alarm: Alarm::default() }
    }

    /// Draws a delay from `within` and arms `timer` with it. The draw is in milliseconds, finer than ticks: fewer split votes.
    pub(super) fn arm(&mut self, timer: Timer, within: Delay, now: Instant) {
        let tick = u64::try_from(self.tick.as_millis()).unwrap_or(u64::MAX);
        let min = u64::from(within.min.0).saturating_mul(tick);
        let max = u64::from(within.max.0).saturating_mul(tick);
        let millis = self.entropy.draw(min, max);
        self.armed.insert(timer, now + Duration::from_millis(millis));
    }

    /// A heartbeat leaves for a member. Answers by how much it is late if the one before left more than two intervals ago.
    pub(super) fn late_by(&mut self, to: MemberId, now: Instant) -> Option<Duration> {
        let before = self.heartbeats.insert(to, now)?;
        (now - before).checked_sub(2 * self.tick).filter(|late| !late.is_zero())
    }

    /// Another one leads, or this one anew: the next heartbeats follow no earlier ones.
    pub(super) fn forget_heartbeats(&mut self) {
        self.heartbeats.clear();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_late_when_the_one_before_left_more_than_two_intervals_ago() {
        let (tick, begin) = (Duration::from_millis(100), Instant::now());
        let mut timers = Timers::new(tick, Entropy::seeded(1));
        let mut at = |to, millis| timers.late_by(MemberId(to), begin + Duration::from_millis(millis));
        assert_eq!([at(1, 0), at(2, 50), at(1, 200), at(2, 251)], [None, None, None, Some(Duration::from_millis(1))]);
        timers.forget_heartbeats();
        assert_eq!(timers.late_by(MemberId(1), begin + Duration::from_secs(9)), None, "a new leadership");
    }
}
