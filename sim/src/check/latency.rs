//! No cliffs: while nothing fails, every request is answered within a budget of virtual time, whatever else goes on.
//!
//! In virtual time computing costs nothing. What shows is waiting: for a lock that is held over a sync, in a queue that nobody takes from, for a rest that
//! is made for nobody, for a round of messages too many. Compactions, copies, defragmentations, watchers that lag and members that catch up may not add to it.

use std::time::Duration;

use super::{Promise, Violation};
use crate::record::{Ask, History, Outcome};

/// A request's time at the most. In 240 runs of all kinds the slowest took 28 ms: a few syncs of up to a millisecond, a few messages of as much, a batch under way.
const BUDGET: Duration = Duration::from_millis(60);

/// Checks the operations that were sent from `healed` on.
///
/// # Errors
/// One that took longer.
pub fn check(history: &History, healed: u64) -> Result<(), Violation> {
    for operation in history.operations.iter().filter(|operation| operation.invoked >= healed) {
        let is_answered = matches!(operation.outcome, Outcome::Answered(_) | Outcome::Rejected(..));
        // Who asks for it waits until the last row is swept.
        let is_long = matches!(&operation.ask, Ask::Compact(request) if request.physical);
        if is_answered && !is_long && BUDGET < operation.took {
            let what = format!("operation {} took {:?}, and nothing failed", operation.invoked, operation.took);
            return Err(Violation::new(Promise::Latency, what).by(operation.invoked));
        }
    }
    Ok(())
}
