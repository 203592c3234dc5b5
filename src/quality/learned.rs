//! Learned spaces that are judged fairly: what is fitted, and every choice between settings, has seen neither the images that are tested nor their
//! groups (nested cross-validation: Varma and Simon, BMC Bioinformatics 7, 2006). The parts that calibrate are asked by what is fitted without them,
//! too, but share their round's choice of space and shrinkage.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::ask::Voter;
use super::asked::Asking;
use super::cases::Cases;
use super::evaluation::{Chosen, Tried};
use super::metric::{FitError, FitSettings, Scatter};
use super::split::folds;
use super::views::Plan;
use crate::domain::{Embedding, Metric};
use crate::error::{Error, ErrorKind, Result};

/// Shrinkages that are tried, and the one for a training set on which they do alike, first.
pub const SHRINKAGES: [f64; 3] = [0.8, 0.5, 0.3];
/// Parts of a training set by which settings are compared.
const INNER_PARTS: usize = 4;

/// The same images in one space: vectors of one model.
pub struct Candidate {
    /// What it is called.
    pub name: String,
    /// The images, in the order of all other candidates.
    pub cases: Cases,
}

/// One way of learning.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Choice {
    candidate: usize,
    shrinkage: f64,
}

/// Learns for every fit of a plan.
pub struct Learner<'a> {
    candidates: &'a [Candidate],
    plan: &'a Plan,
    /// Of each fit that chooses.
    choices: BTreeMap<usize, Choice>,
    /// Of each such fit, the score of every candidate with each of [`SHRINKAGES`].
    scores: Vec<Vec<f64>>,
}

/// How often [`Learner::choose`] will call `done`.
pub fn choices(plan: &Plan) -> usize {
    choosing(plan).count()
}

fn choosing(plan: &Plan) -> impl Iterator<Item = usize> {
    (0..plan.fits.len()).filter(|&fit| plan.fits[fit].chosen_by == fit)
}

impl<'a> Learner<'a> {
    /// Decides for each fit, within its training set, which candidate and which shrinkage are best: by the mean sensitivity of the classes under the
    /// vote of `asking`, over parts of whole groups; of equals the first. `done` is called once for each of [`choices`].
    ///
    /// # Errors
    /// `InvalidRequest` where a training set is too small to learn from.
    pub fn choose(candidates: &'a [Candidate], plan: &'a Plan, asking: Asking, done: impl Fn() + Sync) -> Result<Self> {
        let fits: Vec<usize> = choosing(plan).collect();
        let choose = |&fit: &usize| {
            let (choice, scores) = best(candidates, &training(&candidates[0].cases, plan, fit), asking, fit)?;
            done();
            Ok(((fit, choice), scores))
        };
        let (choices, scores): (Vec<_>, Vec<_>) = fits
            .par_iter()
            .map(choose)
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .unzip();
        Ok(Self {
            choices: choices.into_iter().collect(),
            scores,
            candidates,
            plan,
        })
    }

    /// All images as a fit sees them.
    ///
    /// # Errors
    /// `InvalidRequest` where there is too little to learn from.
    pub fn space(&self, fit: usize) -> Result<Cases> {
        let (candidate, metric) = self.metric(fit)?;
        Ok(mapped(&candidate.cases, &metric))
    }

    /// The archive's images, and others of the first candidate's space, as the first fit sees them: it has learned from neither those that it tests nor
    /// those others. None where the fit has chosen another candidate, in whose space the others are not known.
    ///
    /// # Errors
    /// As [`Learner::space`].
    pub fn with_others(&self, others: &[Embedding]) -> Result<Option<(Cases, Vec<Vec<f32>>)>> {
        if self.choices.get(&0).is_none_or(|choice| choice.candidate != 0) {
            return Ok(None);
        }
        let (candidate, metric) = self.metric(0)?;
        let others = others.iter().map(|other| metric.of_row(other.as_slice())).collect();
        Ok(Some((mapped(&candidate.cases, &metric), others)))
    }

    /// What was chosen how often, most often first.
    pub fn chosen(&self) -> Vec<Chosen> {
        let mut chosen: Vec<Chosen> = Vec::new();
        for choice in self.choices.values() {
            let space = &self.candidates[choice.candidate].name;
            let same = |other: &&mut Chosen| other.space == *space && other.shrinkage == choice.shrinkage;
            match chosen.iter_mut().find(same) {
                Some(other) => other.training_sets += 1,
                None => chosen.push(Chosen {
                    space: space.clone(),
                    shrinkage: choice.shrinkage,
                    training_sets: 1,
                }),
            }
        }
        chosen.sort_by_key(|chosen| std::cmp::Reverse(chosen.training_sets));
        chosen
    }

