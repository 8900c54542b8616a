//! The time of a put's making, carried in its value to whoever is told of it.
//!
//! Counted by the machine's monotonic clock, which all threads and processes of a machine share; a stamp means nothing elsewhere.

use std::time::Duration;

use nix::time::ClockId;

/// Length of a stamp.
pub const STAMP_BYTES: usize = 8;

/// The stamp of now.
pub fn now() -> [u8; STAMP_BYTES] {
    nanos().to_be_bytes()
}

/// How long ago the stamp at the start of the value was made. Nothing if there is none, or one from the future.
pub fn age(value: &[u8]) -> Option<Duration> {
    let stamp = value.first_chunk::<STAMP_BYTES>()?;
    nanos().checked_sub(u64::from_be_bytes(*stamp)).map(Duration::from_nanos)
}

fn nanos() -> u64 {
    let now = ClockId::CLOCK_MONOTONIC.now().map(Duration::from).expect("every Linux has this clock");
    u64::try_from(now.as_nanos()).expect("a machine is not up for centuries")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_grows_old() {
        let stamp = now();
        std::thread::sleep(Duration::from_millis(5));
        let age = age(&stamp).expect("made before");
        assert!(Duration::from_millis(5) <= age, "{age:?}");
        assert!(age < Duration::from_secs(60), "{age:?}");
    }

    #[test]
    fn what_is_no_stamp_has_no_age() {
        assert_eq!(age(b"short"), None);
        assert_eq!(age(b"zzzzzzzz: text is a stamp of the far future"), None);
    }
}
