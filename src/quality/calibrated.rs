//! The calibration that an archive is served with: fitted on answers that each image got where its group could not be found and nothing had been
//! learned from it.
//!
//! Thresholds and probabilities are of one fit, so that a mixture of votes, of which there are few, falls on the same side of a threshold when it is
//! served as when it was counted. What that promises is judged part by part, by fits without the part.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::ask::Voter;
use super::asked::Asking;
use super::calibration::{brier, ece, ece_by_chance, fit_shares};
use super::cases::{Case, Cases};
use super::confidence::{LEVELS, SMOOTHING};
use super::conformal::ClassScores;
use super::distribution;
use super::learned::{mapped, scatter};
use super::metric::{FitError, FitSettings};
use super::split::folds;
use crate::domain::{
    Calibration, ClassLabel, Distribution, Doubt, Level, ShareCalibration, prediction_set, strangeness,
};
use crate::error::{Error, ErrorKind, Result};

/// Parts of whole groups: what is learned without a part is asked about it.
const PARTS: usize = 5;
/// Most images that are asked about, but for those of rare classes: beyond, every second, third … one.
const ASKED_MAX: usize = 10_000;
/// So many images of each class are asked about whatever their share.
const ASKED_OF_CLASS: usize = 500;
/// The share of the archive's own groups that are called unlike it by each of two measures.
const UNLIKE: f64 = 0.025;
/// Draws for what chance makes of the calibration error.
const DRAWS: usize = 400;

/// How often [`calibrate`] will call `done`.
pub const STEPS: usize = PARTS;

/// A calibration and what it promises, judged on parts that it was fitted without.
#[derive(Debug)]
pub struct Calibrated {
    /// Fitted on all parts; what the pictures look like is not among what is asked here.
    pub calibration: Calibration,
    /// Groups of each class.
    pub groups: BTreeMap<ClassLabel, u64>,
    /// Expected calibration error of what is suggested.
    pub ece: f64,
    /// What chance alone makes of it in 19 of 20 cases.
    pub ece_by_chance: f64,
    /// Brier score of the probabilities, and of the vote's shares.
    pub brier: [f64; 2],
    /// Share of images that would get a suggestion: neither unlike the archive nor in doubt.
    pub suggested: f64,
    /// At each level.
    pub sets: Vec<Sets>,
}

/// Prediction sets of one level, judged.
#[derive(Debug)]
pub struct Sets {
    /// The level.
    pub level: f64,
    /// Mean over the calibrated classes of the share of images that have their class in the set.
    pub coverage: f64,
    /// Mean number of calibrated classes in a set.
    pub size: f64,
    /// Classes of which too few groups are known.
    pub not_available: Vec<ClassLabel>,
}

/// What an image got.
struct Heard {
    item: usize,
    part: usize,
    /// Drawn as often as its class occurs: it speaks for how frequent classes are.
    fair: bool,
    voted: Option<usize>,
    weights: Vec<f64>,
    /// Similarity of the last voter.
    last: f64,
    /// From where the images of all other parts lie.
    distance: f64,
}

/// Calibrates the votes of `asking`, by a metric of this shrinkage and so many components or with the vectors as they are.
///
/// # Errors
/// `InvalidRequest` where there is too little to learn from, or fewer groups than voters.
pub fn calibrate(
    cases: &Cases,
    asking: Asking,
    metric: Option<FitSettings>,
    done: impl Fn() + Sync,
) -> Result<Calibrated> {
    let heard = hear(cases, asking, metric, done)?;
    let all: Vec<&Heard> = heard.iter().collect();
    let shares = shares(cases, &all);
    let levels = levels(cases, &all, &shares);
    let judged = judge(cases, &heard);
    let groups = |class: usize| cases.groups(|case| case.indexed && case.class == class) as u64;
    Ok(Calibrated {
        ece: judged.ece(),
        ece_by_chance: judged.ece_by_chance(),
        brier: judged.brier(cases),
        suggested: judged.share_suggested(),
        sets: judged.sets(cases, &levels),
        groups: (0..cases.classes.len())
            .map(|class| (cases.classes[class].clone(), groups(class)))
            .collect(),
        calibration: Calibration {
            k: asking.k,
            vote: asking.method,
            classes: cases.classes.clone(),
            images: (cases.count(|case| case.indexed).into_iter())
                .map(|images| images as u64)
                .collect(),
            shares,
            levels,
            home_min: least(cases, &all, |heard| heard.last),
            distribution: distribution_of(
                cases,
                &(0..cases.items.len())
                    .filter(|&item| cases.items[item].indexed)
                    .collect::<Vec<_>>(),
            )?,
            distance_max: -least(cases, &all, |heard| -heard.distance),
            appearances: None,
        },
    })
}

