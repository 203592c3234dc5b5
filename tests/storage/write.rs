//! Writers that race for the versions of an archive, each with a view of its own as if it were a process, and what became of what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use medsearch::archive::{
    Archive, Change, Committed, Manifest, NewImage, Outcome, RowsProvenance, Secret, State, Writer, WriterSettings,
};
use medsearch::domain::{ClassLabel, ImageId, Record};
use medsearch::error::{Error, ErrorKind};
use medsearch::metrics::Metrics;
use serde_json::json;
use tokio::sync::watch;

use super::{Result, report};

/// A write is given up after this time, as a request to the server is.
const PATIENCE: Duration = Duration::from_secs(30);
/// A refused write is made again after this time.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Time between two looks at how many small objects there are.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Args, Clone)]
pub struct Write {
    /// The archive; credentials and endpoint come from the environment.
    #[arg(long)]
    archive: String,
    /// Its secret.
    #[arg(long)]
    secret_file: PathBuf,
    /// Writers, each with a view of the archive of its own.
    #[arg(long, default_value_t = 8)]
    writers: usize,
    /// Images that wait at each of them at a time.
    #[arg(long, default_value_t = 32)]
    in_flight: usize,
    /// Time in which images are handed in; what was handed in is waited for.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// One image in so many is handed to every writer at once; 0: none.
    #[arg(long, default_value_t = 0)]
    shared_every: u64,
    /// Tells this run's images from another's.
    #[arg(long, default_value_t = 0)]
    run: u64,
    /// Fail below so many acknowledged images a second.
    #[arg(long, default_value_t = 0.0)]
    rate_min: f64,
    /// Fail above so many small objects in a version.
    #[arg(long, default_value_t = WriterSettings::default().deltas_refuse_at)]
    deltas_max: usize,
    /// Where the figures go.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What one client was told.
#[derive(Default)]
struct Told {
    acknowledged: BTreeSet<ImageId>,
    inserted: usize,
    refused: BTreeMap<&'static str, usize>,
    waits: Vec<Duration>,
}

impl Write {
    pub async fn run(self) -> Result<ExitCode> {
        let before = ids(&self.open().await?).await?;
        // All of them are there before the first image is: loading a large archive takes its time.
        let mut clients = Vec::new();
        for number in 0..self.writers {
            let archive = self.open().await?;
            let metrics = Arc::new(Metrics::new()?);
            let writer =
                Writer::spawn(archive.clone(), WriterSettings::default(), metrics, watch::channel(0).0).await?;
            for place in 0..self.in_flight {
                clients.push(Client {
                    archive: archive.clone(),
                    writer: writer.clone(),
                    manifest: archive.latest().await?,
                    shared_every: self.shared_every,
                    run: self.run,
                    writer_number: number as u64,
                    place: place as u64,
                });
            }
        }
        let over = Arc::new(AtomicBool::new(false));
        let looks = tokio::spawn(most_deltas(self.open().await?, Arc::clone(&over)));
        let began = Instant::now();
        let end = began + Duration::from_secs_f64(self.seconds);
        let clients: Vec<_> = clients
            .into_iter()
            .map(|client| tokio::spawn(client.hand_in(end)))
            .collect();
        let mut told = Told::default();
        for client in clients {
            told.add(client.await??);
        }
        let seconds = began.elapsed().as_secs_f64();
        over.store(true, Ordering::SeqCst);
        let (first, last, deltas) = looks.await??;

        let after = ids(&self.open().await?).await?;
        let lost = told.acknowledged.difference(&after).count();
        // Every image is tried until it is acknowledged.
        let never_acknowledged = after
            .difference(&before)
            .filter(|id| !told.acknowledged.contains(id))
            .count();
        let twice = told.inserted.saturating_sub(told.acknowledged.len());
        let rate = told.acknowledged.len() as f64 / seconds;
        let holds =
            lost == 0 && never_acknowledged == 0 && twice == 0 && rate >= self.rate_min && deltas <= self.deltas_max;
        let figures = json!({
            "writers": self.writers,
            "in_flight_at_each": self.in_flight,
            "seconds": (seconds * 10.0).round() / 10.0,
            "images_acknowledged": told.acknowledged.len(),
            "images_per_s": (rate * 10.0).round() / 10.0,
            "versions": last - first,
            "images_per_version": (told.acknowledged.len() as f64 / (last - first).max(1) as f64 * 10.0).round() / 10.0,
            "waited_ms": {"p50": told.waited_ms(50.0), "p99": told.waited_ms(99.0)},
            "refused_and_tried_again": told.refused,
            "told_new_more_than_once": twice,
            "lost": lost,
            "there_and_never_acknowledged": never_acknowledged,
            "small_objects_at_most": deltas,
            "must_be": {
                "images_per_s_min": self.rate_min, "small_objects_max": self.deltas_max,
                "lost": 0, "told_new_more_than_once": 0, "there_and_never_acknowledged": 0,
            },
            "holds": holds,
        });
        report(&figures, self.json.as_ref())?;
        Ok(ExitCode::from(u8::from(!holds)))
    }

