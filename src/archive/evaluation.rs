//! Evaluation objects: how good an archive's answers were found to be, a JSON file each. Figures and counts only.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bulk::AGE_MAX;
use super::commit::{Propose, Proposed, base, commit};
use super::store::{Store, object_name};
use super::{Archive, Moment, State};
use crate::domain::{ClassLabel, SpaceId, Unknown};
use crate::error::{Error, ErrorKind, Result};

const FORMAT: u32 = 1;
/// Largest object: the figures of a thousand classes, told apart from one another.
const BYTES_MAX: usize = 16 << 20;

/// An evaluation, as the manifest names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationEntry {
    /// `evaluations/<blake3>`.
    pub object: String,
    /// Its size.
    pub bytes: u64,
    /// What it was made of.
    #[serde(flatten)]
    pub made: Made,
}

/// What an evaluation was made of: without it no figure means anything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// When.
    pub made_at: Timestamp,
    /// The version whose images were asked.
    pub made_on: u64,
    /// Images of each class that could be found.
    pub images: BTreeMap<ClassLabel, u64>,
    /// How queries and archive were kept apart, in words.
    pub split: String,
    /// The space of the vectors.
    pub space: SpaceId,
    /// The learned metric that the archive was searched by at that time; absent: cosine.
    pub metric: Option<String>,
    /// A metric was learned anew for each test. If not, the vectors were compared as they are, whatever the archive was searched by.
    pub learned: bool,
    /// What a later program added.
    #[serde(flatten)]
    pub other: Unknown,
}

impl EvaluationEntry {
    /// Its short name, 32 hex digits.
    pub fn id(&self) -> &str {
        super::short(&self.object)
    }
}

/// An evaluation that is about to be kept.
#[derive(Debug, Clone)]
pub struct NewEvaluation {
    /// What it was made of.
    pub made: Made,
    /// The figures; no pictures, no ids, no names of files.
    pub report: Value,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    space: SpaceId,
    metric: Option<String>,
    /// Makes every object new: a name that was collected never comes back.
    commit: String,
    report: Value,
}

async fn put(archive: &Archive, new: &NewEvaluation, commit: &str) -> Result<EvaluationEntry> {
    let file = File {
        format: FORMAT,
        space: new.made.space,
        metric: new.made.metric.clone(),
        commit: commit.to_owned(),
        report: new.report.clone(),
    };
    let bytes = serde_json::to_vec(&file)
        .map_err(|error| Error::with_source(ErrorKind::Internal, "an evaluation can't be written as JSON", error))?;
    if bytes.len() > BYTES_MAX {
        let message = format!(
            "the evaluation has {} bytes, an archive keeps {BYTES_MAX} at most",
            bytes.len()
        );
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    let (object, bytes) = object_name("evaluations", bytes.into()).await?;
    let size = bytes.len() as u64;
    archive.store().put_object(&object, bytes).await?;
    Ok(EvaluationEntry {
        object,
        bytes: size,
        made: new.made.clone(),
    })
}

/// Reads an evaluation from its storage.
///
/// # Errors
/// `Damaged`, also when it is not the one that the manifest means; `Unavailable`, also for the format of a later program.
pub(super) async fn fetch(store: &Store, entry: &EvaluationEntry) -> Result<Value> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let name = &entry.object;
    let damaged = |what: &str| Error::new(ErrorKind::Damaged, format!("`{name}` is damaged: {what}"));
    if entry.bytes > BYTES_MAX as u64 {
        return Err(damaged("it is too large"));
    }
    let bytes = store.get_object(name).await?;
    let unreadable = |_| damaged("it is no evaluation");
    let Format { format } = serde_json::from_slice(&bytes).map_err(unreadable)?;
    if format > FORMAT {
        let message =
            format!("`{name}` has format {format}, this program reads format {FORMAT}: use a newer medsearch");
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    let file: File = serde_json::from_slice(&bytes).map_err(unreadable)?;
    let as_listed = file.space == entry.made.space && file.metric == entry.made.metric;
    if !as_listed || bytes.len() as u64 != entry.bytes {
        return Err(damaged("it is not what the manifest says"));
    }
    Ok(file.report)
}

impl Archive {
    /// Keeps an evaluation in place of the one before. Gives the version that names it.
    ///
    /// # Errors
    /// `TooLarge`; `StorageFull`, `Unavailable`: then nothing has changed.
    pub async fn keep_evaluation(&self, new: NewEvaluation) -> Result<u64> {
        let base = base(self).await?;
        let mut work = Keep { new, written: None };
        Ok(commit(self, &base, &mut work).await?.manifest.version)
    }

    /// Reads the figures of an evaluation.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    pub async fn read_evaluation(&self, entry: &EvaluationEntry) -> Result<Value> {
        fetch(self.store(), entry).await
    }
}

struct Keep {
    new: NewEvaluation,
    /// The object, and since when it is there.
    written: Option<(Moment, EvaluationEntry)>,
}

impl Propose for Keep {
    async fn propose(
        &mut self,
        archive: &Archive,
        base: &std::sync::Arc<State>,
        commit: &str,
    ) -> Result<Option<Proposed>> {
        let young = |&(at, _): &(Moment, EvaluationEntry)| at.age(archive.moment()) <= AGE_MAX;
        let (at, entry) = match self.written.take().filter(young) {
            Some(written) => written,
            None => (archive.moment(), put(archive, &self.new, commit).await?),
        };
        let mut manifest = base.manifest.as_ref().clone();
        manifest.evaluation = Some(entry.clone());
        self.written = Some((at, entry));
        Ok(Some(Proposed { manifest, rows: vec![] }))
    }
}
