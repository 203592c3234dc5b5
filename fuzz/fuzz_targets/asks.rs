//! What is asked in JSON is read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::http::fuzzing::asks;

mod driver;

fuzz_target!(|bytes: &[u8]| {
    asks(bytes);
});
