//! From votes to probabilities and prediction sets, each fitted on groups that are not asked about. Pure.

use std::collections::BTreeMap;

use super::asked::Asked;
use super::calibration::{brier, ece, ece_by_chance, fit_shares, reliability};
use super::cases::Cases;
use super::conformal::ClassScores;
use super::evaluation::{ClassCoverage, ConfidenceReport, PrecisionRecall, PredictionSets, Reliability, Selective};
use super::separation::{auroc, selective_accuracy};
use super::views::{Plan, Round};
use crate::domain::{SET_SIZE_MAX, ShareCalibration, prediction_set, strangeness};

/// The levels at which sets are made.
pub const LEVELS: [f64; 2] = [0.9, 0.95];

/// Added to every share before its logarithm: as if each class had a twentieth of a vote among ten.
pub(super) const SMOOTHING: f64 = 0.005;
/// Points of a curve.
const POINTS: usize = 100;
/// Draws from the probabilities for what chance makes of the calibration error.
const DRAWS: usize = 400;

/// What one test of one item gave.
pub struct Test {
    /// The item.
    pub item: usize,
    /// Number of the seed.
    pub seed: usize,
    /// The class that was suggested.
    pub suggested: Option<usize>,
    /// Shares of the vote.
    pub shares: Vec<f64>,
    /// Calibrated probabilities.
    pub probabilities: Vec<f64>,
    /// The prediction set at each of [`LEVELS`].
    pub sets: Vec<Vec<usize>>,
    /// Whether each class could be calibrated at each level.
    pub calibrated: Vec<Vec<bool>>,
}

/// Tests of all rounds, and how many groups the sets were calibrated on.
pub struct Tests {
    /// All of them.
    pub tests: Vec<Test>,
    /// Of each class, the fewest groups of any round.
    pub groups: Vec<usize>,
}

/// Runs every round.
///
/// Within a round the calibration of the vote is fitted on all images that are not tested; the strangeness by which a class is ruled out comes from
/// their own probabilities under fits that have not seen their part. Pooled over the parts and applied to the fit on all, as the jackknife does
/// (cross-conformal: Vovk, Annals of Mathematics and AI, 2015), the promise holds approximately, not by theorem: coverage is measured, too.
pub fn run(cases: &Cases, plan: &Plan, asked: &Asked) -> Tests {
    let classes = cases.classes.len();
    let mut all = Tests {
        tests: Vec::new(),
        groups: vec![usize::MAX; classes],
    };
    for round in &plan.rounds {
        let answer = |item: usize| &asked.answers[item][&round.view];
        let fitted = fit(cases, asked, round, None);
        let mut scores = vec![ClassScores::default(); classes];
        let mut parts: Vec<usize> = round.calibration.iter().map(|&(_, part)| part).collect();
        parts.sort_unstable();
        parts.dedup();
        // What is fitted on nothing can't say how strange anything is.
        if parts.len() < 2 {
            parts.clear();
        }
        for part in parts {
            let without = fit(cases, asked, round, Some(part));
            for &(item, _) in round.calibration.iter().filter(|&&(_, of)| of == part) {
                let case = &cases.items[item];
                let answer = &asked.answers[item][&round.calibration_view(part)];
                let probabilities = without.probabilities(&answer.weights);
                scores[case.class].push(case.group, strangeness(probabilities[case.class]));
            }
        }
        for (fewest, scores) in all.groups.iter_mut().zip(&scores) {
            *fewest = (*fewest).min(scores.groups());
        }
        let thresholds: Vec<Vec<Option<f64>>> = LEVELS
            .iter()
            .map(|level| scores.iter().map(|scores| scores.threshold(1.0 - level)).collect())
            .collect();
        for &item in &round.test {
            let probabilities = fitted.probabilities(&answer(item).weights);
            all.tests.push(Test {
                item,
                seed: round.seed,
                suggested: answer(item).class,
                shares: answer(item).shares(),
                sets: thresholds
                    .iter()
                    .map(|of_level| prediction_set(&probabilities, of_level))
                    .collect(),
                calibrated: (thresholds.iter())
                    .map(|of_level| of_level.iter().map(Option::is_some).collect())
                    .collect(),
                probabilities,
            });
        }
    }
    all.groups
        .iter_mut()
        .filter(|fewest| **fewest == usize::MAX)
        .for_each(|none| *none = 0);
    all
}

