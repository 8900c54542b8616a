//! The metrics of leases, collected from the store's counters when somebody scrapes.

use std::sync::atomic::{AtomicU64, Ordering};

use detcd_io::store::Store;
use detcd_io::store::backend::Backend;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Histogram, Metric, MetricFamily, MetricType};

const COUNTERS: [(&str, &str); 4] = [
    ("etcd_debugging_lease_granted_total", "The total number of granted leases."),
    ("etcd_debugging_lease_revoked_total", "The total number of revoked leases."),
    ("etcd_debugging_lease_renewed_total", "The number of renewed leases seen by the leader."),
    ("etcd_debugging_server_lease_expired_total", "The total number of expired leases."),
];
const TTL: (&str, &str) = ("etcd_debugging_lease_ttl_total", "Bucketed histogram of lease TTLs.");

/// The collector over one member's store.
pub(super) struct Leases<B> {
    store: Store<B>,
    descs: Vec<Desc>,
}

impl<B: Backend> Leases<B> {
    pub(super) fn new(store: Store<B>) -> Self {
        let desc = |(name, help): &(&str, &str)| {
            let desc = Desc::new((*name).to_owned(), (*help).to_owned(), Vec::new(), Default::default());
            desc.expect("names are constants")
        };
        Self { store, descs: COUNTERS.iter().chain([&TTL]).map(desc).collect() }
    }
}

impl<B: Backend> Collector for Leases<B> {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counts = self.store.lease_counts();
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let numbers = [&counts.granted, &counts.revoked, &counts.renewed, &counts.expired].map(load);
        let counter = |((name, help), number): (&(&str, &str), u64)| {
            let mut counter = Counter::default();
            counter.set_value(number as f64);
            let mut metric = Metric::default();
            metric.set_counter(counter);
            family(name, help, MetricType::COUNTER, metric)
        };
        let mut families: Vec<MetricFamily> = COUNTERS.iter().zip(numbers).map(counter).collect();
        let mut histogram = Histogram::default();
        let mut sum = 0;
        let bucket = |(exponent, count): (usize, &AtomicU64)| {
            sum += load(count);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound((1_u64 << exponent) as f64);
            bucket.set_cumulative_count(sum);
            bucket
        };
        histogram.set_bucket(counts.ttl_buckets.iter().enumerate().map(bucket).collect());
        histogram.set_sample_count(numbers[0].max(sum));
        histogram.set_sample_sum(load(&counts.ttl_seconds) as f64);
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        families.push(family(TTL.0, TTL.1, MetricType::HISTOGRAM, metric));
        families
    }
}

fn family(name: &str, help: &str, kind: MetricType, metric: Metric) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}
