//! The only clock: monotonic time for timers, wall time for ids and logs.
//!
//! Monotonic time is tokio's, so that simulated time needs no other code. Wall time is drawn where a request-id generator is seeded, and for those who watch the member.

use std::time::{SystemTime, UNIX_EPOCH};

pub use tokio::time::Instant;

/// Milliseconds since 1970 by the wall clock; 0 if the clock stands before that.
#[must_use]
pub fn wall_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
