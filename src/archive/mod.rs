//! The durable truth: immutable objects named by content, numbered manifests that name them, and one way to write: create manifest n+1.
//!
//! # Layout
//! - `store` the place, a folder or a bucket (put-if-absent, verified reads, a cache), `manifest`, `rows`, `pack`, `graphs`, `metric`, `calibration`, `evaluation` the formats, `frame` how some of them begin.
//! - `secret`, `identity` pseudonyms in place of ids.
//! - `vectors` those of a rows object, in memory or in a file; `state` one version; `draft` what a change does to it (pure); `commit` how it becomes the next version; `newest` which one that is.
//! - `writer` group commit of single changes; `bulk` many images at once; `merge` fewer, larger objects, or other shards; `switch` another
//!   metric; `reembed` another model; `links` which images are copies; `gc` deletes what nothing names.
//! - `scope` what belongs into an archive; `label_rules` which class a file's tags say, `labels` what a labels file says of images that are there.
//! - `feedback` what people say of labels, `inbox` files that wait to be embedded, `audit` where the chains of servers' audits stand: all beside the versions.
//! - `bookmark` how far another system's events were followed, and by which server; `origins` which instances it had.
//! - `npy`, `interchange`, `export` the form that other programs read and write; `verify` reads everything; `remains` looks for what was deleted; `copy` backup and restore; `heal` single objects back from a backup.

mod audit;
mod bookmark;
mod bulk;
mod calibration;
mod commit;
mod copy;
mod draft;
mod evaluation;
mod export;
mod feedback;
mod frame;
mod gc;
mod graphs;
mod heal;
mod identity;
mod inbox;
mod interchange;
mod label_rules;
mod labels;
mod link;
mod links;
mod manifest;
mod merge;
mod metric;
mod newest;
mod npy;
mod origins;
mod pack;
mod reembed;
mod remains;
mod room;
mod rows;
mod scope;
mod secret;
mod state;
mod store;
mod switch;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod vectors;
mod verify;
mod writer;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use audit::AuditHeads;
pub use bookmark::{Bookmark, Cursor, Mark};
pub use bulk::{Appended, Bulk};
pub use calibration::{CalibrationEntry, NewCalibration};
pub use copy::{Copied, CopyStep, backup, restore};
pub use draft::{Change, NewImage, NewPixels, Outcome};
pub use evaluation::{EvaluationEntry, Made, NewEvaluation};
pub use export::{Exported, export};
pub use feedback::{FeedbackId, NewReport, REASON_CHARACTERS_MAX, Report, Reports};
pub use gc::{Collected, CompactSettings, OBJECT_AGE, compact, maintain};
pub use graphs::{GraphBuilder, NewGraph};
pub use heal::{Healed, heal};
pub use identity::{Identity, IdentityMode};
pub use inbox::{FailedFile, Inbox, InboxId, InboxLimits, PutFile, Reason, Waiting};
pub use interchange::{CLASS_FORMAT, ClassData, ClassFile, Described, VectorProvenance, load_folder, open_age};
pub use label_rules::{LabelFacts, LabelRule, LabelRules};
pub use labels::{FileLabels, LabelledImages};
pub use link::Link;
pub use manifest::{
    ArchiveInfo, GraphEntry, GraphParameters, Manifest, ModelRef, PackEntry, Retention, RowsEntry, Scope, Shard, Shown,
    Tombstones,
};
pub use metric::{Fitted, HeldOut, MetricEntry};
pub use npy::{Matrix, NpyWriter, read_npy};
pub use origins::{ConfirmedSweep, Elsewhere, NAME_BYTES, Origin, OriginBook, Origins, RefusedSweep, by_name};
pub use reembed::{NewSpace, Reembed, Reembedded};
pub use remains::{Remains, remains};
pub use rows::{RowsHeader, RowsObject, RowsProvenance};
pub use scope::{Outside, ScopeFacts, UNSTATED};
pub use secret::Secret;
pub use state::State;
pub use switch::Learned;
pub use verify::{Verified, verify};
pub use writer::{Committed, Writer, WriterSettings};

use crate::domain::{Metric, PackRef, Space, Unknown};
use crate::error::{Error, ErrorKind, Result};
use manifest::FORMAT;
use newest::{newest, newest_after, newest_version, read_manifest};
pub use store::{Bucket, CacheSettings, Place, StorageFigures};
use store::{Store, blocking};
use vectors::MEMORY_BYTES_MAX;

