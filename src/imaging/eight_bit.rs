//! Native depth to 8 bit: window, inversion, refusal of constant pictures.

use super::raster::{Padding, Raster, Samples};
use super::voi::level;
use crate::domain::Window;
use crate::error::{Error, ErrorKind, Result};

/// A picture of 8-bit samples, row-major, channels interleaved.
#[derive(Clone, PartialEq, Eq)]
pub struct Raster8 {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// 1 (grey) or 3 (RGB).
    pub channels: u8,
    /// width × height × channels bytes.
    pub data: Vec<u8>,
}

impl Raster8 {
    /// Refuses a picture whose pixels are all equal: it shows nothing to compare.
    ///
    /// # Errors
    /// `ConstantImage`.
    pub fn refuse_constant(&self) -> Result<()> {
        let mut pixels = self.data.chunks_exact(usize::from(self.channels));
        let first = pixels.next();
        if pixels.all(|pixel| Some(pixel) == first) {
            return Err(Error::new(
                ErrorKind::ConstantImage,
                "all pixels are equal: nothing to compare",
            ));
        }
        Ok(())
    }
}

/// Steps 3 and 4 of the pipeline: 8-bit samples and the window that made them.
///
/// RGB of 16 bit is scaled; grey with [`windowed`](super::Levels::windowed) levels gets a linear window between the 0.5 %
/// and the 99.5 % percentile of the values that are not padding; other samples are taken as they are. Inverted levels
/// are turned over last.
///
/// # Errors
/// `ConstantImage` when all pixels of the result are equal.
pub fn to_eight_bit(raster: &Raster) -> Result<(Raster8, Window)> {
    to_eight_bit_in(raster, None)
}

/// The same in a window that a table has for the picture, which goes before everything else of grey ones; colours have none.
///
/// # Errors
/// As [`to_eight_bit`].
pub fn to_eight_bit_in(raster: &Raster, ruled: Option<Window>) -> Result<(Raster8, Window)> {
    let levels = raster.levels();
    let gray = GrayMap {
        offset: raster.offset_levels(),
        inverted: levels.inverted,
    };
    let mut window = Window::Identity;
    let data = match raster.samples() {
        Samples::Rgb8(samples) => samples.clone(),
        Samples::Rgb16(samples) => samples.iter().map(|&sample| scale_16_to_8(sample)).collect(),
        Samples::Gray8(samples) if levels.windowed || ruled.is_some() => {
            let mask = gray.sign_mask() as u8;
            window = ruled.unwrap_or_else(|| {
                let counts = histogram(samples.iter().map(|&sample| usize::from(sample ^ mask)), 1 << 8);
                percentile_window(counts, gray.offset, levels.padding)
            });
            let table = gray.table(window, 1 << 8);
            samples
                .iter()
                .map(|&sample| table[usize::from(sample ^ mask)])
                .collect()
        }
        Samples::Gray16(samples) if levels.windowed || ruled.is_some() => {
            let mask = gray.sign_mask();
            window = ruled.unwrap_or_else(|| {
                let counts = histogram(samples.iter().map(|&sample| usize::from(sample ^ mask)), 1 << 16);
                percentile_window(counts, gray.offset, levels.padding)
            });
            let table = gray.table(window, 1 << 16);
            samples
                .iter()
                .map(|&sample| table[usize::from(sample ^ mask)])
                .collect()
        }
        Samples::Gray8(samples) if levels.inverted => samples.iter().map(|&sample| 255 - sample).collect(),
        Samples::Gray8(samples) => samples.clone(),
        // Not windowed: 8 stored bits in 16 allocated ones, which a lossy coding may exceed.
        Samples::Gray16(samples) => {
            let turn = if levels.inverted { 255 } else { 0 };
            samples.iter().map(|&sample| sample.min(255) as u8 ^ turn).collect()
        }
    };
    let result = Raster8 {
        width: raster.width(),
        height: raster.height(),
        channels: raster.samples().channels(),
        data,
    };
    result.refuse_constant().map_err(|constant| match window {
        Window::Fixed { low, high } | Window::File { low, high, .. } if !raster.samples().are_equal() => Error::new(
            ErrorKind::ConstantImage,
            format!("the window that its values are shown in, from {low} to {high} as they are stored, has nothing of the image"),
        ),
        _ => constant,
    })?;
    Ok((result, window))
}

/// 0..=65535 to 0..=255, rounded.
pub fn scale_16_to_8(sample: u16) -> u8 {
    ((u32::from(sample) * 255 + 32_767) / 65_535) as u8
}

