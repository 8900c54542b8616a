//! Fills the table: for every round, row and server a fresh process, the load, and its figures.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use crate::load::{Edge, KeyOrder, LoadError, Pace, Plan, Report, Shape, Span, Workload, run};
use crate::table::rows::{Figure, Row, Size, rows};
use crate::table::server::{Kind, Server, ServerError};
use crate::table::stats::{Spread, ratios};

/// Length of the values.
pub const VALUE_BYTES: usize = 256;
/// Clients that put the keys before other rows.
const PRELOAD_CLIENTS: usize = 100;

/// How to fill it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The servers and their programs, in the order of the first turn.
    pub programs: Vec<(Kind, PathBuf)>,
    /// Where the servers' directories are made; its file system is part of what is measured.
    pub directory: PathBuf,
    /// Which rows.
    pub size: Size,
    /// Of these, only those whose name with clients (`put 100`) contains one of these; all if there are none.
    pub rows: Vec<String>,
    /// How often.
    pub rounds: usize,
    /// How long the clients work before it counts.
    pub warm_up: Duration,
    /// How long it counts.
    pub measured: Duration,
    /// Size of the key space.
    pub keys: u64,
    /// Clients beyond this number share connections.
    pub connections_max: usize,
    /// How many puts make the stores that are filled before something is measured.
    pub dataset: u64,
}

impl Options {
    /// Whether a row or scene of this name is to be measured.
    pub fn wants(&self, name: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|part| name.contains(part.as_str()))
    }
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// A server could not be measured.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A run has no result.
    #[error("{kind}, {row} with {clients} clients: {error}")]
    Load {
        /// The server.
        kind: Kind,
        /// The row's name.
        row: String,
        /// The row's clients.
        clients: usize,
        /// What happened.
        error: LoadError,
    },
    /// The server's processor time could not be read: it has ended.
    #[error("the CPU clock of {kind}: {error}")]
    Clock {
        /// The server.
        kind: Kind,
        /// What happened.
        error: Errno,
    },
}

/// The figures of one server in one row and round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Requests answered per second.
    pub per_second: f64,
    /// Latencies in milliseconds.
    pub p50_ms: f64,
    /// One request of a hundred takes longer.
    pub p99_ms: f64,
    /// One request of a thousand takes longer.
    pub p999_ms: f64,
    /// Processor time of the server per request, in microseconds.
    pub cpu_us: f64,
}

impl Cell {
    fn new(report: &Report, cpu: Duration) -> Self {
        let millis = |part| report.latency.quantile(part).as_secs_f64() * 1e3;
        Self {
            per_second: report.per_second(),
            p50_ms: millis(0.5),
            p99_ms: millis(0.99),
            p999_ms: millis(0.999),
            cpu_us: cpu.as_secs_f64() * 1e6 / report.requests() as f64,
        }
    }

    /// One of its figures.
    pub fn figure(&self, figure: Figure) -> f64 {
        match figure {
            Figure::Throughput => self.per_second,
            Figure::P50 => self.p50_ms,
            Figure::P99 => self.p99_ms,
            Figure::P999 => self.p999_ms,
            Figure::Cpu => self.cpu_us,
        }
    }
}

/// All cells of a row: by server, one for each round.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The row.
    pub row: Row,
    /// Its cells. A server that the row does not suit has none.
    pub cells: BTreeMap<Kind, Vec<Cell>>,
}

impl Measured {
    /// A server's figure over the rounds.
    pub fn spread(&self, kind: Kind, figure: Figure) -> Option<Spread> {
        Spread::of(&self.values(kind, figure))
    }

    /// How many times another server's figure detcd's is, over the rounds.
    pub fn ratio(&self, against: Kind, figure: Figure) -> Option<Spread> {
        Spread::of(&ratios(&self.values(Kind::Detcd, figure), &self.values(against, figure)))
    }

    fn values(&self, kind: Kind, figure: Figure) -> Vec<f64> {
        self.cells.get(&kind).into_iter().flatten().map(|cell| cell.figure(figure)).collect()
    }
}

/// Measures everything. `on_cell` hears of every cell as it is filled.
pub async fn measure(
    options: &Options,
    mut on_cell: impl FnMut(Row, Kind, &Cell),
) -> Result<Vec<Measured>, MeasureError> {
    let mut rows = rows(options.size);
    rows.retain(|row| options.wants(&format!("{} {}", row.name(), row.clients)));
    let mut table: Vec<Measured> = rows.into_iter().map(|row| Measured { row, cells: BTreeMap::new() }).collect();
    for round in 0..options.rounds {
        for (number, measured) in table.iter_mut().enumerate() {
            let row = measured.row;
            for (kind, program) in turns(&options.programs, round + number) {
                if !row.suits(*kind) {
                    continue;
                }
                if options.size == Size::Full {
                    // What the last server left in the page cache must not be written during this one's turn.
                    nix::unistd::sync();
                }
                let server = Server::start(*kind, program, &options.directory).await?;
                let cell = fill(options, row, *kind, &server).await?;
                on_cell(row, *kind, &cell);
                measured.cells.entry(*kind).or_default().push(cell);
            }
        }
    }
    Ok(table)
}

