//! What monitoring sees of the real binary. Names and values are compared with etcd's by the conformance tests; here, that they are there at all.

use detcd_proto::etcdserverpb as pb;

use crate::member::Home;

/// What a scrape says of one series.
fn value(scrape: &str, series: &str) -> Option<f64> {
    let line = scrape.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|text| text.parse().ok())
}

fn of_put(family: &str, first: &str, last: &str) -> String {
    format!("{family}{{{first}grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\"{last}}}")
}

#[tokio::test]
async fn requests_and_disks_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path()).with(&["--metrics=extensive"]);
    let (_member, mut client) = home.start().await;
    for key in ["a", "b", ""] {
        let request = pb::PutRequest { key: key.into(), value: "value".into(), ..Default::default() };
        assert_eq!(client.put(request).await.is_ok(), !key.is_empty());
    }
    let scrape = home.get(home.client_port, "/metrics");
    let read = |series: &str| value(&scrape, series).unwrap_or_else(|| panic!("no {series} in {scrape}"));
    assert_eq!(read("etcd_mvcc_put_total"), 2.0);
    assert_eq!(read("etcd_debugging_mvcc_keys_total"), 2.0);
    assert_eq!(read("etcd_debugging_mvcc_total_put_size_in_bytes"), 12.0);
    assert_eq!(read(&of_put("grpc_server_started_total", "", "")), 3.0);
    assert_eq!(read(&of_put("grpc_server_msg_sent_total", "", "")), 3.0);
    assert_eq!(read(&of_put("grpc_server_handling_seconds_bucket", "", ",le=\"+Inf\"")), 3.0);
    let handled = |code: &str| {
        let series = "grpc_server_handled_total{grpc_code=";
        let labels = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}";
        read(&format!("{series}\"{code}\",{labels}"))
    };
    assert_eq!(["OK", "InvalidArgument", "Unknown"].map(handled), [2.0, 1.0, 0.0]);
    let applied = "etcd_server_apply_duration_seconds_count{op=\"Put\",success=\"true\",version=\"v3\"}";
    assert_eq!(read(applied), 2.0);
    assert_eq!(read("etcd_server_request_duration_seconds_count{success=\"true\",type=\"Put\"}"), 2.0);
    assert!(read("etcd_disk_wal_fsync_duration_seconds_count") >= 3.0);
    assert!(read("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"8.192\"}") >= 1.0);
    assert!(read("etcd_disk_wal_fsync_duration_seconds_sum") > 0.0);
    assert!(read("etcd_disk_wal_write_bytes_total") > 100.0);
}

#[tokio::test]
async fn variables_are_json_and_single_checks_are_made_whatever_is_excluded() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let (_member, _client) = home.start().await;
    let answer = home.get(home.client_port, "/debug/vars");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.to_lowercase().contains("content-type: application/json; charset=utf-8"), "{head}");
    let vars: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(vars["raft.status"]["raftState"], "StateLeader");
    assert_eq!(vars["raft.status"]["id"], vars["raft.status"]["vote"]);
    let progress = &vars["raft.status"]["progress"][vars["raft.status"]["id"].as_str().unwrap()];
    assert_eq!(progress["next"].as_u64(), progress["match"].as_u64().map(|last| last + 1));
    assert!(vars["memstats"]["Sys"].as_u64() > Some(1 << 20));
    assert_eq!(vars["cmdline"][1], "--name");
    let refused = home.request(home.client_port, "POST /debug/vars", "", b"");
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
    let one = home.get(home.client_port, "/readyz/non_learner?exclude=non_learner&verbose");
    assert!(one.ends_with("[+]non_learner ok\nok\n"), "{one}");
    let all = home.get(home.client_port, "/readyz?exclude=non_learner&verbose");
    assert!(!all.contains("non_learner"), "{all}");
}
