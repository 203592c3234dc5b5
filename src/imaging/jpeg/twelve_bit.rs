//! Sequential DCT of 12 bits (ITU-T T.81, process 4), what DICOM calls JPEG Extended (PS3.5, 8.2.1).

use std::panic::catch_unwind;

use libjpeg_turbo_rs::raw_data_12::decompress_raw_12;

use super::header::Component;
use super::{Header, broken, invalid};
use crate::error::{Error, ErrorKind, Result};

/// Samples of 0..=4095 of the one component.
///
/// The arithmetic is that of libjpeg-turbo's accurate integer DCT, to the bit.
///
/// # Errors
/// `InvalidImage` when the data is broken, `UnsupportedMedia` for another process, for more components and for several
/// scans. The caller has checked the header's size.
pub fn decode_twelve_bit(bytes: &[u8], header: &Header) -> Result<Vec<u16>> {
    let component = only_component(header)?;
    let mut bytes = header.without_asides(bytes);
    say_one_to_one(&mut bytes, header, component)?;
    // A sum of DC differences that passes 32 bits makes the decoder panic: that takes more than 65,536 blocks, more than the fuzz targets' pictures have.
    let image = catch_unwind(|| decompress_raw_12(&bytes))
        .map_err(|_| invalid("its DC coefficients are out of range"))?
        .map_err(broken)?;
    let (width, height) = (header.width as usize, header.height as usize);
    match (&image.planes[..], &image.plane_widths[..]) {
        ([plane], &[stride]) if (image.width, image.height) == (width, height) => {
            // The plane is whole blocks, wider and higher than the picture.
            let rows = plane.chunks_exact(stride).take(height);
            let levels = rows.flat_map(|row| &row[..width]);
            Ok(levels.map(|&level| level as u16).collect())
        }
        _ => Err(invalid("it has another size than its header says")),
    }
}

/// Refuses what the decoder doesn't read or would read wrong.
fn only_component(header: &Header) -> Result<&Component> {
    let unsupported = |what: String| Err(Error::new(ErrorKind::UnsupportedMedia, what));
    if (header.process, header.precision) != (1, 12) {
        return unsupported(format!(
            "a JPEG of `{}` bits in the coding process SOF`{}` is not read here",
            header.precision, header.process
        ));
    }
    match &header.components[..] {
        [component] if header.one_scan => Ok(component),
        [_] => unsupported("a 12-bit JPEG of several scans is not read".into()),
        several => unsupported(format!("a 12-bit JPEG of `{}` components is not read", several.len())),
    }
}

