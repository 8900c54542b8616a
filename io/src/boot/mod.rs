//! How a member starts: look ([`inspect`]), decide ([`plan`]), and only then touch anything.
//!
//! Invariant: everything that can refuse a start is decided by a pure function over three observations – [`found`] (what is on
//! disk), [`asked`] (flags) and [`machine`] – so that a table of rows tests it, a fuzzer drives it, and the simulator starts members the way
//! production does. The caller then performs the steps in this order:
//!
//! 1. [`inspect::inspect`] and [`plan::plan`]; a [`refusal::Refusal`] ends here, with the data directory untouched.
//! 2. [`inspect::claim`]: the directory, its lock, one file as a test. What it runs into is planned with, and so refused, like the rest.
//! 3. Inspect and plan once more, now that nobody else can change what is there.
//! 4. `Create`: the log whole by a rename, then the store. `Restart`: the log, then the store – made from the log where it is missing. `Import`: the
//!    store from etcd's database, then as `Restart`.
//!
//! Reading order: [`found`], [`asked`], [`machine`], [`plan`], [`refusal`], [`identity`] (ids), [`inspect`], [`journal`] (counters that
//! outlive a failed start), [`url`], [`fuzz`] (any tree at all).

pub mod asked;
pub mod execute;
mod forced;
pub mod found;
pub mod fuzz;
pub mod identity;
pub(crate) mod import;
pub mod inspect;
pub mod journal;
pub mod machine;
pub mod plan;
pub mod refusal;
pub mod url;
