//! The JSON and form shapes of the API. The domain's types don't leave the program, these don't enter it.

mod answer;
mod archive;
mod ask;
mod by_reference;
mod explain;
mod feedback;
mod render;

pub use answer::{Embeddings, Names, QueryReference, SearchResponse};
pub use archive::{
    ArchiveInfo, Classes, Deleted, DeletedPatient, EvaluationInfo, ImageDetails, ModelInfo, NewImage, NewImageFields,
    NewLabel, PatientToDelete, Written,
};
pub use ask::{ById, ByVector, EmbedForm, EmbedFormFields, SearchForm, SearchFormFields};
pub use by_reference::{ByReference, Referenced};
pub use explain::{ExplanationForm, ExplanationFormFields, ExplanationResponse};
pub use feedback::{FeedbackList, FeedbackPage, FeedbackReceipt, NewFeedback};
pub use render::RenderQuery;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{self, ImageId};

/// Said in every answer.
pub const INTENDED_USE: &str = "research use only, not for diagnosis";

/// How neighbors become a suggestion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Vote {
    /// One neighbor, one vote.
    Majority,
    /// A vote weighs its similarity.
    Distance,
    /// A vote weighs the inverse of its class's share of the archive.
    Prior,
}

impl From<Vote> for domain::VoteMethod {
    fn from(vote: Vote) -> Self {
        match vote {
            Vote::Majority => Self::Majority,
            Vote::Distance => Self::Distance,
            Vote::Prior => Self::Prior,
        }
    }
}

impl From<domain::VoteMethod> for Vote {
    fn from(vote: domain::VoteMethod) -> Self {
        match vote {
            domain::VoteMethod::Majority => Self::Majority,
            domain::VoteMethod::Distance => Self::Distance,
            domain::VoteMethod::Prior => Self::Prior,
        }
    }
}

/// What happens to copies of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NearIdentical {
    /// They are shown once and have one vote.
    Collapse,
    /// Each is shown and votes, one per patient.
    Keep,
}

impl From<NearIdentical> for domain::OnePer {
    fn from(copies: NearIdentical) -> Self {
        match copies {
            NearIdentical::Collapse => Self::Picture,
            NearIdentical::Keep => Self::Patient,
        }
    }
}

impl From<domain::OnePer> for NearIdentical {
    fn from(one_per: domain::OnePer) -> Self {
        match one_per {
            domain::OnePer::Picture => Self::Collapse,
            domain::OnePer::Patient | domain::OnePer::Image => Self::Keep,
        }
    }
}

/// How a label was established.
// What is asked for. An answer shows what is stored as it is, which may be a word of a later program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LabelSource {
    /// The name of the folder the image lay in: nobody says how it was proven.
    Folder,
    /// A radiology report.
    Report,
    /// Polymerase chain reaction.
    #[serde(rename = "PCR")]
    Pcr,
    /// Histology.
    Biopsy,
    /// The later course.
    FollowUp,
    /// One or more readers of the image.
    Reader,
}

impl From<LabelSource> for domain::LabelSource {
    fn from(source: LabelSource) -> Self {
        match source {
            LabelSource::Folder => Self::Folder,
            LabelSource::Report => Self::Report,
            LabelSource::Pcr => Self::Pcr,
            LabelSource::Biopsy => Self::Biopsy,
            LabelSource::FollowUp => Self::FollowUp,
            LabelSource::Reader => Self::Reader,
        }
    }
}

/// How stored values became 8 bit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Window {
    /// 8-bit values taken as they are.
    Identity,
    /// Linear between the 0.5 % and the 99.5 % percentile of the stored values.
    Percentile {
        /// Stored value shown black.
        low: i32,
        /// Stored value shown white.
        high: i32,
    },
    /// Linear in a window that the archive has for the image's modality.
    Fixed {
        /// Stored value up to which all is black; which is white where the file's rescale slope is negative.
        low: f64,
        /// Stored value from which on all is white; which is black where the file's rescale slope is negative.
        high: f64,
    },
    /// In the window that the file itself gives.
    File {
        /// Stored value up to which all is black; which is white where the file's rescale slope is negative.
        low: f64,
        /// Stored value from which on all is white; which is black where the file's rescale slope is negative.
        high: f64,
        /// Not linear but by DICOM's SIGMOID, whose middle is half way from `low` to `high`, with the slope of a line through them there.
        sigmoid: bool,
    },
}

impl From<domain::Window> for Window {
    fn from(window: domain::Window) -> Self {
        match window {
            domain::Window::Identity => Self::Identity,
            domain::Window::Percentile { low, high } => Self::Percentile { low, high },
            domain::Window::Fixed { low, high } => Self::Fixed { low, high },
            domain::Window::File { low, high, sigmoid } => Self::File { low, high, sigmoid },
        }
    }
}

// How the API describes what is `Bytes` here.
/// The bytes of a file.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary, content_media_type = "application/octet-stream")]
pub struct ImageFile(());

/// Where the small picture of an image is.
fn thumbnail_path(id: ImageId) -> String {
    format!("/v1/images/{id}/thumbnail")
}

/// Where the large picture of an image is.
fn rendered_path(id: ImageId) -> String {
    format!("/v1/images/{id}/rendered")
}
