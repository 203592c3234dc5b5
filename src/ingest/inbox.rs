//! From the inbox into the archive: what this replica received at once, what others left behind a little later.
//!
//! Every replica that writes may embed any file, since the same image again changes nothing. A file leaves the inbox when its image is durable in a version, or
//! when it can't be one: then it lies among the failed with the reason. A fault of the storage or of the model keeps it waiting, longer with every try.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::receive::Reception;
use super::{Ingest, Labelling};
use crate::archive::{Inbox, InboxId, Outcome, Reason};
use crate::audit::{Action, Audit, Event, EventId, Who};
use crate::domain::{FrameNumber, Frames, ImageId, Label};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{DicomFacts, Limits};
use crate::metrics::{InboxOutcome, Metrics};
use crate::search::{Engine, Upload};
use crate::telemetry::run_blocking;

/// Files embedded at a time: some are decoded while others are in the model.
const EMBEDDED_MAX: usize = 8;
/// Files that this replica was told of and has not begun with; further ones are found in the list.
const ARRIVED_MAX: usize = 4096;
/// Time between two looks at what waits, while something does.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same when nothing did the last time: a request to the storage each.
const LOOK_IDLE_EVERY: Duration = Duration::from_secs(30);
/// What another replica received is left to it for so long.
const OTHERS_AFTER: Duration = Duration::from_secs(10);
/// A file with more frames that can't be decoded is not looked at further.
const BROKEN_FRAMES_MAX: u32 = 15;
/// Time for one frame, waiting included.
const FRAME_TIME_MAX: Duration = Duration::from_secs(120);
/// After so long no further frame of a file is begun: others have their turn, and then it goes on.
const TURN_TIME: Duration = Duration::from_secs(30);
/// Times that a file may break its decoder before it is set aside: what failed for want of memory may not fail again.
const BREAKS_MAX: u32 = 3;
/// Wait after the first fault that is not the file's.
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// Longest wait between two tries.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// What is made of a file.
#[derive(Clone)]
pub struct InboxSettings {
    /// Bounds on one.
    pub limits: Limits,
    /// Which of its frames become images.
    pub frames: Frames,
    /// Says what they show.
    pub labelling: Arc<Labelling>,
}

/// Opens an archive's inbox on this replica: gives what takes files, and embeds them until the last clone of that is dropped. With an audit what becomes of each
/// has a line.
pub fn open_inbox(
    engine: &Engine,
    ingest: Ingest,
    inbox: Inbox,
    settings: InboxSettings,
    metrics: Arc<Metrics>,
    audit: Option<Audit>,
) -> Reception {
    let (limits, frames) = (settings.limits, settings.frames);
    let (arrived, arrivals) = mpsc::channel(ARRIVED_MAX);
    let burned_in = ingest.burned_in();
    let own = ingest.clone();
    let keeper = Keeper {
        work: Work {
            ingest,
            inbox: inbox.clone(),
            settings,
            metrics: Arc::clone(&metrics),
        },
        metrics: Arc::clone(&metrics),
        audit,
        senders: HashMap::new(),
        turns: Turns::default(),
    };
    tokio::spawn(keeper.run(arrivals));
    Reception {
        engine: engine.clone(),
        ingest: own,
        inbox,
        limits,
        frames,
        burned_in,
        metrics,
        arrived,
    }
}

struct Keeper {
    work: Work,
    metrics: Arc<Metrics>,
    audit: Option<Audit>,
    /// Who sent what waits, as far as this replica took it.
    senders: HashMap<InboxId, Who>,
    turns: Turns,
}

