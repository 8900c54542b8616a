//! Any text as a command line, an environment and a configuration file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = detcd_server::config::fuzz::ask(input);
});
