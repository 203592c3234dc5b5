//! A data set to vectors: decode in parallel, one model, bounded memory, resumable at any moment.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::class_files::{ClassRows, write_classes};
use super::dataset::{Dataset, Entry};
use super::files::{replace, storage, write_json};
use super::metadata::Metadata;
use super::parts::{Known, PartRow, Parts, Place};
use super::progress::Progress;
use crate::domain::{ClassLabel, FrameNumber, Frames, WindowTable};
use crate::embed::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{ModelInput, Provenance};

/// The list of images that could not be embedded; absent when there is none. No class begins with `_`, so none is called so.
const BROKEN_FILE: &str = "_broken.json";

/// Turns files into what the model is given, on several threads at once.
pub trait Decode: Sync {
    /// How many frames a file has: 1 of a format that knows none.
    ///
    /// # Errors
    /// What is wrong with the file.
    fn frames(&self, bytes: &[u8]) -> Result<u32>;

    /// A frame of a file.
    ///
    /// # Errors
    /// What is wrong with the file, or with this frame of it.
    fn decode(&self, bytes: &[u8], frame: FrameNumber) -> Result<(ModelInput, Provenance)>;
}

/// How a run is done.
#[derive(Debug, Clone)]
pub struct BulkSettings {
    /// The folder for `<CLASS>.npy` and `<CLASS>.json`; made when absent.
    pub out: PathBuf,
    /// Which frames of a file become images.
    pub frames: Frames,
    /// Which windows images get: the space of their vectors says so.
    pub windows: WindowTable,
    /// Images in one call of the model.
    pub batch: usize,
    /// Threads that read and decode.
    pub decode_threads: usize,
    /// Go on from what an earlier run with the same space and precision left; else begin anew.
    pub resume: bool,
    /// Images in a durable part, unless time is up before. A kill costs what is in none yet. 20,000 images make some 200 parts,
    /// each read about once, in order, when the final files are written.
    pub part_images: usize,
    /// Longest time whose work a kill may cost: a part is closed then.
    pub part_time: Duration,
    /// Seconds between two progress lines where stderr is no terminal.
    pub progress_seconds: u64,
}

impl BulkSettings {
    /// First frames, batches of 32, a decoding thread for each core, on from where an earlier run stopped.
    pub fn new(out: PathBuf) -> Self {
        let decode_threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            out,
            frames: Frames::First,
            windows: WindowTable::default(),
            batch: 32,
            decode_threads,
            resume: true,
            part_images: 128,
            part_time: Duration::from_secs(2),
            progress_seconds: 10,
        }
    }
}

/// What a run did.
#[derive(Debug, Clone, Default)]
pub struct BulkReport {
    /// Images in the data set: files, or frames of them.
    pub images: usize,
    /// Those embedded by this run.
    pub embedded: usize,
    /// Those known from an earlier run.
    pub known: usize,
    /// Those that can't be used, by file; exit code 3 when there is one.
    pub broken: Vec<Broken>,
    /// Images by class; none: unlabelled.
    pub classes: BTreeMap<Option<ClassLabel>, usize>,
    /// Rows of a document that name no image.
    pub unmatched: BTreeMap<String, usize>,
    /// Files too deep to have a class.
    pub unread: usize,
    /// `.npy` files in the output folder that are of an earlier run and were left alone.
    pub stale: Vec<String>,
}

/// An image that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Path below the data folder.
    pub file: String,
    /// Which frame of it; left out: the first, or the file as a whole.
    #[serde(skip_serializing_if = "FrameNumber::is_first")]
    pub frame: FrameNumber,
    /// The slug of the problem, as over HTTP.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What is wrong.
    pub detail: String,
}

