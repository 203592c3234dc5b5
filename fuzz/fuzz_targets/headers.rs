//! Nobody is let in without the key, whatever the headers are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::http::fuzzing::headers;

mod driver;

fuzz_target!(|bytes: &[u8]| {
    headers(bytes);
});
