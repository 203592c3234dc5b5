//! Shapes of everything about the archive and its images.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::RecordFacts;
use super::ask::frame;
use super::{ImageFile, LabelSource, Names, Vote, Window, rendered_path, thumbnail_path};
use crate::archive::{CalibrationEntry, EvaluationEntry, Link, MetricEntry, Outcome};
use crate::domain::{self, Calibration, ClassLabel, ImageId, K_MAX, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::http::HttpSettings;
use crate::http::upload::{FromParts, Parts};
use crate::ingest::{Labels, Receipt};
use crate::quality::card::Kept;
use crate::quality::evaluation::Interval;
use crate::search::{Overview, Upload};

/// The archive that is served.
#[derive(Debug, Serialize, ToSchema)]
pub struct ArchiveInfo {
    /// Its name.
    pub name: String,
    /// Number of the manifest that is served.
    pub version: u64,
    /// All images.
    pub images: usize,
    /// Images with a class.
    pub labelled: usize,
    /// Images with a class that does not vote, since their pixels, or copies of their picture, have several.
    pub conflicts: usize,
    /// Images that are a copy of another one: of equal pixels, or near-identical. A search shows and counts them once.
    pub near_identical: usize,
    /// Its classes.
    pub classes: Vec<ClassCount>,
    /// Where its images come from.
    pub sources: Vec<String>,
    /// The space of its vectors.
    pub space: SpaceInfo,
    /// The learned metric by which it is searched; null: cosine.
    #[schema(required)]
    pub metric: Option<MetricInfo>,
    /// The calibration of its votes; null: answers have no confidence.
    #[schema(required)]
    pub calibration: Option<CalibrationInfo>,
    /// It is here to be tried out.
    pub demo: bool,
    /// Its images were made by a program.
    pub synthetic: bool,
    /// Under what licence its images are.
    #[schema(required)]
    pub licence: Option<String>,
    /// What images it is meant for: modality, body part, view.
    #[schema(value_type = Object)]
    pub scope: serde_json::Value,
    /// Which windows its DICOM images have, and those that are sent get; empty: all by percentile.
    pub windows: Vec<WindowRule>,
    /// What is kept of pixels: `original`, `view` or `thumbnail`.
    #[schema(example = "view")]
    pub retention: String,
    /// Whether pseudonyms can be turned back by those allowed to: `linked` or `anonymous`.
    #[schema(example = "anonymous")]
    pub identity: String,
    /// RFC 3339 time at which it was made.
    pub created_at: String,
    /// Images to try; empty unless it is a demo.
    pub samples: Vec<Sample>,
    /// What a request may hold.
    pub limits: Limits,
    /// Whether requests need a key.
    pub authentication: Authentication,
    /// Whether images can be added, changed and deleted.
    pub writable: bool,
}

/// A class.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClassCount {
    /// Its name.
    pub name: String,
    /// Its images.
    pub images: usize,
}

/// The classes of the archive.
#[derive(Debug, Serialize, ToSchema)]
pub struct Classes {
    /// By name.
    pub classes: Vec<ClassCount>,
}

/// Everything that decides what a vector means.
#[derive(Debug, Serialize, ToSchema)]
pub struct SpaceInfo {
    /// Its short name.
    pub id: String,
    /// SHA-256 over the network's tensors.
    pub weights_sha256: String,
    /// The layers whose activations are pooled.
    pub layers: Vec<String>,
    /// How they are pooled.
    pub pooling: String,
    /// Which views of an image are averaged or joined.
    pub views: Vec<String>,
    /// Components of a vector.
    pub dimension: usize,
    /// How pixels become the model's input.
    pub pixel_pipeline: String,
}

