//! The shell around the engine: flags, log lines, and the services that clients see.
//!
//! Invariant: nothing here decides what the cluster agrees on. This library decodes, asks and encodes; listeners, signals and exits belong
//! to the binary.

pub mod config;
pub mod flags;
pub mod log;
pub mod notify;
