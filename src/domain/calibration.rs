//! What a vote is worth: probabilities, the classes that can't be ruled out, and whether the query belongs here at all. Fitted by `quality`, applied
//! by `search`.

use serde::{Deserialize, Serialize};

use super::{Appearances, ClassLabel, Distribution, K_MAX, VoteMethod};

/// A calibration of votes: fitted for one way of asking, and right for no other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// How many neighbors voted.
    pub k: usize,
    /// How they were weighed.
    pub vote: VoteMethod,
    /// The classes, sorted; whatever is listed by class is in this order.
    pub classes: Vec<ClassLabel>,
    /// Voting images of each class that could be found.
    pub images: Vec<u64>,
    /// From shares of the vote to probabilities.
    pub shares: ShareCalibration,
    /// From probabilities to sets, the lowest level first.
    pub levels: Vec<Level>,
    /// The least similarity of the last voter with which an image belongs here, -1 to 1: one of forty of the archive's own images has less.
    pub home_min: f64,
    /// Where the archive's vectors lie, as the model gave them.
    pub distribution: Distribution,
    /// The greatest distance from there with which an image belongs here: one of forty of the archive's own images has more.
    pub distance_max: f64,
    /// What its pictures look like at a glance; absent where none are kept.
    pub appearances: Option<Appearances>,
}

/// Prediction sets of one level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// The share of each class's images that have their class in the set, 0 to 1.
    pub level: f64,
    /// Of each class, the greatest strangeness (1 less its probability) with which it is not ruled out; none where too few groups are known to say.
    pub thresholds: Vec<Option<f64>>,
}

/// More than any archive holds.
const IMAGES_MAX: u64 = 1 << 40;
/// More than any slope or offset that a fit gives.
const NUMBER_MAX: f64 = 1e4;

impl Calibration {
    /// What contradicts itself, in words: it may come from a file.
    ///
    /// # Errors
    /// The words.
    pub fn check(&self) -> Result<(), &'static str> {
        let classes = self.classes.len();
        let unit = |x: f64| (0.0..=1.0).contains(&x);
        let ensure = |holds: bool, what| if holds { Ok(()) } else { Err(what) };
        ensure((1..=K_MAX).contains(&self.k), "an impossible number of voters")?;
        ensure(
            classes >= 2 && self.classes.is_sorted_by(|a, b| a < b),
            "its classes are not sorted",
        )?;
        let shares = &self.shares;
        let numbers =
            shares
                .offsets
                .iter()
                .chain([&shares.slope, &shares.smoothing, &self.home_min, &self.distance_max]);
        ensure(
            shares.offsets.len() == classes && self.images.len() == classes,
            "a class is missing",
        )?;
        ensure(
            self.images.iter().all(|&images| images <= IMAGES_MAX),
            "an impossible number of images",
        )?;
        // What is larger would overflow on its way to a probability.
        ensure(
            numbers.into_iter().all(|x| x.abs() <= NUMBER_MAX) && shares.smoothing > 0.0,
            "impossible numbers",
        )?;
        self.distribution.check()?;
        self.appearances.as_ref().map_or(Ok(()), Appearances::check)?;
        ensure(self.levels.iter().all(|level| unit(level.level)), "an impossible level")?;
        let full = |level: &Level| level.thresholds.len() == classes;
        ensure(self.levels.iter().all(full), "a threshold is missing")?;
        let thresholds = self.levels.iter().flat_map(|level| &level.thresholds).flatten();
        ensure(thresholds.copied().all(unit), "an impossible threshold")
    }
}

/// How strange a class is for an image: 0 when its probability is 1.
pub fn strangeness(probability: f64) -> f64 {
    1.0 - probability
}

/// Shares of votes come in few values, so that a strangeness is often that of the threshold: what differs by rounding alone is the same.
const ROUNDING: f64 = 1e-9;

/// The classes that can't be ruled out, by the threshold of each. Nothing is known of a class without one, so that it is in every set.
pub fn prediction_set(probabilities: &[f64], thresholds: &[Option<f64>]) -> Vec<usize> {
    (0..probabilities.len())
        .filter(|&class| {
            thresholds[class].is_none_or(|threshold| strangeness(probabilities[class]) <= threshold + ROUNDING)
        })
        .collect()
}

/// A set of so many classes says nothing, or of all classes if these are fewer.
pub const SET_SIZE_MAX: usize = 3;

/// Why the class that most neighbors have is not suggested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// Known cases with such neighbors are more often of this class.
    Likelier(usize),
    /// Every class is ruled out.
    NoneLeft,
    /// These can't be told apart.
    SeveralLeft(Vec<usize>),
    /// The class itself is ruled out.
    RuledOut,
}

