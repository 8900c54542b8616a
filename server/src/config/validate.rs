//! etcd's rules over the values: which are lawful alone, and which together.
//!
//! Invariant: the rules run in etcd's order and answer in etcd's words, so that of several mistakes the same one is named first. What detcd
//! has not built yet is refused only after these, by `build.rs`.

use std::net::IpAddr;

use detcd_core::mvcc::auto_compact::Retention;
use detcd_io::boot::url::{Scheme, Url, join, split_host_port};

use crate::flags::settings::Settings;
use crate::flags::value::{format_duration, parse_duration};
use crate::log::{Line, Severity};

/// A value, or a combination of values, that etcd refuses.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// The proxy of old.
    #[error("v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"")]
    DiscoveryFallback,
    /// The logger of old.
    #[error("--logger=capnslog is removed in v3.5")]
    LoggerRemoved,
    /// No such logger.
    #[error("unknown logger option {0:?}")]
    Logger(String),
    /// `default` beside others.
    #[error("multi logoutput for \"default\" is not supported yet")]
    LogOutputs,
    /// Rotation needs one file.
    #[error("--log-outputs requires a single file path when --log-rotate-config-json is defined")]
    LogRotation,
    /// No such level. etcd panics.
    #[error("unrecognized level: {0:?}")]
    LogLevel(String),
    /// No such format.
    #[error("unknown log format: {0}, supported values json, console")]
    LogFormat(String),
    /// An address that cannot be listened on.
    #[error("{0}")]
    Bind(String),
    /// A peer URL nobody can call.
    #[error("--initial-advertise-peer-urls {urls:?} must be \"host:port\" ({cause})")]
    AdvertisePeer {
        /// The list.
        urls: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A client URL nobody can call.
    #[error(
        "--advertise-client-urls {urls:?} must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" ({cause})"
    )]
    AdvertiseClient {
        /// The list.
        urls: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Neither new nor existing.
    #[error("unexpected clusterState {0:?}")]
    ClusterState(String),
    /// Two ways to find the cluster.
    #[error(
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\""
    )]
    BootstrapConflict,
    /// Half a discovery.
    #[error("both --discovery-token and --discovery-endpoints must be set")]
    DiscoveryHalf,
    /// An empty endpoint.
    #[error("--discovery-endpoints must not contain empty endpoints")]
    DiscoveryEndpoints,
    /// A time of zero.
    #[error("--{0} must be >0 (set to 0ms)")]
    Zero(&'static str),
    /// Elections that heartbeats cannot hold off.
    #[error("--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]")]
    ElectionShort {
        /// Milliseconds.
        election: u64,
        /// Milliseconds.
        heartbeat: u64,
    },
    /// Elections that never come.
    #[error("--election-timeout[{0}ms] is too long, and should be set less than 50000ms")]
    ElectionLong(u64),
    /// Clients would be told a default that is wrong.
    #[error("--advertise-client-urls is required when --listen-client-urls is set explicitly")]
    AdvertiseClientUnset,
    /// No mode of compaction.
    #[error("undefined auto-compaction-mode")]
    CompactionModeEmpty,
    /// No such mode.
    #[error("unknown auto-compaction-mode {0:?}")]
    CompactionMode(String),
    /// No such retention.
    #[error("error parsing CompactionRetention: {0}")]
    CompactionRetention(String),
    /// Tracing of a share that is none.
    #[error("distributed tracing configurition is not valid: (tracing sampling rate must be {0})")]
    Tracing(&'static str),
    /// One gate needs another.
    #[error("enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint")]
    LeaseCheckpoint,
    /// A check that would never rest.
    #[error("--compact-hash-check-time must be >0 (set to {0})")]
    CompactHashCheckTime(String),
    /// No such version of TLS.
    #[error("unexpected TLS version {0:?} (must be one of: TLS1.2, TLS1.3)")]
    TlsVersion(String),
    /// An empty range of versions.
    #[error("min version ({min}) is greater than max version ({max})")]
    TlsRange {
        /// The lowest.
        min: String,
        /// The highest.
        max: String,
    },
    /// TLS 1.3 chooses for itself.
    #[error("cipher suites cannot be configured when only TLS1.3 is enabled")]
    CipherSuites,
    /// One address for two things.
    #[error("cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {0}")]
    SameAddress(String),
    /// TLS without a certificate.
    #[error("TLS key/cert (--cert-file, --key-file) must be provided for client url {0} with HTTPS scheme")]
    ClientCertificate(String),
    /// TLS without a certificate.
    #[error("client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url")]
    MetricsCertificate,
    /// No such kind of token.
    #[error("auth: invalid auth options")]
    AuthToken,
    /// A time or count below zero, which etcd would take for a very busy store.
    #[error("--{flag} must not be negative (set to {value})")]
    Negative {
        /// The flag.
        flag: &'static str,
        /// The value.
        value: String,
    },
}

impl Invalid {
    /// Whether etcd finds this only while it starts, which it logs differently.
    #[must_use]
    pub const fn is_found_at_start(&self) -> bool {
        matches!(
            self,
            Self::CompactionRetention(_)
                | Self::SameAddress(_)
                | Self::ClientCertificate(_)
                | Self::MetricsCertificate
                | Self::AuthToken
        )
    }
}

/// Which rules apply: one of them asks what was typed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Road {
    /// Command line and environment.
    Typed,
    /// The configuration file.
    File,
}

