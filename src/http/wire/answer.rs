//! What searches and embeddings answer.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use utoipa::ToSchema;

use super::{INTENDED_USE, LabelSource, NearIdentical, Vote, Window, thumbnail_path};
use crate::domain::{self, ClassLabel, FrameNumber, FrameOf, Hit, ImageId, Key, PathTaken, Record, Status};
use crate::pacs::{Chosen, PacsName};
use crate::search::{Answer, EmbeddedImage};

/// What an answer needs to know about the archive besides the hits.
pub struct Names<'a> {
    /// The pseudonym of a patient.
    pub pseudonym: &'a dyn Fn(Key) -> String,
    /// Whether the image's pixels have several classes.
    pub label_conflict: &'a dyn Fn(ImageId) -> bool,
}

/// The most similar cases, what they suggest, and how the answer came about.
#[derive(Debug, Serialize, ToSchema)]
pub struct SearchResponse {
    /// What was asked, with every default filled in.
    pub query: SearchQuery,
    /// The most similar images, best first, one per patient and picture.
    pub neighbors: Vec<Neighbor>,
    /// The most similar image of each class, best first.
    pub nearest_per_class: Vec<Neighbor>,
    /// What the neighbors' labels suggest.
    pub suggestion: Suggestion,
    /// What else than the disease may have made the neighbors similar.
    pub warnings: Vec<Warning>,
    /// Which parts of the archive answered.
    pub coverage: Coverage,
    /// How each class was searched.
    pub path: BTreeMap<String, Path>,
    /// The archive that answered.
    pub archive: Served,
    /// The space in which similarity was measured.
    #[schema(example = "0123456789abcdef0123456789abcdef")]
    pub space: String,
    /// The learned metric by which similarity was measured, as `/v1/archive` describes it; null: cosine.
    #[schema(required, example = "fedcba9876543210fedcba9876543210")]
    pub metric: Option<String>,
    /// Where the time went.
    pub timings_ms: Timings,
    /// What this answer may be used for.
    #[schema(example = "research use only, not for diagnosis")]
    pub intended_use: &'static str,
}

/// What was asked.
#[derive(Debug, Serialize, ToSchema)]
pub struct SearchQuery {
    /// Neighbors wanted.
    pub k: usize,
    /// How they voted.
    pub vote: Vote,
    /// Only these classes; null: all.
    #[schema(required)]
    pub classes: Option<Vec<String>>,
    /// Only these sources; null: all.
    #[schema(required)]
    pub sources: Option<Vec<String>>,
    /// What was kept out: `patient`, `study`, `pixels`.
    pub exclude: Vec<&'static str>,
    /// Sources that were kept out; null: none.
    #[schema(required)]
    pub exclude_source: Option<Vec<String>>,
    /// Images that the answer is more like.
    pub liked: Vec<String>,
    /// Images that it is less like.
    pub disliked: Vec<String>,
    /// What happened to copies of a picture.
    pub near_identical: NearIdentical,
    /// Whether every image was compared.
    pub exact: bool,
    /// x, y, width, height as fractions; null: the whole image.
    #[schema(required)]
    pub region: Option<[f64; 4]>,
    /// The uploaded image; null for a search by id or vector.
    #[schema(required)]
    pub image: Option<QueryImage>,
    /// The uploaded image in 8 bit, at most 1024 pixels long, as a `data:image/png;base64,` URL; absent unless `preview` was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
    /// Where the image came from; absent unless it was searched by reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<QueryReference>,
}

/// Where the image of a search by reference came from.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueryReference {
    /// Name of the PACS.
    #[schema(example = "main")]
    pub pacs: String,
    /// Milliseconds until the file was here; not part of `timings_ms`.
    pub pull_ms: f64,
    /// Which instance of the study or series it is; null: the one that was named.
    #[schema(required)]
    pub chosen: Option<ChosenInstance>,
}

/// The instance that stands for a study or a series: the middle one of its images, in the order of their numbers.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChosenInstance {
    /// Series Number; null: the series was named, or has none.
    #[schema(required)]
    pub series_number: Option<i64>,
    /// Instance Number; null: it has none.
    #[schema(required)]
    pub instance_number: Option<i64>,
    /// Its place among the images of its series, from 1.
    pub position: usize,
    /// Images of its series.
    pub images: usize,
}

