//! What the embedder needs of the imaging vocabulary.

/// How an image is brought to the model's aspect ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// The whole image, its aspect ratio given up.
    Squeeze,
    /// A centred black square around it.
    Pad,
    /// The centred square within it.
    Crop,
}

/// What a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputSpec {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// How the image gets there.
    pub fit: Fit,
}

/// An image as a model takes it: H×W×3 bytes, RGB, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInput {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Samples.
    pub pixels: Vec<u8>,
}

/// Identifiers and facts of a DICOM header.
#[derive(Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Provenance {
    /// PatientID.
    pub patient_id: Option<String>,
    /// IssuerOfPatientID.
    pub issuer: Option<String>,
    /// StudyInstanceUID.
    pub study_uid: Option<String>,
    /// SeriesInstanceUID.
    pub series_uid: Option<String>,
    /// SOPInstanceUID.
    pub sop_uid: Option<String>,
    /// ViewPosition.
    pub view: Option<String>,
    /// The digits of PatientAge.
    pub age: Option<String>,
    /// PatientSex.
    pub sex: Option<String>,
    /// Modality.
    pub modality: Option<String>,
    /// BodyPartExamined.
    pub body_part: Option<String>,
}

impl std::fmt::Debug for Provenance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provenance").finish_non_exhaustive()
    }
}
