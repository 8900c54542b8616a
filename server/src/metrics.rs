//! Metrics with etcd's names, types and labels, for what exists. Values that the member keeps anyway are read at scrape time.
//!
//! The registry is a value, not a global: two members in one process would not share it.

mod alarms;
mod families;
mod kept;
mod leases;
mod peers;
mod process;
pub(crate) mod rpc;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use detcd_io::boot::journal::Journal;
use detcd_io::store::backend::Backend;
use detcd_server::compose::Written;
use detcd_server::member::{Member, VERSION};
use prometheus::core::Collector;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::peer::counts::Counts;

use self::families::Families;
use self::rpc::Rpcs;

/// The metrics of one member. Clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    written: Written,
    peers: Arc<Counts>,
    rpcs: Arc<Rpcs>,
    scrapes: Scrapes,
    alarms: alarms::Told,
    sampled: Sampled,
    watching: Watching,
    ready_seconds: Gauge,
    health: Health,
}

/// What those were told who asked whether the member is well.
struct Health {
    success: IntCounter,
    failures: IntCounter,
    check: IntGaugeVec,
    checks: IntCounterVec,
}

/// Scrapes themselves.
#[derive(Default)]
struct Scrapes {
    answered: AtomicU64,
    in_flight: AtomicU64,
}

impl Scrapes {
    fn add(&self, out: &mut Families) {
        let mut series = out.counters("promhttp_metric_handler_requests_total", "Scrapes by their status.");
        series.count(&[("code", "200")], self.answered.load(Ordering::Relaxed));
        let in_flight = self.in_flight.load(Ordering::Relaxed) as f64;
        out.gauge("promhttp_metric_handler_requests_in_flight", "Scrapes that are being answered.", in_flight);
    }
}

/// Gauges that are set when somebody scrapes.
struct Sampled {
    has_leader: IntGauge,
    is_leader: IntGauge,
    is_learner: IntGauge,
    committed: IntGauge,
    applied: IntGauge,
    pending: IntGauge,
    leader_changes: IntCounter,
    proposals_failed: IntCounter,
    reads_failed: IntCounter,
    db_size: IntGauge,
    db_in_use: IntGauge,
    cluster_version: IntGaugeVec,
}

/// What is told about watching.
struct Watching {
    streams: IntGauge,
    watchers: IntGauge,
    slow_watchers: IntGauge,
    pending_events: IntGauge,
    events: IntCounter,
    failures: IntCounterVec,
}

/// Makes and registers one metric.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn add<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("names and labels are constants");
        self.0.register(Box::new(metric.clone())).expect("each name once");
        metric
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }
}

