//! The parts of a STOW-RS body are read or refused; one that is taken came so and is within its limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::http::fuzzing::related;

mod body;
mod driver;

fuzz_target!(|bytes: &[u8]| {
    if let Some((content_type, body, step)) = body::of(bytes) {
        related(content_type, body, step);
    }
});
