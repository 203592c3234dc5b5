//! From an archive to an [`Evaluation`].

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::ask::{Answer, Voter};
use super::asked::{Asked, Asking, Rule, ask_all, asks};
use super::cases::Cases;
use super::confidence::{self, LEVELS, Tests};
use super::evaluation::{
    Available, ClassCount, Copies, Evaluation, Floor, HardCase, LearnedMetric, Outside, Picture, Protocol,
};
use super::figures::{Decided, retrieval};
use super::floors::Floors;
use super::learned::{Candidate, Learner, choices};
use super::masked::{Masked, controls};
use super::metric::FitSettings;
use super::recall::recall;
use super::separation::{auroc, false_positives_at};
use super::shortcuts::Guards;
use super::subject::{Opened, Pictures};
use super::views::{Plan, Split, plan};
use crate::domain::{ClassLabel, Embedding, VoteMethod};
use crate::error::Result;

/// Mistakes that are shown.
const HARDEST_MAX: usize = 12;
/// Neighbors that are shown of each.
const SHOWN_NEIGHBORS: usize = 5;

/// How it is evaluated.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How queries and archive are kept apart.
    pub split: Split,
    /// Seeds 0 to one less.
    pub seeds: usize,
    /// Neighbors that vote.
    pub k: usize,
    /// How they are weighed.
    pub vote: VoteMethod,
    /// Resamples behind every interval.
    pub resamples: usize,
    /// Learn a metric, for each test from other groups.
    pub learn: bool,
}

/// What is evaluated.
pub struct Subject {
    /// The archive that is asked.
    pub archive: Opened,
    /// Images to ask about that are not in it; absent: its own.
    pub queries: Option<Opened>,
    /// Images that do not belong into it, by family.
    pub outside: BTreeMap<ClassLabel, Vec<Embedding>>,
    /// All of its images.
    pub cases: Cases,
    /// The same as 32×32 grey values, or why not.
    pub thumbnails: std::result::Result<Cases, String>,
    /// The queries with a part of each blacked out, or why there are none.
    pub masked: std::result::Result<Vec<Masked>, String>,
    /// Their small pictures.
    pub pictures: Pictures,
    /// Images that are near duplicates of another one, where there are pictures to tell.
    pub near_duplicates: Available<Copies>,
    /// The spaces that a metric may be learned in, the archive's own first.
    pub candidates: Vec<Candidate>,
}

/// Steps of [`evaluate`], for a progress bar: `done` is called so many times.
pub fn steps(subject: &Subject, settings: &Settings) -> usize {
    let plan = |learning| plan(&subject.cases, settings.split, settings.seeds, learning);
    let plain = plan(false);
    let mut steps = asks(&plan(settings.learn), true);
    if subject.thumbnails.is_ok() {
        steps += asks(&plain, false);
    }
    if settings.learn {
        let learned = plan(true);
        let alone = if subject.candidates.len() > 1 {
            subject.candidates.len()
        } else {
            0
        };
        steps += (1 + alone) * choices(&learned) + alone * asks(&learned, false);
        steps += subject.candidates.len() * asks(&plain, false);
    }
    steps
}