impl QueryReference {
    /// As it is sent.
    pub fn new(pacs: &PacsName, took: Duration, chosen: Option<Chosen>) -> Self {
        Self {
            pacs: pacs.to_string(),
            pull_ms: (took.as_secs_f64() * 1e6).round() / 1e3,
            chosen: chosen.map(|chosen| ChosenInstance {
                series_number: chosen.series_number,
                instance_number: chosen.instance_number,
                position: chosen.position,
                images: chosen.images,
            }),
        }
    }
}

/// The uploaded image as it was decoded.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueryImage {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `png`, `jpeg` or `dicom`.
    pub format: &'static str,
    /// Which frame of a DICOM file, counted from 1; absent for PNG and JPEG.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame: Option<u32>,
    /// How many frames the DICOM file has; absent for PNG and JPEG.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<u32>,
    /// How its values became 8 bit.
    #[schema(required)]
    pub window: Option<Window>,
}

/// One similar image.
#[derive(Debug, Serialize, ToSchema)]
pub struct Neighbor {
    /// 1 for the most similar; null in `nearest_per_class`.
    #[schema(required)]
    pub rank: Option<usize>,
    /// The image.
    #[schema(example = "0123456789abcdef0123456789abcdef0123")]
    pub id: String,
    /// What it turned out to be; null: not known.
    #[schema(required)]
    pub class: Option<String>,
    /// How that was proven.
    #[schema(required, value_type = Option<LabelSource>)]
    pub label_source: Option<String>,
    /// Cosine similarity to the query, -1 to 1.
    pub similarity: f32,
    /// A pseudonym, the same for all images of the patient in this archive.
    #[schema(required, example = "p_0123456789ab")]
    pub patient: Option<String>,
    /// Where the data set says the image comes from.
    #[schema(required)]
    pub source: Option<String>,
    /// Path of a small picture; null: not kept.
    #[schema(required)]
    pub thumbnail: Option<String>,
    /// What else is known.
    pub record: RecordFacts,
    /// How many other copies of its picture the archive has: of equal pixels, or near-identical. `GET /v1/images/{id}` names them.
    pub near_identical: usize,
    /// Its pixels, or copies of its picture, were handed in under several classes, so that it does not vote.
    pub label_conflict: bool,
}

/// What else is known about an image.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecordFacts {
    /// Path within its data set; null unless the archive shows file names.
    #[schema(required)]
    pub file: Option<String>,
    /// Which frame of its file it is, counted from 1; absent for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame: Option<u32>,
    /// Projection, for example `PA`.
    #[schema(required)]
    pub view: Option<String>,
    /// Age in years, as the data set gives it.
    #[schema(required)]
    pub age: Option<String>,
    /// Sex, as the data set gives it.
    #[schema(required)]
    pub sex: Option<String>,
    /// Anything else.
    pub tags: BTreeMap<String, String>,
}

/// What the neighbors' labels suggest.
#[derive(Debug, Serialize, ToSchema)]
pub struct Suggestion {
    /// Whether a class is suggested at all.
    pub status: SuggestionStatus,
    /// In words.
    #[schema(example = "7 of 10 labelled COVID")]
    pub reason: String,
    /// The suggested class.
    #[schema(required)]
    pub class: Option<String>,
    /// How votes were weighed.
    pub method: Vote,
    /// Votes of each class.
    pub votes: BTreeMap<String, usize>,
    /// Weight of each class.
    pub weights: BTreeMap<String, f64>,
    /// Images whose labels counted.
    pub voters: Vec<String>,
    /// Probability that the class is right, from a valid calibration.
    #[schema(required)]
    pub confidence: Option<f64>,
    /// The classes that can't be ruled out at 90 %: of the images of each class, so many have it in their set. Null without a valid calibration, for
    /// an image that is unlike the archive, and where too few cases of a class are known.
    #[schema(required)]
    pub prediction_set: Option<Vec<String>>,
    /// The same at each level, the lowest first.
    pub prediction_sets: Vec<PredictionSet>,
    /// How far the image is from where the archive's images lie; null without a calibration, for images of the archive and parts of images.
    #[schema(required)]
    pub mahalanobis: Option<Mahalanobis>,
    /// Which calibration was used, or why none.
    pub calibration: Calibration,
}

