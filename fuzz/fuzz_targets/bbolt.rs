//! Any bytes as a database file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = detcd_io::bbolt::fuzz::read(input);
});
