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
}

impl View {
    /// Whether an image can be found in it, by anyone.
    pub fn shows(&self, item: usize) -> bool {
        self.hidden.get(item).is_none_or(|hidden| !hidden)
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
}

/// Views and rounds of all seeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Every archive that is asked.
    pub views: Vec<View>,
    /// Every image that is asked about is tested in exactly one round of each seed.
    pub rounds: Vec<Round>,
}

/// The plan of a split, with seeds 0 to `seeds` - 1.
pub fn plan(cases: &Cases, split: Split, seeds: usize) -> Plan {
    let groups: Vec<usize> = cases.items.iter().map(|case| case.group).collect();
    let classes: Vec<usize> = cases.items.iter().map(|case| case.class).collect();
    let apart = cases.items.iter().any(|case| case.asked != case.indexed);
    let everything = View { hidden: vec![] };
    let mut plan = Plan {
        views: vec![],
        rounds: vec![],
    };
    let parts = match split {
        Split::LeaveGroupOut => PARTS,
        Split::Folds(parts) => parts,
    };
    if apart || split == Split::LeaveGroupOut {
        plan.views.push(everything);
    }
    for seed in 0..seeds.max(1) {
        let fold_of = folds(&groups, &classes, parts, seed as u64);
        if apart {
            // The queries are a set of their own: what calibrates is the archive, but for the groups of the queries.
            let asked: std::collections::BTreeSet<usize> = cases.asked().map(|item| groups[item]).collect();
            let calibration = |item: &usize| cases.items[*item].indexed && !asked.contains(&groups[*item]);
            plan.rounds.push(Round {
                seed,
                view: 0,
                test: cases.asked().collect(),
                calibration: in_parts(cases, (0..groups.len()).filter(calibration).collect(), seed),
            });
            continue;
        }
        for fold in 0..parts {
            let view = match split {
                Split::LeaveGroupOut => 0,
                Split::Folds(_) => {
                    let hidden = fold_of.iter().map(|&of| of == fold).collect();
                    plan.views.push(View { hidden });
                    plan.views.len() - 1
                }
            };
            let (test, others): (Vec<usize>, Vec<usize>) = (0..groups.len()).partition(|&item| fold_of[item] == fold);
            plan.rounds.push(Round {
                seed,
                view,
                test,
                calibration: in_parts(cases, others, seed),
            });
        }
    }
    plan
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
            items in prop::collection::vec((0usize..3, 0u8..8), 12..60), parts in 2usize..6, seeds in 1usize..3, folded in any::<bool>()
        ) {
            let items: Vec<_> = items.into_iter().map(|(class, patient)| (class, patient, 0, vec![1.0, 0.0])).collect();
            let cases = cases(&items);
            let split = if folded { Split::Folds(parts) } else { Split::LeaveGroupOut };
            let plan = plan(&cases, split, seeds);
            for seed in 0..seeds {
                let mut tested = vec![0; items.len()];
                for round in plan.rounds.iter().filter(|round| round.seed == seed) {
                    for &item in &round.test {
                        tested[item] += 1;
                        let group = cases.items[item].group;
                        prop_assert!(round.calibration.iter().all(|&(other, _)| cases.items[other].group != group));
                        if folded {
                            let own = (0..items.len()).filter(|&other| cases.items[other].group == group);
                            prop_assert!(own.into_iter().all(|other| !plan.views[round.view].shows(other)));
                        }
                    }
                }
                prop_assert!(tested.iter().all(|&times| times == 1));
            }
        }
    }
}
