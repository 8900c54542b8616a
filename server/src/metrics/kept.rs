//! What the parts of a member count: disks, store, requests.

use std::sync::atomic::{AtomicU64, Ordering};

use detcd_io::driver::ask::Counted;
use detcd_io::stats::ops;
use detcd_io::store::backend::Backend;
use detcd_server::compose::Written;
use detcd_server::member::{Counts, Member};

use super::families::{Families, MILLISECONDS, SECONDS};

fn load(value: &AtomicU64) -> u64 {
    value.load(Ordering::Relaxed)
}

/// The log and the committer.
pub(super) fn add_written(out: &mut Families, Written { log, commits }: &Written) {
    let (name, help) = ("etcd_disk_wal_fsync_duration_seconds", "Time of one sync of the write-ahead log.");
    out.histogram(name, help, SECONDS, &log.sync);
    let (name, help) = ("etcd_disk_wal_write_duration_seconds", "Time of one write to the write-ahead log.");
    out.histogram(name, help, SECONDS, &log.write);
    let (name, help) = ("etcd_disk_wal_write_bytes_total", "Bytes written to the write-ahead log since the start.");
    out.gauge(name, help, load(&log.bytes) as f64);
    let (name, help) = ("etcd_disk_backend_commit_duration_seconds", "Time of one commit of the store.");
    out.histogram(name, help, SECONDS, &commits.commit);
    let (name, help) = ("etcd_disk_backend_defrag_duration_seconds", "Time of one defragmentation of the store.");
    out.histogram(name, help, SECONDS, &commits.defragment);
    let (name, help) = ("etcd_disk_defrag_inflight", "1 while the store is defragmented, else 0.");
    out.gauge(name, help, load(&commits.defragmenting) as f64);
    let (name, help) = ("etcd_debugging_snap_save_total_duration_seconds", "Time to make one snapshot file durable.");
    out.histogram(name, help, SECONDS, &commits.snap);
}

/// The store: what is in it, and what was done to it.
pub(super) fn add_store<B: Backend>(out: &mut Families, member: &Member<B>) {
    let store = member.store();
    let membership = store.membership();
    let mut series =
        out.gauges("etcd_network_known_peers", "1 for each member that this one knows, 0 for removed ones.");
    let own = member.identity().member.to_string();
    let known = membership.iter().map(|member| (member.id, 1.0));
    for (id, value) in known.chain(membership.removed().map(|id| (id, 0.0))) {
        series.gauge(&[("Local", &own), ("Remote", &id.to_string())], value);
    }
    let (stats, debugging) = (store.stats(), "etcd_debugging_mvcc_");
    out.counter("etcd_mvcc_put_total", "Puts that were applied.", load(&stats.puts));
    out.counter("etcd_mvcc_delete_total", "Range deletes that were applied.", load(&stats.deletes));
    out.counter("etcd_mvcc_range_total", "Ranges that were read.", load(&stats.ranges));
    out.counter("etcd_mvcc_txn_total", "Commands of more than one operation.", load(&stats.txns));
    let mut gauge = |name: &str, help: &str, value: f64| out.gauge(&format!("{debugging}{name}"), help, value);
    gauge("keys_total", "Keys that are alive.", store.live_keys() as f64);
    gauge("total_put_size_in_bytes", "Bytes of keys and values put since the start.", load(&stats.put_bytes) as f64);
    gauge("current_revision", "The store's revision.", store.current() as f64);
    gauge("compact_revision", "The revision of the last compaction; -1 if there was none.", store.compacted() as f64);
    let sweeps = &stats.sweeps;
    let help = "When the rows of the last compaction were gone, in seconds since 1970.";
    gauge("db_compaction_last", help, load(&sweeps.last_seconds) as f64);
    let help = "Rows that compactions removed.";
    out.counter(&format!("{debugging}db_compaction_keys_total"), help, load(&sweeps.rows));
    for (name, help, histogram) in [
        ("db_compaction_pause_duration_milliseconds", "Time of one step of a compaction.", &sweeps.step),
        ("db_compaction_total_duration_milliseconds", "Time of one compaction, pauses included.", &sweeps.sweep),
        ("index_compaction_pause_duration_milliseconds", "Time of one compaction in the key index.", &sweeps.index),
    ] {
        out.histogram(&format!("{debugging}{name}"), help, MILLISECONDS, histogram);
    }
}

/// What the driver is late with, and what it takes over.
pub(super) fn add_driver(out: &mut Families, counted: &Counted) {
    let (name, help) = ("etcd_server_heartbeat_send_failures_total", "Heartbeats that this leader sent too late.");
    out.counter(name, help, load(&counted.late_heartbeats));
    let help = "Answers to reads that came too late, and reads that none came for in time.";
    out.counter("etcd_server_slow_read_indexes_total", help, load(&counted.slow_reads));
    let (name, help) = ("etcd_server_snapshot_apply_in_progress_total", "1 while a leader's store is taken over.");
    out.gauge(name, help, load(&counted.installing) as f64);
}

/// Promotions of learners that this member decided on.
pub(super) fn add_promotions(out: &mut Families, counts: &Counts) {
    let (done, refused) = counts.promotions.read();
    out.counter("etcd_server_learner_promote_successes", "Learners that were promoted by this member.", done);
    let mut series = out.counters("etcd_server_learner_promote_failures", "Learners that were not, by reason.");
    refused.iter().for_each(|(why, count)| series.count(&[("Reason", why)], *count));
}

/// Requests, and what they come down to.
pub(super) fn add_requests<B: Backend>(out: &mut Families, member: &Member<B>) {
    let (stats, counts) = (member.store().stats(), member.counts());
    let help = "Time to apply one request.";
    let mut series = out.histograms("etcd_server_apply_duration_seconds", help);
    for (op, outcomes) in ops::NAMES.iter().zip(&stats.applies) {
        series.outcomes(&[("op", op), ("version", "v3")], outcomes);
    }
    let mut series = out.histograms("etcd_server_range_duration_seconds", "Time to read one range.");
    series.outcomes(&[], &stats.range);
    let help = "Time of one request from its acceptance to its answer.";
    let mut series = out.histograms("etcd_server_request_duration_seconds", help);
    for (op, outcomes) in ops::NAMES.iter().zip(&counts.requests) {
        series.outcomes(&[("type", op)], outcomes);
    }
    series.outcomes(&[("type", "Range")], &counts.ranges);
    series.outcomes(&[("type", "ReadonlyTxn")], &counts.read_txns);
    let (name, help) = ("etcd_server_slow_apply_total", "Applies that took longer than 100 ms.");
    out.counter(name, help, load(&stats.slow_applies));
    let (name, help) = ("etcd_server_quota_backend_bytes", "Size of the store at which writes stop.");
    out.gauge(name, help, member.limits().quota_bytes as f64);
    let (name, help) = ("etcd_mvcc_hash_duration_seconds", "Time to hash the whole store.");
    out.histogram(name, help, SECONDS, &counts.hashes);
    let (name, help) = ("etcd_mvcc_hash_rev_duration_seconds", "Time to hash the keys up to a revision.");
    out.histogram(name, help, SECONDS, &counts.key_hashes);
    let help = "Time from the making of a copy for a client until it was taken.";
    out.histogram("etcd_disk_backend_snapshot_duration_seconds", help, SECONDS, &counts.snapshots);
}