/// What is known of the archive is trusted for this long: manifests that are superseded for an hour may be gone, and with them the proof
/// that a number was taken.
const BASE_AGE_MAX: Duration = Duration::from_secs(60);

/// What tests choose and others take as it is.
#[derive(Clone)]
struct Tuning {
    /// The time.
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// How long a commit is tried against other writers or a failing storage.
    patience: Duration,
    /// Larger vectors of a rows object are left to a file.
    memory_bytes_max: usize,
}

impl Tuning {
    fn moment(&self) -> Moment {
        Moment {
            monotonic: Instant::now(),
            wall: (self.clock)(),
        }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            clock: Arc::new(Timestamp::now),
            patience: commit::PATIENCE,
            memory_bytes_max: MEMORY_BYTES_MAX,
        }
    }
}

/// An open archive. Cheap to clone; clones share what is known and what is loaded.
#[derive(Clone)]
pub struct Archive(Arc<Inner>);

struct Inner {
    store: Store,
    identity: Identity,
    tuning: Tuning,
    known: Mutex<Known>,
    /// Rows objects that someone holds, so that a writer and a server in one process share them.
    rows: Mutex<HashMap<String, Weak<RowsObject>>>,
    /// The metric that was read last, by name, for as long as someone holds it.
    metric: Mutex<Option<(String, Weak<Metric>)>>,
    /// One report is written at a time, so that their number has a bound.
    reporting: tokio::sync::Mutex<()>,
    /// How much waited in the inbox when it was last counted.
    inbox: Mutex<Option<inbox::Usage>>,
}

/// The newest manifest, and when that was certain.
#[derive(Clone)]
struct Known {
    manifest: Arc<Manifest>,
    at: Moment,
}

/// A point in time by both clocks: the monotonic one stands still while a machine sleeps, the other one may be set.
#[derive(Clone, Copy)]
struct Moment {
    monotonic: Instant,
    wall: Timestamp,
}

impl Moment {
    /// The larger of the two ages.
    fn age(self, now: Self) -> Duration {
        let wall = now.wall.duration_since(self.wall).unsigned_abs();
        now.monotonic.duration_since(self.monotonic).max(wall)
    }
}

/// What a new archive is.
#[derive(Debug, Clone)]
pub struct NewArchive {
    /// Shown to people.
    pub name: String,
    /// Made by `scripts/demo`.
    pub demo: bool,
    /// The images are synthetic.
    pub synthetic: bool,
    /// Licence of the images.
    pub licence: Option<String>,
    /// Whether ids can be given back.
    pub identity: IdentityMode,
    /// Which pixels are kept.
    pub retention: Retention,
    /// What belongs into it.
    pub scope: Scope,
    /// What stands in open records.
    pub shown: Shown,
    /// Space of its vectors.
    pub space: Space,
    /// Precisions measured as interchangeable, at least one.
    pub precisions: Vec<String>,
    /// Shards, 1 to 65536.
    pub shards: u32,
    /// The model that makes such vectors, stored with the archive.
    pub model: Option<NewModel>,
}

/// A model to be stored with an archive.
#[derive(Debug, Clone)]
pub struct NewModel {
    /// Its card.
    pub card: Value,
    /// Its TorchScript; none for the thumbnail embedder.
    pub torchscript: Option<Bytes>,
}

impl Archive {
    /// Makes an archive: version 1, without images.
    ///
    /// # Errors
    /// `Conflict` when there is one already, or a storage that can't hold one; `InvalidRequest` for a URL or settings that can't be; `StorageFull`, `Unavailable`.
    pub async fn create(url: &str, new: NewArchive, secret: Secret) -> Result<Self> {
        Self::create_in(Store::create(url)?, url, new, secret, Tuning::default()).await
    }

