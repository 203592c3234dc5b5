//! Who may be found by whom: the archive as a query sees it, one view at a time. Pure.

use super::cases::Cases;
use super::split::folds;

/// How queries and archive are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Each image is asked about among all others but those of its group.
    LeaveGroupOut,
    /// So many parts, groups whole: each part is asked about among the others.
    Folds(usize),
}

/// Parts of the images that are calibrated with, and rounds where the split itself has none.
pub const PARTS: usize = 5;

/// One archive to be asked: all of it, or all but a fold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Images that can't be found in it, item by item; empty: none.
    hidden: Vec<bool>,
    /// Index into [`Plan::fits`]: what it is asked by.
    pub fit: usize,
}

impl View {
    /// Whether an image can be found in it, by anyone.
    pub fn shows(&self, item: usize) -> bool {
        self.hidden.get(item).is_none_or(|hidden| !hidden)
    }
}

/// What is learned before it is asked, if anything is: from these images and no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// Images that nothing is learned from, item by item; empty: none.
    kept_out: Vec<bool>,
    /// The fit whose training set decides between settings: itself, or for a part the one with the part.
    pub chosen_by: usize,
}

impl Fit {
    /// Whether it learns from an image, if that is in the archive at all.
    pub fn learns_from(&self, item: usize) -> bool {
        self.kept_out.get(item).is_none_or(|out| !out)
    }
}

/// Images whose answers are looked at, and those whose answers they are calibrated with. No group is in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Number of the seed.
    pub seed: usize,
    /// Index of the view that all of them are asked in.
    pub view: usize,
    /// Items that are asked about.
    pub test: Vec<usize>,
    /// Items that are calibrated with, each with its part of [`PARTS`], groups whole: what is fitted without a part is judged on it.
    pub calibration: Vec<(usize, usize)>,
    /// Index of the view that each part is asked in, where something is learned: the same archive, by what is learned without the part.
    part_views: Vec<usize>,
}

impl Round {
    /// Index of the view that an item of a part is calibrated in.
    pub fn calibration_view(&self, part: usize) -> usize {
        self.part_views.get(part).copied().unwrap_or(self.view)
    }
}

/// Views and rounds of all seeds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Every archive that is asked.
    pub views: Vec<View>,
    /// Every image that is asked about is tested in exactly one round of each seed.
    pub rounds: Vec<Round>,
    /// What is learned for the views; a single one from everything where nothing is.
    pub fits: Vec<Fit>,
}

/// The plan of a split, with seeds 0 to `seeds` - 1. With `learning` each round has a fit of its own, that has seen neither its tests nor their groups.
pub fn plan(cases: &Cases, split: Split, seeds: usize, learning: bool) -> Plan {
    let groups: Vec<usize> = cases.items.iter().map(|case| case.group).collect();
    let classes: Vec<usize> = cases.items.iter().map(|case| case.class).collect();
    let apart = cases.items.iter().any(|case| case.asked != case.indexed);
    let mut plan = Plan::default();
    if !learning {
        plan.learn(vec![], None);
    }
    let parts = match split {
        Split::LeaveGroupOut => PARTS,
        Split::Folds(parts) => parts,
    };
    // Where nothing is learned all rounds ask the whole archive alike.
    let whole = (!learning && (apart || split == Split::LeaveGroupOut)).then(|| plan.view(vec![], 0));
    for seed in 0..seeds.max(1) {
        if apart {
            // The queries are a set of their own: what calibrates is the archive, but for the groups of the queries.
            let asked: std::collections::BTreeSet<usize> = cases.asked().map(|item| groups[item]).collect();
            let tested: Vec<bool> = groups.iter().map(|group| asked.contains(group)).collect();
            let calibration = |item: &usize| cases.items[*item].indexed && !tested[*item];
            let calibration = in_parts(cases, (0..groups.len()).filter(calibration).collect(), seed);
            plan.round(seed, cases.asked().collect(), calibration, whole, vec![], tested);
            continue;
        }
        let fold_of = folds(&groups, &classes, parts, seed as u64);
        for fold in 0..parts {
            let tested: Vec<bool> = fold_of.iter().map(|&of| of == fold).collect();
            let (test, others): (Vec<usize>, Vec<usize>) = (0..groups.len()).partition(|&item| tested[item]);
            let hidden = match split {
                Split::LeaveGroupOut => vec![],
                Split::Folds(_) => tested.clone(),
            };
            plan.round(seed, test, in_parts(cases, others, seed), whole, hidden, tested);
        }
    }
    plan
}

