//! Whatever decodes has the promised size, becomes 8 bit and survives a round trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::imaging::{Limits, png, to_eight_bit};

mod driver;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        pixels_max: 1 << 20,
        ..Limits::default()
    };
    if let Ok(raster) = png::decode(bytes, &limits) {
        let _ = to_eight_bit(&raster);
        let again = png::encode(raster.width(), raster.height(), raster.samples()).expect("a raster can be encoded");
        assert!(png::decode(&again, &limits).expect("what was encoded can be decoded") == raster);
    }
});
