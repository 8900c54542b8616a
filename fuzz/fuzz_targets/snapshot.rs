//! Any bytes as a snapshot that another member sends.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = detcd_io::peer::snapshot_fuzz::receive(input);
});
