//! The binary `detcd`: the composition root. Threads, runtimes, listeners and signals are here, and this is the only place that exits.
//!
//! Exit codes: 0 after `--help`, `--version`, or a signal to process 1; 1 when a start is refused or the machine fails; 2 for a command line that
//! cannot be read. A member that is told to end by a signal ends by that signal, as etcd does.

mod allocator;
mod deadline;
mod gather;
mod http;
mod listen;
mod metrics;
mod notify;
mod peer;
mod piecewise;
mod run;
mod serve;
mod streams;
mod vars;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use detcd_io::boot::machine::go_arch;
use detcd_server::config::{self, Config, Logging, Request};
use detcd_server::flags::help;
use detcd_server::flags::redact::redacted_args;
use detcd_server::log::{Line, Log, Severity};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::run::{Ended, run};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().map(lossy).collect();
    let variables: Vec<(String, String)> =
        std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect();
    let outcome = config::read(words.get(1..).unwrap_or_default(), &variables, |path| std::fs::read(path));
    match outcome.result {
        Ok(Request::Help) => print(&help::help(), help::usage()),
        Ok(Request::Version) => print(&help::version(go_arch(std::env::consts::ARCH)), ""),
        Ok(Request::Start(config)) => start(&config, &words, &outcome.lines),
        Err(refused) => {
            let report = refused.report();
            if let Some(log) = open_log(&Logging::default()) {
                outcome.lines.iter().chain(&report.lines).for_each(|line| log.write(line));
            }
            let _ = std::io::stderr().write_all(report.stderr.as_bytes());
            ExitCode::from(report.exit_code)
        }
    }
}

/// Text as far as it is text; what is not shows as a replacement character in the refusal.
fn lossy(text: OsString) -> String {
    text.to_string_lossy().into_owned()
}

/// Prints what was asked for; a closed pipe is nobody's failure.
fn print(stdout: &str, stderr: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(stdout.as_bytes());
    let _ = std::io::stderr().write_all(stderr.as_bytes());
    ExitCode::SUCCESS
}

fn open_log(logging: &Logging) -> Option<Log> {
    match logging.output.open() {
        Ok(sink) => Some(Log::new(logging.threshold, logging.format, sink)),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "cannot open the log: {error}");
            None
        }
    }
}

fn start(config: &Config, words: &[String], lines: &[Line]) -> ExitCode {
    let Some(log) = open_log(&config.logging) else { return ExitCode::FAILURE };
    let subscriber = tracing_subscriber::registry().with(log.clone());
    tracing::subscriber::set_global_default(subscriber).expect("nobody else sets the subscriber");
    lines.iter().for_each(|line| log.write(line));
    log.write(&Line::new(Severity::Info, "Running: ").with("args", redacted_args(words)));
    match run(config, &log) {
        Ok(Ended::Signal(signal)) => end_by(signal),
        Ok(Ended::Removed | Ended::Installing) => ExitCode::SUCCESS,
        Err(failure) => {
            log.write(&failure.line());
            ExitCode::FAILURE
        }
    }
}

/// Ends as the signal would have ended a process that does not know it. Process 1 has no default action, and exits well.
fn end_by(signal: i32) -> ExitCode {
    if std::process::id() != 1 {
        // Comes back only if the signal has no default action that ends a process.
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    ExitCode::SUCCESS
}
