//! The other world: the production member – boot, log, driver, store, services – under simulated time, on a machine that fails, with
//! clients that remember everything.
//!
//! One `u64` decides a whole run: the options, the order of tasks, what a power cut leaves, when a sync fails. The same seed is the same run, to the last
//! byte of its trace. Nothing here decides what is right: the rules are the oracles' in [`check`], written from etcd's semantics, not from our code.
//!
//! Needs `--cfg madsim`, under which `tokio` and `tonic` are their simulated twins; without it this package is an empty library.
//!
//! Reading order: [`options`] (a run from a seed), [`machine`] (numbered calls, crashes, faults), [`disk`] and [`store`] (what a power cut leaves),
//! [`world`] (a member and who looks after it), `life` (the second composition root), [`cluster`] (several members), `orders` (what an operator does with its machine), [`gate`] (slow readers), [`door`] (runs without a network), [`gauges`] (how full things are), [`clients`], [`record`] (history and trace), [`leases`] (with time), [`check`] (the promises), [`run`], [`less`] and [`shrink`] (smaller runs), [`film`], `sketch` and [`report`] (a run as a page), [`history`] (a run as a file), [`failures`], [`sweep`], [`mutants`], `asked` (the command line), `ledger`, [`command`].

#[cfg(madsim)]
pub(crate) mod asked;
#[cfg(all(madsim, any(mutants, test)))]
pub(crate) mod board;
#[cfg(madsim)]
pub mod check;
#[cfg(madsim)]
pub mod clients;
#[cfg(madsim)]
pub mod cluster;
#[cfg(madsim)]
pub mod command;
#[cfg(madsim)]
pub mod disk;
#[cfg(madsim)]
pub mod door;
#[cfg(madsim)]
pub mod failures;
#[cfg(madsim)]
pub mod film;
#[cfg(madsim)]
pub mod gate;
#[cfg(madsim)]
pub mod gauges;
#[cfg(madsim)]
pub mod history;
#[cfg(madsim)]
pub mod import;
#[cfg(madsim)]
pub(crate) mod json;
#[cfg(madsim)]
pub mod leases;
#[cfg(madsim)]
pub(crate) mod ledger;
#[cfg(madsim)]
pub mod less;
#[cfg(madsim)]
pub(crate) mod life;
#[cfg(madsim)]
pub mod machine;
#[cfg(madsim)]
pub mod mutants;
#[cfg(madsim)]
pub mod options;
#[cfg(madsim)]
pub(crate) mod orders;
#[cfg(madsim)]
pub(crate) mod pauses;
#[cfg(madsim)]
pub mod record;
#[cfg(madsim)]
pub mod report;
#[cfg(madsim)]
pub mod rot;
#[cfg(madsim)]
pub mod run;
#[cfg(all(madsim, mutants))]
pub(crate) mod scoreboard;
#[cfg(madsim)]
pub mod shrink;
#[cfg(madsim)]
pub(crate) mod sketch;
#[cfg(madsim)]
pub mod store;
#[cfg(madsim)]
pub mod sweep;
#[cfg(madsim)]
pub(crate) mod troubles;
#[cfg(madsim)]
pub mod world;