impl Metrics {
    /// The metrics of `member`; those of its starts begin where the journal left them.
    pub(crate) fn new<B: Backend>(
        member: &Member<B>,
        journal: &Journal,
        (written, peers): (Written, Arc<Counts>),
        extensive: bool,
    ) -> Self {
        let registry = Registry::new();
        let maker = Maker(&registry);
        add_constants(&maker, member);
        add_starts(&maker, journal);
        registry.register(Box::new(leases::Leases::new(member.store().clone()))).expect("each name once");
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process)).expect("each name once");
        let inner = Inner {
            written,
            peers,
            rpcs: Arc::new(Rpcs::new(extensive)),
            scrapes: Scrapes::default(),
            alarms: alarms::Told::default(),
            sampled: Sampled::new(&maker),
            watching: Watching::new(&maker),
            ready_seconds: maker.add(Gauge::new(
                "etcd_bootstrap_ready_seconds",
                "Seconds from the start of the process until clients were served.",
            )),
            health: Health::new(&maker),
            registry,
        };
        Self { inner: Arc::new(inner) }
    }

    /// What is counted of gRPC.
    pub(crate) fn rpcs(&self) -> &Arc<Rpcs> {
        &self.inner.rpcs
    }

    /// Clients are served.
    pub(crate) fn ready(&self, seconds: f64) {
        self.inner.ready_seconds.set(seconds);
    }

    /// `/health` was answered.
    pub(crate) fn on_health(&self, healthy: bool) {
        let health = &self.inner.health;
        if healthy { health.success.inc() } else { health.failures.inc() }
    }

    /// A check of `/livez` or `/readyz` was made.
    pub(crate) fn on_check(&self, kind: &str, name: &str, passed: bool) {
        self.inner.health.check.with_label_values(&[kind, name]).set(i64::from(passed));
        let status = if passed { "success" } else { "error" };
        self.inner.health.checks.with_label_values(&[kind, name, status]).inc();
    }

    /// The text of a scrape.
    pub(crate) fn text<B: Backend>(&self, member: &Member<B>) -> String {
        self.inner.sampled.sample(member);
        self.inner.watching.sample(member);
        let scrapes = &self.inner.scrapes;
        scrapes.in_flight.fetch_add(1, Ordering::Relaxed);
        let mut out = Families::default();
        scrapes.add(&mut out);
        kept::add_written(&mut out, &self.inner.written);
        kept::add_store(&mut out, member);
        kept::add_requests(&mut out, member);
        kept::add_promotions(&mut out, member.counts());
        kept::add_driver(&mut out, member.asker().gauges().counted());
        peers::add(&mut out, member.identity().member, &self.inner.peers);
        self.inner.alarms.add(&mut out, &member.store().alarms());
        self.inner.rpcs.add(&mut out);
        process::add(&mut out);
        let mut families = self.inner.registry.gather();
        families.extend(out.into_all());
        families.sort_by(|one, other| one.name().cmp(other.name()));
        let mut text = String::new();
        // Only a metric without a name or help fails to encode.
        let encoded = TextEncoder::new().encode_utf8(&families, &mut text);
        encoded.expect("every metric has a name and a help text");
        scrapes.in_flight.fetch_sub(1, Ordering::Relaxed);
        scrapes.answered.fetch_add(1, Ordering::Relaxed);
        text
    }
}

impl Health {
    fn new(maker: &Maker<'_>) -> Self {
        Self {
            success: maker.counter("etcd_server_health_success", "The total number of successful health checks"),
            failures: maker.counter("etcd_server_health_failures", "The total number of failed health checks"),
            check: maker.gauges(
                "etcd_server_healthcheck",
                "The result of each kind of healthcheck.",
                &["type", "name"],
            ),
            checks: maker.counters(
                "etcd_server_healthchecks_total",
                "The total number of each kind of healthcheck.",
                &["type", "name", "status"],
            ),
        }
    }
}

fn add_constants<B: Backend>(maker: &Maker<'_>, member: &Member<B>) {
    let version = maker.gauges("etcd_server_version", "Which version is running.", &["server_version"]);
    version.with_label_values(&[VERSION]).set(1);
    let id = maker.gauges("etcd_server_id", "Server or member ID in hexadecimal format.", &["server_id"]);
    id.with_label_values(&[member.identity().member.to_string().as_str()]).set(1);
}

fn add_starts(maker: &Maker<'_>, journal: &Journal) {
    let errors = maker.counters(
        "etcd_bootstrap_errors_total",
        "Starts of this data directory that failed, by reason.",
        &["reason"],
    );
    for (reason, count) in &journal.bootstrap_errors {
        errors.with_label_values(&[reason.as_str()]).inc_by(*count);
    }
    maker
        .counter("etcd_listener_failure_total", "Starts of this data directory that could not bind a port.")
        .inc_by(journal.listener_failures);
    maker
        .counter("etcd_unsupported_arch_runs_total", "Starts on an architecture that is not supported.")
        .inc_by(journal.unsupported_arch_runs);
}