/// The grey level of `value` in a window from `low` (black) to `high` (white).
pub fn window_level(value: i32, low: i32, high: i32) -> u8 {
    let (value, low, high) = (i64::from(value), i64::from(low), i64::from(high));
    let width = (high - low).max(1);
    (((value - low) * 255 + width / 2).div_euclid(width)).clamp(0, 255) as u8
}

/// How grey samples become levels of a window.
struct GrayMap {
    /// Added to a stored value to index a table.
    offset: i32,
    inverted: bool,
}

impl GrayMap {
    /// Turns the bits of a signed sample into its place among the values, smallest first.
    fn sign_mask(&self) -> u16 {
        self.offset as u16
    }

    /// Level of every possible sample, smallest value first.
    fn table(&self, window: Window, length: usize) -> Vec<u8> {
        let turn = if self.inverted { 255 } else { 0 };
        (0..length as i32)
            .map(|index| level(window, index - self.offset) ^ turn)
            .collect()
    }
}

fn histogram(places: impl Iterator<Item = usize>, length: usize) -> Vec<u32> {
    let mut counts = vec![0_u32; length];
    for place in places {
        counts[place] += 1;
    }
    counts
}

/// 0.5 % of the counted values lie at or below black, 0.5 % at or above white.
///
/// `counts[i]` is how often the value `i - offset` occurs; at least one count is above 0.
fn percentile_window(mut counts: Vec<u32>, offset: i32, padding: Option<Padding>) -> Window {
    let sum = |counts: &[u32]| counts.iter().map(|&count| u64::from(count)).sum::<u64>();
    let places = counts.len() as i64;
    let place = |value: i32, beyond: i64| (i64::from(value) + i64::from(offset) + beyond).clamp(0, places) as usize;
    if let Some(Padding { first, last }) = padding {
        let padded = place(first, 0)..place(last, 1);
        // A picture of nothing but padding is counted whole.
        if sum(&counts[padded.clone()]) < sum(&counts) {
            counts[padded].fill(0);
        }
    }
    let total = sum(&counts);
    let (mut low, mut high) = (None, None);
    let (mut lowest, mut highest) = (None, 0);
    let mut cumulative = 0_u64;
    for (place, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
        lowest = lowest.or(Some(place));
        highest = place;
        cumulative += u64::from(count);
        if cumulative * 1000 > 5 * total {
            low = low.or(Some(place));
        }
        if cumulative * 1000 >= 995 * total {
            high = high.or(Some(place));
        }
    }
    let (mut low, mut high) = (low.unwrap_or(0), high.unwrap_or(highest));
    if high <= low {
        (low, high) = (lowest.unwrap_or(0), highest);
    }
    Window::Percentile {
        low: low as i32 - offset,
        high: high as i32 - offset,
    }
}

