//! Every flag of etcd 3.7, one row each: its name, its kind, its default, and whether detcd does something with it yet.
//!
//! Invariant: the table is complete, so a flag that is not in it is not a flag of etcd. A row that says `later` is accepted at its
//! default and refused by name otherwise: an option that would be ignored is worse than one that is missing. The variable's name
//! follows from the flag's; the key in the configuration file is the same name unless the row says otherwise.

use self::Group::{Auth, Clustering, Logging, Member, Other, Security, Tuning, Unsafe};
use self::Kind::{
    Bool, Duration, Gates, Ignored, Int, Int64, OneOf, Origins, SomeOf, Text, Texts, Uint, Uint32, Uint64, UniqueTexts,
    Urls,
};

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The name, without dashes.
    pub name: &'static str,
    /// What its values look like.
    pub kind: Kind,
    /// The default, as it would be typed.
    pub default: &'static str,
    /// Whether it does something.
    pub support: Support,
    /// Other spellings that mean the default.
    pub also: &'static [&'static str],
    /// Its key in the configuration file, dots between levels; `None` if it cannot be set there.
    pub yaml: Option<&'static str>,
    /// Where it is listed in the help.
    pub group: Group,
    /// One line for the help; empty for a flag that is not listed.
    pub help: &'static str,
}

/// What the values of a flag look like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// true or false; alone it means true.
    Bool,
    /// Go's `uint`.
    Uint,
    /// Go's `uint64`.
    Uint64,
    /// Go's `uint32`.
    Uint32,
    /// Go's `int`.
    Int,
    /// Go's `int64`.
    Int64,
    /// Go's `time.Duration`.
    Duration,
    /// URLs with commas between them.
    Urls,
    /// URLs with commas between them, or `*`.
    Origins,
    /// Texts with commas between them, as given.
    Texts,
    /// Texts with commas between them, as a set.
    UniqueTexts,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// Some of these, with commas between them.
    SomeOf(&'static [&'static str]),
    /// `name=bool` with commas between them; a repeated flag adds to the one before.
    Gates,
    /// A flag of old that is taken and has no effect; its value is optional.
    Ignored,
}

/// Whether a flag does something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Support {
    /// It does.
    Built,
    /// Not yet: any other value than the default is refused.
    Later,
    /// It never will: any other value than the default is refused.
    Never,
}

/// A heading in the help.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Group {
    /// What one member is.
    Member,
    /// How members find each other.
    Clustering,
    /// Certificates and who may connect.
    Security,
    /// Users and tokens.
    Auth,
    /// Log lines.
    Logging,
    /// Everything that makes it faster, slower or chattier.
    Tuning,
    /// What costs data.
    Unsafe,
    /// The rest.
    Other,
}

impl Group {
    /// The heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Member => "Member",
            Self::Clustering => "Clustering",
            Self::Security => "Security",
            Self::Auth => "Auth",
            Self::Logging => "Logging",
            Self::Tuning => "Tuning",
            Self::Unsafe => "Unsafe",
            Self::Other => "Other",
        }
    }
}

impl Flag {
    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("ETCD_{}", self.name.replace('-', "_").to_uppercase())
    }

    /// Whether it stands alone on the command line, its value only behind `=`.
    #[must_use]
    pub const fn is_switch(&self) -> bool {
        matches!(self.kind, Bool | Ignored)
    }

    const fn also(mut self, also: &'static [&'static str]) -> Self {
        self.also = also;
        self
    }

    const fn yaml(mut self, key: &'static str) -> Self {
        self.yaml = Some(key);
        self
    }

    const fn no_yaml(mut self) -> Self {
        self.yaml = None;
        self
    }
}

/// The place of a flag in the table.
#[must_use]
pub fn position(name: &str) -> Option<usize> {
    FLAGS.iter().position(|flag| flag.name == name)
}