    /// A view of its own, as another process has.
    async fn open(&self) -> Result<Archive> {
        Ok(Archive::open(&self.archive, Secret::load(&self.secret_file)?).await?)
    }
}

impl Told {
    fn add(&mut self, mut other: Self) {
        self.acknowledged.append(&mut other.acknowledged);
        self.inserted += other.inserted;
        for (why, times) in other.refused {
            *self.refused.entry(why).or_default() += times;
        }
        self.waits.append(&mut other.waits);
    }

    fn waited_ms(&self, percent: f64) -> u128 {
        let mut waits = self.waits.clone();
        waits.sort_unstable();
        let at = (waits.len() as f64 * percent / 100.0) as usize;
        waits
            .get(at.min(waits.len().saturating_sub(1)))
            .map_or(0, Duration::as_millis)
    }
}

/// Hands in one image after the other.
struct Client {
    archive: Archive,
    writer: Writer,
    manifest: Arc<Manifest>,
    shared_every: u64,
    run: u64,
    writer_number: u64,
    place: u64,
}

impl Client {
    /// Until `end`; an image that was refused is handed in until it is taken.
    async fn hand_in(self, end: Instant) -> Result<Told> {
        let mut told = Told::default();
        for number in 0.. {
            if Instant::now() >= end {
                break;
            }
            let shared = self.shared_every > 0 && number % self.shared_every == 0;
            let image = self.image(number, shared)?;
            let handed_in = Instant::now();
            let done = loop {
                let change = Change::Insert(Box::new(image.clone()));
                match self.writer.submit(change, Instant::now() + PATIENCE).await {
                    Ok(done) => break done,
                    Err(error) => {
                        *told.refused.entry(why(&error)?).or_default() += 1;
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                }
            };
            told.waits.push(handed_in.elapsed());
            note(&mut told, &done)?;
        }
        Ok(told)
    }

    /// The same for every writer where it is shared.
    fn image(&self, number: u64, shared: bool) -> Result<NewImage> {
        let whose = if shared { u64::MAX } else { self.writer_number };
        let mut digest = [0; 32];
        for (part, of) in digest.chunks_exact_mut(8).zip([self.run, whose, self.place, number]) {
            part.copy_from_slice(&of.to_le_bytes());
        }
        let identity = self.archive.identity();
        let file_key = identity.file_key(&digest);
        let precision = self
            .manifest
            .precisions
            .first()
            .ok_or("no precision is accepted")?
            .clone();
        let original = json!({"id": hex::encode(&digest[..16]), "file": "given", "sha256": hex::encode(digest)});
        let record = Record {
            class: Some(ClassLabel::parse("COVID")?),
            pixel_key: Some(identity.pixel_key(&digest)),
            sealed: identity.seal(&original, file_key)?,
            ..Record::bare(identity.image_id(None, &digest), file_key, "2026-01-01T00:00:00Z")
        };
        let mut state = number ^ (self.place << 40) ^ (whose << 50) ^ (self.run << 20);
        let vector = (0..self.manifest.space.dimension).map(|_| drawn(&mut state)).collect();
        Ok(NewImage {
            record,
            vector,
            space: self.manifest.space.id(),
            thumbnail: None,
            pixels: None,
            provenance: RowsProvenance {
                precision,
                device: "cpu".into(),
                engine: "given".into(),
            },
        })
    }
}

fn note(told: &mut Told, done: &Committed) -> Result<()> {
    let id = done.id.ok_or("an image that was taken has no name")?;
    told.acknowledged.insert(id);
    match done.outcome {
        Outcome::Inserted => told.inserted += 1,
        // Another writer was first, or it was taken although it was said that it was not.
        Outcome::Duplicate => {}
        outcome => return Err(format!("a new image was {outcome:?}").into()),
    }
    Ok(())
}

/// SplitMix64, above 0 and up to 1.
fn drawn(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (((z ^ (z >> 31)) >> 40) as f32 + 1.0) / (1u64 << 24) as f32
}

/// Why a write was refused that may be made again.
fn why(error: &Error) -> Result<&'static str> {
    match error.kind() {
        ErrorKind::Unavailable => Ok("unavailable"),
        ErrorKind::Overloaded => Ok("overloaded"),
        ErrorKind::Deadline => Ok("deadline"),
        ErrorKind::StorageFull => Ok("storage-full"),
        _ => Err(format!("a write failed for good: {error}").into()),
    }
}

/// Every image, each of which has to be there once.
async fn ids(archive: &Archive) -> Result<BTreeSet<ImageId>> {
    let state = State::load(archive).await?;
    let mut ids = BTreeSet::new();
    for at in state.live() {
        let id = state.at(at).id;
        if !ids.insert(id) {
            return Err(format!("image {id} is there twice").into());
        }
    }
    Ok(ids)
}

/// First and last version, and the most small objects that one had.
async fn most_deltas(archive: Archive, over: Arc<AtomicBool>) -> Result<(u64, u64, usize)> {
    let first = archive.latest().await?.version;
    let mut most = 0;
    loop {
        let is_over = over.load(Ordering::SeqCst);
        // A storage that fails on command may fail here too.
        if let Ok(manifest) = archive.latest().await {
            most = most.max(manifest.rows.iter().filter(|entry| entry.delta).count());
            if is_over {
                return Ok((first, manifest.version, most));
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