fn fit(cases: &Cases, asked: &Asked, round: &Round, without: Option<usize>) -> ShareCalibration {
    let answers: Vec<(Vec<f64>, usize)> = round
        .calibration
        .iter()
        .filter(|&&(_, part)| Some(part) != without)
        .map(|&(item, part)| {
            let answer = &asked.answers[item][&round.calibration_view(part)];
            (answer.weights.clone(), cases.items[item].class)
        })
        .collect();
    if answers.is_empty() {
        return ShareCalibration::none(cases.classes.len(), SMOOTHING);
    }
    fit_shares(&answers, SMOOTHING)
}

impl Tests {
    /// Reliability before and after calibration: errors are means over the seeds, bins hold all seeds together.
    pub fn confidence(&self, cases: &Cases) -> ConfidenceReport {
        let of = |probabilities: fn(&Test) -> &Vec<f64>| {
            let answer = |test: &Test| {
                let (best, confidence) = best(probabilities(test));
                (confidence, best == cases.items[test.item].class)
            };
            let seeds = self.tests.iter().map(|test| test.seed + 1).max().unwrap_or(0);
            let (mut errors, mut chances) = (0.0, 0.0);
            for seed in 0..seeds {
                let answers: Vec<(f64, bool)> = (self.tests.iter())
                    .filter(|test| test.seed == seed)
                    .map(answer)
                    .collect();
                let confidences: Vec<f64> = answers.iter().map(|answer| answer.0).collect();
                errors += ece(&answers) / seeds as f64;
                chances += ece_by_chance(&confidences, 0.95, DRAWS, seed as u64) / seeds as f64;
            }
            let all: Vec<(f64, bool)> = self.tests.iter().map(answer).collect();
            let scored = self
                .tests
                .iter()
                .map(|test| (&probabilities(test)[..], cases.items[test.item].class));
            Reliability {
                ece: errors,
                ece_by_chance: chances,
                brier: brier(scored),
                bins: reliability(&all),
            }
        };
        ConfidenceReport {
            raw: of(|test| &test.shares),
            calibrated: of(|test| &test.probabilities),
            method:
                "multinomial logistic regression on the logarithms of the vote's shares, fitted on images of other \
                     groups"
                    .to_owned(),
        }
    }

    /// Coverage and size of the sets at each level.
    pub fn sets(&self, cases: &Cases) -> Vec<PredictionSets> {
        LEVELS
            .iter()
            .enumerate()
            .map(|(at, &level)| self.sets_at(cases, at, level))
            .collect()
    }

    fn sets_at(&self, cases: &Cases, at: usize, level: f64) -> PredictionSets {
        let classes = cases.classes.len();
        let share = |wanted: &dyn Fn(&Test) -> bool| {
            self.tests.iter().filter(|test| wanted(test)).count() as f64 / self.tests.len().max(1) as f64
        };
        let per_class: Vec<ClassCoverage> = (0..classes)
            .map(|class| {
                let (mut groups, mut everywhere) = (BTreeMap::new(), true);
                for test in self.tests.iter().filter(|test| cases.items[test.item].class == class) {
                    let (covered, images) = groups.entry(cases.items[test.item].group).or_insert((0usize, 0usize));
                    *images += 1;
                    *covered += usize::from(test.sets[at].contains(&class));
                    everywhere &= test.calibrated[at][class];
                }
                // What is promised is about patients: each counts once, however many images it has.
                let shares = groups.values().map(|&(covered, images)| covered as f64 / images as f64);
                ClassCoverage {
                    class: cases.classes[class].to_string(),
                    coverage: (!groups.is_empty() && everywhere).then(|| shares.sum::<f64>() / groups.len() as f64),
                    calibration_groups: self.groups[class],
                }
            })
            .collect();
        let known: Vec<f64> = per_class.iter().filter_map(|class| class.coverage).collect();
        PredictionSets {
            level,
            mean_class_coverage: (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64),
            per_class,
            mean_size: (self.tests.iter().map(|test| test.sets[at].len()).sum::<usize>() as f64)
                / self.tests.len().max(1) as f64,
            empty: share(&|test| test.sets[at].is_empty()),
            too_large: share(&|test| test.sets[at].len() >= SET_SIZE_MAX.min(classes)),
            sizes: (0..=classes)
                .map(|size| share(&|test| test.sets[at].len() == size))
                .collect(),
        }
    }

