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

    /// A step that began then is done, and the store is at `revision`.
    pub(super) fn rest(&mut self, began: Instant, revision: i64) {
        let now = Instant::now();
        if self.revision < revision {
            (self.revision, self.written) = (revision, Some(now));
        }
        let is_at_work = self.written.is_some_and(|at| now.duration_since(at) < AT_WORK);
        let factor = if is_at_work { FACTOR_AT_WORK } else { FACTOR_ALONE };
        self.due = now + (now.duration_since(began) * factor).min(REST_MOST);
    }
}
