//! A linear metric that is learned from an archive's own labels: what varies within a class counts less, what tells classes apart counts more.
//!
//! The vectors of a network that has never seen an X-ray differ most in what says least (patient, position, exposure). Classes tell how much
//! each direction varies between images that mean the same: the within-class scatter `Sw`. Dividing by it (within-class covariance
//! normalization: Hatch, Kajarekar, Stolcke, Interspeech 2006; the whitening step of linear discriminant analysis, Fisher 1936) makes all
//! directions equally telling. With fewer images than components `Sw` has no inverse, so that it is shrunk towards a multiple of the identity
//! of the same trace (Ledoit and Wolf, Journal of Multivariate Analysis 88, 2004): `S = (1 - shrinkage) Sw + shrinkage t I`, `t = tr(Sw) / D`.
//!
//! A vector `z` becomes `w = S^(-1/2) (z - mean)`, and of `w` only the directions stay along which the training vectors, each at unit length,
//! spread most: the top right singular vectors `Q` (Eckart and Young, Psychometrika 1, 1936). One matrix does both, `P = Qᵀ S^(-1/2)`, and what
//! is compared is `P (z - mean)` at unit length, by its cosine. Pure.

pub(super) mod matrices;
mod scatter;
#[cfg(test)]
mod tests;

use std::fmt;

pub use scatter::Scatter;

use crate::domain::Metric;

/// The fewest vectors from which a scatter is estimated.
pub const MIN_VECTORS: usize = 20;

/// The most components a vector may have, here and in a file: an eigenproblem of that size would already take 34 GB.
pub const MAX_DIMENSION: usize = 65_536;

/// The least shrinkage: below it what the training vectors don't reach is blown up past what `f32` can hold.
pub const MIN_SHRINKAGE: f64 = 1e-6;

/// What a user may choose about a [`Metric`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FitSettings {
    /// The share of the identity in the scatter, [`MIN_SHRINKAGE`]..=1: 1 is the cosine of the centred vectors.
    pub shrinkage: f64,
    /// The most directions that stay, at least 1.
    pub components: usize,
}

impl Default for FitSettings {
    /// Strong shrinkage, as suits fewer images than components, and few directions, which make a search cheap: `scripts/soak quality` shows what they
    /// reach.
    fn default() -> Self {
        Self {
            shrinkage: 0.8,
            components: 64,
        }
    }
}

/// Why vectors and classes make no metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FitError {
    /// Not as many classes as vectors, vectors of different dimensions, or of a dimension outside 1..=[`MAX_DIMENSION`].
    Lengths,
    /// A component is NaN or infinite.
    NotFinite,
    /// Fewer than [`MIN_VECTORS`]: so many were given.
    TooFewVectors(usize),
    /// Fewer than two classes.
    TooFewClasses,
    /// The vectors of each class are all the same.
    NoVariation,
    /// Shrinkage outside [`MIN_SHRINKAGE`]..=1, or no component wanted.
    Settings,
    /// The eigenvalues were not found, which finite input has not been seen to cause.
    NoConvergence,
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lengths => write!(f, "the vectors and classes to learn a metric from don't fit together"),
            Self::NotFinite => write!(f, "a vector has a component that is not finite"),
            Self::TooFewVectors(count) => {
                write!(
                    f,
                    "a metric is learned from at least {MIN_VECTORS} images, and there are {count}"
                )
            }
            Self::TooFewClasses => write!(f, "a metric is learned from at least two classes"),
            Self::NoVariation => write!(
                f,
                "the images of each class are all the same, nothing can be learned from them"
            ),
            Self::Settings => write!(
                f,
                "shrinkage must be in {MIN_SHRINKAGE}..=1 and there must be a component"
            ),
            Self::NoConvergence => write!(f, "the eigenvalues of the scatter were not found"),
        }
    }
}

impl std::error::Error for FitError {}

/// Learns from `vectors` (unit vectors of one dimension) and their `classes` (any numbers that tell them apart). Take a [`Scatter`] to fit several
/// settings to the same vectors.
///
/// # Errors
/// All of [`FitError`].
pub fn fit(vectors: &[&[f32]], classes: &[usize], settings: &FitSettings) -> Result<Metric, FitError> {
    Scatter::new(vectors, classes)?.metric(settings.shrinkage, settings.components)
}
