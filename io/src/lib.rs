//! The world around the engine: files, the write-ahead log, snapshot files, and the parts that drive the engine.
//!
//! The invariant of this crate: it decides nothing. What to write, send or answer is decided in `detcd-core`; here it is carried
//! out, in the order it was asked for, and an effect that failed stops the member instead of being tried again.
//!
//! Reading order: [`disk`] (what a disk can do, and what it may lose), [`fault`] (how a machine fails), [`wal`] (the log), [`snap`],
//! [`store`] (the tables), [`codec`] (bytes to the engine's values), [`applier`], [`committer`], [`defragmenter`], [`copier`], [`sweeper`], [`driver`] (the owner of the
//! engine), [`keeper`] (of leases), [`peer`] (other members), [`boot`], [`stats`] (what is counted).

pub mod applier;
pub mod bbolt;
pub mod boot;
pub mod clock;
pub mod codec;
pub mod committer;
pub mod copier;
pub mod defragmenter;
pub mod disk;
pub mod driver;
pub mod entropy;
pub mod fault;
pub mod installer;
pub mod keeper;
pub mod mutants;
pub mod peer;
pub mod shipper;
pub mod snap;
pub mod stats;
pub mod store;
pub mod sweeper;
pub mod wal;

pub use fault::Fault;
