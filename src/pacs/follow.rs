//! Takes over whatever an Orthanc receives: its `/changes` are followed from where the archive's bookmark is, each new instance goes into the inbox, and only then
//! the bookmark moves. So an outage on either side delays, and loses nothing; what comes twice is known.
//!
//! Where the settings say so, what Orthanc has deleted is deleted too ([`super::sweep`]): for that it is written down of each instance that it was there, before it
//! goes into the inbox.
//!
//! Of all servers that write to an archive one follows. The others look at the bookmark, and take over when it has not moved for [`LEASE`] by their own clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::addresses::Lookup;
use super::changes::{Change, Changes, after, is_another_database};
use super::client::Pacs;
use super::settings::Followed;
use super::sweep::{Sweep, SweepSettings, Swept};
use crate::archive::{Archive, Bookmark, Cursor, Mark, Origin, OriginBook};
use crate::audit::{Audit, Who};
use crate::error::{Error, ErrorKind, Result};
use crate::ingest::{Reception, Refusal, Verdict};
use crate::metrics::{FollowOutcome, Metrics, SweepOutcome};

/// A bookmark that has not moved for so long is taken over.
const LEASE: Duration = Duration::from_secs(20);
/// Who follows moves it at least so often.
const RENEW_EVERY: Duration = Duration::from_secs(6);
/// Time between two looks of who does not.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Time between two questions to an Orthanc where nothing happens.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Wait after the first fault; each further one doubles it.
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// Longest wait between two tries.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Changes asked for at a time.
const CHANGES_MAX: &str = "100";
/// Most bytes of them.
const CHANGES_BYTES_MAX: usize = 1 << 20;
/// Instances fetched at a time.
const FETCHED_MAX: usize = 4;
/// Time to take one into the inbox.
const RECEIVE_MAX: Duration = Duration::from_secs(60);
/// Tries after which an instance that can't be had is passed over, if a later one can.
const TRIES_MAX: u32 = 8;
/// Longest wait at the end for the bookmark to be given up.
const STOP_MAX: Duration = Duration::from_secs(2);

/// The first sweep comes so long after this server began to follow, where they are not more frequent.
const SWEEP_FIRST: Duration = Duration::from_secs(60);
/// While a sweep is refused it is looked so often whether somebody has confirmed it.
const CONFIRMED_EVERY: Duration = Duration::from_secs(10);
/// Lists of noted instances that are put together.
const NOTES_MAX: usize = 64;

/// Says that the server stops.
type Stopped = watch::Receiver<bool>;

/// Follows one Orthanc.
pub struct Follower {
    orthanc: Pacs,
    bookmark: Bookmark,
    reception: Reception,
    metrics: Arc<Metrics>,
    file_bytes_max: usize,
    /// Who this server is among those that may follow.
    own: String,
    stuck: Stuck,
    /// Where it is written down what Orthanc has, where it is.
    notes: Option<Notes>,
    sweeps: Option<Sweeps>,
    /// What is deleted is on record first.
    audit: Option<Audit>,
}

/// Writes down what Orthanc has: of those that come at the same time in one list.
struct Notes {
    book: OriginBook,
    /// The names of the others that are followed.
    others: Vec<String>,
    waiting: Mutex<Vec<Origin>>,
    /// Lists that were written since some were put together. Held by whoever writes.
    written: tokio::sync::Mutex<Vec<(String, Vec<Origin>)>>,
}

impl Notes {
    fn new(book: OriginBook, others: Vec<String>) -> Self {
        Self {
            book,
            others,
            waiting: Mutex::default(),
            written: tokio::sync::Mutex::default(),
        }
    }

