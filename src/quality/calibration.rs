//! Whether a probability of 0.8 is right eight times of ten, and how to make it so. Pure.

use serde::{Deserialize, Serialize};

use super::random::Random;
use crate::domain::ShareCalibration;

/// Bins of the reliability diagram.
pub const BINS: usize = 10;

/// One bin of the reliability diagram: images of about the same confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Images in it.
    pub images: usize,
    /// Their mean confidence.
    pub confidence: f64,
    /// The share of them whose most probable class is right.
    pub accuracy: f64,
}

/// Reliability of (confidence in the most probable class, whether it is right): [`BINS`] bins of equal mass, by confidence, and of equal
/// confidence by their place in the list.
pub fn reliability(answers: &[(f64, bool)]) -> Vec<Bin> {
    let mut sorted = answers.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let edge = |bin: usize| bin * sorted.len() / BINS;
    (0..BINS)
        .map(|bin| &sorted[edge(bin)..edge(bin + 1)])
        .filter(|bin| !bin.is_empty())
        .map(|bin| Bin {
            images: bin.len(),
            confidence: bin.iter().map(|answer| answer.0).sum::<f64>() / bin.len() as f64,
            accuracy: bin.iter().filter(|answer| answer.1).count() as f64 / bin.len() as f64,
        })
        .collect()
}

/// Expected calibration error over [`reliability`]'s bins (Naeini, Cooper, Hauskrecht, AAAI 2015; equal mass: Nixon et al., CVPRW 2019).
pub fn ece(answers: &[(f64, bool)]) -> f64 {
    let bins = reliability(answers);
    let gap = |bin: &Bin| bin.images as f64 * (bin.confidence - bin.accuracy).abs();
    bins.iter().map(gap).sum::<f64>() / answers.len().max(1) as f64
}

