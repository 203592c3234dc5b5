//! PNG, both ways: every colour type, depth and interlace in; 8 and 16 bit out.

use std::io::Cursor;

use png::{BitDepth, ColorType, Transformations};

use super::eight_bit::scale_16_to_8;
use super::limits::Limits;
use super::raster::{Levels, Raster, Samples};
use crate::error::{Error, ErrorKind, Result};

/// Deflate makes at most this many bytes of one: fewer bytes than that can't hold the picture that a header promises.
const DEFLATE_RATIO_MAX: u64 = 1032;

/// Decodes a PNG to grey or RGB of 8 or 16 bit.
///
/// Palettes become RGB; fewer than 8 bits are scaled to 8; alpha, also a transparent colour (tRNS), is composited over
/// black at 8 bit. sRGB, gAMA and ICC profiles are ignored.
///
/// # Errors
/// `InvalidImage` when it is broken, `TooManyPixels` from its header.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Raster> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let (width, height) = decoder
        .read_header_info()
        .map(|info| (info.width, info.height))
        .map_err(broken)?;
    limits.check_size(width, height)?;
    let mut reader = decoder.read_info().map_err(broken)?;
    let line_bytes = reader
        .output_line_size(width)
        .ok_or_else(|| invalid("its lines are too long"))?;
    if line_bytes as u64 * u64::from(height) / DEFLATE_RATIO_MAX > bytes.len() as u64 {
        return Err(invalid("its data is too short for its size"));
    }

    let info = reader.info();
    let interlaced = info.interlaced;
    let mut rows = Rows::new(
        Layout {
            width: width as usize,
            color: info.color_type,
            depth: info.bit_depth,
            palette: info
                .palette
                .as_ref()
                .map(|palette| palette.to_vec())
                .unwrap_or_default(),
            transparency: info.trns.as_ref().map(|chunk| chunk.to_vec()),
        },
        height as usize,
    );
    if interlaced {
        let mut frame = vec![0; line_bytes * height as usize];
        reader.next_frame(&mut frame).map_err(broken)?;
        frame.chunks_exact(line_bytes).for_each(|row| rows.push(row));
    } else {
        // Line by line: a 16-bit RGBA picture at the pixel limit would take 512 MiB otherwise.
        for _ in 0..height {
            let row = reader
                .next_row()
                .map_err(broken)?
                .ok_or_else(|| invalid("lines are missing"))?;
            rows.push(row.data());
        }
    }
    rows.finish(width, height)
}

/// Width and height by the first chunk.
pub fn announced_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    Some((number(16)?, number(20)?))
}

/// Encodes samples as PNG.
///
/// # Errors
/// `Internal` when the number of samples doesn't fit the size.
pub fn encode(width: u32, height: u32, samples: &Samples) -> Result<Vec<u8>> {
    let (color, depth) = match samples {
        Samples::Gray8(_) => (ColorType::Grayscale, BitDepth::Eight),
        Samples::Gray16(_) => (ColorType::Grayscale, BitDepth::Sixteen),
        Samples::Rgb8(_) => (ColorType::Rgb, BitDepth::Eight),
        Samples::Rgb16(_) => (ColorType::Rgb, BitDepth::Sixteen),
    };
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.set_compression(png::Compression::Fast);
    let written = encoder.write_header().and_then(|mut writer| {
        match samples {
            Samples::Gray8(data) | Samples::Rgb8(data) => writer.write_image_data(data)?,
            Samples::Gray16(data) | Samples::Rgb16(data) => {
                let data: Vec<u8> = data.iter().flat_map(|sample| sample.to_be_bytes()).collect();
                writer.write_image_data(&data)?;
            }
        }
        writer.finish()
    });
    written.map_err(|error| Error::with_source(ErrorKind::Internal, "PNG can't be encoded", error))?;
    Ok(bytes)
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidImage, format!("broken PNG: {what}"))
}

fn broken(error: png::DecodingError) -> Error {
    let what = match &error {
        png::DecodingError::IoError(_) => "it is cut off",
        png::DecodingError::LimitsExceeded => "a chunk is too large",
        _ => "it can't be decoded",
    };
    Error::with_source(ErrorKind::InvalidImage, format!("broken PNG: {what}"), error)
}

/// What the header says about the samples.
struct Layout {
    width: usize,
    color: ColorType,
    depth: BitDepth,
    /// RGB triples.
    palette: Vec<u8>,
    /// Alpha of palette entries, or the one transparent value, as the decoder gives it: a byte a sample below 16 bit.
    transparency: Option<Vec<u8>>,
}

