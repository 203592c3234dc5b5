//! Images in: whole data sets (`dataset`, `metadata`, `bulk`, then `build`), or one at a time (`image`).

pub mod build;
pub mod bulk;
mod class_files;
pub mod dataset;
mod files;
mod image;
pub mod metadata;
mod parts;
mod progress;

pub use dataset::Dataset;
pub use image::{Ingest, Labels, Receipt};

use crate::imaging::Provenance;

/// What a DICOM header says, in the form that the metadata of a data set is merged with.
pub fn facts(provenance: Provenance) -> metadata::ImageFacts {
    let Provenance { patient_id, issuer, study_uid, series_uid, sop_uid, view, age, sex, modality, body_part } = provenance;
    metadata::ImageFacts { patient_id, issuer, study_uid, series_uid, sop_uid, view, age, sex, modality, body_part }
}
