//! A kept picture as DICOM has pixels: stored values as they came, little endian.

use super::limits::Limits;
use super::png;
use super::raster::Samples;
use crate::domain::PixelsRef;
use crate::error::{Error, ErrorKind, Result};

/// Where the header of a PNG says how deep samples are, and of which colours (PNG, 11.2.1).
const DEPTH_AND_COLOR: std::ops::Range<usize> = 24..26;
/// The colour type of true colour.
const TRUE_COLOR: u8 = 2;

/// What the samples of a kept picture are (PS3.3, C.7.6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelLayout {
    /// Columns.
    pub columns: u32,
    /// Rows.
    pub rows: u32,
    /// 1, or 3 for red, green and blue.
    pub samples: u16,
    /// Bits of a sample: 8 or 16.
    pub bits: u16,
    /// Samples are two's complement.
    pub signed: bool,
    /// Of grey ones: smaller values are brighter.
    pub inverted: bool,
}

impl PixelLayout {
    /// Of a picture that the archive keeps as this PNG, by its header.
    ///
    /// # Errors
    /// `Damaged` when it is none.
    pub fn of(png: &[u8], pixels: &PixelsRef) -> Result<Self> {
        let damaged = || Error::new(ErrorKind::Damaged, "a kept picture is damaged: it has no header");
        let size = png::announced_size(png).filter(|size| *size == (pixels.width, pixels.height));
        let Some([bits @ (8 | 16), color]) = png.get(DEPTH_AND_COLOR).filter(|_| size.is_some()) else {
            return Err(damaged());
        };
        Ok(Self {
            columns: pixels.width,
            rows: pixels.height,
            samples: if *color == TRUE_COLOR { 3 } else { 1 },
            bits: u16::from(*bits),
            signed: pixels.offset_levels != 0,
            inverted: pixels.inverted,
        })
    }

    /// Bytes of a frame.
    pub fn frame_bytes(&self) -> u64 {
        u64::from(self.columns) * u64::from(self.rows) * u64::from(self.samples) * u64::from(self.bits / 8)
    }
}

/// The samples of a kept picture as they were stored, row by row, colours side by side, of two bytes the lower first.
///
/// # Errors
/// `Damaged` when the picture can't be read.
pub fn native_frame(png: &[u8], pixels: &PixelsRef) -> Result<(PixelLayout, Vec<u8>)> {
    let layout = PixelLayout::of(png, pixels)?;
    // What was let in is shown, whatever the limit was then.
    let limits = Limits {
        file_bytes_max: png.len(),
        pixels_max: u64::from(pixels.width) * u64::from(pixels.height),
    };
    let damaged = |error: Error| Error::new(ErrorKind::Damaged, format!("a kept picture is damaged: {error}"));
    let raster = png::decode(png, &limits).map_err(damaged)?;
    let offset = pixels.offset_levels as u16;
    let frame = match raster.samples() {
        Samples::Gray8(samples) => samples.iter().map(|sample| sample ^ offset as u8).collect(),
        Samples::Gray16(samples) => samples
            .iter()
            .flat_map(|sample| (sample ^ offset).to_le_bytes())
            .collect(),
        Samples::Rgb8(samples) => samples.clone(),
        Samples::Rgb16(samples) => samples.iter().flat_map(|sample| sample.to_le_bytes()).collect(),
    };
    Ok((layout, frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{PackRef, Unknown};
    use crate::imaging::{Levels, Raster, view_png};

    fn kept(samples: Samples, levels: Levels) -> (PixelLayout, Vec<u8>) {
        let raster = Raster::new(2, 1, samples, levels).unwrap();
        let view = view_png(&raster, 10).unwrap();
        let pixels = PixelsRef {
            pack: PackRef {
                object: String::new(),
                offset: 0,
                length: 0,
                blake3: String::new(),
            },
            width: view.width,
            height: view.height,
            inverted: view.inverted,
            offset_levels: view.offset_levels,
            other: Unknown::new(),
        };
        let (layout, frame) = native_frame(&view.png, &pixels).unwrap();
        assert_eq!(layout, PixelLayout::of(&view.png, &pixels).unwrap());
        assert_eq!(layout.frame_bytes(), frame.len() as u64);
        let cut = PixelLayout::of(&view.png[..20], &pixels).unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::Damaged);
        (layout, frame)
    }

    #[test]
    fn values_are_those_of_the_file() {
        let signed = Levels {
            signed: true,
            windowed: true,
            inverted: true,
            padding: None,
        };
        let (layout, frame) = kept(Samples::Gray16(vec![-1000_i16 as u16, 3]), signed);
        assert_eq!(
            (layout.bits, layout.samples, layout.signed, layout.inverted),
            (16, 1, true, true)
        );
        assert_eq!(frame, [(-1000_i16).to_le_bytes(), 3_i16.to_le_bytes()].concat());
        let (layout, frame) = kept(Samples::Gray8(vec![-5_i8 as u8, 7]), signed);
        assert_eq!((layout.bits, frame), (8, vec![-5_i8 as u8, 7]));
        let (layout, frame) = kept(Samples::Rgb8(vec![1, 2, 3, 4, 5, 6]), Levels::default());
        assert_eq!(
            (layout.samples, layout.signed, frame),
            (3, false, vec![1, 2, 3, 4, 5, 6])
        );
        let (layout, frame) = kept(Samples::Rgb16(vec![1, 2, 3, 4, 5, 0x0607]), Levels::default());
        assert_eq!((layout.bits, &frame[10..]), (16, &[7, 6][..]));
    }
}
