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
    /// Conformal prediction set, from a valid calibration.
    pub prediction_set: Option<Vec<ClassLabel>>,
    /// Which calibration was used, or why none.
    pub calibration: CalibrationNote,
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
