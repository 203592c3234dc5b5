//! One image in, one receipt out.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::sync::{Mutex, Semaphore};

use super::burned_in::BurnedInRule;
use super::copies::copy_of;
use super::receive::scope_facts;
use crate::archive::{
    Change, Committed, Identity, InboxId, NewImage, NewPixels, Outcome, Retention, Scope, Writer, open_age,
};
use crate::domain::{ClassLabel, ImageId, InstanceKeys, Key, Label, LabelSource, LabelledBy, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::sniff::sniff;
use crate::imaging::{DicomFacts, Format, thumbnail_png, view_png};
use crate::search::{Engine, PreparedImage, Upload, Version, Whose};
use crate::telemetry::run_blocking;

/// Long side of a thumbnail, in pixels.
const THUMBNAIL_PX: u32 = 256;
/// Long side of a picture that is kept for reading, in pixels.
const VIEW_PX_MAX: u32 = 1536;

/// When to ask again to delete a frame whose file is being embedded.
const FRAMES_RETRY_AFTER: Duration = Duration::from_secs(5);
/// Instances that are withdrawn in one commit.
const WITHDRAWN_MAX: usize = 1000;

/// What is said about a new image.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    /// Its class; without one it is found but never votes.
    pub class: Option<ClassLabel>,
    /// How the class was proven.
    pub label_source: Option<LabelSource>,
    /// What gave it its class; none: it came with it.
    pub labelled_by: Option<LabelledBy>,
    /// Where it comes from.
    pub source: Option<String>,
    /// Projection; wins over the one in a DICOM file.
    pub view: Option<String>,
    /// Age in years; likewise.
    pub age: Option<String>,
    /// Sex; likewise.
    pub sex: Option<String>,
}

impl From<Label> for Labels {
    fn from(label: Label) -> Self {
        Self {
            class: label.class,
            label_source: label.label_source,
            labelled_by: label.labelled_by,
            ..Self::default()
        }
    }
}

/// The outcome of a write that is durable.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// The image.
    pub id: ImageId,
    /// The archive version that holds the write.
    pub version: u64,
    /// What was done.
    pub outcome: Outcome,
    /// Its class now.
    pub class: Option<ClassLabel>,
    /// Another copy of the picture stands under another class, of this patient or another: neither label votes.
    pub label_conflict: bool,
    /// The image that it was found to be a copy of.
    pub near_identical_to: Option<ImageId>,
}

impl Receipt {
    fn of(id: ImageId, committed: Committed) -> Self {
        Self {
            id: committed.id.unwrap_or(id),
            version: committed.version,
            outcome: committed.outcome,
            class: committed.class,
            label_conflict: committed.label_conflict,
            near_identical_to: committed.near_identical_to,
        }
    }
}

/// Takes images into the archive that an [`Engine`] serves. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    engine: Engine,
    writer: Writer,
    sweeps: Arc<Sweeps>,
    burned_in: BurnedInRule,
}

/// Sweeps of reports about deleted images: one that runs and one that waits, which begins after whatever was deleted before it.
struct Sweeps {
    places: Semaphore,
    turn: Mutex<()>,
}

impl Default for Sweeps {
    fn default() -> Self {
        Self {
            places: Semaphore::new(2),
            turn: Mutex::new(()),
        }
    }
}

impl Ingest {
    /// Writes through `writer` what `engine` has decoded and embedded.
    pub fn new(engine: Engine, writer: Writer) -> Self {
        Self {
            engine,
            writer,
            sweeps: Arc::default(),
            burned_in: BurnedInRule::default(),
        }
    }

    /// Goes by this rule about names in the pixels.
    #[must_use]
    pub fn with_burned_in(self, burned_in: BurnedInRule) -> Self {
        Self { burned_in, ..self }
    }

    /// What becomes of images with text in their pixels.
    pub fn burned_in(&self) -> BurnedInRule {
        self.burned_in
    }

    /// Whether images are still taken.
    pub fn is_alive(&self) -> bool {
        self.writer.is_alive()
    }

    /// Adds an image. The answer comes when it is durable; the same image again changes nothing.
    ///
    /// # Errors
    /// What decoding and embedding refuse; `Overloaded`, `StorageFull`, `Unavailable` when it can't be stored: then nothing was.
    pub async fn add(&self, upload: Upload, labels: Labels, deadline: Instant) -> Result<Receipt> {
        self.add_in(upload, labels, Change::Insert, deadline).await
    }

