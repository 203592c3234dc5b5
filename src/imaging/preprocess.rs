//! 8-bit picture to the model's input: crop, fit, antialiased resize, three channels.

use super::eight_bit::Raster8;
use super::limits::Limits;
use super::resize;
use crate::domain::Region;
use crate::error::{Error, ErrorKind, Result};

/// How a picture of any shape fills the model's rectangle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// The whole picture, whatever happens to its proportions.
    #[default]
    Squeeze,
    /// The whole picture, centred in a black square.
    Pad,
    /// The centred square.
    Crop,
}

/// What a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputSpec {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// How pictures are fitted.
    pub fit: Fit,
}

/// What a model is given.
#[derive(Clone, PartialEq, Eq)]
pub struct ModelInput {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// height × width × 3 bytes, RGB interleaved; not normalised: the model does that.
    pub pixels: Vec<u8>,
}

/// Steps 5 to 7 of the pipeline; `region` is cut out first.
///
/// The resize is Pillow's `BILINEAR` to the byte: a triangle filter that widens when it shrinks. Grey is resized as grey.
///
/// # Errors
/// `ConstantImage` when the region is of one colour, `TooManyPixels` when a picture is too elongated to be padded.
pub fn preprocess(picture: &Raster8, spec: &InputSpec, region: Option<Region>) -> Result<ModelInput> {
    let cut = region.map(|region| cut_region(picture, region)).transpose()?;
    let picture = cut.as_ref().unwrap_or(picture);
    let side = picture.width.max(picture.height);
    let resized = match spec.fit {
        Fit::Pad if picture.width != picture.height => resize(&pad(picture, side)?, spec.width, spec.height)?,
        Fit::Crop if picture.width != picture.height => {
            let side = picture.width.min(picture.height);
            let (x, y) = ((picture.width - side) / 2, (picture.height - side) / 2);
            resize(&cut_rectangle(picture, x, y, side, side), spec.width, spec.height)?
        }
        _ => resize(picture, spec.width, spec.height)?,
    };
    let pixels = match resized.channels {
        1 => resized.data.iter().flat_map(|&level| [level; 3]).collect(),
        _ => resized.data,
    };
    Ok(ModelInput {
        width: spec.width,
        height: spec.height,
        pixels,
    })
}

/// What [`preprocess`] gives the model of a picture of `size` (columns, rows, each at least 1): x, y, width, height as fractions of the picture. Beyond 0..1
/// where it is padded.
pub fn seen(size: (u32, u32), spec: &InputSpec, region: Option<Region>) -> [f64; 4] {
    let (x, y, width, height) = match region {
        Some(region) => rectangle(size, region),
        None => (0, 0, size.0, size.1),
    };
    let centred = |start: u32, length: u32, side: u32| {
        // Rounded as the pixels are.
        let before = if side > length {
            -f64::from((side - length) / 2)
        } else {
            f64::from((length - side) / 2)
        };
        (f64::from(start) + before, f64::from(side))
    };
    let side = match spec.fit {
        Fit::Squeeze => None,
        Fit::Pad => Some(width.max(height)),
        Fit::Crop => Some(width.min(height)),
    };
    let (x, width) = centred(x, width, side.unwrap_or(width));
    let (y, height) = centred(y, height, side.unwrap_or(height));
    let (columns, rows) = (f64::from(size.0), f64::from(size.1));
    [x / columns, y / rows, width / columns, height / rows]
}

/// Antialiased bilinear resize of 8-bit samples.
///
/// # Errors
/// `Internal` when a side is 0.
pub fn resize(picture: &Raster8, width: u32, height: u32) -> Result<Raster8> {
    if width == 0 || height == 0 {
        return Err(Error::internal("a resize to nothing"));
    }
    let from = (picture.width, picture.height);
    let data = resize::resize(&picture.data, usize::from(picture.channels), from, (width, height));
    Ok(Raster8 {
        width,
        height,
        channels: picture.channels,
        data,
    })
}

fn cut_region(picture: &Raster8, region: Region) -> Result<Raster8> {
    let (x, y, width, height) = rectangle((picture.width, picture.height), region);
    let cut = cut_rectangle(picture, x, y, width, height);
    cut.refuse_constant()?;
    Ok(cut)
}

/// The pixels of a region: x, y, width, height.
fn rectangle((columns, rows): (u32, u32), region: Region) -> (u32, u32, u32, u32) {
    let [x, y, width, height] = region.fractions();
    let span = |start: f64, length: f64, side: u32| {
        let first = ((start * f64::from(side)).floor() as u32).min(side - 1);
        let last = (((start + length) * f64::from(side)).ceil() as u32).clamp(first + 1, side);
        (first, last - first)
    };
    let ((x, width), (y, height)) = (span(x, width, columns), span(y, height, rows));
    (x, y, width, height)
}

/// The caller keeps the rectangle inside the picture.
fn cut_rectangle(picture: &Raster8, x: u32, y: u32, width: u32, height: u32) -> Raster8 {
    let pixel_bytes = usize::from(picture.channels);
    let columns = x as usize * pixel_bytes..(x + width) as usize * pixel_bytes;
    let rows = picture.data.chunks_exact(picture.width as usize * pixel_bytes);
    let mut data = Vec::with_capacity(columns.len() * height as usize);
    rows.skip(y as usize)
        .take(height as usize)
        .for_each(|row| data.extend_from_slice(&row[columns.clone()]));
    Raster8 {
        width,
        height,
        channels: picture.channels,
        data,
    }
}