impl Sampled {
    fn new(maker: &Maker<'_>) -> Self {
        Self {
            has_leader: maker.gauge("etcd_server_has_leader", "Whether a leader exists. 1 is existence, 0 is not."),
            is_leader: maker
                .gauge("etcd_server_is_leader", "Whether this member is a leader. 1 if it is, 0 otherwise."),
            is_learner: maker
                .gauge("etcd_server_is_learner", "Whether this member is a learner. 1 if it is, 0 otherwise."),
            committed: maker
                .gauge("etcd_server_proposals_committed_total", "The total number of consensus proposals committed."),
            applied: maker
                .gauge("etcd_server_proposals_applied_total", "The total number of consensus proposals applied."),
            pending: maker.gauge("etcd_server_proposals_pending", "The current number of pending proposals to commit."),
            leader_changes: maker
                .counter("etcd_server_leader_changes_seen_total", "The number of leader changes seen."),
            proposals_failed: maker
                .counter("etcd_server_proposals_failed_total", "The total number of failed proposals seen."),
            reads_failed: maker
                .counter("etcd_server_read_indexes_failed_total", "The total number of failed read indexes seen."),
            db_size: maker.gauge(
                "etcd_mvcc_db_total_size_in_bytes",
                "Total size of the underlying database physically allocated in bytes.",
            ),
            db_in_use: maker.gauge(
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Total size of the underlying database logically in use in bytes.",
            ),
            cluster_version: maker.gauges(
                "etcd_cluster_version",
                "Which version is running. 1 for 'cluster_version' label with current cluster version",
                &["cluster_version"],
            ),
        }
    }

    fn sample<B: Backend>(&self, member: &Member<B>) {
        let gauges = member.asker().gauges();
        let counts = member.counts();
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.has_leader.set(i64::from(gauges.leader().is_some()));
        self.is_leader.set(i64::from(gauges.leads()));
        self.is_learner.set(i64::from(member.is_learner()));
        self.committed.set(number(gauges.committed().0));
        self.applied.set(number(gauges.applied().0));
        self.pending.set(number(counts.proposals_pending.load(Ordering::Relaxed)));
        raise(&self.leader_changes, gauges.counted().leader_changes.load(Ordering::Relaxed));
        raise(&self.proposals_failed, counts.proposals_failed.load(Ordering::Relaxed));
        raise(&self.reads_failed, counts.reads_failed.load(Ordering::Relaxed));
        let size = member.store().size();
        self.db_size.set(number(size.allocated));
        self.db_in_use.set(number(size.in_use));
        if let Some(version) = member.store().membership().cluster_version() {
            let label = format!("{}.{}", version.major, version.minor);
            for family in self.cluster_version.collect() {
                for told in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
                    self.cluster_version.with_label_values(&[told.value()]).set(0);
                }
            }
            self.cluster_version.with_label_values(&[label.as_str()]).set(1);
        }
    }
}

impl Watching {
    fn new(maker: &Maker<'_>) -> Self {
        let gauge = |name: &str, help: &str| maker.gauge(&format!("etcd_debugging_mvcc_{name}"), help);
        Self {
            streams: gauge("watch_stream_total", "Total number of watch streams."),
            watchers: gauge("watcher_total", "Total number of watchers."),
            slow_watchers: gauge("slow_watcher_total", "Total number of unsynced slow watchers."),
            pending_events: gauge("pending_events_total", "Total number of pending events to be sent."),
            events: maker.counter("etcd_debugging_mvcc_events_total", "Total number of events sent by this member."),
            failures: maker.counters(
                "etcd_network_server_stream_failures_total",
                "The total number of stream failures from the local server.",
                &["Type", "API"],
            ),
        }
    }

    fn sample<B: Backend>(&self, member: &Member<B>) {
        let counts = member.fanout().counts();
        let number = |value: &AtomicU64| i64::try_from(value.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        self.streams.set(number(&counts.streams));
        self.watchers.set(number(&counts.watchers));
        self.slow_watchers.set(number(&counts.slow_watchers));
        self.pending_events.set(number(&counts.pending_events));
        raise(&self.events, counts.events.load(Ordering::Relaxed));
        let failures = counts.receive_failures.load(Ordering::Relaxed);
        if failures > 0 {
            raise(&self.failures.with_label_values(&["receive", "watch"]), failures);
        }
    }
}

/// Brings a counter up to a count that is kept elsewhere.
fn raise(counter: &IntCounter, count: u64) {
    counter.inc_by(count.saturating_sub(counter.get()));
}