    /// Adds the DICOM image of a file of the inbox, by its header alone, with the label that somebody or something else gives it.
    ///
    /// # Errors
    /// `NotFound` when the file waits no more; `Conflict` when its SOP instance is there with other pixels; otherwise as [`Ingest::add`].
    pub async fn add_waiting(
        &self,
        waiting: InboxId,
        upload: Upload,
        label: Label,
        deadline: Instant,
    ) -> Result<Receipt> {
        let as_change = |image| Change::InsertInstance { image, waiting };
        self.add_in(upload, label.into(), as_change, deadline).await
    }

    /// The version that is served.
    pub(super) fn version(&self) -> Arc<Version> {
        self.engine.parts().served.current()
    }

    /// Makes the archive's pseudonyms.
    pub(super) fn identity(&self) -> &Identity {
        self.engine.parts().archive.identity()
    }

    async fn add_in(
        &self,
        upload: Upload,
        labels: Labels,
        as_change: impl Fn(Box<NewImage>) -> Change,
        deadline: Instant,
    ) -> Result<Receipt> {
        let version = self.engine.parts().served.current();
        self.admit(&version, &upload).await?;
        let added = self.add_as(&version, upload.clone(), labels.clone(), &as_change, deadline);
        match added.await {
            // The archive has moved to another model: once more with that.
            Err(error) if error.kind() == ErrorKind::SpaceMismatch => {
                match self.moved_from(&version, deadline).await? {
                    Some(version) => self.add_as(&version, upload, labels, &as_change, deadline).await,
                    None => Err(error),
                }
            }
            added => added,
        }
    }

    /// Refuses a DICOM image that the archive is not for.
    async fn admit(&self, version: &Version, upload: &Upload) -> Result<()> {
        let scope = version.state.manifest.archive.scope.clone();
        if scope == Scope::default() {
            return Ok(());
        }
        let (bytes, limits) = (upload.bytes.clone(), version.model()?.preparer.decoder().limits());
        run_blocking(move || match sniff(&bytes) {
            Ok(Format::Dicom) => {
                let facts = DicomFacts::read(&bytes, &limits)?;
                scope.admits(scope_facts(&facts)).map_err(|outside| {
                    Error::new(
                        ErrorKind::OutOfScope,
                        format!("the archive does not take images of this {outside}"),
                    )
                })
            }
            _ => Ok(()),
        })
        .await
    }

    /// The version that is served once the archive is of another space than `version`; none when it is not.
    async fn moved_from(&self, version: &Version, deadline: Instant) -> Result<Option<Arc<Version>>> {
        let parts = self.engine.parts();
        let space = |version: &Version| version.state.manifest.space.id();
        let newest = parts.archive.latest().await?;
        if newest.space.id() == space(version) {
            return Ok(None);
        }
        let message = "the archive has moved to another model, which is not loaded here yet: send it again";
        let late = |_| Error::new(ErrorKind::Unavailable, message);
        // Time for the image itself.
        let until = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        parts
            .served
            .at_least(newest.version, until.into())
            .await
            .map_err(late)?;
        Ok(Some(parts.served.current()))
    }

    async fn add_as(
        &self,
        version: &Version,
        upload: Upload,
        labels: Labels,
        as_change: impl Fn(Box<NewImage>) -> Change,
        deadline: Instant,
    ) -> Result<Receipt> {
        let (bytes, frame) = (upload.bytes.clone(), upload.frame);
        let (image, embedded) = self.engine.prepare_and_embed(version, bytes, frame, deadline).await?;
        self.burned_in.admit(image.provenance.burned_in)?;
        let archive = self.engine.parts().archive.clone();
        let manifest = &version.state.manifest;
        let (space, retention) = (manifest.space.id(), manifest.archive.retention);
        let provenance = version.model()?.embedder.provenance().clone();
        let mut image = run_blocking(move || {
            let facts = InterchangeFacts::of(archive.identity(), &upload, &labels, &image);
            let record = record(archive.identity(), &upload, labels, &image, facts)?;
            let (thumbnail, pixels) = pictures(&image, retention)?;
            Ok(NewImage {
                record,
                vector: embedded.raw,
                space,
                thumbnail,
                pixels,
                provenance,
            })
        })
        .await?;
        let id = image.record.id;
        if let Some(png) = &image.thumbnail {
            image.record.near_identical_to = copy_of(&self.engine, &image, png, deadline).await;
        }
        let change = as_change(Box::new(image));
        Ok(Receipt::of(id, self.writer.submit(change, deadline).await?))
    }

