//! What is evaluated: an archive's images, their small pictures, and images that do not belong there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rayon::prelude::*;

use super::cases::Cases;
use super::duplicates::{Cluster, Compared, Duplicates, Pair, clusters, near};
use super::evaluation::{Available, Picture};
use crate::archive::Archive;
use crate::domain::{ClassLabel, Embedding, ImageId, PackRef, Record, UNLABELLED};
use crate::embed::{Backend as _, ThumbnailBackend};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{Decoder, Fingerprint, NEAR_DUPLICATE, to_eight_bit};
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
    /// Reads the thumbnails of all records that have one, from whichever of the archives holds them.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    pub async fn read<'a>(records: impl Iterator<Item = &'a Arc<Record>>, archives: &[&Opened]) -> Result<Self> {
        let mut found = BTreeMap::new();
        for record in records {
            if let Some(thumbnail) = &record.thumbnail {
                found.insert(record.id, read_from(thumbnail, archives).await?);
            }
        }
        Ok(Self(found))
    }

    /// Takes near duplicates among `cases` for one picture each, and says how many images are one; or why it can't.
    pub fn join_copies(&self, cases: &mut Cases, decoder: &Decoder, done: impl Fn() + Sync) -> Available<usize> {
        let compared = |case: &super::cases::Case| self.compared(case.record.id, decoder);
        let compared: Vec<Option<Compared>> = cases.items.par_iter().map(compared).collect();
        if compared.iter().all(Option::is_none) {
            return Available::no("no pictures are kept");
        }
        let pairs = near(&compared, cases.vectors(), cases.dimension(), NEAR_DUPLICATE, done);
        // An image that is asked about and in the archive too is no duplicate of itself.
        let other = |pair: &&Pair| cases.items[pair.a].record.id != cases.items[pair.b].record.id;
        let copies: BTreeSet<usize> = pairs.iter().filter(other).flat_map(|pair| [pair.a, pair.b]).collect();
        cases.join(pairs.iter().map(|pair| (pair.a, pair.b)));
        Available::Yes(copies.len())
    }

    /// What an image is compared by with others; none without a picture that can be read.
    pub fn compared(&self, id: ImageId, decoder: &Decoder) -> Option<Compared> {
        let decoded = decoder.decode(self.0.get(&id)?).ok()?;
        let (picture, _) = to_eight_bit(&decoded.raster).ok()?;
        Some(Compared::of(Fingerprint::of(&picture)))
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

/// Everything that is in an archive twice. `done` is called once an image.
///
/// # Errors
/// `Unavailable`, `Damaged`.
pub async fn duplicates(
    opened: &Opened,
    decoder: &Decoder,
    similarity_min: f32,
    done: impl Fn() + Sync,
) -> Result<Duplicates> {
    let version = &opened.version;
    let mut records: Vec<&Arc<Record>> = version.state.live().map(|spot| version.state.at(spot)).collect();
    records.sort_by_key(|record| record.id);
    let pictures = Pictures::read(records.iter().copied(), &[opened]).await?;
    let compared: Vec<Option<Compared>> = records
        .par_iter()
        .map(|record| pictures.compared(record.id, decoder))
        .collect();
    let mut vectors = Vec::new();
    for record in &records {
        let found = version.snapshot.get(record.id);
        let (_, unit) = found.ok_or_else(|| Error::internal("a live image is not in the index"))?;
        vectors.extend_from_slice(unit.as_slice());
    }
    let dimension = version.snapshot.dimension();
    let mut pairs = near(&compared, &vectors, dimension, similarity_min, done);
    let known: Vec<(usize, usize)> = pairs.iter().map(|pair| (pair.a, pair.b)).collect();
    let mut by_pixels = BTreeMap::new();
    for (at, record) in records.iter().enumerate() {
        let Some(key) = record.pixel_key else { continue };
        let first = *by_pixels.entry(key.0).or_insert(at);
        // Pictures that are not kept, or flat.
        if first != at && !known.contains(&(first, at)) {
            pairs.push(Pair {
                a: first,
                b: at,
                similarity: 1.0,
            });
        }
    }
    let manifest = &version.state.manifest;
    let mut clusters: Vec<Cluster> = clusters(records.len(), pairs.iter().map(|pair| (pair.a, pair.b)))
        .into_iter()
        .map(|members| cluster(&records, &members, &pairs, &pictures))
        .collect();
    clusters.sort_by_key(|cluster| (!cluster.label_conflict, !cluster.patient_conflict));
    Ok(Duplicates {
        archive: manifest.archive.name.clone(),
        archive_version: manifest.version,
        images: records.len(),
        further_files: records.iter().map(|record| record.aliases.len()).sum(),
        without_picture: compared.iter().filter(|compared| compared.is_none()).count(),
        similarity_min,
        clusters,
    })
}

fn cluster(records: &[&Arc<Record>], members: &[usize], pairs: &[Pair], pictures: &Pictures) -> Cluster {
    let place = |item: usize| members.binary_search(&item).ok();
    let own: Vec<(usize, usize, f32)> = (pairs.iter())
        .filter_map(|pair| Some((place(pair.a)?, place(pair.b)?, pair.similarity)))
        .collect();
    let different = |keys: &mut dyn Iterator<Item = String>| {
        let mut keys: Vec<String> = keys.collect();
        keys.sort_unstable();
        keys.dedup();
        keys.len() > 1
    };
    let record = |&item: &usize| records[item];
    let pixels: Vec<_> = members.iter().map(|item| record(item).pixel_key).collect();
    Cluster {
        label_conflict: different(
            &mut members
                .iter()
                .filter_map(|item| Some(record(item).class.as_ref()?.to_string())),
        ),
        patient_conflict: different(
            &mut members
                .iter()
                .filter_map(|item| Some(record(item).patient?.to_string())),
        ),
        equal_pixels: pixels[0].is_some() && pixels.iter().all(|key| *key == pixels[0]),
        images: (members.iter().enumerate())
            .map(|(at, item)| {
                let best = own
                    .iter()
                    .filter(|pair| pair.0 == at || pair.1 == at)
                    .map(|pair| pair.2);
                let record = record(item);
                Picture {
                    id: record.id.to_string(),
                    file: record.file.clone(),
                    class: record
                        .class
                        .as_ref()
                        .map_or_else(|| UNLABELLED.to_owned(), ToString::to_string),
                    source: record.source.clone(),
                    similarity: best.fold(0.0, f32::max),
                    thumbnail: pictures.url(record.id),
                }
            })
            .collect(),
        pairs: own,
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
