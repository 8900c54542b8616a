//! Offline tools: what is done to a member's files while it does not run.
//!
//! Reading order: [`export`] (a member's directory as etcd's), [`database`] (its store as a bbolt file), [`status`] (what such a file holds). Nothing here changes a
//! database, log or snapshot that it reads; LMDB's own lock file is written, so a member's directory must be writable.

pub mod database;
pub mod export;
pub mod status;

use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use detcd_io::fault::Fault;
use detcd_io::wal::WalError;

/// Why a tool did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It must not be done, or makes no sense. Nothing was written.
    #[error("{}: {cause}", .path.display())]
    Refused {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The machine failed, or a file is damaged.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The log cannot be read.
    #[error(transparent)]
    Wal(#[from] WalError),
}

/// Carries out what only asks the real disk: that one blocks in place and never waits.
///
/// # Panics
/// If it waits all the same: a bug.
pub fn now<F: Future>(work: F) -> F::Output {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the real disk blocks in place"),
    }
}
