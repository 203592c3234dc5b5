//! The within-class scatter of a training set, and the metrics that follow from it.

use std::collections::BTreeMap;
use std::fmt;

use faer::Mat;

use super::matrices::{add_lower, add_outer, blocks, centre_classes, columns, eigen, mirror, product};
use super::{FitError, MAX_DIMENSION, MIN_SHRINKAGE, MIN_VECTORS};
use crate::domain::Metric;

/// What share of the greatest eigenvalue is rounding: beneath it an eigenvector can't be told from noise.
const RANK_TOLERANCE: f64 = 1e-10;

/// What share of the mean squared length is no length at all: vectors come in `f32`, whose rounding is about 1e-14 of it.
const LENGTH_TOLERANCE: f64 = 1e-12;

/// What all metrics of one training set share, whatever their shrinkage: the eigenvectors of its within-class scatter, which take most of the
/// time. For n vectors of D components it takes O(n D min(n, D)) time, and memory for n D numbers and three square matrices of side min(n, D).
pub struct Scatter {
    dimension: usize,
    /// Mean of all vectors, D.
    pub(super) mean: Vec<f64>,
    /// tr(Sw) / D, above 0.
    average: f64,
    /// Of `Sw`, r of them, none negative; all others are 0.
    eigenvalues: Vec<f64>,
    route: Route,
}

/// The side of all eigenproblems: the vectors or the components, whichever are fewer. Both give the same metric.
enum Route {
    /// Through inner products of vectors (Gram matrices, n x n).
    Vectors {
        /// The vectors less their mean, D x n.
        centred: Mat<f64>,
        /// Their inner products, n x n.
        gram: Mat<f64>,
        /// The eigenvectors of `Sw` as sums of `centred`, n x r.
        combinations: Mat<f64>,
        /// `centred` in the basis of the eigenvectors, r x n.
        coordinates: Mat<f64>,
    },
    /// Through covariances of components (D x D); here r = D, eigenvalues of 0 included.
    Components {
        /// The eigenvectors of `Sw`, D x D.
        directions: Mat<f64>,
        /// The vectors less their mean in the basis of the eigenvectors, D x n; `f32` as that is what they came in, and there are many.
        coordinates: Mat<f32>,
    },
}

impl fmt::Debug for Scatter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scatter")
            .field("dimension", &self.dimension)
            .field("rank", &self.eigenvalues.len())
            .finish_non_exhaustive()
    }
}

impl Scatter {
    /// The scatter of `vectors` (unit vectors of one dimension D) around the means of their `classes` (any numbers that tell them apart):
    /// `Sw = (1/n) Σ (z - mean of its class)(z - mean of its class)ᵀ`. A class of one vector adds nothing to it.
    ///
    /// # Errors
    /// All of [`FitError`] but `Settings`.
    pub fn new(vectors: &[&[f32]], classes: &[usize]) -> Result<Self, FitError> {
        let components = vectors.first().map_or(0, |vector| vector.len());
        Self::by_route(vectors, classes, vectors.len() < components)
    }

    pub(super) fn by_route(vectors: &[&[f32]], classes: &[usize], through_vectors: bool) -> Result<Self, FitError> {
        let dimension = vectors.first().map_or(0, |vector| vector.len());
        let groups = check(vectors, classes, dimension)?;
        let (mean, means) = means(vectors, &groups, dimension);
        let to_mean = |row: usize, column: &mut [f64]| subtract(vectors[row], &mean, column);
        let to_class = |row: usize, column: &mut [f64]| subtract(vectors[row], &means[groups[row]], column);

        // The trace by itself, so that both routes divide by the same number.
        let (mut within, mut length) = (0.0, 0.0);
        let mut residual = vec![0.0; dimension];
        for (row, vector) in vectors.iter().enumerate() {
            to_class(row, &mut residual);
            within += residual.iter().map(|x| x * x).sum::<f64>();
            length += vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        }
        if within <= length * LENGTH_TOLERANCE {
            return Err(FitError::NoVariation);
        }
        let count = vectors.len() as f64;
        let average = within / count / dimension as f64;

        let (eigenvalues, route) = if through_vectors {
            let centred = columns(dimension, 0..vectors.len(), to_mean);
            let mut gram = Mat::zeros(vectors.len(), vectors.len());
            add_outer(&mut gram, centred.transpose());
            mirror(&mut gram);
            // All that is D long is in the Gram matrix: with H what takes the mean of its class off each vector, the residuals are R = Z H.
            let mut across = gram.clone();
            centre_classes(&mut across, &groups);
            let mut within = across.transpose().to_owned();
            centre_classes(&mut within, &groups);
            let (squares, vectors) = eigen(&within)?;
            let kept = kept(&squares, usize::MAX);
            // Sw v = ev v for v = R u / |R u|, |R u|² = n ev, where RᵀR u = n ev u.
            let mut combinations = Mat::from_fn(groups.len(), kept.len(), |row, at| {
                vectors[(row, kept[at])] / squares[kept[at]].sqrt()
            });
            let coordinates = product(combinations.transpose(), across.as_ref());
            // H u = u but for rounding, which the division has made large where an eigenvalue is small.
            centre_classes(&mut combinations, &groups);
            let eigenvalues = kept.iter().map(|&at| squares[at] / count).collect();
            let route = Route::Vectors {
                centred,
                gram,
                combinations,
                coordinates,
            };
            (eigenvalues, route)
        } else {
            let mut scatter = Mat::zeros(dimension, dimension);
            for rows in blocks(vectors.len()) {
                add_outer(&mut scatter, columns(dimension, rows, to_class).as_ref());
            }
            let (squares, directions) = eigen(&scatter)?;
            let eigenvalues: Vec<f64> = squares.iter().map(|square| square.max(0.0) / count).collect();
            let mut coordinates = Mat::<f32>::zeros(dimension, vectors.len());
            for rows in blocks(vectors.len()) {
                let block = product(
                    directions.transpose(),
                    columns(dimension, rows.clone(), to_mean).as_ref(),
                );
                for (at, row) in rows.enumerate() {
                    let kept = coordinates.col_as_slice_mut(row);
                    kept.iter_mut()
                        .zip(block.col_as_slice(at))
                        .for_each(|(kept, &x)| *kept = x as f32);
                }
            }
            let route = Route::Components {
                directions,
                coordinates,
            };
            (eigenvalues, route)
        };
        Ok(Self {
            dimension,
            mean,
            average,
            eigenvalues,
            route,
        })
    }

