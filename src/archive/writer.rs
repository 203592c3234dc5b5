//! Group commit: changes of many callers, one manifest.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::bulk::AGE_MAX;
use super::commit::{Propose, Proposed, base, commit};
use super::draft::Draft;
use super::merge::{Merge, Scale};
use super::{Archive, Change, Manifest, Moment, Outcome, PackEntry, RowsEntry, RowsObject, Shard, State};
use crate::domain::{ClassLabel, ImageId, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;

/// After a merge that failed, this many deltas more before the next one is tried.
const MERGE_RETRY_DELTAS: usize = 8;

/// Bounds of a [`Writer`].
#[derive(Debug, Clone)]
pub struct WriterSettings {
    /// Longest time that a change waits for company while others are being written.
    pub gather_ms_max: u64,
    /// Most changes in one commit.
    pub rows_max: usize,
    /// Changes that may wait; beyond, callers are sent away.
    pub queue_max: usize,
    /// Small rows objects from which on some are merged.
    pub deltas_merge_at: usize,
    /// Small rows objects from which on nothing more is taken, since merging does not keep up.
    pub deltas_refuse_at: usize,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self {
            gather_ms_max: 250,
            rows_max: 1000,
            queue_max: 1024,
            deltas_merge_at: 32,
            deltas_refuse_at: 512,
        }
    }
}

/// A change that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The version that holds it, or held it already.
    pub version: u64,
    /// What it did.
    pub outcome: Outcome,
    /// The image, for changes of one image: with `Duplicate` and `Conflict` the one that was there.
    pub id: Option<ImageId>,
    /// Its class now.
    pub class: Option<ClassLabel>,
    /// That class is disputed: another copy of the picture stands under another one.
    pub label_conflict: bool,
    /// What it was found to be a copy of.
    pub near_identical_to: Option<ImageId>,
}

/// Takes changes from any number of callers. Cheap to clone; the task behind it ends with the last clone.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Job>,
}

struct Job {
    change: Change,
    done: oneshot::Sender<Result<Committed>>,
}

impl Writer {
    /// Starts the task that writes. `notify` gets the number of every version it makes.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged` when the archive can't be loaded.
    pub async fn spawn(
        archive: Archive,
        settings: WriterSettings,
        metrics: Arc<Metrics>,
        notify: watch::Sender<u64>,
    ) -> Result<Self> {
        let state = base(&archive).await?;
        let (queue, jobs) = mpsc::channel(settings.queue_max.max(1));
        let merge_at = settings.deltas_merge_at;
        tokio::spawn(
            Task {
                archive,
                settings,
                metrics,
                notify,
                jobs,
                state,
                merge_at,
                took: Duration::ZERO,
            }
            .run(),
        );
        Ok(Self { queue })
    }

    /// Whether changes are still taken. When not, only a restart helps.
    pub fn is_alive(&self) -> bool {
        !self.queue.is_closed()
    }

    /// Makes one change. `Ok` means that it is durable.
    ///
    /// # Cancel safety
    /// Dropped before it ends, the change may or may not be made.
    ///
    /// # Errors
    /// `Overloaded` when the queue is full; `Deadline` when it is not written in time, which may still happen; `StorageFull`, `Unavailable`
    /// when it can't be stored; what [`Change`] itself refuses.
    pub async fn submit(&self, change: Change, deadline: std::time::Instant) -> Result<Committed> {
        let (done, answer) = oneshot::channel();
        self.queue.try_send(Job { change, done }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Error::new(ErrorKind::Overloaded, "too many changes wait to be written")
            }
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        let answer = timeout_at(deadline.into(), answer).await.map_err(|_| {
            let message = "the change was not written in time, but may be yet: ask again, which does no harm";
            Error::new(ErrorKind::Deadline, message)
        })?;
        answer.map_err(|_| stopped())?
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Unavailable, "the archive's writer has stopped")
}

