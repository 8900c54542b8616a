//! The table as a page to read: the machine, how to repeat it, the figures, the ratios, and the verdict on every bar.

use std::time::Duration;

use crate::table::machine::Machine;
use crate::table::measure::{Measured, VALUE_BYTES};
use crate::table::rows::{Bar, Bound, Figure, bars};
use crate::table::seat::COMMON_FLAGS;
use crate::table::server::Kind;
use crate::table::stats::Spread;

/// What the figures were measured with.
#[derive(Clone, Debug)]
pub struct Setting {
    /// On which machine.
    pub machine: Machine,
    /// The servers and what they say about their version.
    pub versions: Vec<(Kind, String)>,
    /// How often.
    pub rounds: usize,
    /// For how long each time.
    pub measured: Duration,
    /// Size of the key space.
    pub keys: u64,
    /// Clients beyond this number share connections.
    pub connections_max: usize,
    /// How many puts make the stores that are filled beforehand.
    pub dataset: u64,
}

/// Whether a bar is cleared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is.
    Pass,
    /// It is not.
    Short,
    /// One of the two servers was not measured in that row.
    Unknown,
}

/// The verdict on a bar, and the ratio it rests on.
pub fn judge(bar: &Bar, table: &[Measured]) -> (Verdict, Option<Spread>) {
    let measured = table.iter().find(|measured| measured.row == bar.row);
    let ratio = measured.and_then(|measured| measured.ratio(bar.against, bar.figure));
    let verdict = match ratio {
        None => Verdict::Unknown,
        Some(ratio) if bar.bound.admits(ratio.median) => Verdict::Pass,
        Some(_) => Verdict::Short,
    };
    (verdict, ratio)
}

/// The whole page, in Markdown; sections of its own may follow the table.
pub fn page(setting: &Setting, table: &[Measured], more: Vec<String>) -> String {
    let mut lines = introduction(setting);
    lines.extend(repetition(setting));
    if !table.is_empty() {
        lines.extend(figures(table));
        lines.extend(comparisons(table));
        lines.extend(verdicts(table));
    }
    lines.extend(more);
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines.join("\n") + "\n"
}

fn introduction(setting: &Setting) -> Vec<String> {
    let Setting { machine, rounds, measured, keys, connections_max, .. } = setting;
    let mut lines = vec![
        "# Benchmarks".to_owned(),
        String::new(),
        "detcd, etcd and a *floor* under the same load from the same generator. The floor is the same gRPC stack with \
         nothing behind it but a group-committed fdatasync into a preallocated file: what no server of durable puts can \
         do without."
            .to_owned(),
        String::new(),
        format!(
            "Each figure is the median of {rounds} rounds of {} s, with the smallest and the largest in brackets. Every \
             round starts every server afresh on an empty directory, one at a time, in changing order. Values have \
             {VALUE_BYTES} bytes; keys are drawn at random from {keys}. All clients ask again as soon as they are \
             answered; they have a connection each up to {connections_max} and share them beyond. The generator runs \
             beside the server on the same cores. CPU is the user and system time of the server's process.",
            measured.as_secs_f64(),
        ),
        String::new(),
        "## Machine".to_owned(),
        String::new(),
        format!("- {} cores, {}", machine.cores, machine.processor),
        format!("- {} MiB of memory", machine.memory_mib),
        format!("- Linux {}", machine.kernel),
    ];
    lines.extend(setting.versions.iter().map(|(kind, version)| format!("- {kind}: {version}")));
    lines.push(String::new());
    lines
}

fn repetition(setting: &Setting) -> Vec<String> {
    let run = format!(
        "target/release/detcd-bench --detcd target/release/detcd --floor target/release/detcd-floor --etcd ETCD \
         --rounds {} --seconds {} --keys {} --connections-max {} --dataset {} --out docs/benchmarks.md",
        setting.rounds,
        setting.measured.as_secs(),
        setting.keys,
        setting.connections_max,
        setting.dataset,
    );
    vec![
        "## Repeat it".to_owned(),
        String::new(),
        "```sh".to_owned(),
        "cargo build --release -p detcd-server -p detcd-bench".to_owned(),
        run,
        "```".to_owned(),
        String::new(),
        format!(
            "`ETCD` is the path of an etcd binary. It and detcd get the same flags: addresses, directory and `{}`.",
            COMMON_FLAGS.join(" "),
        ),
        String::new(),
    ]
}

