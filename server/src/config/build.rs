//! From checked values to the configuration, and the last word on what is not built.
//!
//! Invariant: whatever a flag asks for is either in the [`Config`] or refused by name. Nothing is taken and then forgotten.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use detcd_io::applier::Budget;
use detcd_io::boot::asked::{Asked, ClusterState, Recovery, cluster_of_one};
use detcd_io::boot::inspect::Places;
use detcd_io::boot::url::{Scheme, Url};
use detcd_io::driver::bounds;
use detcd_io::peer;
use detcd_io::store::copying::Chunk;
use detcd_io::store::overlay::OverlayMax;
use detcd_io::sweeper::Pace;

use super::validate::{DEFAULT_CLUSTER, Invalid, retention};
use super::{Config, Data, Limits, Logging, Raft, Refused, Store, Urls, Watch};
use crate::fanout;
use crate::flags::settings::Settings;
use crate::flags::table::Support;
use crate::flags::value::is_default;
use crate::log::{Format, Line, Output, Severity};

/// Builds the configuration from values that [`super::validate::validate`] has accepted.
///
/// # Errors
/// Something that is not built yet, or never will be.
pub fn build(settings: &Settings, lines: &mut Vec<Line>) -> Result<Config, Refused> {
    refuse_unbuilt(settings)?;
    if REQUEST_BYTES_MAX < settings.unsigned("max-request-bytes") {
        let reason = "members take messages of at most 64 MiB from each other, so it may be 66 MB at most";
        return Err(Refused::Never { flag: "max-request-bytes", reason });
    }
    let logging = logging(settings)?;
    for name in ["listen-peer-urls", "listen-client-urls"] {
        plain(name, settings.urls(name))?;
    }
    let listen_peer = settings.urls("listen-peer-urls").to_vec();
    let advertise_peer = settings.urls("initial-advertise-peer-urls").to_vec();
    let is_everywhere = |url: &Url| url.host_port().is_some_and(|(host, _port)| host == "0.0.0.0");
    if !settings.is_set("initial-advertise-peer-urls") && listen_peer.iter().any(is_everywhere) {
        let message =
            "peers are told http://localhost:2380; set --initial-advertise-peer-urls to an address they can reach";
        lines.push(Line::new(Severity::Warn, message));
    }
    let asked = asked(settings, advertise_peer.clone());
    let data = data(settings, &asked.name, lines);
    Ok(Config {
        asked,
        data,
        urls: Urls {
            listen_peer,
            listen_client: settings.urls("listen-client-urls").to_vec(),
            advertise_peer,
            advertise_client: settings.urls("advertise-client-urls").to_vec(),
        },
        raft: raft(settings),
        limits: Limits {
            strict_reconfig: settings.switch("strict-reconfig-check"),
            txn_ops_max: settings.unsigned("max-txn-ops"),
            request_bytes_max: settings.unsigned("max-request-bytes"),
            streams_max: u32::try_from(settings.unsigned("max-concurrent-streams")).unwrap_or(u32::MAX),
            quota_bytes: match settings.signed("quota-backend-bytes") {
                0 => QUOTA_BYTES,
                bytes => bytes,
            },
        },
        store: store(settings)?,
        watch: watch(settings, lines),
        logging,
        // Anything else is basic, as in etcd.
        extensive_metrics: settings.text("metrics") == "extensive",
    })
}

/// The longest request that can be asked for: with what is around it, it fits into one message between members.
const REQUEST_BYTES_MAX: u64 = 66_000_000;
const _: () = assert!(REQUEST_BYTES_MAX + (1 << 20) < peer::bounds::FRAME_BYTES_MAX as u64);

/// The quota if none was set.
const QUOTA_BYTES: i64 = 2 * 1024 * 1024 * 1024;

fn refuse_unbuilt(settings: &Settings) -> Result<(), Refused> {
    let not_built = |what: &str| Err(Refused::NotBuilt { what: what.to_owned() });
    for (flag, value) in settings.iter() {
        if flag.support == Support::Built || is_default(flag, value) {
            continue;
        }
        return match flag.support {
            Support::Never => {
                Err(Refused::Never { flag: flag.name, reason: "a write that was acknowledged is on the disk" })
            }
            Support::Built | Support::Later => not_built(&format!("--{}", flag.name)),
        };
    }
    // Anything shorter is raised to the default, as in etcd.
    for name in ["raft-read-timeout", "raft-write-timeout"] {
        if settings.nanos(name) > RAFT_TIMEOUT_NANOS {
            return not_built(&format!("--{name}"));
        }
    }
    Ok(())
}

const RAFT_TIMEOUT_NANOS: i64 = 5_000_000_000;

/// Only TCP in the clear is listened on so far.
fn plain(name: &str, urls: &[Url]) -> Result<(), Refused> {
    match urls.iter().find(|url| url.scheme() != Scheme::Http) {
        Some(url) => Err(Refused::NotBuilt { what: format!("the scheme {} in --{name}", url.scheme().name()) }),
        None => Ok(()),
    }
}

