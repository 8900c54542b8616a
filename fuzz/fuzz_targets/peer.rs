//! Any bytes as what another member says.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = detcd_io::peer::fuzz::listen(input);
});
