//! Unit vectors as a scan wants them: the upper sixteen bits of every number first, the lower ones beside them for those that need them.
//!
//! A scan is bound by the memory that it reads. The upper half of a float (bfloat16: sign, exponent, seven binary digits) is enough to
//! tell that most rows are too far away to matter, by a bound that is certain; only the few that are left are read whole. Nothing is rounded
//! away: both halves together are the number as it came.

use crate::domain::sum;

/// Partial sums of a rough product: four vector registers of the widest unit, so that none waits for the sum before.
const LANES: usize = 64;

/// Row-major unit vectors, each number in two halves.
#[derive(Debug)]
pub struct Matrix {
    dimension: usize,
    /// The number rounded to its upper half.
    upper: Vec<u16>,
    /// What is to be added to the bits of that, as a signed number.
    lower: Vec<u16>,
    /// The largest distance of a row from its rounded self.
    rounding: f32,
}

impl Matrix {
    /// So many rows of `dimension` components, to be put.
    pub fn zeroed(rows: usize, dimension: usize) -> Self {
        Self {
            dimension,
            upper: vec![0; rows * dimension],
            lower: vec![0; rows * dimension],
            rounding: 0.0,
        }
    }

    /// Puts a row in its place.
    ///
    /// # Panics
    /// When it is of another dimension, or there is no such place.
    pub fn put(&mut self, row: u32, unit: &[f32]) {
        assert_eq!(unit.len(), self.dimension, "a row of the matrix's dimension");
        let at = self.range(row);
        let (uppers, lowers) = (&mut self.upper[at.clone()], &mut self.lower[at]);
        let mut square = 0f64;
        for ((&value, to_upper), to_lower) in unit.iter().zip(uppers).zip(lowers) {
            let (upper, lower) = split(value);
            square += (f64::from(value) - f64::from(rounded(upper))).powi(2);
            (*to_upper, *to_lower) = (upper, lower);
        }
        // Rounded up: a bound has to hold.
        self.rounding = self.rounding.max((square.sqrt() as f32).next_up());
    }

    /// Components of a row.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.upper.len() / self.dimension.max(1)
    }

    /// A row as it came.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: u32) -> Vec<f32> {
        let at = self.range(row);
        let halves = self.upper[at.clone()].iter().zip(&self.lower[at]);
        halves.map(|(&upper, &lower)| joined(upper, lower)).collect()
    }

    /// How much more similar to a unit vector a row may be than [`Matrix::roughly`] says: by what its numbers were rounded by (Cauchy–Schwarz) and
    /// what adding up rounds.
    pub fn slack(&self) -> f32 {
        // Longest chain of additions in either sum, with what joins the partial sums; doubled, for the two sums.
        let additions = (self.dimension / 16 + 16) as f32;
        // A unit vector is one to rounding.
        1.001 * (self.rounding + additions * f32::EPSILON)
    }

    /// Similarity of a unit vector with a row, [`similarity`](crate::domain::similarity) to the bit.
    #[inline(always)]
    pub(super) fn similarity(&self, query: &[f32], row: u32, whole: &mut Vec<f32>) -> f32 {
        let at = self.range(row);
        whole.clear();
        let halves = self.upper[at.clone()].iter().zip(&self.lower[at]);
        whole.extend(halves.map(|(&upper, &lower)| joined(upper, lower)));
        crate::domain::similarity(query, whole)
    }

    /// The same by the upper halves alone, to [`Matrix::slack`].
    #[inline(always)]
    pub(super) fn roughly(&self, query: &[f32], row: u32) -> f32 {
        let mut sums = [0f32; LANES];
        let (query_head, query_tail) = query.as_chunks::<LANES>();
        let (row_head, row_tail) = self.upper[self.range(row)].as_chunks::<LANES>();
        for (x, y) in query_head.iter().zip(row_head) {
            for lane in 0..LANES {
                sums[lane] += x[lane] * rounded(y[lane]);
            }
        }
        for (lane, (x, y)) in query_tail.iter().zip(row_tail).enumerate() {
            sums[lane] += x * rounded(*y);
        }
        sum(sums)
    }

    fn range(&self, row: u32) -> std::ops::Range<usize> {
        let start = row as usize * self.dimension;
        start..start + self.dimension
    }
}

/// The nearest number that needs sixteen bits, and what is missing.
fn split(value: f32) -> (u16, u16) {
    let bits = value.to_bits();
    // Components of unit vectors are far from the largest float: the carry never reaches the sign.
    let upper = (bits.wrapping_add(0x8000) >> 16) as u16;
    (upper, bits.wrapping_sub(u32::from(upper) << 16) as u16)
}

#[inline(always)]
fn rounded(upper: u16) -> f32 {
    f32::from_bits(u32::from(upper) << 16)
}

#[inline(always)]
fn joined(upper: u16, lower: u16) -> f32 {
    f32::from_bits((u32::from(upper) << 16).wrapping_add_signed(i32::from(lower.cast_signed())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Embedding, similarity};
    use proptest::prelude::*;

    /// Unit vectors with components of all magnitudes, zeros and denormal numbers included.
    fn units() -> impl Strategy<Value = Vec<Vec<f32>>> {
        let component = prop_oneof![
            4 => -1f32..1.0,
            2 => (-1f32..1.0).prop_map(|x| x * 1e-4),
            1 => Just(0.0),
            1 => prop_oneof![Just(-0.0), Just(1e-40), Just(-3e-42)],
        ];
        (1usize..300).prop_flat_map(move |dimension| {
            let unit = prop::collection::vec(component.clone(), dimension).prop_filter_map("zero", move |raw| {
                Some(Embedding::from_raw(&raw, raw.len()).ok()?.as_slice().to_vec())
            });
            prop::collection::vec(unit, 2..8)
        })
    }

    proptest! {
        #[test]
        fn keeps_every_bit_and_bounds_every_similarity(units in units()) {
            let (query, rows) = units.split_first().unwrap();
            let mut matrix = Matrix::zeroed(rows.len(), query.len());
            (0..).zip(rows).for_each(|(at, row)| matrix.put(at, row));
            prop_assert_eq!(matrix.rows(), rows.len());
            let mut whole = Vec::new();
            for (at, row) in (0u32..).zip(rows) {
                let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&matrix.row(at)), bits(row));
                let exactly = matrix.similarity(query, at, &mut whole);
                prop_assert_eq!(exactly.to_bits(), similarity(query, row).to_bits());
                let roughly = matrix.roughly(query, at);
                prop_assert!((exactly - roughly).abs() <= matrix.slack(), "{exactly} {roughly} {}", matrix.slack());
            }
            // A bound that says nothing would be certain too: seven binary digits, rounded, of a unit vector.
            prop_assert!(matrix.slack() < 1.01 / 256.0, "{}", matrix.slack());
        }
    }
}
