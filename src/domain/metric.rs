//! A learned metric as a map of vectors. How one is learned, and why it has this form: `quality::metric`.

use super::{Embedding, similarity};
use crate::error::{Error, ErrorKind, Result};

/// `P (z - mean)` at unit length: two mapped vectors are compared by their inner product. Mean and projection are finite and fit each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// D.
    mean: Vec<f32>,
    /// P, row by row: components x D.
    projection: Vec<f32>,
}

impl Metric {
    /// Takes a mean of D components and a projection of 1 to D rows of D components each, row by row. `None` for anything else, and for values that
    /// are not finite.
    pub fn new(mean: Vec<f32>, projection: Vec<f32>) -> Option<Self> {
        let dimension = mean.len();
        let fits = dimension > 0
            && !projection.is_empty()
            && projection.len().is_multiple_of(dimension)
            && projection.len() / dimension <= dimension;
        (fits && mean.iter().chain(&projection).all(|x| x.is_finite())).then_some(Self { mean, projection })
    }

    /// Components of the vectors that go in, D.
    pub fn dimension(&self) -> usize {
        self.mean.len()
    }

    /// Components of the vectors that come out.
    pub fn components(&self) -> usize {
        self.projection.len() / self.mean.len()
    }

    /// What is taken off each vector, D.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The directions that are compared, components x D.
    pub fn projection(&self) -> &[f32] {
        &self.projection
    }

    /// `unit` as this metric sees it: a unit vector of [`Metric::components`]. `None` where nothing is left of it (it is the mean, or has nothing
    /// along the directions that stay), where that is not finite, and for a vector of another dimension.
    pub fn apply(&self, unit: &[f32]) -> Option<Vec<f32>> {
        if unit.len() != self.dimension() {
            return None;
        }
        let centred: Vec<f32> = unit.iter().zip(&self.mean).map(|(x, mean)| x - mean).collect();
        let mut mapped: Vec<f32> = self
            .projection
            .chunks_exact(self.dimension())
            .map(|row| similarity(row, &centred))
            .collect();
        // In f64, so that large values neither overflow nor lose the small ones.
        let norm = mapped.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        if !norm.is_finite() || norm <= f64::from(f32::MIN_POSITIVE) {
            return None;
        }
        mapped.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
        Some(mapped)
    }

    /// A query as this metric sees it.
    ///
    /// # Errors
    /// `WrongDimension`; `InvalidRequest` where nothing is left of it.
    pub fn of_query(&self, query: &Embedding) -> Result<Embedding> {
        if query.dimension() != self.dimension() {
            let message = format!(
                "the vector has {} components, this space has {}",
                query.dimension(),
                self.dimension()
            );
            return Err(Error::new(ErrorKind::WrongDimension, message));
        }
        let mapped = self.apply(query.as_slice()).ok_or_else(|| {
            let message = "the archive's learned metric leaves nothing of this vector: nothing is nearer to it than anything else";
            Error::new(ErrorKind::InvalidRequest, message)
        })?;
        Ok(Embedding::from_unit(mapped))
    }

    /// A row as this metric sees it. One of which nothing is left stays in the archive as the zero vector, whose similarity to everything is 0.
    pub fn of_row(&self, unit: &[f32]) -> Vec<f32> {
        self.apply(unit).unwrap_or_else(|| vec![0.0; self.components()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric() -> Metric {
        Metric::new(vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0, 0.0, 0.0, 2.0]).unwrap()
    }

    #[test]
    fn subtracts_projects_and_normalises() {
        let metric = metric();
        assert_eq!((metric.dimension(), metric.components()), (3, 2));
        let mapped = metric.apply(&[0.5, 0.3, 0.2]).unwrap();
        assert!(
            (mapped[0] - 0.6).abs() < 1e-6 && (mapped[1] - 0.8).abs() < 1e-6,
            "{mapped:?}"
        );
    }

    #[test]
    fn what_has_no_direction_is_no_query_and_a_row_like_no_other() {
        let metric = metric();
        assert_eq!(metric.apply(&[1.0, 0.0, 0.0]), None);
        assert_eq!(metric.apply(&[f32::NAN, 0.0, 0.0]), None);
        assert_eq!(metric.apply(&[f32::MAX, f32::MAX, f32::MAX]), None);
        let kind = |unit: &[f32]| {
            metric
                .of_query(&Embedding::from_unit(unit.to_vec()))
                .unwrap_err()
                .kind()
        };
        assert_eq!(kind(&[1.0, 0.0, 0.0]), ErrorKind::InvalidRequest);
        assert_eq!(kind(&[1.0, 0.0]), ErrorKind::WrongDimension);
        assert_eq!(metric.of_row(&[1.0, 0.0, 0.0]), [0.0, 0.0]);
    }

    #[test]
    fn is_refused_where_sizes_or_values_are_wrong() {
        for (mean, projection) in [
            (vec![], vec![]),
            (vec![], vec![1.0]),
            (vec![0.0; 2], vec![]),
            (vec![0.0; 2], vec![1.0; 3]),
            (vec![0.0; 2], vec![1.0; 6]),
            (vec![f32::NAN, 0.0], vec![1.0; 2]),
            (vec![0.0; 2], vec![1.0, f32::INFINITY]),
        ] {
            assert_eq!(Metric::new(mean, projection), None);
        }
    }
}
