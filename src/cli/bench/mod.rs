//! `medsearch bench`: both ways of embedding, every stage of a query, and each stage alone, in one run on one machine.

mod alone;
mod client;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use self::alone::{Alone, Stages};
use self::client::{Asked, Client};
use super::settings::ArchiveArgs;
use crate::app::{App, Settings};
use crate::domain::Excerpt;
use crate::embed::{ModelCard, load_backend};
use crate::error::{Error, ErrorKind, Result};
use crate::ingest::Dataset;
use crate::search;

/// Measure embedding and searching, stage by stage.
///
/// All figures of one run belong together: compare them with each other, not with those of another machine or day.
#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Folder or zip of images to embed and to ask with.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder of the model.
    #[arg(long, value_name = "DIR", env = "MEDSEARCH_MODEL")]
    model: PathBuf,
    /// A Python interpreter with the packages of requirements.txt: the Python way is measured beside the Rust way.
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// The script that is the Python way.
    #[arg(long, value_name = "FILE", default_value = "scripts/calculate_embeddings.py")]
    script: PathBuf,
    /// Queries for the latency figures.
    #[arg(long, default_value_t = 200)]
    queries: usize,
    /// Runs of each way of embedding, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    images: usize,
    /// Broken images, named on standard error, that no query was made of.
    left_out: usize,
    processors: usize,
    embed: EmbedReport,
    query: QueryReport,
}

/// Whole processes, start and model loading included, over the same files.
#[derive(Serialize)]
struct EmbedReport {
    rust_images_per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    python_images_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rust_over_python: Option<f64>,
}

#[derive(Serialize)]
struct Quantiles {
    p50_ms: f64,
    p99_ms: f64,
}

/// One client, one query after the other, over one HTTP connection on loopback.
#[derive(Serialize)]
struct QueryReport {
    queries: usize,
    stages: BTreeMap<&'static str, Quantiles>,
    /// From the request's head to the answer's, body read and JSON written, as the header `Server-Timing` says.
    server: Quantiles,
    /// From the first byte sent to the last byte received.
    client: Quantiles,
    /// Share of the client's time that is not spent in the model.
    not_model_share: f64,
    /// Medians of the same stages without a server, one image after the other on one thread.
    alone: StagesReport,
    /// The same with the model called in between.
    alone_around_model: StagesReport,
    /// Everything but the model / the same stages alone: (client - model) / (decode + preprocess + exact search), each in a loop of its own with
    /// all that it needs in the cache, turn by turn.
    overhead_ratio: Spread,
    /// What we hold that to.
    overhead_ratio_max: f64,
    /// The same of the server's time.
    overhead_ratio_server: Spread,
    /// Both against what the stages take with the model called in between, which empties the cache: as a query finds them.
    overhead_ratio_around_model: Spread,
    overhead_ratio_server_around_model: Spread,
}

/// Normalisation is part of the exported network and so of the model's time. What was not measured is null.
#[derive(Serialize)]
struct StagesReport {
    decode_ms: f64,
    preprocess_ms: f64,
    model_ms: f64,
    exact_search_ms: f64,
}

/// Of the medians of all turns.
#[derive(Serialize)]
struct Spread {
    p50: f64,
    p10: f64,
    p90: f64,
}

impl Spread {
    fn of_ratios(these: &[f64], to_those: &[f64]) -> Self {
        let ratios: Vec<f64> = these.iter().zip(to_those).map(|(this, that)| this / that).collect();
        let at = |share| round(quantile(&ratios, share));
        Self {
            p50: at(0.5),
            p10: at(0.1),
            p90: at(0.9),
        }
    }
}

impl Bench {
    /// Prints one JSON object.
    pub fn run(self) -> Result<ExitCode> {
        let (images, left_out) = self.read_images()?;
        let report = Report {
            left_out,
            images: Dataset::open(&self.data)?.entries().len(),
            processors: super::processors(),
            embed: self.embed()?,
            query: self.query(&images)?,
        };
        let text = serde_json::to_string_pretty(&report)
            .map_err(|error| Error::internal(format!("the report can't be written: {error}")))?;
        println!("{text}");
        if let Some(path) = &self.json {
            std::fs::write(path, text + "\n")
                .map_err(|error| Error::with_source(ErrorKind::Internal, "the report can't be written", error))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Images to ask with, and how many were met that can't be used.
    fn read_images(&self) -> Result<(Vec<Vec<u8>>, usize)> {
        let dataset = Dataset::open(&self.data)?;
        let decoder = super::index::decoder(1);
        let pipeline = ModelCard::load(&self.model)?.input().into();
        let (mut images, mut left_out) = (Vec::new(), 0);
        for entry in dataset.entries() {
            let usable = dataset.read(&entry.file).and_then(|bytes| {
                search::prepare(&decoder, &pipeline, &bytes, Excerpt::default())?;
                Ok(bytes)
            });
            match usable {
                Ok(bytes) => images.push(bytes),
                Err(error) => {
                    eprintln!("left out: {}: {error}", entry.file);
                    left_out += 1;
                }
            }
            if images.len() >= self.queries.max(1) {
                break;
            }
        }
        if images.is_empty() {
            let message = format!("`{}` holds no images that can be used", self.data.display());
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        Ok((images, left_out))
    }

    /// Both ways in turn, so that a slow minute of the machine hits both; medians.
    fn embed(&self) -> Result<EmbedReport> {
        let images = Dataset::open(&self.data)?.entries().len() as f64;
        let program = std::env::current_exe()
            .map_err(|error| Error::with_source(ErrorKind::Internal, "the program's own path is unknown", error))?;
        let (mut rust, mut python) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds.max(1) {
            let mut command = Command::new(&program);
            command.arg("embed");
            rust.push(self.timed(command)?);
            if let Some(interpreter) = &self.python {
                let mut command = Command::new(interpreter);
                command.arg(&self.script);
                python.push(self.timed(command)?);
            }
        }
        let rust = images / median(&rust);
        let python = (!python.is_empty()).then(|| images / median(&python));
        Ok(EmbedReport {
            rust_images_per_s: round(rust),
            python_images_per_s: python.map(round),
            rust_over_python: python.map(|python| round(rust / python)),
        })
    }

    fn timed(&self, mut command: Command) -> Result<f64> {
        let out = tempfile::tempdir()
            .map_err(|error| Error::with_source(ErrorKind::Internal, "no temporary folder", error))?;
        command
            .arg("--data")
            .arg(&self.data)
            .arg("--out")
            .arg(out.path())
            .arg("--model")
            .arg(&self.model);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        let status = command.status().map_err(|error| {
            Error::with_source(
                ErrorKind::Unavailable,
                "one of the ways of embedding can't be started",
                error,
            )
        })?;
        // 3: some images were left out, by both ways alike.
        if !matches!(status.code(), Some(0 | 3)) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("one of the ways of embedding ended with {status}"),
            ));
        }
        Ok(started.elapsed().as_secs_f64())
    }

