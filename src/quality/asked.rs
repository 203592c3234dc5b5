//! All images asked about, in all views: the one pass over the vectors that everything else is made of.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::ask::{Answer, Voter};
use super::cases::{Case, Cases, studies};
use super::retrieval::{
    average_precision, average_precision_at, average_precision_of_found_at, majority_at, precision_at,
};
use super::views::Plan;
use crate::domain::VoteMethod;
use crate::error::Result;

/// Name and definition of each figure of a list, in the order of [`list_figures`].
pub const LIST_FIGURES: [(&str, &str); 7] = [
    ("P@1", "share of queries whose nearest image is of their class"),
    ("P@5", "share of the nearest 5 that are of the query's class"),
    ("P@10", "share of the nearest 10 that are of the query's class"),
    (
        "mAP",
        "average precision of the whole ranking (Manning, Raghavan, Schütze, 8.4)",
    ),
    (
        "mAP@5, of all",
        "average precision of the first 5 over the relevant images that could be among them",
    ),
    (
        "mAP@5, of found",
        "average precision of the first 5 over the relevant images found among them, as Mahbod et al. 2025 count",
    ),
    (
        "mMV@5",
        "share of queries with more than half of the first 5 of their class, as Mahbod et al. 2025 count",
    ),
];

/// Position of `P@10` in [`LIST_FIGURES`].
pub const P_AT_10: usize = 2;

/// Each figure of one list: relevance by rank, one image per patient and picture.
pub fn list_figures(relevant: &[bool]) -> [Option<f64>; LIST_FIGURES.len()] {
    [
        precision_at(relevant, 1),
        precision_at(relevant, 5),
        precision_at(relevant, 10),
        average_precision(relevant),
        average_precision_at(relevant, 5),
        average_precision_of_found_at(relevant, 5),
        majority_at(relevant, 5).map(f64::from),
    ]
}

/// Another rule of who may be found, tried in the whole archive beside the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// All but the query's group: the same as leave-one-group-out.
    Guarded,
    /// Also other images of the same patient.
    WithSamePatient,
    /// Also copies of the same picture.
    WithCopies,
    /// Everything but the very image.
    WithBoth,
    /// Guarded, and every copy of a picture votes, unless it is of a patient who has voted.
    EachCopy,
    /// Guarded, and of the query's source.
    SameSource,
    /// Guarded, and of any other source.
    OtherSource,
}

impl Rule {
    /// All of them, in the order of [`Asked::extra`].
    pub const ALL: [Self; 7] = [
        Self::Guarded,
        Self::WithSamePatient,
        Self::WithCopies,
        Self::WithBoth,
        Self::EachCopy,
        Self::SameSource,
        Self::OtherSource,
    ];

    fn lets(self, query: &Case, found: &Case) -> bool {
        let itself = query.record.id == found.record.id || query.record.file_key == found.record.file_key;
        let same_study = || studies(&query.record).any(|own| studies(&found.record).any(|other| own == other));
        let same_patient = query.patient.is_some() && query.patient == found.patient || same_study();
        let same_picture = query.picture == found.picture;
        let guarded = query.group != found.group;
        let known = query.source.is_some() && found.source.is_some();
        match self {
            Self::Guarded | Self::EachCopy => guarded,
            Self::WithSamePatient => guarded || !itself && !same_picture,
            Self::WithCopies => guarded || !itself && !same_patient,
            Self::WithBoth => !itself,
            Self::SameSource => guarded && known && query.source == found.source,
            Self::OtherSource => guarded && known && query.source != found.source,
        }
    }
}

/// What all images got.
pub struct Asked {
    /// The answers of each item in the views that test it or calibrate with it. Only those of the first view that tests it keep their neighbors.
    pub answers: Vec<BTreeMap<usize, Answer>>,
    /// Figures of each item's lists, the mean over the views that test it; of images that are asked about.
    pub lists: Vec<[Option<f64>; LIST_FIGURES.len()]>,
    /// Answers by other rules in the whole archive: of each image those of every fit that tests it, seed by seed, each in the order of [`Rule::ALL`].
    /// None for an image that is not asked about. Weights are not kept, nor neighbors but the nearest where the rule is not [`Rule::Guarded`].
    pub extra: Vec<Vec<Vec<Answer>>>,
    /// Views that test an item, seed by seed.
    pub test_views: Vec<Vec<usize>>,
}

/// How the pass asks.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    /// How many neighbors vote.
    pub k: usize,
    /// How they are weighed.
    pub method: VoteMethod,
    /// Whether other rules are tried too, and the images asked about that are calibrated with.
    pub extra: bool,
}