    /// `Ok` means that it is durable.
    async fn note(&self, origins: impl IntoIterator<Item = Origin>) -> Result<()> {
        self.waiting().extend(origins);
        let mut written = self.written.lock().await;
        let list = std::mem::take(&mut *self.waiting());
        // Whoever wrote last wrote this one too: a list that can't be written waits again.
        if list.is_empty() {
            return Ok(());
        }
        match self.book.note(&list).await {
            Ok(name) => written.push((name, list)),
            Err(error) => {
                self.waiting().extend(list);
                return Err(error);
            }
        }
        if written.len() >= NOTES_MAX {
            let (names, lists): (Vec<String>, Vec<Vec<Origin>>) = std::mem::take(&mut *written).into_iter().unzip();
            self.book.fold(&names, &lists.concat()).await?;
        }
        Ok(())
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Origin>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When what Orthanc has deleted is looked for.
struct Sweeps {
    settings: SweepSettings,
    at: Instant,
    /// The last one was refused: when it is looked again whether somebody has confirmed it.
    refused: Option<Instant>,
}

impl Sweeps {
    fn new(settings: SweepSettings) -> Self {
        Self {
            settings,
            at: Instant::now(),
            refused: None,
        }
    }

    /// This server begins to follow.
    fn begin(&mut self) {
        self.at = Instant::now() + SWEEP_FIRST.min(self.settings.every);
        self.refused = None;
    }
}

/// A follower that runs.
pub struct Following {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Following {
    /// Lets each follower give its bookmark up, so that another server goes on at once.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = tokio::time::timeout(STOP_MAX, task).await;
        }
    }

    /// Begins to follow each of these.
    pub fn start(followers: Vec<Follower>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let tasks = followers
            .into_iter()
            .map(|follower| tokio::spawn(follower.run(stopped.clone())));
        Self {
            tasks: tasks.collect(),
            stop,
        }
    }
}

/// The instance that could not be had when it was last tried.
#[derive(Debug, Default)]
struct Stuck {
    seq: u64,
    tries: u32,
}

impl Stuck {
    /// Counts a try of this one, and says how many there were.
    fn count(&mut self, seq: u64) -> u32 {
        if self.seq != seq {
            *self = Self { seq, tries: 0 };
        }
        self.tries += 1;
        self.tries
    }
}

/// When the bookmark was last seen to move, by this server's clock.
#[derive(Debug)]
struct Seen {
    number: u64,
    since: Instant,
}

impl Seen {
    /// Whether it may be taken over now.
    fn may_take(&mut self, mark: Option<&Mark>, own: &str, now: Instant) -> bool {
        let Some(mark) = mark else { return true };
        if self.number != mark.number {
            *self = Self {
                number: mark.number,
                since: now,
            };
        }
        let holder = mark.holder.as_deref();
        holder.is_none_or(|holder| holder == own) || now.duration_since(self.since) >= LEASE
    }
}

/// Why following ended.
enum Ended {
    /// Another server follows.
    Overtaken,
    /// The server stops.
    Stopped,
}

/// What became of one change.
enum Done {
    /// Nothing had to be taken.
    Nothing,
    /// It was taken, or never will be.
    Taken(FollowOutcome),
}

impl Follower {
    /// Follows the Orthanc of these settings for an archive, through a server's inbox.
    ///
    /// # Errors
    /// `InvalidRequest` for certificates that can't be used.
    pub fn new(
        followed: Followed,
        lookup: &Arc<dyn Lookup>,
        archive: &Archive,
        reception: Reception,
        file_bytes_max: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let orthanc = Pacs::new(followed.orthanc, lookup)?;
        let name = orthanc.name().as_str();
        metrics.follows(name);
        if followed.sweep.is_some() {
            metrics.sweeps(name);
        }
        Ok(Self {
            bookmark: archive.bookmark(name),
            notes: followed
                .noted_with
                .map(|others| Notes::new(archive.origins(name), others)),
            sweeps: followed.sweep.map(Sweeps::new),
            audit: None,
            orthanc,
            reception,
            metrics,
            file_bytes_max,
            own: uuid::Uuid::new_v4().to_string(),
            stuck: Stuck::default(),
        })
    }

    /// The name of the Orthanc, where it is written down what it has.
    pub fn noted_as(&self) -> Option<&str> {
        self.notes.as_ref().map(|_| self.name())
    }

    /// Puts what is deleted on record.
    #[must_use]
    pub fn audited(self, audit: Option<Audit>) -> Self {
        Self { audit, ..self }
    }

    /// Follows, or waits for its turn, until it is told to stop.
    async fn run(mut self, mut stop: Stopped) {
        let mut seen = Seen {
            number: 0,
            since: Instant::now(),
        };
        let mut wait = WAIT_FIRST;
        loop {
            let pause = match self.turn(&mut seen, &mut stop, &mut wait).await {
                Ok(Some(Ended::Stopped)) => return,
                Ok(Some(Ended::Overtaken)) => {
                    tracing::info!(orthanc = self.name(), "another server follows this Orthanc");
                    LOOK_EVERY
                }
                Ok(None) => LOOK_EVERY,
                Err(error) => {
                    self.metrics.follow_failed(self.name());
                    let problem = error.kind().slug();
                    tracing::warn!(orthanc = self.name(), problem, error = %error, seconds = wait.as_secs(), "can't follow an Orthanc at the moment");
                    let now = wait;
                    wait = (wait * 2).min(WAIT_MAX);
                    now
                }
            };
            self.metrics.is_followed(self.name(), false);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => return,
            }
        }
    }

