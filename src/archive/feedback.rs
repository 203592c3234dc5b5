//! Reports that a label is wrong: beside the versions, so that a manifest does not grow with them. One small file a report,
//! `feedback/<image>-<random>`, encrypted under a key derived from the secret, since what somebody writes may name a patient. It goes when it is
//! resolved, or with its image.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Archive, State};
use crate::domain::{ClassLabel, ImageId, Key};
use crate::error::{Error, ErrorKind, Result};

/// The folder of reports.
pub(super) const FEEDBACK: &str = "feedback";
/// Most characters of a reason.
pub const REASON_CHARACTERS_MAX: usize = 500;
/// Reports that may be open.
const OPEN_MAX: usize = 10_000;
/// Reports that may be open of one image, so that one image can't use up all of them.
const OPEN_PER_IMAGE_MAX: usize = 20;
/// Reports read at a time.
const READS_MAX: usize = 16;
/// Hex digits of an image id.
const IMAGE_DIGITS: usize = 36;

/// Names a report: the image, `-`, and 32 random hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedbackId {
    /// The image.
    pub image: ImageId,
    number: Key,
}

impl FeedbackId {
    fn object(self) -> String {
        format!("{FEEDBACK}/{self}")
    }

    pub(super) fn of_object(name: &str) -> Option<Self> {
        name.strip_prefix(FEEDBACK)?.strip_prefix('/')?.parse().ok()
    }
}

impl fmt::Display for FeedbackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.image, self.number)
    }
}

impl FromStr for FeedbackId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let odd = || {
            let message = "the id of a report is an image id, `-`, and 32 hex digits";
            Error::new(ErrorKind::InvalidRequest, message)
        };
        let (image, number) = text.split_at_checked(IMAGE_DIGITS).ok_or_else(odd)?;
        let number = number.strip_prefix('-').ok_or_else(odd)?;
        let id = Self {
            image: image.parse().map_err(|_| odd())?,
            number: number.parse().map_err(|_| odd())?,
        };
        // One spelling only, since it is the name of a file.
        if id.to_string() == text { Ok(id) } else { Err(odd()) }
    }
}

/// What somebody says of an image's label. `Debug` shows no text.
#[derive(Clone, PartialEq, Eq)]
pub struct NewReport {
    image: ImageId,
    class: Option<ClassLabel>,
    suggested: Option<ClassLabel>,
    reason: String,
}

impl NewReport {
    /// A report about `image`, which has `class` at the moment; `suggested` none: not sure which is right. Space around the reason goes.
    ///
    /// # Errors
    /// `InvalidRequest` for a reason that is empty, longer than [`REASON_CHARACTERS_MAX`] or has control characters, and for the class that the
    /// image has.
    pub fn new(image: ImageId, class: Option<ClassLabel>, suggested: Option<ClassLabel>, reason: &str) -> Result<Self> {
        let refuse = |message: String| Err(Error::new(ErrorKind::InvalidRequest, message));
        let reason = reason.trim();
        let length = reason.chars().count();
        if length == 0 || length > REASON_CHARACTERS_MAX {
            return refuse(format!("`reason` needs 1 to {REASON_CHARACTERS_MAX} characters"));
        }
        if reason.chars().any(|c| c.is_control() && c != '\n') {
            return refuse("`reason` has a control character".to_owned());
        }
        if suggested.is_some() && suggested == class {
            return refuse("`suggested` is the class that the image has".to_owned());
        }
        Ok(Self {
            image,
            class,
            suggested,
            reason: reason.to_owned(),
        })
    }
}

impl fmt::Debug for NewReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewReport({})", self.image)
    }
}

/// A report as the archive keeps it. `Debug` shows no text.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    /// Its name.
    pub id: FeedbackId,
    /// The class that the image had when it was written.
    pub class: Option<ClassLabel>,
    /// The class that would be right; none: not sure.
    pub suggested: Option<ClassLabel>,
    /// Why, as it was written.
    pub reason: String,
    /// When.
    pub reported_at: Timestamp,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Report({})", self.id)
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    class: Option<ClassLabel>,
    suggested: Option<ClassLabel>,
    reason: String,
    reported_at: Timestamp,
}

/// Reports in the order of their ids, so those of one image together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reports {
    /// Those that could be read.
    pub open: Vec<Report>,
    /// Those that could not: damaged, or of another program.
    pub unreadable: Vec<FeedbackId>,
    /// The last that was looked at.
    pub last: Option<FeedbackId>,
    /// There are more behind it.
    pub more: bool,
}