fn shares(cases: &Cases, heard: &[&Heard]) -> ShareCalibration {
    let answers: Vec<(Vec<f64>, usize)> = (heard.iter().filter(|heard| heard.fair))
        .map(|heard| (heard.weights.clone(), cases.items[heard.item].class))
        .collect();
    match answers.is_empty() {
        true => ShareCalibration::none(cases.classes.len(), SMOOTHING),
        false => fit_shares(&answers, SMOOTHING),
    }
}

fn levels(cases: &Cases, heard: &[&Heard], shares: &ShareCalibration) -> Vec<Level> {
    let mut scores = vec![ClassScores::default(); cases.classes.len()];
    for heard in heard {
        let Case { class, group, .. } = cases.items[heard.item];
        scores[class].push(group, strangeness(shares.probabilities(&heard.weights)[class]));
    }
    let of = |&level: &f64| Level {
        level,
        thresholds: scores.iter().map(|scores| scores.threshold(1.0 - level)).collect(),
    };
    LEVELS.iter().map(of).collect()
}

/// What all but [`UNLIKE`] of the groups have at least, each group counted once.
fn least(cases: &Cases, heard: &[&Heard], of: impl Fn(&Heard) -> f64) -> f64 {
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    let group = |heard: &Heard| cases.items[heard.item].group;
    heard
        .iter()
        .for_each(|heard| *sizes.entry(group(heard)).or_default() += 1);
    let mut last: Vec<(f64, f64)> = (heard.iter())
        .map(|heard| (of(heard), 1.0 / sizes[&group(heard)] as f64))
        .collect();
    last.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut below = 0.0;
    for &(value, weight) in &last {
        below += weight;
        if below > UNLIKE * sizes.len() as f64 {
            return value;
        }
    }
    last.last().map_or(-1.0, |last| last.0)
}

/// What each image that stands for its class's frequency would have been answered by a fit without its part.
struct Judged {
    answers: Vec<Told>,
    /// Confidence of the class that most neighbors have where none is likelier, and whether it is right.
    confident: Vec<(f64, bool)>,
    /// How many get a suggestion.
    suggested: usize,
}

/// One answer: by class the probabilities and the votes' own shares, by level the thresholds.
struct Told {
    item: usize,
    probabilities: Vec<f64>,
    raw: Vec<f64>,
    levels: Vec<Level>,
}

fn judge(cases: &Cases, heard: &[Heard]) -> Judged {
    let mut judged = Judged {
        answers: Vec::new(),
        confident: Vec::new(),
        suggested: 0,
    };
    for part in 0..PARTS {
        let without: Vec<&Heard> = heard.iter().filter(|heard| heard.part != part).collect();
        let shares = shares(cases, &without);
        let levels = levels(cases, &without, &shares);
        let home_min = least(cases, &without, |heard| heard.last);
        let distance_max = -least(cases, &without, |heard| -heard.distance);
        for heard in heard.iter().filter(|heard| heard.part == part && heard.fair) {
            let probabilities = shares.probabilities(&heard.weights);
            let total: f64 = heard.weights.iter().sum();
            let raw = heard
                .weights
                .iter()
                .map(|weight| weight / total.max(f64::MIN_POSITIVE))
                .collect();
            if let Some(voted) = heard.voted {
                let doubt = levels[0].doubt(voted, &probabilities);
                if !matches!(doubt, Some(Doubt::Likelier(_))) {
                    let right = voted == cases.items[heard.item].class;
                    judged.confident.push((probabilities[voted], right));
                }
                let alike = heard.last >= home_min && heard.distance <= distance_max;
                judged.suggested += usize::from(alike && doubt.is_none());
            }
            judged.answers.push(Told {
                item: heard.item,
                probabilities,
                raw,
                levels: levels.clone(),
            });
        }
    }
    judged
}

impl Judged {
    fn ece(&self) -> f64 {
        ece(&self.confident)
    }

    fn ece_by_chance(&self) -> f64 {
        let confidences: Vec<f64> = self.confident.iter().map(|answer| answer.0).collect();
        ece_by_chance(&confidences, 0.95, DRAWS, 0)
    }

    fn share_suggested(&self) -> f64 {
        self.suggested as f64 / self.answers.len().max(1) as f64
    }

    fn brier(&self, cases: &Cases) -> [f64; 2] {
        let truth = |item: usize| cases.items[item].class;
        let calibrated = (self.answers.iter()).map(|told| (&told.probabilities[..], truth(told.item)));
        let raw = (self.answers.iter()).map(|told| (&told.raw[..], truth(told.item)));
        [brier(calibrated), brier(raw)]
    }