    async fn create_in(store: Store, url: &str, new: NewArchive, secret: Secret, tuning: Tuning) -> Result<Self> {
        let exists = || Error::new(ErrorKind::Conflict, format!("there is an archive at `{url}` already"));
        if newest_version(&store).await?.is_some() {
            return Err(exists());
        }
        manifest::check_shard_count(new.shards)?;
        if new.precisions.is_empty() {
            return Err(Error::new(ErrorKind::InvalidRequest, "an archive accepts a precision"));
        }
        store.prove_put_if_absent().await?;
        let identity = Identity::new(secret, new.identity);
        let model = match new.model {
            Some(model) => Some(put_model(&store, model).await?),
            None => None,
        };
        let at = tuning.moment();
        let now = at.wall;
        let manifest = Manifest {
            format: FORMAT,
            version: 1,
            parent: None,
            commit: uuid::Uuid::new_v4().to_string(),
            created_at: now,
            writer: commit::writer_name(),
            archive: ArchiveInfo {
                id: uuid::Uuid::new_v4().to_string(),
                name: new.name,
                created_at: now.to_string(),
                demo: new.demo,
                synthetic: new.synthetic,
                licence: new.licence,
                identity: new.identity,
                secret_id: identity.secret_id(),
                retention: new.retention,
                scope: new.scope,
                label_rules: LabelRules::default(),
                shown: new.shown,
                other: Unknown::new(),
            },
            space: new.space,
            model,
            precisions: new.precisions,
            classes: vec![],
            metric: None,
            calibration: None,
            evaluation: None,
            shards: manifest::even_shards(new.shards),
            rows: vec![],
            graphs: vec![],
            packs: vec![],
            tombstones: vec![],
            moving_until: None,
            superseded: vec![],
            other: Unknown::new(),
        };
        if commit::place(&store, &manifest, tuning.patience).await? == commit::Placed::Theirs {
            return Err(exists());
        }
        Ok(Self::with(store, identity, tuning, manifest, at))
    }

    /// Opens an archive.
    ///
    /// # Errors
    /// `NotFound` when there is none, `InvalidRequest` for another archive's secret, `Damaged`, `Unavailable`.
    pub async fn open(url: &str, secret: Secret) -> Result<Self> {
        Self::open_cached(url, secret, None).await
    }

    /// The same, keeping what is read from a bucket on this machine.
    ///
    /// # Errors
    /// As [`Archive::open`]; `StorageFull`, `Unavailable` when the cache can't be written.
    pub async fn open_cached(url: &str, secret: Secret, cache: Option<&CacheSettings>) -> Result<Self> {
        let store = Store::open(url)?;
        let store = match cache {
            Some(cache) => store.cached(cache)?,
            None => store,
        };
        Self::open_in(store, url, secret, Tuning::default()).await
    }