/// How far an image is from where the archive's images lie, by what the model makes of them: beyond `max` it is out of distribution.
#[derive(Debug, Serialize, ToSchema)]
pub struct Mahalanobis {
    /// The Mahalanobis distance divided by the root of the number of components: about 1 for the archive's own images.
    #[schema(example = 1.04)]
    pub distance: f64,
    /// 39 of 40 of the archive's own images are nearer.
    #[schema(example = 1.38)]
    pub max: f64,
}

/// The classes that can't be ruled out at one level.
#[derive(Debug, Serialize, ToSchema)]
pub struct PredictionSet {
    /// The share of each class's images that have it in their set, 0 to 1.
    #[schema(example = 0.9)]
    pub level: f64,
    /// The classes that can't be ruled out, of those that are calibrated.
    pub classes: Vec<String>,
    /// Classes of which too few cases are known to say.
    pub not_available: Vec<String>,
}

/// What a reader should know before believing the neighbors.
#[derive(Debug, Serialize, ToSchema)]
pub struct Warning {
    /// A stable name: `one-source`, all neighbors come from one of several sources.
    #[serde(rename = "type")]
    #[schema(example = "one-source")]
    pub kind: &'static str,
    /// In words.
    pub message: String,
}

/// Whether a class is suggested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SuggestionStatus {
    /// One class leads.
    Suggested,
    /// None does, or nothing could vote.
    Inconclusive,
    /// The query is unlike everything in the archive.
    OutOfDistribution,
}

/// Which calibration was used, or why none.
#[derive(Debug, Serialize, ToSchema)]
pub struct Calibration {
    /// The calibration.
    #[schema(required)]
    pub id: Option<String>,
    /// Whether it holds for this query.
    pub valid: bool,
    /// Why it does not.
    #[schema(required)]
    pub why_not: Option<String>,
}

/// Which parts of the archive answered.
#[derive(Debug, Serialize, ToSchema)]
pub struct Coverage {
    /// Shards of the archive.
    pub shards: usize,
    /// Those that answered.
    pub answered: usize,
    /// Those that did not.
    pub missing: Vec<u32>,
}

/// How a class was searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// Graph, then re-scored.
    Hnsw,
    /// Every image compared.
    Exact,
}

/// The archive that answered.
#[derive(Debug, Serialize, ToSchema)]
pub struct Served {
    /// Its version.
    pub version: u64,
    /// Its images.
    pub images: usize,
}

/// Milliseconds of each stage.
#[derive(Debug, Serialize, ToSchema)]
pub struct Timings {
    /// File bytes to raster.
    pub decode: f64,
    /// Raster to model input.
    pub preprocess: f64,
    /// Waiting for the model.
    pub queue: f64,
    /// In the model, with the whole batch.
    pub model: f64,
    /// Index, merge and vote.
    pub search: f64,
    /// All of it.
    pub total: f64,
}

impl SearchResponse {
    /// An answer as it is sent.
    pub fn new(answer: &Answer, names: &Names<'_>) -> Self {
        let hits = &answer.ranking.hits;
        Self {
            query: SearchQuery::new(answer),
            neighbors: hits
                .iter()
                .zip(1..)
                .map(|(hit, rank)| Neighbor::new(hit, Some(rank), names))
                .collect(),
            nearest_per_class: answer
                .ranking
                .nearest_per_class
                .iter()
                .map(|hit| Neighbor::new(hit, None, names))
                .collect(),
            suggestion: Suggestion::new(&answer.verdict),
            warnings: (answer.warnings.iter())
                .map(|warning| Warning {
                    kind: warning.kind(),
                    message: warning.message(),
                })
                .collect(),
            coverage: Coverage {
                shards: answer.coverage.shards,
                answered: answer.coverage.answered,
                missing: answer.coverage.missing.clone(),
            },
            path: answer
                .ranking
                .path
                .iter()
                .map(|(class, path)| (class.to_string(), (*path).into()))
                .collect(),
            archive: Served {
                version: answer.version,
                images: answer.images,
            },
            space: answer.space.to_string(),
            metric: answer.metric.clone(),
            timings_ms: Timings::new(&answer.timings),
            intended_use: INTENDED_USE,
        }
    }
}

