//! Copies of a picture: equal but for encoding, size, borders, exposure or a small crop. Found among all images of an archive, or for one that comes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use rayon::prelude::*;

use crate::archive::{Archive, NewImage, State};
use crate::domain::{Ask, Embedding, Exclude, FrameNumber, ImageId, OnePer, Query, Record, Union};
use crate::error::Result;
use crate::imaging::{
    COSINE_CANDIDATE, Decoder, Fingerprint, NEAR_DUPLICATE, OUTLINE_CANDIDATE, Outline, to_eight_bit,
};
use crate::index;
use crate::search::Engine;
use crate::telemetry::run_blocking;

/// Images that one that comes is compared with: the nearest by their vectors.
const LOOKED_AT: usize = 10;
/// Longest time that their pictures are waited for; without them the image is taken all the same.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// Pictures that are read, then decoded, together.
const CHUNK: usize = 256;
/// Pictures that are read at a time.
const READS_MAX: usize = 16;

/// Two pictures that are one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The earlier item.
    pub a: usize,
    /// The later one.
    pub b: usize,
    /// [`Fingerprint::similarity`]; 1 for equal pixels.
    pub similarity: f32,
}

/// What a picture is compared by.
#[derive(Debug, Clone)]
pub struct Compared {
    fingerprint: Fingerprint,
    outline: Outline,
}

impl Compared {
    /// Of a picture.
    pub fn of(fingerprint: Fingerprint) -> Self {
        Self {
            outline: fingerprint.outline(),
            fingerprint,
        }
    }

    /// Of a small picture as it is kept; none of one that can't be read.
    pub fn of_thumbnail(png: &[u8], decoder: &Decoder) -> Option<Self> {
        let decoded = decoder.decode(png, FrameNumber::FIRST).ok()?;
        let (picture, _) = to_eight_bit(&decoded.raster).ok()?;
        Some(Self::of(Fingerprint::of(&picture)))
    }

    /// Their similarity if it is at least `similarity_min`; `cosine` is that of their vectors as the model gives them.
    pub fn similarity(&self, other: &Self, cosine: f32, similarity_min: f32) -> Option<f32> {
        let near = cosine >= COSINE_CANDIDATE || self.outline.similarity(&other.outline) >= OUTLINE_CANDIDATE;
        let similarity = near.then(|| self.fingerprint.similarity(&other.fingerprint));
        similarity.filter(|&similarity| similarity >= similarity_min)
    }
}

/// All pairs of at least this similarity whose later item is one from `from` on, in the order of their items. `vectors` are unit vectors, row-major;
/// pictures that are not kept are in no pair. Every two are looked at, first by what is quick. `done` is called after each item.
pub fn near(
    pictures: &[Option<Compared>],
    vectors: &[f32],
    dimension: usize,
    from: usize,
    similarity_min: f32,
    done: impl Fn() + Sync,
) -> Vec<Pair> {
    let of_item = |a: usize| {
        let mut found = Vec::new();
        if let Some(one) = &pictures[a] {
            let own = &vectors[a * dimension..(a + 1) * dimension];
            let later = (from.max(a + 1)..pictures.len()).filter_map(|b| u32::try_from(b).ok());
            index::similarities(own, vectors, later, |b, cosine| {
                let b = b as usize;
                let similarity = (pictures[b].as_ref()).and_then(|other| one.similarity(other, cosine, similarity_min));
                found.extend(similarity.map(|similarity| Pair { a, b, similarity }));
            });
        }
        done();
        found
    };
    (0..pictures.len()).into_par_iter().flat_map_iter(of_item).collect()
}

/// Items that are the same picture by any chain of pairs, two or more, in the order of their first.
pub fn clusters(count: usize, pairs: impl IntoIterator<Item = (usize, usize)>) -> Vec<Vec<usize>> {
    let mut union = Union::new(count);
    pairs.into_iter().for_each(|(a, b)| union.join(a, b));
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (item, set) in union.sets().into_iter().enumerate() {
        members.entry(set).or_default().push(item);
    }
    members.into_values().filter(|members| members.len() > 1).collect()
}

/// What the living images at `spots` are compared by, in their order; none where no picture is kept or it can't be read. Few pictures are in memory at a
/// time.
pub async fn compared(
    archive: &Archive,
    state: &State,
    spots: &[(usize, u32)],
    decoder: &Decoder,
) -> Vec<Option<Compared>> {
    let mut all = Vec::with_capacity(spots.len());
    for chunk in spots.chunks(CHUNK) {
        let reads: Vec<_> = chunk.iter().map(|&spot| thumbnail(archive, state.at(spot))).collect();
        let pictures: Vec<_> = stream::iter(reads).buffered(READS_MAX).collect().await;
        let read = |png: &Option<bytes::Bytes>| Compared::of_thumbnail(png.as_ref()?, decoder);
        all.extend(pictures.par_iter().map(read).collect::<Vec<_>>());
    }
    all
}

async fn thumbnail(archive: &Archive, record: &Record) -> Option<bytes::Bytes> {
    let read = archive.read_pack(record.thumbnail.as_ref()?).await;
    read.inspect_err(
        |error| tracing::warn!(error = %error, "a small picture can't be read, its image is taken for no copy"),
    )
    .ok()
}

