//! How good the decisions are: the confusion matrix and everything that follows from it. Pure.

/// `counts[truth][decision]`; the last decision is "none" (inconclusive). Counts are shares of images where several seeds were tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Confusion {
    counts: Vec<Vec<f64>>,
}

/// One class against all others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OfClass {
    /// Images that are of this class.
    pub images: f64,
    /// Share of them that were decided so. No decision is no hit.
    pub sensitivity: Option<f64>,
    /// Share of the others that were not decided so.
    pub specificity: Option<f64>,
    /// Share of what was decided so that is.
    pub precision: Option<f64>,
    /// Harmonic mean of precision and sensitivity; 0 when no decision for the class was right.
    pub f1: Option<f64>,
}

impl Confusion {
    /// Nothing decided yet, over so many classes.
    pub fn new(classes: usize) -> Self {
        Self {
            counts: vec![vec![0.0; classes + 1]; classes],
        }
    }

    /// One image more, with the share of each decision, the last one "none".
    pub fn add(&mut self, truth: usize, decisions: &[f64]) {
        for (count, share) in self.counts[truth].iter_mut().zip(decisions) {
            *count += share;
        }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.counts.len()
    }

    /// All images.
    pub fn total(&self) -> f64 {
        self.counts.iter().flatten().sum()
    }

    /// The counts: rows are truth, columns decisions.
    pub fn into_counts(self) -> Vec<Vec<f64>> {
        self.counts
    }

    /// Share of all images whose class was decided rightly.
    pub fn accuracy(&self) -> Option<f64> {
        let right = (0..self.classes()).map(|class| self.counts[class][class]).sum();
        share(right, self.total())
    }

    /// Share of all images for which nothing was decided.
    pub fn undecided(&self) -> Option<f64> {
        share(self.counts.iter().map(|row| row[self.classes()]).sum(), self.total())
    }

    /// One class against all others.
    pub fn of_class(&self, class: usize) -> OfClass {
        let images: f64 = self.counts[class].iter().sum();
        let hits = self.counts[class][class];
        let decided: f64 = self.counts.iter().map(|row| row[class]).sum();
        let others = self.total() - images;
        OfClass {
            images,
            sensitivity: share(hits, images),
            specificity: share(others - (decided - hits), others),
            precision: share(hits, decided),
            f1: share(2.0 * hits, images + decided),
        }
    }

    /// Mean sensitivity of the classes that have an image.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        self.mean(|class| class.sensitivity)
    }

    /// Mean F1 of the classes that have an image.
    pub fn macro_f1(&self) -> Option<f64> {
        self.mean(|class| class.f1)
    }

    fn mean(&self, value: impl Fn(OfClass) -> Option<f64>) -> Option<f64> {
        let present: Vec<f64> = (0..self.classes())
            .map(|class| self.of_class(class))
            .filter(|class| class.images > 0.0)
            .filter_map(value)
            .collect();
        (!present.is_empty()).then(|| present.iter().sum::<f64>() / present.len() as f64)
    }
}

fn share(part: f64, whole: f64) -> Option<f64> {
    // Sums of shares may exceed one by rounding.
    (whole > 0.0).then(|| (part / whole).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(classes: usize, pairs: &[(usize, Option<usize>)]) -> Confusion {
        let mut confusion = Confusion::new(classes);
        for &(truth, decision) in pairs {
            let mut decisions = vec![0.0; classes + 1];
            decisions[decision.unwrap_or(classes)] = 1.0;
            confusion.add(truth, &decisions);
        }
        confusion
    }

    #[test]
    fn by_hand() {
        // Truth 0: 3 right, 1 as class 1. Truth 1: 1 right, 1 undecided.
        let confusion = of(
            2,
            &[
                (0, Some(0)),
                (0, Some(0)),
                (0, Some(0)),
                (0, Some(1)),
                (1, Some(1)),
                (1, None),
            ],
        );
        assert_eq!(confusion.accuracy(), Some(4.0 / 6.0));
        assert_eq!(confusion.undecided(), Some(1.0 / 6.0));
        assert_eq!(confusion.balanced_accuracy(), Some((0.75 + 0.5) / 2.0));
        assert_eq!(
            confusion.of_class(1),
            OfClass {
                images: 2.0,
                sensitivity: Some(0.5),
                specificity: Some(0.75),
                precision: Some(0.5),
                f1: Some(0.5),
            }
        );
        assert_eq!(confusion.of_class(0).f1, Some(6.0 / 7.0));
        assert_eq!(confusion.macro_f1(), Some((6.0 / 7.0 + 0.5) / 2.0));
    }

    #[test]
    fn a_class_without_images_does_not_count() {
        let confusion = of(3, &[(0, Some(0)), (1, Some(1))]);
        assert_eq!(confusion.balanced_accuracy(), Some(1.0));
        assert_eq!(confusion.of_class(2).sensitivity, None);
        assert_eq!(Confusion::new(2).accuracy(), None);
    }

    #[test]
    fn seeds_that_disagree_count_half_each() {
        let mut confusion = Confusion::new(2);
        confusion.add(0, &[0.5, 0.5, 0.0]);
        confusion.add(1, &[0.0, 1.0, 0.0]);
        assert_eq!(confusion.balanced_accuracy(), Some(0.75));
    }

    proptest! {
        #[test]
        fn shares_are_shares(pairs in prop::collection::vec((0usize..3, prop::option::of(0usize..3)), 0..100)) {
            let confusion = of(3, &pairs);
            prop_assert_eq!(confusion.total(), pairs.len() as f64);
            let mut values = vec![confusion.accuracy(), confusion.balanced_accuracy(), confusion.macro_f1()];
            for class in 0..3 {
                let of_class = confusion.of_class(class);
                values.extend([of_class.sensitivity, of_class.specificity, of_class.precision, of_class.f1]);
            }
            prop_assert!(values.into_iter().flatten().all(|value| (0.0..=1.0).contains(&value)));
        }
    }
}
