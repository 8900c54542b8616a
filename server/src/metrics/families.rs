//! A scrape under construction: values that somebody keeps, put into the shapes of the exposition format.
//!
//! Nothing is registered and nothing is remembered: what is counted elsewhere cannot drift from what is told here.

use detcd_io::stats::{Histogram, Outcomes};
use prometheus::proto::{self, Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Nanoseconds in a second, and in a millisecond: the units of histograms.
pub(super) const SECONDS: f64 = 1e9;
pub(super) const MILLISECONDS: f64 = 1e6;

/// Metric families, in the order in which they were added.
#[derive(Default)]
pub(super) struct Families {
    all: Vec<MetricFamily>,
}

/// Adds the series of one family.
pub(super) struct Series<'a> {
    family: &'a mut MetricFamily,
}

/// Names and values of the labels of one series, names in their order.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Families {
    pub(super) fn into_all(self) -> Vec<MetricFamily> {
        // A family without a series is not told.
        self.all.into_iter().filter(|family| !family.get_metric().is_empty()).collect()
    }

    fn family(&mut self, name: &str, help: &str, kind: MetricType) -> Series<'_> {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        self.all.push(family);
        Series { family: self.all.last_mut().expect("just pushed") }
    }

    pub(super) fn counters(&mut self, name: &str, help: &str) -> Series<'_> {
        self.family(name, help, MetricType::COUNTER)
    }

    pub(super) fn gauges(&mut self, name: &str, help: &str) -> Series<'_> {
        self.family(name, help, MetricType::GAUGE)
    }

    pub(super) fn histograms(&mut self, name: &str, help: &str) -> Series<'_> {
        self.family(name, help, MetricType::HISTOGRAM)
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help).count(&[], value);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help).gauge(&[], value);
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, unit: f64, histogram: &Histogram) {
        self.histograms(name, help).histogram(&[], unit, histogram);
    }
}

fn labelled(labels: Labels<'_>) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

impl Series<'_> {
    pub(super) fn count(&mut self, labels: Labels<'_>, value: u64) {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        let mut metric = labelled(labels);
        metric.set_counter(counter);
        self.family.mut_metric().push(metric);
    }

    pub(super) fn gauge(&mut self, labels: Labels<'_>, value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = labelled(labels);
        metric.set_gauge(gauge);
        self.family.mut_metric().push(metric);
    }

    pub(super) fn histogram(&mut self, labels: Labels<'_>, unit: f64, histogram: &Histogram) {
        let read = histogram.read();
        let mut told = proto::Histogram::default();
        let bucket = |(end, count): &(u64, u64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*end as f64 / unit);
            bucket.set_cumulative_count(*count);
            bucket
        };
        told.set_bucket(read.buckets.iter().map(bucket).collect());
        told.set_sample_count(read.count);
        told.set_sample_sum(read.nanos as f64 / unit);
        let mut metric = labelled(labels);
        metric.set_histogram(told);
        self.family.mut_metric().push(metric);
    }

    /// The series of what went well and of what did not; one that never happened is not told, as in etcd.
    pub(super) fn outcomes(&mut self, labels: Labels<'_>, outcomes: &Outcomes) {
        for (success, histogram) in [("true", &outcomes.done), ("false", &outcomes.failed)] {
            if histogram.read().count > 0 {
                let mut all = labels.to_vec();
                all.push(("success", success));
                all.sort_unstable();
                self.histogram(&all, SECONDS, histogram);
            }
        }
    }
}
