//! The rests between two steps for laggards. What a step reads, streams encode and clients take in afterwards, all on processors that others want; without rests, one watcher that starts
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

/// When the next step is due.
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
    fn a_pace_is_due_at_once_and_then_when_its_rest_is_over() {
        let mut pace = Pace::default();
        let now = pace.due;
        assert!(pace.is_due(now));
        pace.rest(now, now + STEP, 0);
        assert!(!pace.is_due(now + STEP));
        assert!(pace.is_due(now + 2 * STEP));
    }
}