/// Which window DICOM images of a kind get. The first rule that fits an image decides; without one its window is by percentile.
#[derive(Debug, Serialize, ToSchema)]
pub struct WindowRule {
    /// Of this modality; null: of any.
    #[schema(required, example = "CT")]
    pub modality: Option<String>,
    /// Of this body part; null: of any.
    #[schema(required, example = "HEAD")]
    pub body_part: Option<String>,
    /// Which one.
    #[serde(rename = "use")]
    pub window: WindowUse,
    /// Center of a fixed one, in values of the modality; else null.
    #[schema(required, example = -600.0)]
    pub center: Option<f64>,
    /// Width of a fixed one; else null.
    #[schema(required, example = 1500.0)]
    pub width: Option<f64>,
}

/// Where a window comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WindowUse {
    /// The rule.
    Fixed,
    /// The file.
    File,
    /// Percentiles of the stored values.
    Percentile,
}

impl WindowRule {
    fn new(rule: &domain::WindowRule) -> Self {
        let (window, center, width) = match rule.window {
            domain::WindowUse::Fixed { center, width } => (WindowUse::Fixed, Some(center), Some(width)),
            domain::WindowUse::File => (WindowUse::File, None, None),
            domain::WindowUse::Percentile => (WindowUse::Percentile, None, None),
        };
        Self {
            modality: rule.modality.clone(),
            body_part: rule.body_part.clone(),
            window,
            center,
            width,
        }
    }
}

/// A learned metric: what varies within a class counts less.
#[derive(Debug, Serialize, ToSchema)]
pub struct MetricInfo {
    /// Its short name.
    #[schema(example = "fedcba9876543210fedcba9876543210")]
    pub id: String,
    /// How it was learned.
    #[schema(example = "within-class whitening")]
    pub method: String,
    /// Components of the vectors that are compared.
    pub components: usize,
    /// The share of the identity in the scatter, 0 to 1.
    pub shrinkage: f64,
    /// RFC 3339 time at which it was learned.
    pub fitted_at: String,
    /// The archive's version that it was learned from.
    pub fitted_on: u64,
    /// Images of each class that it was learned from.
    pub images: Vec<ClassCount>,
    /// Groups (patients, copies of a picture) that they are of.
    pub groups: u64,
    /// What it brought on images that it had not seen.
    pub held_out: HeldOut,
}

/// Balanced accuracy on groups that were left out when learning. What was chosen was chosen by it, which flatters a little.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeldOut {
    /// With the vectors as they are, 0 to 1.
    pub without: f64,
    /// With the metric, 0 to 1.
    pub with: f64,
    /// Parts of whole groups, each left out once.
    pub parts: u64,
}

impl MetricInfo {
    fn new(metric: &MetricEntry) -> Self {
        let fitted = &metric.fitted;
        Self {
            id: metric.id().to_owned(),
            method: fitted.method.clone(),
            components: metric.components,
            shrinkage: fitted.shrinkage,
            fitted_at: fitted.fitted_at.to_string(),
            fitted_on: fitted.fitted_on,
            images: (fitted.images.iter())
                .map(|(class, &images)| ClassCount {
                    name: class.to_string(),
                    images: images as usize,
                })
                .collect(),
            groups: fitted.groups,
            held_out: HeldOut {
                without: fitted.held_out.without,
                with: fitted.held_out.with,
                parts: fitted.held_out.parts,
            },
        }
    }
}

/// What votes are calibrated for.
#[derive(Debug, Serialize, ToSchema)]
pub struct CalibrationInfo {
    /// Its short name.
    #[schema(example = "76543210fedcba9876543210fedcba98")]
    pub id: String,
    /// It can be used; not so if its file is damaged.
    pub readable: bool,
    /// Neighbors that vote.
    #[schema(required)]
    pub k: Option<usize>,
    /// How they vote.
    #[schema(required)]
    pub vote: Option<Vote>,
    /// Its classes.
    pub classes: Vec<CalibratedClass>,
    /// RFC 3339 time at which it was fitted.
    pub fitted_at: String,
    /// The archive's version that it was fitted on.
    pub fitted_on: u64,
}