const fn built(name: &'static str, kind: Kind, default: &'static str, group: Group, help: &'static str) -> Flag {
    Flag { name, kind, default, support: Support::Built, also: &[], yaml: Some(name), group, help }
}

const fn later(name: &'static str, kind: Kind, default: &'static str, group: Group, help: &'static str) -> Flag {
    let mut flag = built(name, kind, default, group, help);
    flag.support = Support::Later;
    flag
}

const fn never(name: &'static str, kind: Kind, default: &'static str, group: Group, help: &'static str) -> Flag {
    let mut flag = built(name, kind, default, group, help);
    flag.support = Support::Never;
    flag
}

const fn ignored(name: &'static str) -> Flag {
    built(name, Ignored, "", Other, "").no_yaml()
}

/// The table, in the order of etcd's own.
#[rustfmt::skip]
pub const FLAGS: &[Flag] = &[
    built("data-dir", Text, "", Member, "where the member keeps its data; <name>.etcd if empty"),
    built("wal-dir", Text, "", Member, "where the log lies; inside the data directory if empty"),
    built("listen-peer-urls", Urls, "http://localhost:2380", Member, "addresses that take other members"),
    built("listen-client-urls", Urls, "http://localhost:2379", Member, "addresses that take clients, gRPC and HTTP"),
    later("listen-client-http-urls", Urls, "", Member, "addresses for HTTP clients only"),
    later("listen-metrics-urls", Urls, "", Member, "addresses that serve only metrics and health"),
    built("max-snapshots", Uint, "5", Member, "how many snapshot files are kept, 0 for all (deprecated)"),
    built("max-wals", Uint, "5", Member, "how many log segments are kept, 0 for all"),
    built("name", Text, "default", Member, "this member's name"),
    built("snapshot-count", Uint64, "10000", Member, "committed entries between two snapshot files"),
    built("heartbeat-interval", Uint, "100", Member, "milliseconds between two heartbeats of a leader"),
    built("election-timeout", Uint, "1000", Member, "milliseconds without a leader before an election"),
    later("initial-election-tick-advance", Bool, "true", Member, "shorten the first wait for a leader after a start"),
    built("quota-backend-bytes", Int64, "0", Member, "size of the store at which writes stop; 0 means 2 GiB, a negative one never"),
    later("backend-bbolt-freelist-type", Text, "", Member, "has no meaning for the embedded store").also(&["map"]),
    built("backend-batch-interval", Duration, "0s", Member, "longest time between two commits of the store; 0 means 100ms"),
    built("backend-batch-limit", Int, "0", Member, "most operations between two commits of the store; 0 means 10000"),
    built("max-txn-ops", Uint, "128", Member, "most operations of one transaction"),
    built("max-request-bytes", Uint, "1572864", Member, "longest request that is taken"),
    later("grpc-keepalive-min-time", Duration, "5s", Member, "shortest time between two pings of a client"),
    later("grpc-keepalive-interval", Duration, "2h0m0s", Member, "time between two pings to a client"),
    later("grpc-keepalive-timeout", Duration, "20s", Member, "how long a ping may stay without an answer"),
    later("socket-reuse-port", Bool, "false", Member, "set SO_REUSEPORT on listeners").yaml("socket-options.reuse-port"),
    later("socket-reuse-address", Bool, "false", Member, "set SO_REUSEADDR on listeners").yaml("socket-options.reuse-address"),
    built("max-concurrent-streams", Uint32, "4294967295", Member, "most streams that one connection may hold open"),
    built("raft-read-timeout", Duration, "5s", Member, "how long a read from another member may take; at least 5s").no_yaml(),
    built("raft-write-timeout", Duration, "5s", Member, "how long a write to another member may take; at least 5s").no_yaml(),
    built("initial-advertise-peer-urls", Urls, "http://localhost:2380", Clustering, "peer URLs that the other members are told"),
    built("advertise-client-urls", Urls, "http://localhost:2379", Clustering, "client URLs that clients are told"),
    later("discovery-endpoints", UniqueTexts, "", Clustering, "endpoints of a discovery service").yaml("discovery-config.client.endpoints"),
    later("discovery-token", Text, "", Clustering, "token of the cluster to discover").yaml("discovery-config.token"),
    later("discovery-dial-timeout", Duration, "2s", Clustering, "how long a connection to the discovery service may take").yaml("discovery-config.client.dial-timeout"),
    later("discovery-request-timeout", Duration, "5s", Clustering, "how long a request to the discovery service may take").yaml("discovery-config.client.request-timeout"),
    later("discovery-keepalive-time", Duration, "2s", Clustering, "time between two pings to the discovery service").yaml("discovery-config.client.keepalive-time"),
    later("discovery-keepalive-timeout", Duration, "6s", Clustering, "how long such a ping may stay without an answer").yaml("discovery-config.client.keepalive-timeout"),
    later("discovery-insecure-transport", Bool, "true", Clustering, "talk to the discovery service without TLS").yaml("discovery-config.client.secure.insecure-transport"),
    later("discovery-insecure-skip-tls-verify", Bool, "false", Clustering, "do not verify the discovery service").yaml("discovery-config.client.secure.insecure-skip-tls-verify"),
    later("discovery-cert", Text, "", Clustering, "certificate shown to the discovery service").yaml("discovery-config.client.secure.cert"),
    later("discovery-key", Text, "", Clustering, "key of that certificate").yaml("discovery-config.client.secure.key"),
    later("discovery-cacert", Text, "", Clustering, "authorities the discovery service is verified with").yaml("discovery-config.client.secure.cacert"),
    later("discovery-user", Text, "", Clustering, "user at the discovery service").yaml("discovery-config.client.auth.username"),
    later("discovery-password", Text, "", Clustering, "password at the discovery service").yaml("discovery-config.client.auth.password"),
    later("discovery-srv", Text, "", Clustering, "DNS domain that names the members"),
    later("discovery-srv-name", Text, "", Clustering, "service name in that domain"),
    built("initial-cluster", Text, "default=http://localhost:2380", Clustering, "members of a new cluster: name=url,name=url"),
    built("initial-cluster-token", Text, "etcd-cluster", Clustering, "tells clusters with the same URLs apart"),
    built("strict-reconfig-check", Bool, "true", Clustering, "refuse member changes that would lose the quorum"),
    built("pre-vote", Bool, "true", Clustering, "ask before standing for election"),
    later("cert-file", Text, "", Security, "certificate shown to clients").yaml("client-transport-security.cert-file"),
    later("key-file", Text, "", Security, "key of that certificate").yaml("client-transport-security.key-file"),
    later("client-cert-file", Text, "", Security, "certificate for calls that clients' listeners make").yaml("client-transport-security.client-cert-file"),
    later("client-key-file", Text, "", Security, "key of that certificate").yaml("client-transport-security.client-key-file"),
    later("client-cert-auth", Bool, "false", Security, "demand a certificate of clients").yaml("client-transport-security.client-cert-auth"),
    later("client-crl-file", Text, "", Security, "revoked certificates of clients").no_yaml(),
    later("client-cert-allowed-hostname", Texts, "", Security, "host names that certificates of clients may carry").yaml("client-transport-security.allowed-hostname"),
    later("trusted-ca-file", Text, "", Security, "authorities that clients are verified with").yaml("client-transport-security.trusted-ca-file"),
    later("auto-tls", Bool, "false", Security, "serve clients with generated certificates").yaml("client-transport-security.auto-tls"),
    later("peer-cert-file", Text, "", Security, "certificate shown to members").yaml("peer-transport-security.cert-file"),
    later("peer-key-file", Text, "", Security, "key of that certificate").yaml("peer-transport-security.key-file"),
    later("peer-client-cert-file", Text, "", Security, "certificate for calls to members").yaml("peer-transport-security.client-cert-file"),
    later("peer-client-key-file", Text, "", Security, "key of that certificate").yaml("peer-transport-security.client-key-file"),
    later("peer-client-cert-auth", Bool, "false", Security, "demand a certificate of members").yaml("peer-transport-security.client-cert-auth"),
    later("peer-trusted-ca-file", Text, "", Security, "authorities that members are verified with").yaml("peer-transport-security.trusted-ca-file"),
    later("peer-auto-tls", Bool, "false", Security, "talk to members with generated certificates").yaml("peer-transport-security.auto-tls"),
    later("self-signed-cert-validity", Uint, "1", Security, "years that generated certificates are valid").also(&["0"]),
    later("peer-crl-file", Text, "", Security, "revoked certificates of members").no_yaml(),
    later("peer-cert-allowed-cn", Texts, "", Security, "common names that certificates of members may carry").yaml("peer-transport-security.allowed-cn"),
    later("peer-cert-allowed-hostname", Texts, "", Security, "host names that certificates of members may carry").yaml("peer-transport-security.allowed-hostname"),
    later("cipher-suites", Texts, "", Security, "cipher suites for TLS 1.2"),
    later("peer-skip-client-san-verification", Bool, "false", Security, "do not compare a member's address with its certificate").yaml("peer-transport-security.skip-client-san-verification"),
    later("tls-min-version", Text, "TLS1.2", Security, "lowest version of TLS"),
    later("tls-max-version", Text, "", Security, "highest version of TLS"),
    later("cors", Origins, "*", Security, "origins that browsers may call from"),
    later("host-whitelist", UniqueTexts, "*", Security, "host names that HTTP requests may ask for"),
    built("logger", Text, "zap", Logging, "always zap: the shape of the log lines"),
    built("log-outputs", UniqueTexts, "default", Logging, "stderr, stdout, default or the path of a file"),
    built("log-level", Text, "info", Logging, "debug, info, warn, error, panic or fatal"),
    built("log-format", Text, "json", Logging, "json or console"),
    later("enable-log-rotation", Bool, "false", Logging, "start a new log file from time to time"),
    later("log-rotation-config-json", Text, "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}", Logging, "when a new log file is started"),
    built("auto-compaction-retention", Text, "0", Tuning, "how much history is kept; 0 keeps all of it"),
    built("auto-compaction-mode", Text, "periodic", Tuning, "periodic or revision"),
    later("enable-pprof", Bool, "false", Tuning, "serve profiles over HTTP"),
    built("metrics", Text, "basic", Tuning, "basic or extensive"),
    later("enable-distributed-tracing", Bool, "false", Tuning, "send traces"),
    later("distributed-tracing-address", Text, "localhost:4317", Tuning, "where traces are sent"),
    later("distributed-tracing-service-name", Text, "etcd", Tuning, "this service's name in traces"),
    later("distributed-tracing-instance-id", Text, "", Tuning, "this member's name in traces"),
    later("distributed-tracing-sampling-rate", Int, "0", Tuning, "traces sent of a million"),
    later("auth-token", Text, "simple", Auth, "how tokens are made: simple, jwt with options, or empty"),
    later("bcrypt-cost", Uint, "10", Auth, "cost of hashing a password"),
    later("auth-token-ttl", Uint, "300", Auth, "seconds that a token lives"),
    built("enable-grpc-gateway", Bool, "true", Tuning, "serve JSON over HTTP (not served yet, whatever is asked)"),
    later("corrupt-check-time", Duration, "0s", Tuning, "time between two comparisons of the members' data"),
    later("compact-hash-check-time", Duration, "1m0s", Tuning, "time between two comparisons of compaction hashes"),
    built("compaction-batch-limit", Int, "0", Tuning, "revisions removed in one step of a compaction"),
    built("compaction-sleep-interval", Duration, "0s", Tuning, "pause between two steps of a compaction"),
    built("watch-progress-notify-interval", Duration, "0s", Tuning, "time between two progress reports to a watcher; 0 means 10m, at least 100ms"),
    later("downgrade-check-time", Duration, "5s", Tuning, "time between two looks at a downgrade"),
    later("warning-apply-duration", Duration, "100ms", Tuning, "an apply that takes longer is logged"),
    later("warning-unary-request-duration", Duration, "300ms", Tuning, "a request that takes longer is logged").also(&["0s"]),
    later("memory-mlock", Bool, "false", Tuning, "keep the process in memory"),
    later("bootstrap-defrag-threshold-megabytes", Uint, "0", Tuning, "defragment at start if it frees as much"),
    built("max-learners", Int, "1", Tuning, "most learners of a cluster; the same for all members"),
    built("snapshot-catchup-entries", Uint64, "5000", Tuning, "entries kept for a slow member after a compaction of the log"),
    never("unsafe-no-fsync", Bool, "false", Unsafe, "never: a write that was acknowledged is on the disk"),
    built("force-new-cluster", Bool, "false", Unsafe, "go on alone with what this member holds; all other members are removed"),
    later("feature-gates", Gates, "", Tuning, "name=bool,name=bool"),
    built("config-file", Text, "", Other, "YAML file with the options; all other flags and variables are then ignored").no_yaml(),
    built("discovery-fallback", OneOf(&["exit", "proxy"]), "exit", Clustering, "always exit").no_yaml(),
    built("initial-cluster-state", OneOf(&["new", "existing"]), "new", Clustering, "new or existing"),
    built("v2-deprecation", SomeOf(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]), "write-only", Other, "has no effect (deprecated)"),
    built("version", Bool, "false", Other, "print the version and exit").no_yaml(),
    ignored("cluster-active-size"),
    ignored("cluster-remove-delay"),
    ignored("cluster-sync-interval"),
    ignored("config"),
    ignored("force"),
    ignored("max-result-buffer"),
    ignored("max-retry-attempts"),
    ignored("peer-heartbeat-interval"),
    ignored("peer-election-timeout"),
    ignored("retry-interval"),
    ignored("snapshot"),
    ignored("v"),
    ignored("vv"),
    ignored("test.coverprofile"),
    ignored("test.outputdir"),
];