impl SearchQuery {
    fn new(answer: &Answer) -> Self {
        let ask = &answer.ask;
        let exclude = [
            ("patient", ask.exclude.patient),
            ("study", ask.exclude.study),
            ("pixels", ask.exclude.pixels),
        ];
        Self {
            k: ask.k,
            vote: ask.vote.into(),
            classes: ask
                .classes
                .as_ref()
                .map(|classes| classes.iter().map(ToString::to_string).collect()),
            sources: ask.sources.clone(),
            exclude: exclude
                .into_iter()
                .filter_map(|(name, out)| out.then_some(name))
                .collect(),
            exclude_source: Some(ask.exclude_sources.clone()).filter(|sources| !sources.is_empty()),
            liked: ask.liked.iter().map(ImageId::to_string).collect(),
            disliked: ask.disliked.iter().map(ImageId::to_string).collect(),
            near_identical: ask.one_per.into(),
            exact: ask.exact,
            region: answer.query.region.map(domain::Region::fractions),
            image: answer.query.image.as_ref().map(|image| QueryImage {
                width: image.width,
                height: image.height,
                format: image.format,
                frame: image.frame.map(|frame| frame.number().get()),
                frames: image.frame.map(FrameOf::frames),
                window: image.window.map(Into::into),
            }),
            preview: answer
                .query
                .preview
                .as_ref()
                .map(|png| format!("data:image/png;base64,{}", BASE64.encode(png))),
            reference: None,
        }
    }
}

impl Neighbor {
    fn new(hit: &Hit, rank: Option<usize>, names: &Names<'_>) -> Self {
        let record = &hit.record;
        Self {
            rank,
            id: record.id.to_string(),
            class: record.class.as_ref().map(ClassLabel::to_string),
            label_source: record.label_source.as_ref().map(ToString::to_string),
            similarity: hit.similarity,
            patient: record.patient.map(names.pseudonym),
            source: record.source.clone(),
            thumbnail: record.thumbnail.as_ref().map(|_| thumbnail_path(record.id)),
            record: RecordFacts::new(record),
            near_identical: hit.copies.as_ref().map_or(0, |copies| copies.others()),
            label_conflict: record.class.is_some() && !hit.votes,
        }
    }
}

impl RecordFacts {
    pub(super) fn new(record: &Record) -> Self {
        Self {
            file: record.file.clone(),
            frame: Some(record.frame)
                .filter(|frame| !frame.is_first())
                .map(FrameNumber::get),
            view: record.view.clone(),
            age: record.age.clone(),
            sex: record.sex.clone(),
            tags: record.tags.clone(),
        }
    }
}

impl Suggestion {
    fn new(verdict: &domain::Verdict) -> Self {
        Self {
            status: match verdict.status {
                Status::Suggested => SuggestionStatus::Suggested,
                Status::Inconclusive => SuggestionStatus::Inconclusive,
                Status::OutOfDistribution => SuggestionStatus::OutOfDistribution,
            },
            reason: verdict.reason.clone(),
            class: verdict.class.as_ref().map(ClassLabel::to_string),
            method: verdict.method.into(),
            votes: verdict
                .votes
                .iter()
                .map(|(class, votes)| (class.to_string(), *votes))
                .collect(),
            weights: verdict
                .weights
                .iter()
                .map(|(class, weight)| (class.to_string(), *weight))
                .collect(),
            voters: verdict.voters.iter().map(ImageId::to_string).collect(),
            confidence: verdict.confidence,
            prediction_set: (verdict.prediction_sets.first())
                .filter(|set| set.not_available.is_empty())
                .map(|set| names(&set.classes)),
            prediction_sets: (verdict.prediction_sets.iter())
                .map(|set| PredictionSet {
                    level: set.level,
                    classes: names(&set.classes),
                    not_available: names(&set.not_available),
                })
                .collect(),
            mahalanobis: verdict
                .mahalanobis
                .map(|domain::Mahalanobis { distance, max }| Mahalanobis { distance, max }),
            calibration: Calibration {
                id: verdict.calibration.id.clone(),
                valid: verdict.calibration.valid,
                why_not: verdict.calibration.why_not.clone(),
            },
        }
    }
}