impl Keeper {
    async fn run(mut self, mut arrivals: mpsc::Receiver<(InboxId, Who)>) {
        let mut running = FuturesUnordered::new();
        let mut open = true;
        let mut look_at = tokio::time::Instant::now();
        // What was left when this replica, or the only one, was last stopped has waited long enough.
        let mut others_after = Duration::ZERO;
        loop {
            while let Some((id, progress)) = self.turns.next(Instant::now()) {
                let work = self.work.clone();
                running.push(tokio::spawn(async move { work.embed(id, progress).await }).map(move |done| (id, done)));
            }
            tokio::select! {
                arrived = arrivals.recv(), if open => match arrived {
                    Some((id, sender)) => {
                        self.senders.insert(id, sender);
                        self.turns.add(id);
                    }
                    None => open = false,
                },
                Some((id, done)) = running.next() => {
                    self.settle(id, done.unwrap_or_else(|_| Turned::panicked())).await;
                }
                () = tokio::time::sleep_until(look_at), if open => {
                    let waits = self.look(others_after).await;
                    others_after = OTHERS_AFTER;
                    let every = if waits { LOOK_EVERY } else { LOOK_IDLE_EVERY };
                    look_at = tokio::time::Instant::now() + every;
                }
            }
            if !open && running.is_empty() {
                return;
            }
        }
    }

    /// Lists what waits, and takes on what is due. Says whether anything waits.
    async fn look(&mut self, others_after: Duration) -> bool {
        let waiting = match self.work.inbox.list().await {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::warn!(error = %error, "the inbox can't be listed");
                return true;
            }
        };
        let now = Timestamp::now();
        let age = |since: Timestamp| Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let oldest = waiting.first().map_or(Duration::ZERO, |first| age(first.since));
        self.metrics.inbox_waits(waiting.len(), oldest);
        let there: HashSet<InboxId> = waiting.iter().map(|waiting| waiting.id).collect();
        self.turns.keep(&there);
        self.senders.retain(|id, _| self.turns.known.contains_key(id));
        for waiting in &waiting {
            if age(waiting.since) >= others_after {
                self.turns.add(waiting.id);
            }
        }
        match self.work.inbox.failed_count().await {
            Ok(failed) => self.metrics.inbox_failed(failed),
            Err(error) => tracing::warn!(error = %error, "what failed in the inbox can't be listed"),
        }
        !waiting.is_empty()
    }

    async fn settle(&mut self, id: InboxId, turned: Turned) {
        let Turned {
            progress,
            images,
            embedded,
        } = turned;
        let error = match embedded {
            Ok(Embedded::Part) => {
                self.note(id, InboxOutcome::Embedded, images, None);
                return self.turns.go_on(id, progress);
            }
            Ok(embedded) => {
                self.turns.done(id);
                let outcome = match embedded {
                    Embedded::Inserted => InboxOutcome::Embedded,
                    Embedded::Known => InboxOutcome::Known,
                    Embedded::Erased => InboxOutcome::Erased,
                    Embedded::Outside => InboxOutcome::Outside,
                    Embedded::Gone | Embedded::Part => {
                        self.senders.remove(&id);
                        return;
                    }
                };
                self.metrics.inbox(outcome);
                self.note_last(id, outcome, images, None);
                return;
            }
            Err(error) => error,
        };
        let broken = self.turns.broke(id);
        match fate(error.kind(), broken) {
            Fate::Again => {
                self.metrics.inbox(InboxOutcome::Again);
                if !images.is_empty() {
                    self.note(id, InboxOutcome::Embedded, images, None);
                }
                let wait = self.turns.again(id, progress, Instant::now());
                tracing::warn!(error = %error, seconds = wait.as_secs(), "a file of the inbox could not be embedded yet");
            }
            Fate::AtOnce => self.turns.at_once(id),
            Fate::Failed => match self.work.fail(id, &error).await {
                Ok(()) => {
                    self.turns.done(id);
                    self.metrics.inbox(InboxOutcome::Failed);
                    self.note_last(id, InboxOutcome::Failed, images, Some(error.kind().slug()));
                    tracing::warn!(problem = error.kind().slug(), "a file of the inbox can't be embedded");
                }
                Err(error) => {
                    let wait = self.turns.again(id, progress, Instant::now());
                    tracing::warn!(error = %error, seconds = wait.as_secs(), "a file of the inbox could not be set aside yet");
                }
            },
        }
    }
}

