//! Any bytes as the files of a log.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = detcd_io::wal::fuzz::decode_and_repair(input);
});
