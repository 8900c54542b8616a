//! The shell around the engine: flags, log lines, and the services that clients see.
//!
//! Invariant: nothing here decides what the cluster agrees on. This library decodes, asks and encodes; listeners, signals and exits belong
//! to the binary.
//!
//! Reading order: [`flags`] and [`config`] (what was asked), [`member`] (what all services share), [`status`] (the one table of errors), [`reply`]
//! (and [`pieces`]), [`quota`], [`fanout`] (who watches what), [`grpc`] (the services), [`publish`] (what a member tells the cluster about itself), [`auto_compact`].

pub mod auto_compact;
pub mod cluster;
pub mod compose;
pub mod config;
pub mod downgrade;
pub mod fanout;
pub mod flags;
pub mod forward;
pub mod grpc;
pub mod lease;
pub mod log;
pub mod member;
mod mutants;
pub mod pieces;
pub mod promotions;
pub mod publish;
pub mod quota;
pub mod reply;
pub mod room;
pub mod status;