impl Keeper {
    /// Puts into the audit what became of a file, or of those of its frames that had their turn. Who sent it is known until this replica stops, and on no other:
    /// then the line is the server's own, and that of the request that brought it says who.
    fn note(&self, id: InboxId, outcome: InboxOutcome, images: Vec<ImageId>, refused: Option<&'static str>) {
        let Some(audit) = &self.audit else { return };
        let sender = self.senders.get(&id).cloned().unwrap_or(Who::Server);
        audit.note(Event {
            images,
            outcome: Some(outcome.as_str()),
            refused: refused.map(|reason| (reason, None)),
            ..Event::new("embedInstance", EventId::Import, Action::Create, sender)
        });
    }

    /// The same of a file that waits no more.
    fn note_last(&mut self, id: InboxId, outcome: InboxOutcome, images: Vec<ImageId>, refused: Option<&'static str>) {
        self.note(id, outcome, images, refused);
        self.senders.remove(&id);
    }
}

/// What becomes of a file that was not embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is tried again after a while, however often.
    Again,
    /// It is tried again now.
    AtOnce,
    /// It is set aside with the reason.
    Failed,
}

/// By the kind of the error, and how many times the file was tried. Only what the file itself is to blame for sets it aside.
fn fate(kind: ErrorKind, tries: u32) -> Fate {
    match kind {
        ErrorKind::InvalidImage if tries < BREAKS_MAX => Fate::AtOnce,
        ErrorKind::InvalidImage
        | ErrorKind::UnsupportedMedia
        | ErrorKind::ConstantImage
        | ErrorKind::BurnedInAnnotation
        | ErrorKind::TooLarge
        | ErrorKind::TooManyPixels
        | ErrorKind::MissingImage
        | ErrorKind::InvalidRequest
        | ErrorKind::Conflict => Fate::Failed,
        _ => Fate::Again,
    }
}

/// Whose turn it is. One instance at a time, so that two files of one SOP instance meet in the archive one after the other.
#[derive(Default)]
struct Turns {
    queue: VecDeque<InboxId>,
    known: HashMap<InboxId, Turn>,
    running: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    running: bool,
    tries: u32,
    faults: u32,
    not_before: Option<Instant>,
    progress: Progress,
}

/// How far a file of many frames has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Progress {
    /// Frames that are done with, of those that are wanted.
    done: usize,
    /// The first of them that can't be decoded, and how many can't.
    broken: Option<(FrameNumber, u32)>,
    /// One of them is an image.
    embedded: bool,
    /// One of them is new.
    inserted: bool,
}

impl Turns {
    fn add(&mut self, id: InboxId) {
        if let Entry::Vacant(place) = self.known.entry(id) {
            place.insert(Turn::default());
            self.queue.push_back(id);
        }
    }

    /// Forgets what waits no more, but for what is being embedded.
    fn keep(&mut self, there: &HashSet<InboxId>) {
        self.known.retain(|id, turn| turn.running || there.contains(id));
        let known = &self.known;
        self.queue.retain(|id| known.contains_key(id));
    }

    /// The next to embed, and from where, if there is a place for it.
    fn next(&mut self, now: Instant) -> Option<(InboxId, Progress)> {
        if self.running == EMBEDDED_MAX {
            return None;
        }
        let busy: HashSet<_> = (self.known.iter())
            .filter(|(_, turn)| turn.running)
            .filter_map(|(id, _)| id.sop())
            .collect();
        let is_due = |id: &InboxId| {
            let turn = self.known.get(id).copied().unwrap_or_default();
            turn.not_before.is_none_or(|at| at <= now) && !id.sop().is_some_and(|sop| busy.contains(&sop))
        };
        let at = self.queue.iter().position(is_due)?;
        let id = self.queue.remove(at)?;
        let turn = self.known.entry(id).or_default();
        turn.running = true;
        self.running += 1;
        Some((id, turn.progress))
    }

    /// Puts a file behind the others, to go on from there.
    fn go_on(&mut self, id: InboxId, progress: Progress) {
        self.stop(id);
        let turn = self.known.entry(id).or_default();
        turn.running = false;
        turn.progress = progress;
        self.queue.push_back(id);
    }

    fn stop(&mut self, id: InboxId) {
        if self.known.get(&id).is_some_and(|turn| turn.running) {
            self.running -= 1;
        }
    }