/// The feature gates of etcd 3.7 and their defaults.
pub const GATES: &[(&str, bool)] = &[
    ("StopGRPCServiceOnDefrag", false),
    ("InitialCorruptCheck", false),
    ("CompactHashCheck", false),
    ("TxnModeWriteWithSharedBuffer", true),
    ("LeaseCheckpoint", false),
    ("LeaseCheckpointPersist", false),
    ("SetMemberLocalAddr", false),
    ("FastLeaseKeepAlive", true),
    ("PriorityRequest", false),
    ("AllAlpha", false),
    ("AllBeta", false),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_variables_and_keys_are_told_apart() {
        let mut names: Vec<&str> = FLAGS.iter().map(|flag| flag.name).collect();
        let mut keys: Vec<&str> = FLAGS.iter().filter_map(|flag| flag.yaml).collect();
        assert_eq!((names.len(), keys.len()), (128, 106));
        names.sort_unstable();
        keys.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]));
        let flag = |name: &str| &FLAGS[position(name).expect("listed")];
        assert_eq!(flag("listen-client-urls").variable(), "ETCD_LISTEN_CLIENT_URLS");
        assert_eq!(flag("peer-auto-tls").yaml, Some("peer-transport-security.auto-tls"));
        assert_eq!(flag("client-crl-file").yaml, None);
        assert_eq!(flag("name").default, "default");
        assert!(flag("force").is_switch() && flag("pre-vote").is_switch() && !flag("name").is_switch());
        assert!(FLAGS.iter().all(|flag| flag.help.is_empty() == (flag.kind == Ignored)));
    }
}
