//! What clients heard about keys, against what the log holds: the oracles that every kind of run begins with.

use std::sync::MutexGuard;
use std::time::Duration;

use super::compactions::Compactions;
use super::replay::Replay;
use super::rows::Rows;
use super::{Violation, durability, linear, progress};
use crate::options::Options;
use crate::record::{History, Recorder};

/// Judges the history of a cluster of so many members; hands out the history, and the rows that it was held against. `healed` is the
/// time at which troubles ended.
///
/// # Errors
/// The first broken promise.
pub fn check<'a>(
    options: &Options,
    recorder: &'a Recorder,
    replayed: &Replay,
    (members, healed): (usize, u64),
) -> Result<(MutexGuard<'a, History>, Rows), Violation> {
    let rows = Rows::read(&replayed.history)?;
    let retention = Duration::from_secs(options.member.retention_seconds);
    if !retention.is_zero() {
        recorder.compacted(replayed.compactions());
    }
    let history = recorder.history();
    durability::check(&history, &rows)?;
    let compactions = Compactions::of(&history).and_by_age(retention, replayed.compactions(), &history);
    linear::check(&history, &rows, &compactions, members)?;
    progress::let_go(&compactions, &history, (healed, options))?;
    Ok((history, rows))
}