/// Embeds every image of `dataset` and writes the interchange form.
///
/// Broken images are named on stderr and in `_broken.json`, and skipped. Final files are replaced together at the end; until then finished work is
/// kept under `OUT/.partial`, found again by path, frame, size, SHA-256, space and precision.
///
/// # Errors
/// `InvalidRequest` for a document that can't be read; `Conflict` while another run writes to the folder; `StorageFull`, `Unavailable` when writing
/// or the model fails. What was finished is kept.
pub fn run(
    dataset: &Dataset,
    backend: &mut dyn Backend,
    decode: &dyn Decode,
    settings: &BulkSettings,
) -> Result<BulkReport> {
    // Documents first: what is wrong with them shall not be found after an hour.
    let metadata = Metadata::read(dataset)?;
    std::fs::create_dir_all(&settings.out).map_err(|error| storage(&settings.out, error))?;
    let (card, provenance) = (backend.card().clone(), backend.provenance());
    let space = card.space().with_windows(&settings.windows);
    let key = format!("rust-{}-{}", space.id(), provenance.precision);
    let (mut parts, known) = Parts::open(&settings.out, &key, card.dimension, settings.resume)?;
    let mut run = Run::new(dataset, backend, settings, &mut parts);
    run.backend.warm_up()?;
    run.embed_all(&known, decode)?;
    let Run {
        done,
        mut broken,
        images,
        embedded,
        known,
        ..
    } = run;

    let mut by_class: BTreeMap<Option<ClassLabel>, ClassRows> = BTreeMap::new();
    for (Image { entry, frame }, Done { sha256, facts, place }) in done {
        let entry = &dataset.entries()[entry];
        let class = metadata.class_of(entry);
        let rows = by_class.entry(class.clone()).or_insert_with(|| ClassRows {
            class,
            records: vec![],
            places: vec![],
        });
        rows.records.push(metadata.record(entry, frame, sha256, facts));
        rows.places.push(place);
    }
    let classes = by_class
        .iter()
        .map(|(class, rows)| (class.clone(), rows.places.len()))
        .collect();
    let by_class: Vec<ClassRows> = by_class.into_values().collect();
    let stale = write_classes(&settings.out, &by_class, &mut parts, (&card, space), &provenance)?;
    broken.sort_by(|a, b| a.file.cmp(&b.file).then(a.frame.cmp(&b.frame)));
    write_broken(settings, &broken)?;
    parts.remove()?;
    Ok(BulkReport {
        images,
        embedded,
        known,
        broken,
        classes,
        unmatched: metadata.unmatched().clone(),
        unread: dataset.unread().len(),
        stale,
    })
}

fn write_broken(settings: &BulkSettings, broken: &[Broken]) -> Result<()> {
    let path = settings.out.join(BROKEN_FILE);
    if !broken.is_empty() {
        return replace(&path, |file| write_json(file, &broken));
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(storage(&path, error)),
        _ => Ok(()),
    }
}

/// A frame of a file of the data set. In their order images are written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Image {
    /// The file's place among the entries.
    entry: usize,
    frame: FrameNumber,
}

/// What a decoding thread has found.
enum Found {
    /// A file has so many images more than the one that every file was counted for.
    More(usize),
    /// An earlier run embedded this image of these very bytes, which have this digest.
    Known(Image, [u8; 32]),
    Ready(Image, Box<Ready>),
    Broken(Image, Error),
}

struct Ready {
    size: u64,
    /// Of the file.
    sha256: [u8; 32],
    input: ModelInput,
    facts: Provenance,
}

/// An image whose vector is in a part.
struct Done {
    /// Of the file.
    sha256: [u8; 32],
    facts: Provenance,
    place: Place,
}

/// The state of a run, owned by the thread that runs the model.
struct Run<'a> {
    dataset: &'a Dataset,
    backend: &'a mut dyn Backend,
    settings: &'a BulkSettings,
    parts: &'a mut Parts,
    progress: Progress,
    /// Decoded, not yet embedded: less than a batch.
    waiting: Vec<(Image, Ready)>,
    part: OpenPart,
    done: BTreeMap<Image, Done>,
    broken: Vec<Broken>,
    images: usize,
    embedded: usize,
    known: usize,
}

