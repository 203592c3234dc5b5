//! Verdict -> what it is worth, by the archive's calibration where that applies. Pure.

use std::collections::BTreeMap;

use super::vote::join;
use crate::domain::{
    Appearance, Ask, Calibration, CalibrationNote, ClassLabel, Doubt, Embedding, Exclude, Level, Mahalanobis, OnePer,
    PredictionSet, Ranking, Status, Verdict, VoteMethod, prediction_set,
};

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A whole image.
    Image,
    /// A vector: nobody knows whose.
    Vector,
    /// A part of an image.
    Region,
    /// Images of the archive.
    Archive,
}

/// How and where was asked.
pub struct Asked<'a> {
    /// The options.
    pub ask: &'a Ask,
    /// What is asked about.
    pub origin: Origin,
    /// What the model made of it, unless it is in the archive.
    pub unit: Option<&'a Embedding>,
    /// What it looks like, where it is a whole image.
    pub appearance: Option<&'a Appearance>,
    /// Every shard has answered.
    pub complete: bool,
    /// Images of each class whose label votes, in the version that answered.
    pub voting: &'a BTreeMap<ClassLabel, usize>,
}

/// A calibration with its short name, or why there is none.
pub type Known<'a> = Result<(&'a str, &'a Calibration), &'static str>;

/// Says with which probability the suggested class is right and which classes can't be ruled out. Takes the suggestion back where the query is unlike
/// the archive, or where too much or nothing is left. A calibration that does not apply is not used, and the verdict says why.
pub fn calibrate(mut verdict: Verdict, ranking: &Ranking, known: Known<'_>, asked: &Asked<'_>) -> Verdict {
    let (id, calibration) = match known {
        Ok(known) => known,
        Err(why_not) => {
            verdict.calibration = note(None, Some(why_not.to_owned()));
            return verdict;
        }
    };
    if let Some(distance) = mahalanobis(calibration, asked) {
        verdict.mahalanobis = Some(distance);
        if let (Some(range), Some(appearance)) = (&calibration.appearances, asked.appearance)
            && let Some(how) = range.unlike(appearance)
        {
            verdict.calibration = note(Some(id), None);
            return out_of_distribution(verdict, format!("unlike this archive: {how} any of its images"));
        }
        if distance.distance > distance.max {
            verdict.calibration = note(Some(id), None);
            let reason = format!(
                "unlike this archive: it lies {:.2} times as far from the archive's images as 39 of 40 of these do",
                distance.distance / distance.max
            );
            return out_of_distribution(verdict, reason);
        }
    }
    let applies = why_not(calibration, asked).map_or(Ok(()), Err);
    let similar = applies.and_then(|()| similar_to_itself(ranking).map_or(Ok(()), Err));
    if let Err(why_not) = similar {
        verdict.calibration = note(Some(id), Some(why_not));
        return verdict;
    }
    verdict.calibration = note(Some(id), None);

    let last = ranking.hits.iter().take(asked.ask.k).next_back();
    let similarity = last.map_or(-1.0, |hit| f64::from(hit.similarity));
    if similarity < calibration.home_min {
        let reason = format!(
            "unlike this archive: its {} nearest images are less similar (down to {similarity:.3}) than those of 39 of 40 of the archive's own images \
             (down to {:.3})",
            calibration.k, calibration.home_min
        );
        return out_of_distribution(verdict, reason);
    }
    let voters = verdict.voters.len();
    if voters < calibration.k {
        let why_not = format!(
            "it holds for {} votes, and {voters} of the neighbors have a settled label",
            calibration.k
        );
        verdict.calibration = note(Some(id), Some(why_not));
        return verdict;
    }

    let weight = |class: &ClassLabel| verdict.weights.get(class).copied().unwrap_or(0.0);
    let weights: Vec<f64> = calibration.classes.iter().map(weight).collect();
    let probabilities = calibration.shares.probabilities(&weights);
    verdict.prediction_sets = calibration
        .levels
        .iter()
        .map(|level| set(calibration, level, &probabilities))
        .collect();
    let Some(class) = &verdict.class else { return verdict };
    let at = calibration.classes.binary_search(class).ok();
    let doubt = match (at, calibration.levels.first()) {
        (Some(at), Some(level)) => doubt(calibration, level, at, &probabilities),
        _ => None,
    };
    match doubt {
        Some(reason) => {
            verdict.reason = format!("{}, but {reason}", verdict.reason);
            verdict.status = Status::Inconclusive;
            verdict.class = None;
        }
        None => verdict.confidence = at.map(|at| probabilities[at]),
    }
    verdict
}