/// Runs the whole protocol. `done` is called once for each of [`steps`].
///
/// # Errors
/// What learning, building a graph or searching refuses.
pub fn evaluate(subject: &Subject, settings: &Settings, done: impl Fn() + Sync) -> Result<Evaluation> {
    let cases = &subject.cases;
    let plan_of = |learning| plan(cases, settings.split, settings.seeds, learning);
    let (plain, plan) = (plan_of(false), plan_of(settings.learn));
    let asking = Asking {
        k: settings.k,
        method: settings.vote,
        extra: true,
    };
    let learner = match settings.learn {
        true => Some(Learner::choose(&subject.candidates, &plan, asking, &done)?),
        false => None,
    };
    let space = |fit: usize| match &learner {
        Some(learner) => learner.space(fit).map(Cow::Owned),
        None => Ok(Cow::Borrowed(cases)),
    };
    let asked = ask_all(cases, &plan, asking, space, &done)?;
    let items: Vec<usize> = cases.asked().collect();
    let shares: Vec<Vec<f64>> = items
        .iter()
        .map(|&item| asked.decided(item, cases.classes.len()))
        .collect();
    let decided = Decided {
        cases,
        items: &items,
        shares: &shares,
        resamples: settings.resamples,
    };
    let floors = Floors {
        cases,
        plan: &plain,
        items: &items,
        asking,
        ours: &shares,
        resamples: settings.resamples,
    };
    let thumbnail = match &subject.thumbnails {
        Ok(thumbnails) => floors.thumbnail(thumbnails, &done)?,
        Err(why) => floors.no_thumbnail(why),
    };
    let less_learned = match settings.learn {
        true => less_learned(subject, &floors, &plan, &done)?,
        false => vec![],
    };
    let guards = Guards {
        cases,
        asked: &asked,
        items: &items,
        resamples: settings.resamples,
    };
    let tests = confidence::run(cases, &plan, &asked);
    Ok(Evaluation {
        protocol: protocol(subject, settings, learner.as_ref()),
        retrieval: retrieval(cases, &items, &asked.lists, settings.resamples),
        decisions: decided.all(),
        floors: vec![floors.majority(), floors.random(), thumbnail, floors.source_oracle()],
        less_learned,
        confidence: Available::Yes(tests.confidence(cases)),
        prediction_sets: tests.sets(cases),
        selective: tests.selective(cases),
        precision_recall: tests.precision_recall(cases),
        shortcuts: guards.shortcuts(),
        controls: match &subject.masked {
            Ok(masked) => Available::Yes(controls(cases, masked, asking, settings.resamples)),
            Err(why) => Available::no(why),
        },
        leakage: guards.leakage(),
        outside: outside(subject, &plan, &asked, &items, asking, learner.as_ref())?,
        index: recall(cases, settings.vote)?,
        explanations: None,
        hardest: hardest(subject, &plan, &asked, &tests),
        notes: notes(subject, settings),
    })
}

/// What each part of the learning brings: every space as it is, and with a metric of its own where there are several.
fn less_learned(subject: &Subject, floors: &Floors<'_>, plan: &Plan, done: &(impl Fn() + Sync)) -> Result<Vec<Floor>> {
    let mut less = Vec::new();
    for candidate in &subject.candidates {
        let name = format!("{}, nothing learned", candidate.name);
        let sees = "the model's vectors, compared as they are";
        less.push(floors.asked(&name, sees, floors.plan, |_| Ok(&candidate.cases), done)?);
    }
    if subject.candidates.len() > 1 {
        for candidate in &subject.candidates {
            let learner = Learner::choose(std::slice::from_ref(candidate), plan, floors.asking, done)?;
            let name = format!("{}, metric learned", candidate.name);
            let sees = "the vectors of this model alone, by a metric learned from other groups";
            less.push(floors.asked(&name, sees, plan, |fit| learner.space(fit), done)?);
        }
    }
    Ok(less)
}

fn protocol(subject: &Subject, settings: &Settings, learner: Option<&Learner<'_>>) -> Protocol {
    let cases = &subject.cases;
    let manifest = &subject.archive.version.state.manifest;
    let of = |class: usize| {
        let (queries, images) = (
            cases.count(|case| case.asked)[class],
            cases.count(|case| case.indexed)[class],
        );
        ClassCount {
            class: cases.classes[class].to_string(),
            queries,
            images,
            groups: cases.groups(|case| case.class == class),
        }
    };
    let mut sources = BTreeMap::new();
    for case in &cases.items {
        if let Some(source) = case.source {
            *sources.entry(cases.sources[source].clone()).or_insert(0) += 1;
        }
    }
    let model = manifest
        .model
        .as_ref()
        .and_then(|model| model.card.get("name")?.as_str().map(str::to_owned));
    Protocol {
        what: manifest.archive.name.clone(),
        archive_version: manifest.version,
        space: manifest.space.id().to_string(),
        model: model.unwrap_or_else(|| "not stored in the archive".to_owned()),
        queries: cases.asked().count(),
        images: cases.items.iter().filter(|case| case.indexed).count(),
        groups: cases.groups(|_| true),
        near_duplicates: subject.near_duplicates.clone(),
        images_with_patient: cases.items.iter().filter(|case| case.patient.is_some()).count(),
        without_label: cases.without_label,
        classes: (0..cases.classes.len()).map(of).collect(),
        sources,
        split: split_in_words(subject, settings),
        seeds: (0..settings.seeds as u64).collect(),
        metric: learner.map(|learner| LearnedMetric {
            method: format!(
                "within-class whitening with shrinkage, at most {} directions, learned for each test from the other groups; shrinkage and space are \
                 chosen within what is learned from",
                FitSettings::default().components
            ),
            chosen: learner.chosen(),
            tried: learner.tried(),
        }),
        k: settings.k,
        vote: match settings.vote {
            VoteMethod::Majority => "majority",
            VoteMethod::Distance => "distance",
            VoteMethod::Prior => "prior",
        }
        .to_owned(),
        resamples: settings.resamples,
        made_at: jiff::Timestamp::now().to_string(),
    }
}

