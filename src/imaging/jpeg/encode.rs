//! JPEG for whoever does not take PNG.

use libjpeg_turbo_rs::{Encoder, PixelFormat};

use crate::error::{Error, ErrorKind, Result};
use crate::imaging::limits::Limits;
use crate::imaging::png;
use crate::imaging::raster::Samples;

/// A baseline JPEG of a PNG of 8 bit that the program made, at a quality of 1 to 100 as libjpeg counts it.
///
/// # Errors
/// `InvalidRequest` for another quality or sides beyond what JPEG can say, `Internal` for another PNG.
pub fn of_png(bytes: &[u8], quality: u8) -> Result<Vec<u8>> {
    if !(1..=100).contains(&quality) {
        return Err(Error::new(ErrorKind::InvalidRequest, "`quality` is from 1 to 100"));
    }
    let limits = Limits {
        file_bytes_max: bytes.len(),
        pixels_max: u64::MAX,
    };
    let picture = png::decode(bytes, &limits)?;
    let (width, height) = (picture.width(), picture.height());
    if width > u32::from(u16::MAX) || height > u32::from(u16::MAX) {
        let message = "JPEG has no more than 65535 pixels a side: ask for PNG or a smaller `viewport`";
        return Err(Error::new(ErrorKind::InvalidRequest, message));
    }
    let (samples, format) = match picture.samples() {
        Samples::Gray8(samples) => (samples, PixelFormat::Grayscale),
        Samples::Rgb8(samples) => (samples, PixelFormat::Rgb),
        _ => return Err(Error::internal("a picture to show has more than 8 bit")),
    };
    Encoder::new(samples, width as usize, height as usize, format)
        .quality(quality)
        .encode()
        .map_err(|error| Error::internal(format!("a picture can't be written as JPEG: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::jpeg;

    #[test]
    fn a_picture_comes_back_nearly_as_it_was() {
        let gray: Vec<u8> = (0..64 * 48).map(|at| (at % 64 * 4) as u8).collect();
        let png = png::encode(64, 48, &Samples::Gray8(gray.clone())).unwrap();
        let limits = Limits {
            file_bytes_max: 1 << 20,
            pixels_max: 1 << 20,
        };
        let read = jpeg::decode(&of_png(&png, 95).unwrap(), &limits).unwrap();
        let Samples::Gray8(read) = read.samples() else {
            panic!("grey stays grey")
        };
        let worst = gray.iter().zip(read).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= 6, "{worst}");
        let color = png::encode(2, 1, &Samples::Rgb8(vec![200, 10, 10, 10, 10, 200])).unwrap();
        assert!(jpeg::decode(&of_png(&color, 1).unwrap(), &limits).is_ok());
    }

    #[test]
    fn other_qualities_and_depths_are_refused() {
        let png = png::encode(1, 1, &Samples::Gray8(vec![1])).unwrap();
        for quality in [0, 101] {
            assert_eq!(of_png(&png, quality).unwrap_err().kind(), ErrorKind::InvalidRequest);
        }
        let deep = png::encode(1, 1, &Samples::Gray16(vec![1])).unwrap();
        assert_eq!(of_png(&deep, 90).unwrap_err().kind(), ErrorKind::Internal);
    }
}
