//! Sources × outcome, one row each: what a command line, an environment and a file come down to.

use std::path::PathBuf;

use super::*;
use crate::config::Config;
use crate::log::{Format, Output};

/// Words with blanks between them; `NAME=value` with blanks between them; the file's text, if `--config-file=f` asks for it.
fn outcome(words: &str, variables: &str, text: &str) -> Outcome {
    let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    let variables: Vec<(String, String)> = variables
        .split_whitespace()
        .filter_map(|variable| variable.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    read(&words, &variables, |path| {
        if path == Path::new("f") { Ok(text.as_bytes().to_vec()) } else { Err(io::ErrorKind::NotFound.into()) }
    })
}

fn refusal(outcome: &Outcome) -> String {
    match &outcome.result {
        Ok(request) => format!("taken: {request:?}"),
        Err(refused) => format!("{}: {refused}", refused.exit_code()),
    }
}

fn config(outcome: &Outcome) -> &Config {
    match &outcome.result {
        Ok(Request::Start(config)) => config,
        other => panic!("no start: {other:?}"),
    }
}

#[test]
fn command_lines_are_refused_in_etcds_words() {
    let rows = [
        ("--nonsense", "2: flag provided but not defined: -nonsense"),
        ("--max-wals=x", "2: invalid value \"x\" for flag -max-wals: parse error"),
        (
            "--listen-peer-urls=ftp://1.1.1.1:1",
            "2: invalid value \"ftp://1.1.1.1:1\" for flag -listen-peer-urls: URL scheme must be http, https, unix, or unixs: ftp://1.1.1.1:1",
        ),
        (
            "--listen-peer-urls=http://1.1.1.1",
            "2: invalid value \"http://1.1.1.1\" for flag -listen-peer-urls: URL address does not have the form \"host:port\": http://1.1.1.1",
        ),
        (
            "--advertise-client-urls=http://1.1.1.1:1/a",
            "2: invalid value \"http://1.1.1.1:1/a\" for flag -advertise-client-urls: URL must not contain a path: http://1.1.1.1:1/a",
        ),
        ("--initial-cluster-state=x", "2: invalid value \"x\" for flag -initial-cluster-state: invalid value"),
        ("--feature-gates=X=true", "2: invalid value \"X=true\" for flag -feature-gates: unrecognized feature gate: X"),
        ("--pre-vote false", "1: \"false\" is not a valid flag"),
        (
            "--discovery-fallback=proxy",
            "1: v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
        ("--logger=capnslog", "1: --logger=capnslog is removed in v3.5"),
        ("--logger=x", "1: unknown logger option \"x\""),
        ("--log-outputs=default,stderr", "1: multi logoutput for \"default\" is not supported yet"),
        ("--log-outputs=default,systemd/journal", "1: multi logoutput for \"default\" is not supported yet"),
        (
            "--enable-log-rotation",
            "1: --log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (
            "--enable-log-rotation --log-outputs=a,b",
            "1: --log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        ("--log-level=x", "2: unrecognized level: \"x\""),
        ("--log-format=x", "1: unknown log format: x, supported values json, console"),
        ("--listen-peer-urls=http://name:1", "1: expected IP in URL for binding (http://name:1)"),
        (
            "--listen-client-urls=http://name:1 --advertise-client-urls=http://a:1",
            "1: expected IP in URL for binding (http://name:1)",
        ),
        ("--listen-metrics-urls=http://name:1", "1: expected IP in URL for binding (http://name:1)"),
        (
            "--initial-advertise-peer-urls=http://:1",
            "1: --initial-advertise-peer-urls \"http://:1\" must be \"host:port\" (unexpected empty host (http://:1))",
        ),
        (
            "--advertise-client-urls=http://:1",
            "1: --advertise-client-urls \"http://:1\" must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" (unexpected empty host (http://:1))",
        ),
        (
            "--initial-cluster=a=http://a:1 --discovery-srv=d",
            "1: multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (
            "--discovery-endpoints=e --discovery-srv=d",
            "1: multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        ("--discovery-token=t", "1: both --discovery-token and --discovery-endpoints must be set"),
        ("--discovery-endpoints=e", "1: both --discovery-token and --discovery-endpoints must be set"),
        ("--discovery-endpoints=e, --discovery-token=t", "1: --discovery-endpoints must not contain empty endpoints"),
        ("--heartbeat-interval=0", "1: --heartbeat-interval must be >0 (set to 0ms)"),
        ("--election-timeout=0", "1: --election-timeout must be >0 (set to 0ms)"),
        (
            "--heartbeat-interval=201",
            "1: --election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[201ms]",
        ),
        (
            "--heartbeat-interval=18446744073709551615",
            "1: --election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[18446744073709551615ms]",
        ),
        ("--election-timeout=50001", "1: --election-timeout[50001ms] is too long, and should be set less than 50000ms"),
        (
            "--listen-client-urls=http://1.1.1.1:1",
            "1: --advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        ("--auto-compaction-mode=", "1: undefined auto-compaction-mode"),
        ("--auto-compaction-mode=x", "1: unknown auto-compaction-mode \"x\""),
        ("--auto-compaction-retention=x", "1: error parsing CompactionRetention: time: invalid duration \"x\""),
        (
            "--auto-compaction-retention=-1",
            "1: error parsing CompactionRetention: time: missing unit in duration \"-1\"",
        ),
        (
            "--enable-distributed-tracing --distributed-tracing-sampling-rate=-1",
            "1: distributed tracing configurition is not valid: (tracing sampling rate must be positive)",
        ),
        (
            "--enable-distributed-tracing --distributed-tracing-sampling-rate=1000001",
            "1: distributed tracing configurition is not valid: (tracing sampling rate must be less than 1000000)",
        ),
        (
            "--feature-gates=LeaseCheckpointPersist=true",
            "1: enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        ("--compact-hash-check-time=0", "1: --compact-hash-check-time must be >0 (set to 0s)"),
        ("--compact-hash-check-time=-90s", "1: --compact-hash-check-time must be >0 (set to -1m30s)"),
        ("--tls-min-version=x", "1: unexpected TLS version \"x\" (must be one of: TLS1.2, TLS1.3)"),
        (
            "--tls-min-version=TLS1.3 --tls-max-version=TLS1.2",
            "1: min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            "--tls-min-version=TLS1.3 --cipher-suites=x",
            "1: cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            "--listen-client-http-urls=http://localhost:2379",
            "1: cannot bind both --listen-client-urls and --listen-client-http-urls on the same url http://localhost:2379",
        ),
        (
            "--listen-client-urls=https://1.1.1.1:1 --advertise-client-urls=https://a:1",
            "1: TLS key/cert (--cert-file, --key-file) must be provided for client url https://1.1.1.1:1 with HTTPS scheme",
        ),
        (
            "--listen-metrics-urls=https://1.1.1.1:1",
            "1: client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ),
        ("--auth-token=x", "1: auth: invalid auth options"),
        ("--auth-token=simple,x", "1: auth: invalid auth options"),
        // The only rows that are not etcd's: it takes both, then spins, or commits after every change.
        ("--backend-batch-interval=-1s", "1: --backend-batch-interval must not be negative (set to -1s)"),
        ("--backend-batch-limit=-1", "1: --backend-batch-limit must not be negative (set to -1)"),
        ("--config-file=gone", "1: open gone: no such file or directory"),
    ];
    for (words, expected) in rows {
        assert_eq!(refusal(&outcome(words, "", "")), expected, "{words}");
    }
}

#[test]
fn what_is_not_built_is_refused_by_name_and_taken_at_its_default() {
    let refused = [
        ("--listen-metrics-urls=http://1.1.1.1:1", "--listen-metrics-urls is not built yet in detcd"),
        ("--listen-client-http-urls=http://1.1.1.1:1", "--listen-client-http-urls is not built yet in detcd"),
        ("--cert-file=c --key-file=k", "--cert-file is not built yet in detcd"),
        ("--peer-auto-tls", "--peer-auto-tls is not built yet in detcd"),
        ("--auth-token=jwt,sign-method=RS256", "--auth-token is not built yet in detcd"),
        ("--auth-token=", "--auth-token is not built yet in detcd"),
        ("--bcrypt-cost=3", "--bcrypt-cost is not built yet in detcd"),
        ("--discovery-srv=d", "--discovery-srv is not built yet in detcd"),
        ("--discovery-endpoints=e --discovery-token=t", "--discovery-endpoints is not built yet in detcd"),
        ("--feature-gates=InitialCorruptCheck=true", "--feature-gates is not built yet in detcd"),
        ("--raft-read-timeout=6s", "--raft-read-timeout is not built yet in detcd"),
        ("--listen-peer-urls=https://1.1.1.1:1", "the scheme https in --listen-peer-urls is not built yet in detcd"),
        (
            "--listen-client-urls=unix://a --advertise-client-urls=http://a:1",
            "the scheme unix in --listen-client-urls is not built yet in detcd",
        ),
        ("--log-outputs=a,b", "more than one output in --log-outputs is not built yet in detcd"),
        ("--log-outputs=systemd/journal", "systemd/journal in --log-outputs is not built yet in detcd"),
        ("--cors=http://a:80", "--cors is not built yet in detcd"),
        (
            "--max-request-bytes=66000001",
            "--max-request-bytes is not offered by detcd: members take messages of at most 64 MiB from each other, so it may be 66 MB at most",
        ),
        (
            "--unsafe-no-fsync",
            "--unsafe-no-fsync is not offered by detcd: a write that was acknowledged is on the disk",
        ),
    ];
    for (words, expected) in refused {
        assert_eq!(refusal(&outcome(words, "", "")), format!("1: {expected}"), "{words}");
    }
    let taken = "--listen-metrics-urls= --auth-token=simple --unsafe-no-fsync=false --quota-backend-bytes=2147483648 \
                 --auto-compaction-mode=revision --auto-compaction-retention=0s --feature-gates=AllAlpha=false,FastLeaseKeepAlive=true \
                 --metrics=basic --cors=* --host-whitelist=* --raft-read-timeout=1s --enable-grpc-gateway=false --v2-deprecation=gone \
                 --force --snapshot=1 --compaction-batch-limit=1000 --watch-progress-notify-interval=10m0s --bcrypt-cost=10";
    let plain = outcome("", "", "");
    assert_eq!(config(&outcome(taken, "", "")), config(&plain), "a default that is said changes nothing");
}

#[test]
fn sources_set_what_they_say() {
    type Fact = fn(&Config) -> String;
    let cluster: Fact = |config| config.asked.initial_cluster.clone();
    let name: Fact = |config| config.asked.name.clone();
    let dirs: Fact =
        |config| format!("{} {}", config.data.places.data_dir.display(), config.data.places.wal_dir.display());
    let ticks: Fact = |config| format!("{:?} {}", config.raft.heartbeat, config.raft.election_ticks);
    let batch: Fact = |config| format!("{:?} {}", config.store.batch_interval, config.store.batch_ops_max);
    let limits: Fact = |config| format!("{:?}", config.limits);
    let logging: Fact = |config| format!("{:?}", config.logging);
    let client: Fact =
        |config| format!("{:?}", config.urls.listen_client.iter().map(ToString::to_string).collect::<Vec<_>>());
    let kept: Fact = |config| {
        let data = &config.data;
        format!("{} {} {} {}", data.snapshot_entries, data.catch_up_entries, data.wals_max, data.snapshots_max)
    };
    let alone: Fact = |config| format!("{} {:?}", config.asked.learners_max, config.asked.recovery);
    let compaction: Fact = |config| format!("{:?} {:?}", config.store.retention, config.store.sweeps);
    let votes: Fact = |config| format!("{}", config.raft.pre_vote);
    let rows: Vec<(&str, &str, &str, Fact, &str)> = vec![
        ("", "", "", compaction, "None Pace { rows: 1000, pause: 10ms }"),
        ("--auto-compaction-retention=2", "", "", compaction, "Some(Period(7200000)) Pace { rows: 1000, pause: 10ms }"),
        ("--auto-compaction-retention=5m", "", "", compaction, "Some(Period(300000)) Pace { rows: 1000, pause: 10ms }"),
        (
            "--auto-compaction-mode=revision --auto-compaction-retention=7 --compaction-batch-limit=5 --compaction-sleep-interval=1s",
            "",
            "",
            compaction,
            "Some(Revisions(7)) Pace { rows: 5, pause: 1s }",
        ),
        ("", "", "", name, "default"),
        ("", "", "", cluster, "default=http://localhost:2380"),
        ("", "", "", dirs, "default.etcd default.etcd/member/wal"),
        ("", "", "", ticks, "100ms 10"),
        ("", "", "", batch, "100ms 10000"),
        (
            "",
            "",
            "",
            limits,
            "Limits { strict_reconfig: true, txn_ops_max: 128, request_bytes_max: 1572864, streams_max: 4294967295, quota_bytes: 2147483648 }",
        ),
        ("", "", "", logging, "Logging { threshold: Info, format: Json, output: Stderr }"),
        ("", "", "", client, "[\"http://localhost:2379\"]"),
        ("", "", "", kept, "10000 5000 5 5"),
        ("", "", "", votes, "true"),
        ("--name a", "", "", cluster, "a=http://localhost:2380"),
        ("--name=", "", "", cluster, "default=http://localhost:2380"),
        ("--name a --initial-advertise-peer-urls http://b:2,http://b:1", "", "", cluster, "a=http://b:1,a=http://b:2"),
        ("--initial-advertise-peer-urls http://b:1", "", "", cluster, "default=http://localhost:2380"),
        ("--name a --initial-cluster b=http://b:1", "", "", cluster, "b=http://b:1"),
        ("--initial-cluster=", "", "", cluster, ""),
        ("--name a --data-dir /d --wal-dir /w", "", "", dirs, "/d /w"),
        ("--name a", "", "", dirs, "a.etcd a.etcd/member/wal"),
        ("--heartbeat-interval 50 --election-timeout 999", "", "", ticks, "50ms 19"),
        ("--heartbeat-interval 200 --election-timeout 1000", "", "", ticks, "200ms 5"),
        ("--election-timeout 50000", "", "", ticks, "100ms 500"),
        ("--listen-client-urls= --advertise-client-urls=http://a:1", "", "", client, "[\"http://localhost:2379\"]"),
        ("--backend-batch-interval 5ms --backend-batch-limit 7", "", "", batch, "5ms 7"),
        (
            "--strict-reconfig-check=false --max-txn-ops 1 --max-request-bytes 2 --max-concurrent-streams 3 --quota-backend-bytes -4",
            "",
            "",
            limits,
            "Limits { strict_reconfig: false, txn_ops_max: 1, request_bytes_max: 2, streams_max: 3, quota_bytes: -4 }",
        ),
        (
            "--log-level debug --log-format console --log-outputs stdout",
            "",
            "",
            logging,
            "Logging { threshold: Debug, format: Console, output: Stdout }",
        ),
        ("--snapshot-count 1 --snapshot-catchup-entries 4 --max-wals 2 --max-snapshots 3", "", "", kept, "1 4 2 3"),
        ("--snapshot-catchup-entries 0", "", "", kept, "10000 5000 5 5"),
        ("", "", "", alone, "1 Ordinary"),
        ("--force-new-cluster --max-learners 3", "", "", alone, "3 ForceNewCluster"),
        ("--max-learners=-1", "", "", alone, "0 Ordinary"),
        ("--pre-vote=false", "", "", votes, "false"),
        (
            "--listen-client-urls http://[::1]:2,http://1.1.1.1:1,http://[::1]:2 --advertise-client-urls http://a:1",
            "",
            "",
            client,
            "[\"http://1.1.1.1:1\", \"http://[::1]:2\"]",
        ),
        ("--name a --name b", "", "", name, "b"),
        ("", "ETCD_NAME=e", "", name, "e"),
        ("--name a", "OTHER=e", "", name, "a"),
        ("", "ETCD_NAME=e ETCD_DATA_DIR=/e", "", dirs, "/e /e/member/wal"),
        ("", "ETCD_PRE_VOTE=F ETCD_MAX_WALS=0x10", "", votes, "false"),
        ("--config-file=f", "", "name: n", name, "n"),
        ("", "ETCD_CONFIG_FILE=f", "name: n", name, "n"),
        ("--config-file=f --name a --max-wals 1", "ETCD_NAME=e", "max-wals: 3", kept, "10000 5000 3 5"),
        ("--config-file=f --name a", "ETCD_NAME=e", "", name, "default"),
        ("--config-file=f", "", "name: 12", name, "12"),
        ("--config-file=f", "", "{\"name\": \"n\", \"data-dir\": \"/n\"}", dirs, "/n /n/member/wal"),
        ("--config-file=f", "", "backend-batch-interval: 5000000\nbackend-batch-limit: 9", batch, "5ms 9"),
        (
            "--config-file=f",
            "",
            "listen-client-urls: http://1.1.1.1:2,http://1.1.1.1:1",
            client,
            "[\"http://1.1.1.1:1\", \"http://1.1.1.1:2\"]",
        ),
        ("--config-file=f", "", "listen-client-urls: ''\nname: null", client, "[\"http://localhost:2379\"]"),
        (
            "--config-file=f",
            "",
            "log-outputs: [stdout]\nlog-level: warn",
            logging,
            "Logging { threshold: Warn, format: Json, output: Stdout }",
        ),
        (
            "--config-file=f",
            "",
            "pre-vote: false\nclient-transport-security:\n  auto-tls: false\nsocket-options:",
            votes,
            "false",
        ),
        ("--config-file=f", "", "initial-cluster-state: ''\nself-signed-cert-validity: 0", name, "default"),
    ];
    for (words, variables, text, fact, expected) in rows {
        assert_eq!(fact(config(&outcome(words, variables, text))), expected, "{words} | {variables} | {text}");
    }
    let file = outcome("--log-outputs /l/detcd.log", "", "");
    let logging = &config(&file).logging;
    assert_eq!((logging.format, &logging.output), (Format::Json, &Output::File(PathBuf::from("/l/detcd.log"))));
}

#[test]
fn environments_and_files_are_refused_in_etcds_words() {
    let shadowed = "1: conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))";
    let json = "1: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal";
    let rows = [
        ("--name a", "ETCD_NAME=b", "", shadowed.to_owned()),
        ("--name a", "ETCD_NAME=", "", shadowed.to_owned()),
        ("--name a", "ETCD_NAME=b ETCD_MAX_WALS=x", "", shadowed.to_owned()),
        ("", "ETCD_MAX_WALS=x", "", "1: invalid value \"x\" for ETCD_MAX_WALS: parse error".to_owned()),
        ("", "ETCD_PRE_VOTE=x", "", "1: invalid value \"x\" for ETCD_PRE_VOTE: parse error".to_owned()),
        ("", "ETCD_PRE_VOTE=x ETCD_MAX_WALS=y", "", "1: invalid value \"x\" for ETCD_PRE_VOTE: parse error".to_owned()),
        (
            "",
            "ETCD_ELECTION_TIMEOUT=y ETCD_HEARTBEAT_INTERVAL=x",
            "",
            "1: invalid value \"x\" for ETCD_HEARTBEAT_INTERVAL: parse error".to_owned(),
        ),
        ("", "ETCD_CERT_FILE=c ETCD_KEY_FILE=k", "", "1: --cert-file is not built yet in detcd".to_owned()),
        ("--config-file=f", "", "max-wals: x", format!("{json} string into Go struct field configYAML.Config.max-wals of type uint")),
        ("--config-file=f", "", "max-wals: -1", format!("{json} number -1 into Go struct field configYAML.Config.max-wals of type uint")),
        ("--config-file=f", "", "pre-vote: 'true'", format!("{json} string into Go struct field configYAML.Config.pre-vote of type bool")),
        ("--config-file=f", "", "backend-batch-interval: 5s", format!("{json} string into Go struct field configYAML.Config.backend-batch-interval of type time.Duration")),
        ("--config-file=f", "", "log-outputs: stderr", format!("{json} string into Go struct field configYAML.Config.log-outputs of type []string")),
        ("--config-file=f", "", "name: [a]", format!("{json} array into Go struct field configYAML.Config.name of type string")),
        ("--config-file=f", "", "- a", format!("{json} array into Go value of type embed.configYAML")),
        ("--config-file=f", "", "listen-peer-urls: 1.1.1.1:1", "1: unexpected error setting up listen-peer-urls: parse \"1.1.1.1:1\": first path segment in URL cannot contain colon".to_owned()),
        ("--config-file=f", "", "initial-cluster-state: x", "1: unexpected clusterState \"x\"".to_owned()),
        ("--config-file=f", "", "feature-gates: X=true", "1: unrecognized feature gate: X".to_owned()),
        ("--config-file=f", "", "peer-transport-security:\n  cert-file: c", "1: --peer-cert-file is not built yet in detcd".to_owned()),
        ("--config-file=f", "", "discovery-config:\n  token: t", "1: both --discovery-token and --discovery-endpoints must be set".to_owned()),
        ("--config-file=f", "", "max-txn-ops: 99999999999", String::new()),
    ];
    for (words, variables, text, expected) in rows {
        let seen = outcome(words, variables, text);
        if expected.is_empty() {
            assert_eq!(config(&seen).limits.txn_ops_max, 99_999_999_999);
        } else {
            assert_eq!(refusal(&seen), expected, "{words} | {variables} | {text}");
        }
    }
    let yaml = refusal(&outcome("--config-file=f", "", "a: [b"));
    assert!(yaml.starts_with("1: error converting YAML to JSON: yaml: "), "{yaml}");
}

#[test]
fn warnings_are_returned_as_lines() {
    let single = "Running http and grpc server on single port. This is not recommended for production.";
    let rows = [
        ("", "", "", single),
        (
            "",
            "",
            "",
            "it isn't recommended to use default name, please set a value for --name. Note that etcd might run into issue when multiple members have the same default name",
        ),
        ("", "", "", "simple token is not cryptographically signed"),
        ("", "", "", "'data-dir' was empty; using default"),
        ("--max-snapshots 5", "", "", "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."),
        (
            "",
            "ETCD_V2_DEPRECATION=gone",
            "",
            "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.",
        ),
        (
            "--config-file=f",
            "",
            "max-snapshots: 5",
            "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.",
        ),
        ("--max-request-bytes 10485761", "", "", "exceeded recommended request limit"),
        ("--quota-backend-bytes 8589934593", "", "", "quota exceeds the maximum value"),
        ("--bcrypt-cost 3", "", "", "use default bcrypt cost instead of the invalid given cost"),
        (
            "--feature-gates LeaseCheckpoint=true",
            "",
            "",
            "Detected that checkpointing is enabled without persistence. Consider enabling feature gate LeaseCheckpointPersist",
        ),
        ("--raft-write-timeout 1s", "", "", "raft-write-timeout increased to minimum value: 5s"),
        (
            "--listen-peer-urls http://0.0.0.0:2380",
            "",
            "",
            "peers are told http://localhost:2380; set --initial-advertise-peer-urls to an address they can reach",
        ),
        ("", "ETCD_NAME=a", "", "recognized and used environment variable"),
        ("", "ETCD_NONSENSE=a", "", "unrecognized environment variable"),
        ("", "ETCD_NAME=", "", "unrecognized environment variable"),
        ("", "ETCD_UNSUPPORTED_ARCH=arm", "", "unrecognized environment variable"),
        ("", "ETCD_VERSION=1", "", "cannot set special environment variable"),
        ("--config-file=f", "", "nonsense: 1", "unrecognized key in the configuration file"),
        ("--config-file=f", "", "peer-transport-security: {x: 1}", "unrecognized key in the configuration file"),
        (
            "--config-file=f",
            "",
            "",
            "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided",
        ),
    ];
    for (words, variables, text, expected) in rows {
        let seen = outcome(words, variables, text);
        let count = seen.lines.iter().filter(|line| line.message == expected).count();
        assert_eq!(count, 1, "{words} | {variables} | {text}: {:?}", seen.lines);
    }
    let quiet = outcome("--name a --data-dir /d", "PATH=/bin", "");
    assert_eq!(quiet.lines.len(), 2, "{:?}", quiet.lines);
    let file = outcome("--config-file=f", "ETCD_NONSENSE=a", "name: a");
    assert!(!file.lines.iter().any(|line| line.message.starts_with("unrecognized environment")));
}

#[test]
fn values_of_unknown_and_secret_variables_stay_out_of_the_log() {
    let seen = outcome("", "ETCD_ROOT_PASSWORD=hush ETCD_DISCOVERY_PASSWORD=hush ETCD_DISCOVERY_DIAL_TIMEOUT=2s", "");
    assert!(!format!("{:?}", seen.lines).contains("hush"));
    assert!(format!("{:?}", seen.lines).contains("ETCD_ROOT_PASSWORD"));
}

#[test]
fn help_and_version_come_before_everything_else() {
    let rows = [
        ("--help --nonsense", "ETCD_MAX_WALS=x", Ok(Request::Help)),
        ("-h", "", Ok(Request::Help)),
        ("--version", "ETCD_MAX_WALS=x", Ok(Request::Version)),
        ("--version --config-file=gone", "", Ok(Request::Version)),
        ("--version word", "", Err(Refused::LeftOver("word".to_owned()))),
    ];
    for (words, variables, expected) in rows {
        assert_eq!(outcome(words, variables, "").result, expected, "{words}");
    }
}

#[test]
fn refusals_are_reported_the_way_etcd_ends() {
    let report = |words: &str| outcome(words, "", "").result.expect_err("refused").report();
    let syntax = report("--nonsense");
    assert!(syntax.stderr.starts_with("flag provided but not defined: -nonsense\nUsage:\n"));
    assert_eq!((syntax.lines.len(), syntax.exit_code), (0, 2));
    let messages = |words: &str| report(words).lines.into_iter().map(|line| line.message).collect::<Vec<_>>();
    assert_eq!(messages("--heartbeat-interval=0"), ["failed to verify flags"]);
    assert_eq!(
        messages("--listen-client-urls=http://1.1.1.1:1"),
        ["failed to verify flags", "advertise client URLs are not set"]
    );
    assert_eq!(messages("--auth-token=x"), ["discovery failed"]);
    assert_eq!(messages("--unsafe-no-fsync"), ["failed to verify flags"]);
    let level = report("--log-level=x");
    assert_eq!((level.stderr.as_str(), level.exit_code), ("unrecognized level: \"x\"\n", 2));
    let shadowed = outcome("--name a", "ETCD_NAME=b", "").result.expect_err("refused").report();
    assert_eq!((shadowed.lines[0].severity, shadowed.exit_code), (Severity::Fatal, 1));
}
