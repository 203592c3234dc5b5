//! Antialiased bilinear resize of 8-bit samples with the arithmetic of Pillow's `BILINEAR`, to the byte.
//!
//! Other resizers have coarser weights and differ by one grey level here and there; then the vectors of the Python way
//! and of the server would differ too. Columns first, rows second, rounded to samples in between, whatever the shape:
//! Pillow before 13 does the same; since 13 it turns the order around for tall pictures, unless it is asked in two calls.

/// Weights are fixed-point numbers with this many fractional bits, so that a sum of weighted bytes fits an `i32`.
const FRACTION_BITS: u32 = 22;
/// 8-bit samples take their weights in two halves, the lower with this many bits: products of 16-bit numbers are what
/// every vector unit has.
const LOW_BITS: u32 = 11;
/// Samples that are weighed side by side.
const LANES: usize = 16;

/// A sample that can be resized.
pub trait Sample: Copy + Default {
    /// The weighted sum of consecutive groups of [`LANES`] samples, `step` apart, lane by lane.
    fn sum_groups(groups: &[[Self; LANES]], step: usize, window: &Window) -> [Self; LANES];
}

/// Resizes interleaved samples of `channels` channels from and to sizes of (columns, rows), none of them 0.
pub fn resize<S: Sample>(data: &[S], channels: usize, from: (u32, u32), to: (u32, u32)) -> Vec<S> {
    let [columns, rows, new_columns, new_rows] = [from.0, from.1, to.0, to.1].map(|side| side as usize);
    let narrow;
    let narrow = if columns == new_columns {
        data
    } else {
        narrow = resize_rows(data, channels, (columns, rows), new_columns);
        &narrow
    };
    if rows == new_rows {
        narrow.to_vec()
    } else {
        resize_columns(narrow, new_columns * channels, rows, new_rows)
    }
}

/// Another number of columns. A few rows at a time, turned so that the same sample of each lies side by side.
fn resize_rows<S: Sample>(data: &[S], channels: usize, (columns, rows): (usize, usize), new_columns: usize) -> Vec<S> {
    let windows = Windows::new(columns, new_columns);
    let (line, new_line) = (columns * channels, new_columns * channels);
    let mut narrow = vec![S::default(); new_line * rows];
    let mut turned = vec![[S::default(); LANES]; line];
    for (sources, targets) in data.chunks(line * LANES).zip(narrow.chunks_mut(new_line * LANES)) {
        for (lane, source) in sources.chunks_exact(line).enumerate() {
            turned
                .iter_mut()
                .zip(source)
                .for_each(|(group, &sample)| group[lane] = sample);
        }
        for (column, window) in windows.windows.iter().enumerate() {
            for channel in 0..channels {
                let groups = &turned[window.start * channels + channel..];
                let samples = S::sum_groups(groups, channels, window);
                let places = targets.iter_mut().skip(column * channels + channel).step_by(new_line);
                places.zip(samples).for_each(|(place, sample)| *place = sample);
            }
        }
    }
    narrow
}

/// Another number of rows of `line` samples.
fn resize_columns<S: Sample>(data: &[S], line: usize, rows: usize, new_rows: usize) -> Vec<S> {
    let windows = Windows::new(rows, new_rows);
    let mut resized = vec![S::default(); line * new_rows];
    let mut column = vec![[S::default(); LANES]; rows];
    for start in (0..line).step_by(LANES) {
        let lanes = LANES.min(line - start);
        for (group, source) in column.iter_mut().zip(data.chunks_exact(line)) {
            group[..lanes].copy_from_slice(&source[start..start + lanes]);
        }
        for (window, target) in windows.windows.iter().zip(resized.chunks_exact_mut(line)) {
            let samples = S::sum_groups(&column[window.start..], 1, window);
            target[start..start + lanes].copy_from_slice(&samples[..lanes]);
        }
    }
    resized
}

/// For every target place the source places that it is made of.
pub struct Windows {
    windows: Vec<Window>,
}

/// Consecutive source places and their weights, which add up to 1.
pub struct Window {
    start: usize,
    weights: Vec<i32>,
    /// The same in halves: high, low.
    halves: Vec<[i16; 2]>,
}

impl Windows {
    /// The triangle filter, as wide as the scale when it shrinks.
    fn new(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let support = scale.max(1.0);
        let window = |place: usize| {
            let center = (place as f64 + 0.5) * scale;
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let weigh = |source: usize| (1.0 - ((source as f64 - center + 0.5) * (1.0 / support)).abs()).max(0.0);
            let weights: Vec<f64> = (start..end).map(weigh).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |weight: &f64| (0.5 + weight / sum * f64::from(1 << FRACTION_BITS)) as i32;
            Window::new(start, weights.iter().map(fixed).collect())
        };
        Self {
            windows: (0..to).map(window).collect(),
        }
    }
}