    fn sets(&self, cases: &Cases, levels: &[Level]) -> Vec<Sets> {
        let of = |(at, level): (usize, &Level)| {
            let classes = cases.classes.len();
            let known: Vec<usize> = (0..classes)
                .filter(|&class| level.thresholds[class].is_some())
                .collect();
            let (mut inside, mut images, mut size) = (vec![0usize; classes], vec![0usize; classes], 0usize);
            for told in &self.answers {
                // A part may lack a threshold that the whole has: its sets hold that class whatever is asked.
                let thresholds = &told.levels[at].thresholds;
                let set = prediction_set(&told.probabilities, thresholds);
                let judged = |class: &usize| thresholds[*class].is_some() && known.contains(class);
                let class = cases.items[told.item].class;
                if judged(&class) {
                    images[class] += 1;
                    inside[class] += usize::from(set.contains(&class));
                }
                size += set.iter().filter(|class| judged(class)).count();
            }
            let shares = known.iter().filter(|&&class| images[class] > 0);
            let shares: Vec<f64> = shares
                .map(|&class| inside[class] as f64 / images[class] as f64)
                .collect();
            Sets {
                level: level.level,
                coverage: shares.iter().sum::<f64>() / shares.len().max(1) as f64,
                size: size as f64 / self.answers.len().max(1) as f64,
                not_available: (0..classes)
                    .filter(|class| !known.contains(class))
                    .map(|class| cases.classes[class].clone())
                    .collect(),
            }
        };
        levels.iter().enumerate().map(of).collect()
    }
}

fn distribution_of(cases: &Cases, items: &[usize]) -> Result<Distribution> {
    let vectors: Vec<&[f32]> = items.iter().map(|&item| cases.vector(item)).collect();
    let classes: Vec<usize> = items.iter().map(|&item| cases.items[item].class).collect();
    distribution::fit(&vectors, &classes)
}

/// Every image asked about in the whole archive but its group, by what was learned without its part.
fn hear(cases: &Cases, asking: Asking, metric: Option<FitSettings>, done: impl Fn() + Sync) -> Result<Vec<Heard>> {
    let items: Vec<usize> = (0..cases.items.len())
        .filter(|&item| cases.items[item].indexed)
        .collect();
    let of = |what: fn(&Case) -> usize| -> Vec<usize> { items.iter().map(|&item| what(&cases.items[item])).collect() };
    let classes = of(|case| case.class);
    let part_of = folds(&of(|case| case.group), &classes, PARTS, 0);
    let drawn = draw(&classes);
    let mut all = Vec::new();
    for part in 0..PARTS {
        let others: Vec<usize> = (0..items.len())
            .filter(|&at| part_of[at] != part)
            .map(|at| items[at])
            .collect();
        let distribution = distribution_of(cases, &others)?;
        let space = match metric {
            None => None,
            Some(FitSettings { shrinkage, components }) => {
                let refused = |error: FitError| Error::new(ErrorKind::InvalidRequest, error.to_string());
                let scatter = scatter(cases, &others)?;
                let metric = scatter.metric(shrinkage, components).map_err(refused)?;
                Some(mapped(cases, &metric))
            }
        };
        let space = space.as_ref().unwrap_or(cases);
        let voter = Voter {
            cases: space,
            k: asking.k,
            method: asking.method,
        };
        let one = |(at, fair): (usize, bool)| {
            let item = items[at];
            let group = cases.items[item].group;
            let ranked = space.ranked(space.vector(item));
            let answer = voter.answer(&ranked, |case, _| case.indexed && case.group != group);
            let last = answer.neighbors.get(asking.k - 1)?.0;
            Some(Heard {
                item,
                part,
                fair,
                voted: answer.class,
                weights: answer.weights,
                last: f64::from(last),
                distance: distribution.distance(cases.vector(item))?,
            })
        };
        let asked = (0..items.len()).filter(|&at| part_of[at] == part);
        let asked: Vec<(usize, bool)> = asked.filter_map(|at| Some((at, drawn[at]?))).collect();
        let heard: Option<Vec<Heard>> = asked.into_par_iter().map(one).collect();
        all.extend(heard.ok_or_else(|| {
            let message = format!(
                "there are not {} other cases to vote on each: `-k` asks fewer",
                asking.k
            );
            Error::new(ErrorKind::InvalidRequest, message)
        })?);
        done();
    }
    Ok(all)
}