fn names(classes: &[ClassLabel]) -> Vec<String> {
    classes.iter().map(ClassLabel::to_string).collect()
}

impl From<PathTaken> for Path {
    fn from(path: PathTaken) -> Self {
        match path {
            PathTaken::Hnsw => Self::Hnsw,
            PathTaken::Exact => Self::Exact,
        }
    }
}

impl Timings {
    fn new(timings: &crate::search::Timings) -> Self {
        // A clock has no more than microseconds to tell.
        let rounded = |ms: f64| (ms * 1000.0).round() / 1000.0;
        Self {
            decode: rounded(timings.decode_ms),
            preprocess: rounded(timings.preprocess_ms),
            queue: rounded(timings.queue_ms),
            model: rounded(timings.model_ms),
            search: rounded(timings.search_ms),
            total: rounded(timings.total_ms),
        }
    }
}

/// Vectors of images.
#[derive(Debug, Serialize, ToSchema)]
pub struct Embeddings {
    /// The space they are of.
    pub space: String,
    /// The model that made them.
    pub model: String,
    /// Components of each.
    pub dimension: usize,
    /// One per image, in the order of the form.
    pub embeddings: Vec<Embedded>,
}

/// One image's vector.
#[derive(Debug, Serialize, ToSchema)]
pub struct Embedded {
    /// SHA-256 of the file, 64 hex digits.
    pub sha256: String,
    /// Raw output of the model, not normalised.
    pub vector: Vec<f32>,
}

