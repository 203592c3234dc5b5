//! What a shortcut could explain: the same lists read for their sources, and the same votes with guards taken away. Pure.

use super::ask::Answer;
use super::asked::{Asked, Rule, decided};
use super::cases::Cases;
use super::evaluation::{Available, Interval, Leakage, LeftOut, Shortcuts, SourceMatched};
use super::figures::Decided;

/// Answers by other rules, read for what they say about sources and guards.
pub struct Guards<'a> {
    /// Everyone.
    pub cases: &'a Cases,
    /// What they were answered.
    pub asked: &'a Asked,
    /// Those that were asked about.
    pub items: &'a [usize],
    /// Resamples of every interval.
    pub resamples: usize,
}

impl Guards<'_> {
    /// Sources; not available where there is one or none.
    pub fn shortcuts(&self) -> Available<Shortcuts> {
        if self.cases.sources.len() < 2 {
            let why = match self.cases.sources.first() {
                Some(source) => format!("all images with a source are of `{source}`"),
                None => "no source is known".to_owned(),
            };
            return Available::no(why);
        }
        let (mut right, mut known) = (0f64, 0usize);
        let mut sizes = vec![0usize; self.cases.sources.len()];
        for &item in self.items {
            let Some(source) = self.cases.items[item].source else {
                continue;
            };
            known += 1;
            sizes[source] += 1;
            right += self.share_told(item, source);
        }
        let most = sizes.iter().copied().max().unwrap_or(0);
        Available::Yes(Shortcuts {
            source_accuracy: (known > 0).then(|| right / known as f64),
            source_majority: most as f64 / known.max(1) as f64,
            robustness_index: self.robustness_index(),
            source_matched: (0..self.cases.sources.len())
                .filter_map(|source| self.source_matched(source))
                .collect(),
            leave_source_out: (0..self.cases.sources.len())
                .filter_map(|source| self.left_out(source))
                .collect(),
        })
    }

    /// How often, of all fits that test an item, most neighbors have its source.
    fn share_told(&self, item: usize, source: usize) -> f64 {
        let (mut told, mut fits) = (0usize, 0usize);
        for answer in self.asked.by_rule(item, Rule::Guarded) {
            fits += 1;
            told += usize::from(self.source_of_most(answer) == Some(source));
        }
        told as f64 / fits.max(1) as f64
    }

    /// The source that most neighbors have; the nearest one's of equals.
    fn source_of_most(&self, answer: &Answer) -> Option<usize> {
        let mut counts = vec![0usize; self.cases.sources.len()];
        let sources: Vec<usize> = neighbors(answer).filter_map(|at| self.cases.items[at].source).collect();
        sources.iter().for_each(|&source| counts[source] += 1);
        let most = counts.iter().copied().max()?;
        sources.into_iter().find(|&source| counts[source] == most)
    }

    fn robustness_index(&self) -> Option<f64> {
        let (mut class_only, mut source_only) = (0usize, 0usize);
        for &item in self.items {
            let query = &self.cases.items[item];
            for at in self.asked.by_rule(item, Rule::Guarded).flat_map(neighbors) {
                let found = &self.cases.items[at];
                let (Some(own), Some(other)) = (query.source, found.source) else {
                    continue;
                };
                class_only += usize::from(query.class == found.class && own != other);
                source_only += usize::from(query.class != found.class && own == other);
            }
        }
        let possible = |wanted: &dyn Fn(usize, usize) -> bool| {
            let mut pairs: Vec<(usize, usize)> = self
                .cases
                .items
                .iter()
                .filter_map(|case| Some((case.class, case.source?)))
                .collect();
            pairs.sort_unstable();
            pairs.dedup();
            pairs.iter().any(|&(class, source)| wanted(class, source))
        };
        let pair = |class: usize, source: usize| {
            self.cases
                .items
                .iter()
                .any(|case| case.class == class && case.source == Some(source))
        };
        let class_in_two =
            possible(&|class, source| (0..self.cases.sources.len()).any(|s| s != source && pair(class, s)));
        let source_of_two =
            possible(&|class, source| (0..self.cases.classes.len()).any(|c| c != class && pair(c, source)));
        (class_in_two && source_of_two && source_only > 0).then(|| class_only as f64 / source_only as f64)
    }

    /// Within one source that has two classes or more.
    fn source_matched(&self, source: usize) -> Option<SourceMatched> {
        let indexed = self.cases.count(|case| case.indexed && case.source == Some(source));
        if indexed.iter().filter(|&&images| images > 0).count() < 2 {
            return None;
        }
        let items = self.of_source(source, |class| indexed[class] > 0);
        let asked = self.cases.count(|case| case.asked && case.source == Some(source));
        let classes = self.cases.classes.iter().zip(asked).filter(|(_, asked)| *asked > 0);
        Some(SourceMatched {
            source: self.cases.sources[source].clone(),
            classes: classes.map(|(class, _)| class.to_string()).collect(),
            images: items.len(),
            balanced_accuracy: self.three(&items, Rule::SameSource)[1],
        })
    }

    /// One source asked about among all others.
    fn left_out(&self, source: usize) -> Option<LeftOut> {
        let elsewhere = self
            .cases
            .count(|case| case.indexed && case.source.is_some_and(|other| other != source));
        let all = self.of_source(source, |_| true);
        let items = self.of_source(source, |class| elsewhere[class] > 0);
        (!all.is_empty()).then(|| LeftOut {
            source: self.cases.sources[source].clone(),
            images: items.len(),
            hopeless: all.len() - items.len(),
            balanced_accuracy: self.three(&items, Rule::OtherSource)[1],
        })
    }

    fn of_source(&self, source: usize, class: impl Fn(usize) -> bool) -> Vec<usize> {
        let wanted = |&&item: &&usize| {
            let case = &self.cases.items[item];
            case.source == Some(source) && class(case.class)
        };
        self.items.iter().filter(wanted).copied().collect()
    }

    fn three(&self, items: &[usize], rule: Rule) -> [Option<Interval>; 3] {
        let shares: Vec<Vec<f64>> = (items.iter())
            .map(|&item| decided(self.asked.by_rule(item, rule), self.cases.classes.len()))
            .collect();
        Decided {
            cases: self.cases,
            items,
            shares: &shares,
            resamples: self.resamples,
        }
        .three()
    }

    /// The whole archive with every guard, and with each taken away.
    pub fn leakage(&self) -> Vec<Leakage> {
        let of = |guards: &str, rule: Rule| {
            let [accuracy, balanced_accuracy, _] = self.three(self.items, rule);
            let first = |&item: &usize| {
                let nearest = |answer| neighbors(answer).next();
                let nearest: Vec<usize> = self.asked.by_rule(item, rule).filter_map(nearest).collect();
                let same = |&&at: &&usize| self.cases.items[at].class == self.cases.items[item].class;
                (!nearest.is_empty()).then(|| nearest.iter().filter(same).count() as f64 / nearest.len() as f64)
            };
            let first: Vec<Option<f64>> = self.items.iter().map(first).collect();
            let decided = Decided {
                cases: self.cases,
                items: self.items,
                shares: &[],
                resamples: self.resamples,
            };
            Leakage {
                guards: guards.to_owned(),
                accuracy,
                balanced_accuracy,
                precision_at_1: decided.mean(&first),
            }
        };
        vec![
            of("with every guard", Rule::Guarded),
            of("without excluding the query's patient", Rule::WithSamePatient),
            of("without excluding copies of the query's picture", Rule::WithCopies),
            of("without excluding either", Rule::WithBoth),
            of(
                "with every guard, each copy of a picture with its own vote",
                Rule::EachCopy,
            ),
        ]
    }
}