/// Applies the rules.
///
/// # Errors
/// The first rule that is broken.
pub fn validate(settings: &Settings, road: Road, lines: &mut Vec<Line>) -> Result<(), Invalid> {
    if settings.text("discovery-fallback") == "proxy" {
        return Err(Invalid::DiscoveryFallback);
    }
    logging(settings)?;
    addresses(settings, lines)?;
    bootstrap(settings, road)?;
    times(settings)?;
    if road == Road::Typed && settings.is_set("listen-client-urls") && !settings.is_set("advertise-client-urls") {
        return Err(Invalid::AdvertiseClientUnset);
    }
    features(settings, lines)?;
    if settings.text("name") == "default" {
        let message = "it isn't recommended to use default name, please set a value for --name. \
                       Note that etcd might run into issue when multiple members have the same default name";
        lines.push(Line::new(Severity::Warn, message).with("name", "default"));
    }
    tls(settings)?;
    starting(settings, lines)
}

fn logging(settings: &Settings) -> Result<(), Invalid> {
    match settings.text("logger") {
        "zap" => {}
        "capnslog" => return Err(Invalid::LoggerRemoved),
        other => return Err(Invalid::Logger(other.to_owned())),
    }
    let outputs = settings.texts("log-outputs");
    if outputs.len() > 1 && outputs.iter().any(|output| output == "default") {
        return Err(Invalid::LogOutputs);
    }
    if settings.switch("enable-log-rotation") {
        let files = outputs.iter().filter(|output| !matches!(output.as_str(), "default" | "stderr" | "stdout")).count();
        if files > 1 || (files == 0 && outputs.len() == 1) {
            return Err(Invalid::LogRotation);
        }
    }
    let level = settings.text("log-level");
    if Severity::parse(level).is_none() {
        return Err(Invalid::LogLevel(level.to_owned()));
    }
    match settings.text("log-format") {
        "json" | "console" => Ok(()),
        other => Err(Invalid::LogFormat(other.to_owned())),
    }
}

fn addresses(settings: &Settings, lines: &mut Vec<Line>) -> Result<(), Invalid> {
    for name in ["listen-peer-urls", "listen-client-urls", "listen-client-http-urls"] {
        bindable(settings.urls(name))?;
    }
    if settings.urls("listen-client-http-urls").is_empty() {
        let message = "Running http and grpc server on single port. This is not recommended for production.";
        lines.push(Line::new(Severity::Warn, message));
    }
    bindable(settings.urls("listen-metrics-urls"))?;
    let peer = settings.urls("initial-advertise-peer-urls");
    callable(peer).map_err(|cause| Invalid::AdvertisePeer { urls: join(peer), cause })?;
    let client = settings.urls("advertise-client-urls");
    callable(client).map_err(|cause| Invalid::AdvertiseClient { urls: join(client), cause })
}

/// A listener's host is an address or `localhost`: looking a name up could give any machine's.
fn bindable(urls: &[Url]) -> Result<(), Invalid> {
    for url in urls {
        if let Scheme::Unix | Scheme::Unixs = url.scheme() {
            continue;
        }
        let (host, _port) = split_host_port(url.authority()).map_err(Invalid::Bind)?;
        if host != "localhost" && host.parse::<IpAddr>().is_err() {
            return Err(Invalid::Bind(format!("expected IP in URL for binding ({url})")));
        }
    }
    Ok(())
}

