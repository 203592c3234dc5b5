//! The inbox: files that were accepted and are not embedded yet. Whoever was told so may forget the file: it is durable, and any replica that writes will embed it.
//!
//! - `inbox/<name>` holds one file, sealed. Its name is made of pseudonyms alone: of the patient, the SOP instance and the bytes. So the same file sent twice
//!   waits once, and what waits of a patient is found without opening anything.
//! - `inbox/failed/<name>` holds one that can't be embedded, with the reason, sealed as well. The oldest go when there are too many.
//! - `inbox/erased/<patient>-<random>` says that a patient was deleted while files of theirs may have waited, `inbox/erased/instance-<instance>-<random>` the same of
//!   a SOP instance: a copy of the inbox that is being made lets go of these.
//!
//! An image of the inbox comes into a version only while its file waits ([`Inbox::waits`], asked by the writer after it knows the version before). Whoever deletes drops what
//! waits first and then commits, so that an image which is being embedded meanwhile is in a version before that, and is deleted, or is refused. Where something waited they commit although no image is there.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::store::{self, blocking};
use super::{Archive, lock};
use crate::domain::{InstanceKeys, Key, PatientKeys};
use crate::error::{Error, ErrorKind, Result};

/// The folder of what waits.
pub(super) const INBOX: &str = "inbox";
/// The folder of what failed.
pub(super) const FAILED: &str = "inbox/failed";
/// The folder of what was deleted lately.
pub(super) const ERASED: &str = "inbox/erased";
/// Files that may wait.
const ENTRIES_MAX: usize = 20_000;
/// Their bytes.
const BYTES_MAX: u64 = 64 << 30;
/// Failed files that are kept.
const FAILED_MAX: usize = 1_000;
/// Their bytes.
const FAILED_BYTES_MAX: u64 = 4 << 30;
/// For so long it is trusted how much waits; others write to it too.
const USAGE_AGE_MAX: Duration = Duration::from_secs(5);
/// A full inbox is worth another try after this.
const FULL_RETRY: Duration = Duration::from_secs(10);
/// For so long it is known what was deleted: far longer than an archive takes to be backed up.
const ERASED_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Longest reason that is kept, in bytes.
const REASON_BYTES_MAX: usize = 500;

/// How much an inbox takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxLimits {
    /// Files that may wait.
    pub entries_max: usize,
    /// Their bytes.
    pub bytes_max: u64,
    /// Failed files that are kept.
    pub failed_max: usize,
    /// Their bytes.
    pub failed_bytes_max: u64,
}

impl Default for InboxLimits {
    fn default() -> Self {
        Self {
            entries_max: ENTRIES_MAX,
            bytes_max: BYTES_MAX,
            failed_max: FAILED_MAX,
            failed_bytes_max: FAILED_BYTES_MAX,
        }
    }
}

/// Names a waiting file, by pseudonyms: the same file has the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InboxId {
    patient: Key,
    patient_id: Key,
    sop: Key,
    /// Of its bytes, as records have it.
    pub file: Key,
}

/// Stands for no patient, and no instance.
const NOBODY: Key = Key([0; 16]);

impl InboxId {
    /// Whose file it is.
    pub fn patient(self) -> Option<PatientKeys> {
        let keys = PatientKeys {
            patient: self.patient,
            id: self.patient_id,
        };
        (self.patient != NOBODY).then_some(keys)
    }

    /// Which SOP instance it is.
    pub fn sop(self) -> Option<Key> {
        (self.sop != NOBODY).then_some(self.sop)
    }

    fn object(self, folder: &str) -> String {
        format!("{folder}/{self}")
    }
}

impl fmt::Display for InboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            patient,
            patient_id,
            sop,
            file,
        } = self;
        write!(f, "{patient}-{patient_id}-{sop}-{file}")
    }
}

