//! The simulator's command.

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    detcd_sim::command::main()
}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
