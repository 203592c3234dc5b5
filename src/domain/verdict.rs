//! What the neighbors suggest, and how far that goes.

use std::collections::BTreeMap;

use super::{ClassLabel, ImageId, VoteMethod};

/// Whether a class is suggested at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// One class leads.
    Suggested,
    /// None does, or nothing could vote.
    Inconclusive,
    /// The query is unlike everything in the archive.
    OutOfDistribution,
}

/// The outcome of a vote.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Whether a class is suggested.
    pub status: Status,
    /// In words for a clinician, for example `7 of 10 labelled COVID`.
    pub reason: String,
    /// The suggested class.
    pub class: Option<ClassLabel>,
    /// How votes were weighed.
    pub method: VoteMethod,
    /// Votes per class.
    pub votes: BTreeMap<ClassLabel, usize>,
    /// Weight per class.
    pub weights: BTreeMap<ClassLabel, f64>,
    /// Whose labels counted, best first.
    pub voters: Vec<ImageId>,
    /// Probability that the class is right, from a valid calibration.
    pub confidence: Option<f64>,
    /// Conformal prediction sets, the lowest level first, from a valid calibration.
    pub prediction_sets: Vec<PredictionSet>,
    /// How far the query is from where the archive's images lie, where that is known.
    pub mahalanobis: Option<Mahalanobis>,
    /// Which calibration was used, or why none.
    pub calibration: CalibrationNote,
}

/// How far an image is from where an archive's images lie: `Distribution::distance`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mahalanobis {
    /// The image's, about 1 for the archive's own.
    pub distance: f64,
    /// The greatest with which an image belongs there.
    pub max: f64,
}

/// The classes that can't be ruled out at one level.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictionSet {
    /// The share of images whose class is in their set, 0 to 1.
    pub level: f64,
    /// The classes that can't be ruled out, of those that are calibrated.
    pub classes: Vec<ClassLabel>,
    /// Classes of which too few groups are known to say.
    pub not_available: Vec<ClassLabel>,
}

/// Which calibration was used, or why none.
#[derive(Debug, Clone, Default)]
pub struct CalibrationNote {
    /// The calibration object.
    pub id: Option<String>,
    /// Whether it holds for this query.
    pub valid: bool,
    /// Why it does not.
    pub why_not: Option<String>,
}