/// How often [`ask_all`] will call `done`.
pub fn asks(plan: &Plan, extra: bool) -> usize {
    wanted(plan, extra).iter().map(BTreeMap::len).sum()
}

/// Of each fit: the items that are asked about by it, each with its views.
fn wanted(plan: &Plan, extra: bool) -> Vec<BTreeMap<usize, BTreeSet<usize>>> {
    let mut wanted = vec![BTreeMap::<usize, BTreeSet<usize>>::new(); plan.fits.len()];
    let mut want = |item: usize, view: usize| {
        wanted[plan.views[view].fit].entry(item).or_default().insert(view);
    };
    for round in &plan.rounds {
        round.test.iter().for_each(|&item| want(item, round.view));
        if extra {
            let calibration = round.calibration.iter();
            calibration.for_each(|&(item, part)| want(item, round.calibration_view(part)));
        }
    }
    wanted
}

/// Asks about every image in every view that tests it or calibrates with it. `space` gives all images in the space of a fit; `done` is called once
/// for each of [`asks`].
///
/// # Errors
/// What `space` refuses.
pub fn ask_all<S: Borrow<Cases> + Sync>(
    cases: &Cases,
    plan: &Plan,
    asking: Asking,
    space: impl Fn(usize) -> Result<S> + Sync,
    done: impl Fn() + Sync,
) -> Result<Asked> {
    let mut test_views = vec![Vec::new(); cases.items.len()];
    for round in &plan.rounds {
        for &item in &round.test {
            test_views[item].push(round.view);
        }
    }
    let voter = Voter {
        cases,
        k: asking.k,
        method: asking.method,
    };
    let one = |space: &Cases, item: usize, views: &BTreeSet<usize>| {
        let ranked = space.ranked(space.vector(item));
        let query = &cases.items[item];
        let first_test = test_views[item].first().copied();
        let mut heard = Heard::default();
        for &at in views {
            let view = &plan.views[at];
            let may = |found: &Case, at: usize| found.group != query.group && view.shows(at);
            let mut answer = voter.answer(&ranked, may);
            if first_test != Some(at) {
                answer.neighbors = Vec::new();
            }
            heard.answers.push((at, answer));
            if query.asked && test_views[item].contains(&at) {
                heard.lists.push(list_figures(&relevant(cases, query, &ranked, may)));
            }
        }
        if asking.extra && query.asked && test_views[item].iter().any(|view| views.contains(view)) {
            let by_rule = |rule: &Rule| {
                let may = |found: &Case, _| rule.lets(query, found);
                let mut answer = match rule {
                    Rule::EachCopy => voter.answer_of_each_copy(&ranked, may),
                    _ => voter.answer(&ranked, may),
                };
                answer.weights = Vec::new();
                if *rule != Rule::Guarded {
                    answer.neighbors.truncate(1);
                    answer.neighbors.shrink_to_fit();
                }
                answer
            };
            heard.extra = Rule::ALL.iter().map(by_rule).collect();
        }
        done();
        (item, heard)
    };
    let of_fit = |(fit, wanted): (usize, &BTreeMap<usize, BTreeSet<usize>>)| -> Result<Vec<(usize, Heard)>> {
        let space = space(fit)?;
        let space = space.borrow();
        Ok(wanted
            .par_iter()
            .map(|(&item, views)| one(space, item, views))
            .collect())
    };
    let wanted = wanted(plan, asking.extra);
    let heard: Vec<_> = wanted.par_iter().enumerate().map(of_fit).collect::<Result<_>>()?;
    let mut lists = vec![Vec::new(); cases.items.len()];
    let mut asked = Asked {
        answers: vec![BTreeMap::new(); cases.items.len()],
        lists: Vec::new(),
        extra: vec![Vec::new(); cases.items.len()],
        test_views,
    };
    for (item, heard) in heard.into_iter().flatten() {
        asked.answers[item].extend(heard.answers);
        lists[item].extend(heard.lists);
        if !heard.extra.is_empty() {
            // Fits come in the order of the seeds.
            asked.extra[item].push(heard.extra);
        }
    }
    asked.lists = lists.iter().map(|lists| mean_lists(lists)).collect();
    Ok(asked)
}

/// What one item got by one fit.
#[derive(Default)]
struct Heard {
    answers: Vec<(usize, Answer)>,
    lists: Vec<[Option<f64>; LIST_FIGURES.len()]>,
    extra: Vec<Answer>,
}

impl Asked {
    /// The answers to an item in the views that test it, seed by seed.
    pub fn tests(&self, item: usize) -> impl Iterator<Item = &Answer> {
        self.test_views[item].iter().map(move |view| &self.answers[item][view])
    }

