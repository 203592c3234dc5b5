//! How well a score tells two kinds apart: AUROC, the false positives at a true positive rate, risk against coverage. Pure.

/// Area under the ROC curve: the share of pairs in which the positive scores higher, ties as half (Hanley, McNeil 1982). `None` without both kinds.
pub fn auroc(positives: &[f64], negatives: &[f64]) -> Option<f64> {
    if positives.is_empty() || negatives.is_empty() {
        return None;
    }
    let mut sorted = negatives.to_vec();
    sorted.sort_by(f64::total_cmp);
    let wins: f64 = positives
        .iter()
        .map(|score| {
            let below = sorted.partition_point(|other| other < score);
            let up_to = sorted.partition_point(|other| other <= score);
            below as f64 + (up_to - below) as f64 / 2.0
        })
        .sum();
    Some(wins / (positives.len() * negatives.len()) as f64)
}

/// Share of the negatives at or above the threshold that keeps a share of `rate` of the positives. `None` without both kinds.
pub fn false_positives_at(positives: &[f64], negatives: &[f64], rate: f64) -> Option<f64> {
    let mut sorted = positives.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let kept = (sorted.len() as f64 * rate).ceil().max(1.0) as usize;
    let threshold = sorted.get(kept - 1)?;
    let above = negatives.iter().filter(|score| *score >= threshold).count();
    (!negatives.is_empty()).then(|| above as f64 / negatives.len() as f64)
}

/// Accuracy of the most confident `share` of the answers (confidence, right). `None` without answers.
pub fn selective_accuracy(answers: &[(f64, bool)], share: f64) -> Option<f64> {
    let mut sorted = answers.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let kept = (sorted.len() as f64 * share).ceil() as usize;
    let kept = sorted.get(..kept.min(sorted.len())).filter(|kept| !kept.is_empty())?;
    Some(kept.iter().filter(|answer| answer.1).count() as f64 / kept.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn by_hand() {
        assert_eq!(auroc(&[3.0, 2.0], &[1.0, 2.0]), Some((2.0 + 1.5) / 4.0));
        assert_eq!(auroc(&[], &[1.0]), None);
        assert_eq!(
            false_positives_at(&[4.0, 3.0, 2.0, 1.0], &[3.5, 2.5, 0.0, 0.5], 0.75),
            Some(0.5)
        );
        assert_eq!(
            selective_accuracy(&[(0.9, true), (0.5, false), (0.8, true), (0.6, false)], 0.5),
            Some(1.0)
        );
        assert_eq!(selective_accuracy(&[], 0.5), None);
    }

    proptest! {
        #[test]
        fn auroc_is_the_share_of_won_pairs(
            positives in prop::collection::vec(0u8..10, 1..30), negatives in prop::collection::vec(0u8..10, 1..30)
        ) {
            let floats = |values: &[u8]| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
            let mut won = 0.0;
            for p in &positives {
                for n in &negatives {
                    won += match p.cmp(n) { std::cmp::Ordering::Greater => 1.0, std::cmp::Ordering::Equal => 0.5, std::cmp::Ordering::Less => 0.0 };
                }
            }
            let wanted = won / (positives.len() * negatives.len()) as f64;
            let found = auroc(&floats(&positives), &floats(&negatives)).unwrap();
            prop_assert!((found - wanted).abs() < 1e-9);
        }
    }
}
