//! `detcdutl`: a member's files, while it does not run.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it says is what this binary is for")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use detcd_ctl::export::export;
use detcd_ctl::status::{Format, status};
use detcd_ctl::{ToolError, now};
use detcd_io::boot::inspect::Places;

/// What etcdutl answers to a command line that makes no sense.
const BAD_ARGUMENTS: u8 = 128;

/// Works on the files of a member that does not run.
#[derive(Debug, Parser)]
#[command(name = "detcdutl")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Writes a stopped member's directory as one that etcd 3.7 starts on.
    Export {
        /// The member's data directory. Nothing of it changes but lock files.
        #[arg(long)]
        data_dir: PathBuf,
        /// The directory of its log, if that lies apart. The export has it in the usual place.
        #[arg(long)]
        wal_dir: Option<PathBuf>,
        /// Where etcd's data directory is to be: absent or empty.
        #[arg(long)]
        output_dir: PathBuf,
    },
    /// About database files.
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Prints the version.
    Version,
}

#[derive(Debug, Subcommand)]
enum Snapshot {
    /// What a database file holds: hash, revision, keys, size, version.
    Status {
        /// The file.
        file: PathBuf,
        /// How the answer is printed.
        #[arg(short, long, value_enum, default_value_t = Format::Simple)]
        write_out: Format,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(help) => {
            let is_asked_for = !help.use_stderr();
            // A closed pipe is nobody's failure.
            let _ = help.print();
            return if is_asked_for { ExitCode::SUCCESS } else { ExitCode::from(BAD_ARGUMENTS) };
        }
    };
    match carry_out(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(arguments: Arguments) -> Result<(), ToolError> {
    match arguments.verb {
        Verb::Export { data_dir, wal_dir, output_dir } => {
            let done = now(export(&Places::new(data_dir.clone(), wal_dir), &output_dir))?;
            println!(
                "exported {} to {}: {} rows (hash {:x}) up to entry {}, {} log files, {} .snap files",
                data_dir.display(),
                output_dir.display(),
                done.digest.rows,
                done.digest.hash,
                done.applied,
                done.logs,
                done.snaps
            );
        }
        Verb::Snapshot(Snapshot::Status { file, write_out }) => print!("{}", now(status(&file))?.text(write_out)),
        Verb::Version => {
            println!("detcdutl version: {}\nAPI version: 3.7", env!("CARGO_PKG_VERSION"));
        }
    }
    Ok(())
}