struct Task {
    archive: Archive,
    settings: WriterSettings,
    metrics: Arc<Metrics>,
    notify: watch::Sender<u64>,
    jobs: mpsc::Receiver<Job>,
    state: Arc<State>,
    /// Deltas from which on a merge is tried.
    merge_at: usize,
    /// How long the last commit took.
    took: Duration,
}

impl Task {
    async fn run(mut self) {
        loop {
            // What is there already came while the last commit was written: more is likely on its way. Otherwise nobody is kept waiting.
            let (first, gather) = match self.jobs.try_recv() {
                Ok(job) => (job, self.took.min(Duration::from_millis(self.settings.gather_ms_max))),
                Err(_) => match self.jobs.recv().await {
                    Some(job) => (job, Duration::ZERO),
                    None => return,
                },
            };
            let jobs = self.gather(first, gather).await;
            self.commit(jobs).await;
            self.merge_when_due().await;
        }
    }

    async fn gather(&mut self, first: Job, wait: Duration) -> VecDeque<Job> {
        let until = Instant::now() + wait;
        let mut jobs = VecDeque::from([first]);
        while jobs.len() < self.settings.rows_max {
            match self.jobs.try_recv() {
                Ok(job) => jobs.push_back(job),
                Err(_) if wait.is_zero() => break,
                Err(_) => match timeout_at(until, self.jobs.recv()).await {
                    Ok(Some(job)) => jobs.push_back(job),
                    _ => break,
                },
            }
        }
        // Nobody waits for the answer any more.
        jobs.retain(|job| !job.done.is_closed());
        jobs
    }

    async fn commit(&mut self, mut jobs: VecDeque<Job>) {
        if self.state.manifest.deltas() >= self.settings.deltas_refuse_at {
            let (refused, kept) = jobs.into_iter().partition(|job| adds_rows(&job.change));
            jobs = kept;
            for Job { done, .. } in Vec::from(refused) {
                let error = Error::new(ErrorKind::Unavailable, "too many small writes wait to be merged");
                // The caller may have gone, here and below.
                let _ = done.send(Err(error));
            }
        }
        if jobs.is_empty() {
            return;
        }
        let started = Instant::now();
        let (changes, callers): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.change, job.done)).unzip();
        let mut work = Changes {
            changes: &changes,
            outcomes: vec![],
            written: None,
        };
        let committed = unwound(commit(&self.archive, &self.state, &mut work)).await;
        let outcomes = work.outcomes;
        self.took = started.elapsed();
        match committed {
            Ok(state) => {
                self.metrics.commit(self.took);
                self.advance(state);
                let version = self.state.manifest.version;
                for (done, outcome) in callers.into_iter().zip(outcomes) {
                    let _ = done.send(outcome.map(|committed| Committed { version, ..committed }));
                }
            }
            Err(error) => {
                tracing::error!(error = %error, cause = ?std::error::Error::source(&error), changes = changes.len(), "changes could not be written");
                for done in callers {
                    let _ = done.send(Err(Error::new(error.kind(), error.message())));
                }
            }
        }
    }

    async fn merge_when_due(&mut self) {
        let deltas = self.state.manifest.deltas();
        if deltas < self.merge_at {
            return;
        }
        let mut work = Merge::new(Scale::Deltas(self.merge_at), None);
        match unwound(commit(&self.archive, &self.state, &mut work)).await {
            Ok(state) => {
                self.advance(state);
                self.merge_at = self.settings.deltas_merge_at.max(self.state.manifest.deltas() + 1);
            }
            Err(error) => {
                tracing::warn!(error = %error, cause = ?std::error::Error::source(&error), deltas, "small writes could not be merged");
                self.merge_at = deltas + MERGE_RETRY_DELTAS;
            }
        }
    }

    fn advance(&mut self, state: Arc<State>) {
        let version = state.manifest.version;
        if version != self.state.manifest.version {
            self.notify.send_replace(version);
        }
        self.state = state;
    }
}

/// A panic costs the batch at hand, never the task: what it had changed in memory is thrown away, and the next batch looks at the storage.
async fn unwound<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.unwrap_or_else(|_| Err(Error::internal("writing to the archive panicked")))
}