/// Embedded, not yet durable.
struct OpenPart {
    /// With the digests of their files.
    images: Vec<(Image, [u8; 32])>,
    rows: Vec<PartRow>,
    vectors: Vec<f32>,
    begun: Instant,
}

impl OpenPart {
    fn new() -> Self {
        Self {
            images: Vec::new(),
            rows: Vec::new(),
            vectors: Vec::new(),
            begun: Instant::now(),
        }
    }
}

impl<'a> Run<'a> {
    fn new(
        dataset: &'a Dataset,
        backend: &'a mut dyn Backend,
        settings: &'a BulkSettings,
        parts: &'a mut Parts,
    ) -> Self {
        let images = dataset.entries().len();
        Self {
            dataset,
            backend,
            settings,
            parts,
            progress: Progress::new(images, Duration::from_secs(settings.progress_seconds)),
            waiting: Vec::new(),
            part: OpenPart::new(),
            done: BTreeMap::new(),
            broken: Vec::new(),
            images,
            embedded: 0,
            known: 0,
        }
    }

    fn embed_all(&mut self, known: &Known, decode: &dyn Decode) -> Result<()> {
        let next = AtomicUsize::new(0);
        let files = Files {
            dataset: self.dataset,
            wanted: self.settings.frames,
            known,
            decode,
        };
        std::thread::scope(|scope| {
            // Bounded: decoders wait for the model, so memory does not grow with the data set.
            let (sender, receiver) = sync_channel(2 * self.settings.batch.max(1));
            for number in 0..self.settings.decode_threads.max(1) {
                let (sender, next, files) = (sender.clone(), &next, &files);
                std::thread::Builder::new()
                    .name(format!("decode-{number}"))
                    .spawn_scoped(scope, move || files.decode_all(next, &sender))
                    .map_err(|error| Error::with_source(ErrorKind::Unavailable, "no thread to decode with", error))?;
            }
            drop(sender);
            // An error drops the receiver, which ends the decoders.
            self.receive(receiver, known)
        })
    }

    fn receive(&mut self, found: Receiver<Found>, known: &Known) -> Result<()> {
        for found in found {
            match found {
                Found::More(images) => {
                    self.images += images;
                    self.progress.more(images);
                }
                Found::Known(image, sha256) => {
                    let file = self.dataset.entries()[image.entry].file.clone();
                    if let Some((row, place)) = known.get(&(file, image.frame)) {
                        let done = Done {
                            sha256,
                            facts: row.facts.clone(),
                            place: *place,
                        };
                        self.done.insert(image, done);
                    }
                    self.known += 1;
                    self.progress.known();
                }
                Found::Broken(image, error) => self.set_aside(image, &error),
                Found::Ready(image, ready) => {
                    self.waiting.push((image, *ready));
                    if self.waiting.len() >= self.settings.batch {
                        self.embed_waiting()?;
                    }
                }
            }
        }
        self.embed_waiting()?;
        self.close_part()?;
        self.progress.finish();
        Ok(())
    }

    fn set_aside(&mut self, Image { entry, frame }: Image, error: &Error) {
        let file = self.dataset.entries()[entry].file.clone();
        self.progress.say(&format!("broken: {}: {error}", frame.named(&file)));
        self.broken.push(Broken {
            file,
            frame,
            kind: error.kind().slug(),
            detail: error.to_string(),
        });
        self.progress.done(1);
    }

