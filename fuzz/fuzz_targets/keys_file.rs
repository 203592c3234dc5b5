//! A keys file is read whole or refused; what is read is written and read again the same, and opens nothing to another key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::http::{ApiKey, Keys};

mod driver;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(keys) = Keys::parse(text) {
        let written = keys.to_json();
        let again = Keys::parse(&written).expect("what was written can be read");
        assert_eq!(again.to_json(), written);
        assert!(keys.find(ApiKey::of(b"nobody's key")).is_none());
    }
});