    /// Answers by confidence. No suggestion is never right.
    pub fn selective(&self, cases: &Cases) -> Selective {
        let mut answers: Vec<(f64, bool)> = (self.tests.iter())
            .map(|test| {
                let confidence = test.suggested.map_or(0.0, |class| test.probabilities[class]);
                (confidence, test.suggested == Some(cases.items[test.item].class))
            })
            .collect();
        answers.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut wrong = 0usize;
        let curve: Vec<(f64, f64)> = (1..)
            .zip(&answers)
            .map(|(answered, &(_, right))| {
                wrong += usize::from(!right);
                (
                    answered as f64 / answers.len() as f64,
                    wrong as f64 / f64::from(answered),
                )
            })
            .collect();
        let (right, mistaken): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.1);
        let confidences = |answers: Vec<(f64, bool)>| answers.into_iter().map(|answer| answer.0).collect::<Vec<_>>();
        Selective {
            accuracy_at_80: selective_accuracy(&answers, 0.8),
            accuracy_at_90: selective_accuracy(&answers, 0.9),
            aurc: (!curve.is_empty()).then(|| curve.iter().map(|point| point.1).sum::<f64>() / curve.len() as f64),
            auroc_of_right: auroc(&confidences(right), &confidences(mistaken)),
            risk_coverage: thinned(curve),
        }
    }

    /// Each class looked for by its calibrated probability.
    pub fn precision_recall(&self, cases: &Cases) -> Vec<PrecisionRecall> {
        (cases.classes.iter().enumerate())
            .map(|(class, name)| {
                let mut scored: Vec<(f64, bool)> = (self.tests.iter())
                    .map(|test| (test.probabilities[class], cases.items[test.item].class == class))
                    .collect();
                scored.sort_by(|a, b| b.0.total_cmp(&a.0));
                let all = scored.iter().filter(|scored| scored.1).count();
                let relevant: Vec<bool> = scored.iter().map(|scored| scored.1).collect();
                let mut found = 0usize;
                let points = (1..)
                    .zip(&relevant)
                    .filter(|&(_, &hit)| hit)
                    .map(|(rank, _): (u32, _)| {
                        found += 1;
                        (found as f64 / all as f64, found as f64 / f64::from(rank))
                    });
                PrecisionRecall {
                    class: name.to_string(),
                    points: thinned(points.collect()),
                    average_precision: super::retrieval::average_precision(&relevant),
                    prior: all as f64 / scored.len().max(1) as f64,
                }
            })
            .collect()
    }
}

/// The most probable class and its probability; the first of equals.
fn best(probabilities: &[f64]) -> (usize, f64) {
    let first = (0, probabilities.first().copied().unwrap_or(0.0));
    probabilities
        .iter()
        .copied()
        .enumerate()
        .fold(first, |best, next| if next.1 > best.1 { next } else { best })
}

/// At most [`POINTS`] of a curve, the last one always.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let count = points.len();
    if count <= POINTS {
        return points;
    }
    (1..=POINTS).map(|at| points[at * count / POINTS - 1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::softmax;

    #[test]
    fn thinning_keeps_the_end() {
        let points: Vec<(f64, f64)> = (0..1001).map(|at| (f64::from(at), 0.0)).collect();
        let thin = thinned(points.clone());
        assert_eq!((thin.len(), thin.last()), (POINTS, points.last()));
        assert_eq!(thinned(points[..5].to_vec()).len(), 5);
    }

    #[test]
    fn the_first_of_equals_is_best() {
        assert_eq!(best(&[0.2, 0.4, 0.4]), (1, 0.4));
        assert_eq!(best(&softmax(&[0.0, 0.0])), (0, 0.5));
    }
}