    /// Gives an image another class, or none.
    ///
    /// # Errors
    /// `NotFound`; otherwise as [`Ingest::add`].
    pub async fn relabel(
        &self,
        id: ImageId,
        class: Option<ClassLabel>,
        label_source: Option<LabelSource>,
        deadline: Instant,
    ) -> Result<Receipt> {
        let change = Change::Relabel {
            id,
            class,
            label_source,
        };
        Ok(Receipt::of(id, self.writer.submit(change, deadline).await?))
    }

    /// Removes an image from every answer. Its bytes are collected by `compact`.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` while other frames of its file wait to be embedded, which would be lost with it; otherwise as [`Ingest::add`].
    pub async fn delete(&self, id: ImageId, deadline: Instant) -> Result<u64> {
        let archive = &self.engine.parts().archive;
        let sop = self.engine.record(id).and_then(|record| record.sop);
        // Another file of it that waits, or is being embedded, must not bring it back: it goes first.
        if let Some(sop) = sop {
            if self.waits_in_frames(sop).await? {
                let message = "other frames of its file are being embedded: delete it when they are done";
                return Err(Error::new(ErrorKind::Unavailable, message).retry_after(FRAMES_RETRY_AFTER));
            }
            let instance = InstanceKeys { sop, file: None };
            archive.inbox().erase_instances(&HashSet::from([instance])).await?;
        }
        let version = self.writer.submit(Change::Delete { id }, deadline).await?.version;
        self.erase_reports();
        Ok(version)
    }

    /// Whether a file of several frames of this instance waits.
    async fn waits_in_frames(&self, sop: Key) -> Result<bool> {
        let inbox = self.engine.parts().archive.inbox();
        let limits = self.version().model()?.preparer.decoder().limits();
        for waiting in inbox.list().await? {
            if waiting.id.sop() != Some(sop) {
                continue;
            }
            let file = match inbox.read(waiting.id).await {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file?,
            };
            let facts = run_blocking(move || Ok(DicomFacts::read(&file, &limits).ok())).await?;
            if facts.is_some_and(|facts| facts.frames > 1) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes files of SOP instances, those that wait too, and each image of which no other file is left. Gives how many images went. What this replica serves is without
    /// them when it returns.
    ///
    /// # Errors
    /// As [`Ingest::add`].
    pub async fn withdraw(&self, instances: &HashSet<InstanceKeys>, deadline: Instant) -> Result<usize> {
        let parts = self.engine.parts();
        // Before the images: what is being embedded meanwhile waits no more, and is refused.
        let waited = parts.archive.inbox().erase_instances(instances).await? > 0;
        let instances: Vec<InstanceKeys> = instances.iter().copied().collect();
        let mut went = 0;
        for some in instances.chunks(WITHDRAWN_MAX) {
            let instances = some.to_vec();
            let committed = self
                .writer
                .submit(Change::DeleteInstances { instances, waited }, deadline)
                .await?;
            if let Outcome::Deleted { images } = committed.outcome {
                went += images;
            }
            parts.served.at_least(committed.version, deadline.into()).await?;
        }
        if went > 0 {
            self.erase_reports();
        }
        Ok(went)
    }

    /// Removes every image that may be a patient's: without an issuer those of this id whoever issued it, with one those of that issuer and
    /// those whose issuer nobody named.
    ///
    /// # Errors
    /// `InvalidRequest` for an id that stands for no patient; `NotFound` when there is no image; otherwise as [`Ingest::add`].
    pub async fn delete_patient(
        &self,
        patient_id: &str,
        issuer: Option<&str>,
        deadline: Instant,
    ) -> Result<(usize, u64)> {
        let identity = self.engine.parts().archive.identity();
        let patient = identity.patient_keys(issuer, patient_id).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidRequest,
                "`patient_id` is blank or a placeholder and stands for no patient",
            )
        })?;
        // Before the images: what is being embedded meanwhile waits no more, and is refused.
        let waited = self.engine.parts().archive.inbox().erase_patient(patient).await?;
        let committed = self
            .writer
            .submit(
                Change::DeletePatient {
                    patient,
                    waited: waited > 0,
                },
                deadline,
            )
            .await?;
        match committed.outcome {
            Outcome::Deleted { images } if images + waited > 0 => {
                self.erase_reports();
                Ok((images + waited, committed.version))
            }
            _ => Err(Error::new(ErrorKind::NotFound, "no image of this patient")),
        }
    }

    /// What was said about images that are gone goes too; nobody waits for it. Where that fails, the hourly upkeep does it.
    fn erase_reports(&self) {
        let archive = self.engine.parts().archive.clone();
        let sweeps = Arc::clone(&self.sweeps);
        tokio::spawn(async move {
            let Ok(_place) = sweeps.places.try_acquire() else {
                return;
            };
            let _turn = sweeps.turn.lock().await;
            if let Err(error) = archive.erase_reports().await {
                tracing::warn!(error = %error, "reports about deleted images could not be erased yet");
            }
        });
    }
}

