//! `medsearch embed`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::EXIT_PARTIAL;
use super::index::decoder;
use crate::domain::{FrameNumber, Frames, WindowTable};
use crate::embed::load_backend;
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{Decoder, ModelInput, Pipeline, Provenance};
use crate::ingest::Dataset;
use crate::ingest::bulk::{self, BulkSettings, Decode};
use crate::search::prepare;

/// Longest table of windows, in bytes.
const WINDOWS_BYTES_MAX: u64 = 64 << 10;

/// Turn a folder (or zip) of images into vectors: one `.npy` and one `.json` a class.
///
/// Reads `DIR/<CLASS>/…` and `DIR/<CLASS>/images/…`, the COVID-19 Radiography Database as it is downloaded (zip, outer or inner folder),
/// PNG, JPEG and DICOM. Killed at any moment, it goes on where it was when it is started again; a run that came to its end is not gone on from, so that
/// everything is embedded again.
#[derive(Args)]
#[command(after_help = super::EXIT_CODES)]
pub struct Embed {
    /// Folder or zip with one folder a class.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Folder with `model.pt` and `model.json`, or `thumbnail` for the 32x32 grey embedder.
    #[arg(long, value_name = "DIR", env = "MEDSEARCH_MODEL")]
    model: PathBuf,
    /// Which frames of a DICOM file of several become images: `first`, `middle`, `all` (each for itself), or a number: that one, of a file with fewer the last.
    #[arg(long, value_name = "WHICH", default_value_t, env = "MEDSEARCH_FRAMES")]
    frames: Frames,
    /// Which windows DICOM images get, by modality and body part, for example `[{"modality": "CT", "body_part": "CHEST", "center": -600, "width": 1500},
    /// {"modality": "CR", "use": "file"}]`; all others are windowed by percentile. It belongs to the vectors and to the archive that they become.
    #[arg(long, value_name = "FILE")]
    windows: Option<PathBuf>,
    /// Where the model runs: `auto`, `cpu` or `cuda:N`.
    #[arg(long, default_value = "auto", env = "MEDSEARCH_DEVICE")]
    device: String,
    /// Images in one call of the model.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    /// Threads that read and decode. Default: the number of processors.
    #[arg(long, env = "MEDSEARCH_DECODE_THREADS")]
    decode_threads: Option<usize>,
    /// Embed everything again instead of going on from a run that was interrupted.
    #[arg(long)]
    fresh: bool,
    /// Seconds between progress lines when standard error is no terminal.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    progress_seconds: u64,
}

/// Files to a model's input.
struct Files {
    decoder: Decoder,
    pipeline: Pipeline,
}

impl Decode for Files {
    fn frames(&self, bytes: &[u8]) -> Result<u32> {
        self.decoder.frames(bytes)
    }

    fn decode(&self, bytes: &[u8], frame: FrameNumber) -> Result<(ModelInput, Provenance)> {
        let prepared = prepare(&self.decoder, &self.pipeline, bytes, frame.into())?;
        Ok((prepared.input, prepared.picture.provenance))
    }
}

impl Embed {
    /// Exit code 3 when images were left out.
    pub fn run(self) -> Result<ExitCode> {
        let windows = self
            .windows
            .as_deref()
            .map(read_windows)
            .transpose()?
            .unwrap_or_default();
        let dataset = Dataset::open(&self.data)?;
        let mut backend = load_backend(model_dir(&self.model), &self.device)?;
        let threads = self.decode_threads.unwrap_or_else(super::processors);
        let files = Files {
            decoder: decoder(threads),
            pipeline: Pipeline {
                input: backend.card().input(),
                windows: windows.clone(),
            },
        };
        let settings = BulkSettings {
            batch: self.batch.into(),
            decode_threads: threads,
            frames: self.frames,
            windows,
            resume: !self.fresh,
            progress_seconds: self.progress_seconds,
            ..BulkSettings::new(self.out.clone())
        };
        let report = bulk::run(&dataset, backend.as_mut(), &files, &settings)?;
        eprintln!(
            "{} of {} images embedded, {} known from an interrupted run, {} broken; written to {}",
            report.embedded,
            report.images,
            report.known,
            report.broken.len(),
            self.out.display()
        );
        for (class, images) in &report.classes {
            eprintln!(
                "  {images:>7}  {}",
                class.as_ref().map_or("(no label)", |class| class.as_str())
            );
        }
        for (document, rows) in &report.unmatched {
            eprintln!("{document}: {rows} rows name no image of the data set");
        }
        if report.unread > 0 {
            eprintln!(
                "{} files lie too deep to belong to a class and were not read",
                report.unread
            );
        }
        for file in &report.stale {
            eprintln!("{file} is of an earlier run over other data and was left alone");
        }
        Ok(if report.broken.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_PARTIAL)
        })
    }
}

/// A table of windows.
fn read_windows(path: &Path) -> Result<WindowTable> {
    let shown = path.display();
    let unreadable = |error| Error::with_source(ErrorKind::InvalidRequest, format!("`{shown}` can't be read"), error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(WINDOWS_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > WINDOWS_BYTES_MAX {
        let message = format!("`{shown}` has more than `{WINDOWS_BYTES_MAX}` bytes, which no table of windows has");
        return Err(Error::new(ErrorKind::InvalidRequest, message));
    }
    WindowTable::from_json(&bytes).map_err(|error| error.context(shown))
}

/// The folder of a model; none for the embedder that needs none.
pub(super) fn model_dir(model: &Path) -> Option<&Path> {
    (model.as_os_str() != "thumbnail").then_some(model)
}
