//! Where the vectors of an archive lie, so that one which lies elsewhere can be told. How it is fitted: `quality::distribution`.

use serde::{Deserialize, Serialize};

use super::similarity;

/// A normal distribution of unit vectors of D components: a mean, r directions with a variance each, and one variance for all that is left
/// (probabilistic principal components: Tipping and Bishop, J. R. Statist. Soc. B 61, 1999).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// D.
    pub mean: Vec<f32>,
    /// r unit vectors at right angles, one after the other: r x D.
    pub directions: Vec<f32>,
    /// Along each direction, r.
    pub variances: Vec<f64>,
    /// Along every other direction.
    pub rest: f64,
}

/// More directions take more time and tell no more.
pub const DIRECTIONS_MAX: usize = 64;

impl Distribution {
    /// The Mahalanobis distance of `unit` (D components) from the mean, divided by √D: about 1 for a vector of the distribution. Vectors from
    /// elsewhere are far in the directions in which the archive does not vary (Lee et al., NeurIPS 2018). `None` for another dimension.
    pub fn distance(&self, unit: &[f32]) -> Option<f64> {
        let dimension = self.mean.len();
        if unit.len() != dimension || dimension == 0 {
            return None;
        }
        let centred: Vec<f32> = unit.iter().zip(&self.mean).map(|(x, mean)| x - mean).collect();
        let mut left = f64::from(similarity(&centred, &centred));
        let mut sum = 0.0;
        for (direction, variance) in self.directions.chunks_exact(dimension).zip(&self.variances) {
            let along = f64::from(similarity(direction, &centred)).powi(2);
            sum += along / variance;
            left -= along;
        }
        Some(((sum + left.max(0.0) / self.rest) / dimension as f64).sqrt())
    }

    /// What contradicts itself, in words: it may come from a file.
    ///
    /// # Errors
    /// The words.
    pub fn check(&self) -> Result<(), &'static str> {
        let (dimension, directions) = (self.mean.len(), self.variances.len());
        let fits = dimension > 0
            && directions <= DIRECTIONS_MAX
            && dimension.checked_mul(directions) == Some(self.directions.len());
        let small = |x: &f32| x.abs() <= 2.0;
        // Unit vectors vary by 4 at most; what does not vary at all would put everything else infinitely far away.
        let varies = |x: &f64| (1e-15..=4.0).contains(x);
        match () {
            () if !fits => Err("its distribution does not fit together"),
            () if !self.mean.iter().chain(&self.directions).all(small) => {
                Err("its distribution has impossible vectors")
            }
            () if !self.variances.iter().chain([&self.rest]).all(varies) => {
                Err("its distribution has impossible variances")
            }
            () => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution() -> Distribution {
        Distribution {
            mean: vec![0.5, 0.5, 0.0],
            directions: vec![1.0, 0.0, 0.0],
            variances: vec![0.04],
            rest: 0.01,
        }
    }

    #[test]
    fn counts_standard_deviations() {
        let distribution = distribution();
        assert_eq!(distribution.distance(&[0.5, 0.5, 0.0]), Some(0.0));
        // Two standard deviations along the direction, one along each of the others: (4 + 1 + 1) / 3.
        let distance = distribution.distance(&[0.9, 0.6, 0.1]).unwrap();
        assert!((distance - 2f64.sqrt()).abs() < 1e-6, "{distance}");
        assert_eq!(distribution.distance(&[1.0, 0.0]), None);
    }

    #[test]
    fn contradictions_are_found() {
        assert_eq!(distribution().check(), Ok(()));
        type Break = fn(&mut Distribution);
        let breaks: [Break; 6] = [
            |d| d.mean.clear(),
            |d| d.mean[0] = f32::NAN,
            |d| d.directions.truncate(2),
            |d| d.directions[0] = f32::INFINITY,
            |d| d.variances[0] = 0.0,
            |d| d.rest = f64::NAN,
        ];
        for (at, change) in breaks.into_iter().enumerate() {
            let mut broken = distribution();
            change(&mut broken);
            assert!(broken.check().is_err(), "break {at}");
        }
    }
}
