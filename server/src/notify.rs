//! Tells the service manager that clients are served.
//!
//! Invariant: it is told once, after the listeners answer, and a manager that cannot be told is no reason to stop.

use std::io;

use sd_notify::NotifyState;

/// Sends `READY=1` to the socket in `NOTIFY_SOCKET`. Without that variable there is nobody to tell, and nothing happens.
///
/// # Errors
/// What the system said; the caller logs it and goes on.
pub(crate) fn ready() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Ready])
}
