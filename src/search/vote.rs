//! Ranking -> verdict. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::domain::{CalibrationNote, ClassLabel, Hit, Ranking, Status, Verdict, VoteMethod};

/// Lets the `k` best hits vote. A tie goes to the greater sum of similarities, then to the class of the nearer hit; if even those are
/// equally similar there is nothing to choose by, and the verdict is inconclusive.
pub fn vote(ranking: &Ranking, method: VoteMethod, k: usize) -> Verdict {
    let mut hits: Vec<&Hit> = ranking.hits.iter().collect();
    hits.sort_by(|a, b| a.order(b));
    hits.truncate(k);
    let voters: Vec<&Hit> = hits
        .iter()
        .copied()
        .filter(|hit| hit.votes && hit.class().is_some())
        .collect();
    let tallies = count(&voters, &ranking.eligible, method);

    let mut order: Vec<&Tally> = tallies.values().collect();
    order.sort_by(|a, b| a.against(b));
    let decided = match order[..] {
        [] => None,
        [first] => Some((first, By::Weight)),
        [first, second, ..] => first.won(second).map(|by| (first, by)),
    };
    let reason = match (decided, &order[..]) {
        (None, []) if hits.is_empty() => "no image to compare with".to_owned(),
        (None, []) => format!("none of the {} nearest images has a settled label", hits.len()),
        (None, _) => undecided(&order, voters.len()),
        (Some((winner, by)), _) => {
            let tied = order
                .iter()
                .skip(1)
                .filter(|other| other.weight == winner.weight)
                .map(|other| other.class);
            words(winner, by, &tied.collect::<Vec<_>>(), voters.len(), method)
        }
    };
    let silent = hits.len() - voters.len();
    let reason = match (silent, voters.len()) {
        (0, _) | (_, 0) => reason,
        _ => format!("{reason} (of {}, {silent} without a settled label)", hits.len()),
    };
    Verdict {
        status: if decided.is_some() {
            Status::Suggested
        } else {
            Status::Inconclusive
        },
        reason,
        class: decided.map(|(winner, _)| winner.class.clone()),
        method,
        votes: tallies
            .iter()
            .map(|(&class, tally)| (class.clone(), tally.votes))
            .collect(),
        weights: tallies
            .iter()
            .map(|(&class, tally)| (class.clone(), tally.weight))
            .collect(),
        voters: voters.iter().map(|hit| hit.id()).collect(),
        confidence: None,
        prediction_sets: vec![],
        mahalanobis: None,
        calibration: CalibrationNote::default(),
    }
}

/// What one class has.
struct Tally<'a> {
    class: &'a ClassLabel,
    votes: usize,
    weight: f64,
    similarity_sum: f64,
    nearest: &'a Hit,
}

/// What decided between the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Weight,
    SimilaritySum,
    Nearest,
}

fn count<'a>(
    voters: &[&'a Hit],
    eligible: &BTreeMap<ClassLabel, usize>,
    method: VoteMethod,
) -> BTreeMap<&'a ClassLabel, Tally<'a>> {
    let mut tallies: BTreeMap<&ClassLabel, Tally> = BTreeMap::new();
    for &hit in voters {
        let Some(class) = hit.class() else { continue };
        let new = Tally {
            class,
            votes: 0,
            weight: 0.0,
            similarity_sum: 0.0,
            nearest: hit,
        };
        let tally = tallies.entry(class).or_insert(new);
        tally.votes += 1;
        tally.similarity_sum += f64::from(hit.similarity);
        // An image that points away speaks for nothing.
        tally.weight += f64::from(hit.similarity.max(0.0));
    }
    let total: usize = eligible.values().sum();
    for (class, tally) in &mut tallies {
        match method {
            VoteMethod::Distance => {}
            VoteMethod::Majority => tally.weight = tally.votes as f64,
            // votes / (images / total), so written that equal fractions give equal numbers.
            VoteMethod::Prior => {
                let images = eligible.get(*class).copied().unwrap_or(0).max(tally.votes);
                tally.weight = (tally.votes * total.max(images)) as f64 / images as f64;
            }
        }
    }
    tallies
}