impl Level {
    /// What speaks against suggesting `voted`, by the probability of each class.
    pub fn doubt(&self, voted: usize, probabilities: &[f64]) -> Option<Doubt> {
        let classes = 0..probabilities.len();
        if let Some(class) = classes.clone().find(|&at| probabilities[at] > probabilities[voted]) {
            return Some(Doubt::Likelier(class));
        }
        // Of a class without enough cases nobody can say whether it is ruled out.
        self.thresholds[voted]?;
        let known = classes.filter(|&class| self.thresholds[class].is_some()).count();
        let mut left = prediction_set(probabilities, &self.thresholds);
        if left.is_empty() {
            return Some(Doubt::NoneLeft);
        }
        left.retain(|&class| self.thresholds[class].is_some());
        if known >= 2 && left.len() >= SET_SIZE_MAX.min(known) {
            return Some(Doubt::SeveralLeft(left));
        }
        (!left.contains(&voted)).then_some(Doubt::RuledOut)
    }
}

/// Multinomial logistic regression on the logarithms of vote shares: a slope for all classes and an offset for each. Slope 1 and offsets 0 leave the
/// shares as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShareCalibration {
    /// How much sharper than the shares.
    pub slope: f64,
    /// How much likelier each class is than its share says.
    pub offsets: Vec<f64>,
    /// Added to every weight before the logarithm, as a share of all: nothing is impossible because no neighbor has it.
    pub smoothing: f64,
}

impl ShareCalibration {
    /// Shares as they are, but for the smoothing.
    pub fn none(classes: usize, smoothing: f64) -> Self {
        Self {
            slope: 1.0,
            offsets: vec![0.0; classes],
            smoothing,
        }
    }

    /// Probabilities from weights, which are not negative.
    pub fn probabilities(&self, weights: &[f64]) -> Vec<f64> {
        self.of_logs(&self.logs(weights))
    }

    /// The logarithms of the shares.
    pub fn logs(&self, weights: &[f64]) -> Vec<f64> {
        let total: f64 = weights.iter().sum();
        let total = if total > 0.0 { total } else { 1.0 };
        weights
            .iter()
            .map(|weight| (weight / total + self.smoothing).ln())
            .collect()
    }

    /// Probabilities from [`Self::logs`].
    pub fn of_logs(&self, logs: &[f64]) -> Vec<f64> {
        let scores: Vec<f64> = (logs.iter().zip(&self.offsets))
            .map(|(log, offset)| self.slope * log + offset)
            .collect();
        softmax(&scores)
    }
}

/// Probabilities from scores, without overflow.
pub fn softmax(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.into_iter().map(|exp| exp / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration() -> Calibration {
        Calibration {
            k: 10,
            vote: VoteMethod::Majority,
            classes: ["A", "B"].map(|name| ClassLabel::parse(name).unwrap()).into(),
            images: vec![40, 60],
            shares: ShareCalibration::none(2, 0.01),
            levels: vec![Level {
                level: 0.9,
                thresholds: vec![Some(0.5), Some(0.7)],
            }],
            home_min: 0.4,
            distribution: Distribution {
                mean: vec![1.0, 0.0],
                directions: vec![],
                variances: vec![],
                rest: 0.1,
            },
            distance_max: 1.5,
            appearances: None,
        }
    }

    #[test]
    fn contradictions_are_found() {
        assert_eq!(calibration().check(), Ok(()));
        type Break = fn(&mut Calibration);
        let breaks: [Break; 14] = [
            |c| c.k = 0,
            |c| c.classes.reverse(),
            |c| c.shares.offsets.clear(),
            |c| c.images.clear(),
            |c| c.images[0] = u64::MAX,
            |c| c.shares.slope = f64::NAN,
            |c| c.shares.offsets[1] = 1e308,
            |c| c.shares.smoothing = 0.0,
            |c| c.home_min = f64::INFINITY,
            |c| c.distance_max = f64::NAN,
            |c| c.distribution.rest = 0.0,
            |c| c.levels[0].level = 1.5,
            |c| c.levels[0].thresholds.clear(),
            |c| c.levels[0].thresholds[1] = Some(-0.1),
        ];
        for (at, change) in breaks.into_iter().enumerate() {
            let mut broken = calibration();
            change(&mut broken);
            assert!(broken.check().is_err(), "break {at}");
        }
    }

    #[test]
    fn a_set_is_what_is_not_ruled_out() {
        let thresholds = [Some(0.5), Some(0.95), None];
        assert_eq!(prediction_set(&[0.6, 0.3, 0.1], &thresholds), [0, 1, 2]);
        assert_eq!(prediction_set(&[0.2, 0.01, 0.79], &thresholds), [2]);
        assert_eq!(prediction_set(&[0.2, 0.01, 0.79], &[Some(0.5); 3]), [2]);
        assert_eq!(prediction_set(&[0.4, 0.3, 0.3], &[Some(0.5); 3]), [0usize; 0]);
        let (sum, at_once) = (0.1 + 0.2, 0.3);
        assert_ne!(sum, at_once);
        for p in [sum, at_once] {
            assert_eq!(prediction_set(&[p, 1.0 - p], &[Some(1.0 - 0.3), Some(0.5)]), [0, 1]);
            assert_eq!(prediction_set(&[p, 1.0 - p], &[Some(1.0 - sum), Some(0.5)]), [0, 1]);
        }
    }
}
