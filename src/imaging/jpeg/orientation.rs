//! EXIF orientation: how the camera was held.

use crate::imaging::raster::Samples;

/// 1..=8 of the TIFF structure of an Exif segment; 1 (upright) when it is broken or says nothing.
pub fn read(tiff: &[u8]) -> u32 {
    let exif = exif::Reader::new().read_raw(tiff.to_vec()).ok();
    exif.as_ref()
        .and_then(|exif| exif.get_field(exif::Tag::Orientation, exif::In::PRIMARY))
        .and_then(|field| field.value.get_uint(0))
        .filter(|orientation| (1..=8).contains(orientation))
        .unwrap_or(1)
}

/// The picture the right way up: width, height, samples. `orientation` is 1..=8.
pub fn apply(orientation: u32, width: u32, height: u32, samples: Samples) -> (u32, u32, Samples) {
    if orientation <= 1 {
        return (width, height, samples);
    }
    let (w, h) = (width as usize, height as usize);
    let samples = match samples {
        Samples::Gray8(data) => Samples::Gray8(turn::<_, 1>(orientation, w, h, &data)),
        Samples::Gray16(data) => Samples::Gray16(turn::<_, 1>(orientation, w, h, &data)),
        Samples::Rgb8(data) => Samples::Rgb8(turn::<_, 3>(orientation, w, h, &data)),
        Samples::Rgb16(data) => Samples::Rgb16(turn::<_, 3>(orientation, w, h, &data)),
    };
    if orientation >= 5 {
        (height, width, samples)
    } else {
        (width, height, samples)
    }
}

/// Rearranges pixels of `C` samples (TIFF 6.0, Orientation).
fn turn<T: Copy, const C: usize>(orientation: u32, width: usize, height: usize, data: &[T]) -> Vec<T> {
    let (columns, rows) = if orientation >= 5 {
        (height, width)
    } else {
        (width, height)
    };
    let pixels = data.as_chunks::<C>().0;
    let mut turned = Vec::with_capacity(data.len());
    for y in 0..rows {
        for x in 0..columns {
            let (from_x, from_y) = match orientation {
                2 => (width - 1 - x, y),
                3 => (width - 1 - x, height - 1 - y),
                4 => (x, height - 1 - y),
                5 => (y, x),
                6 => (y, height - 1 - x),
                7 => (width - 1 - y, height - 1 - x),
                8 => (width - 1 - y, x),
                _ => (x, y),
            };
            turned.extend_from_slice(&pixels[from_y * width + from_x]);
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_eight_orientations() {
        // a b c
        // d e f
        let check = |orientation, expected: &str, size| {
            let (width, height, samples) = apply(orientation, 3, 2, Samples::Gray8(b"abcdef".to_vec()));
            assert!(samples == Samples::Gray8(expected.into()), "{orientation}");
            assert_eq!((width, height), size, "{orientation}");
        };
        check(1, "abcdef", (3, 2));
        check(2, "cbafed", (3, 2));
        check(3, "fedcba", (3, 2));
        check(4, "defabc", (3, 2));
        check(5, "adbecf", (2, 3));
        check(6, "daebfc", (2, 3));
        check(7, "fcebda", (2, 3));
        check(8, "cfbead", (2, 3));
    }

    #[test]
    fn pixels_stay_together() {
        let (_, _, samples) = apply(2, 2, 1, Samples::Rgb16(vec![1, 2, 3, 4, 5, 6]));
        assert!(samples == Samples::Rgb16(vec![4, 5, 6, 1, 2, 3]));
    }
}
