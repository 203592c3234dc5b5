//! The archive's papers: a model card (Mitchell et al., FAT* 2019, with the source attributes of 45 CFR 170.315(b)(11), "HTI-1") and a datasheet
//! (Gebru et al., CACM 2021), made of what the archive says of itself and of the evaluation that was kept with it. Pure: counts in, documents out.
//! What nobody told the archive is "not known", never a guess.

mod datasheet;
mod document;
mod facts;
mod kept;
mod model;

pub use datasheet::datasheet;
pub use document::{Block, Document, Fact, Section, Table};
pub use facts::Facts;
pub use kept::{Kept, caveats, to_keep};
pub use model::model_card;

use crate::archive::Manifest;
use crate::domain::Calibration;
use crate::embed::ModelCard;

/// What the papers are made of.
pub struct Subject<'a> {
    /// What the archive is.
    pub manifest: &'a Manifest,
    /// What it holds, counted.
    pub facts: &'a Facts,
    /// The model that makes its vectors; none: it is not stored in the archive.
    pub model: Option<&'a ModelCard>,
    /// The calibration of its votes; none: there is none, or it can't be read.
    pub calibration: Option<&'a Calibration>,
    /// The evaluation that was kept.
    pub kept: &'a Kept,
}

/// What stands where nothing was said.
const NOT_KNOWN: &str = "not known";

/// On each of the papers.
const USE: &str = "Research use only, not for diagnosis. Not a medical device, not cleared by anyone.";

#[cfg(test)]
mod tests;