    /// Takes the bookmark if it may, and follows for as long as it has it. None: another server follows.
    async fn turn(&mut self, seen: &mut Seen, stop: &mut Stopped, wait: &mut Duration) -> Result<Option<Ended>> {
        let mark = self.bookmark.read().await?;
        if !seen.may_take(mark.as_ref(), &self.own, Instant::now()) {
            return Ok(None);
        }
        let (number, cursor) = mark.map_or((0, Cursor::default()), |mark| (mark.number, mark.cursor));
        let Some(mut mark) = self.bookmark.write(number, Some(&self.own), &cursor).await? else {
            return Ok(Some(Ended::Overtaken));
        };
        self.metrics.is_followed(self.name(), true);
        let followed = self.follow(&mut mark, stop, wait).await;
        if !matches!(followed, Ok(Ended::Overtaken)) {
            // Another server may reach it where this one can't.
            let _ = self.bookmark.write(mark.number, None, &mark.cursor).await;
        }
        followed.map(Some)
    }

    async fn follow(&mut self, mark: &mut Mark, stop: &mut Stopped, wait: &mut Duration) -> Result<Ended> {
        if is_another_database(self.changes("0", "1").await?.list.first(), &mark.cursor) {
            tracing::warn!(
                orthanc = self.name(),
                "this Orthanc was set up anew: it is followed from its beginning"
            );
            mark.cursor = Cursor::default();
        }
        let mut written = Instant::now();
        if let Some(sweeps) = &mut self.sweeps {
            sweeps.begin();
        }
        loop {
            if *stop.borrow() {
                return Ok(Ended::Stopped);
            }
            if self.is_sweep_due().await?
                && let Some(ended) = self.sweep(mark, &mut written, stop).await?
            {
                return Ok(ended);
            }
            let last = self.last().await?;
            let changes = self.changes(&mark.cursor.seq.to_string(), CHANGES_MAX).await?;
            let before = mark.cursor.clone();
            let taken = self.take(&changes.list, mark, &mut written, stop).await;
            if (mark.cursor != before || written.elapsed() >= RENEW_EVERY) && !self.write(mark, &mut written).await? {
                return Ok(Ended::Overtaken);
            }
            self.metrics
                .follow_lag(self.name(), last.saturating_sub(mark.cursor.seq));
            if !taken? {
                return Ok(Ended::Overtaken);
            }
            *wait = WAIT_FIRST;
            if changes.done {
                tokio::select! {
                    () = tokio::time::sleep(ASK_EVERY) => {}
                    _ = stop.changed() => return Ok(Ended::Stopped),
                }
            }
        }
    }

    /// Whether it is time to look for what Orthanc has deleted.
    async fn is_sweep_due(&mut self) -> Result<bool> {
        let Some(sweeps) = &mut self.sweeps else {
            return Ok(false);
        };
        let now = Instant::now();
        if sweeps.refused.is_some_and(|at| at <= now)
            && let Some(notes) = &self.notes
        {
            sweeps.refused = Some(now + CONFIRMED_EVERY);
            return Ok(sweeps.at <= now || notes.book.confirmed().await?.is_some());
        }
        Ok(sweeps.at <= now)
    }

