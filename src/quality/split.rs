//! Who is asked about whom: folds that keep a group (a patient, a cluster of duplicates) together. Pure.

use std::collections::BTreeMap;

use super::random::Random;

/// A fold for every image: images of one group share one, every class is spread as evenly as its groups allow.
///
/// Groups are dealt out largest first, each to the fold that has the fewest images of the group's classes so far; the order of equal ones is
/// drawn with `seed`. `groups[i]` and `classes[i]` belong to image i. Folds without an image happen when there are fewer groups than folds.
pub fn folds(groups: &[usize], classes: &[usize], folds: usize, seed: u64) -> Vec<usize> {
    let folds = folds.max(1);
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (image, &group) in groups.iter().enumerate() {
        members.entry(group).or_default().push(image);
    }
    let mut order: Vec<&Vec<usize>> = members.values().collect();
    Random::new(seed).shuffle(&mut order);
    order.sort_by_key(|images| std::cmp::Reverse(images.len()));

    let class_count = classes.iter().max().map_or(0, |last| last + 1);
    let mut of_class = vec![0usize; class_count];
    for &class in classes {
        of_class[class] += 1;
    }
    let mut filled = vec![vec![0usize; class_count]; folds];
    let mut sizes = vec![0usize; folds];
    let mut fold_of = vec![0; groups.len()];
    for images in order {
        let mut adds = vec![0usize; class_count];
        for &image in images {
            adds[classes[image]] += 1;
        }
        // How full a fold would be in the classes that this group brings, each class weighed by its rarity.
        let load = |fold: usize| -> f64 {
            let share = |class: usize| (filled[fold][class] * adds[class]) as f64 / of_class[class] as f64;
            (0..class_count).filter(|&class| adds[class] > 0).map(share).sum()
        };
        let best = (0..folds)
            .min_by(|&a, &b| load(a).total_cmp(&load(b)).then_with(|| sizes[a].cmp(&sizes[b])))
            .unwrap_or(0);
        for &image in images {
            fold_of[image] = best;
        }
        for (class, adds) in adds.into_iter().enumerate() {
            filled[best][class] += adds;
        }
        sizes[best] += images.len();
    }
    fold_of
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Union;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn groups_stay_together_and_classes_are_spread(
            images in prop::collection::vec((0usize..40, 0usize..3), 1..200),
            count in 2usize..6,
            seed in any::<u64>(),
        ) {
            let (groups, classes): (Vec<usize>, Vec<usize>) = images.into_iter().unzip();
            let fold_of = folds(&groups, &classes, count, seed);
            prop_assert!(fold_of.iter().all(|&fold| fold < count));
            for (a, group) in groups.iter().enumerate() {
                for (b, other) in groups.iter().enumerate() {
                    prop_assert!(group != other || fold_of[a] == fold_of[b]);
                }
            }
            prop_assert_eq!(&fold_of, &folds(&groups, &classes, count, seed));
        }

        #[test]
        fn single_images_are_dealt_evenly(classes in prop::collection::vec(0usize..3, 1..200), seed in any::<u64>()) {
            let groups: Vec<usize> = (0..classes.len()).collect();
            let fold_of = folds(&groups, &classes, 5, seed);
            for class in 0..3 {
                let of_class = classes.iter().filter(|&&c| c == class).count();
                for fold in 0..5 {
                    let here = (0..classes.len()).filter(|&i| classes[i] == class && fold_of[i] == fold).count();
                    prop_assert!(here >= of_class / 5 && here <= of_class.div_ceil(5));
                }
            }
        }

        #[test]
        fn sets_are_the_closure_of_their_joins(
            count in 1usize..40,
            pairs in prop::collection::vec((0usize..40, 0usize..40), 0..60),
        ) {
            let pairs: Vec<_> = pairs.into_iter().filter(|&(a, b)| a < count && b < count).collect();
            let mut union = Union::new(count);
            pairs.iter().for_each(|&(a, b)| union.join(a, b));
            let sets = union.sets();
            // Reachability, step by step.
            let mut reach: Vec<Vec<bool>> = (0..count).map(|i| (0..count).map(|j| i == j).collect()).collect();
            for _ in 0..count {
                for &(a, b) in &pairs {
                    for row in &mut reach {
                        let both = row[a] || row[b];
                        row[a] = both;
                        row[b] = both;
                    }
                }
            }
            for a in 0..count {
                prop_assert!(sets[a] <= a && sets[sets[a]] == sets[a]);
                for b in 0..count {
                    prop_assert_eq!(sets[a] == sets[b], reach[a][b]);
                }
            }
        }
    }
}