impl Tally<'_> {
    /// Best first.
    fn against(&self, other: &Self) -> Ordering {
        (other.weight.total_cmp(&self.weight))
            .then_with(|| other.similarity_sum.total_cmp(&self.similarity_sum))
            .then_with(|| self.nearest.order(other.nearest))
    }

    /// What decided over the second; `None` when all is equal but the name of the nearest image.
    fn won(&self, second: &Self) -> Option<By> {
        if self.weight != second.weight {
            Some(By::Weight)
        } else if self.similarity_sum != second.similarity_sum {
            Some(By::SimilaritySum)
        } else {
            (self.nearest.similarity != second.nearest.similarity).then_some(By::Nearest)
        }
    }
}

/// For example `7 of 10 labelled COVID`.
fn words(winner: &Tally, by: By, tied: &[&ClassLabel], voters: usize, method: VoteMethod) -> String {
    let class = winner.class;
    let share = format!("{} of {voters} labelled {class}", winner.votes);
    let others = join(tied);
    match (by, method) {
        (By::Weight, VoteMethod::Majority) => share,
        (By::Weight, VoteMethod::Distance) => format!("{share}, the most weight by similarity"),
        (By::Weight, VoteMethod::Prior) => format!("{share}, the most weight by rarity"),
        (By::SimilaritySum, _) => format!("{share}, a tie with {others}: those of {class} are more similar"),
        (By::Nearest, _) => format!("{share}, a tie with {others}: the nearest is {class}"),
    }
}

/// `A`, `A and B`, `A, B and C`.
pub(super) fn join(classes: &[impl std::borrow::Borrow<ClassLabel>]) -> String {
    let names: Vec<&str> = classes.iter().map(|class| class.borrow().as_str()).collect();
    match names[..] {
        [] => String::new(),
        [only] => only.to_owned(),
        [ref others @ .., last] => format!("{} and {last}", others.join(", ")),
    }
}

