//! The machine that the figures are from, as far as others may know it: no names of hosts or people.

use std::fs;
use std::thread::available_parallelism;

/// What a reader needs to judge the figures.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Machine {
    /// Processors that this process may use.
    pub cores: usize,
    /// The processor's model.
    pub processor: String,
    /// Memory in mebibytes.
    pub memory_mib: u64,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            cores: available_parallelism().map_or(1, usize::from),
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            memory_mib: memory_mib(&read("/proc/meminfo")).unwrap_or(0),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

fn memory_mib(meminfo: &str) -> Option<u64> {
    let kib: u64 = field(meminfo, "MemTotal")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_list() {
        let list = "MemTotal:       24684084 kB\nMemFree:        1024 kB\n";
        assert_eq!(memory_mib(list), Some(24_105));
        assert_eq!(memory_mib("MemFree: 1 kB\n"), None);
        assert_eq!(memory_mib("MemTotal: many kB\n"), None);
    }

    #[test]
    fn the_first_processor_stands_for_all() {
        let list = "processor\t: 0\nmodel name\t: A 1\n\nprocessor\t: 1\nmodel name\t: A 2\n";
        assert_eq!(field(list, "model name"), Some("A 1".to_owned()));
        assert_eq!(field(list, "model"), None);
    }

    #[test]
    fn this_machine_has_memory_and_a_kernel() {
        let here = Machine::here();
        assert!(0 < here.cores);
        assert!(0 < here.memory_mib);
        assert!(!here.kernel.is_empty());
    }
}
