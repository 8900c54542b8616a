//! How fast is it, and compared with what?
//!
//! Four parts answer that. [`load`] is a lean generator that speaks gRPC straight over HTTP/2, so that the client does
//! not hide the server. [`floor`] is the least that any server of durable puts must do: the same gRPC stack and a
//! group-committed fdatasync, and nothing else. [`table`] runs detcd, etcd and the floor in turns under the same load
//! and writes the comparison down. [`scene`] does so for what no single request shows: watchers, leases, a large
//! store, disturbances.
//!
//! The invariant of all: a figure is only ever reported for requests that were answered, correctly and without
//! an error status. A run in which a server refused or garbled something has no figures at all.

pub mod floor;
pub mod load;
pub mod scene;
pub mod table;