/// What a class is calibrated on.
#[derive(Debug, Serialize, ToSchema)]
pub struct CalibratedClass {
    /// Its name.
    pub name: String,
    /// Groups (patients, copies of a picture): to be ruled out at 90 % a class needs 9, at 95 % 19.
    pub groups: u64,
    /// Images that vote: the calibration is not used once they are a fifth more or fewer.
    #[schema(required)]
    pub images: Option<u64>,
}

impl CalibrationInfo {
    fn new(entry: &CalibrationEntry, calibration: Option<&Calibration>) -> Self {
        Self {
            id: entry.id().to_owned(),
            readable: calibration.is_some(),
            k: calibration.map(|calibration| calibration.k),
            vote: calibration.map(|calibration| calibration.vote.into()),
            classes: (entry.groups.iter())
                .map(|(class, &groups)| CalibratedClass {
                    name: class.to_string(),
                    groups,
                    images: calibration.and_then(|calibration| {
                        let at = calibration.classes.binary_search(class).ok()?;
                        calibration.images.get(at).copied()
                    }),
                })
                .collect(),
            fitted_at: entry.fitted_at.to_string(),
            fitted_on: entry.fitted_on,
        }
    }
}

/// An image to try.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sample {
    /// The image.
    pub id: String,
    /// Its class.
    pub class: String,
    /// Path of the small picture.
    pub thumbnail: String,
    /// Path of the large picture.
    pub rendered: String,
}

/// What a request may hold.
#[derive(Debug, Serialize, ToSchema)]
pub struct Limits {
    /// Most bytes of a file.
    pub upload_bytes_max: usize,
    /// Most pixels of an image.
    pub pixels_max: u64,
    /// Most neighbors.
    pub k_max: usize,
}

/// Whether requests need a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Authentication {
    /// The server listens on this machine only.
    None,
    /// `Authorization: Bearer KEY` or `X-API-Key: KEY`.
    ApiKey,
}

impl ArchiveInfo {
    /// The archive as it is shown.
    pub fn new(archive: Overview, settings: &HttpSettings, writable: bool) -> Self {
        let space = archive.space;
        // A manifest whose table is not understood is not read.
        let windows = space.windows().unwrap_or_default();
        Self {
            name: archive.name,
            version: archive.version,
            images: archive.images,
            labelled: archive.labelled,
            conflicts: archive.conflicts,
            near_identical: archive.near_identical,
            classes: Classes::new(&archive.classes).classes,
            sources: archive.sources,
            space: SpaceInfo {
                id: space.id().to_string(),
                weights_sha256: space.weights_sha256,
                layers: space.layers,
                pooling: space.pooling,
                views: space.views,
                dimension: space.dimension,
                pixel_pipeline: space.pixel_pipeline,
            },
            metric: archive.metric.as_ref().map(MetricInfo::new),
            calibration: (archive.calibration.as_ref())
                .map(|(entry, calibration)| CalibrationInfo::new(entry, calibration.as_deref())),
            demo: archive.demo,
            synthetic: archive.synthetic,
            licence: archive.licence,
            scope: archive.scope,
            windows: windows.rules().iter().map(WindowRule::new).collect(),
            retention: archive.retention,
            identity: archive.identity,
            created_at: archive.created_at,
            samples: archive
                .samples
                .into_iter()
                .map(|(id, class)| Sample {
                    id: id.to_string(),
                    class: class.to_string(),
                    thumbnail: thumbnail_path(id),
                    rendered: rendered_path(id),
                })
                .collect(),
            limits: Limits {
                upload_bytes_max: settings.upload_bytes_max,
                pixels_max: settings.pixels_max,
                k_max: K_MAX,
            },
            authentication: match settings.credentials {
                Some(_) => Authentication::ApiKey,
                None => Authentication::None,
            },
            writable,
        }
    }
}

