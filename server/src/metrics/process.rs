//! What the system says of this process, besides what the library's own collector tells.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

use super::families::Families;

/// Limits and files of the process, and what its network namespace has moved.
pub(super) fn add(out: &mut Families) {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    out.gauge("os_fd_limit", "File descriptors that the process may open.", limit as f64);
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is this look.
        out.gauge("os_fd_used", "File descriptors that are open.", open.count().saturating_sub(1) as f64);
    }
    if let Ok((bytes, _)) = getrlimit(Resource::RLIMIT_AS) {
        let help = "Bytes of virtual memory that the process may use.";
        out.gauge("process_virtual_memory_max_bytes", help, bytes as f64);
    }
    if let Some((received, sent)) = fs::read_to_string("/proc/self/net/netstat").ok().as_deref().and_then(octets) {
        let help = "Bytes that came over the network.";
        out.counter("process_network_receive_bytes_total", help, received);
        out.counter("process_network_transmit_bytes_total", "Bytes that went over the network.", sent);
    }
}

/// What came in and went out, from the lines of IP's counters: names in one, values in the next.
fn octets(netstat: &str) -> Option<(u64, u64)> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let find = |wanted: &str| {
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        pairs.find(|(name, _)| *name == wanted)?.1.parse().ok()
    };
    Some((find("InOctets")?, find("OutOctets")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_counters_are_found_by_name() {
        let text = "TcpExt: InOctets\nTcpExt: 9\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 1 20 300\n";
        assert_eq!(octets(text), Some((20, 300)));
        assert_eq!(octets("IpExt: InOctets\n"), None);
    }
}
