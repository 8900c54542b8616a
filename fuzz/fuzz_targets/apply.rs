//! Any requests, applied by the engine and by its slow twin.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = detcd_tests::apply::fuzz::play(input, detcd_io::codec::fuzz::commands);
});