impl Classes {
    /// Classes with their counts.
    pub fn new(classes: &[(ClassLabel, usize)]) -> Self {
        let count = |(class, images): &(ClassLabel, usize)| ClassCount {
            name: class.to_string(),
            images: *images,
        };
        Self {
            classes: classes.iter().map(count).collect(),
        }
    }
}

/// The model card, with where the model runs.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelInfo {
    /// The members of the card `model.json`: name, architecture, weights, input, space, …
    #[serde(flatten)]
    #[schema(value_type = std::collections::BTreeMap<String, serde_json::Value>)]
    pub card: serde_json::Map<String, serde_json::Value>,
    /// How well the model does on this archive; null: not measured.
    #[schema(required)]
    pub evaluation: Option<EvaluationInfo>,
}

/// The evaluation that is kept with the archive, in short; `/v1/model/card` has all of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EvaluationInfo {
    /// Its short name.
    #[schema(example = "fedcba9876543210fedcba9876543210")]
    pub id: String,
    /// It can be used; not so if its file is damaged.
    pub readable: bool,
    /// RFC 3339 time at which it was made.
    pub made_at: String,
    /// The archive's version whose images were asked.
    pub made_on: u64,
    /// How queries and archive were kept apart, in words.
    pub split: String,
    /// A metric was learned anew for each test.
    pub learned: bool,
    /// Mean sensitivity of the classes.
    #[schema(required)]
    pub balanced_accuracy: Option<Figure>,
    /// Share of right suggestions.
    #[schema(required)]
    pub accuracy: Option<Figure>,
    /// Why it may not hold for the archive as it is now, a sentence each.
    pub caveats: Vec<String>,
}

/// A figure with its 95 % interval.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Figure {
    /// The figure.
    pub value: f64,
    /// 2.5 % of the resamples are below.
    pub low: f64,
    /// 2.5 % of the resamples are above.
    pub high: f64,
}

impl EvaluationInfo {
    /// A kept evaluation as it is shown.
    pub fn new(entry: &EvaluationEntry, kept: &Kept, caveats: Vec<String>) -> Self {
        let decisions = match kept {
            Kept::Yes(kept) => Some(&kept.1.decisions),
            Kept::No | Kept::Unreadable => None,
        };
        let figure = |interval: Interval| Figure {
            value: interval.value,
            low: interval.low,
            high: interval.high,
        };
        Self {
            id: entry.id().to_owned(),
            readable: decisions.is_some(),
            made_at: entry.made.made_at.to_string(),
            made_on: entry.made.made_on,
            split: entry.made.split.clone(),
            learned: entry.made.learned,
            balanced_accuracy: decisions.and_then(|decisions| decisions.balanced_accuracy).map(figure),
            accuracy: decisions.and_then(|decisions| decisions.accuracy).map(figure),
            caveats,
        }
    }
}

impl ModelInfo {
    /// A card as it is shown, with the device that the model runs on.
    ///
    /// # Errors
    /// `Internal` for a card that is no object.
    pub fn new(card: serde_json::Value, device: String, evaluation: Option<EvaluationInfo>) -> Result<Self> {
        let serde_json::Value::Object(mut card) = card else {
            return Err(Error::internal("the model card is not an object"));
        };
        card.insert("device".into(), device.into());
        // What a card says under this name would hide ours.
        card.remove("evaluation");
        Ok(Self { card, evaluation })
    }
}

/// An image to add, with what is known about it.
pub struct NewImage {
    /// The image and whose it is.
    pub upload: Upload,
    /// What it shows.
    pub labels: Labels,
}

