//! What passes the pre-check names only bytes that are there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::domain::{FrameNumber, Frames};
use medsearch::imaging::Limits;
use medsearch::imaging::dicom::precheck::{File, check, walk};

mod driver;

/// Frames that are looked for, so that one input is quick.
const FRAMES: usize = 8;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        pixels_max: 1 << 20,
        file_bytes_max: 1 << 20,
    };
    if check(bytes, FrameNumber::FIRST, &limits).is_err() {
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
        // A deflated data set is only checked now, and of the others the first frame was.
        let first = layout.frame(FrameNumber::FIRST, &limits);
        assert!(file.syntax.deflated || first.is_ok());
        for frame in Frames::All.of(layout.shape.frames).take(FRAMES) {
            if let Ok(coded) = layout.frame(frame, &limits) {
                assert!(coded.len() <= data_set.len());
            }
        }
    }
});