    async fn open_in(store: Store, url: &str, secret: Secret, tuning: Tuning) -> Result<Self> {
        let at = tuning.moment();
        let manifest = newest(&store).await?;
        let manifest =
            manifest.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no archive at `{url}`")))?;
        let identity = Identity::new(secret, manifest.archive.identity);
        let (ours, wanted) = (identity.secret_id(), &manifest.archive.secret_id);
        if ours != *wanted {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("the secret `{ours}` is not that of the archive at `{url}`, which is `{wanted}`"),
            ));
        }
        let archive = Self::with(store, identity, tuning, manifest, at);
        archive.sweep_cache().await?;
        Ok(archive)
    }

    fn with(store: Store, identity: Identity, tuning: Tuning, manifest: Manifest, at: Moment) -> Self {
        let known = Mutex::new(Known {
            manifest: Arc::new(manifest),
            at,
        });
        Self(Arc::new(Inner {
            store,
            identity,
            tuning,
            known,
            rows: Mutex::default(),
            metric: Mutex::default(),
            reporting: tokio::sync::Mutex::default(),
            inbox: Mutex::default(),
        }))
    }

    /// Makes its pseudonyms.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The newest version.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    pub async fn latest(&self) -> Result<Arc<Manifest>> {
        self.refresh().await?;
        self.sweep_cache().await?;
        Ok(Arc::clone(&lock(&self.0.known).manifest))
    }

    /// The newest version when it is newer than `version`.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    pub async fn after(&self, version: u64) -> Result<Option<Arc<Manifest>>> {
        let manifest = self.latest().await?;
        Ok((manifest.version > version).then_some(manifest))
    }

    /// Reads a rows object, or shares one that is in memory.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    pub async fn read_rows(&self, entry: &RowsEntry) -> Result<Arc<RowsObject>> {
        if let Some(held) = lock(&self.0.rows).get(&entry.object).and_then(Weak::upgrade) {
            return Ok(held);
        }
        let loaded = self.0.store.load_object(&entry.object).await?;
        let (name, memory_bytes_max) = (entry.object.clone(), self.0.tuning.memory_bytes_max);
        let object = Arc::new(blocking(move || rows::decode(&name, loaded, memory_bytes_max)).await??);
        if u64::from(object.rows()) != entry.rows {
            return Err(Error::new(
                ErrorKind::Damaged,
                format!("`{}` has not the rows that it should", entry.object),
            ));
        }
        self.hold(&object);
        Ok(object)
    }

    /// Reads a graph, as it was handed in.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    pub async fn read_graph(&self, entry: &GraphEntry) -> Result<Bytes> {
        graphs::payload(entry, self.0.store.load_object(&entry.object).await?.bytes)
    }

    /// Reads one picture.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    pub async fn read_pack(&self, slice: &PackRef) -> Result<Bytes> {
        pack::read(&self.0.store, slice).await
    }

    /// The TorchScript of the stored model, verified.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    pub async fn read_model(&self, model: &ModelRef) -> Result<Bytes> {
        read_model(&self.0.store, model).await
    }

    /// What was asked of the storage since it was opened, what was found damaged, and how large the cache is.
    pub fn storage_figures(&self) -> StorageFigures {
        self.0.store.figures()
    }

    fn store(&self) -> &Store {
        &self.0.store
    }

    fn now(&self) -> Timestamp {
        (self.0.tuning.clock)()
    }

    fn patience(&self) -> Duration {
        self.0.tuning.patience
    }

    fn moment(&self) -> Moment {
        self.0.tuning.moment()
    }

    /// Shares a rows object for as long as someone uses it.
    fn hold(&self, object: &Arc<RowsObject>) {
        let mut held = lock(&self.0.rows);
        held.retain(|_, object| object.strong_count() > 0);
        held.insert(object.name.clone(), Arc::downgrade(object));
    }

    /// Writes a rows object. Large vectors leave memory for a file, where this machine has one.
    async fn put_rows(&self, object: Arc<RowsObject>, bytes: Bytes) -> Result<Arc<RowsObject>> {
        let store = &self.0.store;
        store.put_object(&object.name, bytes.clone()).await?;
        let memory_bytes_max = self.0.tuning.memory_bytes_max;
        if bytes.len() <= memory_bytes_max {
            return Ok(object);
        }
        let local = store.kept(&object.name, &bytes).await;
        blocking(move || object.left_to(local, memory_bytes_max)).await
    }

    /// Lets the cache go of what the newest version does not name: what was erased from the archive goes from there too.
    async fn sweep_cache(&self) -> Result<()> {
        let manifest = Arc::clone(&lock(&self.0.known).manifest);
        self.0.store.sweep_cache(manifest.version, || manifest.names()).await
    }

    /// Takes note of a manifest that was the newest at `at`.
    fn learn(&self, manifest: Arc<Manifest>, at: Moment) {
        let mut known = lock(&self.0.known);
        if manifest.version >= known.manifest.version {
            *known = Known { manifest, at };
        }
    }

    /// Asks whether there is a newer manifest: from what is known on, or from nothing when that is too old.
    async fn refresh(&self) -> Result<()> {
        let at = self.moment();
        let known = lock(&self.0.known).clone();
        let store = &self.0.store;
        let found = if known.at.age(at) <= BASE_AGE_MAX {
            let Some(newer) = newest_after(store, known.manifest.version).await? else {
                self.learn(known.manifest, at);
                return Ok(());
            };
            Some(newer)
        } else {
            newest(store).await?
        };
        match found {
            Some(manifest) if manifest.archive.id == known.manifest.archive.id => {
                self.learn(Arc::new(manifest), at);
                Ok(())
            }
            _ => Err(Error::new(
                ErrorKind::Unavailable,
                "the archive is gone, or another one has taken its place",
            )),
        }
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive")
            .field("version", &lock(&self.0.known).manifest.version)
            .finish_non_exhaustive()
    }
}

/// The short name of an object: 32 hex digits of its digest.
fn short(object: &str) -> &str {
    let digest = object.rsplit('/').next().unwrap_or_default();
    digest.get(..32).unwrap_or(digest)
}

/// A value behind a lock is whole at every moment, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_model(store: &Store, model: &ModelRef) -> Result<Bytes> {
    let name = manifest::model_name(&model.digest);
    let bytes = store.get(&name).await?;
    let (digest, bytes) = blocking(move || (model_digest(&bytes), bytes)).await?;
    if digest != model.digest {
        return Err(store.damaged(Error::new(
            ErrorKind::Damaged,
            format!("`{name}` is damaged: its bytes have another digest"),
        )));
    }
    Ok(bytes)
}

fn model_digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

async fn put_model(store: &Store, model: NewModel) -> Result<ModelRef> {
    let bytes = model.torchscript.unwrap_or_default();
    let digest = model_digest(&bytes);
    let reference = ModelRef {
        digest,
        card: model.card,
        other: Unknown::new(),
    };
    if let Some(name) = reference.object() {
        store.put_object(&name, bytes).await?;
    }
    Ok(reference)
}