/// The servers in the order of this turn: each is first in turn.
pub(crate) fn turns<T>(servers: &[T], turn: usize) -> impl Iterator<Item = &T> {
    servers.iter().cycle().skip(turn % servers.len().max(1)).take(servers.len())
}

async fn fill(options: &Options, row: Row, kind: Kind, server: &Server) -> Result<Cell, MeasureError> {
    let on_error = |error| MeasureError::Load { kind, row: row.name(), clients: row.clients, error };
    let on_clock_error = |error| MeasureError::Clock { kind, error };
    if row.needs_keys() {
        run(&preload_plan(options, server), |_| ()).await.map_err(on_error)?;
    }
    let clock = server.cpu_clock().map_err(on_clock_error)?;
    let (mut opened, mut closed) = (Ok(Duration::ZERO), Ok(Duration::ZERO));
    let read_clock = |edge| match edge {
        Edge::Opened => opened = clock.now(),
        Edge::Closed => closed = clock.now(),
    };
    let report = run(&row_plan(options, row, server), read_clock).await.map_err(on_error)?;
    let cpu = closed.map_err(on_clock_error)?.saturating_sub(opened.map_err(on_clock_error)?);
    Ok(Cell::new(&report, cpu))
}

fn row_plan(options: &Options, row: Row, server: &Server) -> Plan {
    Plan {
        servers: [server.address(); 3],
        clients: row.clients,
        connections: row.clients.min(options.connections_max),
        shape: Shape {
            workload: row.workload,
            key_order: KeyOrder::Random,
            keys: options.keys,
            value_bytes: VALUE_BYTES,
            seed: row.clients as u64,
        },
        span: Span::Window { warm_up: options.warm_up, measured: options.measured },
        pace: Pace::Closed,
        refusals_allowed: 0,
    }
}

/// Puts every key once.
fn preload_plan(options: &Options, server: &Server) -> Plan {
    let row = Row { workload: Workload::Put, clients: PRELOAD_CLIENTS };
    let plan = row_plan(options, row, server);
    let shape = Shape { key_order: KeyOrder::Sequential, ..plan.shape };
    Plan { shape, span: Span::Count(options.keys), ..plan }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Latency;

    fn cell(per_second: f64, cpu_us: f64) -> Cell {
        Cell { per_second, p50_ms: 1.0, p99_ms: 2.0, p999_ms: 3.0, cpu_us }
    }

    #[test]
    fn every_server_has_the_first_turn_in_turn() {
        let order = |turn| turns(&["a", "b", "c"], turn).copied().collect::<Vec<_>>();
        assert_eq!(order(0), ["a", "b", "c"]);
        assert_eq!(order(1), ["b", "c", "a"]);
        assert_eq!(order(2), ["c", "a", "b"]);
        assert_eq!(order(3), order(0));
        assert_eq!(turns(&[] as &[u8], 5).count(), 0);
    }

    #[test]
    fn a_cell_divides_the_servers_time_by_its_requests() {
        let mut by_rpc = <[Latency; 3]>::default();
        (0..200).for_each(|_| by_rpc[0].record(Duration::from_millis(4)));
        let report = Report::new(Duration::from_secs(2), by_rpc, 200, 0);
        let cell = Cell::new(&report, Duration::from_millis(10));
        assert_eq!((cell.per_second, cell.cpu_us), (100.0, 50.0));
        assert!((cell.figure(Figure::P99) - 4.0).abs() < 0.01);
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios() {
        let row = Row { workload: Workload::Put, clients: 1 };
        let ours = vec![cell(10.0, 5.0), cell(30.0, 5.0), cell(20.0, 5.0)];
        let theirs = vec![cell(10.0, 10.0), cell(10.0, 20.0), cell(5.0, 50.0)];
        let measured = Measured { row, cells: BTreeMap::from([(Kind::Detcd, ours), (Kind::Etcd, theirs)]) };
        let expected = Spread { median: 3.0, min: 1.0, max: 4.0 };
        assert_eq!(measured.ratio(Kind::Etcd, Figure::Throughput), Some(expected));
        let spread = measured.spread(Kind::Etcd, Figure::Cpu).expect("three rounds");
        assert_eq!(spread, Spread { median: 20.0, min: 10.0, max: 50.0 });
        assert_eq!(measured.ratio(Kind::Floor, Figure::Cpu), None);
    }
}