fn out_of_distribution(verdict: Verdict, reason: String) -> Verdict {
    Verdict {
        status: Status::OutOfDistribution,
        class: None,
        reason,
        ..verdict
    }
}

/// How far the query lies from the archive's images: whoever is asked, and however they vote, an image that belongs nowhere near them gets no suggestion.
/// Of a part of an image that is not known, nor once the archive has become another.
fn mahalanobis(calibration: &Calibration, asked: &Asked<'_>) -> Option<Mahalanobis> {
    let whole = matches!(asked.origin, Origin::Image | Origin::Vector);
    let distance = calibration.distribution.distance(asked.unit?.as_slice())?;
    (whole && changed(calibration, asked.voting).is_none()).then_some(Mahalanobis {
        distance,
        max: calibration.distance_max,
    })
}

fn set(calibration: &Calibration, level: &Level, probabilities: &[f64]) -> PredictionSet {
    let name = |at: usize| calibration.classes[at].clone();
    let known = |at: &usize| level.thresholds[*at].is_some();
    let possible = prediction_set(probabilities, &level.thresholds).into_iter();
    PredictionSet {
        level: level.level,
        classes: possible.filter(known).map(name).collect(),
        not_available: (0..calibration.classes.len())
            .filter(|at| !known(at))
            .map(name)
            .collect(),
    }
}

/// Why a class is not suggested though most neighbors have it, in words.
fn doubt(calibration: &Calibration, level: &Level, voted: usize, probabilities: &[f64]) -> Option<String> {
    let classes = &calibration.classes;
    let percent = 100.0 * level.level;
    Some(match level.doubt(voted, probabilities)? {
        Doubt::Likelier(class) => format!("known cases with such neighbors are more often {}", classes[class]),
        Doubt::NoneLeft => {
            format!("such a mixture of neighbors is rare for every class: none is left at {percent:.0} %")
        }
        Doubt::SeveralLeft(left) => {
            let left: Vec<ClassLabel> = left.into_iter().map(|class| classes[class].clone()).collect();
            format!("{} can't be told apart at {percent:.0} %", join(&left))
        }
        Doubt::RuledOut => format!(
            "known cases of {} seldom have so few such neighbors: it is ruled out at {percent:.0} %",
            classes[voted]
        ),
    })
}

/// From here on the nearest case may be the query itself, saved in another way.
const NEARLY_IDENTICAL: f32 = 0.995;

fn similar_to_itself(ranking: &Ranking) -> Option<String> {
    let nearest = ranking.hits.first()?;
    (nearest.similarity >= NEARLY_IDENTICAL)
        .then(|| "it holds for new images, and the nearest case is nearly identical: it may be this one".to_owned())
}

fn why_not(calibration: &Calibration, asked: &Asked<'_>) -> Option<String> {
    let Asked { ask, origin, .. } = asked;
    match origin {
        Origin::Image => {}
        Origin::Archive => return Some("it holds for new images, and this one is in the archive".to_owned()),
        Origin::Region => return Some("it holds for whole images, not for a part of one".to_owned()),
        Origin::Vector => return Some("it holds for images, and of a vector nobody knows whose it is".to_owned()),
    }
    if (ask.k, ask.vote) != (calibration.k, calibration.vote) {
        return Some(format!(
            "it holds for {} of {} neighbors",
            words(calibration.vote),
            calibration.k
        ));
    }
    if ask.exclude != Exclude::default() {
        return Some("it holds where images of the same patient, study and pixels are left out".to_owned());
    }
    if ask.one_per != OnePer::default() {
        return Some("it holds where copies of a picture are shown and counted once".to_owned());
    }
    if ask.refines() {
        return Some("it holds for an image as it is, not for one moved by examples".to_owned());
    }
    if ask.classes.is_some() || ask.sources.is_some() || !ask.exclude_sources.is_empty() {
        return Some("it holds for the whole archive, and only a part of it was searched".to_owned());
    }
    if !asked.complete {
        return Some("it holds for the whole archive, and a part of it did not answer".to_owned());
    }
    changed(calibration, asked.voting)
}