fn adds_rows(change: &Change) -> bool {
    matches!(
        change,
        Change::Insert(_) | Change::InsertInstance { .. } | Change::Relabel { .. }
    )
}

/// Why a change can't be made on the version that is known now: the file of the inbox that it comes from waits no more. Whoever dropped it deletes in that version
/// or in a later one; had they done so before the file was asked for, it would not be there.
async fn not_waiting(archive: &Archive, changes: &[Change]) -> Vec<Option<Error>> {
    let inbox = archive.inbox();
    let asked = changes.iter().map(async |change| {
        let Change::InsertInstance { waiting, .. } = change else {
            return None;
        };
        match inbox.waits(*waiting).await {
            Ok(true) => None,
            Ok(false) => Some(Error::new(
                ErrorKind::NotFound,
                "the file waits no more: it is embedded, or was deleted",
            )),
            Err(error) => Some(error),
        }
    });
    join_all(asked).await
}

struct Changes<'a> {
    changes: &'a [Change],
    /// In the order of the changes; their version is not known yet.
    outcomes: Vec<Result<Committed>>,
    /// What was written for a version that another writer's took the place of.
    written: Option<Written>,
}

/// Objects with new images and nothing else.
struct Written {
    began: Moment,
    /// The shards that the rows lie in.
    shards: Vec<Shard>,
    /// What the draft says is new.
    additions: Vec<Record>,
    entries: Vec<RowsEntry>,
    packs: Vec<PackEntry>,
    rows: Vec<Arc<RowsObject>>,
}

impl Propose for Changes<'_> {
    async fn propose(&mut self, archive: &Archive, base: &Arc<State>, commit: &str) -> Result<Option<Proposed>> {
        let refused = not_waiting(archive, self.changes).await;
        let mut draft = Draft::new(base, archive.now().to_string());
        let apply = |(change, refused): (_, Option<Error>)| {
            if let Some(error) = refused {
                return Err(error);
            }
            let (outcome, id) = draft.apply(change, archive)?;
            let (class, label_conflict) = id.and_then(|id| draft.label(id)).unwrap_or_default();
            Ok(Committed {
                version: 0,
                outcome,
                id,
                class,
                label_conflict,
                near_identical_to: id.and_then(|id| draft.link_of(id)),
            })
        };
        self.outcomes = self.changes.iter().zip(refused).map(apply).collect();
        if draft.is_empty() {
            return Ok(None);
        }
        let mut manifest = base.manifest.as_ref().clone();
        let additions = draft.additions();
        // Another writer seldom changes what these changes mean: then only the manifest is to be written again.
        let fits = |written: &&Written| {
            let young = written.began.age(archive.moment()) <= AGE_MAX;
            let cut_alike = written.shards == base.manifest.shards;
            young && cut_alike && additions.as_ref() == Some(&written.additions)
        };
        if let Some(written) = self.written.as_ref().filter(fits) {
            for entry in &written.entries {
                manifest.add_rows(entry.clone(), &written.packs);
            }
            let rows = written.rows.clone();
            return Ok(Some(Proposed { manifest, rows }));
        }
        let began = archive.moment();
        let rows = draft.write(&mut manifest, archive, commit).await?;
        self.written = additions.map(|additions| Written::new(began, additions, &manifest, &rows));
        Ok(Some(Proposed { manifest, rows }))
    }
}

impl Written {
    fn new(began: Moment, additions: Vec<Record>, manifest: &Manifest, rows: &[Arc<RowsObject>]) -> Self {
        let is_new = |entry: &&RowsEntry| rows.iter().any(|object| object.name == entry.object);
        let entries: Vec<RowsEntry> = manifest.rows.iter().filter(is_new).cloned().collect();
        let shown = |pack: &&PackEntry| entries.iter().any(|entry| entry.packs.contains(&pack.object));
        Self {
            began,
            shards: manifest.shards.clone(),
            additions,
            packs: manifest.packs.iter().filter(shown).cloned().collect(),
            entries,
            rows: rows.to_vec(),
        }
    }
}
