//! Nothing grows beyond its bound, whoever is slow: the disk, or a client that does not read.

use detcd_io::driver::bounds;

use super::rows::{Change, Rows};
use super::{Promise, Violation};
use crate::gauges::Fullest;
use crate::options::{Options, PATIENCE_MILLIS};

/// Checks the fullest that everything has been.
///
/// # Errors
/// The first bound that was passed.
pub fn check(options: &Options, fullest: &Fullest, rows: &Rows) -> Result<(), Violation> {
    let limits = options.watch.limits;
    let (operations_max, bytes_max) = overlay_max(options, rows);
    let messages_max = (limits.outbox.messages + bounds::WATCH_CONTROLS_MAX) as u64;
    within("changes in the overlay", fullest.overlay_operations as u64, operations_max)?;
    within("bytes in the overlay", fullest.overlay_bytes as u64, bytes_max)?;
    within("bytes of recent revisions", fullest.recent_bytes as u64, limits.recent_bytes as u64)?;
    within("bytes for one watch stream", fullest.outbox_bytes, limits.outbox.bytes as u64)?;
    within("messages for one watch stream", fullest.outbox_messages, messages_max)?;
    within("rows of the history at once", fullest.rows_at_once as u64, limits.chunk.rows as u64)
}

fn within(what: &str, found: u64, max: u64) -> Result<(), Violation> {
    if found <= max {
        return Ok(());
    }
    Err(Violation::new(Promise::Bounds, format!("{found} {what}, and no more than {max} may be there")))
}

/// Its bounds, and beyond each what one turn of apply may add: everybody has one request under way, a holder besides the end of its lease. Who has fallen behind others
/// applies as much as a turn takes, and so does who serves clients that give a request up and send the next while a slow disk has them all.
fn overlay_max(options: &Options, rows: &Rows) -> (u64, u64) {
    let has_one_each = options.cluster.places() == 1 && PATIENCE_MILLIS <= options.load.patience_millis;
    let requests = if has_one_each {
        options.load.clients + 2 * options.load.holders + 2
    } else {
        bounds::APPLY_COMMANDS_PER_TURN as u64
    };
    let changes = rows.changes.values().map(Vec::len).max().unwrap_or(0) as u64;
    let bytes = rows.changes.values().map(|changes| changes.iter().map(bytes_of).sum()).max().unwrap_or(0);
    // A change is a row, and may be an attachment to a lease; a command without changes has a few rows of other tables.
    let operations = requests * (2 * changes + 4);
    let overlay = options.member.overlay_max;
    // What a sweep removes between two pauses waits there, too, and its mark.
    let swept = if options.compacts() { options.member.steps.sweep_rows + 1 } else { 0 };
    (overlay.operations as u64 + operations + swept, overlay.bytes as u64 + requests * bytes)
}

fn bytes_of(change: &Change) -> u64 {
    match change {
        Change::Put(kv) => (kv.key.len() + kv.value.len()) as u64,
        Change::Delete(key) => key.len() as u64,
    }
}
