//! How good a ranking is, without any vote: precision and average precision as the literature defines them. Pure.
//!
//! A ranking is given as `relevant[rank]`: whether the image at that rank has the query's class.

/// Share of the first `k` that are relevant, of as many as there are.
///
/// `None` for an empty ranking: it is not asked, rather than wrong.
pub fn precision_at(relevant: &[bool], k: usize) -> Option<f64> {
    let first = &relevant[..k.min(relevant.len())];
    (!first.is_empty()).then(|| count(first) as f64 / first.len() as f64)
}

/// Average precision of the whole ranking: the mean of the precision at each relevant image (Manning, Raghavan, Schütze: Introduction to
/// Information Retrieval, 8.4). `None` when nothing relevant can be found.
pub fn average_precision(relevant: &[bool]) -> Option<f64> {
    let all = count(relevant);
    (all > 0).then(|| precisions(relevant) / all as f64)
}

/// Average precision of the first `k` over the relevant images that could be among them: `min(k, all relevant)`. A list that misses images
/// which exist pays for it.
pub fn average_precision_at(relevant: &[bool], k: usize) -> Option<f64> {
    let reachable = count(relevant).min(k);
    (reachable > 0).then(|| precisions(&relevant[..k.min(relevant.len())]) / reachable as f64)
}

/// Average precision of the first `k` over the relevant images found among them, as `ap_k` of Mahbod et al. (EAAI 150:110571, 2025): one hit at
/// rank 1 and nothing else is 1.0. 0 when none is found; `None` for an empty ranking.
pub fn average_precision_of_found_at(relevant: &[bool], k: usize) -> Option<f64> {
    let first = &relevant[..k.min(relevant.len())];
    match (first.len(), count(first)) {
        (0, _) => None,
        (_, 0) => Some(0.0),
        (_, found) => Some(precisions(first) / found as f64),
    }
}

/// Whether most of the first `k` are relevant: more than half of them, as mMV@k of Mahbod et al. counts a query.
pub fn majority_at(relevant: &[bool], k: usize) -> Option<bool> {
    let first = &relevant[..k.min(relevant.len())];
    (!first.is_empty()).then(|| 2 * count(first) > first.len())
}

fn count(relevant: &[bool]) -> usize {
    relevant.iter().filter(|&&hit| hit).count()
}

/// Sum of the precision at each relevant rank.
fn precisions(relevant: &[bool]) -> f64 {
    let mut found = 0usize;
    (1usize..)
        .zip(relevant)
        .filter(|&(_, &hit)| hit)
        .map(|(rank, _)| {
            found += 1;
            found as f64 / rank as f64
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_two_definitions_of_the_literature_differ() {
        let list = [true, false, true, false, false, true];
        assert_eq!(precision_at(&list, 5), Some(0.4));
        // 1/1, 2/3, 3/6 over three relevant ones.
        assert_eq!(average_precision(&list), Some((1.0 + 2.0 / 3.0 + 0.5) / 3.0));
        assert_eq!(average_precision_at(&list, 5), Some((1.0 + 2.0 / 3.0) / 3.0));
        assert_eq!(average_precision_of_found_at(&list, 5), Some((1.0 + 2.0 / 3.0) / 2.0));
        assert_eq!(majority_at(&list, 5), Some(false));
        assert_eq!(majority_at(&list, 3), Some(true));
        assert_eq!(majority_at(&list, 2), Some(false));
    }

    #[test]
    fn what_can_not_be_answered_is_not_a_number() {
        assert_eq!(precision_at(&[], 5), None);
        assert_eq!(average_precision(&[false, false]), None);
        assert_eq!(average_precision_at(&[false], 5), None);
        assert_eq!(average_precision_of_found_at(&[false], 5), Some(0.0));
        assert_eq!(majority_at(&[], 5), None);
    }

    proptest! {
        #[test]
        fn all_of_them_are_shares_and_perfect_lists_are_perfect(
            list in prop::collection::vec(any::<bool>(), 1..50), k in 1usize..60
        ) {
            let scores = [
                precision_at(&list, k),
                average_precision(&list),
                average_precision_at(&list, k),
                average_precision_of_found_at(&list, k),
            ];
            prop_assert!(scores.iter().flatten().all(|score| (0.0..=1.0).contains(score)));
            let mut sorted = list.clone();
            sorted.sort_by_key(|&hit| !hit);
            prop_assert!(average_precision(&sorted).is_none_or(|score| (score - 1.0).abs() < 1e-12));
            prop_assert!(average_precision(&sorted) >= average_precision(&list));
            // The whole list as k: the same as no k.
            let whole = average_precision_at(&list, list.len());
            prop_assert_eq!(whole, average_precision(&list));
        }
    }
}