/// The pictures that an archive keeps of an image, as its retention says.
pub(super) fn pictures(image: &PreparedImage, retention: Retention) -> Result<(Option<Vec<u8>>, Option<NewPixels>)> {
    let thumbnail = thumbnail_png(&image.raster8, THUMBNAIL_PX)?;
    let long_side_max = match retention {
        Retention::Thumbnail => return Ok((Some(thumbnail), None)),
        Retention::View => VIEW_PX_MAX,
        Retention::Original => u32::MAX,
    };
    let view = view_png(&image.raster, long_side_max)?;
    let pixels = NewPixels {
        png: view.png,
        width: view.width,
        height: view.height,
        inverted: view.inverted,
        offset_levels: view.offset_levels,
    };
    Ok((Some(thumbnail), Some(pixels)))
}

/// The interchange record of an image that came over HTTP: what `export` gives back in an archive of mode `linked`.
struct InterchangeFacts(Value);

impl InterchangeFacts {
    fn of(identity: &Identity, upload: &Upload, labels: &Labels, image: &PreparedImage) -> Self {
        let dicom = &image.provenance;
        let (sha256, id) = (hex::encode(image.sha256), hex::encode(image.file_digest()));
        let mut map = Map::new();
        let mut put = |key: &str, value: Option<&str>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                map.insert(key.to_owned(), Value::from(value));
            }
        };
        put("id", Some(&id[..32]));
        put("file", Some(&format!("upload/{sha256}.{}", image.facts.format)));
        put("sha256", Some(&sha256));
        let (issuer, patient_id) = Whose::named(identity, upload, image);
        put("patient_id", patient_id);
        put("issuer", issuer);
        put("study_uid", upload.study_uid.as_deref().or(dicom.study_uid.as_deref()));
        put("series_uid", dicom.series_uid.as_deref());
        put("sop_uid", dicom.sop_uid.as_deref());
        put("source", labels.source.as_deref());
        put("label_source", labels.label_source.as_ref().map(LabelSource::as_str));
        put("view", labels.view.as_deref().or(dicom.view.as_deref()));
        put("age", labels.age.as_deref().or(dicom.age.as_deref()));
        put("sex", labels.sex.as_deref().or(dicom.sex.as_deref()));
        if !image.frame().is_first() {
            map.insert("frame".to_owned(), image.frame().get().into());
        }
        let tags = tags(image);
        if !tags.is_empty() {
            map.insert("tags".to_owned(), serde_json::to_value(tags).unwrap_or_default());
        }
        Self(Value::Object(map))
    }
}

fn tags(image: &PreparedImage) -> std::collections::BTreeMap<String, String> {
    let dicom = &image.provenance;
    let burned_in = dicom.burned_in.map(|burned_in| burned_in.as_str().to_owned());
    [
        ("modality", &dicom.modality),
        ("body_part", &dicom.body_part),
        ("burned_in", &burned_in),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)))
    .collect()
}

fn record(
    identity: &Identity,
    upload: &Upload,
    labels: Labels,
    image: &PreparedImage,
    facts: InterchangeFacts,
) -> Result<Record> {
    let whose = Whose::of(identity, upload, image);
    let dicom = &image.provenance;
    let patient = whose.patient.map(|keys| keys.patient);
    let id = identity.image_id(patient, &image.pixels);
    Ok(Record {
        class: labels.class,
        label_source: labels.label_source,
        labelled_by: labels.labelled_by,
        patient,
        patient_id_key: whose.patient.filter(|keys| keys.has_issuer()).map(|keys| keys.id),
        study: whose.study,
        series: whose.series,
        sop: whose.sop,
        pixel_key: Some(whose.pixel_key),
        frame: image.frame(),
        name_key: facts.0["file"].as_str().and_then(|file| identity.name_key(file)),
        source: labels.source,
        view: labels.view.or_else(|| dicom.view.clone()),
        age: labels.age.or_else(|| dicom.age.clone()).map(open_age),
        sex: labels.sex.or_else(|| dicom.sex.clone()),
        tags: tags(image),
        window: Some(image.window.into()),
        sealed: identity.seal(&facts.0, whose.file_key)?,
        ..Record::bare(id, whose.file_key, Timestamp::now().to_string())
    })
}
