//! Where two images look alike, for a network that does not say what it sees where: windows of the image are covered, and the similarity falls where it
//! came from (occlusion sensitivity: Zeiler and Fergus, ECCV 2014). Pure.

use std::ops::Range;

use crate::imaging::ModelInput;

/// Most windows along a side.
const SIDE_WINDOWS: u32 = 8;

/// The windows of an image: rows × columns of them, as equal as pixels allow, that cover it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    rows: u32,
    columns: u32,
    height: u32,
    width: u32,
}

impl Windows {
    /// Those of an image.
    pub fn of(input: &ModelInput) -> Self {
        Self {
            rows: SIDE_WINDOWS.min(input.height),
            columns: SIDE_WINDOWS.min(input.width),
            height: input.height,
            width: input.width,
        }
    }

    /// Rows and columns.
    pub fn grid(self) -> (usize, usize) {
        (self.rows as usize, self.columns as usize)
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.rows as usize * self.columns as usize
    }

    /// Rows and columns of pixels in window `at`, counted row by row.
    fn pixels(self, at: usize) -> (Range<usize>, Range<usize>) {
        let part = |at: usize, parts: u32, side: u32| {
            let edge = |at: usize| at * side as usize / parts as usize;
            edge(at)..edge(at + 1)
        };
        let columns = self.columns as usize;
        (
            part(at / columns, self.rows, self.height),
            part(at % columns, self.columns, self.width),
        )
    }

    /// `input` with window `at` in `colour`, the mean of the whole image.
    pub fn covered(self, input: &ModelInput, at: usize, colour: [u8; 3]) -> ModelInput {
        let (rows, columns) = self.pixels(at);
        let mut covered = input.clone();
        let line = input.width as usize * 3;
        for row in rows {
            let pixels = &mut covered.pixels[row * line + columns.start * 3..row * line + columns.end * 3];
            pixels.as_chunks_mut::<3>().0.fill(colour);
        }
        covered
    }
}

/// The mean of each channel, rounded.
pub fn mean_colour(input: &ModelInput) -> [u8; 3] {
    let mut sums = [0u64; 3];
    let (pixels, _) = input.pixels.as_chunks::<3>();
    for pixel in pixels {
        sums.iter_mut()
            .zip(pixel)
            .for_each(|(sum, &level)| *sum += u64::from(level));
    }
    let count = pixels.len().max(1) as u64;
    sums.map(|sum| ((sum + count / 2) / count) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(width: u32, height: u32) -> ModelInput {
        let pixels = (0..width * height).flat_map(|i| [(i % 200) as u8, 10, 250]).collect();
        ModelInput { width, height, pixels }
    }

    #[test]
    fn each_pixel_is_covered_by_one_window() {
        for (width, height) in [(1, 1), (3, 20), (8, 8), (33, 17), (224, 224)] {
            let input = input(width, height);
            let windows = Windows::of(&input);
            let (rows, columns) = windows.grid();
            assert_eq!(windows.count(), rows * columns);
            let mut times = vec![0; (width * height) as usize];
            for at in 0..windows.count() {
                let (rows, columns) = windows.pixels(at);
                assert!(!rows.is_empty() && !columns.is_empty());
                for row in rows {
                    columns
                        .clone()
                        .for_each(|column| times[row * width as usize + column] += 1);
                }
            }
            assert!(times.iter().all(|&times| times == 1), "{width}x{height}");
        }
    }

    #[test]
    fn a_covered_window_is_grey_and_the_rest_stays() {
        let input = input(16, 16);
        let mean = mean_colour(&input);
        assert_eq!(mean[1..], [10, 250]);
        let covered = Windows::of(&input).covered(&input, 9, mean_colour(&input));
        for (at, (now, before)) in covered.pixels.chunks(3).zip(input.pixels.chunks(3)).enumerate() {
            let inside = (2..4).contains(&(at / 16)) && (2..4).contains(&(at % 16));
            assert_eq!(now, if inside { &mean[..] } else { before }, "pixel {at}");
        }
    }
}