    /// What was tried and how it did, in the order in which it was tried.
    pub fn tried(&self) -> Vec<Tried> {
        let names = self.candidates.iter().map(|candidate| &candidate.name);
        let all = names.flat_map(|name| SHRINKAGES.map(|shrinkage| (name, shrinkage)));
        let of = |(at, (space, shrinkage)): (usize, (&String, f64))| {
            let scores = || self.scores.iter().map(|scores| scores[at]);
            Tried {
                space: space.clone(),
                shrinkage,
                balanced_accuracy: scores().sum::<f64>() / self.scores.len().max(1) as f64,
                least: scores().fold(1.0, f64::min),
                most: scores().fold(0.0, f64::max),
            }
        };
        all.enumerate().map(of).collect()
    }

    fn metric(&self, fit: usize) -> Result<(&'a Candidate, Metric)> {
        let chosen_by = self.plan.fits[fit].chosen_by;
        let choice = self
            .choices
            .get(&chosen_by)
            .ok_or_else(|| Error::internal("a fit without a choice"))?;
        let candidate = &self.candidates[choice.candidate];
        let items = training(&candidate.cases, self.plan, fit);
        let metric = scatter(&candidate.cases, &items)?
            .metric(choice.shrinkage, FitSettings::default().components)
            .map_err(refused)?;
        Ok((candidate, metric))
    }
}

/// The images that a fit learns from.
fn training(cases: &Cases, plan: &Plan, fit: usize) -> Vec<usize> {
    let fit = &plan.fits[fit];
    (0..cases.items.len())
        .filter(|&item| cases.items[item].indexed && fit.learns_from(item))
        .collect()
}

/// A metric learned from all images that can be found, and what it brought on those that it had not seen.
#[derive(Debug)]
pub struct Learned {
    /// Fitted on all of them.
    pub metric: Metric,
    /// The one that was best, or that was asked for.
    pub shrinkage: f64,
    /// Mean sensitivity of the classes over parts of whole groups, each asked about among the others: with the vectors as they are.
    pub without: f64,
    /// The same by metrics fitted without the part. The shrinkage was chosen by it, which flatters a little.
    pub with: f64,
    /// Images that were judged.
    pub judged: usize,
}

/// Parts by which [`learn`] judges.
pub const PARTS: usize = INNER_PARTS;
/// Most images that [`learn`] judges by: beyond, every second, third … one.
const JUDGED_MAX: usize = 5_000;

/// How often [`learn`] will call `done`.
pub const LEARN_STEPS: usize = PARTS * 2 + 1;

/// Learns one metric for all searches. `shrinkages` are compared, at least one; `components` as in [`FitSettings`].
///
/// # Errors
/// `InvalidRequest` where there is too little to learn from.
pub fn learn(
    cases: &Cases,
    asking: Asking,
    shrinkages: &[f64],
    components: usize,
    done: impl Fn() + Sync,
) -> Result<Learned> {
    let items: Vec<usize> = (0..cases.items.len())
        .filter(|&item| cases.items[item].indexed)
        .collect();
    let judged = Judged::new(cases, &items, 0, JUDGED_MAX);
    let with = judged.with(cases, asking, shrinkages, components, &done)?;
    let without = judged.without(cases, asking, &done);
    let mut best: Option<(f64, f64)> = None;
    for (&shrinkage, score) in shrinkages.iter().zip(with) {
        if best.is_none_or(|(best, _)| score > best) {
            best = Some((score, shrinkage));
        }
    }
    let (with, shrinkage) = best.ok_or_else(|| Error::internal("no shrinkage to learn with"))?;
    let metric = scatter(cases, &items)?.metric(shrinkage, components).map_err(refused)?;
    done();
    Ok(Learned {
        metric,
        shrinkage,
        without,
        with,
        judged: judged.asked.iter().filter(|&&asked| asked).count(),
    })
}

/// The best way to learn from `items`, judged among them, and the score of every way.
fn best(candidates: &[Candidate], items: &[usize], asking: Asking, seed: usize) -> Result<(Choice, Vec<f64>)> {
    let judged = Judged::new(&candidates[0].cases, items, seed as u64, usize::MAX);
    let (mut best, mut all): (Option<(f64, Choice)>, _) = (None, Vec::new());
    for (candidate, Candidate { cases, .. }) in candidates.iter().enumerate() {
        let scores = judged.with(cases, asking, &SHRINKAGES, FitSettings::default().components, &|| {})?;
        for (score, shrinkage) in scores.into_iter().zip(SHRINKAGES) {
            all.push(score);
            if best.is_none_or(|(best, _)| score > best) {
                best = Some((score, Choice { candidate, shrinkage }));
            }
        }
    }
    let (_, choice) = best.ok_or_else(|| Error::internal("no candidate to learn from"))?;
    Ok((choice, all))
}

