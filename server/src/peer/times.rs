//! How long members wait for each other, as etcd's do.

use std::time::Duration;

/// For a connection to be made.
pub(super) const DIAL: Duration = Duration::from_secs(2);
/// Between two tries to open a stream, at least.
pub(super) const REDIAL: Duration = Duration::from_millis(100);
/// For anything to arrive on a stream, or for more of a body (etcd's `raft-read-timeout`).
pub(super) const READ: Duration = Duration::from_secs(5);
/// For a write to go on (etcd's `raft-write-timeout`).
pub(super) const WRITE: Duration = Duration::from_secs(5);
/// Between two signs of life on a stream.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(READ.as_millis() as u64 / 3);
/// For the answer to a message that was posted.
pub(super) const POST: Duration = Duration::from_secs(10);
/// For the answer to a snapshot whose last byte was sent: its receiver writes and syncs all of it before it answers.
pub(super) const SNAPSHOT_ANSWER: Duration = Duration::from_secs(5 * 60);
/// For an answer of another member's services.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// For this member to have applied what was committed when it was asked about a lease, as in etcd.
pub(super) const LEASE: Duration = Duration::from_secs(1);
/// For what was gathered for a member that is removed.
pub(super) const LAST_FLUSH: Duration = Duration::from_secs(1);

const _: () = assert!(HEARTBEAT.as_millis() * 2 < READ.as_millis());
