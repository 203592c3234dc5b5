//! What a search returns to its caller: everything that explains how the answer came about.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::Warning;
use crate::archive::{CalibrationEntry, MetricEntry};
use crate::domain::{
    Ask, Calibration, ClassLabel, Coverage, FrameNumber, FrameOf, ImageId, Ranking, Region, Space, SpaceId, Verdict,
    Window,
};

/// An image as it came, with whose it is if the client says so. `Debug` shows sizes only: bytes and identities are never logged.
#[derive(Clone)]
pub struct Upload {
    /// The file.
    pub bytes: Bytes,
    /// Which of its pictures.
    pub frame: FrameNumber,
    /// Patient ID; wins over the one in a DICOM file.
    pub patient_id: Option<String>,
    /// Issuer of Patient ID.
    pub issuer: Option<String>,
    /// Study Instance UID; wins over the one in a DICOM file.
    pub study_uid: Option<String>,
    /// The answer to a search shall hold the picture, for a client that can't show the file itself.
    pub preview: bool,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({} bytes)", self.bytes.len())
    }
}

/// What is said about the query image.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageFacts {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `png`, `jpeg` or `dicom`.
    pub format: &'static str,
    /// Which picture of a DICOM file.
    pub frame: Option<FrameOf>,
    /// How stored values became 8 bit.
    pub window: Option<Window>,
}

/// The query as it was understood.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AskedQuery {
    /// The image; absent for a search by id or vector.
    pub image: Option<ImageFacts>,
    /// The part of it that was searched.
    pub region: Option<Region>,
    /// The picture as it was understood, PNG, if it was asked for.
    pub preview: Option<Vec<u8>>,
    /// It names a patient or a study that the archive does not have; for whoever counts such requests, and not for the answer.
    pub names_unknown: bool,
}

/// Milliseconds spent in each stage.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// Bytes to raster.
    pub decode_ms: f64,
    /// Raster to model input.
    pub preprocess_ms: f64,
    /// Waiting for the model thread.
    pub queue_ms: f64,
    /// The batch in the model.
    pub model_ms: f64,
    /// Index, merge, vote.
    pub search_ms: f64,
    /// From the first byte decoded to the verdict.
    pub total_ms: f64,
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The query as it was understood.
    pub query: AskedQuery,
    /// The options as they were applied.
    pub ask: Ask,
    /// Neighbors and how they were found.
    pub ranking: Ranking,
    /// What they suggest.
    pub verdict: Verdict,
    /// What else may have made them similar.
    pub warnings: Vec<Warning>,
    /// Which shards answered.
    pub coverage: Coverage,
    /// The archive version that answered.
    pub version: u64,
    /// Images in that version.
    pub images: usize,
    /// The space that was searched.
    pub space: SpaceId,
    /// The learned metric that it was searched by; absent: cosine.
    pub metric: Option<String>,
    /// Where the time went.
    pub timings: Timings,
}

/// A vector for an image.
#[derive(Debug, Clone)]
pub struct EmbeddedImage {
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
    /// Raw model output.
    pub raw: Vec<f32>,
}

/// What an archive holds, in the version that is served.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Its name.
    pub name: String,
    /// The version served.
    pub version: u64,
    /// Images.
    pub images: usize,
    /// Images with a class.
    pub labelled: usize,
    /// Images whose label does not vote because another copy of the picture stands under another class.
    pub conflicts: usize,
    /// Images that are a copy of another one.
    pub near_identical: usize,
    /// Graphs that can't be used, so that their classes are scanned.
    pub lost_graphs: usize,
    /// Images per class.
    pub classes: Vec<(ClassLabel, usize)>,
    /// Sources that occur.
    pub sources: Vec<String>,
    /// The space of its vectors.
    pub space: Space,
    /// The learned metric that it is searched by; absent: cosine.
    pub metric: Option<MetricEntry>,
    /// The calibration of its votes, with what it says if it can be read.
    pub calibration: Option<(CalibrationEntry, Option<Arc<Calibration>>)>,
    /// Made for showing the product.
    pub demo: bool,
    /// Its images were made by a program.
    pub synthetic: bool,
    /// Licence of its images.
    pub licence: Option<String>,
    /// What it admits.
    pub scope: serde_json::Value,
    /// Which pixels it keeps.
    pub retention: String,
    /// `linked` or `anonymous`.
    pub identity: String,
    /// RFC 3339 time of the first version.
    pub created_at: String,
    /// Cases to try, in a demo.
    pub samples: Vec<(ImageId, ClassLabel)>,
}

/// How full the model's queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saturation {
    /// Images waiting.
    pub queue_depth: usize,
    /// Images that may wait.
    pub queue_max: usize,
}
