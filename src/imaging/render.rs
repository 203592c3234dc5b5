//! Pictures for people: the thumbnail, the view that an archive keeps, and what a browser is shown of it.

use super::eight_bit::{Raster8, to_eight_bit};
use super::limits::Limits;
use super::png;
use super::preprocess;
use super::raster::{Levels, Raster, Samples};
use super::resize::{Sample, resize};
use super::voi::{Function, Voi, level, linear_level};
use crate::domain::{PixelsRef, Window};
use crate::error::{Error, ErrorKind, Result};

/// A picture in its original bit depth, as the archive keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct View {
    /// PNG of 8 or 16 bit.
    pub png: Vec<u8>,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Smaller values are brighter.
    pub inverted: bool,
    /// Added to stored values to make the PNG's.
    pub offset_levels: i32,
}

/// A PNG of 8 bit, at most `long_side_max` pixels long, never enlarged.
///
/// # Errors
/// `Internal` when `long_side_max` is 0.
pub fn thumbnail_png(picture: &Raster8, long_side_max: u32) -> Result<Vec<u8>> {
    let (width, height) = fitting(picture.width, picture.height, long_side_max);
    let small;
    let picture = if (width, height) == (picture.width, picture.height) {
        picture
    } else {
        small = preprocess::resize(picture, width, height)?;
        &small
    };
    encode_eight_bit(picture)
}

/// A PNG in the original bit depth, at most `long_side_max` pixels long, never enlarged; lossless but for the shrinking.
///
/// # Errors
/// `Internal` when `long_side_max` is 0.
pub fn view_png(raster: &Raster, long_side_max: u32) -> Result<View> {
    let from = (raster.width(), raster.height());
    let (width, height) = fitting(from.0, from.1, long_side_max);
    let offset_levels = raster.offset_levels();
    let to = (width, height);
    if width == 0 {
        return Err(Error::internal("a view of no size"));
    }
    let samples = match raster.samples() {
        Samples::Gray8(data) => Samples::Gray8(shrink(
            data.iter().map(|&sample| sample ^ offset_levels as u8).collect(),
            1,
            from,
            to,
        )),
        Samples::Gray16(data) => Samples::Gray16(shrink(
            data.iter().map(|&sample| sample ^ offset_levels as u16).collect(),
            1,
            from,
            to,
        )),
        Samples::Rgb8(data) => Samples::Rgb8(shrink(data.clone(), 3, from, to)),
        Samples::Rgb16(data) => Samples::Rgb16(shrink(data.clone(), 3, from, to)),
    };
    let png = png::encode(width, height, &samples)?;
    Ok(View {
        png,
        width,
        height,
        inverted: raster.levels().inverted,
        offset_levels,
    })
}

fn shrink<S: Sample>(data: Vec<S>, channels: usize, from: (u32, u32), to: (u32, u32)) -> Vec<S> {
    if from == to {
        data
    } else {
        resize(&data, channels, from, to)
    }
}

/// An 8-bit PNG to show of a kept view.
///
/// `window` is centre and width in stored values, applied as DICOM's LINEAR function (PS3.3, C.11.2.1.2.1); without it
/// `fallback`, the window that was used for the embedding, applies; without both, 16-bit grey gets its percentile
/// window. Colour has no window. At most `size_max` pixels long, never enlarged.
///
/// # Errors
/// `InvalidRequest` for a window that is not finite or narrower than 1 and for a size of 0, `Damaged` when the view
/// can't be read.
pub fn render(
    png: &[u8],
    pixels: &PixelsRef,
    window: Option<(f64, f64)>,
    fallback: Option<Window>,
    size_max: Option<u32>,
) -> Result<Vec<u8>> {
    let odd_window = || {
        Error::new(
            ErrorKind::InvalidRequest,
            "`window` is center,width with a width of at least 1",
        )
    };
    let window = window
        .map(|(center, width)| Voi::new(center, width, Function::Linear).ok_or_else(odd_window))
        .transpose()?;
    if size_max == Some(0) {
        return Err(Error::new(ErrorKind::InvalidRequest, "`size` is at least 1"));
    }
    let damaged = |what: &str| Error::new(ErrorKind::Damaged, format!("a kept picture is damaged: {what}"));
    // What was let in is shown, whatever the limit was then.
    let limits = Limits {
        file_bytes_max: png.len(),
        pixels_max: u64::from(pixels.width) * u64::from(pixels.height),
    };
    let view = png::decode(png, &limits).map_err(|error| damaged(error.message()))?;
    if (view.width(), view.height()) != (pixels.width, pixels.height) {
        return Err(damaged("its size is not the recorded one"));
    }
    let shown = show(&view, pixels, window, fallback)?;
    thumbnail_png(&shown, size_max.unwrap_or(u32::MAX))
}

/// The view in 8 bit.
fn show(view: &Raster, pixels: &PixelsRef, window: Option<Voi>, fallback: Option<Window>) -> Result<Raster8> {
    let turn = if pixels.inverted { 255 } else { 0 };
    let ends = window.map(Voi::ends);
    let level = |sample: u16| {
        let value = i32::from(sample) - pixels.offset_levels;
        let level = match (ends, fallback) {
            (Some((low, high)), _) => linear_level(f64::from(value), low, high),
            (None, Some(Window::Identity) | None) => sample.min(255) as u8,
            (None, Some(window)) => level(window, value),
        };
        level ^ turn
    };
    let data = match view.samples() {
        Samples::Gray8(samples) => samples.iter().map(|&sample| level(sample.into())).collect(),
        Samples::Gray16(samples) if window.is_some() || fallback.is_some() => {
            let table: Vec<u8> = (0..=u16::MAX).map(level).collect();
            samples.iter().map(|&sample| table[usize::from(sample)]).collect()
        }
        samples => {
            let levels = Levels {
                windowed: true,
                inverted: pixels.inverted,
                ..Levels::default()
            };
            let again = Raster::new(view.width(), view.height(), samples.clone(), levels)?;
            return Ok(to_eight_bit(&again)?.0);
        }
    };
    Ok(Raster8 {
        width: view.width(),
        height: view.height(),
        channels: 1,
        data,
    })
}