// How the API describes `NewImage`.
/// An image to add, with what is known about it.
#[derive(ToSchema)]
#[schema(as = NewImage)]
#[expect(dead_code, reason = "a description, never a value")]
pub struct NewImageFields {
    /// PNG, JPEG or DICOM, told apart by content.
    #[schema(value_type = ImageFile)]
    image: (),
    /// Which frame of a DICOM file, counted from 1: each is an image of its own.
    #[schema(default = 1, minimum = 1, maximum = 10000)]
    frame: Option<u32>,
    /// Its class; without one it is found but never votes.
    class: Option<String>,
    /// How the class was proven.
    label_source: Option<LabelSource>,
    /// Whose image this is; read from the file for DICOM. Kept as a pseudonym only.
    patient_id: Option<String>,
    /// Who issued the patient id.
    issuer: Option<String>,
    /// The Study Instance UID. Kept as a pseudonym only.
    study_uid: Option<String>,
    /// Where the image comes from.
    source: Option<String>,
    /// Projection, for example `PA`.
    view: Option<String>,
    /// Age in years.
    age: Option<String>,
    /// Sex.
    sex: Option<String>,
}

impl FromParts for NewImage {
    const FIELDS: &'static [&'static str] = &[
        "frame",
        "class",
        "label_source",
        "patient_id",
        "issuer",
        "study_uid",
        "source",
        "view",
        "age",
        "sex",
    ];

    fn from_parts(mut parts: Parts) -> Result<Self> {
        let class = parts.text("class")?.map(|name| ClassLabel::parse(&name)).transpose();
        let label_source = parts.text("label_source")?.map(|text| text.parse()).transpose()?;
        let labels = Labels {
            class: class.map_err(|error| error.context("`class`"))?,
            label_source,
            labelled_by: None,
            source: parts.text("source")?,
            view: parts.text("view")?,
            age: parts.text("age")?,
            sex: parts.text("sex")?,
        };
        proven_needs_class(labels.class.is_some(), labels.label_source.is_some())?;
        let upload = Upload {
            bytes: parts.image()?,
            frame: frame(&mut parts)?,
            patient_id: parts.text("patient_id")?,
            issuer: parts.text("issuer")?,
            study_uid: parts.text("study_uid")?,
            preview: false,
        };
        Ok(Self { upload, labels })
    }
}

/// There is no proof of nothing.
fn proven_needs_class(class: bool, label_source: bool) -> Result<()> {
    if label_source && !class {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            "`label_source` says how a `class` was proven, but there is none",
        ));
    }
    Ok(())
}

/// Another label for an image.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct NewLabel {
    /// The class; null takes the label away.
    #[serde(deserialize_with = "present")]
    #[schema(required)]
    class: Option<String>,
    /// How it was proven.
    #[serde(default)]
    label_source: Option<LabelSource>,
}

/// A member that may be null but not left out: no one takes a label away by mistyping.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
}

impl NewLabel {
    /// Class and proof, checked.
    ///
    /// # Errors
    /// `InvalidRequest` for a name that can't be a class, or a proof without a class.
    pub fn parts(self) -> Result<(Option<ClassLabel>, Option<domain::LabelSource>)> {
        let class = self.class.map(|name| ClassLabel::parse(&name)).transpose();
        let class = class.map_err(|error| error.context("`class`"))?;
        proven_needs_class(class.is_some(), self.label_source.is_some())?;
        Ok((class, self.label_source.map(Into::into)))
    }
}

/// What was done with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WriteOutcome {
    /// It is new.
    Inserted,
    /// It was known, with this class, or with one that was settled since, or none was given.
    Duplicate,
    /// It was known under another class: neither votes until that is settled.
    Conflict,
    /// It has the class that was given.
    Relabelled,
}

/// What became of an image; the change is durable.
#[derive(Debug, Serialize, ToSchema)]
pub struct Written {
    /// The image.
    pub id: String,
    /// The version of the archive that has it.
    pub version: u64,
    /// What was done.
    pub outcome: WriteOutcome,
    /// It was known before, and its label is what it was.
    pub duplicate: bool,
    /// Its class now.
    #[schema(required)]
    pub class: Option<String>,
    /// Its pixels, or a copy of its picture, are known under another class, of this patient or another: neither votes until that is settled.
    pub label_conflict: bool,
    /// The image of the archive that it was found to be a near-identical copy of.
    #[schema(required)]
    pub near_identical_to: Option<String>,
}

