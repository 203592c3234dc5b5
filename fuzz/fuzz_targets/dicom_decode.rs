//! Decoding never panics, not even where a worker process would catch it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::domain::{FRAMES_MAX, FrameNumber, WindowTable};
use medsearch::imaging::dicom::decode::decode;
use medsearch::imaging::{Decoded, Fit, Format, InputSpec, Limits, Pipeline};

mod driver;

/// Where the preamble begins, which may hold anything (PS3.10, 7.1): here it says which frame is wanted.
const FRAME_AT: usize = 0;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        pixels_max: 1 << 20,
        file_bytes_max: 1 << 20,
    };
    let wanted = bytes.get(FRAME_AT..FRAME_AT + 2).unwrap_or(&[0, 0]);
    let wanted = u32::from(u16::from_le_bytes([wanted[0], wanted[1]])) % FRAMES_MAX + 1;
    let frame = FrameNumber::try_from(wanted).expect("it is one of them");
    if let Ok(decoded) = decode(bytes, frame, &limits) {
        assert!(decoded.frame.number() == frame && decoded.frame.frames() >= wanted);
        let decoded = Decoded {
            raster: decoded.raster,
            format: Format::Dicom,
            grey_scale: decoded.grey_scale,
            provenance: decoded.provenance,
            frame: decoded.frame,
        };
        for table in [&b"[]"[..], br#"[{"center": -600, "width": 1500}]"#, br#"[{"use": "file"}]"#] {
            let pipeline = Pipeline {
                input: InputSpec {
                    width: 1,
                    height: 1,
                    fit: Fit::Squeeze,
                },
                windows: WindowTable::from_json(table).expect("it is one"),
            };
            let _ = pipeline.eight_bit(&decoded);
        }
    }
});
