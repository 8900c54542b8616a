//! The engine of detcd: consensus, storage and apply as plain values.
//!
//! Nothing here reads a clock, draws a random number, opens a file or starts a thread. Input goes in, effects come
//! out, and the same inputs always give the same effects: that is what lets one type serve production, simulation
//! and model checking.
//!
//! Reading order: [`ids`] (the newtypes), [`raft`] (agreement on a log), `command` and `reply` (what the log carries and what
//! comes back), `mvcc` (the store's rules), `lease` (keys that go), `apply` (one command against one view), `watch` (who learns of it).
#![no_std]

extern crate alloc;

#[cfg(test)]
extern crate std;

pub mod alarm;
pub mod apply;
pub mod command;
pub mod ids;
pub mod lease;
pub mod membership;
pub mod mvcc;
pub mod quota;
pub mod raft;
pub mod reply;
pub mod watch;
