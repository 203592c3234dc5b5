//! One query through all its stages: decode, preprocess, embed, search, merge, vote.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;

use super::answer::{Answer, AskedQuery, EmbeddedImage, Overview, Saturation, Timings, Upload};
use super::calibrate::{Asked, Origin, calibrate};
use super::model::Model;
use super::prepare::{InModel, PreparedImage};
use super::sampled::Sampler;
use super::served::{Served, Version};
use super::{vote, warn};
use crate::archive::{Archive, Identity, Link, StorageFigures};
use crate::cluster::Cluster;
use crate::domain::{
    Appearance, Ask, Calibration, Embedding, Excerpt, FrameNumber, ImageId, Key, PatientKeys, Query, Record, Region,
    SpaceId, Wanted,
};
use crate::embed::{Embedded, ModelCard};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{PixelLayout, appearance, native_frame, render, thumbnail_png};
use crate::telemetry::{SPANS, run_blocking};

/// Most ids that one search may be made of.
pub const QUERY_IDS_MAX: usize = 16;

/// Long side of the picture that a search gives back of its query, in pixels.
const PREVIEW_PX_MAX: u32 = 1024;
/// Longest part of a client's word that is repeated in a message.
const ECHO_CHARACTERS_MAX: usize = 40;
/// Explanations at a time: one fills the model's batches, and searches need their places in its queue.
const EXPLANATIONS_AT_ONCE: usize = 1;
/// Explanations that are made or wait; one more is refused. Each keeps its upload's share of the memory for uploads.
const EXPLANATIONS_MAX: usize = 4;
/// Longest wait for memory to show a picture.
const RENDER_WAIT_MAX: Duration = Duration::from_secs(10);

/// The parts an engine is made of.
pub struct Parts {
    /// The archive.
    pub archive: Archive,
    /// Its newest version, indexed, with its model.
    pub served: Arc<Served>,
    /// Most images that wait for the model.
    pub queue_max: usize,
    /// Searches at a time.
    pub search_threads: usize,
    /// The other replicas; none: this one holds everything.
    pub cluster: Option<Cluster>,
    /// Looks at a share of the answers.
    pub sampler: Arc<Sampler>,
}

/// Answers queries over one archive. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    parts: Parts,
    search_permits: Arc<Semaphore>,
    inner_permits: Arc<Semaphore>,
    explanation_permits: Arc<Semaphore>,
    explanation_places: Arc<Semaphore>,
}

pub(super) async fn turn(
    permits: &Arc<Semaphore>,
    deadline: Instant,
    too_late: &'static str,
) -> Result<OwnedSemaphorePermit> {
    tokio::time::timeout_at(deadline.into(), Arc::clone(permits).acquire_owned())
        .await
        .map_err(|_| Error::new(ErrorKind::Deadline, too_late))?
        .map_err(|_| Error::new(ErrorKind::Unavailable, "the server is stopping"))
}

/// What is known of a query beside its place in the index.
struct AskedAbout {
    origin: Origin,
    /// What the model made of it, unless it is in the archive.
    unit: Option<Embedding>,
    /// What it looks like, where it is a whole image that can be told by it.
    appearance: Option<Appearance>,
}

impl Engine {
    /// An engine over `parts`.
    pub fn new(parts: Parts) -> Self {
        let threads = || Arc::new(Semaphore::new(parts.search_threads.max(1)));
        let (search_permits, inner_permits) = (threads(), threads());
        Self(Arc::new(Inner {
            parts,
            search_permits,
            inner_permits,
            explanation_permits: Arc::new(Semaphore::new(EXPLANATIONS_AT_ONCE)),
            explanation_places: Arc::new(Semaphore::new(EXPLANATIONS_MAX)),
        }))
    }