impl FromStr for InboxId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let odd = || {
            Error::new(
                ErrorKind::InvalidRequest,
                "the name of a file in the inbox is four keys",
            )
        };
        let keys: Vec<Key> = text
            .split('-')
            .map(|key| key.parse().map_err(|_| odd()))
            .collect::<Result<_>>()?;
        let &[patient, patient_id, sop, file] = keys.as_slice() else {
            return Err(odd());
        };
        let id = Self {
            patient,
            patient_id,
            sop,
            file,
        };
        // One spelling only, since it is the name of a file.
        if id.to_string() == text { Ok(id) } else { Err(odd()) }
    }
}

/// Whether a file waited already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutFile {
    /// It waits now.
    New,
    /// It waited before.
    Known,
}

/// A file that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Its name.
    pub id: InboxId,
    /// Bytes, sealed.
    pub bytes: u64,
    /// Since when, by the clock of the storage.
    pub since: Timestamp,
}

/// A file that can't be embedded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedFile {
    /// Its name.
    pub id: InboxId,
    /// Since when.
    pub since: Timestamp,
    /// Why: the slug of an error's kind, and its message.
    pub reason: Reason,
}

/// Why a file can't be embedded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Stable, for programs.
    pub kind: String,
    /// For people. It names nobody.
    pub message: String,
}

impl From<&Error> for Reason {
    fn from(error: &Error) -> Self {
        let mut message = error.message().to_owned();
        message.truncate(message.floor_char_boundary(REASON_BYTES_MAX));
        Self {
            kind: error.kind().slug().to_owned(),
            message,
        }
    }
}

/// What waits, as it was last counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    at: Instant,
    entries: usize,
    bytes: u64,
}

/// The inbox of an archive. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inbox {
    archive: Archive,
    limits: InboxLimits,
}

impl Archive {
    /// Its inbox, with the limits that are usual.
    pub fn inbox(&self) -> Inbox {
        self.inbox_of(InboxLimits::default())
    }

    /// Its inbox, with other limits.
    pub fn inbox_of(&self, limits: InboxLimits) -> Inbox {
        Inbox {
            archive: self.clone(),
            limits,
        }
    }
}

impl Inbox {
    /// The name that a file has here: of its bytes, whose it is and which instance.
    pub fn id(&self, file: &[u8], patient: Option<PatientKeys>, sop: Option<Key>) -> InboxId {
        let sha256 = Sha256::digest(file).into();
        InboxId {
            patient: patient.map_or(NOBODY, |keys| keys.patient),
            patient_id: patient.map_or(NOBODY, |keys| keys.id),
            sop: sop.unwrap_or(NOBODY),
            file: self.archive.identity().file_key(&sha256),
        }
    }

    /// Keeps a file until it is embedded. `Ok` means that it is durable; the same file again changes nothing.
    ///
    /// # Errors
    /// `Overloaded` when too much waits; `StorageFull`, `Unavailable`: then it may or may not wait.
    pub async fn put(&self, id: InboxId, file: Bytes) -> Result<PutFile> {
        let bytes = file.len() as u64;
        let usage = self.usage().await?;
        if usage.entries >= self.limits.entries_max || usage.bytes.saturating_add(bytes) > self.limits.bytes_max {
            let message = "the inbox is full: more is taken when what waits has been embedded";
            return Err(Error::new(ErrorKind::Overloaded, message).retry_after(FULL_RETRY));
        }
        let sealed = self.seal(id, file).await?;
        let name = id.object(INBOX);
        let put = self.archive.store().put_if_absent(&name, sealed).await?;
        if put == store::Put::Exists {
            // Whoever put it there may not have synced the folder yet.
            self.archive.store().settle(&name).await?;
            return Ok(PutFile::Known);
        }
        if let Some(usage) = lock(&self.archive.0.inbox).as_mut() {
            usage.entries += 1;
            usage.bytes += bytes;
        }
        Ok(PutFile::New)
    }