fn neighbors(answer: &Answer) -> impl Iterator<Item = usize> {
    answer.neighbors.iter().map(|&(_, at)| at as usize)
}

#[cfg(test)]
mod tests {
    use super::super::asked::{Asking, ask_all};
    use super::super::cases::tests::cases;
    use super::super::views::{Split, plan};
    use super::*;
    use crate::domain::VoteMethod;

    /// Three pairs of nearest neighbors, two of one source and other classes, one of one class and other sources: everything can be counted by hand.
    #[test]
    fn sources_by_hand() {
        let image = |(patient, (class, source, angle)): (u8, (usize, usize, f32))| {
            (class, patient, source, vec![angle.cos(), angle.sin()])
        };
        let images = [
            (0, 0, 0.0),
            (1, 0, 0.01),
            (0, 1, 1.0),
            (1, 1, 1.01),
            (0, 0, 2.0),
            (0, 1, 2.01),
        ];
        let items: Vec<_> = (1..).zip(images).map(image).collect();
        let cases = cases(&items);
        let plan = plan(&cases, Split::LeaveGroupOut, 1, false);
        let asking = Asking {
            k: 1,
            method: VoteMethod::Majority,
            extra: true,
        };
        let asked = ask_all(&cases, &plan, asking, |_| Ok(&cases), || {}).unwrap();
        let items: Vec<usize> = (0..6).collect();
        let guards = Guards {
            cases: &cases,
            asked: &asked,
            items: &items,
            resamples: 20,
        };
        let Available::Yes(found) = guards.shortcuts() else {
            panic!("there are two sources")
        };
        assert_eq!(found.source_accuracy, Some(4.0 / 6.0));
        assert_eq!(found.source_majority, 0.5);
        // Of six nearest neighbors two have the class of another source, four the source of another class.
        assert_eq!(found.robustness_index, Some(0.5));
        let value = |interval: Option<Interval>| interval.map(|interval| interval.value);
        let matched = found
            .source_matched
            .iter()
            .map(|task| (task.images, value(task.balanced_accuracy)));
        assert_eq!(matched.collect::<Vec<_>>(), [(3, Some(0.0)), (3, Some(0.0))]);
        let left_out = found.leave_source_out.iter();
        let left_out = left_out.map(|task| (task.images, task.hopeless, value(task.balanced_accuracy)));
        assert_eq!(left_out.collect::<Vec<_>>(), [(3, 0, Some(0.5)), (3, 0, Some(0.25))]);
        // Who has one source learns nothing about sources.
        let one = super::super::cases::tests::cases(&[(0, 1, 0, vec![1.0, 0.0]), (1, 2, 0, vec![0.0, 1.0])]);
        assert!(matches!(
            Guards { cases: &one, ..guards }.shortcuts(),
            Available::No { .. }
        ));
    }
}
