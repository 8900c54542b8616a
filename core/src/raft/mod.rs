//! Agreement on a log: Raft as a value.
pub mod config;
pub mod effect;
pub mod entry;
pub mod input;
pub mod message;
pub mod restored;

pub use config::{Config, Delay, Limits, Ticks};
pub use effect::{Effect, Effects, Ignored, Refusal, Sync, Write};
pub use entry::{Entry, EntryKind, HardState, Mark};
pub use input::{Input, Timer};
pub use message::Message;
pub use restored::{Malformed, Restored};
