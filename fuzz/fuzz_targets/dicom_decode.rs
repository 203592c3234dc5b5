//! Decoding never panics, not even where a worker process would catch it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::imaging::dicom::decode::decode;
use medsearch::imaging::{Limits, to_eight_bit};

mod driver;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        pixels_max: 1 << 20,
        file_bytes_max: 1 << 20,
    };
    if let Ok((raster, _)) = decode(bytes, &limits) {
        let _ = to_eight_bit(&raster);
    }
});
