//! The table maker as a process: arguments, progress, and no server left behind on a signal.
//!
//! It runs on one thread. The generator then costs the servers, which share the cores with it, no more than it must.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the page and its progress are what this binary is for")]

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use detcd_bench::scene::Scene;
use detcd_bench::scene::page::section;
use detcd_bench::scene::stage::{Sample, perform};
use detcd_bench::table::machine::Machine;
use detcd_bench::table::measure::{Cell, Options, measure};
use detcd_bench::table::page::{Setting, page};
use detcd_bench::table::rows::{Row, Size};
use detcd_bench::table::server::{Kind, version};
use tokio::signal::unix::{SignalKind, signal};

/// Compares detcd with etcd and with the least that is possible.
///
/// A server without a path is left out.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The detcd binary.
    #[arg(long)]
    detcd: Option<PathBuf>,
    /// The etcd binary.
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// The detcd-floor binary.
    #[arg(long)]
    floor: Option<PathBuf>,
    /// How often every figure is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How many seconds each time.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    seconds: u16,
    /// Size of the key space.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    keys: u64,
    /// Clients beyond this number share connections.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    connections_max: u16,
    /// Where the servers' directories are made. They must be on a real disk for the figures to mean anything.
    #[arg(long, default_value = "target/bench")]
    directory: PathBuf,
    /// Only rows whose name with clients (`put 100`), and scenes whose name (`fanout, one prefix`), contains one of these.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// How many puts make the stores that are filled beforehand.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000_000))]
    dataset: u64,
    /// One short round of a few rows, only to see that everything works.
    #[arg(long)]
    smoke: bool,
    /// Write the page to this file too.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match compare_until_signalled(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("detcd-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn compare_until_signalled(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    // Dropping what runs stops its server.
    tokio::select! {
        done = compare(arguments) => done,
        _ = terminated.recv() => Err("terminated".into()),
        _ = interrupted.recv() => Err("interrupted".into()),
    }
}

async fn compare(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let options = arguments.options();
    if options.programs.is_empty() {
        return Err("none of --detcd, --etcd and --floor is given: nothing to measure".into());
    }
    let setting = setting(&options)?;
    let table = measure(&options, |row, kind, cell| eprintln!("{}", progress(row, kind, cell))).await?;
    let scenes = perform(&options, |scene, kind, sample| eprintln!("{}", played(scene, kind, sample))).await?;
    let page = page(&setting, &table, section(&options, &scenes));
    println!("{page}");
    if let Some(out) = &arguments.out {
        fs::write(out, page)?;
    }
    Ok(())
}

impl Arguments {
    fn options(&self) -> Options {
        let paths = [(Kind::Detcd, &self.detcd), (Kind::Etcd, &self.etcd), (Kind::Floor, &self.floor)];
        let programs = paths.into_iter().filter_map(|(kind, path)| Some((kind, path.clone()?))).collect();
        let full = Options {
            programs,
            directory: self.directory.clone(),
            size: Size::Full,
            rows: self.rows.clone(),
            rounds: usize::from(self.rounds),
            warm_up: Duration::from_secs(1),
            measured: Duration::from_secs(u64::from(self.seconds)),
            keys: self.keys,
            connections_max: usize::from(self.connections_max),
            dataset: self.dataset,
        };
        if !self.smoke {
            return full;
        }
        Options {
            size: Size::Smoke,
            rounds: 1,
            warm_up: Duration::from_millis(200),
            measured: Duration::from_secs(1),
            keys: 200,
            dataset: 2_000,
            ..full
        }
    }
}

fn setting(options: &Options) -> io::Result<Setting> {
    let mut versions = Vec::new();
    for (kind, program) in &options.programs {
        versions.push((*kind, version_of(program)?));
    }
    Ok(Setting {
        machine: Machine::here(),
        versions,
        rounds: options.rounds,
        measured: options.measured,
        keys: options.keys,
        connections_max: options.connections_max,
        dataset: options.dataset,
    })
}

fn version_of(program: &Path) -> io::Result<String> {
    version(program).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))
}

fn progress(row: Row, kind: Kind, cell: &Cell) -> String {
    let Cell { per_second, p50_ms, p99_ms, p999_ms, cpu_us } = cell;
    let (name, clients) = (row.name(), row.clients);
    format!(
        "{name:<20} {clients:>4} {kind:<5} {per_second:>8.0}/s  p50 {p50_ms:.2} p99 {p99_ms:.2} p99.9 {p999_ms:.2} ms  \
         {cpu_us:.1} µs CPU"
    )
}

fn played(scene: Scene, kind: Kind, sample: &Sample) -> String {
    let name = scene.name();
    let Some(figures) = sample else { return format!("{name:<28} {kind:<5} not served") };
    let shown = scene.metrics().iter().zip(figures).map(|(metric, figure)| {
        let decimals = metric.decimals;
        format!("{} {figure:.decimals$}", metric.name)
    });
    format!("{name:<28} {kind:<5} {}", shown.collect::<Vec<_>>().join("; "))
}