    fn embed_waiting(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let (mut inputs, mut rest) = (Vec::new(), Vec::new());
        for (
            image,
            Ready {
                size,
                sha256,
                input,
                facts,
            },
        ) in self.waiting.drain(..)
        {
            inputs.push(input);
            rest.push((image, size, sha256, facts));
        }
        let vectors = self.backend.embed(&inputs)?;
        let dimension = self.backend.card().dimension;
        if vectors.len() != inputs.len() || vectors.iter().any(|vector| vector.len() != dimension) {
            return Err(Error::internal(format!(
                "the model gave other than {} × {dimension} values",
                inputs.len()
            )));
        }
        let before = self.embedded;
        for ((image, size, sha256, facts), vector) in rest.into_iter().zip(vectors) {
            if vector.iter().any(|value| !value.is_finite()) || vector.iter().all(|&value| value == 0.0) {
                let message = "the model gives a vector for it that is zero or not finite";
                self.set_aside(image, &Error::new(ErrorKind::InvalidImage, message));
                continue;
            }
            let file = self.dataset.entries()[image.entry].file.clone();
            self.part.images.push((image, sha256));
            self.part.rows.push(PartRow {
                file,
                frame: image.frame,
                size,
                sha256: hex::encode(sha256),
                facts,
            });
            self.part.vectors.extend_from_slice(&vector);
            self.embedded += 1;
        }
        // At once: the first image of a batch alone would have taken the time of all.
        self.progress.done(self.embedded - before);
        if self.part.images.len() >= self.settings.part_images || self.part.begun.elapsed() >= self.settings.part_time {
            self.close_part()?;
        }
        Ok(())
    }

    /// Makes what is embedded durable.
    fn close_part(&mut self) -> Result<()> {
        let OpenPart {
            images, rows, vectors, ..
        } = std::mem::replace(&mut self.part, OpenPart::new());
        if images.is_empty() {
            return Ok(());
        }
        let facts: Vec<_> = rows.iter().map(|row| row.facts.clone()).collect();
        let places = self.parts.add(rows, &vectors)?;
        for (((image, sha256), facts), place) in images.into_iter().zip(facts).zip(places) {
            self.done.insert(image, Done { sha256, facts, place });
        }
        Ok(())
    }
}

/// What decoding threads share.
struct Files<'a> {
    dataset: &'a Dataset,
    wanted: Frames,
    known: &'a Known,
    decode: &'a dyn Decode,
}

/// Nobody listens any more.
struct Stopped;

impl Files<'_> {
    /// Takes one file after the other until none is left or nobody listens.
    fn decode_all(&self, next: &AtomicUsize, sender: &SyncSender<Found>) {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(entry) = self.dataset.entries().get(place) else {
                return;
            };
            if self.decode_file(place, entry, sender).is_err() {
                return;
            }
        }
    }

    /// Every wanted image of a file, each sent as soon as it is decoded.
    fn decode_file(&self, place: usize, entry: &Entry, sender: &SyncSender<Found>) -> Result<(), Stopped> {
        let send = |found| sender.send(found).map_err(|_| Stopped);
        let image = |frame| Image { entry: place, frame };
        let read = || -> Result<_> {
            let bytes = self.dataset.read(&entry.file)?;
            let frames = self.frames(&bytes)?;
            Ok((bytes, frames))
        };
        let (bytes, frames) = match unharmed(read) {
            Ok(read) => read,
            Err(error) => return send(Found::Broken(image(FrameNumber::FIRST), error)),
        };
        let (size, sha256): (u64, [u8; 32]) = (bytes.len() as u64, Sha256::digest(&bytes).into());
        let in_hex = hex::encode(sha256);
        if frames.len() > 1 {
            send(Found::More(frames.len() - 1))?;
        }
        for frame in frames {
            let known = self.known.get(&(entry.file.clone(), frame));
            if known.is_some_and(|(row, _)| row.size == size && row.sha256 == in_hex) {
                send(Found::Known(image(frame), sha256))?;
                continue;
            }
            send(match unharmed(|| self.decode.decode(&bytes, frame)) {
                Ok((input, facts)) => Found::Ready(
                    image(frame),
                    Box::new(Ready {
                        size,
                        sha256,
                        input,
                        facts,
                    }),
                ),
                Err(error) => Found::Broken(image(frame), error),
            })?;
        }
        Ok(())
    }

    /// The wanted frames of a file, at least one. Who wants the first need not know how many there are.
    fn frames(&self, bytes: &[u8]) -> Result<Vec<FrameNumber>> {
        let frames = match self.wanted.is_first() {
            true => 1,
            false => self.decode.frames(bytes)?,
        };
        Ok(self.wanted.of(frames).collect())
    }
}

