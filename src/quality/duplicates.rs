//! What `medsearch duplicates` says: the same picture twice.

use serde::Serialize;

use super::evaluation::Picture;
use crate::domain::ImageId;
use crate::error::Result;

/// What `medsearch duplicates` says.
#[derive(Debug, Clone, Serialize)]
pub struct Duplicates {
    /// The archive's name.
    pub archive: String,
    /// Its version.
    pub archive_version: u64,
    /// Images, labelled or not.
    pub images: usize,
    /// Further files with the pixels and the patient of one of them; they are one image already.
    pub further_files: usize,
    /// Images without a picture that could be compared.
    pub without_picture: usize,
    /// Images whose pictures were compared: of the others nothing new is known.
    #[serde(skip)]
    pub compared: Vec<ImageId>,
    /// Pairs are at least so similar.
    pub similarity_min: f32,
    /// Pictures that are one: those under different classes first, then those of different patients.
    pub clusters: Vec<Cluster>,
}

impl Duplicates {
    /// The ids of each picture's images.
    ///
    /// # Errors
    /// `InvalidRequest` for an id that is none.
    pub fn pictures(&self) -> Result<Vec<Vec<ImageId>>> {
        let ids = |cluster: &Cluster| cluster.images.iter().map(|image| image.id.parse()).collect();
        self.clusters.iter().map(ids).collect()
    }
}

/// Images that are one picture.
#[derive(Debug, Clone, Serialize)]
pub struct Cluster {
    /// They have different classes.
    pub label_conflict: bool,
    /// Two of them can't be of one patient.
    pub patient_conflict: bool,
    /// Their pixels are equal.
    pub equal_pixels: bool,
    /// The images; the similarity is the greatest to another one of them.
    pub images: Vec<Picture>,
    /// The pairs behind it, by place in `images`: (one, other, similarity).
    pub pairs: Vec<(usize, usize, f32)>,
}