/// The size with the same proportions whose long side is at most `long_side_max`.
fn fitting(width: u32, height: u32, long_side_max: u32) -> (u32, u32) {
    let long = width.max(height);
    if long <= long_side_max {
        return (width, height);
    }
    let scaled = |side: u32| {
        let (side, long) = (u64::from(side) * u64::from(long_side_max), u64::from(long));
        ((side + long / 2) / long).max(u64::from(long_side_max.min(1))) as u32
    };
    (scaled(width), scaled(height))
}

fn encode_eight_bit(picture: &Raster8) -> Result<Vec<u8>> {
    let data = picture.data.clone();
    let samples = if picture.channels == 1 {
        Samples::Gray8(data)
    } else {
        Samples::Rgb8(data)
    };
    png::encode(picture.width, picture.height, &samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::PackRef;
    use crate::imaging::eight_bit::to_eight_bit_in;

    fn pixels_ref(view: &View) -> PixelsRef {
        PixelsRef {
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
            other: Default::default(),
        }
    }

    fn shown(raster: &Raster, window: Option<(f64, f64)>, fallback: Option<Window>) -> Vec<u8> {
        let view = view_png(raster, 1536).unwrap();
        let png = render(&view.png, &pixels_ref(&view), window, fallback, None).unwrap();
        match png::decode(&png, &Limits::default()).unwrap().samples() {
            Samples::Gray8(data) | Samples::Rgb8(data) => data.clone(),
            _ => panic!("not 8 bit"),
        }
    }

    #[test]
    fn what_is_shown_by_default_is_what_was_embedded() {
        let values: Vec<u16> = (0..2000).map(|i| (i * 31 % 4000 - 1500) as i16 as u16).collect();
        for inverted in [false, true] {
            let levels = Levels {
                signed: true,
                windowed: true,
                inverted,
                padding: None,
            };
            let raster = Raster::new(50, 40, Samples::Gray16(values.clone()), levels).unwrap();
            let file = |sigmoid| Window::File {
                low: -1000.0 / 3.0,
                high: 700.1,
                sigmoid,
            };
            let fixed = Window::Fixed {
                low: -326.0,
                high: 1173.0,
            };
            for ruled in [None, Some(fixed), Some(file(false)), Some(file(true))] {
                let (embedded, window) = to_eight_bit_in(&raster, ruled).unwrap();
                let recorded = serde_json::from_str(&serde_json::to_string(&window).unwrap()).unwrap();
                assert_eq!(shown(&raster, None, Some(recorded)), embedded.data);
            }
        }
        let eight = Raster::new(
            3,
            1,
            Samples::Gray8(vec![1, 2, 200]),
            Levels {
                inverted: true,
                ..Levels::default()
            },
        );
        assert_eq!(shown(&eight.unwrap(), None, Some(Window::Identity)), [254, 253, 55]);
    }

    #[test]
    fn windows_are_in_stored_values() {
        let levels = Levels {
            signed: true,
            windowed: true,
            ..Levels::default()
        };
        let values = [-1000_i16, -600, 150, 900].map(|value| value as u16).to_vec();
        let raster = Raster::new(4, 1, Samples::Gray16(values), levels).unwrap();
        assert_eq!(shown(&raster, Some((-600.0, 1.0)), None), [0, 255, 255, 255]);
        assert_eq!(shown(&raster, Some((150.0, 1501.0)), None), [0, 0, 128, 255]);
    }

    #[test]
    fn pictures_shrink_but_never_grow() {
        let raster = Raster::new(
            40,
            10,
            Samples::Rgb8((0..1200).map(|i| i as u8).collect()),
            Levels::default(),
        );
        let raster = raster.unwrap();
        let view = view_png(&raster, 20).unwrap();
        assert_eq!((view.width, view.height), (20, 5));
        let view = view_png(&raster, 1536).unwrap();
        assert_eq!((view.width, view.height), (40, 10));
        let (eight, _) = to_eight_bit(&raster).unwrap();
        let thumbnail = png::decode(&thumbnail_png(&eight, 8).unwrap(), &Limits::default()).unwrap();
        assert_eq!((thumbnail.width(), thumbnail.height()), (8, 2));
        assert_eq!(fitting(32_767, 1, 256), (256, 1));
    }

    #[test]
    fn wrong_requests_and_damage_are_told_apart() {
        let raster = Raster::new(2, 1, Samples::Gray8(vec![1, 2]), Levels::default()).unwrap();
        let view = view_png(&raster, 10).unwrap();
        let kind = |png: &[u8], window, size| render(png, &pixels_ref(&view), window, None, size).unwrap_err().kind();
        assert_eq!(kind(&view.png, Some((f64::NAN, 5.0)), None), ErrorKind::InvalidRequest);
        assert_eq!(kind(&view.png, Some((1.0, 0.5)), None), ErrorKind::InvalidRequest);
        assert_eq!(kind(&view.png, None, Some(0)), ErrorKind::InvalidRequest);
        assert_eq!(kind(&view.png[..20], None, None), ErrorKind::Damaged);
        let mut other = pixels_ref(&view);
        other.width = 3;
        assert_eq!(
            render(&view.png, &other, None, None, None).unwrap_err().kind(),
            ErrorKind::Damaged
        );
    }
}