    /// Takes away what Orthanc has deleted, and moves the bookmark meanwhile. A fault of the sweep is no reason to follow no more.
    async fn sweep(&mut self, mark: &mut Mark, written: &mut Instant, stop: &Stopped) -> Result<Option<Ended>> {
        let (Some(sweeps), Some(notes)) = (&self.sweeps, &self.notes) else {
            return Ok(None);
        };
        let sweep = Sweep {
            orthanc: &self.orthanc,
            book: &notes.book,
            others: &notes.others,
            reception: &self.reception,
            audit: self.audit.as_ref(),
            bounds: sweeps.settings.bounds,
        };
        let every = sweeps.settings.every;
        let mut stopped = stop.clone();
        let swept = {
            let mut sweeping = std::pin::pin!(sweep.run());
            let mut renew = tokio::time::interval_at(tokio::time::Instant::now() + RENEW_EVERY, RENEW_EVERY);
            loop {
                tokio::select! {
                    swept = &mut sweeping => break swept,
                    _ = stopped.changed() => return Ok(Some(Ended::Stopped)),
                    _ = renew.tick() => if !self.write(mark, written).await? {
                        return Ok(Some(Ended::Overtaken));
                    },
                }
            }
        };
        let name = self.name();
        self.metrics
            .swept(name, swept.as_ref().map_or(SweepOutcome::Failed, Swept::outcome));
        let mut refused = None;
        match swept {
            Ok(Swept::Done { images }) => {
                // They were put together with the rest.
                notes.written.lock().await.clear();
                self.metrics.swept_images(name, images);
                self.metrics.sweep_refused(name, 0);
                if images > 0 {
                    tracing::info!(orthanc = name, images, "what this Orthanc has deleted is deleted");
                }
            }
            Ok(Swept::Incomplete) => {
                tracing::warn!(
                    orthanc = name,
                    "the list of this Orthanc's instances does not fit their count: nothing is deleted"
                );
            }
            Ok(Swept::Refused(sweep)) => {
                self.metrics.sweep_refused(name, sweep.images);
                refused = Some(Instant::now() + CONFIRMED_EVERY);
                let command = format!("medsearch deletions --confirm {name} --images {}", sweep.images);
                tracing::error!(
                    orthanc = name,
                    images = sweep.images,
                    of = sweep.of,
                    command,
                    "the instances of so many images are gone from this Orthanc that nothing is deleted until somebody confirms it"
                );
            }
            Err(error) => {
                let problem = error.kind().slug();
                tracing::warn!(orthanc = name, problem, error = %error, "what this Orthanc has deleted can't be seen at the moment");
            }
        }
        if let Some(sweeps) = &mut self.sweeps {
            sweeps.at = Instant::now() + every;
            sweeps.refused = refused;
        }
        Ok(None)
    }

    /// Takes each instance, some at a time, and moves the cursor behind what is taken, in order. False: another server follows.
    async fn take(
        &mut self,
        changes: &[Change],
        mark: &mut Mark,
        written: &mut Instant,
        stop: &Stopped,
    ) -> Result<bool> {
        let mut stuck = std::mem::take(&mut self.stuck);
        let taken = self.take_each(changes, mark, written, &mut stuck, stop).await;
        self.stuck = stuck;
        taken
    }