impl From<Receipt> for Written {
    fn from(receipt: Receipt) -> Self {
        let outcome = match receipt.outcome {
            Outcome::Inserted => WriteOutcome::Inserted,
            Outcome::Conflict => WriteOutcome::Conflict,
            Outcome::Relabelled => WriteOutcome::Relabelled,
            Outcome::Duplicate | Outcome::Deleted { .. } => WriteOutcome::Duplicate,
        };
        Self {
            id: receipt.id.to_string(),
            version: receipt.version,
            outcome,
            duplicate: outcome == WriteOutcome::Duplicate,
            class: receipt.class.as_ref().map(ClassLabel::to_string),
            label_conflict: receipt.label_conflict,
            near_identical_to: receipt.near_identical_to.map(|id| id.to_string()),
        }
    }
}

/// An image that is gone.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deleted {
    /// The image.
    pub id: String,
    /// The first version of the archive without it.
    pub version: u64,
}

/// A patient whose images are to be deleted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct PatientToDelete {
    /// The id as the hospital knows it. In the body, so that it is in no log of any proxy.
    #[schema(pattern = r"\S")]
    pub patient_id: String,
    /// Who issued it. Left out or null: whoever did.
    pub issuer: Option<String>,
}

/// A patient's images are gone.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeletedPatient {
    /// Images deleted.
    pub deleted: usize,
    /// The first version of the archive without them.
    pub version: u64,
}

/// All that is known about an image.
#[derive(Debug, Serialize, ToSchema)]
pub struct ImageDetails {
    /// The image.
    pub id: String,
    /// Its class.
    #[schema(required)]
    pub class: Option<String>,
    /// How it was proven.
    #[schema(required, value_type = Option<LabelSource>)]
    pub label_source: Option<String>,
    /// What gave it: `api` (somebody, here), `tags` (a rule of the archive about its file), `file` (the labels file); null: it came with it.
    #[schema(required)]
    pub labelled_by: Option<String>,
    /// Its pixels, or copies of its picture, have several classes, so that it does not vote.
    pub label_conflict: bool,
    /// Other copies of its picture, by id: of equal pixels, or near-identical.
    pub near_identical: Vec<String>,
    /// A pseudonym, the same for all images of the patient in this archive.
    #[schema(required)]
    pub patient: Option<String>,
    /// Where the data set says the image comes from.
    #[schema(required)]
    pub source: Option<String>,
    /// What else is known.
    pub record: RecordFacts,
    /// How stored values became 8 bit.
    #[schema(required)]
    pub window: Option<Window>,
    /// RFC 3339 time at which it was accepted.
    pub ingested_at: String,
    /// Earlier labels, oldest first.
    pub history: Vec<EarlierLabel>,
    /// Path of the small picture; null: not kept.
    #[schema(required)]
    pub thumbnail: Option<String>,
    /// Path of the large picture; null: not kept.
    #[schema(required)]
    pub rendered: Option<String>,
    /// Whose image it is and what it is called where it came from; null: the archive does not keep that, or the key lacks the scope `link`.
    #[schema(required)]
    pub link: Option<OriginalNames>,
}

/// What an image came with, in an archive of identity mode `linked`.
#[derive(Debug, Serialize, ToSchema)]
pub struct OriginalNames {
    /// The patient's id.
    #[schema(required)]
    pub patient_id: Option<String>,
    /// Who issued it.
    #[schema(required)]
    pub issuer: Option<String>,
    /// Study Instance UID.
    #[schema(required)]
    pub study_uid: Option<String>,
    /// Series Instance UID.
    #[schema(required)]
    pub series_uid: Option<String>,
    /// SOP Instance UID.
    #[schema(required)]
    pub sop_uid: Option<String>,
}

