//! Fits where an archive's vectors lie, from the vectors that the model gave: a learned metric keeps what tells classes apart and takes everything
//! else for nothing, so that by it a photograph may lie next to an X-ray.

use super::metric::matrices::{add_outer, blocks, columns, eigen, mirror, product};
use crate::domain::Distribution;
use crate::error::{Error, ErrorKind, Result};

/// Directions with a variance of their own: 16 to 64 tell other pictures from X-rays alike, see `scripts/measure_outside.py`.
const DIRECTIONS: usize = 32;
/// Most vectors that are looked at, evenly from all: the cost grows with the square of this or of the components, whichever is less.
const VECTORS_MAX: usize = 4096;

/// The distribution of `vectors` (unit vectors of one dimension), in which each of their `classes` counts alike: a rare disease is not strange
/// because it is rare.
///
/// # Errors
/// `InvalidRequest` for fewer than three vectors, or such that do not vary.
pub fn fit(vectors: &[&[f32]], classes: &[usize]) -> Result<Distribution> {
    let too_few = || {
        Error::new(
            ErrorKind::InvalidRequest,
            "there are too few different images to say what is unlike them",
        )
    };
    let step = vectors.len().div_ceil(VECTORS_MAX).max(1);
    let (vectors, weights): (Vec<&[f32]>, Vec<f64>) = weighed(classes, step)
        .into_iter()
        .map(|(at, weight)| (vectors[at], weight))
        .unzip();
    let count = vectors.len();
    if count < 3 {
        return Err(too_few());
    }
    let dimension = vectors[0].len();
    let mut mean = vec![0.0; dimension];
    for (vector, weight) in vectors.iter().zip(&weights) {
        mean.iter_mut()
            .zip(*vector)
            .for_each(|(mean, &x)| *mean += weight * f64::from(x));
    }
    // Of weighed vectors less their mean, the products are shares of the covariance.
    let fill = |at: usize, column: &mut [f64]| {
        let root = weights[at].sqrt();
        let values = vectors[at].iter().zip(&mean);
        column
            .iter_mut()
            .zip(values)
            .for_each(|(to, (&x, mean))| *to = root * (f64::from(x) - mean));
    };
    let found = match count < dimension {
        true => through_vectors(&columns(dimension, 0..count, fill)),
        false => through_components(count, dimension, fill),
    };
    let (values, directions) = found.ok_or_else(too_few)?;

    let total: f64 = values.iter().map(|value| value.max(0.0)).sum();
    // At least one dimension has to be left for the rest, and only directions that vary count.
    let rank = values.iter().filter(|&&value| value > total * 1e-10).count();
    let kept = DIRECTIONS.min(rank.saturating_sub(1)).min(dimension.saturating_sub(1));
    let variances = values[..kept].to_vec();
    let rest = (total - variances.iter().sum::<f64>()) / (dimension - kept) as f64;
    let distribution = Distribution {
        mean: mean.iter().map(|&x| x as f32).collect(),
        directions: directions[..kept].iter().flatten().map(|&x| x as f32).collect(),
        variances,
        rest,
    };
    distribution.check().map_err(|_| too_few())?;
    Ok(distribution)
}

/// Every `step`-th of each class, at least one, with weights that sum to 1, the same for each class.
fn weighed(classes: &[usize], step: usize) -> Vec<(usize, f64)> {
    let mut seen = std::collections::BTreeMap::<usize, usize>::new();
    let mut chosen = Vec::new();
    for (at, &class) in classes.iter().enumerate() {
        let number = seen.entry(class).or_default();
        if number.is_multiple_of(step) {
            chosen.push(at);
        }
        *number += 1;
    }
    let share = 1.0 / seen.len().max(1) as f64;
    let weight = |at: usize| share / seen[&classes[at]].div_ceil(step) as f64;
    chosen.into_iter().map(|at| (at, weight(at))).collect()
}

/// All variances, the greatest first, and the first [`DIRECTIONS`].
type Spread = (Vec<f64>, Vec<Vec<f64>>);

