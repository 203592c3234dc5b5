//! The scan kernel: similarity of a query with rows of a matrix, bound by memory bandwidth.
//!
//! [`similarity`] is the only scoring routine; here it is compiled once more for wider vector units and the best one is
//! taken at run time. Its sixteen partial sums and their order are part of its definition and no multiply-add is fused, so the bits are the
//! same. What is certain to be too far away by half of its bits is not read whole (see [`Matrix`]).

use super::Matrix;
use crate::domain::similarity;

/// Rows scored in one go: their scores stay in the first-level cache.
pub const BLOCK_ROWS: usize = 256;

/// Who a scan is for: keeps what it wants of the rows it is shown.
pub trait Sieve {
    /// Whether a row of this similarity, or of a smaller one, might be kept. Says no for good: what is kept only gets better.
    fn welcomes(&self, similarity: f32) -> bool;

    /// Takes or leaves a row.
    fn offer(&mut self, row: u32, similarity: f32);
}

/// Shows `sieve` each of `rows` of the matrix that it might keep, with its similarity to the unit vector `query`. Returns how many rows there were.
///
/// # Panics
/// When a row lies outside the matrix.
pub fn scan(query: &[f32], matrix: &Matrix, rows: impl IntoIterator<Item = u32>, sieve: &mut impl Sieve) -> u64 {
    let mut rows = rows.into_iter();
    let slack = matrix.slack();
    let (mut block, mut roughly) = ([0u32; BLOCK_ROWS], [0f32; BLOCK_ROWS]);
    let mut near = Vec::with_capacity(BLOCK_ROWS);
    let mut whole = Vec::with_capacity(matrix.dimension());
    let mut scanned = 0;
    loop {
        let mut filled = 0;
        for (slot, row) in block.iter_mut().zip(&mut rows) {
            *slot = row;
            filled += 1;
        }
        let (block, roughly) = (&block[..filled], &mut roughly[..filled]);
        score_roughly(query, matrix, block, roughly);
        near.clear();
        let bounds = block.iter().zip(roughly).map(|(&row, &mut score)| (row, score + slack));
        near.extend(bounds.filter(|&(_, bound)| sieve.welcomes(bound)));
        // The nearest first: soon nothing else is welcome.
        near.sort_unstable_by(|(_, a), (_, b)| b.total_cmp(a));
        for &(row, bound) in &near {
            if !sieve.welcomes(bound) {
                break;
            }
            sieve.offer(row, score(query, matrix, row, &mut whole));
        }
        scanned += filled as u64;
        if filled < BLOCK_ROWS {
            return scanned;
        }
    }
}

/// Calls `found(row, similarity)` for each of `rows` of row-major unit vectors, in their order: for who wants to know them all.
///
/// # Panics
/// When a row lies outside the vectors.
pub fn similarities(
    query: &[f32],
    vectors: &[f32],
    rows: impl IntoIterator<Item = u32>,
    mut found: impl FnMut(u32, f32),
) {
    let mut rows = rows.into_iter();
    let (mut block, mut scores) = ([0u32; BLOCK_ROWS], [0f32; BLOCK_ROWS]);
    loop {
        let mut filled = 0;
        for (slot, row) in block.iter_mut().zip(&mut rows) {
            *slot = row;
            filled += 1;
        }
        score_all(query, vectors, &block[..filled], &mut scores);
        block[..filled]
            .iter()
            .zip(&scores)
            .for_each(|(&row, &score)| found(row, score));
        if filled < BLOCK_ROWS {
            return;
        }
    }
}

#[inline(always)]
fn score_all_body(query: &[f32], vectors: &[f32], rows: &[u32], scores: &mut [f32]) {
    let dimension = query.len();
    for (row, score) in rows.iter().zip(scores) {
        let start = *row as usize * dimension;
        *score = similarity(query, &vectors[start..start + dimension]);
    }
}

#[inline(always)]
fn score_roughly_body(query: &[f32], matrix: &Matrix, rows: &[u32], scores: &mut [f32]) {
    for (row, score) in rows.iter().zip(scores) {
        *score = matrix.roughly(query, *row);
    }
}

#[inline(always)]
fn score_body(query: &[f32], matrix: &Matrix, row: u32, whole: &mut Vec<f32>) -> f32 {
    matrix.similarity(query, row, whole)
}