/// How the archive has become another than it was fitted on.
fn changed(calibration: &Calibration, voting: &BTreeMap<ClassLabel, usize>) -> Option<String> {
    if !voting.keys().eq(&calibration.classes) {
        return Some("the archive has other classes than when it was fitted: fit it again".to_owned());
    }
    let then_and_now = calibration.images.iter().zip(voting);
    then_and_now.into_iter().find_map(|(&then, (class, &now))| {
        let now = now as u64;
        let changed = now * 5 > then * 6 || now * 5 < then * 4;
        changed.then(|| format!("{class} had {then} images when it was fitted and has {now}: fit it again"))
    })
}

fn words(vote: VoteMethod) -> &'static str {
    match vote {
        VoteMethod::Majority => "the majority",
        VoteMethod::Distance => "the vote by similarity",
        VoteMethod::Prior => "the vote by rarity",
    }
}

fn note(id: Option<&str>, why_not: Option<String>) -> CalibrationNote {
    CalibrationNote {
        id: id.map(str::to_owned),
        valid: why_not.is_none(),
        why_not,
    }
}

#[cfg(test)]
mod tests {
    use super::super::vote::vote;
    use super::*;
    use crate::domain::{Appearances, Distribution, Hit, ShareCalibration};
    use crate::index::segment::tests::record;

    fn class(name: &str) -> ClassLabel {
        ClassLabel::parse(name).unwrap()
    }

    fn classes(names: &[&str]) -> Vec<ClassLabel> {
        names.iter().map(|name| class(name)).collect()
    }

    fn calibration() -> Calibration {
        let level = |level, thresholds: [Option<f64>; 3]| Level {
            level,
            thresholds: thresholds.into(),
        };
        Calibration {
            k: 4,
            vote: VoteMethod::Majority,
            classes: classes(&["A", "B", "C"]),
            images: vec![30, 40, 50],
            shares: ShareCalibration {
                slope: 2.0,
                ..ShareCalibration::none(3, 0.01)
            },
            levels: vec![
                level(0.9, [Some(0.6), Some(0.6), Some(0.3)]),
                level(0.95, [Some(0.9), None, Some(0.9)]),
            ],
            home_min: 0.4,
            distribution: Distribution {
                mean: vec![1.0, 0.0],
                directions: vec![],
                variances: vec![],
                rest: 0.5,
            },
            distance_max: 1.2,
            appearances: Appearances::of([FILM]),
        }
    }

    fn ranking(similarity: f32, classes: &[&str]) -> Ranking {
        let hits = (0..).zip(classes).map(|(at, &name)| {
            let record = record(at, (!name.is_empty()).then_some(name), None);
            Hit::alone(similarity - at as f32 * 0.01, record, !name.is_empty())
        });
        Ranking {
            hits: hits.collect(),
            ..Ranking::default()
        }
    }

    struct Place {
        ask: Ask,
        origin: Origin,
        complete: bool,
        voting: BTreeMap<ClassLabel, usize>,
        calibration: Calibration,
        unit: Option<Embedding>,
        appearance: Option<Appearance>,
    }

    const FILM: Appearance = Appearance {
        colour: 0.0,
        brightness: 0.5,
        contrast: 0.2,
        detail: 0.2,
        elongation: 0.0,
    };

    impl Place {
        fn new() -> Self {
            Self {
                ask: Ask { k: 4, ..Ask::default() },
                origin: Origin::Image,
                complete: true,
                voting: [("A", 30), ("B", 40), ("C", 60)]
                    .map(|(name, images)| (class(name), images))
                    .into(),
                calibration: calibration(),
                unit: Some(Embedding::from_unit(vec![1.0, 0.0])),
                appearance: Some(FILM),
            }
        }

        fn set(&mut self, name: &str, images: usize) {
            self.voting.insert(class(name), images);
        }

        fn of(&self, similarity: f32, found: &[&str]) -> Verdict {
            let ranking = ranking(similarity, found);
            let verdict = vote(&ranking, self.ask.vote, self.ask.k);
            let asked = Asked {
                ask: &self.ask,
                origin: self.origin,
                unit: self.unit.as_ref(),
                appearance: self.appearance.as_ref(),
                complete: self.complete,
                voting: &self.voting,
            };
            calibrate(verdict, &ranking, Ok(("id", &self.calibration)), &asked)
        }
    }