fn pad(picture: &Raster8, side: u32) -> Result<Raster8> {
    // A strip of 32,767 x 1 would become a square of a gigapixel.
    if Limits::default().check_size(side, side).is_err() {
        let message = format!(
            "a picture of `{}x{}` is too elongated to be padded",
            picture.width, picture.height
        );
        return Err(Error::new(ErrorKind::TooManyPixels, message));
    }
    let pixel_bytes = usize::from(picture.channels);
    let line = side as usize * pixel_bytes;
    let row_bytes = picture.width as usize * pixel_bytes;
    let left = ((side - picture.width) / 2) as usize * pixel_bytes;
    let top = ((side - picture.height) / 2) as usize;
    let mut data = vec![0; line * side as usize];
    for (row, target) in picture
        .data
        .chunks_exact(row_bytes)
        .zip(data.chunks_exact_mut(line).skip(top))
    {
        target[left..left + row_bytes].copy_from_slice(row);
    }
    Ok(Raster8 {
        width: side,
        height: side,
        channels: picture.channels,
        data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gray(width: u32, height: u32) -> Raster8 {
        let data = (0..width * height).map(|i| (i * 37 % 256) as u8).collect();
        Raster8 {
            width,
            height,
            channels: 1,
            data,
        }
    }

    #[test]
    fn gray_fills_three_channels() {
        let spec = InputSpec {
            width: 4,
            height: 2,
            fit: Fit::Squeeze,
        };
        let input = preprocess(&gray(4, 2), &spec, None).unwrap();
        assert_eq!(input.pixels.len(), 24);
        assert_eq!(input.pixels[..6], [0, 0, 0, 37, 37, 37]);
    }

    #[test]
    fn fits_differ_where_they_should() {
        let picture = Raster8 {
            width: 2,
            height: 4,
            channels: 1,
            data: vec![1, 2, 3, 4, 5, 6, 7, 8],
        };
        let check = |fit, side, expected: &[u8]| {
            let input = preprocess(
                &picture,
                &InputSpec {
                    width: side,
                    height: side,
                    fit,
                },
                None,
            )
            .unwrap();
            let first_channel: Vec<u8> = input.pixels.iter().step_by(3).copied().collect();
            assert_eq!(first_channel, expected);
        };
        check(Fit::Crop, 2, &[3, 4, 5, 6]);
        check(Fit::Pad, 4, &[0, 1, 2, 0, 0, 3, 4, 0, 0, 5, 6, 0, 0, 7, 8, 0]);
    }

    #[test]
    fn regions_are_cut_out() {
        let picture = gray(10, 10);
        let spec = InputSpec {
            width: 5,
            height: 5,
            fit: Fit::Squeeze,
        };
        let input = preprocess(&picture, &spec, Some(Region::new(0.5, 0.0, 0.5, 0.5).unwrap())).unwrap();
        assert_eq!(input.pixels[0], picture.data[5]);
        assert_eq!(input.pixels[3 * 24], picture.data[49]);
        let constant = Raster8 {
            width: 4,
            height: 1,
            channels: 1,
            data: vec![0, 5, 5, 5],
        };
        let refused = preprocess(&constant, &spec, Some(Region::new(0.5, 0.0, 0.5, 1.0).unwrap()));
        assert_eq!(refused.err().unwrap().kind(), ErrorKind::ConstantImage);
    }

    #[test]
    fn what_is_seen_is_where_the_pixels_are() {
        let spec = |fit| InputSpec {
            width: 4,
            height: 4,
            fit,
        };
        let seen = |size, fit, region: Option<[f64; 4]>| {
            let region = region.map(|[x, y, width, height]| Region::new(x, y, width, height).unwrap());
            seen(size, &spec(fit), region)
        };
        assert_eq!(seen((30, 10), Fit::Squeeze, None), [0.0, 0.0, 1.0, 1.0]);
        // Ten rows of black above and below.
        assert_eq!(seen((30, 10), Fit::Pad, None), [0.0, -1.0, 1.0, 3.0]);
        assert_eq!(seen((10, 40), Fit::Crop, None), [0.0, 0.375, 1.0, 0.25]);
        // The region snaps to whole pixels: columns 2 to 7 of 10.
        assert_eq!(
            seen((10, 10), Fit::Squeeze, Some([0.25, 0.0, 0.41, 1.0])),
            [0.2, 0.0, 0.5, 1.0]
        );
        assert_eq!(
            seen((10, 10), Fit::Crop, Some([0.2, 0.0, 0.5, 1.0])),
            [0.2, 0.2, 0.5, 0.5]
        );
    }

    #[test]
    fn strips_are_not_padded_to_a_gigapixel() {
        let strip = Raster8 {
            width: 30_000,
            height: 1,
            channels: 1,
            data: vec![1; 30_000],
        };
        let spec = InputSpec {
            width: 8,
            height: 8,
            fit: Fit::Pad,
        };
        assert_eq!(
            preprocess(&strip, &spec, None).err().unwrap().kind(),
            ErrorKind::TooManyPixels
        );
        assert!(
            preprocess(
                &strip,
                &InputSpec {
                    fit: Fit::Squeeze,
                    ..spec
                },
                None
            )
            .is_ok()
        );
    }
}
