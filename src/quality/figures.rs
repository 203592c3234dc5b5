//! From shares of decisions and figures of lists to values with intervals. Pure.

use std::collections::BTreeSet;

use super::asked::LIST_FIGURES;
use super::bootstrap::by_group;
use super::cases::Cases;
use super::decisions::Confusion;
use super::evaluation::{ClassDecisions, Decisions, FloorFigures, Interval, RetrievalFigure};

/// Seed of every bootstrap; its resamples are the same for all figures of a report.
const BOOTSTRAP_SEED: u64 = 0;

/// What was decided about some items.
pub struct Decided<'a> {
    /// Everyone.
    pub cases: &'a Cases,
    /// Those that were asked about.
    pub items: &'a [usize],
    /// For each of them the share of each suggestion; the last one: none.
    pub shares: &'a [Vec<f64>],
    /// Resamples of the bootstrap.
    pub resamples: usize,
}

impl Decided<'_> {
    fn confusion(&self, drawn: &[usize]) -> Confusion {
        let mut confusion = Confusion::new(self.cases.classes.len());
        for &at in drawn {
            confusion.add(self.cases.items[self.items[at]].class, &self.shares[at]);
        }
        confusion
    }

    /// Balanced accuracy and macro-F1, where no class is missing that there is: a mean over fewer classes is another figure.
    fn means(&self, confusion: &Confusion) -> [Option<f64>; 2] {
        let classes = 0..self.cases.classes.len();
        let asked = |class: &usize| self.items.iter().any(|&item| self.cases.items[item].class == *class);
        if classes
            .clone()
            .filter(|&class| confusion.of_class(class).images == 0.0)
            .any(|class| asked(&class))
        {
            return [None; 2];
        }
        [confusion.balanced_accuracy(), confusion.macro_f1()]
    }

    fn groups(&self) -> Vec<usize> {
        self.items.iter().map(|&item| self.cases.items[item].group).collect()
    }

    fn intervals(&self, figures: impl Fn(Confusion) -> Vec<Option<f64>>) -> Vec<Option<Interval>> {
        by_group(&self.groups(), self.resamples, BOOTSTRAP_SEED, |drawn| {
            figures(self.confusion(drawn))
        })
    }

    /// Accuracy, balanced accuracy, macro-F1.
    pub fn three(&self) -> [Option<Interval>; 3] {
        let figures = |confusion: Confusion| {
            let [balanced_accuracy, macro_f1] = self.means(&confusion);
            vec![confusion.accuracy(), balanced_accuracy, macro_f1]
        };
        let mut intervals = self.intervals(figures).into_iter();
        std::array::from_fn(|_| intervals.next().flatten())
    }

    /// Everything there is to say.
    pub fn all(&self) -> Decisions {
        let classes = self.cases.classes.len();
        let figures = |confusion: Confusion| {
            let [balanced_accuracy, macro_f1] = self.means(&confusion);
            let mut figures = vec![confusion.accuracy(), balanced_accuracy, macro_f1];
            for class in 0..classes {
                let of_class = confusion.of_class(class);
                figures.extend([of_class.sensitivity, of_class.specificity, of_class.precision]);
            }
            figures
        };
        let mut intervals = self.intervals(figures).into_iter();
        let mut next = || intervals.next().flatten();
        let everyone: Vec<usize> = (0..self.items.len()).collect();
        let confusion = self.confusion(&everyone);
        Decisions {
            accuracy: next(),
            balanced_accuracy: next(),
            macro_f1: next(),
            per_class: (self.cases.classes.iter())
                .map(|class| ClassDecisions {
                    class: class.to_string(),
                    sensitivity: next(),
                    specificity: next(),
                    precision: next(),
                })
                .collect(),
            undecided: confusion.undecided().unwrap_or(0.0),
            confusion: confusion.into_counts(),
        }
    }

    /// As a floor says it, beside what was decided otherwise about the same items; with a figure of the lists where there are any.
    pub fn floor(&self, ours: &[Vec<f64>], precision_at_10: Option<&[Option<f64>]>) -> FloorFigures {
        let [accuracy, balanced_accuracy, macro_f1] = self.three();
        let ours = Decided { shares: ours, ..*self };
        let difference = |drawn: &[usize]| {
            let of = |decided: &Decided| decided.means(&decided.confusion(drawn))[0];
            vec![of(&ours).zip(of(self)).map(|(ours, floor)| ours - floor)]
        };
        FloorFigures {
            accuracy,
            balanced_accuracy,
            macro_f1,
            precision_at_10: precision_at_10.and_then(|values| self.mean(values)),
            below_ours: by_group(&self.groups(), self.resamples, BOOTSTRAP_SEED, difference)
                .pop()
                .flatten(),
        }
    }

    /// The mean of a value of each item, over those that have it.
    pub fn mean(&self, values: &[Option<f64>]) -> Option<Interval> {
        let figure = |drawn: &[usize]| vec![mean(drawn.iter().filter_map(|&at| values[at]))];
        by_group(&self.groups(), self.resamples, BOOTSTRAP_SEED, figure)
            .pop()
            .flatten()
    }
}

/// Every figure of the lists of `items`.
pub fn retrieval(
    cases: &Cases,
    items: &[usize],
    lists: &[[Option<f64>; LIST_FIGURES.len()]],
    resamples: usize,
) -> Vec<RetrievalFigure> {
    let groups: Vec<usize> = items.iter().map(|&item| cases.items[item].group).collect();
    let scored = items.iter().filter(|&&item| lists[item].iter().any(Option::is_some));
    let asked: BTreeSet<usize> = scored.map(|&item| cases.items[item].class).collect();
    let figures = |drawn: &[usize]| {
        let each = |figure: usize| {
            let values = |class: Option<usize>| {
                let of = drawn.iter().map(|&at| items[at]);
                let of = of.filter(move |&item| class.is_none_or(|class| cases.items[item].class == class));
                of.filter_map(move |item| lists[item][figure])
            };
            let per_class: Vec<Option<f64>> = (0..cases.classes.len())
                .map(|class| mean(values(Some(class))))
                .collect();
            let missing = |class: usize| per_class[class].is_none() && asked.contains(&class);
            let whole = !(0..cases.classes.len()).any(missing);
            [
                mean(values(None)),
                mean(per_class.iter().copied().flatten()).filter(|_| whole),
            ]
        };
        (0..LIST_FIGURES.len()).flat_map(each).collect()
    };
    let mut intervals = by_group(&groups, resamples, BOOTSTRAP_SEED, figures).into_iter();
    LIST_FIGURES
        .iter()
        .map(|(name, definition)| RetrievalFigure {
            name: (*name).to_owned(),
            definition: (*definition).to_owned(),
            micro: intervals.next().flatten(),
            per_class_mean: intervals.next().flatten(),
        })
        .collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0usize);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}