    /// Finds the cases most similar to an image.
    ///
    /// # Errors
    /// What decoding, embedding and searching refuse; `Deadline` when time is up.
    pub async fn search_image(
        &self,
        upload: Upload,
        wanted: Wanted,
        region: Option<Region>,
        deadline: Instant,
    ) -> Result<Answer> {
        let started = Instant::now();
        let version = self.version_for(&wanted.other, deadline).await?;
        let ask = wanted.ask(version.calibrated_for());
        let model = version.model()?;
        let coming = model.embedder.announce();
        let excerpt = Excerpt {
            frame: upload.frame,
            region,
        };
        let InModel {
            image,
            pending,
            decode,
            preprocess,
        } = model
            .preparer
            .run(upload.bytes.clone(), excerpt, coming, deadline)
            .await?;
        let whose = Whose::of(self.0.parts.archive.identity(), &upload, &image);
        let names_unknown = self.names_unknown(&version, &upload, &whose).await?;
        let facts = image.facts.clone();
        // Pixels are not needed after this; nothing large waits for the model.
        let ranged = |(_, calibration): (_, &Calibration)| calibration.appearances.is_some();
        let glance = region.is_none() && version.calibration().is_ok_and(ranged);
        let (appearance, preview) = if glance || upload.preview {
            let look = move || {
                let appearance = glance.then(|| appearance(&image.raster8));
                let preview = upload.preview.then(|| thumbnail_png(&image.raster8, PREVIEW_PX_MAX));
                Ok((appearance, preview.transpose()?))
            };
            run_blocking(look).await?
        } else {
            drop(image);
            (None, None)
        };
        let embedded = pending.wait().await?;
        let unit = version.unit(&embedded.raw)?;
        let mut query = Query {
            embedding: version.snapshot.compared(unit.clone())?,
            patients: whose.patient.into_iter().collect(),
            studies: whose.study.into_iter().collect(),
            same_pixels: vec![whose.file_key, whose.pixel_key],
        };
        let files = version.state.by_file_key(whose.file_key);
        let known: Vec<_> = files.chain(version.state.by_pixel_key(whose.pixel_key)).collect();
        let copies = known
            .iter()
            .flat_map(|&spot| version.keys_of_copies(version.state.at(spot)));
        query.same_pixels.extend(copies);
        let origin = match region {
            Some(_) => Origin::Region,
            None if !known.is_empty() => Origin::Archive,
            None => Origin::Image,
        };
        let asked_about = AskedAbout {
            origin,
            unit: Some(unit),
            appearance,
        };
        let mut answer = self.search(version, query, ask, asked_about, deadline).await?;
        answer.query = AskedQuery {
            image: Some(facts),
            region,
            preview,
            names_unknown,
        };
        answer.timings = Timings {
            decode_ms: ms(decode),
            preprocess_ms: ms(preprocess),
            queue_ms: ms(embedded.queue),
            model_ms: ms(embedded.model),
            search_ms: answer.timings.search_ms,
            total_ms: ms(started.elapsed()),
        };
        Ok(answer)
    }

    /// Whether the archive has nothing of the patient whose image this is said to be, or of the study that the request names. A study that a file names is as
    /// good as random, and nobody tries one after the other.
    async fn names_unknown(&self, version: &Arc<Version>, upload: &Upload, whose: &Whose) -> Result<bool> {
        let is_there = |patient| version.state.by_patient(patient).next().is_some();
        if whose.patient.is_some_and(|patient| !is_there(patient)) {
            return Ok(true);
        }
        let Some(study) = whose.study.filter(|_| upload.study_uid.is_some()) else {
            return Ok(false);
        };
        let version = Arc::clone(version);
        run_blocking(move || Ok(version.hierarchy().under(study.into(), super::Level::Study).is_empty())).await
    }

