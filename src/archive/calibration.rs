//! Calibration objects: a JSON file each, small and readable.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::store::{Store, object_name};
use super::{Archive, Manifest, lock};
use crate::domain::{Calibration, ClassLabel, SpaceId, Unknown};
use crate::error::{Error, ErrorKind, Result};

const FORMAT: u32 = 1;
const BYTES_MAX: usize = 16 << 20;

/// A calibration of votes, as the manifest names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationEntry {
    /// `calibrations/<blake3>`.
    pub object: String,
    /// Its size.
    pub bytes: u64,
    /// The learned metric that it was fitted with; absent: cosine.
    pub metric: Option<String>,
    /// When it was fitted.
    pub fitted_at: Timestamp,
    /// The version whose images it was fitted on.
    pub fitted_on: u64,
    /// Groups (patients, copies of a picture) of each class that it was fitted on.
    pub groups: BTreeMap<ClassLabel, u64>,
    /// What a later program added.
    #[serde(flatten)]
    pub other: Unknown,
}

impl CalibrationEntry {
    /// Its short name, 32 hex digits.
    pub fn id(&self) -> &str {
        super::short(&self.object)
    }
}

/// A calibration that is about to be named.
#[derive(Debug, Clone)]
pub struct NewCalibration {
    /// What it says.
    pub calibration: Calibration,
    /// The version whose images it was fitted on.
    pub fitted_on: u64,
    /// When.
    pub fitted_at: Timestamp,
    /// Groups of each class that it was fitted on.
    pub groups: BTreeMap<ClassLabel, u64>,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    space: SpaceId,
    metric: Option<String>,
    /// Makes every object new: a name that was collected never comes back.
    commit: String,
    calibration: Calibration,
}

/// Names and writes the object of a calibration that holds under `metric`.
///
/// # Errors
/// `StorageFull`, `Unavailable`, `TooLarge`, `Internal` when it contradicts itself.
pub(super) async fn put(
    archive: &Archive,
    manifest: &Manifest,
    new: &NewCalibration,
    metric: Option<String>,
    commit: &str,
) -> Result<CalibrationEntry> {
    let refused = |what| Error::internal(format!("refused to write a calibration: {what}"));
    new.calibration.check().map_err(refused)?;
    let file = File {
        format: FORMAT,
        space: manifest.space.id(),
        metric,
        commit: commit.to_owned(),
        calibration: new.calibration.clone(),
    };
    let bytes = serde_json::to_vec(&file)
        .map_err(|error| Error::with_source(ErrorKind::Internal, "a calibration can't be written as JSON", error))?;
    if bytes.len() > BYTES_MAX {
        let message = format!(
            "the calibration has {} bytes, an archive keeps {BYTES_MAX} at most",
            bytes.len()
        );
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    let (object, bytes) = object_name("calibrations", bytes.into()).await?;
    let size = bytes.len() as u64;
    archive.store().put_object(&object, bytes).await?;
    Ok(CalibrationEntry {
        object,
        bytes: size,
        metric: file.metric,
        fitted_at: new.fitted_at,
        fitted_on: new.fitted_on,
        groups: new.groups.clone(),
        other: Unknown::new(),
    })
}

/// Reads the calibration that `manifest` names from its storage.
///
/// # Errors
/// `Damaged`, also when it is not the one that the manifest means; `Unavailable`, also for the format of a later program.
pub(super) async fn fetch(store: &Store, manifest: &Manifest, entry: &CalibrationEntry) -> Result<Calibration> {
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
    let unreadable = |_| damaged("it is no calibration");
    let Format { format } = serde_json::from_slice(&bytes).map_err(unreadable)?;
    if format > FORMAT {
        let message =
            format!("`{name}` has format {format}, this program reads format {FORMAT}: use a newer medsearch");
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    let file: File = serde_json::from_slice(&bytes).map_err(unreadable)?;
    file.calibration.check().map_err(damaged)?;
    if file.space != manifest.space.id() || file.metric != entry.metric || bytes.len() as u64 != entry.bytes {
        return Err(damaged("it is not what the manifest says"));
    }
    Ok(file.calibration)
}

impl Archive {
    /// Reads a calibration.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    pub async fn read_calibration(&self, entry: &CalibrationEntry) -> Result<Calibration> {
        let manifest = std::sync::Arc::clone(&lock(&self.0.known).manifest);
        fetch(self.store(), &manifest, entry).await
    }
}