/// Who is asked about: every n-th image of a class stands for its frequency (`true`), and rare classes have more.
fn draw(classes: &[usize]) -> Vec<Option<bool>> {
    let mut of_class: BTreeMap<usize, usize> = BTreeMap::new();
    classes
        .iter()
        .for_each(|&class| *of_class.entry(class).or_default() += 1);
    let step = classes.len().div_ceil(ASKED_MAX).max(1);
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    classes
        .iter()
        .map(|class| {
            let number = seen.entry(*class).or_default();
            let at = *number;
            *number += 1;
            let more = of_class[class].div_ceil(ASKED_OF_CLASS).max(1);
            match at % step {
                0 => Some(true),
                _ => at.is_multiple_of(more).then_some(false),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::cases::tests::cases;
    use super::super::random::Random;
    use super::*;
    use crate::domain::VoteMethod;

    const ASKING: Asking = Asking {
        k: 5,
        method: VoteMethod::Majority,
        extra: false,
    };

    /// Images of patients of their own, in two clouds that overlap as `spread` says (standard deviation, their centres are 1 apart).
    fn clouds(seed: u64, images: usize, spread: f64) -> Cases {
        let mut random = Random::new(seed);
        let items: Vec<_> = (0..images)
            .map(|at| {
                let class = at % 2;
                // Nearly normal, of variance 1.
                let noise = (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
                let angle = class as f64 + spread * noise;
                (class, 0, 0, vec![angle.cos() as f32, angle.sin() as f32])
            })
            .collect();
        cases(&items)
    }

    #[test]
    fn holds_what_it_promises_on_parts_that_it_has_not_seen() {
        for (spread, size) in [(0.1, 1.0), (0.6, 2.0)] {
            let calibrated = calibrate(&clouds(1, 400, spread), ASKING, None, || {}).unwrap();
            assert_eq!(calibrated.calibration.check(), Ok(()));
            for sets in &calibrated.sets {
                assert!((sets.coverage - sets.level) > -0.04, "{spread}: {sets:?}");
                assert!(
                    sets.size <= size + 1e-9 && sets.not_available.is_empty(),
                    "{spread}: {sets:?}"
                );
            }
            // Two clouds apart are told nearly always, two that overlap much seldom; five of a hundred may be called unlike the others.
            let told = if spread < 0.5 { 0.85..=1.0 } else { 0.1..=0.8 };
            assert!(told.contains(&calibrated.suggested), "{spread}: {calibrated:?}");
            assert!(
                calibrated.ece <= calibrated.ece_by_chance + 0.03,
                "{spread}: {calibrated:?}"
            );
            assert!(
                calibrated.brier[0] <= calibrated.brier[1] + 0.01,
                "{spread}: {calibrated:?}"
            );
        }
    }

    #[test]
    fn one_of_forty_groups_is_unlike_the_rest_by_each_measure() {
        let cases = clouds(3, 400, 0.3);
        let heard = hear(&cases, ASKING, None, || {}).unwrap();
        let all: Vec<&Heard> = heard.iter().collect();
        let home_min = least(&cases, &all, |heard| heard.last);
        let distance_max = -least(&cases, &all, |heard| -heard.distance);
        let unlike = heard.iter().filter(|heard| heard.last < home_min).count();
        let far = heard.iter().filter(|heard| heard.distance > distance_max).count();
        assert!((5..=10).contains(&unlike) && (5..=10).contains(&far), "{unlike} {far}");
    }

    #[test]
    fn a_class_with_too_few_groups_says_so() {
        let mut items: Vec<_> = (0..60u8)
            .map(|at| (usize::from(at % 2), 0, 0, vec![1.0, f32::from(at)]))
            .collect();
        items.extend((0..8u8).map(|at| (2, 0, 0, vec![1.0, -f32::from(at)])));
        let calibrated = calibrate(&cases(&items), ASKING, None, || {}).unwrap();
        let names = |at: usize| {
            calibrated.sets[at]
                .not_available
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (names(0), names(1)),
            (vec!["class 2".to_owned()], vec!["class 2".to_owned()])
        );
        let few: Vec<_> = (0..5u8)
            .map(|at| (usize::from(at % 2), 0, 0, vec![1.0, f32::from(at)]))
            .collect();
        let error = calibrate(&cases(&few), ASKING, None, || {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }

    #[test]
    fn rare_classes_are_asked_about_whatever_their_share() {
        let classes: Vec<usize> = (0..30_000).map(|at| usize::from(at % 100 == 0)).collect();
        let drawn = draw(&classes);
        let asked = |class: usize| {
            (0..classes.len())
                .filter(|&at| classes[at] == class && drawn[at].is_some())
                .count()
        };
        assert_eq!((asked(0), asked(1)), (9_900, 300));
        let fair = |class: usize| {
            (0..classes.len())
                .filter(|&at| classes[at] == class && drawn[at] == Some(true))
                .count()
        };
        assert_eq!((fair(0), fair(1)), (9_900, 100), "as frequent as they are");
    }
}
