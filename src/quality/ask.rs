//! One image asked about: which of those that may be found are nearest, and how they vote. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cases::{Case, Cases};
use crate::domain::{ClassLabel, Group, Hit, Ranking, VoteMethod};
use crate::search::vote::vote;

/// What one image got.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The vote's weight of every class.
    pub weights: Vec<f64>,
    /// The class that is suggested.
    pub class: Option<usize>,
    /// The neighbors that voted: similarity and item, best first, one per patient and picture.
    pub neighbors: Vec<(f32, u32)>,
}

impl Answer {
    /// Shares of the vote; all the same when nobody voted.
    pub fn shares(&self) -> Vec<f64> {
        let total: f64 = self.weights.iter().sum();
        let share = |weight: &f64| match total > 0.0 {
            true => weight / total,
            false => 1.0 / self.weights.len() as f64,
        };
        self.weights.iter().map(share).collect()
    }
}

/// The vote as the product takes it.
#[derive(Debug, Clone, Copy)]
pub struct Voter<'a> {
    /// Everyone.
    pub cases: &'a Cases,
    /// How many neighbors vote.
    pub k: usize,
    /// How they are weighed.
    pub method: VoteMethod,
}

impl Voter<'_> {
    /// Lets the best of `ranked` vote that `may` be found.
    pub fn answer(&self, ranked: &[(f32, u32)], may: impl Fn(&Case, usize) -> bool) -> Answer {
        self.answer_of(ranked, may, |case| case.stands_for)
    }

    /// The same, every copy of a picture with a vote of its own unless it is of a patient who has voted.
    pub fn answer_of_each_copy(&self, ranked: &[(f32, u32)], may: impl Fn(&Case, usize) -> bool) -> Answer {
        self.answer_of(ranked, may, |case| Group::of(&case.record))
    }

    fn answer_of(
        &self,
        ranked: &[(f32, u32)],
        may: impl Fn(&Case, usize) -> bool,
        group: impl Fn(&Case) -> Group,
    ) -> Answer {
        let allowed = |&&(_, at): &&(f32, u32)| may(&self.cases.items[at as usize], at as usize);
        let mut groups = BTreeSet::new();
        let (mut hits, mut neighbors) = (Vec::with_capacity(self.k), Vec::with_capacity(self.k));
        for &(similarity, at) in ranked.iter().filter(allowed) {
            let case = &self.cases.items[at as usize];
            if groups.insert(group(case)) {
                hits.push(Hit::alone(similarity, Arc::clone(&case.record), true));
                neighbors.push((similarity, at));
                if hits.len() == self.k {
                    break;
                }
            }
        }
        let verdict = vote(&self.ranking(hits, ranked.iter().filter(allowed)), self.method, self.k);
        let index = |class: &ClassLabel| self.cases.classes.binary_search(class).ok();
        let mut weights = vec![0.0; self.cases.classes.len()];
        for (class, weight) in &verdict.weights {
            if let Some(at) = index(class) {
                weights[at] = *weight;
            }
        }
        Answer {
            weights,
            class: verdict.class.as_ref().and_then(index),
            neighbors,
        }
    }

    /// Only a vote by rarity asks how many there are of a class.
    fn ranking<'r>(&self, hits: Vec<Hit>, allowed: impl Iterator<Item = &'r (f32, u32)>) -> Ranking {
        let mut eligible = BTreeMap::new();
        if self.method == VoteMethod::Prior {
            let mut counts = vec![0; self.cases.classes.len()];
            allowed.for_each(|&(_, at)| counts[self.cases.items[at as usize].class] += 1);
            eligible = self.cases.classes.iter().cloned().zip(counts).collect();
        }
        Ranking {
            hits,
            eligible,
            ..Ranking::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases::tests::cases;
    use super::*;

    #[test]
    fn one_vote_per_patient_among_those_that_may_be_found() {
        let cases = cases(&[
            (0, 1, 0, vec![1.0, 0.0]),
            (0, 1, 0, vec![0.9, 0.1]),
            (0, 1, 0, vec![0.8, 0.1]),
            (1, 2, 0, vec![0.7, 0.3]),
            (1, 3, 0, vec![0.6, 0.4]),
        ]);
        let voter = Voter {
            cases: &cases,
            k: 3,
            method: VoteMethod::Majority,
        };
        let ranked = cases.ranked(cases.vector(0));
        let answer = voter.answer(&ranked, |_, _| true);
        assert_eq!(answer.neighbors.iter().map(|hit| hit.1).collect::<Vec<_>>(), [0, 3, 4]);
        assert_eq!((answer.class, &answer.weights[..]), (Some(1), &[1.0, 2.0][..]));
        let answer = voter.answer(&ranked, |case, _| case.class == 0);
        assert_eq!((answer.class, answer.shares()), (Some(0), vec![1.0, 0.0]));
        let nobody = voter.answer(&ranked, |_, _| false);
        assert_eq!((nobody.class, nobody.shares()), (None, vec![0.5, 0.5]));
    }

    #[test]
    fn rarity_counts_those_that_may_be_found() {
        let mut items = vec![(0, 0, 0, vec![1.0, 0.0]), (1, 0, 0, vec![0.99, 0.1])];
        items.extend((0..8).map(|_| (0, 0, 0, vec![0.0, 1.0])));
        let cases = cases(&items);
        let voter = Voter {
            cases: &cases,
            k: 2,
            method: VoteMethod::Prior,
        };
        let ranked = cases.ranked(&[1.0, 0.0]);
        assert_eq!(voter.answer(&ranked, |_, _| true).class, Some(1));
        assert_eq!(voter.answer(&ranked, |_, at| at < 2).class, Some(0));
    }
}