    /// Finds the cases most similar to images of the archive (to the mean of their directions when there are several).
    ///
    /// # Errors
    /// `NotFound` for an id that is not there; otherwise as a search.
    pub async fn search_ids(&self, ids: Vec<ImageId>, wanted: Wanted, deadline: Instant) -> Result<Answer> {
        if ids.is_empty() || ids.len() > QUERY_IDS_MAX {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("`ids` needs 1 to {QUERY_IDS_MAX} image ids"),
            ));
        }
        let version = self.version_for(&wanted.other, deadline).await?;
        let ask = wanted.ask(version.calibrated_for());
        let mut embeddings = Vec::with_capacity(ids.len());
        let (mut patients, mut studies, mut same_pixels) = (vec![], vec![], vec![]);
        for id in ids {
            let spot = version.state.find(id).ok_or_else(|| not_found(id))?;
            let record = version.state.at(spot);
            embeddings.push(version.snapshot.compared(version.unit_at(spot)?)?);
            patients.extend(PatientKeys::of(record));
            studies.extend(record.study);
            same_pixels.extend(version.keys_of_copies(record));
        }
        let query = Query {
            embedding: Embedding::mean(&embeddings)?,
            patients,
            studies,
            same_pixels,
        };
        let asked_about = AskedAbout {
            origin: Origin::Archive,
            unit: None,
            appearance: None,
        };
        self.search(version, query, ask, asked_about, deadline).await
    }

    /// Finds the cases most similar to a vector of `space`.
    ///
    /// # Errors
    /// `SpaceMismatch` for another space, `WrongDimension` or `InvalidRequest` for a vector that can't be one of it.
    pub async fn search_vector(
        &self,
        raw: Vec<f32>,
        space: SpaceId,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<Answer> {
        let version = self.version_for(&wanted.other, deadline).await?;
        let ask = wanted.ask(version.calibrated_for());
        let own = version.state.manifest.space.id();
        if space != own {
            return Err(Error::new(
                ErrorKind::SpaceMismatch,
                format!(
                    "the vector is of space `{space}`, this archive's is `{own}`: embed the image with this archive's model"
                ),
            ));
        }
        let unit = version.unit(&raw)?;
        let query = Query::of(version.snapshot.compared(unit.clone())?);
        let asked_about = AskedAbout {
            origin: Origin::Vector,
            unit: Some(unit),
            appearance: None,
        };
        self.search(version, query, ask, asked_about, deadline).await
    }

    /// The vectors of images, of the same frame of each, raw as the model of the version that answers gives them, in their order, and that
    /// model's card, and their space.
    ///
    /// # Errors
    /// What decoding and embedding refuse; `Deadline` when time is up.
    pub async fn embed_images(
        &self,
        images: Vec<Bytes>,
        frame: FrameNumber,
        deadline: Instant,
    ) -> Result<(ModelCard, SpaceId, Vec<EmbeddedImage>)> {
        let version = self.answering(deadline).await?;
        let embed = |bytes| {
            let version = Arc::clone(&version);
            async move {
                let InModel { image, pending, .. } = start_embedding(&version, bytes, frame, deadline).await?;
                let sha256 = image.sha256;
                // Nothing large waits for the model.
                drop(image);
                let raw = pending.wait().await?.raw;
                Ok(EmbeddedImage { sha256, raw })
            }
        };
        // All at once, so that they share batches.
        let embedded = try_join_all(images.into_iter().map(embed)).await?;
        let card = version.model()?.embedder.card().clone();
        Ok((card, version.state.manifest.space.id(), embedded))
    }

    /// An image decoded and embedded as `version` does, for whoever keeps it.
    pub(crate) async fn prepare_and_embed(
        &self,
        version: &Version,
        bytes: Bytes,
        frame: FrameNumber,
        deadline: Instant,
    ) -> Result<(PreparedImage, Embedded)> {
        let InModel { image, pending, .. } = start_embedding(version, bytes, frame, deadline).await?;
        Ok((image, pending.wait().await?))
    }

    /// The version that answers, which has every source that is asked for: an answer without images would not say why.
    async fn version_for(&self, ask: &Ask, deadline: Instant) -> Result<Arc<Version>> {
        let version = self
            .pinned(ask.min_version, ask.allow_partial, deadline)
            .instrument(tracing::debug_span!(target: SPANS, "pin"))
            .await?;
        let unknown = |source: &&String| !version.overview.sources.contains(source);
        if let Some(source) = ask.sources.iter().flatten().find(unknown) {
            let source: String = source.chars().take(ECHO_CHARACTERS_MAX).collect();
            return Err(Error::new(
                ErrorKind::UnknownSource,
                format!("unknown source `{source}`"),
            ));
        }
        Ok(version)
    }

    /// A turn at searching, for as long as it is held: never more at once than there are threads for it.
    pub(crate) async fn search_turn(&self, deadline: Instant) -> Result<OwnedSemaphorePermit> {
        turn(&self.0.search_permits, deadline, "no search thread came free in time").await
    }

    /// A turn at explaining, for as long as it is held.
    pub(super) async fn explanation_turn(&self, deadline: Instant) -> Result<[OwnedSemaphorePermit; 2]> {
        let place = Arc::clone(&self.0.explanation_places).try_acquire_owned();
        let full = |_| Error::new(ErrorKind::Overloaded, "too many explanations wait for the model");
        let place = place.map_err(full)?;
        let too_late = "the explanations before this one took too long";
        let turn = turn(&self.0.explanation_permits, deadline, too_late).await?;
        Ok([place, turn])
    }

    /// All shards, merge, vote.
    async fn search(
        &self,
        version: Arc<Version>,
        query: Query,
        ask: Ask,
        about: AskedAbout,
        deadline: Instant,
    ) -> Result<Answer> {
        let started = Instant::now();
        let query = refined(&version, query, &ask)?;
        let (version, ranking, coverage) = self.rank(version, &query, &ask, deadline).await?;
        self.sample(&version, &query, &ask, &ranking, about.unit.as_ref());
        let (verdict, warnings) = tracing::debug_span!(target: SPANS, "vote").in_scope(|| {
            let verdict = vote::vote(&ranking, ask.vote, ask.k);
            let asked = Asked {
                ask: &ask,
                origin: about.origin,
                unit: about.unit.as_ref(),
                appearance: about.appearance.as_ref(),
                complete: coverage.missing.is_empty(),
                voting: version.snapshot.voting(),
            };
            let verdict = calibrate(verdict, &ranking, version.calibration(), &asked);
            (verdict, warn::warnings(&ranking.hits, &ask, version.snapshot.sources()))
        });
        let manifest = &version.state.manifest;
        let elapsed = ms(started.elapsed());
        Ok(Answer {
            query: AskedQuery::default(),
            ranking,
            verdict,
            warnings,
            coverage,
            version: manifest.version,
            images: version.snapshot.images(),
            space: manifest.space.id(),
            metric: manifest.metric.as_ref().map(|metric| metric.id().to_owned()),
            timings: Timings {
                search_ms: elapsed,
                total_ms: elapsed,
                ..Timings::default()
            },
            ask,
        })
    }

    /// What the archive holds, in the version that is served.
    pub fn overview(&self) -> Overview {
        self.0.parts.served.current().overview.clone()
    }

    /// The version that is served.
    pub fn version(&self) -> u64 {
        self.0.parts.served.current().overview.version
    }

    /// Images that may be a patient's, in the version that is served.
    pub fn images_of(&self, patient: PatientKeys) -> Vec<ImageId> {
        let state = &self.0.parts.served.current().state;
        state.by_patient(patient).map(|at| state.at(at).id).collect()
    }

    /// An image's record.
    pub fn record(&self, id: ImageId) -> Option<Arc<Record>> {
        self.0.parts.served.current().state.record(id).cloned()
    }

    /// The other copies of an image's picture.
    pub fn other_copies(&self, id: ImageId) -> Vec<ImageId> {
        let version = self.0.parts.served.current();
        let copies = version.snapshot.copies(id);
        let others = copies.iter().flat_map(|copies| &copies.images);
        others.copied().filter(|&other| other != id).collect()
    }

    /// Whether an image's label is kept out of votes because the same pixels stand under another class.
    pub fn label_conflict(&self, id: ImageId) -> bool {
        let version = self.0.parts.served.current();
        version
            .state
            .record(id)
            .is_some_and(|record| version.label_conflict(record))
    }

    /// The model of the newest version.
    ///
    /// # Errors
    /// As [`Version::model`].
    pub fn model(&self) -> Result<Arc<Model>> {
        self.0.parts.served.current().model().cloned()
    }

    /// What was asked of the archive's storage, and what was found damaged.
    pub fn storage(&self) -> StorageFigures {
        self.0.parts.archive.storage_figures()
    }

    /// The name of a key that is shown outside.
    pub fn pseudonym(&self, key: Key) -> String {
        self.0.parts.archive.identity().pseudonym(key)
    }

    /// An image's thumbnail, PNG.
    ///
    /// # Errors
    /// `NotFound`, or `PixelsNotKept`.
    pub async fn thumbnail(&self, id: ImageId) -> Result<Bytes> {
        let record = self.record(id).ok_or_else(|| not_found(id))?;
        let thumbnail = record.thumbnail.as_ref().ok_or_else(not_kept)?;
        self.0.parts.archive.read_pack(thumbnail).await
    }

    /// An image to read: 8-bit PNG, through a window (centre, width in stored values) if one is given, at most `size` pixels long.
    ///
    /// # Errors
    /// `NotFound`, `PixelsNotKept`, or `Overloaded` while too many large pictures are in memory.
    pub async fn rendered(&self, id: ImageId, window: Option<(f64, f64)>, size: Option<u32>) -> Result<Bytes> {
        let record = self.record(id).ok_or_else(|| not_found(id))?;
        let pixels = record.pixels.clone().ok_or_else(not_kept)?;
        let deadline = Instant::now() + RENDER_WAIT_MAX;
        let count = u64::from(pixels.width) * u64::from(pixels.height);
        let room = self.model()?.preparer.room(count, deadline).await?;
        let png = self.0.parts.archive.read_pack(&pixels.pack).await?;
        run_blocking(move || {
            let _room = room;
            render(&png, &pixels, window, record.window(), size).map(Bytes::from)
        })
        .await
    }

    /// What the stored values of a kept picture are.
    ///
    /// # Errors
    /// `PixelsNotKept`; `Unavailable` when the storage doesn't answer.
    pub async fn pixel_layout(&self, record: &Record) -> Result<PixelLayout> {
        let pixels = record.pixels.as_ref().ok_or_else(not_kept)?;
        PixelLayout::of(&self.0.parts.archive.read_pack(&pixels.pack).await?, pixels)
    }

    /// The stored values of a kept picture, as [`native_frame`] gives them.
    ///
    /// # Errors
    /// As [`Engine::pixel_layout`], and `Overloaded` while too many large pictures are in memory.
    pub async fn native_frame(&self, record: &Record) -> Result<(PixelLayout, Vec<u8>)> {
        let pixels = record.pixels.clone().ok_or_else(not_kept)?;
        let count = u64::from(pixels.width) * u64::from(pixels.height);
        let deadline = Instant::now() + RENDER_WAIT_MAX;
        let room = self.model()?.preparer.room(count, deadline).await?;
        let png = self.0.parts.archive.read_pack(&pixels.pack).await?;
        run_blocking(move || {
            let _room = room;
            native_frame(&png, &pixels)
        })
        .await
    }

    /// Whose image it is and what it is called where it came from, if the archive keeps that: for whoever has the scope `link`.
    ///
    /// # Errors
    /// `Damaged` when the sealed record can't be opened.
    pub fn link(&self, record: &Record) -> Result<Option<Link>> {
        Link::open(
            self.0.parts.archive.identity(),
            record.sealed.as_deref(),
            record.file_key,
        )
    }

    /// The version that is served, and the pseudonyms of its archive: for what looks at images by the UIDs that they came with.
    pub fn identified(&self) -> (Arc<Version>, &Identity) {
        (self.0.parts.served.current(), self.0.parts.archive.identity())
    }

    /// Queries are answered: the model's thread is alive.
    pub fn is_alive(&self) -> bool {
        self.model().is_ok_and(|model| model.embedder.is_alive())
    }

    /// Time since the archive last said which version is the newest.
    pub fn manifest_age(&self) -> Duration {
        self.0.parts.served.manifest_age()
    }

    /// How full the model's queue is.
    pub fn saturation(&self) -> Saturation {
        Saturation {
            queue_depth: self.model().map_or(0, |model| model.embedder.queue_depth()),
            queue_max: self.0.parts.queue_max,
        }
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.0.parts
    }

    /// Turns at searching for other replicas.
    pub(super) fn inner_permits(&self) -> &Arc<Semaphore> {
        &self.0.inner_permits
    }
}

