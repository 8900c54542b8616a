//! The gRPC services: decode, ask, encode. They know no Raft and no file. Methods that are not built answer UNIMPLEMENTED.

pub mod cluster;
pub mod health;
pub mod kv;
pub mod lease;
pub mod maintenance;
mod snapshot;
mod stream_chunk;
pub mod watch;
