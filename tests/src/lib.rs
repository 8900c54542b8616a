//! Tools for tests that look at the engine from outside.
//!
//! Three kinds live beside this library. *Conversations* (`scripts/`) are text: commands, then what the members answered,
//! recorded with `REWRITE=1` and read by a person before they are kept. *Slow twins* compare every clever function with
//! an obvious one. *Models* let Stateright walk all interleavings of the shipping engine within bounds, and each is shown
//! to fail on engines that carry a known bug (`--cfg mutants`).
//!
//! Reading order: [`disk`] (a log file that can lose what was not synced), [`script`] (the conversations), [`apply`] (what requests should come to).

pub mod apply;
pub mod disk;
pub mod script;
