//! Any tree of files and any rows of a store as the place that a member starts on.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = detcd_io::boot::fuzz::start(input);
});
