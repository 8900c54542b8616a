//! Bytes to values and back, for everything the log and the services share: pure functions, no state.

pub mod conf_change;
pub mod downgrade;
pub mod entry;
pub mod fuzz;
pub mod member;
pub mod request;
pub(crate) mod wire;