    fn done(&mut self, id: InboxId) {
        self.stop(id);
        self.known.remove(&id);
    }

    /// Counts a try that came to nothing, and gives how many there were.
    fn broke(&mut self, id: InboxId) -> u32 {
        let turn = self.known.entry(id).or_default();
        turn.tries += 1;
        turn.tries
    }

    fn at_once(&mut self, id: InboxId) {
        self.stop(id);
        self.known.entry(id).or_default().running = false;
        self.queue.push_back(id);
    }

    /// Puts a file off, twice as long with each fault, to go on from there. Gives how long.
    fn again(&mut self, id: InboxId, progress: Progress, now: Instant) -> Duration {
        self.stop(id);
        let turn = self.known.entry(id).or_default();
        let wait = WAIT_FIRST.saturating_mul(1 << turn.faults.min(16)).min(WAIT_MAX);
        *turn = Turn {
            running: false,
            // Not the file's fault.
            tries: turn.tries.saturating_sub(1),
            faults: turn.faults + 1,
            not_before: Some(now + wait),
            progress,
        };
        self.queue.push_back(id);
        wait
    }
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Embedded {
    /// Its image is new.
    Inserted,
    /// Its image was there.
    Known,
    /// Its patient or its instance was deleted meanwhile: there is no image of it.
    Erased,
    /// It does not belong into the archive any more.
    Outside,
    /// It waits no more: another replica was faster, or it was deleted.
    Gone,
    /// It has further frames.
    Part,
}

#[derive(Clone)]
struct Work {
    ingest: Ingest,
    inbox: Inbox,
    settings: InboxSettings,
    metrics: Arc<Metrics>,
}

/// What is known of a file before it is decoded.
struct Seen {
    /// How many frames it has.
    frames: u32,
    label: Label,
    sha256: [u8; 32],
}

/// What a turn came to.
struct Turned {
    progress: Progress,
    /// Those that were found or made.
    images: Vec<ImageId>,
    embedded: Result<Embedded>,
}

impl Turned {
    /// Nothing that was done in it counts; what is there is found again.
    fn panicked() -> Self {
        Self {
            progress: Progress::default(),
            images: Vec::new(),
            embedded: Err(Error::internal("embedding a file panicked")),
        }
    }
}

impl Work {
    async fn embed(&self, id: InboxId, mut progress: Progress) -> Turned {
        let work = async {
            let mut images = Vec::new();
            let embedded = self.embed_file(id, &mut progress, &mut images).await;
            Turned {
                progress,
                images,
                embedded,
            }
        };
        let work = AssertUnwindSafe(work).catch_unwind();
        work.await.unwrap_or_else(|_| Turned::panicked())
    }

    /// Each wanted frame in turn, and then the file leaves the inbox. Whoever comes back to it after a fault or a crash passes over what is there.
    async fn embed_file(&self, id: InboxId, progress: &mut Progress, images: &mut Vec<ImageId>) -> Result<Embedded> {
        let file = match self.inbox.read(id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Embedded::Gone),
            file => file?,
        };
        let Seen { frames, label, sha256 } = self.look_at(&file).await?;
        let wanted: Vec<FrameNumber> = self.settings.frames.of(frames).collect();
        let turn_ends = Instant::now() + TURN_TIME;
        let (mut constant, mut broken) = (None, None);
        for &frame in wanted.iter().skip(progress.done) {
            if let Some(image) = self.known(frame, &sha256) {
                images.push(image);
                progress.embedded = true;
                progress.done += 1;
                continue;
            }
            // At least one in a turn.
            if Instant::now() >= turn_ends {
                return Ok(Embedded::Part);
            }
            match self.embed_frame(id, file.clone(), frame, label.clone(), images).await {
                Ok(Embedded::Inserted) => (progress.embedded, progress.inserted) = (true, true),
                Ok(Embedded::Known) => progress.embedded = true,
                Ok(Embedded::Outside) => {
                    self.inbox.remove(id).await?;
                    return Ok(Embedded::Outside);
                }
                // The file is gone already, and one that has come since is another's.
                Ok(done) => return Ok(done),
                // Between others one that shows nothing is no fault of the file.
                Err(error) if error.kind() == ErrorKind::ConstantImage => constant = Some(error),
                // The others are images all the same; in the end the file is set aside with them there.
                Err(error) if error.kind() == ErrorKind::InvalidImage && wanted.len() > 1 => {
                    let (first, count) = progress.broken.unwrap_or((frame, 0));
                    progress.broken = Some((first, count + 1));
                    broken.get_or_insert(error);
                    if count == BROKEN_FRAMES_MAX {
                        break;
                    }
                }
                Err(error) if frame.is_first() => return Err(error),
                Err(error) => return Err(error.context(format!("frame {frame}"))),
            }
            progress.done += 1;
        }
        if let Some((frame, _)) = progress.broken {
            let unknown = || Error::new(ErrorKind::InvalidImage, "it can't be decoded");
            return Err(broken.unwrap_or_else(unknown).context(format!("frame {frame}")));
        }
        match constant {
            Some(error) if !progress.embedded => return Err(error),
            _ => self.inbox.remove(id).await?,
        }
        Ok(match progress.inserted {
            true => Embedded::Inserted,
            false => Embedded::Known,
        })
    }