    /// What waits, the oldest first.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn list(&self) -> Result<Vec<Waiting>> {
        let at = Instant::now();
        let listed = self.archive.store().list(INBOX).await?;
        let mut waiting: Vec<Waiting> = listed
            .into_iter()
            .filter_map(|object| {
                let id = object.name.strip_prefix(INBOX)?.strip_prefix('/')?.parse().ok()?;
                Some(Waiting {
                    id,
                    bytes: object.bytes,
                    since: object.modified,
                })
            })
            .collect();
        waiting.sort_by_key(|waiting| (waiting.since, waiting.id));
        let bytes = waiting.iter().map(|waiting| waiting.bytes).sum();
        *lock(&self.archive.0.inbox) = Some(Usage {
            at,
            entries: waiting.len(),
            bytes,
        });
        Ok(waiting)
    }

    /// Reads a file that waits.
    ///
    /// # Errors
    /// `NotFound` when it waits no more, `Damaged`, `Unavailable`.
    pub async fn read(&self, id: InboxId) -> Result<Bytes> {
        let sealed = self.archive.store().get(&id.object(INBOX)).await?;
        let opened = self.open(id, sealed).await;
        opened.map_err(|error| self.archive.store().damaged(error))
    }

    /// Takes a file out: it is embedded, or not wanted. One that is gone already is fine.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn remove(&self, id: InboxId) -> Result<()> {
        self.archive.store().delete(&id.object(INBOX)).await
    }

    /// Moves a file to those that can't be embedded. The oldest of these go where there are too many.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`: then it waits as before.
    pub async fn fail(&self, id: InboxId, file: &[u8], reason: &Reason) -> Result<()> {
        let header = serde_json::to_vec(reason)
            .map_err(|error| Error::with_source(ErrorKind::Internal, "a reason can't be written as JSON", error))?;
        let length = u32::try_from(header.len()).map_err(|_| Error::internal("a reason is too long"))?;
        let plain = [&length.to_le_bytes()[..], &header, file].concat();
        let sealed = self.seal(id, plain.into()).await?;
        let name = id.object(FAILED);
        // What it failed for before is of no interest any more.
        self.archive.store().delete(&name).await?;
        self.archive.store().put_if_absent(&name, sealed).await?;
        self.remove(id).await?;
        // Whoever erases leaves a note before the files are listed: one of both sees the other.
        if self.was_erased(id).await? {
            self.forget(id).await?;
        }
        self.drop_oldest_failed().await
    }

    /// Files that could not be embedded, the oldest first, with the reasons of the first `limit`.
    ///
    /// # Errors
    /// `Unavailable`. One that can't be read says so in its reason.
    pub async fn failed(&self, limit: usize) -> Result<Vec<FailedFile>> {
        let mut failed = Vec::new();
        for waiting in self.list_failed().await?.into_iter().take(limit) {
            let reason = match self.read_failed(waiting.id).await {
                Ok((reason, _)) => reason,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) if error.kind() == ErrorKind::Damaged => Reason::from(&error),
                Err(error) => return Err(error),
            };
            failed.push(FailedFile {
                id: waiting.id,
                since: waiting.since,
                reason,
            });
        }
        Ok(failed)
    }

    /// How many could not be embedded and are kept.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn failed_count(&self) -> Result<usize> {
        Ok(self.list_failed().await?.len())
    }

    /// Lets a file that failed wait again, for example after an upgrade.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`; otherwise as [`Inbox::put`].
    pub async fn retry(&self, id: InboxId) -> Result<()> {
        let (_, file) = self.read_failed(id).await?;
        self.put(id, file).await?;
        self.forget(id).await
    }

    /// Drops a file that failed.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn forget(&self, id: InboxId) -> Result<()> {
        self.archive.store().delete(&id.object(FAILED)).await
    }

    /// Drops whatever waits or failed of a patient, and remembers for a day that they were deleted. Gives how many files went. Images are to be deleted after this.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`: then nothing may be taken as deleted.
    pub async fn erase_patient(&self, patient: PatientKeys) -> Result<usize> {
        let erased = Erased::Patient(patient);
        // Written first: whoever copies the inbox and finds a file gone looks for it.
        self.note(erased).await?;
        let (waiting, failed) = self.of(|id| erased.covers(id)).await?;
        self.drop_files(&waiting, &failed).await
    }

    /// Drops whatever waits or failed of these SOP instances; what waited is remembered for a day. Gives how many files went. Images are to be deleted after this.
    ///
    /// # Errors
    /// As [`Inbox::erase_patient`].
    pub async fn erase_instances(&self, instances: &HashSet<InstanceKeys>) -> Result<usize> {
        let wanted = |id: InboxId| {
            let all = |sop| InstanceKeys { sop, file: None };
            let one = |sop| InstanceKeys {
                sop,
                file: Some(id.file),
            };
            id.sop()
                .and_then(|sop| [all(sop), one(sop)].into_iter().find(|keys| instances.contains(keys)))
        };
        let (waiting, failed) = self.of(|id| wanted(id).is_some()).await?;
        let noted: HashSet<InstanceKeys> = waiting.iter().chain(&failed).filter_map(|id| wanted(*id)).collect();
        for keys in noted {
            self.note(Erased::Instance(keys)).await?;
        }
        self.drop_files(&waiting, &failed).await
    }

    /// Every file that waits or failed.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn held(&self) -> Result<Vec<InboxId>> {
        let (mut held, failed) = self.of(|_| true).await?;
        held.extend(failed);
        Ok(held)
    }

    /// Whether a file still waits: only then its image may come into a version.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(super) async fn waits(&self, id: InboxId) -> Result<bool> {
        self.archive.store().exists(&id.object(INBOX)).await
    }

    /// Whether a file that waits no more was deleted lately, with its patient or its instance.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn was_erased(&self, id: InboxId) -> Result<bool> {
        let marks = self.archive.store().list(ERASED).await?;
        Ok(marks
            .iter()
            .filter_map(|mark| erased(&mark.name))
            .any(|erased| erased.covers(id)))
    }

    async fn note(&self, erased: Erased) -> Result<()> {
        let number = Key(*uuid::Uuid::new_v4().as_bytes());
        let mark = format!("{ERASED}/{erased}-{number}");
        self.archive.store().put_object(&mark, Bytes::new()).await
    }

    /// Those that wait, and those that failed.
    async fn of(&self, wanted: impl Fn(InboxId) -> bool) -> Result<(Vec<InboxId>, Vec<InboxId>)> {
        let of = |listed: Vec<Waiting>| {
            listed
                .into_iter()
                .map(|file| file.id)
                .filter(|id| wanted(*id))
                .collect()
        };
        Ok((of(self.list().await?), of(self.list_failed().await?)))
    }

    async fn drop_files(&self, waiting: &[InboxId], failed: &[InboxId]) -> Result<usize> {
        for id in waiting {
            self.remove(*id).await?;
        }
        for id in failed {
            self.forget(*id).await?;
        }
        Ok(waiting.len() + failed.len())
    }

    async fn usage(&self) -> Result<Usage> {
        let known = *lock(&self.archive.0.inbox);
        match known.filter(|usage| usage.at.elapsed() < USAGE_AGE_MAX) {
            Some(usage) => Ok(usage),
            None => {
                self.list().await?;
                let counted = *lock(&self.archive.0.inbox);
                counted.ok_or_else(|| Error::internal("what waits was not counted"))
            }
        }
    }

    async fn list_failed(&self) -> Result<Vec<Waiting>> {
        let listed = self.archive.store().list(FAILED).await?;
        let mut failed: Vec<Waiting> = listed
            .into_iter()
            .filter_map(|object| {
                let id = object.name.strip_prefix(FAILED)?.strip_prefix('/')?.parse().ok()?;
                Some(Waiting {
                    id,
                    bytes: object.bytes,
                    since: object.modified,
                })
            })
            .collect();
        failed.sort_by_key(|failed| (failed.since, failed.id));
        Ok(failed)
    }

    async fn drop_oldest_failed(&self) -> Result<()> {
        let failed = self.list_failed().await?;
        let mut count = failed.len();
        let mut bytes: u64 = failed.iter().map(|failed| failed.bytes).sum();
        for failed in failed {
            if count <= self.limits.failed_max && bytes <= self.limits.failed_bytes_max {
                break;
            }
            self.forget(failed.id).await?;
            count -= 1;
            bytes -= failed.bytes;
        }
        Ok(())
    }

    async fn read_failed(&self, id: InboxId) -> Result<(Reason, Bytes)> {
        let sealed = self.archive.store().get(&id.object(FAILED)).await?;
        let opened = self.open(id, sealed).await;
        let plain = opened.map_err(|error| self.archive.store().damaged(error))?;
        let damaged = || Error::new(ErrorKind::Damaged, "a failed file has no reason");
        let (length, rest) = plain.split_first_chunk::<4>().ok_or_else(damaged)?;
        let length = u32::from_le_bytes(*length) as usize;
        let header = rest.get(..length).ok_or_else(damaged)?;
        let reason = serde_json::from_slice(header).map_err(|_| damaged())?;
        Ok((reason, plain.slice(4 + length..)))
    }

    async fn seal(&self, id: InboxId, plain: Bytes) -> Result<Bytes> {
        let archive = self.archive.clone();
        blocking(move || archive.identity().seal_waiting(&id.to_string(), &plain))
            .await?
            .map(Bytes::from)
    }

    async fn open(&self, id: InboxId, sealed: Bytes) -> Result<Bytes> {
        let archive = self.archive.clone();
        blocking(move || archive.identity().open_waiting(&id.to_string(), &sealed))
            .await?
            .map(Bytes::from)
    }
}

