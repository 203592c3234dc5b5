//! What is evaluated: an archive's images, their small pictures, and images that do not belong there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rayon::prelude::*;

use super::cases::Cases;
use super::duplicates::{Cluster, Duplicates};
use super::evaluation::{Available, Copies, Picture};
use crate::archive::Archive;
use crate::domain::{
    Appearance, Appearances, ClassLabel, Embedding, Excerpt, FrameNumber, ImageId, PackRef, PatientKeys, Record,
    UNLABELLED,
};
use crate::embed::{Backend as _, ThumbnailBackend};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{Decoder, NEAR_DUPLICATE, appearance, to_eight_bit};
use crate::ingest::copies::{self, Compared, Pair, clusters, near};
use crate::search::{Version, prepare};

/// An archive with one of its versions.
pub struct Opened {
    /// The archive.
    pub archive: Archive,
    /// Its newest version.
    pub version: Arc<Version>,
}

impl Opened {
    /// Loads the newest version, with the model's own vectors.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    pub async fn of(archive: Archive) -> Result<Self> {
        let version = Arc::new(Version::as_embedded(&archive).await?);
        Ok(Self { archive, version })
    }

    /// `cases` in this archive's space: it has the same images, by another model.
    ///
    /// # Errors
    /// `InvalidRequest` when one is missing.
    pub fn as_space(&self, cases: &Cases) -> Result<Cases> {
        let dimension = self.version.state.manifest.space.dimension;
        let spots = cases.items.iter().map(|case| {
            self.version.state.find(case.record.id).ok_or_else(|| {
                let message = "a space to choose from lacks some of the images: embed the same images by each model";
                Error::new(ErrorKind::InvalidRequest, message)
            })
        });
        let spots = spots.collect::<Result<Vec<_>>>()?;
        let vectors = units(&self.version, &spots)?;
        Ok(cases.in_space(dimension, vectors))
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
        let state = &self.version.state;
        let labelled = state
            .live()
            .filter_map(|spot| Some((spot, state.at(spot).class.clone()?)));
        let (spots, classes): (Vec<_>, Vec<_>) = labelled.unzip();
        let mut classes = classes.into_iter();
        self.version.each_unit(&spots, |unit| {
            if let Some(class) = classes.next() {
                families.entry(class).or_default().push(unit);
            }
        })?;
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
    pub fn join_copies(&self, cases: &mut Cases, decoder: &Decoder, done: impl Fn() + Sync) -> Available<Copies> {
        let compared = |case: &super::cases::Case| self.compared(case.record.id, decoder);
        let compared: Vec<Option<Compared>> = cases.items.par_iter().map(compared).collect();
        if compared.iter().all(Option::is_none) {
            return Available::no("no pictures are kept");
        }
        let pairs = near(&compared, cases.vectors(), cases.dimension(), 0, NEAR_DUPLICATE, done);
        // An image that is asked about and in the archive too is no duplicate of itself.
        let other = |pair: &&Pair| cases.items[pair.a].record.id != cases.items[pair.b].record.id;
        let copies: BTreeSet<usize> = pairs.iter().filter(other).flat_map(|pair| [pair.a, pair.b]).collect();
        cases.join(pairs.iter().map(|pair| (pair.a, pair.b)));
        Available::Yes(Copies {
            images: copies.len(),
            not_compared: compared.iter().filter(|compared| compared.is_none()).count(),
        })
    }

    /// What an image is compared by with others; none without a picture that can be read.
    pub fn compared(&self, id: ImageId, decoder: &Decoder) -> Option<Compared> {
        Compared::of_thumbnail(self.0.get(&id)?, decoder)
    }

    /// What they look like at a glance; `None` where there are none.
    pub fn appearances(&self, decoder: &Decoder) -> Option<Appearances> {
        let pictures: Vec<&bytes::Bytes> = self.0.values().collect();
        let of_one = |png: &&bytes::Bytes| {
            let decoded = decoder.decode(png, FrameNumber::FIRST).ok()?;
            let (picture, _) = to_eight_bit(&decoded.raster).ok()?;
            Some(appearance(&picture))
        };
        let seen: Vec<Option<Appearance>> = pictures.par_iter().map(of_one).collect();
        Appearances::of(seen.into_iter().flatten())
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
        if self.0.is_empty() {
            return Err("no pictures are kept".to_owned());
        }
        let card = ThumbnailBackend::default().card().clone();
        let one = |case: &super::cases::Case| {
            let png = self.0.get(&case.record.id).ok_or("of some images no picture is kept")?;
            let prepared = prepare(decoder, &card.input().into(), png, Excerpt::default())
                .map_err(|_| "a picture can't be read")?;
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
    let mut spots: Vec<(usize, u32)> = version.state.live().collect();
    spots.sort_by_key(|&spot| version.state.at(spot).id);
    let records: Vec<&Arc<Record>> = spots.iter().map(|&spot| version.state.at(spot)).collect();
    let compared = copies::compared(&opened.archive, &version.state, &spots, decoder).await;
    let vectors = units(version, &spots)?;
    let dimension = version.state.manifest.space.dimension;
    let mut pairs = near(&compared, &vectors, dimension, 0, similarity_min, done);
    let known: BTreeSet<(usize, usize)> = pairs.iter().map(|pair| (pair.a, pair.b)).collect();
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
    let members = clusters(records.len(), pairs.iter().map(|pair| (pair.a, pair.b)));
    let mut cluster_of = vec![0; records.len()];
    for (at, members) in members.iter().enumerate() {
        members.iter().for_each(|&item| cluster_of[item] = at);
    }
    let mut own: Vec<Vec<Pair>> = vec![Vec::new(); members.len()];
    for pair in pairs {
        own[cluster_of[pair.a]].push(pair);
    }
    let shown = members.iter().flatten().map(|&item| records[item]);
    let pictures = Pictures::read(shown, &[opened]).await?;
    let mut clusters: Vec<Cluster> = (members.iter().zip(own))
        .map(|(members, own)| cluster(&records, members, &own, &pictures))
        .collect();
    clusters.sort_by_key(|cluster| (!cluster.label_conflict, !cluster.patient_conflict));
    Ok(Duplicates {
        archive: manifest.archive.name.clone(),
        archive_version: manifest.version,
        images: records.len(),
        further_files: records.iter().map(|record| record.aliases.len()).sum(),
        without_picture: compared.iter().filter(|compared| compared.is_none()).count(),
        compared: (records.iter().zip(&compared))
            .filter(|(_, compared)| compared.is_some())
            .map(|(record, _)| record.id)
            .collect(),
        similarity_min,
        clusters,
    })
}

fn cluster(records: &[&Arc<Record>], members: &[usize], pairs: &[Pair], pictures: &Pictures) -> Cluster {
    let place = |item: usize| members.partition_point(|&member| member < item);
    let own: Vec<(usize, usize, f32)> = pairs
        .iter()
        .map(|pair| (place(pair.a), place(pair.b), pair.similarity))
        .collect();
    let mut best = vec![0f32; members.len()];
    for &(a, b, similarity) in &own {
        best[a] = best[a].max(similarity);
        best[b] = best[b].max(similarity);
    }
    let of: Vec<&Record> = members.iter().map(|&item| records[item].as_ref()).collect();
    let classes: BTreeSet<&ClassLabel> = of.iter().filter_map(|record| record.class.as_ref()).collect();
    let patients: Vec<PatientKeys> = of.iter().filter_map(|record| PatientKeys::of(record)).collect();
    Cluster {
        label_conflict: classes.len() > 1,
        patient_conflict: patients.iter().any(|&patient| !patient.may_be(patients[0])),
        equal_pixels: of[0].pixel_key.is_some() && of.iter().all(|record| record.pixel_key == of[0].pixel_key),
        images: (of.iter().zip(best))
            .map(|(record, similarity)| Picture {
                id: record.id.to_string(),
                file: record.file.clone(),
                class: record
                    .class
                    .as_ref()
                    .map_or_else(|| UNLABELLED.to_owned(), ToString::to_string),
                source: record.source.clone(),
                similarity,
                thumbnail: pictures.url(record.id),
            })
            .collect(),
        pairs: own,
    }
}

/// The unit vectors of rows, one after the other.
fn units(version: &Version, spots: &[(usize, u32)]) -> Result<Vec<f32>> {
    let mut vectors = Vec::with_capacity(spots.len() * version.state.manifest.space.dimension);
    version.each_unit(spots, |unit| vectors.extend_from_slice(unit.as_slice()))?;
    Ok(vectors)
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