/// Turns stored lines into samples.
struct Rows {
    layout: Layout,
    samples: Samples,
}

impl Rows {
    fn new(layout: Layout, height: usize) -> Self {
        let pixels = layout.width * height;
        let deep = layout.depth == BitDepth::Sixteen && layout.transparency.is_none();
        let samples = match layout.color {
            ColorType::Grayscale if deep => Samples::Gray16(Vec::with_capacity(pixels)),
            ColorType::Rgb if deep => Samples::Rgb16(Vec::with_capacity(3 * pixels)),
            ColorType::Grayscale | ColorType::GrayscaleAlpha => Samples::Gray8(Vec::with_capacity(pixels)),
            ColorType::Rgb | ColorType::Rgba | ColorType::Indexed => Samples::Rgb8(Vec::with_capacity(3 * pixels)),
        };
        Self { layout, samples }
    }

    fn push(&mut self, row: &[u8]) {
        let Layout {
            width,
            color,
            depth,
            palette,
            transparency,
        } = &self.layout;
        let wide = *depth == BitDepth::Sixteen;
        let key = transparency.as_deref();
        match (&mut self.samples, color) {
            (Samples::Gray16(out) | Samples::Rgb16(out), _) => {
                out.extend(row.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])));
            }
            (Samples::Rgb8(out), ColorType::Indexed) => {
                for index in unpack(row, *depth, *width) {
                    let color = palette
                        .get(3 * usize::from(index)..)
                        .and_then(|rest| rest.first_chunk::<3>());
                    // Beyond the palette: black, as libpng and Pillow have it.
                    let alpha = key
                        .and_then(|alphas| alphas.get(usize::from(index)))
                        .copied()
                        .unwrap_or(255);
                    out.extend(color.unwrap_or(&[0; 3]).iter().map(|&sample| over_black(sample, alpha)));
                }
            }
            (Samples::Gray8(out), ColorType::Grayscale) if *depth != BitDepth::Eight && !wide => {
                let scale = 255 / ((1_u16 << *depth as u8) - 1) as u8;
                let key = key.and_then(|key| key.first());
                out.extend(
                    unpack(row, *depth, *width).map(|value| if Some(&value) == key { 0 } else { value * scale }),
                );
            }
            (Samples::Gray8(out), ColorType::Grayscale) => keyed(out, row, key, 1, wide),
            (Samples::Rgb8(out), ColorType::Rgb) => keyed(out, row, key, 3, wide),
            (Samples::Gray8(out), _) => with_alpha(out, row, 2, wide),
            (Samples::Rgb8(out), _) => with_alpha(out, row, 4, wide),
        }
    }

    fn finish(self, width: u32, height: u32) -> Result<Raster> {
        let windowed = matches!(self.samples, Samples::Gray16(_));
        Raster::new(
            width,
            height,
            self.samples,
            Levels {
                windowed,
                ..Levels::default()
            },
        )
    }
}

/// Samples of 1, 2, 4 or 8 bit, the leftmost in the high bits.
fn unpack(row: &[u8], depth: BitDepth, width: usize) -> impl Iterator<Item = u8> {
    let bits = depth as usize;
    let mask = (0xff_u16 >> (8 - bits)) as u8;
    (0..width).map(move |column| {
        let at = column * bits;
        row.get(at / 8).map_or(0, |byte| byte >> (8 - bits - at % 8)) & mask
    })
}

/// Samples without alpha, but one value may be transparent.
fn keyed(out: &mut Vec<u8>, row: &[u8], key: Option<&[u8]>, channels: usize, wide: bool) {
    let pixel_bytes = if wide { 2 * channels } else { channels };
    for pixel in row.chunks_exact(pixel_bytes) {
        match (Some(pixel) == key, wide) {
            (true, _) => out.extend(std::iter::repeat_n(0, channels)),
            (false, true) => out.extend(pixel.chunks_exact(2).map(|pair| to_eight(pair[0], pair[1]))),
            (false, false) => out.extend_from_slice(pixel),
        }
    }
}

/// Samples whose last channel is alpha.
fn with_alpha(out: &mut Vec<u8>, row: &[u8], channels: usize, wide: bool) {
    if wide {
        for pixel in row.chunks_exact(2 * channels) {
            let alpha = to_eight(pixel[2 * channels - 2], pixel[2 * channels - 1]);
            let colors = pixel.chunks_exact(2).take(channels - 1);
            out.extend(colors.map(|pair| over_black(to_eight(pair[0], pair[1]), alpha)));
        }
    } else {
        for pixel in row.chunks_exact(channels) {
            let (alpha, colors) = (pixel[channels - 1], &pixel[..channels - 1]);
            out.extend(colors.iter().map(|&sample| over_black(sample, alpha)));
        }
    }
}

