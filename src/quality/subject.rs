//! What is evaluated: an archive's images, their small pictures, and images that do not belong there.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rayon::prelude::*;

use super::cases::Cases;
use crate::archive::Archive;
use crate::domain::{ClassLabel, Embedding, ImageId, PackRef};
use crate::embed::{Backend as _, ThumbnailBackend};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::Decoder;
use crate::index::IndexSettings;
use crate::search::{Served, Version, prepare};

/// An archive with one of its versions.
pub struct Opened {
    /// The archive.
    pub archive: Archive,
    /// Its newest version.
    pub version: Arc<Version>,
}

impl Opened {
    /// Loads the newest version.
    ///
    /// # Errors
    /// What loading refuses.
    pub async fn of(archive: Archive) -> Result<Self> {
        let version = Served::open(archive.clone(), IndexSettings::default()).await?.current();
        Ok(Self { archive, version })
    }

    /// Unit vectors by class: of images that do not belong into `like`, in whose space they must be.
    ///
    /// # Errors
    /// `SpaceMismatch`.
    pub fn families(&self, like: &Self) -> Result<BTreeMap<ClassLabel, Vec<Embedding>>> {
        if self.version.state.manifest.space.id() != like.version.state.manifest.space.id() {
            return Err(Error::new(
                ErrorKind::SpaceMismatch,
                "the images that do not belong here are of another space than the archive's: embed both with one model",
            ));
        }
        let mut families: BTreeMap<ClassLabel, Vec<Embedding>> = BTreeMap::new();
        for spot in self.version.state.live() {
            let record = self.version.state.at(spot);
            if let Some(class) = &record.class
                && let Some((_, unit)) = self.version.snapshot.get(record.id)
            {
                families.entry(class.clone()).or_default().push(unit);
            }
        }
        Ok(families)
    }
}

/// Small pictures of the images of an evaluation, as they are kept.
pub struct Pictures(BTreeMap<ImageId, bytes::Bytes>);

impl Pictures {
    /// Reads the thumbnails of all `cases` that have one, from whichever of the archives holds them.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    pub async fn read(cases: &Cases, archives: &[&Opened]) -> Result<Self> {
        let mut found = BTreeMap::new();
        for case in &cases.items {
            let Some(thumbnail) = &case.record.thumbnail else {
                continue;
            };
            found.insert(case.record.id, read_from(thumbnail, archives).await?);
        }
        Ok(Self(found))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One as a `data:` URL.
    pub fn url(&self, id: ImageId) -> Option<String> {
        self.0
            .get(&id)
            .map(|png| format!("data:image/png;base64,{}", STANDARD.encode(png)))
    }

    /// `cases` in the space of 32×32 grey values.
    ///
    /// # Errors
    /// A sentence that says why there is none.
    pub fn as_space(&self, cases: &Cases, decoder: &Decoder) -> std::result::Result<Cases, String> {
        if self.len()
            < cases
                .items
                .iter()
                .filter(|case| case.record.thumbnail.is_some())
                .count()
            || self.is_empty()
        {
            return Err("no pictures are kept".to_owned());
        }
        let card = ThumbnailBackend::default().card().clone();
        let one = |case: &super::cases::Case| {
            let png = self.0.get(&case.record.id).ok_or("of some images no picture is kept")?;
            let prepared = prepare(decoder, &card.input(), png, None).map_err(|_| "a picture can't be read")?;
            let raw = ThumbnailBackend::default()
                .embed(&[prepared.input])
                .map_err(|_| "a picture can't be embedded")?;
            let raw = raw.into_iter().next().ok_or("a picture can't be embedded")?;
            // A picture of one grey value has no direction; any will do.
            let unit = Embedding::from_raw(&raw, card.dimension);
            Ok(unit.map_or_else(|_| even(card.dimension), |unit| unit.as_slice().to_vec()))
        };
        let vectors: std::result::Result<Vec<Vec<f32>>, &str> = cases.items.par_iter().map(one).collect();
        Ok(cases.in_space(card.dimension, vectors?.concat()))
    }
}

async fn read_from(thumbnail: &PackRef, archives: &[&Opened]) -> Result<bytes::Bytes> {
    let mut last = Error::internal("there is no archive to read from");
    for opened in archives {
        match opened.archive.read_pack(thumbnail).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn even(dimension: usize) -> Vec<f32> {
    vec![1.0 / (dimension as f32).sqrt(); dimension]
}
