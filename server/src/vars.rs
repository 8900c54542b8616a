//! `/debug/vars`: what this process is, in the shape of Go's published variables.
//!
//! Of `memstats` there are only the keys that mean something without Go's collector.

use std::fmt::Write as _;
use std::fs;

use detcd_io::store::backend::Backend;
use detcd_server::member::Member;
use nix::sys::resource::{Resource, getrlimit};

/// The variables, as JSON, in the order of their names.
pub(crate) fn text<B: Backend>(member: &Member<B>) -> String {
    let words: Vec<String> = std::env::args().collect();
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let (sys, heap) = (bytes(&status, "VmRSS"), bytes(&status, "RssAnon"));
    let mut out = String::from("{\n");
    let mut push = |name: &str, value: &str, end: &str| {
        writeln!(out, "\"{name}\": {value}{end}").expect("a String takes every write");
    };
    push("cmdline", &serde_json::json!(words).to_string(), ",");
    push("file_descriptor_limit", &limit.to_string(), ",");
    push("memstats", &format!("{{\"Sys\":{sys},\"HeapSys\":{heap}}}"), ",");
    push("raft.status", &raft(member), "");
    out.push_str("}\n");
    out
}

/// A line of the process's status, which counts in kilobytes.
fn bytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Where Raft stands. A leader tells how far its members are: here, itself.
fn raft<B: Backend>(member: &Member<B>) -> String {
    let gauges = member.asker().gauges();
    let (id, leader) = (member.identity().member, gauges.leader().map_or(0, |leader| leader.0));
    let last = gauges.last().0;
    let progress = if gauges.leads() {
        format!("\"{id}\":{{\"match\":{last},\"next\":{},\"state\":\"StateReplicate\"}}", last + 1)
    } else {
        String::new()
    };
    format!(
        "{{\"id\":\"{id}\",\"term\":{},\"vote\":\"{:x}\",\"commit\":{},\"lead\":\"{leader:x}\",\"raftState\":\"{}\",\"applied\":{},\"progress\":{{{progress}}},\"leadtransferee\":\"0\"}}",
        gauges.term().0,
        gauges.vote().map_or(0, |vote| vote.0),
        gauges.committed().0,
        gauges.state(),
        gauges.applied().0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_systems_lines() {
        let status = "VmPeak:\t 9 kB\nVmRSS:\t   12 kB\nRssAnon:\t\t7 kB\n";
        assert_eq!([bytes(status, "VmRSS"), bytes(status, "RssAnon"), bytes(status, "Vm")], [12 << 10, 7 << 10, 0]);
    }
}