fn to_eight(high: u8, low: u8) -> u8 {
    scale_16_to_8(u16::from_be_bytes([high, low]))
}

fn over_black(sample: u8, alpha: u8) -> u8 {
    ((u16::from(sample) * u16::from(alpha) + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::imaging::testing::{adam7_png, png_of};

    fn decoded(bytes: &[u8]) -> Raster {
        decode(bytes, &Limits::default()).unwrap()
    }

    fn kind(bytes: &[u8]) -> ErrorKind {
        decode(bytes, &Limits::default()).err().unwrap().kind()
    }

    #[test]
    fn small_depths_are_scaled() {
        let check = |depth, row: &[u8], expected: &[u8]| {
            let raster = decoded(&png_of(
                expected.len() as u32,
                1,
                ColorType::Grayscale,
                depth,
                row,
                None,
                None,
            ));
            assert!(*raster.samples() == Samples::Gray8(expected.to_vec()));
            assert!(!raster.levels().windowed);
        };
        check(BitDepth::One, &[0b1010_0000], &[255, 0, 255]);
        check(BitDepth::Two, &[0b0001_1011, 0b1000_0000], &[0, 85, 170, 255, 170]);
        check(BitDepth::Four, &[0x0f, 0x70], &[0, 255, 119]);
        check(BitDepth::Eight, &[1, 2], &[1, 2]);
    }

    #[test]
    fn sixteen_bit_keeps_its_depth() {
        let raster = decoded(&png_of(
            2,
            1,
            ColorType::Grayscale,
            BitDepth::Sixteen,
            &[1, 2, 0xff, 0xfe],
            None,
            None,
        ));
        assert!(*raster.samples() == Samples::Gray16(vec![0x0102, 0xfffe]));
        assert!(raster.levels().windowed);
        let raster = decoded(&png_of(
            1,
            1,
            ColorType::Rgb,
            BitDepth::Sixteen,
            &[0, 1, 0, 2, 3, 0],
            None,
            None,
        ));
        assert!(*raster.samples() == Samples::Rgb16(vec![1, 2, 768]));
        assert!(!raster.levels().windowed);
    }

    #[test]
    fn palettes_become_rgb_and_missing_entries_black() {
        let palette = [10, 20, 30, 40, 50, 60];
        let png = png_of(
            3,
            1,
            ColorType::Indexed,
            BitDepth::Two,
            &[0b0001_1100],
            Some(&palette),
            Some(&[128]),
        );
        let expected = vec![5, 10, 15, 40, 50, 60, 0, 0, 0];
        assert!(*decoded(&png).samples() == Samples::Rgb8(expected));
    }

    #[test]
    fn alpha_is_composited_over_black() {
        let check = |color, depth, row: &[u8], transparency: Option<&[u8]>, expected: Samples| {
            assert!(*decoded(&png_of(1, 1, color, depth, row, None, transparency)).samples() == expected);
        };
        check(
            ColorType::GrayscaleAlpha,
            BitDepth::Eight,
            &[200, 100],
            None,
            Samples::Gray8(vec![78]),
        );
        check(
            ColorType::Rgba,
            BitDepth::Eight,
            &[255, 100, 0, 51],
            None,
            Samples::Rgb8(vec![51, 20, 0]),
        );
        check(
            ColorType::GrayscaleAlpha,
            BitDepth::Sixteen,
            &[200, 200, 128, 0],
            None,
            Samples::Gray8(vec![100]),
        );
        check(
            ColorType::Rgba,
            BitDepth::Sixteen,
            &[255, 255, 128, 0, 0, 0, 255, 255],
            None,
            Samples::Rgb8(vec![255, 128, 0]),
        );
        check(
            ColorType::Grayscale,
            BitDepth::Eight,
            &[7],
            Some(&[0, 7]),
            Samples::Gray8(vec![0]),
        );
        check(
            ColorType::Grayscale,
            BitDepth::Four,
            &[0x30],
            Some(&[0, 7]),
            Samples::Gray8(vec![51]),
        );
        check(
            ColorType::Grayscale,
            BitDepth::Sixteen,
            &[1, 1],
            Some(&[1, 0]),
            Samples::Gray8(vec![1]),
        );
        check(
            ColorType::Rgb,
            BitDepth::Eight,
            &[1, 2, 3],
            Some(&[0, 1, 0, 2, 0, 3]),
            Samples::Rgb8(vec![0; 3]),
        );
        check(
            ColorType::Rgb,
            BitDepth::Sixteen,
            &[0, 1, 255, 255, 0, 3],
            Some(&[0, 1, 0, 2, 0, 3]),
            Samples::Rgb8(vec![0, 255, 0]),
        );
    }

    #[test]
    fn interlaced_is_the_same_picture() {
        for (width, height) in [(1, 1), (3, 2), (8, 8), (13, 5), (5, 17)] {
            let gray: Vec<u8> = (0..width * height).map(|i| (i * 7 % 251) as u8).collect();
            let raster = decoded(&adam7_png(
                width,
                height,
                ColorType::Grayscale,
                BitDepth::Eight,
                8,
                &gray,
            ));
            assert!(*raster.samples() == Samples::Gray8(gray), "{width}x{height}");
            let rgb: Vec<u8> = (0..width * height * 6).map(|i| (i * 5 % 253) as u8).collect();
            let raster = decoded(&adam7_png(width, height, ColorType::Rgb, BitDepth::Sixteen, 48, &rgb));
            let expected = rgb.chunks_exact(2).map(|p| u16::from_be_bytes([p[0], p[1]])).collect();
            assert!(*raster.samples() == Samples::Rgb16(expected), "{width}x{height}");
        }
    }

    #[test]
    fn bombs_are_refused_by_their_header() {
        let mut bomb = png_of(1, 1, ColorType::Rgb, BitDepth::Eight, &[0; 3], None, None);
        let set_size = |png: &mut [u8], width: u32, height: u32| {
            png[16..20].copy_from_slice(&width.to_be_bytes());
            png[20..24].copy_from_slice(&height.to_be_bytes());
            let crc = crate::imaging::testing::crc32(&png[12..29]);
            png[29..33].copy_from_slice(&crc.to_be_bytes());
        };
        set_size(&mut bomb, 20_000, 20_000);
        assert_eq!(kind(&bomb), ErrorKind::TooManyPixels);
        set_size(&mut bomb, 8_000, 8_000);
        assert_eq!(kind(&bomb), ErrorKind::InvalidImage);
        set_size(&mut bomb, 40_000, 1);
        assert_eq!(kind(&bomb), ErrorKind::TooManyPixels);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let data: Vec<u8> = (0..40 * 30).map(|i| (i * i % 241) as u8).collect();
        let png = png_of(40, 30, ColorType::Grayscale, BitDepth::Eight, &data, None, None);
        let whole = decoded(&png);
        for length in 8..png.len() {
            match decode(&png[..length], &Limits::default()) {
                // Nothing but checksums and the end chunk may be missing.
                Ok(raster) => assert!(raster == whole && length + 24 > png.len(), "{length} of {}", png.len()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidImage),
            }
        }
    }

    #[test]
    fn encode_is_lossless() {
        let check = |width, height, samples: Samples| {
            let png = encode(width, height, &samples).unwrap();
            assert!(*decoded(&png).samples() == samples);
        };
        check(3, 1, Samples::Gray8(vec![0, 9, 255]));
        check(2, 1, Samples::Gray16(vec![0, 65_535]));
        check(1, 2, Samples::Rgb8(vec![1, 2, 3, 4, 5, 6]));
        check(1, 1, Samples::Rgb16(vec![1, 2_000, 30_000]));
        assert_eq!(
            encode(2, 2, &Samples::Gray8(vec![0])).unwrap_err().kind(),
            ErrorKind::Internal
        );
    }

    proptest! {
        #[test]
        fn changed_bytes_never_panic(changes in prop::collection::vec((0_usize..2000, any::<u8>()), 1..8), kind in 0..3) {
            let data: Vec<u8> = (0..48 * 8).map(|i| (i % 255) as u8).collect();
            let mut png = match kind {
                0 => png_of(48, 8, ColorType::Grayscale, BitDepth::Eight, &data, None, None),
                1 => adam7_png(16, 8, ColorType::Rgb, BitDepth::Eight, 24, &data),
                _ => png_of(48, 8, ColorType::Indexed, BitDepth::Eight, &data, Some(&[1; 30]), Some(&[9, 9])),
            };
            for (at, value) in changes {
                let at = at % png.len();
                png[at] = value;
            }
            let _ = decode(&png, &Limits::default());
        }
    }
}