/// The `share` quantile of [`ece`] when the probabilities are exactly right: truths are drawn from them `draws` times. A small set has an error
/// above zero by chance alone, and this says how much.
pub fn ece_by_chance(confidences: &[f64], share: f64, draws: usize, seed: u64) -> f64 {
    let mut random = Random::new(seed);
    let mut errors: Vec<f64> = (0..draws)
        .map(|_| {
            let drawn: Vec<_> = confidences
                .iter()
                .map(|&confidence| (confidence, random.unit() < confidence))
                .collect();
            ece(&drawn)
        })
        .collect();
    errors.sort_by(f64::total_cmp);
    let last = errors.len().saturating_sub(1) as f64;
    errors.get((last * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Brier score over all classes, 0 to 2 (Brier 1950): mean squared distance between the probabilities and the truth.
pub fn brier<'a>(answers: impl IntoIterator<Item = (&'a [f64], usize)>) -> f64 {
    let (mut sum, mut images) = (0.0, 0usize);
    for (probabilities, truth) in answers {
        images += 1;
        for (class, probability) in probabilities.iter().enumerate() {
            sum += (probability - f64::from(u8::from(class == truth))).powi(2);
        }
    }
    sum / images.max(1) as f64
}

/// The maximum of likelihood with a weak pull to slope 1 and offsets 0, by Newton's method: the problem is convex. `answers` are weights and
/// the true class, all of one length.
pub fn fit_shares(answers: &[(Vec<f64>, usize)], smoothing: f64) -> ShareCalibration {
    let classes = answers.first().map_or(0, |(weights, _)| weights.len());
    let mut fitted = ShareCalibration::none(classes, smoothing);
    let logs: Vec<Vec<f64>> = answers.iter().map(|(weights, _)| fitted.logs(weights)).collect();
    // Parameters: slope, offsets of all classes but the first.
    for _ in 0..NEWTON_STEPS {
        let mut gradient = vec![0.0; classes.max(1)];
        let mut hessian = vec![vec![0.0; classes.max(1)]; classes.max(1)];
        for ((_, truth), logs) in answers.iter().zip(&logs) {
            let p = fitted.of_logs(logs);
            // The derivative of a class's score is its log share by the slope and 1 by its own offset: the Hessian is the covariance of these.
            let mean: f64 = p.iter().zip(logs).map(|(p, log)| p * log).sum();
            gradient[0] += mean - logs[*truth];
            hessian[0][0] += p.iter().zip(logs).map(|(p, log)| p * (log - mean) * log).sum::<f64>();
            for j in 1..classes {
                gradient[j] += p[j] - f64::from(u8::from(j == *truth));
                let with_slope = p[j] * (logs[j] - mean);
                hessian[0][j] += with_slope;
                hessian[j][0] += with_slope;
                hessian[j][j] += p[j];
                for k in 1..classes {
                    hessian[j][k] -= p[j] * p[k];
                }
            }
        }
        for j in 0..classes {
            let from = if j == 0 { fitted.slope - 1.0 } else { fitted.offsets[j] };
            gradient[j] += PULL * from;
            hessian[j][j] += PULL;
        }
        let step = solve(hessian, gradient);
        let largest = step.iter().fold(0f64, |most, step| most.max(step.abs()));
        // Far from the optimum a full step may overshoot.
        let scale = (STEP_MAX / largest).min(1.0);
        fitted.slope -= scale * step.first().copied().unwrap_or(0.0);
        for (offset, step) in fitted.offsets.iter_mut().zip(&step).skip(1) {
            *offset -= scale * step;
        }
        if largest < 1e-10 {
            break;
        }
    }
    fitted
}

/// Precision of the prior on slope and offsets: as much as one image says.
const PULL: f64 = 1.0;
const NEWTON_STEPS: usize = 50;
const STEP_MAX: f64 = 2.0;

/// `x` in `a x = b` by elimination with pivots; a few unknowns. What does not matter comes out as 0.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for column in 0..n {
        let pivot = (column..n)
            .max_by(|&i, &j| a[i][column].abs().total_cmp(&a[j][column].abs()))
            .unwrap_or(column);
        a.swap(column, pivot);
        b.swap(column, pivot);
        if a[column][column].abs() < 1e-12 {
            continue;
        }
        for row in column + 1..n {
            let factor = a[row][column] / a[column][column];
            let pivot_row = a[column].clone();
            for (below, pivot) in a[row].iter_mut().zip(&pivot_row).skip(column) {
                *below -= factor * pivot;
            }
            b[row] -= factor * b[column];
        }
    }
    let mut x = vec![0.0; n];
    for row in (0..n).rev() {
        if a[row][row].abs() >= 1e-12 {
            let known: f64 = (row + 1..n).map(|at| a[row][at] * x[at]).sum();
            x[row] = (b[row] - known) / a[row][row];
        }
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn right_probabilities_have_the_error_of_chance_and_wrong_ones_more() {
        let mut random = Random::new(3);
        let confidences: Vec<f64> = (0..500).map(|_| 0.4 + 0.6 * random.unit()).collect();
        let answers: Vec<_> = confidences.iter().map(|&c| (c, random.unit() < c)).collect();
        let chance = ece_by_chance(&confidences, 0.95, 200, 1);
        assert!(ece(&answers) <= chance, "{} {chance}", ece(&answers));
        let boastful: Vec<_> = answers
            .iter()
            .map(|&(c, right)| ((c + 0.2f64).min(1.0), right))
            .collect();
        assert!(ece(&boastful) > chance);
    }

    #[test]
    fn brier_by_hand() {
        let (a, b) = ([0.7, 0.3], [0.5, 0.5]);
        assert!((brier([(&a[..], 0), (&b[..], 1)]) - (0.18 + 0.5) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn bins_hold_equally_many() {
        let answers: Vec<_> = (0..95).map(|i| (i as f64 / 95.0, i % 2 == 0)).collect();
        let bins = reliability(&answers);
        assert_eq!(bins.len(), BINS);
        assert!(bins.iter().all(|bin| (9..=10).contains(&bin.images)));
        assert!(reliability(&[]).is_empty());
        assert_eq!(ece(&[]), 0.0);
    }

    #[test]
    fn the_fit_finds_what_made_the_data() {
        let made_by = ShareCalibration {
            slope: 2.0,
            offsets: vec![0.0, 0.7, -0.5],
            smoothing: 0.01,
        };
        let mut random = Random::new(5);
        let answers: Vec<(Vec<f64>, usize)> = (0..20_000)
            .map(|_| {
                let weights: Vec<f64> = (0..3).map(|_| random.unit()).collect();
                let p = made_by.probabilities(&weights);
                let at = random.unit();
                let truth = if at < p[0] {
                    0
                } else if at < p[0] + p[1] {
                    1
                } else {
                    2
                };
                (weights, truth)
            })
            .collect();
        let fitted = fit_shares(&answers, 0.01);
        assert!((fitted.slope - 2.0).abs() < 0.1, "{fitted:?}");
        assert!(
            (fitted.offsets[1] - 0.7).abs() < 0.1 && (fitted.offsets[2] + 0.5).abs() < 0.1,
            "{fitted:?}"
        );
    }

    proptest! {
        #[test]
        fn probabilities_are_probabilities(
            weights in prop::collection::vec(0.0f64..10.0, 1..6), slope in 0.0f64..20.0, smoothing in 0.001f64..0.1
        ) {
            let calibration = ShareCalibration { slope, offsets: vec![0.3; weights.len()], smoothing };
            let p = calibration.probabilities(&weights);
            prop_assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-9 && p.iter().all(|p| (0.0..=1.0).contains(p)));
        }
    }
}
