//! What applying requests should come to, the slow way.
//!
//! Reading order: [`store`] (a store in memory around the shipping index), [`slow`] (full copies of every state, and
//! ranges by the letter of the rules), [`slow_txn`] (transactions), `twin` (both, with leases and alarms), [`drawn`] (requests out of
//! bytes), [`fuzz`] (any requests, against both).

pub mod drawn;
pub mod fuzz;
pub mod slow;
pub mod slow_txn;
pub mod store;
mod twin;
