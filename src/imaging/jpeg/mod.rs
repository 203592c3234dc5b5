//! JPEG to grey or RGB: baseline and progressive, CMYK and YCCK, turned the right way up.

pub mod encode;
mod header;
mod orientation;
mod twelve_bit;

use libjpeg_turbo_rs::{PixelFormat, decompress_to};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

pub use self::header::{Color, Header};
pub use self::twelve_bit::decode_twelve_bit;
use super::limits::{Limits, SIDE_MAX};
use super::raster::{Levels, Raster, Samples};
use crate::error::{Error, ErrorKind, Result};

/// Width and height by the first frame header; the segments before it are stepped over.
pub fn announced_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        let &[0xff, marker, high, low] = bytes.get(at..)?.first_chunk()? else {
            return None;
        };
        match marker {
            // Fill bytes before a marker.
            0xff => at += 1,
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                let &[height_high, height_low, width_high, width_low] = bytes.get(at + 5..)?.first_chunk()?;
                let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
                return Some((side(width_high, width_low), side(height_high, height_low)));
            }
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
}

/// Decodes a JPEG of 8 bit.
///
/// CMYK becomes RGB as Adobe writes it (255 is no ink): `(C * K + 127) / 255`. The EXIF orientation is applied.
///
/// # Errors
/// `InvalidImage` when it is broken or cut off, `TooManyPixels` from its header, `UnsupportedMedia` for 12 bit,
/// arithmetic, lossless and hierarchical coding.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Raster> {
    let header = Header::read(bytes)?;
    header.check_process()?;
    header.check(limits)?;
    let color = header.color()?;
    let samples = decode_samples(bytes, &header, color == Color::YCbCr)?;
    let samples = match color {
        Color::Gray => Samples::Gray8(samples),
        Color::YCbCr | Color::Rgb => Samples::Rgb8(samples),
        Color::Cmyk => Samples::Rgb8(inks_to_rgb(&samples, |inks| inks)),
        Color::Ycck => Samples::Rgb8(inks_to_rgb(&samples, |inks| {
            ycbcr_to_rgb(inks).map(|light| 255 - light)
        })),
    };
    let orientation = header.exif.clone().map_or(1, |range| orientation::read(&bytes[range]));
    let (width, height, samples) = orientation::apply(orientation, header.width, header.height, samples);
    Raster::new(width, height, samples, Levels::default())
}

/// The samples, interleaved, 1 or 3 components: as they are coded, or YCbCr turned to RGB when `to_rgb` says that they are that.
///
/// # Errors
/// `InvalidImage` when the data is broken. The caller has checked the header's size.
pub fn decode_components(bytes: &[u8], header: &Header, to_rgb: bool) -> Result<Vec<u8>> {
    header.check_process()?;
    decode_samples(bytes, header, to_rgb)
}

/// Interleaved samples as they are coded, or RGB when `to_rgb` says that they are YCbCr.
fn decode_samples(bytes: &[u8], header: &Header, to_rgb: bool) -> Result<Vec<u8>> {
    let bytes = header.without_asides(bytes);
    let turbo = match header.components.len() {
        1 => Some(PixelFormat::Grayscale),
        3 if to_rgb && !header.names_rgb() => Some(PixelFormat::Rgb),
        _ => None,
    };
    if let Some(format) = turbo {
        let image = decompress_to(&bytes, format).map_err(broken)?;
        if (image.width, image.height) != (header.width as usize, header.height as usize) {
            return Err(invalid("it has another size than its header says"));
        }
        return Ok(image.data);
    }
    let options = DecoderOptions::default()
        .set_max_width(SIDE_MAX as usize)
        .set_max_height(SIDE_MAX as usize);
    // Without application segments the decoder goes by the components alone.
    let (out, convert) = match header.components.len() {
        1 => (ColorSpace::Luma, false),
        3 if header.names_rgb() => (ColorSpace::RGB, to_rgb),
        3 if to_rgb => (ColorSpace::RGB, false),
        3 => (ColorSpace::YCbCr, false),
        _ => (ColorSpace::CMYK, false),
    };
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&bytes), options.jpeg_set_out_colorspace(out));
    let mut samples = decoder.decode().map_err(broken)?;
    if samples.len() != header.width as usize * header.height as usize * header.components.len() {
        return Err(invalid("it has another size than its header says"));
    }
    if convert {
        samples
            .as_chunks_mut::<3>()
            .0
            .iter_mut()
            .for_each(|pixel| *pixel = ycbcr_to_rgb(*pixel));
    }
    Ok(samples)
}

