//! Every bound of the member's machinery, and how they relate. Full always has a defined answer, named beside each.

/// Requests waiting to reach the driver. Full: the caller gets `too many requests`.
pub const ASKS_MAX: usize = 4096;
/// Requests the driver takes up before it hands on what they caused.
pub const ASKS_PER_TURN: usize = 1024;
/// Requests of the lease keeper and of renewals, which must not wait behind a flood of others. Full: the keeper tries again, a renewal waits.
pub const URGENT_ASKS_MAX: usize = 1024;
/// Committed entries not yet applied, beyond which even those are refused (etcd's own limit for them).
pub const UNAPPLIED_URGENT_MAX: u64 = 10_000;
/// Questions to the leader, or to its quorum, that are open at once on behalf of readers, as in etcd. Full: reads gather for the next.
pub const READ_QUESTIONS_MAX: usize = 1;
/// Reads that gather for the next question. Beyond it: `too many requests`.
pub const READS_GATHERED_MAX: usize = 65_536;
/// Revocations and checkpoints of the keeper that have no answer yet. Beyond it: it asks for no more.
pub const KEEPER_ASKS_MAX: usize = 512;
/// Completions (of the log writer and the committer) waiting. Full: their sender waits.
pub const COMPLETIONS_MAX: usize = 64;
/// Batches on their way to the log writer. Full: the driver takes up no new proposals until one is taken.
pub const LOG_BATCHES_MAX: usize = 4;
/// Commit indexes that wait for a write to go with. Full: they go alone.
pub const LAZY_WRITES_MAX: usize = 64;
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
/// Entries kept in memory behind the applied index for slow members, if nothing else is asked for (etcd's catch-up entries).
pub const CATCH_UP_ENTRIES: u64 = 5_000;
/// Entries kept while a member is being sent the store. Beyond it: the oldest go, and the member may need another store.
pub const SHIPPING_ENTRIES_MAX: u64 = 500_000;
/// Entries beyond those kept that gather until the engine forgets them, however many are kept.
pub const TRIM_ENTRIES_MOST: u64 = CATCH_UP_ENTRIES;
/// Bytes of replies that are being prepared or that their clients have not taken yet, all clients together. Beyond it requests wait, then get `too many requests`.
pub const REPLY_BYTES_MAX: usize = 512 << 20;
/// Keys that a read looks at between two yields to others.
pub const READ_KEYS_PER_TURN: usize = 1_000;
/// Bytes of the newest revisions that are kept for watchers. Beyond it the oldest go; who still needs them reads the store.
pub const WATCH_RECENT_BYTES_MAX: usize = 32 << 20;
/// Revisions that watchers are offered between two looks at their requests.
pub const WATCH_REVISIONS_PER_TURN: usize = 256;
/// Offers of a revision to a watcher after which the fan-out lets others have their turn. A revision is never cut.
pub const WATCH_OFFERS_PER_TURN: usize = 2_048;
/// Requests of watch streams on their way. Full: streams wait before they take another one.
pub const WATCH_ASKS_MAX: usize = 1024;
/// Requests of one watch stream whose answers its client has not taken. Full: the stream takes no more requests.
pub const WATCH_CONTROLS_MAX: usize = 16;
/// Bytes of changes waiting for the client of one watch stream. Beyond it its watchers lag. A single message may be larger.
pub const WATCH_STREAM_BYTES_MAX: usize = 4 << 20;
/// Messages waiting for the client of one watch stream. Beyond it its watchers lag.
pub const WATCH_STREAM_MESSAGES_MAX: usize = 1024;
/// Rows that laggards are given at once (etcd's batch of revisions). A revision is never cut.
pub const WATCH_CHUNK_ROWS: usize = 1_000;
/// Bytes that laggards are given at once. A revision is never cut.
pub const WATCH_CHUNK_BYTES: usize = 1 << 20;
/// Copies of the store that exist at once. Beyond it: who wants one waits until another was taken away.
pub const COPIES_MAX: usize = 8;
/// Requests of those who take copies away. Full: they wait. As many may wait for a copy to be made; beyond it: `too many requests`.
pub const COPY_ASKS_MAX: usize = 64;
/// Requests to defragment that wait while one is carried out. Full: they wait.
pub const DEFRAGMENT_ASKS_MAX: usize = 16;

/// Members that wait for a copy of the store. Full: they are told later.
pub const SHIPMENTS_MAX: usize = 16;
/// Received stores that wait to be made ready. Full: the sender tries again.
pub const INSTALLS_MAX: usize = 4;
/// Messages of other members that are taken in between two looks at everything else.
pub const ARRIVALS_PER_TURN: usize = 512;

const _: () = {
    assert!(ASKS_PER_TURN <= ASKS_MAX);
    assert!(KEEPER_ASKS_MAX < URGENT_ASKS_MAX);
    assert!(ASKS_MAX <= READS_GATHERED_MAX);
    assert!(UNAPPLIED_MAX < UNAPPLIED_URGENT_MAX);
    assert!(APPLY_COMMANDS_PER_TURN as u64 <= UNAPPLIED_MAX);
    assert!(UNAPPLIED_URGENT_MAX <= OVERLAY_OPERATIONS_MAX as u64);
    assert!(WATCH_CHUNK_BYTES <= WATCH_STREAM_BYTES_MAX && WATCH_STREAM_BYTES_MAX <= WATCH_RECENT_BYTES_MAX);
};