    /// The metric of this training set for a shrinkage in [`MIN_SHRINKAGE`]..=1, with at most `components` directions (at least 1): fewer when
    /// the vectors have fewer. The same input gives the same bits.
    ///
    /// # Errors
    /// `Settings` when one is out of range, `NoConvergence`.
    pub fn metric(&self, shrinkage: f64, components: usize) -> Result<Metric, FitError> {
        if !(MIN_SHRINKAGE..=1.0).contains(&shrinkage) || components == 0 {
            return Err(FitError::Settings);
        }
        // Eigenvalues of S^(-1): one for all that the scatter doesn't reach, and one for each of its directions.
        let floor = shrinkage * self.average;
        let outside = 1.0 / floor;
        let inside: Vec<f64> = self
            .eigenvalues
            .iter()
            .map(|value| 1.0 / (floor + (1.0 - shrinkage) * value))
            .collect();
        let transposed = match &self.route {
            Route::Vectors {
                centred,
                gram,
                combinations,
                coordinates,
            } => {
                let gains: Vec<f64> = inside.iter().map(|value| value - outside).collect();
                let gained = Mat::from_fn(gains.len(), gram.ncols(), |at, row| gains[at] * coordinates[(at, row)]);
                let factors = through_vectors(gram, coordinates, &gained, outside, components)?;
                // S^(-1) Z F, with S^(-1) = outside I + V gains Vᵀ and V = Z combinations: one product of length D.
                let mut sums = product(
                    combinations.as_ref(),
                    product(gained.as_ref(), factors.as_ref()).as_ref(),
                );
                sums += faer::Scale(outside) * &factors;
                product(centred.as_ref(), sums.as_ref())
            }
            Route::Components {
                directions,
                coordinates,
            } => product(
                directions.as_ref(),
                through_components(coordinates, &inside, components)?.as_ref(),
            ),
        };
        let mut projection = Vec::with_capacity(transposed.ncols() * self.dimension);
        for direction in 0..transposed.ncols() {
            let row = transposed.col_as_slice(direction);
            // An eigenvector is as good as its negative, and one of both has to be the answer.
            let largest = row
                .iter()
                .fold(0.0f64, |largest, &x| if x.abs() > largest.abs() { x } else { largest });
            projection.extend(row.iter().map(|x| (x * largest.signum()) as f32));
        }
        let mean = self.mean.iter().map(|&x| x as f32).collect();
        Metric::new(mean, projection).ok_or(FitError::NoConvergence)
    }
}

/// `F` (n x m) with `Pᵀ = S^(-1) Z F`, from inner products of the mapped vectors: with `Wᵀ = S^(-1/2) Z` their matrix, `N` the reciprocals of
/// their lengths and `N W Wᵀ N = E s² Eᵀ`, the directions are `Q = Wᵀ N E / s`, and `S^(-1/2) Q = S^(-1) Z N E / s` needs no root of a matrix.
fn through_vectors(
    gram: &Mat<f64>,
    coordinates: &Mat<f64>,
    gained: &Mat<f64>,
    outside: f64,
    components: usize,
) -> Result<Mat<f64>, FitError> {
    let count = gram.ncols();
    let mut mapped = Mat::from_fn(count, count, |row, column| outside * gram[(row, column)]);
    add_lower(&mut mapped, coordinates.transpose(), gained.as_ref());
    let weights = reciprocal_lengths((0..count).map(|row| mapped[(row, row)]).collect());
    for column in 0..count {
        let values = mapped.col_as_slice_mut(column);
        values
            .iter_mut()
            .zip(&weights)
            .for_each(|(value, weight)| *value *= weight * weights[column]);
    }
    let (squares, vectors) = eigen(&mapped)?;
    let kept = kept(&squares, components);
    Ok(Mat::from_fn(count, kept.len(), |row, at| {
        vectors[(row, kept[at])] * weights[row] / squares[kept[at]].sqrt()
    }))
}

