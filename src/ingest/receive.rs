//! One file in, durably, before it is embedded: for senders that wait for a receipt and not for the model.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{BurnedInRule, Holdings, Ingest};
use crate::archive::{Inbox, InboxId, Outside, PutFile, ScopeFacts};
use crate::audit::Who;
use crate::domain::{FrameNumber, Frames, ImageId, InstanceKeys, Key};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{DicomFacts, Limits};
use crate::metrics::{Metrics, ReceivedOutcome};
use crate::search::{Engine, Version};
use crate::telemetry::run_blocking;

/// Frames of a file that are named one by one.
const FRAMES_NAMED_MAX: usize = 1000;

/// Takes DICOM objects into the inbox. Cheap to clone.
#[derive(Clone)]
pub struct Reception {
    pub(super) engine: Engine,
    pub(super) ingest: Ingest,
    pub(super) inbox: Inbox,
    pub(super) limits: Limits,
    pub(super) frames: Frames,
    pub(super) burned_in: BurnedInRule,
    pub(super) metrics: Arc<Metrics>,
    /// To whoever embeds on this replica. A full queue does no harm: what waits is listed every few seconds.
    pub(super) arrived: mpsc::Sender<(InboxId, Who)>,
}

/// What became of a file. `Debug` shows no identifier.
#[derive(Clone)]
pub struct Received {
    /// SOP Class UID, where the file says.
    pub sop_class: Option<String>,
    /// SOP Instance UID, where the file says.
    pub sop_uid: Option<String>,
    /// Study Instance UID, where the file says.
    pub study_uid: Option<String>,
    /// Series Instance UID, where the file says.
    pub series_uid: Option<String>,
    /// What was done with it.
    pub verdict: Verdict,
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("verdict", &self.verdict)
            .finish_non_exhaustive()
    }
}

/// What was done with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is durable, and will be embedded.
    Accepted,
    /// It is in the archive, or waits to be: nothing to do.
    Known,
    /// It has no pixels: a report, a key object, a plan. It is not kept.
    NotImage,
    /// It is not what the archive is for. It is not kept.
    Outside(Outside),
    /// It was not taken.
    Refused(Refusal, String),
}

impl Verdict {
    /// Whether the sender may forget the file.
    pub fn is_success(&self) -> bool {
        !matches!(self, Self::Refused(..))
    }
}

/// Why a file was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no DICOM file, or a broken one.
    Broken,
    /// Its transfer syntax is not read here.
    Syntax,
    /// It is of another study than the one that was named.
    OtherStudy,
    /// Its SOP instance is known with other pixels.
    Conflict,
    /// It has more bytes, pixels or frames than what is taken here, however often it is sent.
    TooLarge,
    /// Names may be written into its pixels.
    BurnedIn,
    /// The storage is full.
    Full,
    /// Too much is being done at the moment.
    Busy,
    /// It was not looked at in time.
    Late,
    /// Something that is needed is not there at the moment.
    Unavailable,
}

impl Refusal {
    fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::TooLarge | ErrorKind::TooManyPixels => Self::TooLarge,
            ErrorKind::StorageFull => Self::Full,
            ErrorKind::Overloaded => Self::Busy,
            ErrorKind::Deadline => Self::Late,
            ErrorKind::InvalidImage | ErrorKind::UnsupportedMedia | ErrorKind::ConstantImage => Self::Broken,
            ErrorKind::BurnedInAnnotation => Self::BurnedIn,
            _ => Self::Unavailable,
        }
    }

    /// Whether the same file may be taken later.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Full | Self::Busy | Self::Late | Self::Unavailable)
    }

    /// For logs.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Syntax => "syntax",
            Self::OtherStudy => "other-study",
            Self::Conflict => "conflict",
            Self::TooLarge => "too-large",
            Self::BurnedIn => "burned-in",
            Self::Full => "full",
            Self::Busy => "busy",
            Self::Late => "late",
            Self::Unavailable => "unavailable",
        }
    }
}

fn refused(error: &Error) -> Verdict {
    Verdict::Refused(Refusal::of(error), error.message().to_owned())
}

/// As what a file counts.
fn counted(verdict: &Verdict) -> ReceivedOutcome {
    match verdict {
        Verdict::Accepted => ReceivedOutcome::Accepted,
        Verdict::Known => ReceivedOutcome::Known,
        Verdict::NotImage => ReceivedOutcome::NotImage,
        Verdict::Outside(Outside::SopClass) => ReceivedOutcome::OutsideSopClass,
        Verdict::Outside(Outside::Modality) => ReceivedOutcome::OutsideModality,
        Verdict::Outside(Outside::BodyPart) => ReceivedOutcome::OutsideBodyPart,
        Verdict::Outside(Outside::View) => ReceivedOutcome::OutsideView,
        Verdict::Refused(why, _) => match why {
            Refusal::Broken => ReceivedOutcome::RefusedBroken,
            Refusal::Syntax => ReceivedOutcome::RefusedSyntax,
            Refusal::OtherStudy => ReceivedOutcome::RefusedOtherStudy,
            Refusal::Conflict => ReceivedOutcome::RefusedConflict,
            Refusal::TooLarge => ReceivedOutcome::RefusedTooLarge,
            Refusal::BurnedIn => ReceivedOutcome::RefusedBurnedIn,
            Refusal::Full => ReceivedOutcome::RefusedFull,
            Refusal::Busy => ReceivedOutcome::RefusedBusy,
            Refusal::Late => ReceivedOutcome::RefusedLate,
            Refusal::Unavailable => ReceivedOutcome::RefusedUnavailable,
        },
    }
}