/// Images in parts of whole groups: each part is asked about among the others.
struct Judged<'a> {
    items: &'a [usize],
    classes: Vec<usize>,
    part_of: Vec<usize>,
    asked: Vec<bool>,
}

impl<'a> Judged<'a> {
    fn new(cases: &Cases, items: &'a [usize], seed: u64, asked_max: usize) -> Self {
        let of = |what: fn(&super::cases::Case) -> usize| -> Vec<usize> {
            items.iter().map(|&item| what(&cases.items[item])).collect()
        };
        let classes = of(|case| case.class);
        let part_of = folds(&of(|case| case.group), &classes, INNER_PARTS, seed);
        let step = items.len().div_ceil(asked_max).max(1);
        let asked = (0..items.len()).map(|at| at % step == 0).collect();
        Self {
            items,
            classes,
            part_of,
            asked,
        }
    }

    /// The mean sensitivity of the classes by a metric of each shrinkage, fitted without the part that is asked about.
    fn with(
        &self,
        cases: &Cases,
        asking: Asking,
        shrinkages: &[f64],
        components: usize,
        done: &(impl Fn() + Sync),
    ) -> Result<Vec<f64>> {
        let mut right = vec![vec![0usize; cases.classes.len()]; shrinkages.len()];
        for part in 0..INNER_PARTS {
            let learned: Vec<usize> = self.others(part).collect();
            let scatter = scatter(cases, &learned)?;
            for (right, &shrinkage) in right.iter_mut().zip(shrinkages) {
                let metric = scatter.metric(shrinkage, components).map_err(refused)?;
                self.ask(&mapped(cases, &metric), part, asking, right);
            }
            done();
        }
        Ok(right.iter().map(|right| self.score(right)).collect())
    }

    /// The same with the vectors as they are.
    fn without(&self, cases: &Cases, asking: Asking, done: &(impl Fn() + Sync)) -> f64 {
        let mut right = vec![0usize; cases.classes.len()];
        for part in 0..INNER_PARTS {
            self.ask(cases, part, asking, &mut right);
            done();
        }
        self.score(&right)
    }

    fn others(&self, part: usize) -> impl Iterator<Item = usize> {
        (0..self.items.len())
            .filter(move |&at| self.part_of[at] != part)
            .map(|at| self.items[at])
    }

    /// Adds to `right`, by class, how many images of a part are given their class by the others.
    fn ask(&self, space: &Cases, part: usize, asking: Asking, right: &mut [usize]) {
        let mut found = vec![false; space.items.len()];
        self.others(part).for_each(|item| found[item] = true);
        let voter = Voter {
            cases: space,
            k: asking.k,
            method: asking.method,
        };
        let asked: Vec<usize> = (0..self.items.len())
            .filter(|&at| self.part_of[at] == part && self.asked[at])
            .collect();
        let is_right = |&at: &usize| {
            let ranked = space.ranked(space.vector(self.items[at]));
            voter.answer(&ranked, |_, other| found[other]).class == Some(self.classes[at])
        };
        let are_right: Vec<bool> = asked.par_iter().map(is_right).collect();
        for (&at, is_right) in asked.iter().zip(are_right) {
            right[self.classes[at]] += usize::from(is_right);
        }
    }

    fn score(&self, right: &[usize]) -> f64 {
        let mut of_class = vec![0usize; right.len()];
        let asked = self.classes.iter().zip(&self.asked).filter(|&(_, &asked)| asked);
        asked.for_each(|(&class, _)| of_class[class] += 1);
        let seen = right.iter().zip(&of_class).filter(|&(_, &of)| of > 0);
        let sensitivities: Vec<f64> = seen.map(|(&right, &of)| right as f64 / of as f64).collect();
        sensitivities.iter().sum::<f64>() / sensitivities.len().max(1) as f64
    }
}

pub(super) fn scatter(cases: &Cases, items: &[usize]) -> Result<Scatter> {
    let vectors: Vec<&[f32]> = items.iter().map(|&item| cases.vector(item)).collect();
    let classes: Vec<usize> = items.iter().map(|&item| cases.items[item].class).collect();
    Scatter::new(&vectors, &classes).map_err(refused)
}

fn refused(error: FitError) -> Error {
    Error::new(ErrorKind::InvalidRequest, format!("no metric can be learned: {error}"))
}

pub(super) fn mapped(cases: &Cases, metric: &Metric) -> Cases {
    let items: Vec<usize> = (0..cases.items.len()).collect();
    let vectors: Vec<Vec<f32>> = items
        .par_iter()
        .map(|&item| metric.of_row(cases.vector(item)))
        .collect();
    cases.in_space(metric.components(), vectors.concat())
}

#[cfg(test)]
mod tests {
    use super::super::asked::ask_all;
    use super::super::cases::tests::cases;
    use super::super::random::Random;
    use super::super::views::{Split, plan};
    use super::*;
    use crate::domain::VoteMethod;