/// What was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Erased {
    /// Everything of a patient.
    Patient(PatientKeys),
    /// Files of a SOP instance.
    Instance(InstanceKeys),
}

impl Erased {
    /// Whether a file of the inbox is among it.
    pub fn covers(self, id: InboxId) -> bool {
        match self {
            Self::Patient(patient) => id.patient().is_some_and(|of| of.may_be(patient)),
            Self::Instance(keys) => keys.covers(id.sop(), id.file),
        }
    }
}

impl fmt::Display for Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Patient(PatientKeys { patient, id }) => write!(f, "{patient}-{id}"),
            Self::Instance(InstanceKeys { sop, file }) => {
                write!(f, "{INSTANCE}{sop}-{}", file.unwrap_or(NOBODY))
            }
        }
    }
}

/// How the name of a note about an instance begins.
const INSTANCE: &str = "instance-";

/// Deletes notes of what was deleted that nobody needs any more, and what interrupted writes left.
pub(super) async fn tidy(archive: &Archive, written_before: Timestamp) -> Result<usize> {
    let store = archive.store();
    let old = super::gc::before(archive.now(), ERASED_AGE_MAX)?;
    let mut deleted = 0;
    for mark in store.list(ERASED).await? {
        if mark.modified <= old {
            store.delete(&mark.name).await?;
            deleted += 1;
        }
    }
    for folder in [INBOX, FAILED, ERASED] {
        deleted += store.sweep_interrupted(folder, written_before).await?;
    }
    Ok(deleted)
}

/// Whose a file of the inbox is, waiting or failed; none for the name of anything else.
pub(super) fn whose(object: &str) -> Option<InboxId> {
    let rest = object.strip_prefix(INBOX)?.strip_prefix('/')?;
    rest.strip_prefix("failed/").unwrap_or(rest).parse().ok()
}

/// What a note says was deleted.
pub(super) fn erased(object: &str) -> Option<Erased> {
    let name = object.strip_prefix(ERASED)?.strip_prefix('/')?;
    let (keys, is_instance) = match name.strip_prefix(INSTANCE) {
        Some(keys) => (keys, true),
        None => (name, false),
    };
    let keys: Option<Vec<Key>> = keys.split('-').map(|key| key.parse().ok()).collect();
    let &[first, second, _] = keys?.as_slice() else {
        return None;
    };
    Some(if is_instance {
        let file = (second != NOBODY).then_some(second);
        Erased::Instance(InstanceKeys { sop: first, file })
    } else {
        Erased::Patient(PatientKeys {
            patient: first,
            id: second,
        })
    })
}