fn split_in_words(subject: &Subject, settings: &Settings) -> String {
    match (&subject.queries, settings.split) {
        (Some(_), _) => "A separate set of queries: each is asked about in the whole archive without its group.".into(),
        (None, Split::LeaveGroupOut) => "Each image is asked about in the whole archive without its group.".into(),
        (None, Split::Folds(folds)) => {
            format!("{folds} folds of whole groups: the images of each are asked about in the others.")
        }
    }
}

/// How much at home an image is: its similarity to the last neighbor that votes, in the whole archive without its own group. Similarities of two
/// learned spaces can't be compared: where a metric is learned, both sides are asked by the first fit, which has learned from neither.
fn outside(
    subject: &Subject,
    plan: &Plan,
    asked: &Asked,
    items: &[usize],
    asking: Asking,
    learner: Option<&Learner<'_>>,
) -> Result<Vec<Outside>> {
    let last = |answer: &Answer| {
        answer
            .neighbors
            .last()
            .map_or(-1.0, |&(similarity, _)| f64::from(similarity))
    };
    let home: Vec<f64> = items
        .iter()
        .filter(|&&item| {
            asked.test_views[item]
                .first()
                .is_some_and(|&view| plan.views[view].fit == 0)
        })
        .filter_map(|&item| asked.by_rule(item, Rule::Guarded).next())
        .map(last)
        .collect();
    let mut families = Vec::new();
    for (family, vectors) in &subject.outside {
        let (space, vectors) = match learner.map(|learner| learner.with_others(vectors)).transpose()? {
            Some(Some((space, vectors))) => (Cow::Owned(space), vectors),
            // The other images are known in the archive's own space alone, where nothing was asked.
            Some(None) => continue,
            None => {
                let vectors = vectors.iter().map(|vector| vector.as_slice().to_vec()).collect();
                (Cow::Borrowed(&subject.cases), vectors)
            }
        };
        let voter = Voter {
            cases: &space,
            k: asking.k,
            method: asking.method,
        };
        let away = |vector: &Vec<f32>| last(&voter.answer(&space.ranked(vector), |_, _| true));
        let away: Vec<f64> = vectors.iter().map(away).collect();
        families.push(Outside {
            family: family.to_string(),
            images: vectors.len(),
            auroc: auroc(&home, &away),
            false_positives_at_95: false_positives_at(&home, &away, 0.95),
        });
    }
    Ok(families)
}

/// Wrong suggestions of the first seed, the most confident first; one per group.
fn hardest(subject: &Subject, plan: &Plan, asked: &Asked, tests: &Tests) -> Vec<HardCase> {
    let cases = &subject.cases;
    let wrong = |test: &&confidence::Test| {
        test.seed == 0
            && test
                .suggested
                .is_some_and(|class| class != cases.items[test.item].class)
    };
    let mut mistakes: Vec<(f64, &confidence::Test)> = (tests.tests.iter().filter(wrong))
        .filter_map(|test| Some((test.probabilities[test.suggested?], test)))
        .collect();
    mistakes.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.item.cmp(&b.1.item)));
    let mut groups = std::collections::BTreeSet::new();
    mistakes.retain(|mistake| groups.insert(cases.items[mistake.1.item].group));
    let picture = |item: usize, similarity: f32| {
        let case = &cases.items[item];
        Picture {
            id: case.record.id.to_string(),
            file: case.record.file.clone(),
            class: cases.classes[case.class].to_string(),
            source: case.source.map(|source| cases.sources[source].clone()),
            similarity,
            thumbnail: subject.pictures.url(case.record.id),
        }
    };
    let view_of = |item: usize| {
        plan.rounds
            .iter()
            .find(|round| round.test.contains(&item))
            .map(|round| round.view)
    };
    mistakes
        .into_iter()
        .take(HARDEST_MAX)
        .filter_map(|(confidence, test)| {
            let neighbors = &asked.answers[test.item].get(&view_of(test.item)?)?.neighbors;
            Some(HardCase {
                query: picture(test.item, 1.0),
                suggested: test.suggested.map(|class| cases.classes[class].to_string()),
                confidence,
                neighbors: (neighbors.iter().take(SHOWN_NEIGHBORS))
                    .map(|&(similarity, at)| picture(at as usize, similarity))
                    .collect(),
            })
        })
        .collect()
}