/// `Pᵀ` (D x m) in the basis of the eigenvectors of the scatter, where `S^(-1/2)` is diagonal, from the covariance of the mapped vectors at
/// unit length.
fn through_components(coordinates: &Mat<f32>, inside: &[f64], components: usize) -> Result<Mat<f64>, FitError> {
    let dimension = coordinates.nrows();
    let roots: Vec<f64> = inside.iter().map(|value| value.sqrt()).collect();
    let square = |row: usize| {
        let column = coordinates.col_as_slice(row);
        column
            .iter()
            .zip(inside)
            .map(|(&x, value)| value * f64::from(x) * f64::from(x))
            .sum::<f64>()
    };
    let weights = reciprocal_lengths((0..coordinates.ncols()).map(square).collect());
    let mut mapped = Mat::zeros(dimension, dimension);
    for rows in blocks(coordinates.ncols()) {
        let scaled = columns(dimension, rows, |row, column| {
            let source = coordinates.col_as_slice(row).iter().zip(&roots);
            column
                .iter_mut()
                .zip(source)
                .for_each(|(to, (&x, root))| *to = f64::from(x) * root * weights[row]);
        });
        add_outer(&mut mapped, scaled.as_ref());
    }
    let (squares, vectors) = eigen(&mapped)?;
    let kept = kept(&squares, components);
    Ok(Mat::from_fn(dimension, kept.len(), |at, column| {
        roots[at] * vectors[(at, kept[column])]
    }))
}

/// The class of each vector, counted from 0 in the order of appearance, so that what a class is called doesn't matter to the bit.
fn check(vectors: &[&[f32]], classes: &[usize], dimension: usize) -> Result<Vec<usize>, FitError> {
    if vectors.len() != classes.len() || vectors.iter().any(|vector| vector.len() != dimension) {
        return Err(FitError::Lengths);
    }
    if vectors.len() < MIN_VECTORS {
        return Err(FitError::TooFewVectors(vectors.len()));
    }
    if !(1..=MAX_DIMENSION).contains(&dimension) {
        return Err(FitError::Lengths);
    }
    if vectors.iter().any(|vector| vector.iter().any(|x| !x.is_finite())) {
        return Err(FitError::NotFinite);
    }
    let mut numbers = BTreeMap::new();
    let groups: Vec<usize> = classes
        .iter()
        .map(|&class| {
            let next = numbers.len();
            *numbers.entry(class).or_insert(next)
        })
        .collect();
    if numbers.len() < 2 {
        return Err(FitError::TooFewClasses);
    }
    Ok(groups)
}

/// The mean of all vectors, and of those of each class.
fn means(vectors: &[&[f32]], groups: &[usize], dimension: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
    let classes = groups.iter().max().map_or(0, |last| last + 1);
    let mut counts = vec![0usize; classes];
    let mut means = vec![vec![0.0; dimension]; classes];
    let mut mean = vec![0.0; dimension];
    for (vector, &class) in vectors.iter().zip(groups) {
        counts[class] += 1;
        for ((all, own), &x) in mean.iter_mut().zip(&mut means[class]).zip(*vector) {
            *all += f64::from(x);
            *own += f64::from(x);
        }
    }
    mean.iter_mut().for_each(|x| *x /= vectors.len() as f64);
    for (own, count) in means.iter_mut().zip(counts) {
        own.iter_mut().for_each(|x| *x /= count as f64);
    }
    (mean, means)
}

fn subtract(vector: &[f32], mean: &[f64], to: &mut [f64]) {
    to.iter_mut()
        .zip(vector.iter().zip(mean))
        .for_each(|(to, (&x, mean))| *to = f64::from(x) - mean);
}

/// 1 over each length, given its square; 0 for what has none, so that a vector at the mean has no say instead of an arbitrary one.
fn reciprocal_lengths(squares: Vec<f64>) -> Vec<f64> {
    let least = squares.iter().sum::<f64>() / squares.len() as f64 * LENGTH_TOLERANCE;
    squares
        .into_iter()
        .map(|square| if square > least { 1.0 / square.sqrt() } else { 0.0 })
        .collect()
}

/// The places of the greatest eigenvalues, greatest first, at most `most`, without what is rounding; `values` don't decrease.
fn kept(values: &[f64], most: usize) -> Vec<usize> {
    let least = values.last().map_or(0.0, |greatest| greatest * RANK_TOLERANCE).max(0.0);
    (0..values.len())
        .rev()
        .filter(|&at| values[at] > least)
        .take(most)
        .collect()
}