impl Archive {
    /// Keeps a report. `Ok` means that it is durable.
    ///
    /// # Errors
    /// `StorageFull` when too many are open, of this image or in all, or there is no space; `Unavailable`.
    pub async fn report(&self, new: &NewReport) -> Result<Report> {
        // Counting and writing are one step, for all who share this archive in one process.
        let _turn = self.0.reporting.lock().await;
        let open = self.report_ids().await?;
        let full = |what: &str| {
            let message =
                format!("{what} are open: whoever runs the archive has to go through them (`medsearch feedback`)");
            Err(Error::new(ErrorKind::StorageFull, message))
        };
        if open.len() >= OPEN_MAX {
            return full(&format!("{OPEN_MAX} reports"));
        }
        if open.iter().filter(|id| id.image == new.image).count() >= OPEN_PER_IMAGE_MAX {
            return full(&format!("{OPEN_PER_IMAGE_MAX} reports about this image"));
        }
        let id = FeedbackId {
            image: new.image,
            number: Key(*uuid::Uuid::new_v4().as_bytes()),
        };
        let file = File {
            class: new.class.clone(),
            suggested: new.suggested.clone(),
            reason: new.reason.clone(),
            reported_at: self.now(),
        };
        let plain = serde_json::to_vec(&file)
            .map_err(|error| Error::with_source(ErrorKind::Internal, "a report can't be written as JSON", error))?;
        let sealed = self.identity().seal_report(&id.to_string(), &plain)?;
        self.store().put_object(&id.object(), sealed.into()).await?;
        Ok(of_file(id, file))
    }

    /// Reports behind `after`, at most `limit`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn reports(&self, after: Option<FeedbackId>, limit: usize) -> Result<Reports> {
        let ids = self.report_ids().await?;
        let mut ids = ids.into_iter().filter(|id| after.is_none_or(|after| *id > after));
        let page: Vec<FeedbackId> = ids.by_ref().take(limit).collect();
        let more = ids.next().is_some();
        let last = page.last().copied();
        let read: Vec<_> = page.into_iter().map(|id| self.read_report(id)).collect();
        let mut read = stream::iter(read).buffered(READS_MAX);
        let mut reports = Reports {
            last,
            more,
            ..Reports::default()
        };
        while let Some((id, read)) = read.next().await {
            match read {
                Ok(report) => reports.open.push(report),
                // Resolved since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    tracing::warn!(object = %id.object(), error = %error, "a report about a label can't be read");
                    reports.unreadable.push(id);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(reports)
    }

    /// Deletes a report: whatever it asked for was done, or not.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn resolve(&self, id: FeedbackId) -> Result<()> {
        if self.store().is_missing(&id.object()).await {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no report `{id}`")));
        }
        self.store().delete(&id.object()).await
    }

    /// Deletes the reports about images that are no longer there. Gives how many.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    pub async fn erase_reports(&self) -> Result<usize> {
        // Listed before the version is read: who reported an image saw it in this version or an older one.
        let ids = self.report_ids().await?;
        if ids.is_empty() {
            return Ok(0);
        }
        let state = State::load(self).await?;
        let mut erased = 0;
        for id in ids.into_iter().filter(|id| state.find(id.image).is_none()) {
            self.store().delete(&id.object()).await?;
            erased += 1;
        }
        Ok(erased)
    }

    async fn report_ids(&self) -> Result<BTreeSet<FeedbackId>> {
        let listed = self.store().list(FEEDBACK).await?;
        Ok((listed.iter())
            .filter_map(|listed| FeedbackId::of_object(&listed.name))
            .collect())
    }

    async fn read_report(&self, id: FeedbackId) -> (FeedbackId, Result<Report>) {
        let read = async {
            let sealed = self.store().get(&id.object()).await?;
            let plain = self.identity().open_report(&id.to_string(), &sealed)?;
            let file: File = serde_json::from_slice(&plain).map_err(|error| {
                Error::with_source(ErrorKind::Damaged, format!("the report `{id}` is damaged"), error)
            })?;
            Ok(of_file(id, file))
        };
        (id, read.await.map_err(|error| self.store().damaged(error)))
    }
}

fn of_file(id: FeedbackId, file: File) -> Report {
    Report {
        id,
        class: file.class,
        suggested: file.suggested,
        reason: file.reason,
        reported_at: file.reported_at,
    }
}
