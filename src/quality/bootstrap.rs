//! How far figures could be otherwise, had other patients come. Pure.

use std::collections::BTreeMap;

use super::evaluation::Interval;
use super::random::Random;

/// Percentile bootstrap by group (Efron 1979; Field and Welsh, JRSS B 2007, for groups): groups are drawn with replacement, each with all its
/// images, `resamples` times. `figures` gets the indices of the images that were drawn and gives each figure, always in the same order; of one that
/// a resample does not have (a class is missing) that resample is left out. A figure that all images together do not have has no interval.
pub fn by_group(
    groups: &[usize],
    resamples: usize,
    seed: u64,
    figures: impl Fn(&[usize]) -> Vec<Option<f64>>,
) -> Vec<Option<Interval>> {
    let all: Vec<usize> = (0..groups.len()).collect();
    let values = figures(&all);
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (image, &group) in groups.iter().enumerate() {
        members.entry(group).or_default().push(image);
    }
    let members: Vec<Vec<usize>> = members.into_values().collect();
    let mut random = Random::new(seed);
    let mut drawn_values: Vec<Vec<f64>> = vec![Vec::with_capacity(resamples); values.len()];
    let mut drawn = Vec::with_capacity(groups.len());
    for _ in 0..if members.is_empty() { 0 } else { resamples } {
        drawn.clear();
        for _ in 0..members.len() {
            drawn.extend_from_slice(&members[random.below(members.len())]);
        }
        for (kept, value) in drawn_values.iter_mut().zip(figures(&drawn)) {
            kept.extend(value);
        }
    }
    let interval = |(value, mut drawn): (Option<f64>, Vec<f64>)| {
        let value = value?;
        drawn.sort_by(f64::total_cmp);
        let last = drawn.len().saturating_sub(1) as f64;
        let at = |share: f64| drawn.get((last * share).round() as usize).copied().unwrap_or(value);
        Some(Interval {
            value,
            low: at(0.025),
            high: at(0.975),
        })
    };
    values.into_iter().zip(drawn_values).map(interval).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[f64]) -> impl Fn(&[usize]) -> Vec<Option<f64>> + '_ {
        |drawn| {
            let sum: f64 = drawn.iter().map(|&image| values[image]).sum();
            vec![(!drawn.is_empty()).then(|| sum / drawn.len() as f64)]
        }
    }

    fn interval(groups: &[usize], resamples: usize, seed: u64, values: &[f64]) -> Interval {
        by_group(groups, resamples, seed, mean(values))[0].unwrap()
    }

    #[test]
    fn covers_the_mean_about_as_often_as_it_says() {
        let mut random = Random::new(11);
        let mut covered = 0;
        for trial in 0..300 {
            let values: Vec<f64> = (0..60).map(|_| random.unit()).collect();
            let groups: Vec<usize> = (0..60).collect();
            let interval = interval(&groups, 300, trial, &values);
            assert!(interval.low <= interval.value && interval.value <= interval.high);
            covered += usize::from(interval.low <= 0.5 && 0.5 <= interval.high);
        }
        assert!((265..=298).contains(&covered), "{covered} of 300");
    }

    #[test]
    fn images_of_one_patient_are_no_evidence_of_their_own() {
        let values: Vec<f64> = (0..100).map(|i| f64::from(u8::from(i % 20 < 10))).collect();
        let alone: Vec<usize> = (0..100).collect();
        let tens: Vec<usize> = (0..100).map(|i| i / 10).collect();
        let width = |groups: &[usize]| {
            let interval = interval(groups, 1000, 0, &values);
            interval.high - interval.low
        };
        assert!(width(&tens) > 2.5 * width(&alone));
    }

    #[test]
    fn nothing_has_no_interval() {
        assert_eq!(by_group(&[], 10, 0, mean(&[])), [None]);
    }
}
