//! Whatever decodes has as many pixels as its header says, either way up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::imaging::{Limits, jpeg, to_eight_bit};

mod driver;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        pixels_max: 1 << 20,
        ..Limits::default()
    };
    if let Ok(raster) = jpeg::decode(bytes, &limits) {
        let header = jpeg::Header::read(bytes).expect("what was decoded has a header");
        assert_eq!(header.width * header.height, raster.width() * raster.height());
        let _ = to_eight_bit(&raster);
    }
});