/// A function compiled for each vector unit, the widest that this machine has taken at run time.
macro_rules! by_widest_unit {
    ($(fn $name:ident($($argument:ident: $of:ty),+) $(-> $result:ty)? = $body:ident;)+) => {$(
        #[cfg(target_arch = "x86_64")]
        fn $name($($argument: $of),+) $(-> $result)? {
            #[target_feature(enable = "avx512f,avx512vl")]
            fn avx512($($argument: $of),+) $(-> $result)? {
                $body($($argument),+)
            }
            #[target_feature(enable = "avx2")]
            fn avx2($($argument: $of),+) $(-> $result)? {
                $body($($argument),+)
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
                // SAFETY: the machine has the features, asked on the line before.
                unsafe { avx512($($argument),+) }
            } else if is_x86_feature_detected!("avx2") {
                // SAFETY: as above.
                unsafe { avx2($($argument),+) }
            } else {
                $body($($argument),+)
            }
        }

        #[cfg(not(target_arch = "x86_64"))]
        fn $name($($argument: $of),+) $(-> $result)? {
            $body($($argument),+)
        }
    )+};
}
by_widest_unit! {
    fn score_all(query: &[f32], vectors: &[f32], rows: &[u32], scores: &mut [f32]) = score_all_body;
    fn score_roughly(query: &[f32], matrix: &Matrix, rows: &[u32], scores: &mut [f32]) = score_roughly_body;
    fn score(query: &[f32], matrix: &Matrix, row: u32, whole: &mut Vec<f32>) -> f32 = score_body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition in words, one operation at a time, which no compiler may reorder.
    fn by_definition(a: &[f32], b: &[f32]) -> f32 {
        let mut sums = [0f32; 16];
        for (at, (x, y)) in a.iter().zip(b).enumerate() {
            let product = std::hint::black_box(x * y);
            sums[at % 16] = std::hint::black_box(sums[at % 16] + product);
        }
        for width in [8, 4, 2, 1] {
            for lane in 0..width {
                sums[lane] = std::hint::black_box(sums[lane] + sums[lane + width]);
            }
        }
        sums[0]
    }

    /// Keeps the best `k` rows, ties by row.
    #[derive(Default)]
    struct Best {
        k: usize,
        rows: Vec<(f32, u32)>,
        offered: usize,
    }

    impl Sieve for Best {
        fn welcomes(&self, similarity: f32) -> bool {
            self.rows.len() < self.k || self.rows.last().is_some_and(|(worst, _)| similarity >= *worst)
        }

        fn offer(&mut self, row: u32, similarity: f32) {
            self.offered += 1;
            self.rows.push((similarity, row));
            self.rows.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            self.rows.truncate(self.k);
        }
    }

    fn matrix(rows: &[Vec<f32>]) -> Matrix {
        let mut matrix = Matrix::zeroed(rows.len(), rows[0].len());
        (0..).zip(rows).for_each(|(at, row)| matrix.put(at, row));
        matrix
    }

    proptest! {
        #[test]
        fn every_unit_gives_the_same_bits(
            pairs in (1usize..600).prop_flat_map(|n| prop::collection::vec((-1f32..1.0, -1f32..1.0), n))
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let wanted = by_definition(&a, &b).to_bits();
            prop_assert_eq!(similarity(&a, &b).to_bits(), wanted);
            prop_assert_eq!(score(&a, &matrix(&[b]), 0, &mut Vec::new()).to_bits(), wanted);
        }

        /// Few directions, so that ties and near ties are frequent; more rows than a block.
        #[test]
        fn keeps_what_a_look_at_every_row_keeps(
            rows in prop::collection::vec(prop::array::uniform3(-3i8..4).prop_filter("zero", |v| v.iter().any(|&x| x != 0)), 1..700),
            noise in 0f32..0.01,
            k in 1usize..20,
        ) {
            let units: Vec<Vec<f32>> = rows.iter().zip(0u32..).map(|(row, at)| {
                let raw: Vec<f32> = row.iter().map(|&x| f32::from(x) + noise * (at % 7) as f32).collect();
                let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6);
                raw.iter().map(|x| x / length).collect()
            }).collect();
            let query = &units[0];
            let mut best = Best { k, ..Best::default() };
            let scanned = scan(query, &matrix(&units), 0..units.len() as u32, &mut best);
            prop_assert_eq!(scanned, units.len() as u64);
            let mut wanted: Vec<(f32, u32)> = units.iter().map(|unit| similarity(query, unit)).zip(0..).collect();
            wanted.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            wanted.truncate(k);
            prop_assert_eq!(best.rows, wanted);
        }
    }

    #[test]
    fn reads_few_rows_whole() {
        // Directions spread over half a circle: the ten nearest are far from the rest.
        let units: Vec<Vec<f32>> = (0..2000)
            .map(|at| (at as f32 / 2000.0 * 3.0).sin_cos())
            .map(|(y, x)| vec![x, y])
            .collect();
        let mut best = Best {
            k: 10,
            ..Best::default()
        };
        scan(&[1.0, 0.0], &matrix(&units), 0..2000, &mut best);
        assert!(best.rows.iter().map(|(_, row)| *row).eq(0..10));
        assert!(best.offered < 200, "{} of 2000 rows were read whole", best.offered);
    }

    #[test]
    fn looks_at_every_row_over_block_borders() {
        let units = vec![vec![1.0, 0.0]; 1000];
        for count in [0u32, 1, 255, 256, 257, 512, 999] {
            let mut best = Best {
                k: usize::MAX,
                ..Best::default()
            };
            let scanned = scan(&[1.0, 0.0], &matrix(&units), (0..count).rev(), &mut best);
            assert_eq!(scanned, u64::from(count));
            assert!(best.rows.iter().map(|(_, row)| *row).eq(0..count));
        }
    }
}
