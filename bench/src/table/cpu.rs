//! How much processor time a server has used.
//!
//! Read from the process's own CPU clock, which counts nanoseconds of all its threads, ended ones too. The times in
//! `/proc/<pid>/stat` are the same sum cut to ticks of 10 ms, too coarse for one client in a short window; those of the
//! single threads in `schedstat` forget threads that end and are not there on every kernel.

use std::time::Duration;

use nix::errno::Errno;
use nix::time::ClockId;
use nix::unistd::Pid;

/// The CPU clock of one process.
#[derive(Clone, Copy, Debug)]
pub struct CpuClock(ClockId);

impl CpuClock {
    /// The clock of the process with this id.
    pub fn of(process: u32) -> Result<Self, Errno> {
        let pid = i32::try_from(process).map_err(|_| Errno::ESRCH)?;
        ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).map(Self)
    }

    /// Processor time that the process has used since it was started.
    pub fn now(self) -> Result<Duration, Errno> {
        self.0.now().map(Duration::from)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_clock_counts_the_work_of_its_process_only() {
        let mut idle = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep is everywhere");
        let others = CpuClock::of(idle.id()).expect("a running child");
        let ours = CpuClock::of(std::process::id()).expect("ourselves");
        // The child has to get as far as its sleep first.
        std::thread::sleep(Duration::from_millis(50));
        let (others_before, ours_before) = (others.now().expect("alive"), ours.now().expect("alive"));
        let patience = Instant::now() + Duration::from_secs(20);
        while ours.now().expect("alive") < ours_before + Duration::from_millis(50) {
            assert!(Instant::now() < patience, "the clock stands still while this loop works");
        }
        let others_used = others.now().expect("alive") - others_before;
        idle.kill().expect("our child");
        idle.wait().expect("our child");
        assert!(others_used < Duration::from_millis(25), "sleeping took {others_used:?} of processor time");
    }

    #[test]
    fn there_is_no_clock_for_an_impossible_process() {
        assert!(CpuClock::of(u32::MAX).is_err());
    }
}