/// The blocks of a lone component follow line by line whatever sampling it says (ITU-T T.81, A.2.2), but the decoder
/// would order them by it.
fn say_one_to_one(bytes: &mut [u8], header: &Header, component: &Component) -> Result<()> {
    if (component.horizontal, component.vertical) == (1, 1) {
        return Ok(());
    }
    let [.., h1, h0] = header.height.to_be_bytes();
    let [.., w1, w0] = header.width.to_be_bytes();
    let frame = [0xff, 0xc1, 0, 11, 12, h1, h0, w1, w0, 1, component.id];
    let at = bytes.windows(frame.len()).position(|window| window == frame);
    *at.and_then(|at| bytes.get_mut(at + frame.len()))
        .ok_or_else(|| invalid("its frame header has another length than its components"))? = 0x11;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRAY: &[u8] = include_bytes!("../fixtures/extended12.jpg");
    /// [`GRAY`] with a restart marker after every third block.
    const RESTARTS: &[u8] = include_bytes!("../fixtures/extended12_restart.jpg");
    /// What libjpeg-turbo makes of [`GRAY`], little endian.
    const GRAY_LEVELS: &[u8] = include_bytes!("../fixtures/extended12.bin");

    fn decoded(bytes: &[u8]) -> Result<Vec<u16>> {
        decode_twelve_bit(bytes, &Header::read(bytes)?)
    }

    fn levels(bytes: &[u8]) -> Vec<u16> {
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|&pair| u16::from_le_bytes(pair))
            .collect()
    }

    fn marker_at(jpeg: &[u8], marker: u8) -> usize {
        jpeg.windows(2).position(|pair| pair == [0xff, marker]).unwrap()
    }

    #[test]
    fn levels_are_libjpeg_turbos() {
        for jpeg in [GRAY, RESTARTS] {
            assert_eq!(decoded(jpeg).unwrap(), levels(GRAY_LEVELS));
        }
    }

    #[test]
    fn the_sampling_of_a_lone_component_means_nothing() {
        let mut jpeg = GRAY.to_vec();
        jpeg[marker_at(GRAY, 0xc1) + 11] = 0x22;
        assert_eq!(decoded(&jpeg).unwrap(), levels(GRAY_LEVELS));
    }

    #[test]
    fn what_is_not_read_is_named() {
        let refused = |jpeg: &[u8], what: &str| {
            let error = decoded(jpeg).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnsupportedMedia, "{error}");
            assert!(error.message().contains(what), "{error}");
        };
        let changed = |jpeg: &[u8], marker: u8, offset: usize, value: u8| {
            let mut jpeg = jpeg.to_vec();
            let at = marker_at(&jpeg, marker) + offset;
            jpeg[at] = value;
            jpeg
        };
        for process in [0xc0, 0xc2, 0xc3, 0xc9, 0xca] {
            refused(&changed(GRAY, 0xc1, 1, process), "SOF");
        }
        refused(&changed(GRAY, 0xc1, 4, 8), "`8` bits");
        let at = marker_at(GRAY, 0xc1);
        let mut color = changed(&changed(GRAY, 0xc1, 3, 17), 0xc1, 9, 3);
        color.splice(at + 13..at + 13, [2, 0x11, 0, 3, 0x11, 0]);
        refused(&color, "`3` components");
        let scan = marker_at(GRAY, 0xda);
        refused(&[&GRAY[..GRAY.len() - 2], &GRAY[scan..]].concat(), "several scans");
    }

    #[test]
    fn every_truncation_is_an_error() {
        for jpeg in [GRAY, RESTARTS] {
            for length in 0..jpeg.len() {
                let kind = |bytes: &[u8]| decoded(bytes).err().map(|error| error.kind());
                assert_eq!(kind(&jpeg[..length]), Some(ErrorKind::InvalidImage), "{length}");
            }
        }
    }

    #[test]
    fn data_that_ends_before_the_picture_is_an_error() {
        for length in marker_at(GRAY, 0xda) + 10..GRAY.len() - 2 {
            let cut = [&GRAY[..length], &[0xff, 0xd9]].concat();
            assert!(decoded(&cut).is_err(), "{length}");
        }
    }

    #[test]
    fn sums_of_differences_that_pass_32_bits_are_an_error() {
        // A bit for a difference of -32768, a bit for the end of the block, 257 x 256 times.
        let mut jpeg = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
        jpeg.extend([1; 64]);
        jpeg.extend([0xff, 0xc1, 0, 11, 12, 8, 8, 8, 0, 1, 1, 0x11, 0]);
        for (class, symbol) in [(0x00, 16), (0x10, 0)] {
            jpeg.extend([0xff, 0xc4, 0, 20, class, 1]);
            jpeg.extend([0; 15]);
            jpeg.push(symbol);
        }
        jpeg.extend([0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0]);
        jpeg.extend([0; 257 * 256 / 4]);
        jpeg.extend([0xff, 0xd9]);
        assert_eq!(decoded(&jpeg).unwrap_err().kind(), ErrorKind::InvalidImage);
    }

    proptest! {
        #[test]
        fn changed_bytes_never_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            which in 0_usize..2,
        ) {
            let mut jpeg = [GRAY, RESTARTS][which].to_vec();
            for (at, value) in changes {
                let at = at.index(jpeg.len());
                jpeg[at] = value;
            }
            if let Ok(header) = Header::read(&jpeg) && header.width * header.height <= 1 << 20 {
                let samples = decode_twelve_bit(&jpeg, &header);
                prop_assert!(samples.is_err() || samples.unwrap().iter().all(|&level| level <= 4095));
            }
        }
    }
}
