//! What came of a run: how many requests, in which time, and how long each took.
//!
//! Latencies are kept in a histogram of three significant digits, so that merging the parts of a run loses nothing and
//! a run of any length takes the same memory.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::requests::Rpc;

/// The finest latency told apart; no call over a socket is shorter.
const LATENCY_NANOS_MIN: u64 = 100;
/// Longer ones count as this long. A run stalls (and fails) before.
const LATENCY_NANOS_MAX: u64 = 120_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// A distribution of latencies.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(LATENCY_NANOS_MIN, LATENCY_NANOS_MAX, SIGNIFICANT_DIGITS)
            .expect("the bounds are constant and in order");
        Self { histogram }
    }
}

impl Latency {
    /// Adds one request.
    pub fn record(&mut self, latency: Duration) {
        self.histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds all requests of another distribution.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all distributions have the same bounds");
    }

    /// The latency that the given part of all requests did not exceed; 0.5 is the median.
    pub fn quantile(&self, part: f64) -> Duration {
        assert!((0.0..=1.0).contains(&part));
        Duration::from_nanos(self.histogram.value_at_quantile(part))
    }

    /// How many requests it holds.
    pub fn requests(&self) -> u64 {
        self.histogram.len()
    }
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// How long was measured.
    pub elapsed: Duration,
    /// Latencies of the requests that ended while it was measured, with a good status.
    pub latency: Latency,
    /// The same, by method, in the order of [`Rpc::ALL`].
    pub by_rpc: [Latency; Rpc::ALL.len()],
    /// Requests answered in the whole run, with whatever status.
    pub answered: u64,
    /// Requests with an error status, of the whole run.
    pub refused: u64,
}

impl Report {
    /// The report on a run that took so long.
    pub fn new(elapsed: Duration, by_rpc: [Latency; Rpc::ALL.len()], answered: u64, refused: u64) -> Self {
        let mut latency = Latency::default();
        by_rpc.iter().for_each(|part| latency.merge(part));
        Self { elapsed, latency, by_rpc, answered, refused }
    }

    /// Latencies of one method.
    pub fn of(&self, rpc: Rpc) -> &Latency {
        &self.by_rpc[rpc as usize]
    }

    /// Requests answered while it was measured.
    pub fn requests(&self) -> u64 {
        self.latency.requests()
    }

    /// Requests answered per second.
    pub fn per_second(&self) -> f64 {
        self.requests() as f64 / self.elapsed.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(measured: Duration, expected: Duration) -> bool {
        measured.abs_diff(expected) <= expected / 500
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut latency = Latency::default();
        (1..=1000).for_each(|micros| latency.record(Duration::from_micros(micros * 10)));
        assert_eq!(latency.requests(), 1000);
        for (part, micros) in [(0.5, 5_000), (0.99, 9_900), (0.999, 9_990), (1.0, 10_000)] {
            let measured = latency.quantile(part);
            assert!(near(measured, Duration::from_micros(micros)), "{part}: {measured:?}");
        }
    }

    #[test]
    fn merged_parts_equal_the_whole() {
        let (mut whole, mut odd, mut even) = (Latency::default(), Latency::default(), Latency::default());
        for number in 1..=10_000_u64 {
            let latency = Duration::from_nanos(number * number * 7 + 1_000);
            whole.record(latency);
            if number.is_multiple_of(2) { even.record(latency) } else { odd.record(latency) }
        }
        let mut merged = Latency::default();
        merged.merge(&odd);
        merged.merge(&even);
        assert_eq!(merged.histogram, whole.histogram);
        assert_eq!(merged.requests(), 10_000);
    }

    #[test]
    fn latencies_out_of_range_are_counted_at_its_end() {
        let mut latency = Latency::default();
        latency.record(Duration::from_secs(1_000_000));
        assert_eq!(latency.requests(), 1);
        assert!(near(latency.quantile(1.0), Duration::from_nanos(LATENCY_NANOS_MAX)));
    }

    #[test]
    fn throughput_counts_what_was_answered() {
        let mut by_rpc = <[Latency; 3]>::default();
        (0..200).for_each(|_| by_rpc[Rpc::Put as usize].record(Duration::from_millis(1)));
        (0..100).for_each(|_| by_rpc[Rpc::Range as usize].record(Duration::from_millis(1)));
        let report = Report::new(Duration::from_secs(2), by_rpc, 400, 7);
        assert_eq!((report.requests(), report.answered, report.refused), (300, 400, 7));
        assert_eq!((report.of(Rpc::Put).requests(), report.of(Rpc::Txn).requests()), (200, 0));
        assert_eq!(report.per_second(), 150.0);
    }
}