    async fn take_each(
        &self,
        changes: &[Change],
        mark: &mut Mark,
        written: &mut Instant,
        stuck: &mut Stuck,
        stop: &Stopped,
    ) -> Result<bool> {
        let each: Vec<BoxFuture<'_, Result<Done>>> =
            (changes.iter()).map(|change| self.take_one(change).boxed()).collect();
        // In order: one that is done waits for those before it.
        let mut taking = stream::iter(each).buffered(FETCHED_MAX).zip(stream::iter(changes));
        let mut renew = tokio::time::interval_at(tokio::time::Instant::now() + RENEW_EVERY, RENEW_EVERY);
        // One that can't be had, whatever was tried: it is passed over when a later one can be had.
        let mut doubtful: Option<(&Change, Error)> = None;
        loop {
            if *stop.borrow() {
                return Ok(true);
            }
            let (done, change) = tokio::select! {
                next = taking.next() => match next {
                    Some(next) => next,
                    None => return doubtful.map_or(Ok(true), |(_, error)| Err(error)),
                },
                _ = renew.tick() => {
                    if !self.write(mark, written).await? {
                        return Ok(false);
                    }
                    continue;
                }
            };
            match done {
                Ok(Done::Nothing) if doubtful.is_some() => continue,
                Ok(done) => {
                    if let Some((passed, error)) = doubtful.take() {
                        let problem = error.kind().slug();
                        tracing::error!(orthanc = self.name(), change = passed.seq, problem, error = %error, "an instance can't be had and is passed over");
                        self.metrics.followed(self.name(), FollowOutcome::Failed);
                    }
                    if let Done::Taken(outcome) = done {
                        self.metrics.followed(self.name(), outcome);
                    }
                    mark.cursor = after(&mark.cursor, change);
                }
                Err(error) if doubtful.is_none() && stuck.count(change.seq) >= TRIES_MAX => {
                    doubtful = Some((change, error))
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn take_one(&self, change: &Change) -> Result<Done> {
        let Change { seq, instance, .. } = change;
        let Some(id) = instance else { return Ok(Done::Nothing) };
        let deadline = Instant::now() + RECEIVE_MAX;
        let parts = ["instances", id.as_str(), "file"];
        let got = self
            .orthanc
            .get(&parts, &[], "*/*", self.file_bytes_max, deadline)
            .await;
        let file = match got {
            Ok(answer) => answer.body,
            // Deleted since.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Done::Taken(FollowOutcome::Gone)),
            Err(error) if error.kind() == ErrorKind::TooLarge => {
                let refusal = Refusal::TooLarge.slug();
                tracing::warn!(orthanc = self.name(), change = seq, refusal, "an instance is not taken");
                return Ok(Done::Taken(FollowOutcome::Refused));
            }
            Err(error) => return Err(error),
        };
        // Before it is in the inbox: else nobody would know where it came from, should this server end in between.
        if let Some(notes) = &self.notes {
            let (name, keys) = (id.name(), self.reception.keys(file.clone()).await?);
            let origins = keys.into_iter().map(|keys| Origin { name, keys });
            notes.note(origins).await?;
        }
        let outcome = match self
            .reception
            .receive(file, None, &Who::Server, Instant::now() + RECEIVE_MAX)
            .await
            .verdict
        {
            Verdict::Accepted => FollowOutcome::Accepted,
            Verdict::Known => FollowOutcome::Known,
            Verdict::NotImage => FollowOutcome::NotImage,
            Verdict::Outside(_) => FollowOutcome::Outside,
            Verdict::Refused(why, message) if why.is_passing() => {
                let refusal = why.slug();
                tracing::warn!(
                    orthanc = self.name(),
                    change = seq,
                    refusal,
                    "an instance can't be taken at the moment"
                );
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            Verdict::Refused(why, _) => {
                let refusal = why.slug();
                tracing::warn!(orthanc = self.name(), change = seq, refusal, "an instance is not taken");
                FollowOutcome::Refused
            }
        };
        Ok(Done::Taken(outcome))
    }

    /// Writes the bookmark. False: another server has.
    async fn write(&self, mark: &mut Mark, written: &mut Instant) -> Result<bool> {
        let Some(next) = self.bookmark.write(mark.number, Some(&self.own), &mark.cursor).await? else {
            return Ok(false);
        };
        *mark = next;
        *written = Instant::now();
        Ok(true)
    }

    /// Number of the newest change; 0: there is none.
    async fn last(&self) -> Result<u64> {
        let newest = self.ask(&[("last", "")]).await?;
        Ok(newest.list.last().map_or(0, |change| change.seq))
    }

    async fn changes(&self, since: &str, limit: &str) -> Result<Changes> {
        self.ask(&[("since", since), ("limit", limit)]).await
    }

    async fn ask(&self, query: &[(&str, &str)]) -> Result<Changes> {
        let deadline = Instant::now() + RECEIVE_MAX;
        let answer = self
            .orthanc
            .get(&["changes"], query, "application/json", CHANGES_BYTES_MAX, deadline)
            .await?;
        Changes::parse(&answer.body)
    }

    fn name(&self) -> &str {
        self.orthanc.name().as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: u64, holder: Option<&str>) -> Mark {
        Mark {
            number,
            holder: holder.map(str::to_owned),
            cursor: Cursor::default(),
        }
    }

    #[test]
    fn a_bookmark_is_taken_when_nobody_has_it_or_it_stands_still() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut seen = Seen {
            number: 0,
            since: start,
        };
        assert!(seen.may_take(None, "me", at(0)));
        assert!(seen.may_take(Some(&mark(4, None)), "me", at(0)));
        assert!(seen.may_take(Some(&mark(4, Some("me"))), "me", at(0)));
        // As long as it moves, whatever the clocks say.
        for second in 0..100 {
            assert!(
                !seen.may_take(Some(&mark(5 + second / 6, Some("other"))), "me", at(second)),
                "{second}"
            );
        }
        let still = mark(99, Some("other"));
        assert!(!seen.may_take(Some(&still), "me", at(100)) && !seen.may_take(Some(&still), "me", at(119)));
        assert!(seen.may_take(Some(&still), "me", at(120)));
    }

    #[test]
    fn tries_are_counted_of_one_instance() {
        let mut stuck = Stuck::default();
        assert_eq!(
            [stuck.count(3), stuck.count(3), stuck.count(4), stuck.count(3)],
            [1, 2, 1, 1]
        );
    }
}