fn callable(urls: &[Url]) -> Result<(), String> {
    for url in urls {
        if let Scheme::Unix | Scheme::Unixs = url.scheme() {
            continue;
        }
        let (host, _port) = split_host_port(url.authority())?;
        if host.is_empty() {
            return Err(format!("unexpected empty host ({url})"));
        }
    }
    Ok(())
}

fn bootstrap(settings: &Settings, road: Road) -> Result<(), Invalid> {
    let state = settings.text("initial-cluster-state");
    if !matches!(state, "new" | "existing") {
        return Err(Invalid::ClusterState(state.to_owned()));
    }
    let endpoints = settings.texts("discovery-endpoints");
    let by_service = !settings.text("discovery-srv").is_empty();
    let by_name = road == Road::Typed && !settings.text("discovery-srv-name").is_empty();
    let discovers = by_service || by_name || !endpoints.is_empty();
    // A default cluster gives way to a discovery; one that was asked for does not.
    let is_asked_for = match road {
        Road::Typed => settings.is_set("initial-cluster"),
        Road::File => settings.text("initial-cluster") != DEFAULT_CLUSTER,
    };
    let by_list = !settings.text("initial-cluster").is_empty() && (is_asked_for || !discovers);
    if [by_list, by_service, !endpoints.is_empty()].iter().filter(|&&way| way).count() > 1 {
        return Err(Invalid::BootstrapConflict);
    }
    if settings.text("discovery-token").is_empty() != endpoints.is_empty() {
        return Err(Invalid::DiscoveryHalf);
    }
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        return Err(Invalid::DiscoveryEndpoints);
    }
    Ok(())
}

/// The initial cluster of a member that was told nothing.
pub const DEFAULT_CLUSTER: &str = "default=http://localhost:2380";

fn times(settings: &Settings) -> Result<(), Invalid> {
    let heartbeat = settings.unsigned("heartbeat-interval");
    let election = settings.unsigned("election-timeout");
    if heartbeat == 0 {
        return Err(Invalid::Zero("heartbeat-interval"));
    }
    if election == 0 {
        return Err(Invalid::Zero("election-timeout"));
    }
    if heartbeat.saturating_mul(5) > election {
        return Err(Invalid::ElectionShort { election, heartbeat });
    }
    if election > ELECTION_MS_MAX {
        return Err(Invalid::ElectionLong(election));
    }
    Ok(())
}

/// The longest wait for a leader that etcd takes.
const ELECTION_MS_MAX: u64 = 50_000;

fn features(settings: &Settings, lines: &mut Vec<Line>) -> Result<(), Invalid> {
    match settings.text("auto-compaction-mode") {
        "periodic" | "revision" => {}
        "" => return Err(Invalid::CompactionModeEmpty),
        other => return Err(Invalid::CompactionMode(other.to_owned())),
    }
    if settings.switch("enable-distributed-tracing") {
        match settings.signed("distributed-tracing-sampling-rate") {
            ..0 => return Err(Invalid::Tracing("positive")),
            0..=1_000_000 => {}
            _ => return Err(Invalid::Tracing("less than 1000000")),
        }
    }
    let gates = settings.gates();
    match (gates["LeaseCheckpoint"], gates["LeaseCheckpointPersist"]) {
        (false, true) => return Err(Invalid::LeaseCheckpoint),
        (true, false) => {
            let message = "Detected that checkpointing is enabled without persistence. Consider enabling feature gate LeaseCheckpointPersist";
            lines.push(Line::new(Severity::Warn, message));
        }
        (true, true) | (false, false) => {}
    }
    let nanos = settings.nanos("compact-hash-check-time");
    if nanos <= 0 {
        return Err(Invalid::CompactHashCheckTime(format_duration(nanos)));
    }
    Ok(())
}

fn tls(settings: &Settings) -> Result<(), Invalid> {
    let (min, max) = (settings.text("tls-min-version"), settings.text("tls-max-version"));
    for version in [min, max] {
        if !matches!(version, "" | "TLS1.2" | "TLS1.3") {
            return Err(Invalid::TlsVersion(version.to_owned()));
        }
    }
    if !max.is_empty() && min > max {
        return Err(Invalid::TlsRange { min: min.to_owned(), max: max.to_owned() });
    }
    if min == "TLS1.3" && !settings.texts("cipher-suites").is_empty() {
        return Err(Invalid::CipherSuites);
    }
    Ok(())
}

