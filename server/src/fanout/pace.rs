//! The rests of the fan-out, between two steps for laggards and where many follow. What a step reads, streams encode and clients take in afterwards, all on processors that others want; without rests, one watcher that starts
//! far back takes all of them for as long as it has a way to go.

use std::time::Duration;

use detcd_io::clock::Instant;

/// How long after a write its clients count as being at work.
const AT_WORK: Duration = Duration::from_millis(500);
/// The rest while somebody writes, in times of what the step took.
const FACTOR_AT_WORK: u32 = 12;
/// The same when nobody does.
const FACTOR_ALONE: u32 = 1;
/// The longest rest, whatever the step took.
const REST_MOST: Duration = Duration::from_millis(20);

/// Followers of one revision up to which there is no rest.
const FOLLOWERS_FREE: usize = 32;
/// The rest for each offer, where there are more.
const REST_OF_AN_OFFER: Duration = Duration::from_micros(10);
/// The longest such rest.
const REST_OF_OFFERS_MOST: Duration = Duration::from_millis(5);

/// How long followers are left to send what they were offered of so many revisions, where many follow: what happens meanwhile goes along, and those who write keep a part of the processors.
pub(super) fn rest_after(offers: usize, revisions: i64) -> Duration {
    let revisions = usize::try_from(revisions).unwrap_or(0);
    if offers <= revisions.saturating_mul(FOLLOWERS_FREE) {
        return Duration::ZERO;
    }
    let offers = u32::try_from(offers).unwrap_or(u32::MAX);
    REST_OF_AN_OFFER.saturating_mul(offers).min(REST_OF_OFFERS_MOST)
}

/// When the next step for laggards is due.
#[derive(Debug)]
pub(super) struct Pace {
    pub(super) due: Instant,
    /// The store's revision when it was last seen to change, and when that was.
    revision: i64,
    written: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { due: Instant::now(), revision: 0, written: None }
    }
}

impl Pace {
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// A step that began then is done by now, and the store is at `revision`.
    pub(super) fn rest(&mut self, began: Instant, now: Instant, revision: i64) {
        if self.revision < revision {
            (self.revision, self.written) = (revision, Some(now));
        }
        let is_at_work = self.written.is_some_and(|at| now.duration_since(at) < AT_WORK);
        let factor = if is_at_work { FACTOR_AT_WORK } else { FACTOR_ALONE };
        self.due = now + (now.duration_since(began) * factor).min(REST_MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(1);

    #[test]
    fn rests_are_long_while_somebody_writes_and_short_soon_after() {
        let begin = Instant::now();
        let mut pace = Pace::default();
        let mut rest_of = |at: Duration, took: Duration, revision| {
            let now = begin + at;
            pace.rest(now - took, now, revision);
            assert!(!pace.is_due(now));
            pace.due - now
        };
        let second = Duration::from_secs(1);
        assert_eq!(rest_of(second, STEP, 5), FACTOR_AT_WORK * STEP, "the revision has moved");
        assert_eq!(rest_of(second + AT_WORK - STEP, STEP, 5), FACTOR_AT_WORK * STEP, "it has moved lately");
        assert_eq!(rest_of(second + AT_WORK, STEP, 5), FACTOR_ALONE * STEP, "nobody writes any more");
        assert_eq!(rest_of(2 * second, STEP, 6), FACTOR_AT_WORK * STEP, "and again somebody does");
        assert_eq!(rest_of(2 * second, 5 * STEP, 6), REST_MOST, "no rest is longer");
    }

    #[test]
    fn followers_rest_where_they_are_many_for_each_revision() {
        assert_eq!(rest_after(0, 0), Duration::ZERO);
        assert_eq!(rest_after(10 * 200, 200), Duration::ZERO, "ten watchers of much");
        assert_eq!(rest_after(FOLLOWERS_FREE, 1), Duration::ZERO);
        assert_eq!(rest_after(FOLLOWERS_FREE + 1, 1), 33 * REST_OF_AN_OFFER);
        assert_eq!(rest_after(100 * 3, 3), 300 * REST_OF_AN_OFFER);
        assert_eq!(rest_after(1_000, 1), REST_OF_OFFERS_MOST);
    }

    #[test]
    fn a_pace_is_due_at_once_and_then_when_its_rest_is_over() {
        let mut pace = Pace::default();
        let now = pace.due;
        assert!(pace.is_due(now));
        pace.rest(now, now + STEP, 0);
        assert!(!pace.is_due(now + STEP));
        assert!(pace.is_due(now + 2 * STEP));
    }
}
