//! What passes the pre-check names only bytes that are there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::imaging::Limits;
use medsearch::imaging::dicom::precheck::{File, check, walk};

mod driver;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        pixels_max: 1 << 20,
        file_bytes_max: 1 << 20,
    };
    if check(bytes, &limits).is_err() {
        return;
    }
    let file = File::open(bytes).expect("what passed can be opened");
    if let Ok(data_set) = file.inflated(&limits)
        && let Ok(layout) = walk(&data_set, file.syntax, &limits)
    {
        assert!(
            layout
                .elements
                .iter()
                .all(|header| header.range().end <= data_set.len())
        );
        assert!(layout.first_frame().is_ok());
    }
});
