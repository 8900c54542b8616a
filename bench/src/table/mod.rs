//! The table: detcd, etcd and the floor under the same load, in turns, and the bars that detcd has to clear.
//!
//! Every figure comes from a server that was started for it alone, on an empty directory of the same file system, while
//! no other server ran. Servers take turns row by row and round by round, so that a machine that grows slower during
//! the run grows slower for all of them; ratios are taken inside a round and only then is their median.

pub mod cpu;
pub mod machine;
pub mod measure;
pub mod page;
pub mod rows;
pub mod seat;
pub mod server;
pub mod stats;
