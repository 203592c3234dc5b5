//! A vector that is safe to compare, and the one routine that compares.

use crate::error::{Error, ErrorKind, Result};

/// A unit vector: right dimension, every component finite, norm 1 (to rounding).
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding(Vec<f32>);

impl Embedding {
    /// Normalises the raw output of a model.
    ///
    /// # Errors
    /// `WrongDimension` unless `raw` has `dimension` components; `InvalidRequest` for NaN, infinity or a zero vector.
    pub fn from_raw(raw: &[f32], dimension: usize) -> Result<Self> {
        if raw.len() != dimension {
            return Err(Error::new(
                ErrorKind::WrongDimension,
                format!("the vector has {} components, this space has {dimension}", raw.len()),
            ));
        }
        if raw.iter().any(|x| !x.is_finite()) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "the vector has a component that is not finite",
            ));
        }
        // In f64, so that large raw values neither overflow nor lose the small ones.
        let norm = raw.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        if norm <= f64::from(f32::MIN_POSITIVE) {
            return Err(Error::new(ErrorKind::InvalidRequest, "the vector is zero"));
        }
        Ok(Self(raw.iter().map(|&x| (f64::from(x) / norm) as f32).collect()))
    }

    /// Takes over a vector that was made by [`Embedding::from_raw`], to the bit.
    pub fn from_unit(unit: Vec<f32>) -> Self {
        debug_assert!(Self::is_unit(&unit), "not of unit length");
        Self(unit)
    }

    /// Whether a vector is of unit length, but for rounding.
    pub fn is_unit(vector: &[f32]) -> bool {
        (similarity(vector, vector) - 1.0).abs() < 1e-3
    }

    /// Mean direction of several unit vectors.
    ///
    /// # Errors
    /// `InvalidRequest` when there is none or they cancel out.
    pub fn mean(parts: &[Self]) -> Result<Self> {
        let first = parts
            .first()
            .ok_or_else(|| Error::new(ErrorKind::InvalidRequest, "no vector to average"))?;
        // One vector stays what it is, to the bit.
        if parts.len() == 1 {
            return Ok(first.clone());
        }
        let mut sum = vec![0f32; first.0.len()];
        for part in parts {
            sum.iter_mut().zip(&part.0).for_each(|(s, x)| *s += x);
        }
        Self::from_raw(&sum, first.0.len())
    }

    /// This query moved towards what is liked and away from what is disliked (relevance feedback: Rocchio 1971; weights as Manning, Raghavan, Schütze,
    /// Introduction to Information Retrieval, 9.1.1). All of one dimension; without examples it stays what it is, to the bit.
    ///
    /// # Errors
    /// `InvalidRequest` when they cancel out.
    pub fn refined(&self, liked: &[Self], disliked: &[Self]) -> Result<Self> {
        const LIKED: f32 = 0.75;
        const DISLIKED: f32 = -0.15;
        if liked.is_empty() && disliked.is_empty() {
            return Ok(self.clone());
        }
        let mut sum = self.0.clone();
        for (examples, weight) in [(liked, LIKED), (disliked, DISLIKED)] {
            for example in examples {
                let weight = weight / examples.len() as f32;
                sum.iter_mut().zip(&example.0).for_each(|(sum, x)| *sum += weight * x);
            }
        }
        Self::from_raw(&sum, self.0.len())
    }

    /// The components.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// Number of components.
    pub fn dimension(&self) -> usize {
        self.0.len()
    }
}

/// Cosine similarity of two unit vectors of one length, in -1..=1 to rounding.
///
/// The one routine by which every path (HNSW, exact, remote) scores what it returns: sixteen partial sums in a fixed order and no fused
/// multiply-add, so that each machine gets the same bits whatever vector unit it has.
#[inline]
pub fn similarity(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0f32; LANES];
    let (a_head, a_tail) = a.as_chunks::<LANES>();
    let (b_head, b_tail) = b.as_chunks::<LANES>();
    for (x, y) in a_head.iter().zip(b_head) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    for (lane, (x, y)) in a_tail.iter().zip(b_tail).enumerate() {
        sums[lane] += x * y;
    }
    sum(sums)
}

/// The sum of partial sums, a power of two of them, by a balanced tree of additions: fixed order, small rounding error.
#[inline(always)]
pub(crate) fn sum<const LANES: usize>(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}