/// Through the inner products of the vectors, n x n.
fn through_vectors(centred: &faer::Mat<f64>) -> Option<Spread> {
    let gram = product(centred.transpose(), centred.as_ref());
    let (values, combinations) = eigen(&gram).ok()?;
    let direction = |at: usize| {
        let direction = product(centred.as_ref(), combinations.subcols(at, 1));
        let root = values[at].max(f64::MIN_POSITIVE).sqrt();
        direction.col_as_slice(0).iter().map(|x| x / root).collect()
    };
    let directions = (0..values.len()).rev().take(DIRECTIONS).map(direction).collect();
    Some((values.into_iter().rev().collect(), directions))
}

/// Through the covariances of the components, D x D.
fn through_components(count: usize, dimension: usize, fill: impl Fn(usize, &mut [f64])) -> Option<Spread> {
    let mut covariance = faer::Mat::zeros(dimension, dimension);
    for block in blocks(count) {
        add_outer(&mut covariance, columns(dimension, block, &fill).as_ref());
    }
    mirror(&mut covariance);
    let (values, vectors) = eigen(&covariance).ok()?;
    let direction = |at: usize| vectors.col_as_slice(at).to_vec();
    let directions = (0..dimension).rev().take(DIRECTIONS).map(direction).collect();
    Some((values.into_iter().rev().collect(), directions))
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;
    use crate::domain::similarity;

    /// Unit vectors around the first axis that vary along the second, and a little in all.
    fn vectors(seed: u64, count: usize, dimension: usize) -> Vec<Vec<f32>> {
        let mut random = Random::new(seed);
        (0..count)
            .map(|_| {
                let mut vector: Vec<f64> = (0..dimension).map(|_| 0.02 * (random.unit() - 0.5)).collect();
                vector[0] += 1.0;
                vector[1] += random.unit() - 0.5;
                let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
                vector.iter().map(|x| (x / norm) as f32).collect()
            })
            .collect()
    }

    fn of(vectors: &[Vec<f32>]) -> Distribution {
        let classes: Vec<usize> = (0..vectors.len()).map(|at| at % 2).collect();
        fit(&vectors.iter().map(Vec::as_slice).collect::<Vec<_>>(), &classes).unwrap()
    }

    #[test]
    fn its_own_kind_is_near_and_others_are_far_by_both_routes() {
        for (count, dimension) in [(40, 80), (400, 12)] {
            let distribution = of(&vectors(1, count, dimension));
            let like = vectors(2, 50, dimension);
            let far = like
                .iter()
                .map(|vector| distribution.distance(vector).unwrap())
                .fold(0.0, f64::max);
            let mut other = vec![0.0; dimension];
            other[dimension - 1] = 1.0;
            let elsewhere = distribution.distance(&other).unwrap();
            assert!(
                elsewhere > 5.0 * far,
                "{count} x {dimension}: {elsewhere} against {far}"
            );
            // Far along the direction in which they vary is less strange than a little aside.
            let mut along = vec![0.0; dimension];
            (along[0], along[1]) = (0.8, 0.6);
            let mut aside = vec![0.0; dimension];
            (aside[0], aside[2]) = (0.8, 0.6);
            assert!(distribution.distance(&along).unwrap() < distribution.distance(&aside).unwrap() / 3.0);
        }
    }

    #[test]
    fn directions_are_at_right_angles_and_of_length_1() {
        let distribution = of(&vectors(3, 60, 90));
        let directions: Vec<&[f32]> = distribution.directions.chunks_exact(90).collect();
        assert_eq!(directions.len(), DIRECTIONS);
        for (at, left) in directions.iter().enumerate() {
            for (beside, right) in directions.iter().enumerate() {
                let expected = f32::from(u8::from(at == beside));
                assert!((similarity(left, right) - expected).abs() < 1e-4, "{at} {beside}");
            }
        }
        assert!(distribution.variances.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn classes_count_alike() {
        let chosen = weighed(&[0, 0, 0, 0, 0, 0, 1], 2);
        assert_eq!(chosen.iter().map(|chosen| chosen.0).collect::<Vec<_>>(), [0, 2, 4, 6]);
        let of_rare = chosen.last().unwrap().1;
        assert!((of_rare - 0.5).abs() < 1e-12 && (chosen.iter().map(|c| c.1).sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn what_does_not_vary_is_refused() {
        let one: Vec<f32> = vec![1.0, 0.0, 0.0];
        assert!(fit(&[&one[..]; 9], &[0; 9]).is_err());
        assert!(fit(&[], &[]).is_err());
    }
}
