//! A form is read or refused, whatever it says; a file that is taken is whole and within its limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::http::fuzzing::form;

mod driver;

fuzz_target!(|bytes: &[u8]| {
    // The first line is the content type, the first byte of it the size of the pieces in which the body comes.
    let Some((step, rest)) = bytes.split_first() else {
        return;
    };
    let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (content_type, body) = rest.split_at(at);
    form(
        content_type,
        body.get(1..).unwrap_or_default(),
        usize::from(*step) * 8 + 1,
    );
});