impl Window {
    fn new(start: usize, weights: Vec<i32>) -> Self {
        let low = (1 << LOW_BITS) - 1;
        let halves = weights
            .iter()
            .map(|&weight| [(weight >> LOW_BITS) as i16, (weight & low) as i16])
            .collect();
        Self { start, weights, halves }
    }
}

const HALF: i32 = 1 << (FRACTION_BITS - 1);

impl Sample for u8 {
    fn sum_groups(groups: &[[Self; LANES]], step: usize, window: &Window) -> [Self; LANES] {
        let (mut high, mut low) = ([0_i32; LANES], [0_i32; LANES]);
        for (group, &[weight_high, weight_low]) in groups.iter().step_by(step).zip(&window.halves) {
            for lane in 0..LANES {
                // Weights add up to 2^22: no sum comes near its bounds, and checks would cost half of the time.
                let sample = i32::from(group[lane]);
                high[lane] = high[lane].wrapping_add(sample.wrapping_mul(i32::from(weight_high)));
                low[lane] = low[lane].wrapping_add(sample.wrapping_mul(i32::from(weight_low)));
            }
        }
        std::array::from_fn(|lane| {
            let sum = (high[lane] << LOW_BITS).wrapping_add(low[lane]).wrapping_add(HALF);
            (sum >> FRACTION_BITS).clamp(0, 255) as u8
        })
    }
}

/// For kept views only: no other program has to agree.
impl Sample for u16 {
    fn sum_groups(groups: &[[Self; LANES]], step: usize, window: &Window) -> [Self; LANES] {
        let mut sums = [i64::from(HALF); LANES];
        for (group, &weight) in groups.iter().step_by(step).zip(&window.weights) {
            for lane in 0..LANES {
                sums[lane] = sums[lane].wrapping_add(i64::from(group[lane]).wrapping_mul(i64::from(weight)));
            }
        }
        sums.map(|sum| (sum >> FRACTION_BITS).clamp(0, 65_535) as u16)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that Pillow 13 gives for `(i * 37 + i * i * 11) % 256`.
    #[test]
    fn bytes_are_pillows() {
        let source = |count: u32| {
            (0..count)
                .map(|i| ((i * 37 + i * i * 11) % 256) as u8)
                .collect::<Vec<u8>>()
        };
        assert_eq!(resize(&source(7 * 5), 1, (7, 5), (3, 2)), PILLOW_GRAY);
        assert_eq!(resize(&source(3 * 2), 1, (3, 2), (5, 3)), PILLOW_GROWN);
        assert_eq!(resize(&source(5 * 4 * 3), 3, (5, 4), (2, 2)), PILLOW_RGB);
    }

    const PILLOW_GRAY: [u8; 6] = [120, 168, 129, 156, 121, 125];
    const PILLOW_GROWN: [u8; 15] = [0, 19, 48, 90, 118, 105, 86, 58, 120, 161, 210, 153, 68, 150, 204];
    const PILLOW_RGB: [u8; 12] = [147, 95, 140, 160, 133, 141, 143, 130, 148, 157, 172, 113];

    #[test]
    fn shrinking_is_antialiased() {
        // Alternating columns average to grey; a plain bilinear sample would pick one of them.
        let data: Vec<u8> = (0..64).map(|i| if i % 2 == 0 { 0 } else { 255 }).collect();
        let small = resize(&data, 1, (64, 1), (8, 1));
        assert!(small.iter().all(|&level| (120..=136).contains(&level)), "{small:?}");
    }

    proptest! {
        #[test]
        fn constant_stays_constant(
            from in (1_u32..40, 1_u32..40), to in (1_u32..40, 1_u32..40), level in any::<u8>(), channels in 1_usize..4,
        ) {
            let pixels = (from.0 * from.1) as usize * channels;
            let resized = resize(&vec![level; pixels], channels, from, to);
            prop_assert_eq!(resized, vec![level; (to.0 * to.1) as usize * channels]);
            let wide = u16::from(level) * 257;
            let resized = resize(&vec![wide; pixels], channels, from, to);
            prop_assert_eq!(resized, vec![wide; (to.0 * to.1) as usize * channels]);
        }

        #[test]
        fn channels_do_not_mix(data in prop::collection::vec(any::<u8>(), 7 * 6 * 3), to in (1_u32..12, 1_u32..12)) {
            let together = resize(&data, 3, (7, 6), to);
            for channel in 0..3 {
                let alone: Vec<u8> = data.iter().skip(channel).step_by(3).copied().collect();
                let picked: Vec<u8> = together.iter().skip(channel).step_by(3).copied().collect();
                prop_assert_eq!(resize(&alone, 1, (7, 6), to), picked);
            }
        }
    }
}