/// What etcd only finds while it starts. Here it is found before anything is touched.
fn starting(settings: &Settings, lines: &mut Vec<Line>) -> Result<(), Invalid> {
    let client = settings.urls("listen-client-urls");
    let http = settings.urls("listen-client-http-urls");
    let has_certificate =
        settings.switch("auto-tls") || !(settings.text("cert-file").is_empty() || settings.text("key-file").is_empty());
    for url in client.iter().chain(http) {
        let is_secure = matches!(url.scheme(), Scheme::Https | Scheme::Unixs);
        if is_secure && !has_certificate {
            return Err(Invalid::ClientCertificate(url.to_string()));
        }
    }
    if let Some(url) = client.iter().find(|url| http.iter().any(|other| other.authority() == url.authority())) {
        return Err(Invalid::SameAddress(url.to_string()));
    }
    let metrics = settings.urls("listen-metrics-urls");
    if !has_certificate && metrics.iter().any(|url| matches!(url.scheme(), Scheme::Https | Scheme::Unixs)) {
        return Err(Invalid::MetricsCertificate);
    }
    retention(settings)?;
    token(settings.text("auth-token"), lines)?;
    if settings.unsigned("max-request-bytes") > REQUEST_BYTES_RECOMMENDED {
        let line = Line::new(Severity::Warn, "exceeded recommended request limit");
        let line = line.with("max-request-bytes", settings.unsigned("max-request-bytes"));
        lines.push(line.with("recommended-request-bytes", REQUEST_BYTES_RECOMMENDED));
    }
    if settings.signed("quota-backend-bytes") > QUOTA_BYTES_RECOMMENDED {
        let line = Line::new(Severity::Warn, "quota exceeds the maximum value");
        lines.push(line.with("quota-size-bytes", settings.signed("quota-backend-bytes")));
    }
    if !(4..=31).contains(&settings.unsigned("bcrypt-cost")) {
        let line = Line::new(Severity::Warn, "use default bcrypt cost instead of the invalid given cost");
        lines.push(line.with("given-cost", settings.unsigned("bcrypt-cost")).with("default-cost", 10));
    }
    let interval = settings.nanos("backend-batch-interval");
    if interval < 0 {
        return Err(Invalid::Negative { flag: "backend-batch-interval", value: format_duration(interval) });
    }
    let limit = settings.signed("backend-batch-limit");
    if limit < 0 {
        return Err(Invalid::Negative { flag: "backend-batch-limit", value: limit.to_string() });
    }
    Ok(())
}

/// Longer requests are taken, with a warning.
const REQUEST_BYTES_RECOMMENDED: u64 = 10 * 1024 * 1024;

/// Larger quotas are taken, with a warning.
const QUOTA_BYTES_RECOMMENDED: i64 = 8 * 1024 * 1024 * 1024;

/// How much history is kept; `None` for all of it. A bare number means hours or revisions, anything else is a duration, whose nanoseconds count as revisions
/// where those are asked for, as in etcd.
///
/// # Errors
/// A text that is neither.
pub fn retention(settings: &Settings) -> Result<Option<Retention>, Invalid> {
    let text = settings.text("auto-compaction-retention");
    let by_revision = settings.text("auto-compaction-mode") == "revision";
    let nanos = match text.parse::<i64>() {
        Ok(number) if number >= 0 && by_revision => number,
        Ok(number) if number >= 0 => number.saturating_mul(HOUR_NANOS),
        _ => parse_duration(text).map_err(Invalid::CompactionRetention)?,
    };
    Ok(match u64::try_from(nanos).unwrap_or(0) {
        // Less than nothing is nothing.
        0 => None,
        _ if by_revision => Some(Retention::Revisions(nanos)),
        nanos => Some(Retention::Period((nanos / MILLI_NANOS).max(1))),
    })
}

const HOUR_NANOS: i64 = 3_600_000_000_000;
const MILLI_NANOS: u64 = 1_000_000;

fn token(options: &str, lines: &mut Vec<Line>) -> Result<(), Invalid> {
    let mut parts = options.split(',');
    let kind = parts.next().unwrap_or_default();
    if !parts.all(|part| part.matches('=').count() == 1) || !matches!(kind, "simple" | "jwt" | "") {
        return Err(Invalid::AuthToken);
    }
    if kind == "simple" {
        lines.push(Line::new(Severity::Warn, "simple token is not cryptographically signed"));
    }
    Ok(())
}