fn undecided(order: &[&Tally], voters: usize) -> String {
    let tied = order.iter().take_while(|tally| tally.won(order[0]).is_none());
    let shares: Vec<String> = tied
        .map(|tally| format!("{} of {voters} labelled {}", tally.votes, tally.class))
        .collect();
    format!("a tie: {}, equally similar", shares.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::segment::tests::record;
    use proptest::prelude::*;

    fn ranking(hits: &[(f32, Option<&str>, bool)]) -> Ranking {
        let hits: Vec<Hit> = (hits.iter().zip(0..))
            .map(|(&(similarity, class, votes), at)| Hit::alone(similarity, record(at, class, None), votes))
            .collect();
        let eligible = [("COVID", 10), ("Normal", 30), ("Viral Pneumonia", 60)];
        let eligible = eligible
            .map(|(class, images)| (ClassLabel::parse(class).unwrap(), images))
            .into();
        Ranking {
            hits,
            eligible,
            ..Ranking::default()
        }
    }

    const C: Option<&str> = Some("COVID");
    const N: Option<&str> = Some("Normal");
    const V: Option<&str> = Some("Viral Pneumonia");

    #[test]
    fn says_it_in_words() {
        let check = |hits: &[(f32, Option<&str>, bool)], method: VoteMethod, class: Option<&str>, reason: &str| {
            let verdict = vote(&ranking(hits), method, 10);
            assert_eq!(
                (verdict.class.as_ref().map(ClassLabel::as_str), verdict.reason.as_str()),
                (class, reason)
            );
            assert_eq!(verdict.status == Status::Suggested, class.is_some());
        };
        use VoteMethod::{Distance, Majority, Prior};
        check(
            &[(0.9, C, true), (0.8, C, true), (0.7, N, true)],
            Majority,
            C,
            "2 of 3 labelled COVID",
        );
        check(
            &[
                (0.9, C, true),
                (0.8, C, false),
                (0.7, None, false),
                (0.6, N, true),
                (0.5, N, true),
            ],
            Majority,
            N,
            "2 of 3 labelled Normal (of 5, 2 without a settled label)",
        );
        check(
            &[(0.9, N, true), (0.8, C, true), (0.7, C, true), (0.1, N, true)],
            Majority,
            C,
            "2 of 4 labelled COVID, a tie with Normal: those of COVID are more similar",
        );
        check(
            &[(0.75, N, true), (0.5, C, true), (0.5, C, true), (0.25, N, true)],
            Majority,
            N,
            "2 of 4 labelled Normal, a tie with COVID: the nearest is Normal",
        );
        check(
            &[(0.5, N, true), (0.5, C, true)],
            Majority,
            None,
            "a tie: 1 of 2 labelled Normal, 1 of 2 labelled COVID, equally similar",
        );
        check(
            &[(0.5, None, false), (0.5, C, false)],
            Majority,
            None,
            "none of the 2 nearest images has a settled label",
        );
        check(&[], Majority, None, "no image to compare with");
        check(
            &[(0.9, C, true), (0.3, N, true), (0.3, N, true)],
            Distance,
            C,
            "1 of 3 labelled COVID, the most weight by similarity",
        );
        check(
            &[(0.9, V, true), (0.8, V, true), (0.7, C, true)],
            Prior,
            C,
            "1 of 3 labelled COVID, the most weight by rarity",
        );
    }

    #[test]
    fn weighs_by_method() {
        let hits = ranking(&[(0.5, C, true), (0.25, N, true), (0.25, N, true), (-0.5, V, true)]);
        let weights = |method| vote(&hits, method, 10).weights.into_values().collect::<Vec<_>>();
        assert_eq!(weights(VoteMethod::Majority), [1.0, 2.0, 1.0]);
        assert_eq!(weights(VoteMethod::Distance), [0.5, 0.5, 0.0]);
        assert_eq!(weights(VoteMethod::Prior), [10.0, 2.0 * 100.0 / 30.0, 100.0 / 60.0]);
    }

    #[test]
    fn only_the_first_k_vote() {
        let hits = ranking(&[(0.9, C, true), (0.5, N, true), (0.4, N, true)]);
        assert_eq!(vote(&hits, VoteMethod::Majority, 1).reason, "1 of 1 labelled COVID");
        assert_eq!(vote(&hits, VoteMethod::Majority, 3).reason, "2 of 3 labelled Normal");
    }

    proptest! {
        #[test]
        fn counts_fairly(
            hits in prop::collection::vec((0i8..4, 0usize..4, any::<bool>()), 0..20),
            k in 1usize..20,
            method in prop_oneof![Just(VoteMethod::Majority), Just(VoteMethod::Distance), Just(VoteMethod::Prior)],
            seed in any::<u64>(),
        ) {
            let classes = [None, C, N, V];
            let hits: Vec<_> = hits.iter().map(|&(s, c, votes)| (f32::from(s) / 4.0, classes[c], votes && c > 0)).collect();
            let given = ranking(&hits);
            let verdict = vote(&given, method, k);
            prop_assert_eq!(verdict.votes.values().sum::<usize>(), verdict.voters.len());
            prop_assert!(verdict.voters.iter().all(|id| given.hits.iter().any(|hit| hit.id() == *id && hit.votes)));
            prop_assert!(verdict.votes.keys().eq(verdict.weights.keys()));
            if let Some(class) = &verdict.class {
                prop_assert!(verdict.weights.values().all(|weight| *weight <= verdict.weights[class]));
            }
            let mut shuffled = given.clone();
            shuffled.hits.sort_by_key(|hit| u64::from(hit.id().as_bytes()[5]).wrapping_mul(seed | 1));
            let again = vote(&shuffled, method, k);
            prop_assert_eq!(format!("{again:?}"), format!("{verdict:?}"));
        }
    }
}
