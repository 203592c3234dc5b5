//! What methods reach that see no disease, or nothing at all: every figure has to be read beside them. Pure.

use std::borrow::Borrow;

use rayon::prelude::*;

use super::ask::{Answer, Voter};
use super::asked::{Asked, Asking, P_AT_10, ask_all, decided};
use super::cases::{Case, Cases};
use super::evaluation::{Available, Floor};
use super::figures::Decided;
use super::random::Random;
use super::views::Plan;
use crate::error::Result;

/// What a floor needs of the evaluation.
pub struct Floors<'a> {
    /// Everyone.
    pub cases: &'a Cases,
    /// Who may be found by whom.
    pub plan: &'a Plan,
    /// Those that are asked about.
    pub items: &'a [usize],
    /// How the product asks.
    pub asking: Asking,
    /// What it decided about each of them: shares of each suggestion, the last one none.
    pub ours: &'a [Vec<f64>],
    /// Resamples of every interval.
    pub resamples: usize,
}

impl Floors<'_> {
    /// The class of which most images can be found.
    pub fn majority(&self) -> Floor {
        let of_view: Vec<Option<usize>> = self.each_view();
        let guess = |_: usize, view: usize| of_view[view];
        self.floor(
            "majority class",
            "nothing: it always says the most frequent class",
            guess,
        )
    }

    /// The class of which the query's source has most images.
    pub fn source_oracle(&self) -> Floor {
        let (name, sees) = ("source oracle", "only where an image comes from, never the image");
        let known = self
            .items
            .iter()
            .filter(|&&item| self.cases.items[item].source.is_some())
            .count();
        let why = match (known, self.cases.sources.len()) {
            (0, _) => "no source is known",
            (_, 1) => "all images have one source",
            _ => {
                let of_any = self.each_view();
                let guess = |item: usize, view: usize| {
                    let query = &self.cases.items[item];
                    let others = self.counts(view, |case| case.source == query.source && case.group != query.group);
                    query.source.and_then(|_| most(&others)).or(of_any[view])
                };
                return self.floor(name, sees, guess);
            }
        };
        Floor {
            name: name.into(),
            sees: sees.into(),
            figures: Available::no(why),
        }
    }

    /// Neighbors drawn by lot, and their vote: the mean of many draws.
    pub fn random(&self) -> Floor {
        let indexed: Vec<u32> = (0u32..)
            .zip(&self.cases.items)
            .filter(|(_, case)| case.indexed)
            .map(|(at, _)| at)
            .collect();
        let voter = Voter {
            cases: self.cases,
            k: self.asking.k,
            method: self.asking.method,
        };
        let one = |&item: &usize| {
            let query = &self.cases.items[item];
            let (mut answers, mut found, mut same) = (Vec::with_capacity(DRAWS), 0usize, 0usize);
            for draw in 0..DRAWS {
                let mut order = indexed.clone();
                let drawn = Random::new((item * DRAWS + draw) as u64).draw(&mut order, DRAWN_MAX);
                // No two equally similar: a tie would be no vote. But nearly so: weighed by similarity, each counts the same.
                let similarity = |rank: usize| 1.0 - rank as f32 * 1e-6;
                let ranked: Vec<(f32, u32)> = drawn
                    .iter()
                    .enumerate()
                    .map(|(rank, &at)| (similarity(rank), at))
                    .collect();
                let answer = voter.answer(&ranked, |case, _| case.group != query.group);
                let first_ten = answer.neighbors.iter().take(10);
                found += first_ten.len();
                same += first_ten
                    .filter(|hit| self.cases.items[hit.1 as usize].class == query.class)
                    .count();
                answers.push(answer);
            }
            let precision = (found > 0).then(|| same as f64 / found as f64);
            (decided(answers.iter(), self.cases.classes.len()), precision)
        };
        let (shares, lists): (Vec<_>, Vec<_>) = self.items.par_iter().map(one).unzip();
        self.figures(
            "random neighbors",
            "nothing: its neighbors are drawn by lot",
            &shares,
            Some(&lists),
        )
    }

    /// The same lists and votes with every picture shrunk to 32×32 grey values. `done` is called after each query.
    ///
    /// # Errors
    /// Never: nothing is learned.
    pub fn thumbnail(&self, thumbnails: &Cases, done: impl Fn() + Sync) -> Result<Floor> {
        self.asked(THUMBNAIL, THUMBNAIL_SEES, self.plan, |_| Ok(thumbnails), done)
    }

    /// There are no pictures to shrink.
    pub fn no_thumbnail(&self, why: &str) -> Floor {
        Floor {
            name: THUMBNAIL.into(),
            sees: THUMBNAIL_SEES.into(),
            figures: Available::no(why),
        }
    }

    /// The same lists and votes in another space, by a plan of the same rounds.
    ///
    /// # Errors
    /// What `space` refuses.
    pub fn asked<S: Borrow<Cases> + Sync>(
        &self,
        name: &str,
        sees: &str,
        plan: &Plan,
        space: impl Fn(usize) -> Result<S> + Sync,
        done: impl Fn() + Sync,
    ) -> Result<Floor> {
        let asking = Asking {
            extra: false,
            ..self.asking
        };
        let asked: Asked = ask_all(self.cases, plan, asking, space, done)?;
        let lists: Vec<Option<f64>> = self.items.iter().map(|&item| asked.lists[item][P_AT_10]).collect();
        let shares: Vec<Vec<f64>> = self
            .items
            .iter()
            .map(|&item| asked.decided(item, self.cases.classes.len()))
            .collect();
        Ok(self.figures(name, sees, &shares, Some(&lists)))
    }

    fn floor(&self, name: &str, sees: &str, guess: impl Fn(usize, usize) -> Option<usize>) -> Floor {
        let mut views = vec![Vec::new(); self.cases.items.len()];
        for round in &self.plan.rounds {
            round.test.iter().for_each(|&item| views[item].push(round.view));
        }
        let shares = |&item: &usize| {
            let answers: Vec<Answer> = (views[item].iter())
                .map(|&view| Answer {
                    weights: vec![],
                    class: guess(item, view),
                    neighbors: vec![],
                })
                .collect();
            decided(answers.iter(), self.cases.classes.len())
        };
        self.figures(name, sees, &self.items.iter().map(shares).collect::<Vec<_>>(), None)
    }

    fn figures(&self, name: &str, sees: &str, shares: &[Vec<f64>], lists: Option<&[Option<f64>]>) -> Floor {
        let decided = Decided {
            cases: self.cases,
            items: self.items,
            shares,
            resamples: self.resamples,
        };
        Floor {
            name: name.into(),
            sees: sees.into(),
            figures: Available::Yes(decided.floor(self.ours, lists)),
        }
    }

    /// The most frequent class of each view. The query's own group counts too: of two classes of one size the other one would always be the larger.
    fn each_view(&self) -> Vec<Option<usize>> {
        (0..self.plan.views.len())
            .map(|view| most(&self.counts(view, |_| true)))
            .collect()
    }

    /// Images of each class in a view, among those that `wanted` names.
    fn counts(&self, view: usize, wanted: impl Fn(&Case) -> bool) -> Vec<usize> {
        let view = &self.plan.views[view];
        let mut counts = vec![0; self.cases.classes.len()];
        for (at, case) in self.cases.items.iter().enumerate() {
            if case.indexed && view.shows(at) && wanted(case) {
                counts[case.class] += 1;
            }
        }
        counts
    }
}

/// Images drawn, among which there are enough of other patients.
const DRAWN_MAX: usize = 2000;
/// Draws for each query.
const DRAWS: usize = 20;
const THUMBNAIL: &str = "32×32 grey thumbnail";
const THUMBNAIL_SEES: &str = "32×32 grey values: the outline, the exposure, no findings";

fn most(counts: &[usize]) -> Option<usize> {
    let most = counts.iter().copied().max().filter(|&most| most > 0)?;
    counts.iter().position(|&count| count == most)
}