fn notes(subject: &Subject, settings: &Settings) -> Vec<String> {
    let cases = &subject.cases;
    let mut notes = Vec::new();
    let patients = cases.items.iter().filter(|case| case.patient.is_some()).count();
    match patients {
        0 => notes.push(
            "No patient is known: images of one patient may stand on both sides of the split, and figures may be too good."
                .to_owned(),
        ),
        some if some < cases.items.len() => notes.push(format!(
            "Of {} of {} images the patient is not known: each counts as a patient of its own.",
            cases.items.len() - some,
            cases.items.len()
        )),
        _ => {}
    }
    match &subject.near_duplicates {
        Available::No { not_available } => notes.push(format!(
            "Near duplicates were not looked for ({not_available}): a picture may be on both sides of the split, and figures too good."
        )),
        Available::Yes(Copies { not_compared, .. }) if *not_compared > 0 => notes.push(format!(
            "{not_compared} images have no picture to compare: near duplicates of them may be on both sides of the split, and figures too good."
        )),
        Available::Yes(_) => {}
    }
    let alone_in_class: Vec<&str> = (0..cases.classes.len())
        .filter(|&class| cases.groups(|case| case.indexed && case.class == class) < 2)
        .map(|class| cases.classes[class].as_str())
        .collect();
    if !alone_in_class.is_empty() {
        notes.push(format!(
            "Of {} there are fewer than two groups to be found: a query of it has little or nothing of its class to find.",
            alone_in_class.join(", ")
        ));
    }
    if cases.sources.len() > 1 && alone(cases) > 0 {
        notes.push(format!(
            "{} of {} classes come from a single source each that has no other class: to know the source is to know the class. Read the source \
             oracle first.",
            alone(cases),
            cases.classes.len()
        ));
    }
    if cases.without_label > 0 {
        notes.push(format!(
            "{} images have no label that counts and are left out.",
            cases.without_label
        ));
    }
    let smallest = (0..cases.classes.len())
        .map(|class| cases.groups(|case| case.class == class))
        .min()
        .unwrap_or(0);
    if smallest < 100 {
        notes.push(format!(
            "The smallest class has {smallest} groups: read the intervals, not the values. At {:.0} % a class needs 19 groups to be calibrated on.",
            LEVELS[1] * 100.0
        ));
    }
    if subject.archive.version.state.manifest.metric.is_some() {
        notes.push(
            "The archive is searched by a learned metric, which has seen these images and would flatter: the figures are of the model's vectors. \
             `--learn` says what such a metric brings where it was not learned."
                .to_owned(),
        );
    }
    if settings.learn && !subject.outside.is_empty() {
        notes.push(
            "Images that do not belong are told apart by the metric of one fold alone, if it was learned in the archive's own space; else they are left out."
                .to_owned(),
        );
    }
    if settings.resamples < 1000 {
        notes.push(format!("Intervals are of {} resamples only.", settings.resamples));
    }
    notes.push("A label is what the data set says, which may be wrong, and need not be visible in the image.".into());
    notes
}

/// Classes of one source only, which has no other class.
fn alone(cases: &Cases) -> usize {
    let mut pairs: Vec<(usize, Option<usize>)> = cases.items.iter().map(|case| (case.class, case.source)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    (0..cases.classes.len())
        .filter(|&class| {
            let sources: Vec<Option<usize>> = pairs.iter().filter(|pair| pair.0 == class).map(|pair| pair.1).collect();
            matches!(sources[..], [Some(source)] if pairs.iter().filter(|pair| pair.1 == Some(source)).count() == 1)
        })
        .count()
}