/// The image of the archive that is served that a new one is a copy of, if one of those nearest to it is. `png` is its small picture. Never fails: a copy that is
/// not found is an image of its own.
pub(super) async fn copy_of(engine: &Engine, new: &NewImage, png: &[u8], deadline: Instant) -> Option<ImageId> {
    // Half of what is left: the write needs time too.
    let now = Instant::now();
    let until = now + LOOK_MAX.min(deadline.saturating_duration_since(now) / 2);
    let found = tokio::time::timeout_at(until.into(), look(engine, new, png, until)).await;
    match found {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::warn!(error = %error, "an image was taken without looking for copies of it");
            None
        }
        Err(_) => {
            tracing::warn!("an image was taken without looking for copies of it: their pictures took too long");
            None
        }
    }
}

async fn look(engine: &Engine, new: &NewImage, png: &[u8], until: Instant) -> Result<Option<ImageId>> {
    let (own, raw) = (new.record.id, new.vector.as_slice());
    let parts = engine.parts();
    let version = engine.answering(until).await?;
    // What one program drew is alike in what tells films apart. While the archive moves to another model the version that answers may be of the one before.
    let synthetic = version.state.manifest.archive.synthetic;
    let other_space = version.state.manifest.space.id() != new.space;
    if synthetic || other_space || version.state.find(own).is_some() || version.snapshot.images() == 0 {
        return Ok(None);
    }
    let query = Query::of(version.compared(raw)?);
    let ask = Ask {
        k: LOOKED_AT,
        one_per: OnePer::Image,
        exclude: Exclude {
            patient: false,
            study: false,
            pixels: false,
        },
        // A copy in a shard that does not answer is not found; the image is taken all the same.
        allow_partial: true,
        ..Ask::default()
    };
    let (version, nearest, _) = engine.rank(version, &query, &ask, until).await?;
    let spots: Vec<(usize, u32)> = (nearest.hits.iter())
        .filter_map(|hit| version.state.find(hit.id()))
        .collect();
    let pictures: Vec<_> = spots
        .iter()
        .map(|&spot| thumbnail(&parts.archive, version.state.at(spot)))
        .collect();
    let pictures: Vec<_> = stream::iter(pictures).buffered(LOOKED_AT).collect().await;
    let unit = Embedding::from_raw(raw, version.state.manifest.space.dimension)?;
    let (decoder, png) = (version.model()?.preparer.decoder(), png.to_vec());
    run_blocking(move || {
        let Some(one) = Compared::of_thumbnail(&png, &decoder) else {
            return Ok(None);
        };
        for (spot, picture) in spots.into_iter().zip(pictures) {
            let Some(other) = picture.and_then(|png| Compared::of_thumbnail(&png, &decoder)) else {
                continue;
            };
            let cosine = crate::domain::similarity(unit.as_slice(), version.unit_at(spot)?.as_slice());
            if one.similarity(&other, cosine, NEAR_DUPLICATE).is_some() {
                return Ok(Some(version.state.at(spot).id));
            }
        }
        Ok(None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::Raster8;
    use proptest::prelude::*;

    fn picture(seed: u32, width: u32) -> Compared {
        let height = width * 3 / 4;
        let value = |at: u32| {
            let (x, y) = (
                f64::from(at % width) / f64::from(width),
                f64::from(at / width) / f64::from(height),
            );
            let waves = (1..12).map(|wave| {
                let turn = f64::from(seed.wrapping_mul(2_654_435_761).rotate_left(wave) % 1000) / 159.0;
                (x * f64::from(wave) * turn.cos() * 5.0 + y * f64::from(wave) * turn.sin() * 5.0 + turn).sin() * 9.0
            });
            (128.0 + waves.sum::<f64>()).clamp(0.0, 255.0) as u8
        };
        Compared::of(Fingerprint::of(&Raster8 {
            width,
            height,
            channels: 1,
            data: (0..width * height).map(value).collect(),
        }))
    }

    #[test]
    fn another_size_of_a_picture_is_found_whatever_the_vectors_say() {
        let pictures = [
            Some(picture(1, 200)),
            Some(picture(2, 200)),
            None,
            Some(picture(1, 130)),
        ];
        let vectors = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, -1.0];
        let pairs = near(&pictures, &vectors, 2, 0, 0.8, || {});
        assert_eq!(pairs.iter().map(|pair| (pair.a, pair.b)).collect::<Vec<_>>(), [(0, 3)]);
        assert_eq!(near(&pictures, &vectors, 2, 3, 0.8, || {}), pairs);
        assert!(near(&pictures, &vectors, 2, 4, 0.8, || {}).is_empty());
        assert!(near(&pictures, &vectors, 2, 0, 1.1, || {}).is_empty());
    }

    proptest! {
        #[test]
        fn clusters_are_closed_and_apart(count in 1usize..30, pairs in prop::collection::vec((0usize..30, 0usize..30), 0..40)) {
            let pairs: Vec<_> = pairs.into_iter().filter(|&(a, b)| a < count && b < count).collect();
            let clusters = clusters(count, pairs.iter().copied());
            let of = |item: usize| clusters.iter().position(|cluster| cluster.contains(&item));
            for &(a, b) in &pairs {
                prop_assert!(a == b || of(a).is_some() && of(a) == of(b));
            }
            let all: usize = clusters.iter().map(Vec::len).sum();
            let different: std::collections::BTreeSet<usize> = clusters.iter().flatten().copied().collect();
            prop_assert_eq!(all, different.len());
            prop_assert!(clusters.iter().all(|cluster| cluster.len() > 1 && cluster.is_sorted()));
        }
    }
}