/// The names that a file has here.
struct Checked {
    id: InboxId,
    /// Of its SOP instance.
    sop: Key,
    /// Of each frame that becomes an image.
    frames: Vec<Key>,
}

impl Reception {
    /// Takes a DICOM file. A [`Verdict`] that is a success means that the sender may forget it: it is durable, known, or not wanted here.
    /// `study` is the only study it may be of, `sender` who brings it.
    pub async fn receive(&self, file: Bytes, study: Option<&str>, sender: &Who, deadline: Instant) -> Received {
        let named = DicomFacts::named(&file);
        let (facts, verdict) = match self.judge(file, study, sender, deadline).await {
            Ok(judged) => judged,
            Err(error) => (None, refused(&error)),
        };
        self.metrics.received(counted(&verdict));
        match facts {
            Some(facts) => Received {
                sop_class: facts.sop_class,
                sop_uid: facts.provenance.sop_uid,
                study_uid: facts.provenance.study_uid,
                series_uid: facts.provenance.series_uid,
                verdict,
            },
            None => Received {
                sop_class: named.sop_class,
                sop_uid: named.sop_uid,
                study_uid: None,
                series_uid: None,
                verdict,
            },
        }
    }

    async fn judge(
        &self,
        file: Bytes,
        study: Option<&str>,
        sender: &Who,
        deadline: Instant,
    ) -> Result<(Option<DicomFacts>, Verdict)> {
        let (limits, bytes) = (self.limits, file.clone());
        let facts = run_blocking(move || DicomFacts::read(&bytes, &limits)).await?;
        let verdict = match self.verdict(&facts, file, study, sender, deadline).await {
            Ok(verdict) => verdict,
            Err(error) => refused(&error),
        };
        Ok((Some(facts), verdict))
    }

    async fn verdict(
        &self,
        facts: &DicomFacts,
        file: Bytes,
        study: Option<&str>,
        sender: &Who,
        deadline: Instant,
    ) -> Result<Verdict> {
        let refuse = |why, message: &str| Ok(Verdict::Refused(why, message.to_owned()));
        if study.is_some() && study != facts.provenance.study_uid.as_deref() {
            return refuse(Refusal::OtherStudy, "it is of another study");
        }
        if !facts.image {
            return Ok(Verdict::NotImage);
        }
        let version = self.engine.parts().served.current();
        if let Err(outside) = version.state.manifest.archive.scope.admits(scope_facts(facts)) {
            return Ok(Verdict::Outside(outside));
        }
        self.burned_in.admit(facts.provenance.burned_in)?;
        if !DicomFacts::is_syntax_read(&file) {
            return refuse(Refusal::Syntax, "its transfer syntax is not read here");
        }
        if facts.sop_class.is_none() || facts.provenance.study_uid.is_none() {
            return refuse(Refusal::Broken, "it names no SOP class or no study");
        }
        let checked = self.check(facts.clone(), file.clone()).await?;
        let is_there = |frame: &Key| version.state.by_file_key(*frame).next().is_some();
        if checked.frames.iter().all(is_there) {
            return Ok(Verdict::Known);
        }
        // The archive may have this instance, of other bytes or of other frames.
        let known = version.state.by_sop_key(checked.sop);
        let frame = known.flat_map(|at| version.state.at(at).frames_of(checked.sop)).min();
        if let Some(frame) = frame
            && (frame.get() > facts.frames || self.differs(&version, checked.sop, &file, frame, deadline).await?)
        {
            return refuse(Refusal::Conflict, "its SOP instance is known with other pixels");
        }
        let id = checked.id;
        match self.inbox.put(id, file).await? {
            PutFile::New => {
                let _ = self.arrived.try_send((id, sender.clone()));
                Ok(Verdict::Accepted)
            }
            PutFile::Known => Ok(Verdict::Known),
        }
    }

    /// Whether a frame of an instance has other pixels than the archive knows, which only the pixels tell.
    async fn differs(
        &self,
        version: &Version,
        sop: Key,
        file: &Bytes,
        frame: FrameNumber,
        deadline: Instant,
    ) -> Result<bool> {
        let preparer = &version.model()?.preparer;
        let prepared = preparer.prepare(file.clone(), frame.into(), deadline).await?;
        let bytes = file.clone();
        let pixels = run_blocking(move || Ok(prepared.picture.digest(&bytes).pixels)).await?;
        let pixels = self.engine.parts().archive.identity().pixel_key(&pixels);
        let known = version.state.by_sop_key(sop).map(|at| version.state.at(at));
        let mut known = known.filter(|record| record.frames_of(sop).any(|of| of == frame));
        // What was indexed without its pixels can't be compared.
        Ok(known.all(|record| record.pixel_key.is_some_and(|key| key != pixels)))
    }

