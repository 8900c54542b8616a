//! The floor server as a process: its listener, its writer's thread, and an end when either ends.
#![expect(clippy::print_stderr, reason = "why it ended is the only thing this binary has to say")]

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use detcd_bench::floor;
use tokio::sync::oneshot;

/// A server that only makes puts durable: what detcd and etcd are measured against.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// An empty directory for the file that is written.
    #[arg(long)]
    data_dir: PathBuf,
    /// The address to serve gRPC on.
    #[arg(long)]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("detcd-floor: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(&arguments.data_dir)?;
    let (service, writer) = floor::open(&arguments.data_dir)?;
    let (stopped, writer_stopped) = oneshot::channel();
    thread::Builder::new().name("floor-writer".to_owned()).spawn(move || stopped.send(writer.run()).is_ok())?;
    tokio::select! {
        served = floor::serve(service, arguments.listen) => served?,
        stopped = writer_stopped => stopped??,
    }
    Ok(())
}
