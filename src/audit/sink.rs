//! The way into the audit: a bounded queue, and a thread that writes what waits there together and syncs it once.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::chain::{Head, ProcessId, read_hash};
use super::event::{Digest, Event};
use super::files::{audit_files, last_line, make_folder};
use super::writer::{Place, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;

/// Smallest bound of an audit's folder.
pub const BYTES_MAX_LEAST: u64 = 64 << 10;
/// Events that wait to be written; with none of them naming more than a few hundred images that is some MB.
const QUEUE_MAX: usize = 4096;
/// Events that are written and synced together.
const BATCH_MAX: usize = 256;
/// A file of this size is followed by the next.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Longest time that a request waits for its line: a disk that hangs is no better than a full one.
const APPEND_TIME_MAX: Duration = Duration::from_secs(10);
/// When a refused request may be worth sending again: somebody has to make room first.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// Heads of other processes that a start names: those that began last.
const HEADS_MAX: usize = 64;

/// What decides how an audit is kept.
#[derive(Debug, Clone)]
pub struct AuditSettings {
    /// The folder of its files, on this machine.
    pub folder: PathBuf,
    /// Most bytes of all files in it, at least [`BYTES_MAX_LEAST`].
    pub bytes_max: u64,
    /// The server's name among its replicas.
    pub replica: String,
    /// Key of the digests of queries.
    pub digest_key: [u8; 32],
}

/// The audit of this process. Cheap to clone.
#[derive(Clone)]
pub struct Audit(Arc<Shared>);

struct Shared {
    queue: mpsc::Sender<Entry>,
    heads: watch::Receiver<Head>,
    /// Events that found no place in the queue.
    lost: Arc<AtomicU64>,
    digest_key: [u8; 32],
    metrics: Arc<Metrics>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Entry {
    /// An event, and whoever waits for its line.
    Event(Box<Event>, Option<oneshot::Sender<Result<u64>>>),
    /// A look whether what failed before goes again.
    Look,
    /// The end.
    Stop,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Audit({})", self.0.heads.borrow().process)
    }
}

impl Audit {
    /// Begins the chain of this process, with a line that says which other chains are known: those of `known`, and those in the folder. When the disk is full
    /// it begins as soon as it is not.
    ///
    /// # Errors
    /// `InvalidRequest` for a bound that is too small; `Unavailable` when the folder can't be used.
    pub fn open(settings: AuditSettings, known: Vec<Head>, metrics: Arc<Metrics>) -> Result<Self> {
        if settings.bytes_max < BYTES_MAX_LEAST {
            let message = format!("an audit needs room for at least {BYTES_MAX_LEAST} bytes");
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        make_folder(&settings.folder)?;
        let heads = newest(known, heads_in(&settings.folder)?);
        let place = Place {
            folder: settings.folder,
            bytes_max: settings.bytes_max,
            file_bytes_max: FILE_BYTES_MAX,
            replica: settings.replica,
        };
        let mut writer = Writer::new(place, ProcessId::random(), Timestamp::now())?;
        let start = Event {
            heads,
            ..Event::of_server("start")
        };
        metrics.audit_room(writer.bytes(), settings.bytes_max);
        match writer.write(&[start], false) {
            Ok(_) => metrics.audit_lines(1),
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                tracing::error!(error = %error, "the audit can't be begun: until it can, nothing is changed here");
                writer.lose(1);
                metrics.audit_lost(1);
                metrics.audit_broken(true);
            }
            Err(error) => return Err(error),
        }
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let (says, heads) = watch::channel(writer.head());
        let lost = Arc::new(AtomicU64::new(0));
        let mut writing = Writing {
            writer,
            says,
            lost: Arc::clone(&lost),
            metrics: Arc::clone(&metrics),
            bytes_max: settings.bytes_max,
            broken: false,
        };
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writing.run(waiting))
            .map_err(|error| Error::with_source(ErrorKind::Unavailable, "no thread for the audit", error))?;
        Ok(Self(Arc::new(Shared {
            queue,
            heads,
            lost,
            digest_key: settings.digest_key,
            metrics,
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// Writes an event's line. Its number, once it is on the disk.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`: there is no line. The next one that can be written says that one is missing.
    pub async fn append(&self, event: Event) -> Result<u64> {
        let (done, line) = oneshot::channel();
        let failed = |message: &str| Error::new(ErrorKind::Unavailable, message).retry_after(RETRY_AFTER);
        if self
            .0
            .queue
            .try_send(Entry::Event(Box::new(event), Some(done)))
            .is_err()
        {
            self.lose();
            return Err(failed("the audit can't keep up"));
        }
        match tokio::time::timeout(APPEND_TIME_MAX, line).await {
            Ok(Ok(written)) => written,
            Ok(Err(_)) => Err(failed("the audit has ended")),
            Err(_) => Err(failed("the audit's disk does not answer")),
        }
    }

    /// Has an event's line written soon. Where that can't be, the next line that can be written says that one is missing.
    pub fn note(&self, event: Event) {
        if self.0.queue.try_send(Entry::Event(Box::new(event), None)).is_err() {
            self.lose();
        }
    }

    fn lose(&self) {
        self.0.lost.fetch_add(1, Ordering::Relaxed);
        self.0.metrics.audit_lost(1);
    }

    /// Tries again what failed, if anything did.
    pub fn look(&self) {
        let _ = self.0.queue.try_send(Entry::Look);
    }

    /// Where the chain stands on the disk.
    pub fn head(&self) -> Head {
        self.0.heads.borrow().clone()
    }

    /// A query that consists of these parts.
    pub fn digest(&self, parts: &[&[u8]]) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(&self.0.digest_key);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let mut digest = [0; 16];
        hasher.finalize_xof().fill(&mut digest);
        Digest(digest)
    }

    /// Writes that the server stops, behind everything that waits, and ends. Nothing is written afterwards.
    pub async fn finish(&self) {
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else {
            return;
        };
        let ended = async {
            if self.0.queue.send(Entry::Stop).await.is_ok() {
                let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            }
        };
        if tokio::time::timeout(APPEND_TIME_MAX, ended).await.is_err() {
            tracing::error!("the audit could not be ended: its disk does not answer");
        }
    }
}

/// The thread.
struct Writing {
    writer: Writer,
    says: watch::Sender<Head>,
    lost: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
    bytes_max: u64,
    broken: bool,
}

impl Writing {
    fn run(&mut self, mut waiting: mpsc::Receiver<Entry>) {
        while let Some(first) = waiting.blocking_recv() {
            let (mut events, mut answers, mut stops) = (Vec::new(), Vec::new(), false);
            let mut next = Some(first);
            while let Some(entry) = next {
                match entry {
                    Entry::Event(event, answer) => {
                        events.push(*event);
                        answers.push(answer);
                    }
                    Entry::Look => {}
                    Entry::Stop => stops = true,
                }
                next = (events.len() < BATCH_MAX && !stops)
                    .then(|| waiting.try_recv().ok())
                    .flatten();
            }
            self.write(&events, answers);
            if stops {
                waiting.close();
                self.write_unbounded(Event::of_server("stop"));
                return;
            }
        }
    }

    fn write(&mut self, events: &[Event], answers: Vec<Option<oneshot::Sender<Result<u64>>>>) {
        self.writer.lose(self.lost.swap(0, Ordering::Relaxed));
        if events.is_empty() && !self.writer.has_gap() {
            return;
        }
        let written = self.writer.write(events, true);
        self.say(written.as_ref().err());
        match written {
            Ok(seqs) => {
                self.metrics.audit_lines(seqs.len() as u64);
                self.says.send_replace(self.writer.head());
                for (answer, seq) in answers.into_iter().zip(seqs) {
                    tell(answer, Ok(seq));
                }
            }
            Err(error) => {
                self.writer.lose(events.len() as u64);
                self.metrics.audit_lost(events.len() as u64);
                for answer in answers {
                    let refused = Error::new(
                        error.kind(),
                        "this is not done without a line in the audit, which can't be written",
                    );
                    tell(answer, Err(refused.retry_after(RETRY_AFTER)));
                }
            }
        }
        self.metrics.audit_room(self.writer.bytes(), self.bytes_max);
    }

    /// The server's end is written where the bound is reached too, if the disk has room.
    fn write_unbounded(&mut self, event: Event) {
        self.writer.lose(self.lost.swap(0, Ordering::Relaxed));
        match self.writer.write(&[event], false) {
            Ok(_) => {
                self.says.send_replace(self.writer.head());
            }
            Err(error) => tracing::error!(error = %error, "the end of the audit can't be written"),
        }
    }

    /// Says it when it begins to fail and when that is over.
    fn say(&mut self, error: Option<&Error>) {
        match error {
            Some(error) if !self.broken => {
                tracing::error!(error = %error, "the audit can't be written: until it can, nothing is changed here");
            }
            None if self.broken => tracing::info!("the audit is written again"),
            _ => {}
        }
        self.broken = error.is_some();
        self.metrics.audit_broken(self.broken);
    }
}

fn tell(answer: Option<oneshot::Sender<Result<u64>>>, result: Result<u64>) {
    if let Some(answer) = answer {
        // Whoever asked may have gone.
        let _ = answer.send(result);
    }
}

/// Where the chains in a folder stand, as their last files say.
fn heads_in(folder: &std::path::Path) -> Result<Vec<Head>> {
    let files = audit_files(folder)?;
    let last = files
        .iter()
        .enumerate()
        .filter(|(at, file)| files.get(at + 1).is_none_or(|next| next.process != file.process));
    let mut heads = Vec::new();
    for (_, file) in last.rev().take(HEADS_MAX) {
        let Ok(Some(line)) = last_line(&file.path) else {
            continue;
        };
        heads.extend(head_of(&line));
    }
    Ok(heads)
}

fn head_of(line: &[u8]) -> Option<Head> {
    #[derive(serde::Deserialize)]
    struct Known {
        process: ProcessId,
        replica: String,
        seq: u64,
        time: Timestamp,
    }
    let known: Known = serde_json::from_slice(line).ok()?;
    let (hash, _) = read_hash(line, super::chain::Hash::NONE)?;
    Some(Head {
        process: known.process,
        replica: known.replica,
        seq: known.seq,
        hash,
        time: known.time,
    })
}

/// One head a process, the latest; at most [`HEADS_MAX`], the newest.
fn newest(known: Vec<Head>, found: Vec<Head>) -> Vec<Head> {
    let mut latest = std::collections::BTreeMap::new();
    for head in known.into_iter().chain(found) {
        let kept = latest.entry(head.process).or_insert_with(|| head.clone());
        if head.seq > kept.seq {
            *kept = head;
        }
    }
    let mut heads: Vec<Head> = latest.into_values().collect();
    heads.sort_by_key(|head| std::cmp::Reverse(head.time));
    heads.truncate(HEADS_MAX);
    heads
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &tempfile::TempDir, bytes_max: u64) -> AuditSettings {
        AuditSettings {
            folder: folder.path().join("audit"),
            bytes_max,
            replica: "r".to_owned(),
            digest_key: [7; 32],
        }
    }

    fn event() -> Event {
        Event::of_server("keysFile")
    }

    fn lines(folder: &tempfile::TempDir) -> Vec<serde_json::Value> {
        let files = audit_files(&folder.path().join("audit")).unwrap();
        let texts = files.iter().map(|file| std::fs::read_to_string(&file.path).unwrap());
        texts
            .flat_map(|text| {
                text.lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    #[tokio::test]
    async fn an_answered_line_is_there_and_the_end_is_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let audit = Audit::open(settings(&folder, 1 << 20), Vec::new(), Arc::clone(&metrics)).unwrap();
        assert_eq!(audit.append(event()).await.unwrap(), 2);
        assert_eq!(lines(&folder).len(), 2);
        for _ in 0..1000 {
            audit.note(event());
        }
        audit.finish().await;
        assert_eq!(audit.append(event()).await.unwrap_err().kind(), ErrorKind::Unavailable);
        let lines = lines(&folder);
        assert_eq!(lines.len(), 1003);
        assert_eq!(
            (&lines[0]["what"], &lines[1002]["what"]),
            (&"start".into(), &"stop".into())
        );
        assert_eq!(audit.head().hash.to_string(), lines[1002]["hash"].as_str().unwrap());

        let next = Audit::open(settings(&folder, 1 << 20), Vec::new(), metrics).unwrap();
        next.finish().await;
        let all = self::lines(&folder);
        let start = all.iter().find(|line| !line["heads"].is_null()).unwrap();
        assert_eq!(start["heads"][0]["hash"], lines[1002]["hash"]);
    }

    #[tokio::test]
    async fn a_full_folder_refuses_and_says_afterwards_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let ballast = settings(&folder, BYTES_MAX_LEAST);
        std::fs::create_dir(&ballast.folder).unwrap();
        let other = ballast.folder.join(super::super::files::name_of(
            Timestamp::UNIX_EPOCH,
            ProcessId::random(),
            1,
        ));
        std::fs::write(&other, vec![b'x'; BYTES_MAX_LEAST as usize]).unwrap();
        let audit = Audit::open(ballast, Vec::new(), Arc::clone(&metrics)).unwrap();
        for _ in 0..3 {
            let refused = audit.append(event()).await.unwrap_err();
            assert_eq!(
                (refused.kind(), refused.retry_after_s()),
                (ErrorKind::StorageFull, Some(30))
            );
        }
        let text = metrics.text().unwrap();
        assert!(text.contains("medsearch_audit_broken 1"), "{text}");
        std::fs::remove_file(other).unwrap();
        audit.look();
        audit.finish().await;
        let text = metrics.text().unwrap();
        assert!(
            text.contains("medsearch_audit_broken 0") && text.contains("medsearch_audit_lost_total 3"),
            "{text}"
        );
        let lines = lines(&folder);
        let said: Vec<&str> = lines.iter().map(|line| line["what"].as_str().unwrap()).collect();
        assert_eq!(said, ["start", "gap", "stop"]);
        assert_eq!(lines[1]["lost"], 3);
    }

    #[tokio::test]
    async fn equal_queries_have_equal_digests_under_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let open = |digest_key| {
            let settings = AuditSettings {
                digest_key,
                ..settings(&folder, 1 << 20)
            };
            Audit::open(settings, Vec::new(), Arc::clone(&metrics)).unwrap()
        };
        let (one, other) = (open([1; 32]), open([2; 32]));
        assert_eq!(one.digest(&[b"ab", b"c"]), one.digest(&[b"ab", b"c"]));
        assert_ne!(one.digest(&[b"ab", b"c"]), one.digest(&[b"a", b"bc"]));
        assert_ne!(one.digest(&[b"ab"]), other.digest(&[b"ab"]));
    }
}
