//! Every interleaving of the shipping engine within bounds: elections, replication, commits, reads, crashes, lost writes.
//!
//! The model adds nothing to Raft: a state holds [`Raft`](detcd_core::raft::Raft) values, their disks and the messages
//! under way, and an action is one input. A message that is never delivered is a lost one. Leases count as over at all
//! times, since a lease only silences: whatever it prevents is also a lost message. Each model ends by itself, with all
//! states seen. `RUSTFLAGS='--cfg mutants --cfg verify' cargo test -p detcd-tests --test raft_model` also shows, for
//! every known bug, that a model finds it.
//!
//! Reading order: `world` (state and actions), `shell` (what effects do), `promise` (what must hold, checked after every step), `starts` (where the
//! models begin and how far they go), `sound` (the engine keeps its promises), `mutants` (a broken one does not).

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing")]
#![allow(clippy::print_stderr, reason = "the sizes of the models are worth reading")]

#[cfg(mutants)]
mod mutants;
mod promise;
mod shell;
mod sound;
mod starts;
mod world;
