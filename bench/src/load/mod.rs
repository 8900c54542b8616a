//! The load generator: what to ask ([`requests`]), over which wire ([`client`], [`framing`]), at which pace and for how
//! long ([`mod@run`]), and what came of it ([`report`]).
//!
//! What goes on beside a run works on threads of its own ([`apart`]), so that it does not hold the clients up: watchers that count
//! events ([`watchers`]) and disturbances ([`disturb`]). Leases have a run of their own ([`leases`]).
//!
//! It shares the machine with the server it measures, so it does as little as possible per request: the bytes of a
//! request are prepared once and only the key in them changes, and no gRPC library stands between it and HTTP/2. Run
//! it on a current-thread runtime; then its tasks hand over without waking other threads.

pub mod apart;
pub mod client;
pub mod disturb;
pub mod framing;
pub mod leases;
pub mod report;
pub mod requests;
pub mod run;
pub mod stamp;
pub mod stream;
pub mod watchers;

pub use report::{Latency, Report};
pub use requests::{KeyOrder, Shape, Workload};
pub use run::{Edge, LoadError, Pace, Plan, Span, run};
