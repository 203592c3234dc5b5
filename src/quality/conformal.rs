//! Prediction sets that hold what they promise: of the images of a class, a share of at least `1 - alpha` get a set with their class in it, as
//! long as patients of the archive and patients to come are exchangeable. Pure.
//!
//! Split conformal prediction per class (Mondrian; Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005, 4.5), with patients
//! rather than images as what is exchangeable: each counts once, however many images it has (pooled CDFs; Dunn, Wasserman, Ramdas:
//! Distribution-free prediction sets for two-layer hierarchical models, JASA 2023).

use std::collections::BTreeMap;

/// What the images of one class say about it: (group, strangeness of their own class), in any order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClassScores {
    groups: BTreeMap<usize, Vec<f64>>,
}

impl ClassScores {
    /// One image of the class.
    pub fn push(&mut self, group: usize, strangeness: f64) {
        self.groups.entry(group).or_default().push(strangeness);
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The greatest strangeness with which the class is still in the set, so that a new group's images have it in theirs with probability
    /// `1 - alpha`. `None` when there are too few groups to say so: fewer than [`GROUPS_MIN`], or than `1 / alpha - 1`.
    pub fn threshold(&self, alpha: f64) -> Option<f64> {
        let groups = self.groups.len();
        // The new group is one of `groups + 1` equals, and the strangest possible.
        let wanted = (1.0 - alpha) * (groups + 1) as f64;
        if groups < GROUPS_MIN || wanted > groups as f64 + ROUNDING {
            return None;
        }
        let mut weighted: Vec<(f64, f64)> = Vec::new();
        for scores in self.groups.values() {
            weighted.extend(scores.iter().map(|&score| (score, 1.0 / scores.len() as f64)));
        }
        weighted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut sum = 0.0;
        for (score, weight) in &weighted {
            sum += weight;
            if sum >= wanted - ROUNDING {
                return Some(*score);
            }
        }
        weighted.last().map(|&(score, _)| score)
    }
}

/// Fewer groups than this say nothing at any level: they are what 95 % takes, and a threshold of fewer differs much from one draw to the next.
pub const GROUPS_MIN: usize = 19;
/// Sums of shares of one are not exactly one.
const ROUNDING: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;
    use proptest::prelude::*;

    fn scores(of: &[(usize, f64)]) -> ClassScores {
        let mut scores = ClassScores::default();
        of.iter().for_each(|&(group, score)| scores.push(group, score));
        scores
    }

    #[test]
    fn nineteen_groups_are_needed() {
        let few: Vec<_> = (0..18).map(|group| (group, group as f64)).collect();
        for alpha in [0.05, 0.1, 0.5] {
            assert_eq!(scores(&few).threshold(alpha), None);
        }
        let enough: Vec<_> = (0..19).map(|group| (group, group as f64)).collect();
        assert_eq!(scores(&enough).threshold(0.05), Some(18.0));
        assert_eq!(scores(&enough).threshold(0.1), Some(17.0));
        assert_eq!(scores(&[]).threshold(0.5), None);
    }

    #[test]
    fn a_patient_with_many_images_counts_once() {
        let mut many: Vec<_> = (0..19).map(|group| (group, 0.0)).collect();
        many.extend((0..1000).map(|_| (19, 1.0)));
        assert_eq!(scores(&many).threshold(0.1), Some(0.0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// Exchangeable groups of any sizes: coverage of the next group's images is at least what was promised.
        #[test]
        fn covers_exchangeable_data(
            seed in any::<u64>(), alpha in prop::sample::select(vec![0.05, 0.1, 0.2]), groups in 20usize..60
        ) {
            let mut random = Random::new(seed);
            let trials = 2000;
            let mut covered = 0.0;
            for _ in 0..trials {
                let mut all = Vec::new();
                for _ in 0..=groups {
                    let own = random.unit();
                    let images = 1 + random.below(5);
                    all.push((0..images).map(|_| own + 0.3 * random.unit()).collect::<Vec<_>>());
                }
                let asked = all.pop().expect("there is one more than groups");
                let mut scores = ClassScores::default();
                for (group, images) in all.into_iter().enumerate() {
                    images.into_iter().for_each(|score| scores.push(group, score));
                }
                let threshold = scores.threshold(alpha).expect("there are enough groups");
                covered += asked.iter().filter(|&&score| score <= threshold).count() as f64 / asked.len() as f64;
            }
            // Four standard errors of a mean of 2,000 shares.
            prop_assert!(covered / trials as f64 >= 1.0 - alpha - 4.0 * (alpha * (1.0 - alpha) / trials as f64).sqrt());
        }
    }
}