impl From<EmbeddedImage> for Embedded {
    fn from(image: EmbeddedImage) -> Self {
        Self {
            sha256: hex::encode(image.sha256),
            vector: image.raw,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::domain::{Ask, CalibrationNote, PackRef, Ranking, Slot, Verdict, VoteMethod};
    use crate::search::{self, AskedQuery, ImageFacts};

    pub fn record(byte: u8, class: Option<&str>) -> Record {
        Record {
            class: class.map(|name| ClassLabel::parse(name).unwrap()),
            label_source: class.map(|_| domain::LabelSource::Pcr),
            patient: Some(Key([byte; 16])),
            file: Some("COVID/a.png".into()),
            view: Some("PA".into()),
            thumbnail: Some(PackRef {
                object: "thumbnails/x".into(),
                offset: 0,
                length: 1,
                blake3: String::new(),
            }),
            sealed: Some("secret".into()),
            ..Record::bare(
                ImageId::new(Slot(1), Key([byte; 16])),
                Key([0; 16]),
                "2026-01-01T00:00:00Z",
            )
        }
    }

    /// The answer has exactly the members of the contract, and nothing that identifies a person.
    #[test]
    fn an_answer_has_the_agreed_shape() {
        let covid = ClassLabel::parse("COVID").unwrap();
        let hit = Hit::alone(0.9312, Arc::new(record(0xab, Some("COVID"))), true);
        let id = hit.id();
        let answer = Answer {
            query: AskedQuery {
                image: Some(ImageFacts {
                    width: 299,
                    height: 298,
                    format: "png",
                    frame: None,
                    window: Some(domain::Window::Percentile { low: -3, high: 900 }),
                }),
                region: None,
                preview: None,
                names_unknown: false,
            },
            ask: Ask::default(),
            ranking: Ranking {
                hits: vec![hit.clone()],
                nearest_per_class: vec![hit],
                path: [(covid.clone(), PathTaken::Hnsw)].into(),
                ..Ranking::default()
            },
            verdict: Verdict {
                status: Status::OutOfDistribution,
                reason: "1 of 1 labelled COVID".into(),
                class: Some(covid.clone()),
                method: VoteMethod::Majority,
                votes: [(covid.clone(), 1)].into(),
                weights: [(covid, 1.0)].into(),
                voters: vec![id],
                confidence: None,
                prediction_sets: vec![
                    domain::PredictionSet {
                        level: 0.9,
                        classes: vec![ClassLabel::parse("COVID").unwrap()],
                        not_available: vec![],
                    },
                    domain::PredictionSet {
                        level: 0.95,
                        classes: vec![],
                        not_available: vec![ClassLabel::parse("COVID").unwrap()],
                    },
                ],
                mahalanobis: Some(domain::Mahalanobis {
                    distance: 1.5,
                    max: 1.25,
                }),
                calibration: CalibrationNote {
                    id: None,
                    valid: false,
                    why_not: Some("this archive has no calibration".into()),
                },
            },
            warnings: vec![search::Warning::OneSource {
                source: "here".into(),
                neighbors: 3,
                share: 0.25,
                sources: 2,
            }],
            coverage: domain::Coverage {
                shards: 1,
                answered: 1,
                missing: vec![],
            },
            version: 7,
            images: 251,
            space: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            metric: Some("fedcba9876543210fedcba9876543210".into()),
            timings: crate::search::Timings {
                decode_ms: 1.23456,
                ..Default::default()
            },
        };
        let names = Names {
            pseudonym: &|key| format!("p_{}", &key.to_string()[..12]),
            label_conflict: &|_| false,
        };
        let shown = serde_json::to_value(SearchResponse::new(&answer, &names)).unwrap();
        let neighbor = |rank: Option<u32>| {
            json!({
                "rank": rank, "id": id.to_string(), "class": "COVID", "label_source": "PCR", "similarity": 0.9312f32,
                "patient": "p_abababababab", "source": null, "thumbnail": format!("/v1/images/{id}/thumbnail"),
                "record": {"file": "COVID/a.png", "view": "PA", "age": null, "sex": null, "tags": {}}, "near_identical": 0, "label_conflict": false
            })
        };
        let expected = json!({
            "query": {
                "k": 10, "vote": "majority", "classes": null, "sources": null, "exclude": ["patient", "study", "pixels"],
                "exclude_source": null, "liked": [], "disliked": [], "near_identical": "collapse", "exact": false, "region": null,
                "image": {"width": 299, "height": 298, "format": "png", "window": {"kind": "percentile", "low": -3, "high": 900}}
            },
            "neighbors": [neighbor(Some(1))],
            "nearest_per_class": [neighbor(None)],
            "suggestion": {
                "status": "out_of_distribution", "reason": "1 of 1 labelled COVID", "class": "COVID", "method": "majority",
                "votes": {"COVID": 1}, "weights": {"COVID": 1.0}, "voters": [id.to_string()], "confidence": null,
                "prediction_set": ["COVID"],
                "prediction_sets": [
                    {"level": 0.9, "classes": ["COVID"], "not_available": []},
                    {"level": 0.95, "classes": [], "not_available": ["COVID"]}
                ],
                "mahalanobis": {"distance": 1.5, "max": 1.25},
                "calibration": {"id": null, "valid": false, "why_not": "this archive has no calibration"}
            },
            "warnings": [{
                "type": "one-source",
                "message": "All 3 neighbors come from one source, here, of 2 searched (it has 25 % of their images). They may be similar by how the images \
                            were made, not by what they show: search again without this source."
            }],
            "coverage": {"shards": 1, "answered": 1, "missing": []},
            "path": {"COVID": "hnsw"},
            "archive": {"version": 7, "images": 251},
            "space": "0123456789abcdef0123456789abcdef",
            "metric": "fedcba9876543210fedcba9876543210",
            "timings_ms": {"decode": 1.235, "preprocess": 0.0, "queue": 0.0, "model": 0.0, "search": 0.0, "total": 0.0},
            "intended_use": "research use only, not for diagnosis"
        });
        assert_eq!(shown, expected);
    }
}