    async fn look_at(&self, file: &Bytes) -> Result<Seen> {
        let (work, bytes) = (self.clone(), file.clone());
        run_blocking(move || {
            let sha256 = Sha256::digest(&bytes).into();
            let InboxSettings {
                limits,
                frames,
                labelling,
            } = &work.settings;
            let version = work.ingest.version();
            let rules = &version.state.manifest.archive.label_rules;
            let mut seen = Seen {
                frames: 1,
                label: Label::default(),
                sha256,
            };
            if !(frames.is_first() && labelling.is_silent(rules)) {
                let (facts, texts) = DicomFacts::read_texts(&bytes, limits, rules.look_at_texts())?;
                seen.label = labelling.label(&facts, &texts, rules);
                seen.frames = facts.frames;
            }
            Ok(seen)
        })
        .await
    }

    /// The image that the version that is served has of this frame of this file.
    fn known(&self, frame: FrameNumber, sha256: &[u8; 32]) -> Option<ImageId> {
        let key = self.ingest.identity().file_key(&frame.digest(sha256));
        let version = self.ingest.version();
        let at = version.state.by_file_key(key).next()?;
        Some(version.state.at(at).id)
    }

    async fn embed_frame(
        &self,
        id: InboxId,
        file: Bytes,
        frame: FrameNumber,
        label: Label,
        images: &mut Vec<ImageId>,
    ) -> Result<Embedded> {
        let upload = Upload {
            bytes: file,
            frame,
            patient_id: None,
            issuer: None,
            study_uid: None,
            preview: false,
        };
        let deadline = Instant::now() + FRAME_TIME_MAX;
        match self.ingest.add_waiting(id, upload, label, deadline).await {
            Err(error) if error.kind() == ErrorKind::OutOfScope => Ok(Embedded::Outside),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(match self.inbox.was_erased(id).await? {
                true => Embedded::Erased,
                false => Embedded::Gone,
            }),
            Err(error) => Err(error),
            Ok(receipt) if receipt.outcome == Outcome::Inserted => {
                images.push(receipt.id);
                self.metrics.near_identical(receipt.near_identical_to.is_some());
                Ok(Embedded::Inserted)
            }
            Ok(receipt) => {
                images.push(receipt.id);
                Ok(Embedded::Known)
            }
        }
    }