    /// The pseudonyms of the instance that a file says it is, and of the file and each of its frames that becomes an image; none where it says none. Of very many frames
    /// the instance alone.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn keys(&self, file: Bytes) -> Result<Vec<InstanceKeys>> {
        let (limits, frames) = (self.limits, self.frames);
        let identity = self.engine.parts().archive.identity().clone();
        run_blocking(move || {
            let Ok(facts) = DicomFacts::read(&file, &limits) else {
                return Ok(vec![]);
            };
            let Some(sop) = facts.provenance.sop_uid.and_then(|uid| identity.sop_key(&uid)) else {
                return Ok(vec![]);
            };
            let digest = Sha256::digest(&file).into();
            let frames: BTreeSet<FrameNumber> = std::iter::once(FrameNumber::FIRST)
                .chain(frames.of(facts.frames))
                .take(FRAMES_NAMED_MAX + 1)
                .collect();
            if frames.len() > FRAMES_NAMED_MAX {
                return Ok(vec![InstanceKeys { sop, file: None }]);
            }
            // The first stands for the whole file, too.
            let keys = frames.into_iter().map(|frame| InstanceKeys {
                sop,
                file: Some(identity.file_key(&frame.digest(&digest))),
            });
            Ok(keys.collect())
        })
        .await
    }

    /// The pseudonym of a SOP Instance UID.
    pub fn sop_key(&self, uid: &str) -> Option<Key> {
        self.engine.parts().archive.identity().sop_key(uid)
    }

    /// What is here of these instances.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn holdings(&self, instances: HashSet<Key>) -> Result<Holdings> {
        let (version, waiting) = self.now().await?;
        run_blocking(move || Ok(Holdings::of(&instances, &version.state, &waiting))).await
    }

    /// The newest version, and what waits or failed. Whatever leaves the inbox meanwhile, to whichever replica, is in the version.
    async fn now(&self) -> Result<(Arc<Version>, Vec<InboxId>)> {
        let waiting = self.inbox.held().await?;
        let served = &self.engine.parts().served;
        served.refresh().await?;
        Ok((served.current(), waiting))
    }

    /// How many images are of these instances, and files that are no image yet.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn held(&self, instances: HashSet<Key>) -> Result<usize> {
        let (version, waiting) = self.now().await?;
        run_blocking(move || {
            let waiting = waiting
                .iter()
                .filter(|id| id.sop().is_some_and(|sop| instances.contains(&sop)));
            let images = instances.iter().flat_map(|sop| version.state.by_sop_key(*sop));
            let images: HashSet<ImageId> = images.map(|at| version.state.at(at).id).collect();
            Ok(images.len() + waiting.count())
        })
        .await
    }

    /// Removes what was taken of these instances, as [`Ingest::withdraw`].
    ///
    /// # Errors
    /// As there.
    pub async fn withdraw(&self, instances: &HashSet<InstanceKeys>, deadline: Instant) -> Result<usize> {
        self.ingest.withdraw(instances, deadline).await
    }

    /// Looks at structure and sizes, and names the file by whose it is.
    async fn check(&self, facts: DicomFacts, file: Bytes) -> Result<Checked> {
        let (limits, frames, inbox) = (self.limits, self.frames, self.inbox.clone());
        let identity = self.engine.parts().archive.identity().clone();
        run_blocking(move || {
            DicomFacts::check(&file, &limits)?;
            let said = &facts.provenance;
            let sop = said.sop_uid.as_deref().and_then(|uid| identity.sop_key(uid));
            let sop = sop.ok_or_else(|| Error::new(ErrorKind::InvalidImage, "it names no SOP instance"))?;
            let patient = said.patient_id.as_deref();
            let patient = patient.and_then(|id| identity.patient_keys(said.issuer.as_deref(), id));
            let id = inbox.id(&file, patient, Some(sop));
            let digest = Sha256::digest(&file).into();
            let frames = frames.of(facts.frames);
            let frames = frames.map(|frame| identity.file_key(&frame.digest(&digest)));
            Ok(Checked {
                id,
                sop,
                frames: frames.collect(),
            })
        })
        .await
    }
}

/// What of an object is held against a scope.
pub(super) fn scope_facts(facts: &DicomFacts) -> ScopeFacts<'_> {
    ScopeFacts {
        sop_class: facts.sop_class.as_deref(),
        modality: facts.provenance.modality.as_deref(),
        body_part: facts.provenance.body_part.as_deref(),
        view: facts.provenance.view.as_deref(),
    }
}