fn figures(table: &[Measured]) -> Vec<String> {
    let headings = Figure::ALL.map(Figure::heading).join(" | ");
    let mut lines = vec![
        "## Figures".to_owned(),
        String::new(),
        format!("| load | clients | server | {headings} |"),
        format!("|---|--:|---|{}", "--:|".repeat(Figure::ALL.len())),
    ];
    for measured in table {
        for &kind in measured.cells.keys() {
            let cells = Figure::ALL.map(|figure| {
                let show = |value| figure.show(value);
                measured.spread(kind, figure).map_or_else(dash, |spread| bracketed(&spread, show))
            });
            let (name, clients) = (measured.row.name(), measured.row.clients);
            lines.push(format!("| {name} | {clients} | {kind} | {} |", cells.join(" | ")));
        }
    }
    lines.push(String::new());
    lines
}

fn comparisons(table: &[Measured]) -> Vec<String> {
    let headings = Figure::ALL.map(|figure| figure.heading().split(' ').next().unwrap_or_default()).join(" | ");
    let mut lines = vec![
        "## Ratios".to_owned(),
        String::new(),
        "detcd's figure divided by the other server's, round by round. Throughput is better above 1, all others below."
            .to_owned(),
        String::new(),
        format!("| load | clients | against | {headings} |"),
        format!("|---|--:|---|{}", "--:|".repeat(Figure::ALL.len())),
    ];
    for measured in table {
        for against in [Kind::Etcd, Kind::Floor] {
            let ratios = Figure::ALL.map(|figure| measured.ratio(against, figure));
            if ratios.iter().all(Option::is_none) {
                continue;
            }
            let cells = ratios.map(|ratio| ratio.map_or_else(dash, |spread| bracketed(&spread, times)));
            let (name, clients) = (measured.row.name(), measured.row.clients);
            lines.push(format!("| {name} | {clients} | {against} | {} |", cells.join(" | ")));
        }
    }
    lines.push(String::new());
    lines
}

fn verdicts(table: &[Measured]) -> Vec<String> {
    let mut lines = vec![
        "## Bars".to_owned(),
        String::new(),
        "| load | clients | figure | bar | measured | verdict |".to_owned(),
        "|---|--:|---|---|--:|---|".to_owned(),
    ];
    for bar in bars() {
        let (verdict, ratio) = judge(&bar, table);
        let demand = match bar.bound {
            Bound::AtMost(limit) => format!("at most {limit} × {}", bar.against),
            Bound::AtLeast(limit) => format!("at least {limit} × {}", bar.against),
        };
        let verdict = match verdict {
            Verdict::Pass => "pass",
            Verdict::Short => "**short**",
            Verdict::Unknown => "not measured",
        };
        let measured = ratio.map_or_else(dash, |spread| bracketed(&spread, times));
        let (name, clients, figure) = (bar.row.name(), bar.row.clients, bar.figure.heading());
        lines.push(format!("| {name} | {clients} | {figure} | {demand} | {measured} | {verdict} |"));
    }
    lines.push(String::new());
    lines
}

pub(crate) fn bracketed(spread: &Spread, show: impl Fn(f64) -> String) -> String {
    format!("{} ({}–{})", show(spread.median), show(spread.min), show(spread.max))
}

pub(crate) fn times(ratio: f64) -> String {
    format!("{ratio:.2}")
}

