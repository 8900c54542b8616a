package monitor

import "strings"

// Missing are families of etcd that detcd does not have, by name or by prefix (`*`).
// docs/compatibility.md gives the reasons; a test holds the two together.
var Missing = []string{
	"go_*",
	"etcd_server_go_version",
	"etcd_grpc_proxy_*",
	"etcd_debugging_store_*",
	"etcd_debugging_disk_backend_commit_*",
	"etcd_debugging_server_watch_send_loop_*",
	"etcd_debugging_snap_save_marshalling_duration_seconds",
	"etcd_debugging_auth_revision",
	"etcd_mvcc_db_open_read_transactions",
	"etcd_server_feature_enabled",
	"etcd_snap_fsync_duration_seconds",
}

// Own are families of detcd that etcd does not have.
var Own = []string{
	"etcd_bootstrap_ready_seconds",
	"etcd_bootstrap_errors_total",
	"etcd_listener_failure_total",
	"etcd_unsupported_arch_runs_total",
	"process_threads",
}

func listed(list []string, name string) bool {
	for _, entry := range list {
		prefix, isPrefix := strings.CutSuffix(entry, "*")
		if entry == name || isPrefix && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// equal are families whose series must have the same values on both after the same history.
var equal = []string{
	"etcd_cluster_version",
	"etcd_debugging_lease_granted_total",
	"etcd_debugging_lease_renewed_total",
	"etcd_debugging_lease_revoked_total",
	"etcd_debugging_lease_ttl_total",
	"etcd_debugging_mvcc_compact_revision",
	"etcd_debugging_mvcc_current_revision",
	"etcd_debugging_mvcc_db_compaction_keys_total",
	"etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
	"etcd_debugging_mvcc_events_total",
	"etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
	"etcd_debugging_mvcc_keys_total",
	"etcd_debugging_mvcc_pending_events_total",
	"etcd_debugging_mvcc_slow_watcher_total",
	"etcd_debugging_mvcc_total_put_size_in_bytes",
	"etcd_debugging_mvcc_watch_stream_total",
	"etcd_debugging_mvcc_watcher_total",
	"etcd_disk_backend_defrag_duration_seconds",
	"etcd_disk_backend_snapshot_duration_seconds",
	"etcd_disk_defrag_inflight",
	"etcd_mvcc_delete_total",
	"etcd_mvcc_put_total",
	"etcd_mvcc_txn_total",
	"etcd_network_known_peers",
	"etcd_server_has_leader",
	"etcd_server_id",
	"etcd_server_is_leader",
	"etcd_server_is_learner",
	"etcd_server_proposals_failed_total",
	"etcd_server_proposals_pending",
	"etcd_server_quota_backend_bytes",
	"etcd_server_read_indexes_failed_total",
	"etcd_server_slow_apply_total",
	"etcd_server_slow_read_indexes_total",
	"etcd_server_snapshot_apply_in_progress_total",
	"etcd_server_version",
	"os_fd_limit",
	"process_max_fds",
}

// equalChange are families whose series must have changed alike between two scrapes.
var equalChange = []string{
	"etcd_mvcc_hash_duration_seconds",
	"etcd_mvcc_hash_rev_duration_seconds",
	"etcd_network_client_grpc_received_bytes_total",
	"etcd_server_apply_duration_seconds",
	"etcd_server_client_requests_total",
	"etcd_server_health_failures",
	"etcd_server_health_success",
	"etcd_server_healthchecks_total",
	"etcd_server_range_duration_seconds",
	"etcd_server_request_duration_seconds",
	"grpc_server_handled_total",
	"grpc_server_handling_seconds",
	"grpc_server_msg_received_total",
	"grpc_server_msg_sent_total",
	"grpc_server_started_total",
	"promhttp_metric_handler_requests_total",
}

// alike are sizes that must be of the same magnitude.
var alike = []string{
	"etcd_mvcc_db_total_size_in_bytes",
	"etcd_mvcc_db_total_size_in_use_in_bytes",
	"etcd_disk_wal_write_bytes_total",
	"etcd_network_client_grpc_sent_bytes_total",
}

// queried are the families that the queries of etcd's dashboard and alerts name and a member
// of one can have. Each must be told, with at least one series.
var queried = []string{
	"etcd_disk_backend_commit_duration_seconds",
	"etcd_disk_wal_fsync_duration_seconds",
	"etcd_mvcc_db_total_size_in_bytes",
	"etcd_network_client_grpc_received_bytes_total",
	"etcd_network_client_grpc_sent_bytes_total",
	"etcd_server_has_leader",
	"etcd_server_id",
	"etcd_server_leader_changes_seen_total",
	"etcd_server_proposals_applied_total",
	"etcd_server_proposals_committed_total",
	"etcd_server_proposals_failed_total",
	"etcd_server_proposals_pending",
	"etcd_server_quota_backend_bytes",
	"grpc_server_handled_total",
	"grpc_server_started_total",
	"process_max_fds",
	"process_open_fds",
	"process_resident_memory_bytes",
}