    /// The server and the stages alone in the cache take turns, so that a slow minute of the machine hits both. The stages with the model come
    /// before and after: of two threads that call a model libtorch makes one slow.
    fn query(&self, images: &[Vec<u8>]) -> Result<QueryReport> {
        let settings = Settings {
            model: Some(self.model.clone()),
            cache: self.archive.cache.settings(),
            ..Settings::local(&self.archive.archive, self.archive.secret()?)
        };
        let device = settings.device.clone();
        let mut alone = Alone::new(images, &settings, &self.model)?;
        let turns = self.queries.div_ceil(QUERIES_PER_TURN);
        let mut around_model = self.around_model(&mut alone, &device, turns.div_ceil(2))?;
        let (started, ready) = std::sync::mpsc::channel();
        let server = std::thread::spawn(move || {
            App::run(settings, |address, stop| {
                // The receiver is gone only when the bench itself has ended.
                let _ = started.send((address, stop));
            })
        });
        let (address, stop) = ready
            .recv()
            .map_err(|_| Error::new(ErrorKind::Unavailable, "the server did not start"))?;
        let mut client = Client::open(address, images)?;
        let (mut turns_asked, mut turns_alone) = (Vec::new(), Vec::new());
        for _ in 0..turns {
            turns_asked.push(client.turn()?);
            turns_alone.push(alone.turn(None)?);
        }
        stop.stop();
        let _ = server.join();
        around_model.extend(self.around_model(&mut alone, &device, turns.div_ceil(2))?);

        let alone_ms: Vec<f64> = turns_alone.iter().map(Stages::rest_ms).collect();
        let around_model_ms = vec![around_model.rest_ms(); turns];
        let (mut client_rest, mut server_rest) = (Vec::new(), Vec::new());
        for turn in &turns_asked {
            client_rest.push(median(&turn.client_rest));
            server_rest.push(median(&turn.server_rest));
        }
        let asked = Asked::joined(turns_asked);
        Ok(QueryReport {
            queries: asked.client.len(),
            not_model_share: round(median(&asked.client_rest) / median(&asked.client)),
            overhead_ratio: Spread::of_ratios(&client_rest, &alone_ms),
            overhead_ratio_max: OVERHEAD_RATIO_MAX,
            overhead_ratio_server: Spread::of_ratios(&server_rest, &alone_ms),
            overhead_ratio_around_model: Spread::of_ratios(&client_rest, &around_model_ms),
            overhead_ratio_server_around_model: Spread::of_ratios(&server_rest, &around_model_ms),
            stages: asked
                .stages
                .into_iter()
                .map(|(stage, values)| (stage, quantiles(values)))
                .collect(),
            server: quantiles(asked.server),
            client: quantiles(asked.client),
            alone: Stages::joined(turns_alone).report(),
            alone_around_model: around_model.report(),
        })
    }

    /// On a thread that ends: libtorch's helpers stay with the thread that called the model and would take the server's processors.
    fn around_model(&self, alone: &mut Alone, device: &str, turns: usize) -> Result<Stages> {
        let work = || {
            let mut backend = load_backend(Some(self.model.as_path()), device)?;
            backend.warm_up()?;
            let mut stages = Stages::default();
            for _ in 0..turns {
                stages.extend(alone.turn(Some(backend.as_mut()))?);
            }
            Ok(stages)
        };
        std::thread::scope(|scope| scope.spawn(work).join())
            .map_err(|_| Error::internal("the stages alone panicked"))?
    }
}

/// Everything but the model may cost half as much again as the same stages alone.
const OVERHEAD_RATIO_MAX: f64 = 1.5;
/// Queries in one turn of the server, images in one turn of the stages called directly.
const QUERIES_PER_TURN: usize = 50;
/// How many come before the counting, in every turn: whoever's turn it is has the caches for itself.
const WARM_UP: usize = 5;

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

fn quantile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    values.get((last * share).round() as usize).copied().unwrap_or(f64::NAN)
}

fn quantiles(values: Vec<f64>) -> Quantiles {
    Quantiles {
        p50_ms: round(quantile(&values, 0.5)),
        p99_ms: round(quantile(&values, 0.99)),
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
