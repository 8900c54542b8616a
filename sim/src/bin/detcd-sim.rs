//! The simulator's command.

/// Runs allocate and free all the time, each on a thread of its own.
#[cfg(madsim)]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    detcd_sim::command::main()
}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
