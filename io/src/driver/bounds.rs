//! Every bound of the member's machinery, and how they relate. Full always has a defined answer, named beside each.

/// Requests waiting to reach the driver. Full: the caller gets `too many requests`.
pub const ASKS_MAX: usize = 4096;
/// Requests the driver takes up before it hands on what they caused.
pub const ASKS_PER_TURN: usize = 1024;
/// Completions (of the log writer and the committer) waiting. Full: their sender waits.
pub const COMPLETIONS_MAX: usize = 64;
/// Batches on their way to the log writer. Full: the driver takes up no new proposals until one is taken.
pub const LOG_BATCHES_MAX: usize = 4;
/// Committed entries not yet applied. Beyond it: `too many requests` (etcd's own limit).
pub const UNAPPLIED_MAX: u64 = 5_000;
/// Commands applied between two looks at timers and messages.
pub const APPLY_COMMANDS_PER_TURN: usize = 512;
/// Keys that one command may touch between two looks at timers and messages.
pub const APPLY_KEYS_PER_TURN: usize = 4_096;
/// Bytes of row data applied and not yet durable. Beyond it: apply waits for the committer.
pub const OVERLAY_BYTES_MAX: usize = 64 << 20;
/// Changes applied and not yet durable. Beyond it: apply waits for the committer.
pub const OVERLAY_OPERATIONS_MAX: usize = 100_000;
/// Entries kept in memory behind the applied index for slow members (etcd's catch-up entries).
pub const CATCH_UP_ENTRIES: u64 = 5_000;
/// Bytes of replies under preparation, all clients together. Beyond it requests wait, then get `too many requests`.
pub const REPLY_BYTES_MAX: usize = 512 << 20;
/// Keys that a read looks at between two yields to others.
pub const READ_KEYS_PER_TURN: usize = 1_000;

const _: () = {
    assert!(ASKS_PER_TURN <= ASKS_MAX);
    assert!(APPLY_COMMANDS_PER_TURN as u64 <= UNAPPLIED_MAX);
    assert!(UNAPPLIED_MAX <= OVERLAY_OPERATIONS_MAX as u64);
};
