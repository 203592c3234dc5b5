//! The scan kernel: similarity of a query with rows of a matrix, bound by memory bandwidth.
//!
//! [`similarity`] is the only scoring routine; here it is compiled once more for wider vector units and the best one is taken at run
//! time. Its sixteen partial sums and their order are part of its definition and no multiply-add is fused, so the bits are the same.

use crate::domain::similarity;

/// Rows scored in one go: their scores stay in the first-level cache.
pub const BLOCK_ROWS: usize = 256;

/// Similarity of two unit vectors: [`similarity`], by the widest unit of this machine.
pub fn score(query: &[f32], row: &[f32]) -> f32 {
    let mut scores = [0.0];
    score_block(query, row, &[0], &mut scores);
    scores[0]
}

/// Calls `found(row, similarity)` for each of `rows` of the row-major `matrix`, in their order. Returns how many there were.
///
/// # Panics
/// When a row lies outside the matrix.
pub fn scan(
    query: &[f32],
    matrix: &[f32],
    rows: impl IntoIterator<Item = u32>,
    mut found: impl FnMut(u32, f32),
) -> u64 {
    let mut rows = rows.into_iter();
    let (mut block, mut scores) = ([0u32; BLOCK_ROWS], [0f32; BLOCK_ROWS]);
    let mut scanned = 0;
    loop {
        let mut filled = 0;
        for (slot, row) in block.iter_mut().zip(&mut rows) {
            *slot = row;
            filled += 1;
        }
        let (block, scores) = (&block[..filled], &mut scores[..filled]);
        score_block(query, matrix, block, scores);
        block
            .iter()
            .zip(scores)
            .for_each(|(&row, &mut score)| found(row, score));
        scanned += filled as u64;
        if filled < BLOCK_ROWS {
            return scanned;
        }
    }
}

#[inline(always)]
fn score_block_body(query: &[f32], matrix: &[f32], rows: &[u32], scores: &mut [f32]) {
    let dimension = query.len();
    for (row, score) in rows.iter().zip(scores) {
        let start = *row as usize * dimension;
        *score = similarity(query, &matrix[start..start + dimension]);
    }
}

#[cfg(target_arch = "x86_64")]
fn score_block(query: &[f32], matrix: &[f32], rows: &[u32], scores: &mut [f32]) {
    #[target_feature(enable = "avx512f,avx512vl")]
    fn avx512(query: &[f32], matrix: &[f32], rows: &[u32], scores: &mut [f32]) {
        score_block_body(query, matrix, rows, scores);
    }
    #[target_feature(enable = "avx2")]
    fn avx2(query: &[f32], matrix: &[f32], rows: &[u32], scores: &mut [f32]) {
        score_block_body(query, matrix, rows, scores);
    }
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
        // SAFETY: the machine has the features, asked on the line before.
        unsafe { avx512(query, matrix, rows, scores) }
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: as above.
        unsafe { avx2(query, matrix, rows, scores) }
    } else {
        score_block_body(query, matrix, rows, scores);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn score_block(query: &[f32], matrix: &[f32], rows: &[u32], scores: &mut [f32]) {
    score_block_body(query, matrix, rows, scores);
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

    proptest! {
        #[test]
        fn every_unit_gives_the_same_bits(
            pairs in (1usize..600).prop_flat_map(|n| prop::collection::vec((-1f32..1.0, -1f32..1.0), n))
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let wanted = by_definition(&a, &b).to_bits();
            prop_assert_eq!(similarity(&a, &b).to_bits(), wanted);
            prop_assert_eq!(score(&a, &b).to_bits(), wanted);
        }
    }

    #[test]
    fn scans_rows_in_order_over_block_borders() {
        let matrix: Vec<f32> = (0..1000).flat_map(|row| [row as f32, 1.0]).collect();
        for count in [0u32, 1, 255, 256, 257, 512, 999] {
            let mut seen = Vec::new();
            let scanned = scan(&[1.0, 0.5], &matrix, (0..count).rev(), |row, score| {
                seen.push((row, score))
            });
            assert_eq!(scanned, u64::from(count));
            assert!(
                seen.iter()
                    .copied()
                    .eq((0..count).rev().map(|row| (row, row as f32 + 0.5)))
            );
        }
    }
}