    async fn fail(&self, id: InboxId, why: &Error) -> Result<()> {
        let file = match self.inbox.read(id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        self.inbox.fail(id, &file, &Reason::from(why)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(file: u8, sop: u8) -> InboxId {
        let key = |byte: u8| format!("{byte:02x}").repeat(16);
        format!("{}-{}-{}-{}", key(0), key(0), key(sop), key(file))
            .parse()
            .unwrap()
    }

    fn next(turns: &mut Turns, now: Instant) -> Option<InboxId> {
        turns.next(now).map(|(id, _)| id)
    }

    #[test]
    fn one_instance_has_one_turn_at_a_time() {
        let now = Instant::now();
        let mut turns = Turns::default();
        for (file, sop) in [(1, 1), (2, 1), (3, 2), (3, 2)] {
            turns.add(id(file, sop));
        }
        assert_eq!(next(&mut turns, now), Some(id(1, 1)));
        assert_eq!(next(&mut turns, now), Some(id(3, 2)));
        assert_eq!(next(&mut turns, now), None);
        turns.done(id(1, 1));
        assert_eq!(next(&mut turns, now), Some(id(2, 1)));
    }

    #[test]
    fn so_many_run_at_a_time() {
        let now = Instant::now();
        let mut turns = Turns::default();
        (1..=20).for_each(|file| turns.add(id(file, file)));
        let begun = std::iter::from_fn(|| next(&mut turns, now)).count();
        assert_eq!(begun, EMBEDDED_MAX);
        turns.done(id(1, 1));
        assert!(next(&mut turns, now).is_some() && next(&mut turns, now).is_none());
    }

    #[test]
    fn a_file_of_many_frames_goes_on_behind_the_others() {
        let now = Instant::now();
        let mut turns = Turns::default();
        (1..=10).for_each(|file| turns.add(id(file, file)));
        for file in 1..=8 {
            assert_eq!(turns.next(now), Some((id(file, file), Progress::default())));
        }
        let progress = Progress {
            done: 7,
            broken: Some((FrameNumber::FIRST, 2)),
            embedded: true,
            inserted: false,
        };
        turns.go_on(id(1, 1), progress);
        assert_eq!((next(&mut turns, now), next(&mut turns, now)), (Some(id(9, 9)), None));
        turns.done(id(2, 2));
        turns.done(id(3, 3));
        assert_eq!(next(&mut turns, now), Some(id(10, 10)));
        assert_eq!(turns.next(now), Some((id(1, 1), progress)));
        // A fault does not take back what is done.
        turns.broke(id(1, 1));
        let wait = turns.again(id(1, 1), progress, now);
        assert_eq!(turns.next(now + wait), Some((id(1, 1), progress)));
        turns.done(id(1, 1));
        turns.add(id(1, 1));
        assert_eq!(turns.next(now), Some((id(1, 1), Progress::default())));
    }

    #[test]
    fn faults_put_a_file_off_and_off_and_never_away() {
        let now = Instant::now();
        let mut turns = Turns::default();
        turns.add(id(1, 1));
        let mut waited = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(next(&mut turns, now + waited), Some(id(1, 1)));
            assert_eq!(fate(ErrorKind::Unavailable, turns.broke(id(1, 1))), Fate::Again);
            let wait = turns.again(id(1, 1), Progress::default(), now + waited);
            assert_eq!(next(&mut turns, now + waited), None);
            waited += wait;
            waits.push(wait.as_secs());
        }
        assert_eq!(waits[..4], [1, 2, 4, 8]);
        assert_eq!(waits[11], WAIT_MAX.as_secs());
    }

    #[test]
    fn what_breaks_its_decoder_is_set_aside_after_some_tries() {
        assert_eq!(fate(ErrorKind::InvalidImage, 1), Fate::AtOnce);
        assert_eq!(fate(ErrorKind::InvalidImage, BREAKS_MAX), Fate::Failed);
        assert_eq!(fate(ErrorKind::ConstantImage, 1), Fate::Failed);
        for fault in [
            ErrorKind::Overloaded,
            ErrorKind::StorageFull,
            ErrorKind::Unavailable,
            ErrorKind::Internal,
        ] {
            assert_eq!(fate(fault, 1_000), Fate::Again);
        }
    }

    #[test]
    fn what_waits_no_more_is_forgotten_but_for_what_runs() {
        let now = Instant::now();
        let mut turns = Turns::default();
        turns.add(id(1, 1));
        assert_eq!(next(&mut turns, now), Some(id(1, 1)));
        turns.add(id(2, 2));
        turns.keep(&HashSet::new());
        assert_eq!(next(&mut turns, now), None);
        assert!(turns.known.contains_key(&id(1, 1)));
    }
}