fn logging(settings: &Settings) -> Result<Logging, Refused> {
    let level = settings.text("log-level");
    let threshold = Severity::parse(level).ok_or_else(|| Invalid::LogLevel(level.to_owned()))?;
    let format = if settings.text("log-format") == "console" { Format::Console } else { Format::Json };
    let output = match settings.texts("log-outputs") {
        [] => Output::Stderr,
        [one] => match one.as_str() {
            "default" | "stderr" => Output::Stderr,
            "stdout" => Output::Stdout,
            "systemd/journal" => {
                return Err(Refused::NotBuilt { what: "systemd/journal in --log-outputs".to_owned() });
            }
            path => Output::File(PathBuf::from(path)),
        },
        _ => return Err(Refused::NotBuilt { what: "more than one output in --log-outputs".to_owned() }),
    };
    Ok(Logging { threshold, format, output })
}

fn asked(settings: &Settings, advertise_peer_urls: Vec<Url>) -> Asked {
    let name = settings.text("name").to_owned();
    let mut initial_cluster = settings.text("initial-cluster").to_owned();
    // Only the name was said: the cluster is this member.
    if name != "default" && initial_cluster == DEFAULT_CLUSTER {
        let called = if name.is_empty() { "default" } else { name.as_str() };
        initial_cluster = cluster_of_one(called, &advertise_peer_urls);
    }
    let state = match settings.text("initial-cluster-state") {
        "existing" => ClusterState::Existing,
        _ => ClusterState::New,
    };
    Asked {
        name,
        initial_cluster,
        token: settings.text("initial-cluster-token").to_owned(),
        state,
        advertise_peer_urls,
        learners_max: usize::try_from(settings.signed("max-learners")).unwrap_or(0),
        recovery: if settings.switch("force-new-cluster") { Recovery::ForceNewCluster } else { Recovery::Ordinary },
        others: None,
        resolved: BTreeMap::new(),
    }
}

fn data(settings: &Settings, name: &str, lines: &mut Vec<Line>) -> Data {
    let mut data_dir = settings.text("data-dir").to_owned();
    if data_dir.is_empty() {
        data_dir = format!("{name}.etcd");
        let line = Line::new(Severity::Warn, "'data-dir' was empty; using default");
        lines.push(line.with("data-dir", data_dir.as_str()));
    }
    let wal_dir = settings.text("wal-dir");
    let wal_dir = if wal_dir.is_empty() { None } else { Some(PathBuf::from(wal_dir)) };
    Data {
        places: Places::new(PathBuf::from(data_dir), wal_dir),
        snapshot_entries: settings.unsigned("snapshot-count"),
        catch_up_entries: match settings.unsigned("snapshot-catchup-entries") {
            0 => bounds::CATCH_UP_ENTRIES,
            entries => entries,
        },
        wals_max: settings.unsigned("max-wals"),
        snapshots_max: settings.unsigned("max-snapshots"),
    }
}

fn raft(settings: &Settings) -> Raft {
    let heartbeat = settings.unsigned("heartbeat-interval");
    let election = settings.unsigned("election-timeout");
    Raft {
        heartbeat: Duration::from_millis(heartbeat),
        election: Duration::from_millis(election),
        election_ticks: election / heartbeat,
        pre_vote: settings.switch("pre-vote"),
    }
}

fn store(settings: &Settings) -> Result<Store, Refused> {
    let interval = settings.nanos("backend-batch-interval").unsigned_abs();
    let limit = settings.signed("backend-batch-limit").unsigned_abs();
    Ok(Store {
        batch_interval: if interval == 0 { Duration::from_millis(100) } else { Duration::from_nanos(interval) },
        batch_ops_max: if limit == 0 { 10_000 } else { limit },
        overlay_max: OverlayMax::default(),
        apply_turn: Budget::default(),
        sweeps: sweeps(settings),
        copy_chunk: Chunk::USUAL,
        retention: retention(settings)?,
    })
}

/// Zero, and what is less, means the default.
fn sweeps(settings: &Settings) -> Pace {
    let rows = usize::try_from(settings.signed("compaction-batch-limit")).unwrap_or(0);
    let pause = u64::try_from(settings.nanos("compaction-sleep-interval")).unwrap_or(0);
    Pace {
        rows: if rows == 0 { 1_000 } else { rows },
        pause: if pause == 0 { Duration::from_millis(10) } else { Duration::from_nanos(pause) },
    }
}

/// The time between two reports of progress if nothing else is asked for, and the shortest.
const PROGRESS_INTERVAL: Duration = Duration::from_mins(10);
const PROGRESS_INTERVAL_LEAST: Duration = Duration::from_millis(100);

fn watch(settings: &Settings, lines: &mut Vec<Line>) -> Watch {
    // Zero or less keeps the default, as in etcd.
    let asked = u64::try_from(settings.nanos("watch-progress-notify-interval")).ok().filter(|nanos| *nanos > 0);
    let mut progress_interval = asked.map_or(PROGRESS_INTERVAL, Duration::from_nanos);
    if progress_interval < PROGRESS_INTERVAL_LEAST {
        progress_interval = PROGRESS_INTERVAL_LEAST;
        let message = "adjusting watch progress notify interval to minimum period";
        lines.push(Line::new(Severity::Warn, message).with("min-watch-progress-notify-interval", "100ms"));
    }
    Watch { progress_interval, limits: fanout::Limits::default() }
}
