//! Flags, environment variables and the configuration file of etcd, read by etcd's rules.
//!
//! Invariant: the sources differ only in how a text gets here; what a value may look like is said once ([`value`]), and which flags
//! there are is said once ([`table`]). What the values mean together is decided afterwards, in [`crate::config`].
//!
//! Reading order: [`table`], [`value`], [`settings`]; the sources [`command_line`], [`environment`], [`mod@file`]; what is printed:
//! [`help`], [`redact`].

pub mod command_line;
pub mod environment;
pub mod file;
pub mod help;
pub mod redact;
pub mod settings;
pub mod table;
pub mod value;