/// Whatever a decoder does with a hostile file, it costs one image.
fn unharmed<T>(decode: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::InvalidImage, "the decoder failed on this file")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::RowsProvenance;
    use crate::embed::{ModelCard, ThumbnailBackend};
    use npyz::NpyFile;
    use std::path::Path;

    /// The thumbnail embedder; counts images, and fails before it would run more than it may.
    struct Counting {
        inner: ThumbnailBackend,
        runs: usize,
        may: usize,
    }

    impl Counting {
        fn new(may: usize) -> Self {
            Self {
                inner: ThumbnailBackend::default(),
                runs: 0,
                may,
            }
        }
    }

    impl Backend for Counting {
        fn card(&self) -> &ModelCard {
            self.inner.card()
        }
        fn provenance(&self) -> RowsProvenance {
            self.inner.provenance()
        }
        fn embed(&mut self, inputs: &[ModelInput]) -> Result<Vec<Vec<f32>>> {
            if self.runs + inputs.len() > self.may {
                return Err(Error::new(ErrorKind::Unavailable, "pulled the plug"));
            }
            self.runs += inputs.len();
            self.inner.embed(inputs)
        }
    }

    /// A file is a number, or with commas one a frame; the image is a pattern made of it.
    struct Patterns;

    impl Decode for Patterns {
        fn frames(&self, bytes: &[u8]) -> Result<u32> {
            Ok(1 + bytes.iter().filter(|&&byte| byte == b',').count() as u32)
        }

        fn decode(&self, bytes: &[u8], frame: FrameNumber) -> Result<(ModelInput, Provenance)> {
            pattern(bytes.split(|&byte| byte == b',').nth(frame.index()).unwrap())
        }
    }

    fn pattern(bytes: &[u8]) -> Result<(ModelInput, Provenance)> {
        let text = std::str::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::UnsupportedMedia, "no image"))?;
        if text == "broken" {
            return Err(Error::new(ErrorKind::InvalidImage, "cut off"));
        }
        assert_ne!(text, "panic", "a decoder's bug");
        let seed: usize = text
            .parse()
            .map_err(|_| Error::new(ErrorKind::UnsupportedMedia, "no image"))?;
        let pixels = (0..32 * 32 * 3).map(|i| (i * i * (seed + 1) / 64) as u8).collect();
        let facts = Provenance {
            view: (seed == 3).then(|| "PA".into()),
            ..Provenance::default()
        };
        Ok((
            ModelInput {
                width: 32,
                height: 32,
                pixels: if text == "777" { vec![5; 3072] } else { pixels },
            },
            facts,
        ))
    }

    fn data(files: impl IntoIterator<Item = (String, String)>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, content) in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        dir
    }

    fn fifty() -> tempfile::TempDir {
        let class = |i: usize| {
            if i.is_multiple_of(3) {
                "Viral Pneumonia/images"
            } else {
                "COVID"
            }
        };
        data((0..50).map(|i| (format!("{}/{i}.png", class(i)), i.to_string())))
    }

    fn settings(out: &Path) -> BulkSettings {
        BulkSettings {
            batch: 4,
            decode_threads: 3,
            part_images: 8,
            // However slow the machine is.
            part_time: Duration::from_secs(3600),
            ..BulkSettings::new(out.to_owned())
        }
    }

    fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
        let items = std::fs::read_dir(dir).unwrap().map(|item| item.unwrap());
        items
            .map(|item| {
                (
                    item.file_name().into_string().unwrap(),
                    std::fs::read(item.path()).unwrap(),
                )
            })
            .collect()
    }

    fn matrix(bytes: &[u8]) -> (Vec<u64>, Vec<f32>) {
        let npy = NpyFile::new(bytes).unwrap();
        (npy.shape().to_vec(), npy.into_vec().unwrap())
    }

    #[test]
    fn vectors_and_records_belong_together() {
        let (data, out) = (fifty(), tempfile::tempdir().unwrap());
        let dataset = Dataset::open(data.path()).unwrap();
        let report = run(&dataset, &mut Counting::new(50), &Patterns, &settings(out.path())).unwrap();
        assert_eq!(
            (report.images, report.embedded, report.known, report.broken.len()),
            (50, 50, 0, 0)
        );
        let written = files(out.path());
        let names: Vec<_> = written.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["COVID.json", "COVID.npy", "Viral Pneumonia.json", "Viral Pneumonia.npy"]
        );
        for (class, count) in [("COVID", 33u64), ("Viral Pneumonia", 17)] {
            let (shape, values) = matrix(&written[&format!("{class}.npy")]);
            assert_eq!(shape, [count, 1024]);
            let json: serde_json::Value = serde_json::from_slice(&written[&format!("{class}.json")]).unwrap();
            assert_eq!(json["class"], class);
            assert_eq!(json["space"]["id"], ModelCard::thumbnail().space_id.to_string());
            assert_eq!(json["provenance"]["model"], "thumbnail");
            let records = json["records"].as_array().unwrap();
            assert!(records.iter().map(|r| r["file"].as_str().unwrap()).is_sorted());
            for (row, record) in records.iter().enumerate() {
                let content = std::fs::read(data.path().join(record["file"].as_str().unwrap())).unwrap();
                assert_eq!(record["sha256"], hex::encode(Sha256::digest(&content)));
                assert_eq!(record["view"].as_str(), (content == b"3").then_some("PA"));
                assert_eq!(record["label_source"], "folder");
                let (input, _) = pattern(&content).unwrap();
                let expected = ThumbnailBackend::default().embed(&[input]).unwrap().remove(0);
                assert_eq!(&values[row * 1024..(row + 1) * 1024], expected);
            }
        }
    }

    #[test]
    fn a_stopped_run_goes_on_where_it_was() {
        let (data, whole, halves) = (fifty(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dataset = Dataset::open(data.path()).unwrap();
        run(&dataset, &mut Counting::new(50), &Patterns, &settings(whole.path())).unwrap();

        let settings = settings(halves.path());
        let stopped = run(&dataset, &mut Counting::new(30), &Patterns, &settings).unwrap_err();
        assert_eq!(stopped.kind(), ErrorKind::Unavailable);
        let names: Vec<_> = std::fs::read_dir(halves.path())
            .unwrap()
            .map(|item| item.unwrap().file_name())
            .collect();
        assert_eq!(names, [".partial"], "no final file yet");
        let mut backend = Counting::new(50);
        let report = run(&dataset, &mut backend, &Patterns, &settings).unwrap();
        // 28 were embedded, three parts of eight were durable.
        assert_eq!((report.known, report.embedded, backend.runs), (24, 26, 26));
        assert_eq!(files(whole.path()), files(halves.path()));
    }

    #[test]
    fn a_changed_file_is_embedded_again() {
        let (data, out) = (fifty(), tempfile::tempdir().unwrap());
        let dataset = Dataset::open(data.path()).unwrap();
        run(&dataset, &mut Counting::new(44), &Patterns, &settings(out.path())).unwrap_err();
        let known = ["COVID/1.png", "COVID/10.png"];
        for file in known {
            std::fs::write(data.path().join(file), "7").unwrap();
        }
        let report = run(&dataset, &mut Counting::new(50), &Patterns, &settings(out.path())).unwrap();
        assert_eq!((report.known, report.embedded), (38, 12));
        let fresh = BulkSettings {
            resume: false,
            ..settings(out.path())
        };
        assert_eq!(
            run(&dataset, &mut Counting::new(50), &Patterns, &fresh)
                .unwrap()
                .embedded,
            50
        );
    }

    #[test]
    fn broken_images_cost_only_themselves() {
        let content = |i: usize| match i {
            4 => "broken".into(),
            5 => "panic".into(),
            6 => "plain text".into(),
            7 => "777".into(),
            _ => i.to_string(),
        };
        let data = data((0..12).map(|i| (format!("{}{i:02}.png", if i < 9 { "COVID/" } else { "" }), content(i))));
        let out = tempfile::tempdir().unwrap();
        std::fs::write(out.path().join("Old.npy"), b"").unwrap();
        let dataset = Dataset::open(data.path()).unwrap();
        let report = run(&dataset, &mut Counting::new(50), &Patterns, &settings(out.path())).unwrap();
        let broken: Vec<_> = report.broken.iter().map(|b| (b.file.as_str(), b.kind)).collect();
        let expected = [
            ("04", "invalid-image"),
            ("05", "invalid-image"),
            ("06", "unsupported-media"),
            ("07", "invalid-image"),
        ];
        assert_eq!(
            broken,
            expected.map(|(n, kind)| (format!("COVID/{n}.png").leak() as &str, kind))
        );
        assert_eq!(report.stale, ["Old.npy"]);
        let classes: Vec<_> = report
            .classes
            .iter()
            .map(|(c, n)| (c.as_ref().map(ToString::to_string), *n))
            .collect();
        assert_eq!(classes, [(None, 3), (Some("COVID".into()), 5)]);
        let written = files(out.path());
        let listed: serde_json::Value = serde_json::from_slice(&written["_broken.json"]).unwrap();
        assert_eq!(
            listed[0],
            serde_json::json!({"file": "COVID/04.png", "type": "invalid-image", "detail": "cut off"})
        );
        assert_eq!(matrix(&written["_unlabelled.npy"]).0, [3, 1024]);
        let unlabelled: serde_json::Value = serde_json::from_slice(&written["_unlabelled.json"]).unwrap();
        assert!(unlabelled["class"].is_null() && unlabelled["records"][0].get("label_source").is_none());

        for i in 4..8 {
            std::fs::write(data.path().join(format!("COVID/{i:02}.png")), i.to_string()).unwrap();
        }
        let report = run(&dataset, &mut Counting::new(50), &Patterns, &settings(out.path())).unwrap();
        assert!(report.broken.is_empty() && !files(out.path()).contains_key("_broken.json"));
    }

    /// Twelve files, of which every third has five frames: 12 numbers, or 28.
    fn with_frames() -> tempfile::TempDir {
        let content = |i: usize| match i % 3 {
            0 => (0..5)
                .map(|frame| (100 * i + frame).to_string())
                .collect::<Vec<_>>()
                .join(","),
            _ => i.to_string(),
        };
        data((0..12).map(|i| (format!("COVID/{i:02}.dcm"), content(i))))
    }

    fn with(frames: Frames, out: &Path) -> BulkSettings {
        BulkSettings {
            frames,
            ..settings(out)
        }
    }

    /// File, frame and number of every record, which has the number's vector.
    fn images(data: &Path, out: &Path) -> Vec<(String, u64, String)> {
        let written = files(out);
        let (_, values) = matrix(&written["COVID.npy"]);
        let json: serde_json::Value = serde_json::from_slice(&written["COVID.json"]).unwrap();
        let records = json["records"].as_array().unwrap();
        let mut ids: Vec<_> = records.iter().map(|record| record["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), records.len(), "each has a name of its own");
        let image = |(record, vector): (&serde_json::Value, &[f32])| {
            let file = record["file"].as_str().unwrap();
            let content = std::fs::read_to_string(data.join(file)).unwrap();
            assert_eq!(record["sha256"], hex::encode(Sha256::digest(&content)));
            let frame = record.get("frame").map_or(1, |frame| frame.as_u64().unwrap());
            let number = content.split(',').nth(frame as usize - 1).unwrap();
            let (input, _) = pattern(number.as_bytes()).unwrap();
            assert_eq!(ThumbnailBackend::default().embed(&[input]).unwrap().remove(0), vector);
            (file.to_owned(), frame, number.to_owned())
        };
        records.iter().zip(values.chunks(1024)).map(image).collect()
    }

    #[test]
    fn frames_become_images_as_wanted() {
        let data = with_frames();
        let dataset = Dataset::open(data.path()).unwrap();
        let rows = [
            (Frames::First, 12, &[1][..]),
            (Frames::Middle, 12, &[3]),
            (Frames::All, 28, &[1, 2, 3, 4, 5]),
        ];
        for (frames, count, of_the_first) in rows {
            let out = tempfile::tempdir().unwrap();
            let report = run(&dataset, &mut Counting::new(50), &Patterns, &with(frames, out.path())).unwrap();
            assert_eq!((report.images, report.embedded), (count, count));
            let images = images(data.path(), out.path());
            assert_eq!(images.len(), count);
            assert!(images.is_sorted_by_key(|(file, frame, _)| (file.clone(), *frame)));
            let first = images.iter().filter(|(file, ..)| file == "COVID/00.dcm");
            let first: Vec<u64> = first.map(|(_, frame, _)| *frame).collect();
            assert_eq!(first, of_the_first, "{frames:?}");
        }
    }

    #[test]
    fn a_stopped_run_goes_on_in_the_middle_of_a_file() {
        let (data, whole, halves) = (
            with_frames(),
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
        );
        let dataset = Dataset::open(data.path()).unwrap();
        let all = |out: &Path| with(Frames::All, out);
        run(&dataset, &mut Counting::new(50), &Patterns, &all(whole.path())).unwrap();
        run(&dataset, &mut Counting::new(11), &Patterns, &all(halves.path())).unwrap_err();
        let mut backend = Counting::new(50);
        let report = run(&dataset, &mut backend, &Patterns, &all(halves.path())).unwrap();
        // Eight were embedded, one part of eight was durable.
        assert_eq!((report.images, report.known, backend.runs), (28, 8, 20));
        assert_eq!(files(whole.path()), files(halves.path()));
    }

    #[test]
    fn a_broken_frame_costs_only_itself() {
        let data = data([("A/1.dcm".to_owned(), "1,broken,3,panic".to_owned())]);
        let out = tempfile::tempdir().unwrap();
        let dataset = Dataset::open(data.path()).unwrap();
        let report = run(
            &dataset,
            &mut Counting::new(50),
            &Patterns,
            &with(Frames::All, out.path()),
        )
        .unwrap();
        assert_eq!((report.images, report.embedded), (4, 2));
        let broken: serde_json::Value = serde_json::from_slice(&files(out.path())["_broken.json"]).unwrap();
        let which = |one: &serde_json::Value| (one["file"].as_str() == Some("A/1.dcm"), one["frame"].as_u64());
        let broken: Vec<_> = broken.as_array().unwrap().iter().map(which).collect();
        assert_eq!(broken, [(true, Some(2)), (true, Some(4))]);
    }

    #[test]
    fn two_runs_do_not_share_a_folder() {
        let (data, out) = (fifty(), tempfile::tempdir().unwrap());
        let dataset = Dataset::open(data.path()).unwrap();
        let _held = Parts::open(out.path(), "other", 1024, true).unwrap();
        let error = run(&dataset, &mut Counting::new(50), &Patterns, &settings(out.path())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
}