    #[test]
    fn a_clear_vote_has_a_confidence_and_a_set() {
        let verdict = Place::new().of(0.9, &["A", "A", "A", "B"]);
        assert_eq!((verdict.status, verdict.class), (Status::Suggested, Some(class("A"))));
        // Squares of shares 0.75, 0.25, 0, each with 0.01 more.
        let (a, b, c) = (0.76f64.powi(2), 0.26f64.powi(2), 0.01f64.powi(2));
        assert!((verdict.confidence.unwrap() - a / (a + b + c)).abs() < 1e-12);
        let [ninety, more] = &verdict.prediction_sets[..] else {
            panic!("two levels")
        };
        assert_eq!((&ninety.classes, &ninety.not_available), (&classes(&["A"]), &vec![]));
        assert_eq!(
            (&more.classes, &more.not_available),
            (&classes(&["A"]), &classes(&["B"]))
        );
        assert!(verdict.calibration.valid && verdict.calibration.id.as_deref() == Some("id"));
        assert_eq!(verdict.reason, "3 of 4 labelled A");
    }

    #[test]
    fn what_looks_like_nothing_of_the_archive_gets_no_suggestion() {
        let mut place = Place::new();
        place.appearance = Some(Appearance { colour: 0.4, ..FILM });
        let verdict = place.of(0.9, &["A"; 4]);
        assert_eq!((verdict.status, verdict.class), (Status::OutOfDistribution, None));
        assert_eq!(
            verdict.reason,
            "unlike this archive: far more colourful than any of its images"
        );
        assert!(verdict.calibration.valid && verdict.mahalanobis.is_some());
        // However the vote is asked for, unless the archive has become another, or no picture of it was kept.
        place.ask.vote = VoteMethod::Distance;
        assert_eq!(place.of(0.9, &["A"; 4]).status, Status::OutOfDistribution);
        place.calibration.appearances = None;
        assert_eq!(place.of(0.9, &["A"; 4]).status, Status::Suggested);
        let mut grown = Place::new();
        grown.appearance = Some(Appearance { colour: 0.4, ..FILM });
        grown.set("A", 300);
        assert_eq!(grown.of(0.9, &["A"; 4]).status, Status::Suggested);
    }

    #[test]
    fn what_is_unlike_the_archive_gets_no_suggestion() {
        // Whether its neighbors are labelled or not.
        for found in [["A"; 4], ["A", "", "", "A"]] {
            let verdict = Place::new().of(0.42, &found);
            assert_eq!(
                (verdict.status, verdict.class, verdict.confidence),
                (Status::OutOfDistribution, None, None)
            );
            assert!(
                verdict.reason.starts_with("unlike this archive: its 4 nearest images"),
                "{}",
                verdict.reason
            );
            assert!(verdict.prediction_sets.is_empty() && verdict.calibration.valid);
            assert!(verdict.votes[&class("A")] >= 2, "the vote is shown");
        }
    }

    #[test]
    fn what_lies_elsewhere_gets_no_suggestion_however_it_is_asked() {
        let elsewhere = || Place {
            unit: Some(Embedding::from_unit(vec![-1.0, 0.0])),
            ..Place::new()
        };
        type Change = fn(&mut Place);
        let asked: [Change; 4] = [
            |_| {},
            |p| p.origin = Origin::Vector,
            |p| p.ask.k = 3,
            |p| p.ask.classes = Some(classes(&["A"])),
        ];
        for change in asked {
            let mut place = elsewhere();
            change(&mut place);
            // By its neighbors it would belong here: a metric may take what it has never seen for nothing.
            let verdict = place.of(0.9, &["A"; 4]);
            assert_eq!((verdict.status, verdict.class), (Status::OutOfDistribution, None));
            assert!(verdict.reason.contains("1.67 times as far"), "{}", verdict.reason);
            let distance = verdict.mahalanobis.unwrap();
            assert!(
                (distance.distance - 2.0).abs() < 1e-6 && distance.max == 1.2,
                "{distance:?}"
            );
        }
        let not_known: [Change; 4] = [
            |p| p.origin = Origin::Region,
            |p| p.origin = Origin::Archive,
            |p| p.set("A", 37),
            |p| p.unit = None,
        ];
        for change in not_known {
            let mut place = elsewhere();
            change(&mut place);
            let verdict = place.of(0.9, &["A"; 4]);
            assert_eq!((verdict.status, verdict.mahalanobis), (Status::Suggested, None));
        }
        assert!(
            Place::new()
                .of(0.9, &["A"; 4])
                .mahalanobis
                .is_some_and(|distance| distance.distance < 1e-3)
        );
    }