impl Plan {
    /// Adds a round over the archive without `hidden`, in the view `whole` if that is there; if nothing has been learned from everything, then by
    /// what is learned without `tested`.
    fn round(
        &mut self,
        seed: usize,
        test: Vec<usize>,
        calibration: Vec<(usize, usize)>,
        whole: Option<usize>,
        hidden: Vec<bool>,
        tested: Vec<bool>,
    ) {
        let mut part_views = Vec::new();
        let view = match whole {
            Some(whole) => whole,
            None if self.learns_nothing() => self.view(hidden, 0),
            None => {
                let fit = self.learn(tested.clone(), None);
                for part in 0..PARTS {
                    let mut kept_out = tested.clone();
                    (calibration.iter().filter(|&&(_, of)| of == part)).for_each(|&(item, _)| kept_out[item] = true);
                    let without = self.learn(kept_out, Some(fit));
                    part_views.push(self.view(hidden.clone(), without));
                }
                self.view(hidden, fit)
            }
        };
        self.rounds.push(Round {
            seed,
            view,
            test,
            calibration,
            part_views,
        });
    }

    fn view(&mut self, hidden: Vec<bool>, fit: usize) -> usize {
        self.views.push(View { hidden, fit });
        self.views.len() - 1
    }

    fn learn(&mut self, kept_out: Vec<bool>, chosen_by: Option<usize>) -> usize {
        let own = self.fits.len();
        self.fits.push(Fit {
            kept_out,
            chosen_by: chosen_by.unwrap_or(own),
        });
        own
    }

    fn learns_nothing(&self) -> bool {
        matches!(&self.fits[..], [all] if all.kept_out.is_empty())
    }
}

/// Items with their parts, groups whole.
fn in_parts(cases: &Cases, items: Vec<usize>, seed: usize) -> Vec<(usize, usize)> {
    let groups: Vec<usize> = items.iter().map(|&item| cases.items[item].group).collect();
    let classes: Vec<usize> = items.iter().map(|&item| cases.items[item].class).collect();
    let parts = folds(&groups, &classes, PARTS, seed as u64);
    items.into_iter().zip(parts).collect()
}

#[cfg(test)]
mod tests {
    use super::super::cases::tests::cases;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_image_is_tested_once_a_seed_and_never_calibrated_with_its_group(
            items in prop::collection::vec((0usize..3, 0u8..8), 12..60), parts in 2usize..6, seeds in 1usize..3, folded in any::<bool>(), learning in any::<bool>()
        ) {
            let items: Vec<_> = items.into_iter().map(|(class, patient)| (class, patient, 0, vec![1.0, 0.0])).collect();
            let cases = cases(&items);
            let split = if folded { Split::Folds(parts) } else { Split::LeaveGroupOut };
            let plan = plan(&cases, split, seeds, learning);
            for seed in 0..seeds {
                let mut tested = vec![0; items.len()];
                for round in plan.rounds.iter().filter(|round| round.seed == seed) {
                    for &item in &round.test {
                        tested[item] += 1;
                        let group = cases.items[item].group;
                        prop_assert!(round.calibration.iter().all(|&(other, _)| cases.items[other].group != group));
                        let members = || (0..items.len()).filter(|&other| cases.items[other].group == group);
                        let fit = &plan.fits[plan.views[round.view].fit];
                        prop_assert!(members().all(|other| fit.learns_from(other) != learning));
                        if folded {
                            prop_assert!(members().all(|other| !plan.views[round.view].shows(other)));
                        }
                    }
                    for &(item, part) in &round.calibration {
                        let view = &plan.views[round.calibration_view(part)];
                        prop_assert_eq!(&view.hidden, &plan.views[round.view].hidden);
                        let fit = &plan.fits[view.fit];
                        let group = cases.items[item].group;
                        let mut members = (0..items.len()).filter(|&other| cases.items[other].group == group);
                        prop_assert!(members.all(|other| fit.learns_from(other) != learning));
                        prop_assert!(!learning || fit.chosen_by == plan.views[round.view].fit);
                    }
                }
                prop_assert!(tested.iter().all(|&times| times == 1));
            }
        }
    }
}