/// Begins to embed an image as `version` does.
async fn start_embedding(version: &Version, bytes: Bytes, frame: FrameNumber, deadline: Instant) -> Result<InModel> {
    let model = version.model()?;
    let coming = model.embedder.announce();
    model.preparer.run(bytes, frame.into(), coming, deadline).await
}

/// Pseudonyms of one image: what the request says wins over what a DICOM file says.
pub(crate) struct Whose {
    pub patient: Option<PatientKeys>,
    pub study: Option<Key>,
    pub series: Option<Key>,
    pub sop: Option<Key>,
    pub file_key: Key,
    pub pixel_key: Key,
}

impl Whose {
    /// The patient id and its issuer. An issuer belongs to its id: the file's is only taken for the file's own id.
    pub fn named<'a>(
        identity: &Identity,
        upload: &'a Upload,
        image: &'a PreparedImage,
    ) -> (Option<&'a str>, Option<&'a str>) {
        let dicom = &image.provenance;
        let (given, of_file) = (upload.patient_id.as_deref(), dicom.patient_id.as_deref());
        let key = |id: Option<&str>| id.and_then(|id| identity.patient_keys(None, id));
        let issuer = match (given, &upload.issuer) {
            (Some(_), Some(issuer)) => Some(issuer.as_str()),
            (Some(_), None) if key(given) != key(of_file) => None,
            _ => dicom.issuer.as_deref(),
        };
        (issuer, given.or(of_file))
    }

    pub fn of(identity: &Identity, upload: &Upload, image: &PreparedImage) -> Self {
        let dicom = &image.provenance;
        let (issuer, patient_id) = Self::named(identity, upload, image);
        let study_uid = upload.study_uid.as_deref().or(dicom.study_uid.as_deref());
        Self {
            patient: patient_id.and_then(|id| identity.patient_keys(issuer, id)),
            study: study_uid.and_then(|uid| identity.study_key(uid)),
            series: dicom.series_uid.as_deref().and_then(|uid| identity.series_key(uid)),
            sop: dicom.sop_uid.as_deref().and_then(|uid| identity.sop_key(uid)),
            file_key: identity.file_key(&image.file_digest()),
            pixel_key: identity.pixel_key(&image.pixels),
        }
    }
}

/// A query moved by examples, which are left out of the answer themselves.
fn refined(version: &Version, mut query: Query, ask: &Ask) -> Result<Query> {
    let mut embeddings = |ids: &[ImageId]| -> Result<Vec<Embedding>> {
        let embedding = |&id: &ImageId| {
            let spot = version.state.find(id).ok_or_else(|| not_found(id))?;
            query.same_pixels.extend(version.keys_of_copies(version.state.at(spot)));
            version.snapshot.compared(version.unit_at(spot)?)
        };
        ids.iter().map(embedding).collect()
    };
    let (liked, disliked) = (embeddings(&ask.liked)?, embeddings(&ask.disliked)?);
    query.embedding = query.embedding.refined(&liked, &disliked)?;
    Ok(query)
}

pub(super) fn not_found(id: ImageId) -> Error {
    Error::new(ErrorKind::NotFound, format!("this archive has no image `{id}`"))
}

pub(super) fn not_kept() -> Error {
    Error::new(
        ErrorKind::PixelsNotKept,
        "this archive did not keep the pixels of this image",
    )
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
