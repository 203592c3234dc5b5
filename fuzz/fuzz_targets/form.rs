//! A form is read or refused, whatever it says; a file that is taken is whole and within its limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::http::fuzzing::form;

mod body;
mod driver;

fuzz_target!(|bytes: &[u8]| {
    if let Some((content_type, body, step)) = body::of(bytes) {
        form(content_type, body, step);
    }
});