/// Four components to RGB; `inks` turns the first three into C, M, Y with 255 for no ink.
fn inks_to_rgb(samples: &[u8], inks: impl Fn([u8; 3]) -> [u8; 3]) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(samples.len() / 4 * 3);
    for &[a, b, c, k] in samples.as_chunks::<4>().0 {
        rgb.extend(inks([a, b, c]).map(|ink| ((u16::from(ink) * u16::from(k) + 127) / 255) as u8));
    }
    rgb
}

/// The integer arithmetic of libjpeg (ITU-T T.871, section 7, in 16-bit fixed point).
fn ycbcr_to_rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((91_881 * cr + 32_768) >> 16);
    let green = y + ((-22_554 * cb - 46_802 * cr + 32_768) >> 16);
    let blue = y + ((116_130 * cb + 32_768) >> 16);
    [red, green, blue].map(|level| level.clamp(0, 255) as u8)
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidImage, format!("broken JPEG: {what}"))
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::with_source(
        ErrorKind::InvalidImage,
        "broken JPEG: it can't be decoded",
        error.to_string(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::imaging::testing::{GRAY_JPEG, jpeg_with_segment};

    fn decoded(bytes: &[u8]) -> Raster {
        decode(bytes, &Limits::default()).unwrap()
    }

    fn kind(bytes: &[u8]) -> ErrorKind {
        decode(bytes, &Limits::default()).err().unwrap().kind()
    }

    #[test]
    fn gray_is_read() {
        let raster = decoded(GRAY_JPEG);
        assert_eq!((raster.width(), raster.height()), (16, 8));
        let Samples::Gray8(samples) = raster.samples() else {
            panic!("not grey")
        };
        assert!(samples[0] < 20 && samples[15] > 200, "{samples:?}");
    }

    #[test]
    fn colours_of_every_coding() {
        // First and last pixel as libjpeg has them, CMYK over Pillow.
        let check = |bytes: &[u8], first: [u8; 3], last: [u8; 3]| {
            let raster = decoded(bytes);
            let Samples::Rgb8(samples) = raster.samples() else {
                panic!("not RGB")
            };
            let close = |pixel: &[u8], expected: [u8; 3]| pixel.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 2);
            assert!(
                close(&samples[..3], first) && close(&samples[samples.len() - 3..], last),
                "{first:?}"
            );
        };
        check(include_bytes!("../fixtures/color.jpg"), [221, 30, 11], [20, 40, 199]);
        check(include_bytes!("../fixtures/rgb.jpg"), [220, 30, 10], [20, 40, 200]);
        check(include_bytes!("../fixtures/cmyk.jpg"), [235, 51, 32], [46, 63, 215]);
        check(include_bytes!("../fixtures/ycck.jpg"), [120, 0, 119], [19, 215, 215]);
        // The same samples, called YCbCr by Adobe's segment against the components' names.
        let named = include_bytes!("../fixtures/rgb.jpg");
        let at = named.windows(5).position(|five| five == b"Adobe").unwrap();
        let mut renamed = named.to_vec();
        renamed[at + 11] = 1;
        check(&renamed, ycbcr_to_rgb([220, 30, 10]), ycbcr_to_rgb([20, 40, 200]));
    }

    #[test]
    fn segments_that_make_no_sense_do_no_harm() {
        let plain = decoded(GRAY_JPEG);
        for marker in 0xe0..=0xef {
            assert!(decoded(&jpeg_with_segment(marker, b"")) == plain);
            assert!(decoded(&jpeg_with_segment(marker, b"Adobe\0\0\0\0\0")) == plain);
            assert!(decoded(&jpeg_with_segment(marker, b"Exif\0\0\xff\xd9\xff\xda")) == plain);
        }
    }

    #[test]
    fn progressive_is_read() {
        let raster = decoded(include_bytes!("../fixtures/progressive.jpg"));
        let Samples::Gray8(samples) = raster.samples() else {
            panic!("not grey")
        };
        assert!(samples[0] < 5 && samples[15] > 250);
    }

    #[test]
    fn orientation_is_applied() {
        let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
        let turned = decoded(&jpeg_with_segment(0xe1, &exif));
        assert_eq!((turned.width(), turned.height()), (8, 16));
        let Samples::Gray8(samples) = turned.samples() else {
            panic!("not grey")
        };
        assert!(samples[0] < 20 && samples[15 * 8] > 200);
        let at = exif.len() - 7;
        exif[at] = 99;
        assert_eq!(decoded(&jpeg_with_segment(0xe1, &exif)).width(), 16);
        assert_eq!(decoded(&jpeg_with_segment(0xe1, b"Exif\0\0II")).width(), 16);
    }

    #[test]
    fn lying_sizes_are_refused_before_decoding() {
        let mut jpeg = GRAY_JPEG.to_vec();
        let sof = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        let set = |jpeg: &mut [u8], height: u16, width: u16| {
            jpeg[sof + 5..sof + 7].copy_from_slice(&height.to_be_bytes());
            jpeg[sof + 7..sof + 9].copy_from_slice(&width.to_be_bytes());
        };
        set(&mut jpeg, 65_500, 65_500);
        assert_eq!(kind(&jpeg), ErrorKind::TooManyPixels);
        set(&mut jpeg, 8_000, 8_000);
        assert_eq!(kind(&jpeg), ErrorKind::InvalidImage);
        set(&mut jpeg, 0, 16);
        assert_eq!(kind(&jpeg), ErrorKind::InvalidImage);
    }

    #[test]
    fn other_codings_are_named() {
        let mut jpeg = GRAY_JPEG.to_vec();
        let sof = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        for coding in [0xc3, 0xc9, 0xcb] {
            jpeg[sof + 1] = coding;
            assert_eq!(kind(&jpeg), ErrorKind::UnsupportedMedia);
        }
        jpeg[sof + 1] = 0xc1;
        jpeg[sof + 4] = 12;
        assert_eq!(kind(&jpeg), ErrorKind::UnsupportedMedia);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let jpeg = GRAY_JPEG;
        for length in 3..jpeg.len() {
            assert_eq!(
                kind(&jpeg[..length]),
                ErrorKind::InvalidImage,
                "{length} of {}",
                jpeg.len()
            );
        }
    }

    #[test]
    fn ycbcr_is_libjpegs() {
        assert_eq!(ycbcr_to_rgb([100, 128, 128]), [100; 3]);
        assert_eq!(ycbcr_to_rgb([76, 85, 255]), [254, 0, 0]);
        assert_eq!(ycbcr_to_rgb([29, 255, 107]), [0, 0, 254]);
    }

    proptest! {
        #[test]
        fn changed_bytes_never_panic(changes in prop::collection::vec((2_usize..GRAY_JPEG.len(), any::<u8>()), 1..6)) {
            let mut jpeg = GRAY_JPEG.to_vec();
            for (at, value) in changes {
                jpeg[at] = value;
            }
            let small = Limits { pixels_max: 1 << 20, ..Limits::default() };
            let _ = decode(&jpeg, &small);
        }
    }
}