    /// The answers to an item by another rule, one of each fit that tests it.
    pub fn by_rule(&self, item: usize, rule: Rule) -> impl Iterator<Item = &Answer> {
        let at = Rule::ALL.iter().position(|&other| other == rule);
        self.extra[item].iter().filter_map(move |answers| answers.get(at?))
    }

    /// The share of seeds in which each class was suggested for an item; the last one: none.
    pub fn decided(&self, item: usize, classes: usize) -> Vec<f64> {
        decided(self.tests(item), classes)
    }
}

/// The share of answers that suggest each class; the last one: none.
pub fn decided<'a>(answers: impl Iterator<Item = &'a Answer>, classes: usize) -> Vec<f64> {
    let (mut shares, mut count) = (vec![0.0; classes + 1], 0usize);
    for answer in answers {
        shares[answer.class.unwrap_or(classes)] += 1.0;
        count += 1;
    }
    shares.iter_mut().for_each(|share| *share /= count.max(1) as f64);
    shares
}

/// Whether each image of the list is of the query's class: one per patient and picture.
fn relevant(cases: &Cases, query: &Case, ranked: &[(f32, u32)], may: impl Fn(&Case, usize) -> bool) -> Vec<bool> {
    let mut seen = std::collections::HashSet::new();
    let found = ranked.iter().map(|&(_, at)| (&cases.items[at as usize], at as usize));
    found
        .filter(|&(case, at)| may(case, at) && seen.insert(case.stands_for))
        .map(|(case, _)| case.class == query.class)
        .collect()
}

fn mean_lists(lists: &[[Option<f64>; LIST_FIGURES.len()]]) -> [Option<f64>; LIST_FIGURES.len()] {
    std::array::from_fn(|figure| {
        let known: Vec<f64> = lists.iter().filter_map(|list| list[figure]).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    })
}

#[cfg(test)]
mod tests {
    use super::super::cases::tests::cases;
    use super::super::views::{Split, plan};
    use super::*;

    #[test]
    fn same_patients_make_it_look_better_than_it_is() {
        // Every image has a twin of its patient, and beyond that its nearest are of the other class.
        let mut items = Vec::new();
        for patient in 1..=12u8 {
            let angle = f32::from(patient) * 0.1;
            for shift in [0.0, 0.001] {
                items.push((
                    usize::from(patient % 2),
                    patient,
                    0,
                    vec![(angle + shift).cos(), (angle + shift).sin()],
                ));
            }
        }
        let cases = cases(&items);
        let plan = plan(&cases, Split::LeaveGroupOut, 1, false);
        let asking = Asking {
            k: 1,
            method: VoteMethod::Majority,
            extra: true,
        };
        let asked = ask_all(&cases, &plan, asking, |_| Ok(&cases), || {}).unwrap();
        for item in 0..cases.items.len() {
            let right = |rule: Rule| {
                let at = Rule::ALL.iter().position(|&other| other == rule).unwrap();
                asked.extra[item][0][at].class == Some(cases.items[item].class)
            };
            assert!(right(Rule::WithSamePatient) && right(Rule::WithBoth));
            assert!(!right(Rule::Guarded) && !right(Rule::WithCopies));
            assert_eq!(
                asked.extra[item][0][0].neighbors, asked.answers[item][&0].neighbors,
                "leave one group out is the guarded rule"
            );
            assert_eq!(asked.lists[item][0], Some(0.0));
        }
    }

    #[test]
    fn other_rules_are_tried_by_what_each_seed_has_learned() {
        let items: Vec<_> = (0..12u8)
            .map(|patient| {
                let angle = f32::from(patient) * 0.1;
                (usize::from(patient % 2), patient + 1, 0, vec![angle.cos(), angle.sin()])
            })
            .collect();
        let cases = cases(&items);
        let asking = Asking {
            k: 3,
            method: VoteMethod::Majority,
            extra: true,
        };
        for (learning, fits) in [(true, 2), (false, 1)] {
            let plan = plan(&cases, Split::Folds(3), 2, learning);
            let asked = ask_all(&cases, &plan, asking, |_| Ok(&cases), || {}).unwrap();
            for item in 0..cases.items.len() {
                let kept = |rule| asked.by_rule(item, rule).map(|answer| answer.neighbors.len());
                assert_eq!(kept(Rule::Guarded).collect::<Vec<_>>(), [3, 3][..fits]);
                assert_eq!(kept(Rule::WithBoth).collect::<Vec<_>>(), [1, 1][..fits]);
            }
        }
    }
}