impl From<Link> for OriginalNames {
    fn from(link: Link) -> Self {
        Self {
            patient_id: link.patient_id,
            issuer: link.issuer,
            study_uid: link.study_uid,
            series_uid: link.series_uid,
            sop_uid: link.sop_uid,
        }
    }
}

/// A label that was replaced.
#[derive(Debug, Serialize, ToSchema)]
pub struct EarlierLabel {
    /// RFC 3339 time of the change.
    pub at: String,
    /// The class before.
    #[schema(required)]
    pub class: Option<String>,
    /// How it had been proven.
    #[schema(required, value_type = Option<LabelSource>)]
    pub label_source: Option<String>,
}

impl ImageDetails {
    /// A record as it is shown.
    pub fn new(record: &Record, copies: &[ImageId], names: &Names<'_>, link: Option<Link>) -> Self {
        Self {
            link: link.map(Into::into),
            near_identical: copies.iter().map(ToString::to_string).collect(),
            id: record.id.to_string(),
            class: record.class.as_ref().map(ClassLabel::to_string),
            label_source: record.label_source.as_ref().map(ToString::to_string),
            labelled_by: record.labelled_by.as_ref().map(ToString::to_string),
            label_conflict: (names.label_conflict)(record.id),
            patient: record.patient.map(names.pseudonym),
            source: record.source.clone(),
            record: RecordFacts::new(record),
            window: record.window().map(Into::into),
            ingested_at: record.ingested_at.clone(),
            history: record
                .history
                .iter()
                .map(|change| EarlierLabel {
                    at: change.at.clone(),
                    class: change.class.as_ref().map(ClassLabel::to_string),
                    label_source: change.label_source.as_ref().map(ToString::to_string),
                })
                .collect(),
            thumbnail: record.thumbnail.as_ref().map(|_| thumbnail_path(record.id)),
            rendered: record.pixels.as_ref().map(|_| rendered_path(record.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_label_is_taken_away_by_null_and_not_by_leaving_it_out() {
        let parse = |body: serde_json::Value| serde_json::from_value::<NewLabel>(body);
        let label = parse(json!({"class": null})).unwrap().parts().unwrap();
        assert_eq!(label, (None, None));
        let label = parse(json!({"class": "Viral Pneumonia", "label_source": "follow-up"}))
            .unwrap()
            .parts()
            .unwrap();
        assert_eq!(label.1, Some(domain::LabelSource::FollowUp));
        assert!(
            parse(json!({}))
                .unwrap_err()
                .to_string()
                .contains("missing field `class`")
        );
        assert!(
            parse(json!({"class": null, "label": 1}))
                .unwrap_err()
                .to_string()
                .contains("unknown field `label`")
        );
        for body in [json!({"class": "../x"}), json!({"class": null, "label_source": "PCR"})] {
            assert_eq!(
                parse(body).unwrap().parts().unwrap_err().kind(),
                ErrorKind::InvalidRequest
            );
        }
    }

    #[test]
    fn details_show_no_key_and_nothing_sealed() {
        let record = super::super::answer::tests::record(0xcd, Some("Normal"));
        let names = Names {
            pseudonym: &|_| "p_000000000000".into(),
            label_conflict: &|_| true,
        };
        let shown = serde_json::to_value(ImageDetails::new(&record, &[], &names, None)).unwrap();
        assert_eq!(shown["label_conflict"], true);
        assert_eq!(shown["rendered"], json!(null));
        assert!(!shown.to_string().contains("secret") && !shown["patient"].to_string().contains("cd"));
    }

    #[test]
    fn a_card_is_shown_with_device_and_evaluation() {
        let shown =
            serde_json::to_value(ModelInfo::new(json!({"name": "x", "evaluation": null}), "cpu".into(), None).unwrap())
                .unwrap();
        assert_eq!(shown, json!({"name": "x", "device": "cpu", "evaluation": null}));
        assert_eq!(
            ModelInfo::new(json!([]), "cpu".into(), None).unwrap_err().kind(),
            ErrorKind::Internal
        );
    }
}