pub(crate) fn dash() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::load::Workload;
    use crate::table::measure::Cell;
    use crate::table::rows::{Row, Size, rows};

    fn setting() -> Setting {
        Setting {
            machine: Machine { cores: 2, processor: "P".to_owned(), memory_mib: 2048, kernel: "6.1".to_owned() },
            versions: vec![(Kind::Etcd, "etcd Version: 3.7.3".to_owned())],
            rounds: 1,
            measured: Duration::from_secs(5),
            keys: 10_000,
            connections_max: 100,
            dataset: 1_000_000,
        }
    }

    fn table(kinds: &[(Kind, Cell)]) -> Vec<Measured> {
        let cells = |row: Row| -> BTreeMap<Kind, Vec<Cell>> {
            kinds.iter().filter(|(kind, _)| row.suits(*kind)).map(|&(kind, cell)| (kind, vec![cell])).collect()
        };
        rows(Size::Full).into_iter().map(|row| Measured { row, cells: cells(row) }).collect()
    }

    fn cell(per_second: f64, latency_ms: f64, cpu_us: f64) -> Cell {
        Cell { per_second, p50_ms: latency_ms, p99_ms: latency_ms, p999_ms: latency_ms, cpu_us }
    }

    #[test]
    fn every_bar_is_judged_by_the_median_ratio() {
        let good = table(&[
            (Kind::Detcd, cell(3000.0, 1.0, 30.0)),
            (Kind::Etcd, cell(1000.0, 4.0, 90.0)),
            (Kind::Floor, cell(3500.0, 0.9, 25.0)),
        ]);
        assert!(bars().iter().all(|bar| judge(bar, &good).0 == Verdict::Pass));
        let bad = table(&[
            (Kind::Detcd, cell(1000.0, 4.0, 90.0)),
            (Kind::Etcd, cell(1000.0, 4.0, 90.0)),
            (Kind::Floor, cell(3500.0, 0.9, 25.0)),
        ]);
        assert!(bars().iter().all(|bar| judge(bar, &bad).0 == Verdict::Short));
    }

    #[test]
    fn a_bar_against_a_server_that_did_not_run_is_left_open() {
        let alone = table(&[(Kind::Detcd, cell(3000.0, 1.0, 30.0)), (Kind::Floor, cell(3500.0, 0.9, 25.0))]);
        for bar in bars() {
            let expected = if bar.against == Kind::Floor { Verdict::Pass } else { Verdict::Unknown };
            assert_eq!(judge(&bar, &alone).0, expected, "{bar:?}");
        }
        let page = page(&setting(), &alone, Vec::new());
        assert!(page.contains("not measured"));
        assert!(!page.contains("| etcd |"));
    }

    #[test]
    fn further_sections_follow_with_the_table_or_without() {
        let more = vec!["## More".to_owned(), String::new(), "of it".to_owned(), String::new()];
        let without = page(&setting(), &[], more.clone());
        assert!(without.ends_with("\n\n## More\n\nof it\n"), "{without}");
        assert!(!without.contains("## Figures") && !without.contains("## Bars"));
        let with = page(&setting(), &table(&[(Kind::Etcd, cell(1.0, 1.0, 1.0))]), more);
        assert!(with.contains("| not measured |\n\n## More\n"), "{with}");
    }

    #[test]
    fn the_page_shows_figures_ratios_and_verdicts() {
        let both = table(&[(Kind::Detcd, cell(3000.0, 1.0, 30.0)), (Kind::Etcd, cell(1000.0, 4.0, 60.0))]);
        let page = page(&setting(), &both, Vec::new());
        let detcd = "| put | 1 | detcd | 3000 (3000–3000) | 1.00 (1.00–1.00) | 1.00 (1.00–1.00) | 1.00 (1.00–1.00) | \
                     30.0 (30.0–30.0) |";
        assert!(page.contains(detcd), "{page}");
        assert!(page.contains("| put | 1000 | requests/s | at least 2 × etcd | 3.00 (3.00–3.00) | pass |"), "{page}");
        assert!(page.contains("| put | 1000 | CPU µs/request | at most 0.4 × etcd | 0.50 (0.50–0.50) | **short** |"));
        assert!(page.contains("--rounds 1 --seconds 5 --keys 10000 --connections-max 100 --dataset 1000000 --out"));
        assert!(page.contains("- etcd: etcd Version: 3.7.3"));
        let mixed = Row { workload: Workload::Mixed { reads_percent: 90 }, clients: 100 }.name();
        assert!(page.contains(&format!("| {mixed} | 100 | etcd | 3.00 (3.00–3.00) |")), "{page}");
    }
}