    const ASKING: Asking = Asking {
        k: 5,
        method: VoteMethod::Majority,
        extra: true,
    };

    /// Ninety images of ninety patients in three classes: one loud direction that says nothing, two quiet ones that tell the class, or not even these.
    fn images(seed: u64, telling: bool) -> Cases {
        let mut random = Random::new(seed);
        let mut normal = move || (0..6).map(|_| random.unit() as f32 - 0.5).sum::<f32>();
        let items: Vec<_> = (0..90u8)
            .map(|at| {
                let class = usize::from(at % 3);
                let angle = class as f32 * 2.1;
                let (x, y) = if telling {
                    (angle.cos(), angle.sin())
                } else {
                    (normal(), normal())
                };
                let mut vector = vec![10.0, 3.0 * normal(), 0.3 * x + 0.1 * normal(), 0.3 * y + 0.1 * normal()];
                vector.extend((0..26).map(|_| 0.4 * normal()));
                (class, at + 1, 0, vector)
            })
            .collect();
        cases(&items)
    }

    fn share_right(cases: &Cases, candidates: &[Candidate]) -> (f64, f64) {
        let plan = plan(cases, Split::Folds(5), 1, true);
        let learner = Learner::choose(candidates, &plan, ASKING, || {}).unwrap();
        let asked = ask_all(cases, &plan, ASKING, |fit| learner.space(fit), || {}).unwrap();
        let raw = ask_all(cases, &plan, ASKING, |_| Ok(cases), || {}).unwrap();
        let share = |asked: &super::super::asked::Asked| {
            let right = |&item: &usize| {
                asked
                    .tests(item)
                    .all(|answer| answer.class == Some(cases.items[item].class))
            };
            (0..cases.items.len()).filter(right).count() as f64 / cases.items.len() as f64
        };
        (share(&raw), share(&asked))
    }

    #[test]
    fn learns_what_tells_classes_and_nothing_from_lots() {
        let candidate = |cases: &Cases| {
            [Candidate {
                name: "own".into(),
                cases: cases.clone(),
            }]
        };
        let cases = images(1, true);
        let (raw, learned) = share_right(&cases, &candidate(&cases));
        assert!(learned > raw + 0.2 && learned > 0.7, "{raw} {learned}");
        // Where there is nothing to learn it must not look as if there were: images that are judged would give it away.
        let shares: Vec<f64> = (2..8)
            .map(|seed| {
                let cases = images(seed, false);
                share_right(&cases, &candidate(&cases)).1
            })
            .collect();
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        assert!((mean - 1.0 / 3.0).abs() < 0.08, "{shares:?}");
    }

    #[test]
    fn says_what_a_metric_brings_where_it_was_not_fitted() {
        let of = |cases: &Cases| learn(cases, ASKING, &SHRINKAGES, 8, || {}).unwrap();
        let telling = of(&images(1, true));
        assert!(
            telling.with > telling.without + 0.2 && telling.judged == 90,
            "{telling:?}"
        );
        assert_eq!((telling.metric.dimension(), telling.metric.components()), (30, 8));
        let lots: Vec<f64> = (2..8).map(|seed| of(&images(seed, false)).with).collect();
        let mean = lots.iter().sum::<f64>() / lots.len() as f64;
        // The best of three by chance, not more.
        assert!((mean - 1.0 / 3.0).abs() < 0.1, "{lots:?}");
    }

    #[test]
    fn takes_the_better_space() {
        let (good, poor) = (images(1, true), images(2, false));
        let candidates = [
            Candidate {
                name: "poor".into(),
                cases: good.in_space(poor.dimension(), poor.vectors().to_vec()),
            },
            Candidate {
                name: "good".into(),
                cases: good.clone(),
            },
        ];
        let plan = plan(&good, Split::Folds(5), 2, true);
        let learner = Learner::choose(&candidates, &plan, ASKING, || {}).unwrap();
        let chosen = learner.chosen();
        assert!(chosen.iter().all(|chosen| chosen.space == "good"), "{chosen:?}");
        assert_eq!(chosen.iter().map(|chosen| chosen.training_sets).sum::<usize>(), 10);
        assert!(learner.with_others(&[]).unwrap().is_none());
    }

    #[test]
    fn says_when_there_is_too_little() {
        let few = cases(
            &(0..12u8)
                .map(|at| (usize::from(at % 2), at + 1, 0, vec![1.0, f32::from(at)]))
                .collect::<Vec<_>>(),
        );
        let candidates = [Candidate {
            name: "own".into(),
            cases: few.clone(),
        }];
        let plan = plan(&few, Split::LeaveGroupOut, 1, true);
        let error = Learner::choose(&candidates, &plan, ASKING, || {}).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.message().contains("at least 20 images"), "{error}");
    }
}
