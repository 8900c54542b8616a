//! When to compact without being asked: by age, or by a number of revisions.
//!
//! Pure: it is told the time, the store's revision and whether this member leads, and says what to propose. The timing is etcd's. By age, the
//! revision is sampled ten times a period (of an hour at most); the first compaction comes after one full period, the next ones after each period or hour. By revision, all but the
//! newest `retention` are compacted every five minutes. Invariant: it never proposes the same revision twice in a row,
//! and at most as many samples are kept as fit into one period.

use alloc::collections::VecDeque;

/// How much history is kept.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Retention {
    /// What is younger than this, in milliseconds. Not zero.
    Period(u64),
    /// So many revisions. Not below zero.
    Revisions(i64),
}

/// The longest time between two compactions by age, in milliseconds.
const INTERVAL_MAX: u64 = 60 * 60 * 1000;
/// Samples per interval.
const SAMPLES_PER_INTERVAL: u64 = 10;
/// The time between two compactions by revision, in milliseconds.
const REVISION_INTERVAL: u64 = 5 * 60 * 1000;

/// The schedule of one member.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct AutoCompaction {
    retention: Retention,
    /// Revisions, oldest first, one per pause. By age only.
    samples: VecDeque<i64>,
    /// The last revision that was compacted.
    last: i64,
    /// When that was, or when the schedule began.
    succeeded: u64,
    /// How long after that the next one may come.
    wait: u64,
}

impl AutoCompaction {
    /// A schedule that begins now. Times are milliseconds of any clock that only goes forward.
    #[must_use]
    pub fn new(retention: Retention, now: u64, current: i64) -> Self {
        let wait = match retention {
            Retention::Period(period) => {
                assert!(0 < period, "without a period nothing would be kept");
                period
            }
            Retention::Revisions(count) => {
                assert!(0 <= count, "no fewer than none are kept");
                0
            }
        };
        let mut schedule = Self { retention, samples: VecDeque::new(), last: 0, succeeded: now, wait };
        schedule.sample(current);
        schedule
    }

    /// How long to wait before each [`AutoCompaction::due`], in milliseconds.
    #[must_use]
    pub fn pause(&self) -> u64 {
        match self.retention {
            Retention::Period(period) => (period.min(INTERVAL_MAX) / SAMPLES_PER_INTERVAL).max(1),
            Retention::Revisions(_) => REVISION_INTERVAL,
        }
    }

    /// The revision to propose now, if any. Only a leader proposes.
    pub fn due(&mut self, now: u64, current: i64, leads: bool) -> Option<i64> {
        let revision = match self.retention {
            Retention::Period(period) => {
                let oldest = *self.samples.front().expect("the schedule began with a sample");
                if leads && self.succeeded.saturating_add(self.wait) <= now && oldest != self.last {
                    // The first one waits for the whole period.
                    self.wait = period.min(INTERVAL_MAX);
                    Some(oldest)
                } else {
                    None
                }
            }
            Retention::Revisions(count) => {
                let revision = current - count;
                if leads && 0 < revision && revision != self.last { Some(revision) } else { None }
            }
        };
        self.sample(current);
        revision
    }

    /// What was proposed is compacted, by this proposal or an earlier one.
    pub fn done(&mut self, now: u64, revision: i64) {
        self.last = revision;
        self.succeeded = now;
    }

    fn sample(&mut self, current: i64) {
        let Retention::Period(period) = self.retention else { return };
        self.samples.push_back(current);
        // At the next look the oldest one is a period and a pause old.
        if period / self.pause() + 1 < self.samples.len() as u64 {
            self.samples.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60 * 1000;
    const HOUR: u64 = 60 * MINUTE;

    /// Runs for so many pauses, one revision per pause; answers when what was proposed.
    fn run(retention: Retention, pauses: u64, leads: impl Fn(u64) -> bool) -> alloc::vec::Vec<(u64, i64)> {
        let mut schedule = AutoCompaction::new(retention, 0, 1);
        let mut proposed = alloc::vec::Vec::new();
        for pause in 1..=pauses {
            let now = pause * schedule.pause();
            if let Some(revision) = schedule.due(now, 1 + pause as i64, leads(pause)) {
                proposed.push((now, revision));
                schedule.done(now, revision);
            }
            assert!(schedule.samples.len() <= 241);
        }
        proposed
    }

    #[test]
    fn a_short_period_compacts_once_a_period_what_is_a_period_and_a_pause_old() {
        let proposed = run(Retention::Period(10 * MINUTE), 35, |_| true);
        assert_eq!(proposed, [(10 * MINUTE, 1), (20 * MINUTE, 10), (30 * MINUTE, 20)]);
    }

    #[test]
    fn a_long_period_compacts_every_hour() {
        let proposed = run(Retention::Period(24 * HOUR), 261, |_| true);
        assert_eq!(proposed, [(24 * HOUR, 1), (25 * HOUR, 10), (26 * HOUR, 20)]);
    }

    #[test]
    fn only_a_leader_proposes_and_it_catches_up() {
        let proposed = run(Retention::Period(10 * MINUTE), 25, |pause| 14 < pause);
        assert_eq!(proposed, [(15 * MINUTE, 5), (25 * MINUTE, 15)]);
    }

    #[test]
    fn nothing_new_is_not_compacted_again() {
        let mut schedule = AutoCompaction::new(Retention::Period(10), 0, 7);
        assert_eq!(schedule.due(10, 7, true), Some(7));
        schedule.done(10, 7);
        assert!((20..100).all(|now| schedule.due(now, 7, true).is_none()));
    }

    #[test]
    fn by_revision_the_newest_stay() {
        let mut schedule = AutoCompaction::new(Retention::Revisions(10), 0, 1);
        assert_eq!(schedule.pause(), 5 * MINUTE);
        assert_eq!(schedule.due(1, 10, true), None);
        assert_eq!(schedule.due(2, 15, false), None);
        assert_eq!(schedule.due(3, 15, true), Some(5));
        // It failed: it is tried again.
        assert_eq!(schedule.due(4, 15, true), Some(5));
        schedule.done(4, 5);
        assert_eq!(schedule.due(5, 15, true), None);
        assert_eq!(schedule.due(6, 16, true), Some(6));
    }
}
