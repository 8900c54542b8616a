//! What is measured, and what detcd has to reach.

use crate::load::Workload;
use crate::table::server::Kind;

/// One load under which the servers are compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Row {
    /// What is asked.
    pub workload: Workload,
    /// By how many clients at once.
    pub clients: usize,
}

/// Reads and writes as they come in practice.
const MIXED: Workload = Workload::Mixed { reads_percent: 90 };

impl Row {
    /// The load's name in the table.
    pub fn name(self) -> String {
        match self.workload {
            Workload::Put | Workload::StampedPut => "put".to_owned(),
            Workload::LinearizableRange => "range, linearizable".to_owned(),
            Workload::SerializableRange => "range, serializable".to_owned(),
            Workload::Txn => "txn".to_owned(),
            Workload::Mixed { reads_percent } => format!("mixed {reads_percent}/{}", 100 - reads_percent),
        }
    }

    /// Whether the server can do it: the floor only puts.
    pub fn suits(self, kind: Kind) -> bool {
        kind != Kind::Floor || self.workload == Workload::Put
    }

    /// Whether the keys must have been put before.
    pub fn needs_keys(self) -> bool {
        self.workload != Workload::Put
    }
}

/// How much to measure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Size {
    /// All of it.
    Full,
    /// One row of each kind, to see that everything works.
    Smoke,
}

/// The rows of the table.
pub fn rows(size: Size) -> Vec<Row> {
    let row = |workload, clients| Row { workload, clients };
    match size {
        Size::Full => vec![
            row(Workload::Put, 1),
            row(Workload::Put, 100),
            row(Workload::Put, 1000),
            row(Workload::LinearizableRange, 1),
            row(Workload::LinearizableRange, 100),
            row(Workload::LinearizableRange, 1000),
            row(Workload::SerializableRange, 100),
            row(Workload::Txn, 100),
            row(MIXED, 100),
        ],
        Size::Smoke => vec![
            row(Workload::Put, 1),
            row(Workload::Put, 100),
            row(Workload::LinearizableRange, 100),
            row(Workload::SerializableRange, 10),
            row(Workload::Txn, 10),
            row(MIXED, 10),
        ],
    }
}

/// One of the figures of a cell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Figure {
    /// Requests answered per second.
    Throughput,
    /// Median latency.
    P50,
    /// Latency that one request of a hundred exceeds.
    P99,
    /// Latency that one request of a thousand exceeds.
    P999,
    /// Processor time of the server per request.
    Cpu,
}

impl Figure {
    /// All of them, in the order of the table's columns.
    pub const ALL: [Self; 5] = [Self::Throughput, Self::P50, Self::P99, Self::P999, Self::Cpu];

    /// The heading of the column.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Throughput => "requests/s",
            Self::P50 => "p50 ms",
            Self::P99 => "p99 ms",
            Self::P999 => "p99.9 ms",
            Self::Cpu => "CPU µs/request",
        }
    }

    /// The figure as the table shows it.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Throughput => format!("{value:.0}"),
            Self::P50 | Self::P99 | Self::P999 => format!("{value:.2}"),
            Self::Cpu => format!("{value:.1}"),
        }
    }
}

/// How far detcd's figure may be from another server's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// At most so many times as much.
    AtMost(f64),
    /// At least so many times as much.
    AtLeast(f64),
}

impl Bound {
    /// Whether the ratio keeps it.
    pub fn admits(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(limit) => ratio <= limit,
            Self::AtLeast(limit) => limit <= ratio,
        }
    }
}

/// What detcd has to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    /// In this row,
    pub row: Row,
    /// with this figure,
    pub figure: Figure,
    /// against this server,
    pub against: Kind,
    /// this much.
    pub bound: Bound,
}

/// All bars.
pub fn bars() -> Vec<Bar> {
    let put = |clients| Row { workload: Workload::Put, clients };
    let range = |clients| Row { workload: Workload::LinearizableRange, clients };
    let bar = |row, figure, against, bound| Bar { row, figure, against, bound };
    vec![
        bar(put(1), Figure::Cpu, Kind::Etcd, Bound::AtMost(0.4)),
        bar(put(100), Figure::Cpu, Kind::Etcd, Bound::AtMost(0.4)),
        bar(put(1000), Figure::Cpu, Kind::Etcd, Bound::AtMost(0.4)),
        bar(put(1000), Figure::Throughput, Kind::Etcd, Bound::AtLeast(2.0)),
        bar(put(1000), Figure::Throughput, Kind::Floor, Bound::AtLeast(0.75)),
        bar(put(100), Figure::P99, Kind::Etcd, Bound::AtMost(0.5)),
        bar(put(1000), Figure::P99, Kind::Etcd, Bound::AtMost(0.5)),
        bar(put(1), Figure::P50, Kind::Etcd, Bound::AtMost(0.7)),
        bar(range(1), Figure::Cpu, Kind::Etcd, Bound::AtMost(0.5)),
        bar(range(100), Figure::Cpu, Kind::Etcd, Bound::AtMost(0.5)),
        bar(range(1000), Figure::Cpu, Kind::Etcd, Bound::AtMost(0.5)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_can_be_measured() {
        let rows = rows(Size::Full);
        for bar in bars() {
            assert!(rows.contains(&bar.row), "{bar:?}");
            assert!(bar.row.suits(bar.against), "{bar:?}");
        }
    }

    #[test]
    fn a_smoke_has_a_row_of_every_kind() {
        let smoke: Vec<String> = rows(Size::Smoke).into_iter().map(Row::name).collect();
        for row in rows(Size::Full) {
            assert!(smoke.contains(&row.name()), "{row:?}");
        }
    }

    #[test]
    fn a_bound_holds_at_its_limit_and_not_beyond() {
        assert!(Bound::AtMost(0.4).admits(0.4));
        assert!(!Bound::AtMost(0.4).admits(0.41));
        assert!(Bound::AtLeast(2.0).admits(2.0));
        assert!(!Bound::AtLeast(2.0).admits(1.99));
    }
}