    #[test]
    fn doubt_takes_the_suggestion_back() {
        // A and B are left of three classes, and neither is likelier: a tie that the nearer case decides stands.
        let tie = Place::new().of(0.9, &["A", "A", "B", "B"]);
        assert_eq!(tie.prediction_sets[0].classes, classes(&["A", "B"]));
        assert_eq!((tie.status, tie.class), (Status::Suggested, Some(class("A"))));

        let because = |change: fn(&mut Calibration), found: &[&str]| {
            let mut place = Place::new();
            change(&mut place.calibration);
            let verdict = place.of(0.9, found);
            assert_eq!(
                (verdict.status, verdict.class, verdict.confidence),
                (Status::Inconclusive, None, None)
            );
            verdict.reason
        };
        let likelier = because(|c| c.shares.offsets = vec![0.0, 2.0, 0.0], &["A", "A", "B", "C"]);
        assert_eq!(
            likelier,
            "2 of 4 labelled A, but known cases with such neighbors are more often B"
        );
        // The bar for C is higher.
        let ruled_out = because(|c| c.levels[0].thresholds[0] = Some(0.9), &["C", "C", "A", "B"]);
        assert!(
            ruled_out.ends_with("known cases of C seldom have so few such neighbors: it is ruled out at 90 %"),
            "{ruled_out}"
        );
        let none = because(|c| c.levels[0].thresholds = vec![Some(0.1); 3], &["A", "A", "B", "B"]);
        assert!(none.ends_with("none is left at 90 %"), "{none}");
        let all = because(|c| c.levels[0].thresholds = vec![Some(1.0); 3], &["A", "A", "B", "B"]);
        assert!(all.ends_with("A, B and C can't be told apart at 90 %"), "{all}");
        let both_known = because(
            |c| c.levels[0].thresholds = vec![Some(1.0), Some(1.0), None],
            &["A", "A", "B", "B"],
        );
        assert!(
            both_known.ends_with("A and B can't be told apart at 90 %"),
            "{both_known}"
        );

        // Nobody can say whether a class without enough cases is ruled out.
        let mut place = Place::new();
        place.calibration.levels[0].thresholds = vec![Some(0.1), Some(0.1), None];
        let verdict = place.of(0.9, &["C", "C", "A", "B"]);
        assert_eq!((verdict.status, verdict.class), (Status::Suggested, Some(class("C"))));
        assert_eq!(verdict.prediction_sets[0].not_available, classes(&["C"]));
    }

    #[test]
    fn says_why_it_does_not_apply() {
        type Change = fn(&mut Place);
        let changes: [(Change, &str); 15] = [
            (|p| p.origin = Origin::Archive, "in the archive"),
            (|p| p.origin = Origin::Region, "whole images"),
            (|p| p.origin = Origin::Vector, "of a vector"),
            (|p| p.ask.k = 3, "the majority of 4 neighbors"),
            (|p| p.ask.vote = VoteMethod::Prior, "the majority of 4 neighbors"),
            (|p| p.ask.exclude.patient = false, "same patient"),
            (|p| p.ask.liked = vec![record(7, None, None).id], "moved by examples"),
            (|p| p.ask.classes = Some(classes(&["A"])), "only a part"),
            (|p| p.ask.sources = Some(vec!["x".into()]), "only a part"),
            (|p| p.ask.exclude_sources = vec!["x".into()], "only a part"),
            (|p| p.complete = false, "did not answer"),
            (|p| p.set("A", 37), "A had 30 images when it was fitted and has 37"),
            (|p| p.set("B", 31), "B had 40 images when it was fitted and has 31"),
            (|p| p.voting.retain(|class, _| class.as_str() != "A"), "other classes"),
            (|p| p.set("D", 1), "other classes"),
        ];
        for (change, why) in changes {
            let mut place = Place::new();
            change(&mut place);
            let verdict = place.of(0.1, &["A", "A", "A", "A"]);
            let note = &verdict.calibration;
            assert!(!note.valid && note.why_not.as_ref().unwrap().contains(why), "{note:?}");
            assert_eq!(verdict.status, Status::Suggested, "without it the vote stands as it is");
            assert_eq!((verdict.confidence, verdict.prediction_sets.len()), (None, 0));
        }
        let few = Place::new().of(0.9, &["A", "A", "", "A"]);
        assert!(
            few.calibration
                .why_not
                .unwrap()
                .contains("3 of the neighbors have a settled label")
        );
        let itself = Place::new().of(0.996, &["A"; 4]);
        assert!(itself.calibration.why_not.unwrap().contains("nearly identical"));
        let mut grown = Place::new();
        grown.set("A", 36);
        assert!(
            grown.of(0.9, &["A"; 4]).calibration.valid,
            "a fifth more is not too much"
        );
    }
}
