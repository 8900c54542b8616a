//! Every bound of the way between members, and how they relate. Full always has a defined answer, named beside each.

/// Messages waiting for one stream to a member. Full: what comes is dropped, and the member reported as unreachable.
pub const STREAM_MESSAGES_MAX: usize = 4096;
/// Bytes of messages waiting for one stream to a member. Full: the same; but a message that is larger alone finds room when nothing waits.
pub const STREAM_BYTES_MAX: usize = 64 << 20;
/// Messages waiting to be posted to a member that has opened no stream. Full: the same.
pub const PIPELINE_MESSAGES_MAX: usize = 64;
/// Messages being posted to one member at once. The others wait in the queue above.
pub const PIPELINE_WORKERS: usize = 4;
/// Messages that have arrived and wait for the driver. Full: nothing more is read from the connections.
pub const ARRIVALS_MAX: usize = 4096;
/// Bytes of messages that have arrived and wait for the driver. Full: the same; a message that is larger alone gets all of it.
pub const ARRIVED_BYTES_MAX: usize = 128 << 20;
/// Parts of a snapshot that wait for the disk, each no longer than what one read of a socket gives. Full: nothing more is read.
pub const SPOOL_PARTS_MAX: usize = 8;
/// Members that are not known yet and want answers; a member that is behind meets them. One more: the oldest goes.
pub const STRANGERS_MAX: usize = 8;
/// Bytes of messages that are being posted to this member, together. Beyond it: a post is refused.
pub const POSTED_BYTES_MAX: usize = 128 << 20;
/// Connections of other members at once. Full: the next one waits to be taken.
pub const CONNECTIONS_MAX: usize = 1024;
/// Bytes of one message or frame from another member. Larger: the connection ends.
///
/// etcd takes 512 MiB. What it sends is far below: entries up to 1 MiB together, or one that is larger alone, and that is one client's request, of which etcd advises no more than 10 MiB.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// Entries of one message: more than fit into etcd's 1 MiB, of which each takes at least four bytes. More: the connection ends.
pub const FRAME_ENTRIES_MAX: usize = 1 << 18;
/// Bytes of what is opaque in a heartbeat or a read; etcd's have eight. More: the message is malformed.
pub const CONTEXT_BYTES_MAX: usize = 64;
/// Bytes that tell the members of a configuration, some thousands of them. More: the message is malformed.
pub const CONFIGURATION_BYTES_MAX: usize = 64 << 10;

const _: () = {
    assert!(FRAME_BYTES_MAX <= POSTED_BYTES_MAX && POSTED_BYTES_MAX <= u32::MAX as usize);
    assert!(FRAME_BYTES_MAX <= STREAM_BYTES_MAX);
    assert!(PIPELINE_MESSAGES_MAX <= STREAM_MESSAGES_MAX);
    assert!(STREAM_BYTES_MAX <= ARRIVED_BYTES_MAX);
    // Permits of a semaphore are asked for as 32 bits.
    assert!(ARRIVED_BYTES_MAX <= u32::MAX as usize);
};
