//! What a scatter needs of linear algebra, by faer, on one thread.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatRef, Par};

use super::FitError;

/// Vectors that are multiplied at once: their `f64` copies fit in the cache of a core, and a large archive is never held twice.
pub const BLOCK: usize = 256;

/// One thread: a training set of hundreds takes milliseconds, and cross-validation has folds to spread over the cores. Faer's threads wait
/// for each other in a loop, which takes the cores away from requests.
const PARALLELISM: Par = Par::Seq;

pub fn blocks(count: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..count)
        .step_by(BLOCK)
        .map(move |first| first..count.min(first + BLOCK))
}

/// A matrix of these columns.
pub fn columns(dimension: usize, rows: std::ops::Range<usize>, fill: impl Fn(usize, &mut [f64])) -> Mat<f64> {
    let mut matrix = Mat::zeros(dimension, rows.len());
    for (at, row) in rows.enumerate() {
        fill(row, matrix.col_as_slice_mut(at));
    }
    matrix
}

pub fn product(left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Mat<f64> {
    let mut product = Mat::zeros(left.nrows(), right.ncols());
    matmul(&mut product, Accum::Replace, left, right, 1.0, PARALLELISM);
    product
}

/// Takes the mean over the rows of each class off every column.
pub fn centre_classes(matrix: &mut Mat<f64>, groups: &[usize]) {
    let mut counts = vec![0.0; groups.iter().max().map_or(0, |last| last + 1)];
    groups.iter().for_each(|&class| counts[class] += 1.0);
    let mut means = vec![0.0; counts.len()];
    for column in 0..matrix.ncols() {
        let values = matrix.col_as_slice_mut(column);
        means.fill(0.0);
        values
            .iter()
            .zip(groups)
            .for_each(|(value, &class)| means[class] += value);
        means.iter_mut().zip(&counts).for_each(|(mean, count)| *mean /= count);
        values
            .iter_mut()
            .zip(groups)
            .for_each(|(value, &class)| *value -= means[class]);
    }
}

/// Copies the lower triangle to the upper one.
pub fn mirror(matrix: &mut Mat<f64>) {
    for column in 0..matrix.ncols() {
        for row in 0..column {
            matrix[(row, column)] = matrix[(column, row)];
        }
    }
}

/// Adds the lower triangle of `matrix matrixᵀ`.
pub fn add_outer(to: &mut Mat<f64>, matrix: MatRef<'_, f64>) {
    add_lower(to, matrix, matrix.transpose());
}

pub fn add_lower(to: &mut Mat<f64>, left: MatRef<'_, f64>, right: MatRef<'_, f64>) {
    let (lower, all) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
    triangular::matmul(to, lower, Accum::Add, left, all, right, all, 1.0, PARALLELISM);
}

/// Eigenvalues in ascending order and the eigenvectors in columns, of a symmetric matrix of which the lower triangle counts.
pub fn eigen(matrix: &Mat<f64>) -> Result<(Vec<f64>, Mat<f64>), FitError> {
    let side = matrix.nrows();
    let mut values = Diag::<f64>::zeros(side);
    let mut vectors = Mat::<f64>::zeros(side, side);
    let scratch = self_adjoint_evd_scratch::<f64>(side, ComputeEigenvectors::Yes, PARALLELISM, Default::default());
    let mut memory = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut memory);
    self_adjoint_evd(
        matrix.as_ref(),
        values.as_mut(),
        Some(vectors.as_mut()),
        PARALLELISM,
        stack,
        Default::default(),
    )
    .map_err(|_| FitError::NoConvergence)?;
    Ok((values.column_vector().iter().copied().collect(), vectors))
}