/// ITU-R 601-2 luma by integer weights, as Pillow's mode `L`.
pub fn luma([r, g, b]: [u8; 3]) -> u8 {
    let sum = u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000;
    // The weights add up to 65,536: the sum is at most 255 * 65,536 + 32,768.
    (sum >> 16) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::imaging::raster::Levels;

    fn gray16(values: Vec<u16>, levels: Levels) -> Raster {
        Raster::new(values.len() as u32, 1, Samples::Gray16(values), levels).unwrap()
    }

    const WINDOWED: Levels = Levels {
        signed: false,
        windowed: true,
        inverted: false,
        padding: None,
    };

    #[test]
    fn outliers_of_half_a_percent_are_cut() {
        let mut values: Vec<u16> = (0..1000).map(|i| 1000 + i).collect();
        values[0] = 0;
        values[999] = 60_000;
        let (out, window) = to_eight_bit(&gray16(values, WINDOWED)).unwrap();
        assert_eq!(window, Window::Percentile { low: 1005, high: 1994 });
        assert_eq!((out.data[0], out.data[999], out.data[5]), (0, 255, 0));
    }

    #[test]
    fn two_values_use_the_whole_range() {
        let mut values = vec![7_u16; 5000];
        values[17] = 9;
        let (out, window) = to_eight_bit(&gray16(values, WINDOWED)).unwrap();
        assert_eq!(window, Window::Percentile { low: 7, high: 9 });
        assert_eq!((out.data[0], out.data[17]), (0, 255));
    }

    #[test]
    fn padding_is_not_counted_but_mapped() {
        let mut values = vec![63_536_u16; 900];
        values.extend((0..100).map(|i| i * 3));
        let signed = Levels {
            signed: true,
            padding: Some(Padding::of(-2000)),
            ..WINDOWED
        };
        let (out, window) = to_eight_bit(&gray16(values, signed)).unwrap();
        assert_eq!(window, Window::Percentile { low: 0, high: 297 });
        assert_eq!((out.data[0], out.data[999]), (0, 255));
    }

    #[test]
    fn inversion_comes_last() {
        let values: Vec<u16> = (0..300).collect();
        let (plain, _) = to_eight_bit(&gray16(values.clone(), WINDOWED)).unwrap();
        let (turned, _) = to_eight_bit(&gray16(
            values,
            Levels {
                inverted: true,
                ..WINDOWED
            },
        ))
        .unwrap();
        assert!(plain.data.iter().zip(&turned.data).all(|(a, b)| a + b == 255));
        let eight = Raster::new(
            2,
            1,
            Samples::Gray8(vec![3, 250]),
            Levels {
                inverted: true,
                ..Levels::default()
            },
        );
        assert_eq!(to_eight_bit(&eight.unwrap()).unwrap().0.data, [252, 5]);
    }

    #[test]
    fn a_picture_beyond_its_window_is_refused_by_that() {
        let beyond = Some(Window::Fixed {
            low: 100.0,
            high: 200.0,
        });
        let message = |samples: Vec<u16>| {
            let raster = Raster::new(2, 1, Samples::Gray16(samples), WINDOWED).unwrap();
            let refused = to_eight_bit_in(&raster, beyond).err().unwrap();
            assert_eq!(refused.kind(), ErrorKind::ConstantImage);
            refused.message().to_owned()
        };
        assert!(message(vec![300, 900]).contains("from 100 to 200"));
        assert!(message(vec![300, 300]).contains("all pixels are equal"));
    }

    #[test]
    fn constant_pictures_are_refused() {
        let check = |samples: Samples, width, levels| {
            let raster = Raster::new(width, 1, samples, levels).unwrap();
            let refused = to_eight_bit(&raster).err().map(|error| error.kind());
            assert_eq!(refused, Some(ErrorKind::ConstantImage));
        };
        check(Samples::Gray8(vec![9; 4]), 4, Levels::default());
        check(Samples::Gray8(vec![9]), 1, Levels::default());
        check(Samples::Rgb8(vec![1, 2, 3, 1, 2, 3]), 2, Levels::default());
        check(Samples::Gray16(vec![500; 4]), 4, WINDOWED);
        check(
            Samples::Gray16(vec![500; 4]),
            4,
            Levels {
                padding: Some(Padding::of(500)),
                ..WINDOWED
            },
        );
    }

    #[test]
    fn sixteen_bit_colour_is_scaled_and_rounded() {
        let raster = Raster::new(
            2,
            1,
            Samples::Rgb16(vec![0, 128, 129, 65_535, 32_767, 257]),
            Levels::default(),
        );
        let (out, window) = to_eight_bit(&raster.unwrap()).unwrap();
        assert_eq!(out.data, [0, 0, 1, 255, 127, 1]);
        assert_eq!(window, Window::Identity);
    }

    proptest! {
        /// The definition of the contract, computed by sorting.
        #[test]
        fn window_is_the_sorted_definition(
            values in prop::collection::vec(-40_i32..40, 1..400), padding in -45_i32..45, limit in -45_i32..45, one in any::<bool>(),
        ) {
            let padding = if one { Padding::of(padding) } else { Padding::between(padding, limit) };
            let bits: Vec<u16> = values.iter().map(|&v| v as i16 as u16).collect();
            let levels = Levels { signed: true, padding: Some(padding), ..WINDOWED };
            let raster = gray16(bits, levels);
            let mut counted: Vec<i32> = values.iter().copied().filter(|&v| v < padding.first || v > padding.last).collect();
            if counted.is_empty() {
                counted = values.clone();
            }
            counted.sort_unstable();
            let n = counted.len();
            let at_most = |v: i32| counted.partition_point(|&c| c <= v);
            let mut low = *counted.iter().find(|&&v| at_most(v) * 1000 > 5 * n).unwrap();
            let mut high = *counted.iter().find(|&&v| at_most(v) * 1000 >= 995 * n).unwrap();
            if high <= low {
                (low, high) = (counted[0], counted[n - 1]);
            }
            let width = (high - low).max(1);
            let expected: Vec<u8> =
                values.iter().map(|&v| ((v - low) * 255 + width / 2).div_euclid(width).clamp(0, 255) as u8).collect();
            match to_eight_bit(&raster) {
                Ok((out, window)) => {
                    prop_assert_eq!(window, Window::Percentile { low, high });
                    prop_assert_eq!(out.data, expected);
                }
                Err(_) => prop_assert!(expected.iter().all(|&v| v == expected[0])),
            }
        }
    }
}
