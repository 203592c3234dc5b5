//! The evaluation that an archive keeps: what of it is kept, and what has changed since.

use std::collections::BTreeMap;

use crate::archive::{EvaluationEntry, Made, Manifest, NewEvaluation};
use crate::domain::ClassLabel;
use crate::error::{Error, ErrorKind, Result};
use crate::quality::evaluation::Evaluation;

/// The kept evaluation as it was read.
#[derive(Debug, Clone)]
pub enum Kept {
    /// None was kept.
    No,
    /// There is one, which can't be read.
    Unreadable,
    /// It is here.
    Yes(Box<(EvaluationEntry, Evaluation)>),
}

impl Kept {
    /// What was read from an archive.
    pub fn read(entry: &EvaluationEntry, report: Result<serde_json::Value>) -> Self {
        let report = report.inspect_err(|error| {
            tracing::error!(object = entry.object, error = %error, "the kept evaluation can't be read; `medsearch evaluate --keep` makes another");
        });
        let read = report.ok().and_then(|report| serde_json::from_value(report).ok());
        read.map_or(Self::Unreadable, |evaluation| {
            Self::Yes(Box::new((entry.clone(), evaluation)))
        })
    }
}

/// An evaluation as it may be kept: without the confident mistakes, which name images, and without what is drawn only. `manifest` is the version that
/// was asked.
///
/// # Errors
/// `Internal` when it can't be written as JSON and read again.
pub fn to_keep(evaluation: &Evaluation, manifest: &Manifest) -> Result<NewEvaluation> {
    let mut kept = evaluation.clone();
    kept.hardest.clear();
    kept.selective.risk_coverage.clear();
    kept.precision_recall.iter_mut().for_each(|curve| curve.points.clear());
    let images: BTreeMap<ClassLabel, u64> = (kept.protocol.classes.iter())
        .map(|class| Ok((ClassLabel::parse(&class.class)?, class.images as u64)))
        .collect::<Result<_>>()?;
    let unreadable = |error| Error::with_source(ErrorKind::Internal, "the evaluation can't be kept as JSON", error);
    let report = serde_json::to_value(&kept).map_err(unreadable)?;
    // A figure that is no number would come back as none.
    let _: Evaluation = serde_json::from_value(report.clone()).map_err(unreadable)?;
    let made_at = (kept.protocol.made_at.parse()).unwrap_or_else(|_| jiff::Timestamp::now());
    Ok(NewEvaluation {
        made: Made {
            made_at,
            made_on: manifest.version,
            images,
            split: kept.protocol.split,
            space: manifest.space.id(),
            metric: manifest.metric.as_ref().map(|metric| metric.object.clone()),
            learned: kept.protocol.metric.is_some(),
            other: Default::default(),
        },
        report,
    })
}

/// Why an evaluation may not hold for an archive as it is now, a sentence each; none: it does. `voting`: images of each class that vote.
pub fn caveats(made: &Made, manifest: &Manifest, voting: &BTreeMap<ClassLabel, u64>) -> Vec<String> {
    let mut caveats = Vec::new();
    if made.space != manifest.space.id() {
        caveats.push("It was made of vectors of another space: none of its figures holds here.".to_owned());
    }
    match (&manifest.metric, made.learned) {
        (Some(_), false) => caveats.push(
            "The archive is searched by a learned metric; the figures are of the model's vectors as they are (medsearch evaluate --learn --keep \
             measures what such a metric brings)."
                .to_owned(),
        ),
        (None, true) => caveats.push(
            "The archive is searched by the model's vectors as they are; the figures are with a metric that was learned for each test.".to_owned(),
        ),
        (Some(_), true) => caveats.push(
            "The figures are with metrics that were learned for each test from other groups, not with the very metric that the archive is searched by."
                .to_owned(),
        ),
        (None, false) => {}
    }
    if made.metric != manifest.metric.as_ref().map(|metric| metric.object.clone()) {
        caveats.push("The metric that the archive is searched by has changed since.".to_owned());
    }
    let (then, now): (u64, u64) = (made.images.values().sum(), voting.values().sum());
    if fifth(then, now) {
        caveats.push(format!(
            "The archive had {then} images with a label when it was measured and has {now}."
        ));
    }
    let (gone, new): (Vec<_>, Vec<_>) = (
        made.images
            .keys()
            .filter(|class| !voting.contains_key(*class))
            .collect(),
        voting
            .keys()
            .filter(|class| !made.images.contains_key(*class))
            .collect(),
    );
    for (classes, what) in [(gone, "are no longer there"), (new, "are new since")] {
        if !classes.is_empty() {
            let names: Vec<&str> = classes.iter().map(|class| class.as_str()).collect();
            caveats.push(format!("Classes that {what}: {}.", names.join(", ")));
        }
    }
    for (class, &then) in &made.images {
        if let Some(&now) = voting.get(class)
            && fifth(then, now)
        {
            caveats.push(format!("{class} had {then} images when it was measured and has {now}."));
        }
    }
    caveats
}

/// More than a fifth more or fewer, as calibrations judge it.
fn fifth(then: u64, now: u64) -> bool {
    now * 5 > then * 6 || now * 5 < then * 4
}
