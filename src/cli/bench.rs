//! `medsearch bench`: both ways of embedding, every stage of a query, and each stage alone, in one run on one machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::settings::ArchiveArgs;
use crate::app::{App, Settings, decoder_settings};
use crate::archive::Archive;
use crate::domain::{Ask, ImageId, Query};
use crate::embed::{ModelCard, load_backend};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{Decoder, preprocess, to_eight_bit};
use crate::index::IndexSettings;
use crate::ingest::Dataset;
use crate::search::{self, Served};

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
    stages: std::collections::BTreeMap<&'static str, Quantiles>,
    /// From the first byte sent to the last byte received.
    client: Quantiles,
    /// Share of the client's time that is not spent in the model.
    not_model_share: f64,
    /// Medians of the same work done alone, in a loop on one thread: each stage after itself, everything it needs in the cache.
    alone: Alone,
    /// (client - model) / (decode + preprocess + exact search alone): 1.5 is the bound we hold ourselves to.
    overhead_ratio: f64,
    /// Medians of the same work done by hand, one image after the other on one thread, the model in between: what a script without a server would
    /// take. The model leaves nothing in the cache.
    by_hand: Alone,
    /// The ratio to that.
    overhead_ratio_by_hand: f64,
}

/// Normalisation is part of the exported network and so of the model's time.
#[derive(Serialize)]
struct Alone {
    decode_ms: f64,
    preprocess_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_ms: Option<f64>,
    exact_search_ms: f64,
}

impl Alone {
    /// Everything but the model.
    fn rest_ms(&self) -> f64 {
        self.decode_ms + self.preprocess_ms + self.exact_search_ms
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
        let input = ModelCard::load(&self.model)?.input();
        let (mut images, mut left_out) = (Vec::new(), 0);
        for entry in dataset.entries() {
            let usable = dataset.read(&entry.file).and_then(|bytes| {
                search::prepare(&decoder, &input, &bytes, None)?;
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
        let rust = images / median(&mut rust);
        let python = (!python.is_empty()).then(|| images / median(&mut python));
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

    fn query(&self, images: &[Vec<u8>]) -> Result<QueryReport> {
        let secret = self.archive.secret()?;
        let settings = || Settings {
            model: Some(self.model.clone()),
            ..Settings::local(&self.archive.archive, secret.clone())
        };
        let alone = self.alone(images, &settings(), false)?;
        // On a thread that ends: libtorch's helpers stay with the thread that called the model and would take the server's processors.
        let by_hand = std::thread::scope(|scope| scope.spawn(|| self.alone(images, &settings(), true)).join())
            .map_err(|_| Error::internal("the stages by hand panicked"))??;
        let (started, ready) = std::sync::mpsc::channel();
        let server_settings = settings();
        let server = std::thread::spawn(move || {
            App::run(server_settings, |address, stop| {
                // The receiver is gone only when the bench itself has ended.
                let _ = started.send((address, stop));
            })
        });
        let (address, stop) = ready
            .recv()
            .map_err(|_| Error::new(ErrorKind::Unavailable, "the server did not start"))?;
        let mut client = Vec::new();
        let mut stages: std::collections::BTreeMap<&'static str, Vec<f64>> = Default::default();
        let mut connection = Connection::open(address)?;
        for (turn, image) in images.iter().cycle().take(self.queries + WARM_UP).enumerate() {
            let request = connection.search_request(image);
            let begun = Instant::now();
            let answer = connection.ask(&request)?;
            let elapsed = begun.elapsed().as_secs_f64() * 1000.0;
            if turn >= WARM_UP {
                client.push(elapsed);
                let answer: Value = serde_json::from_slice(&answer)
                    .map_err(|error| Error::with_source(ErrorKind::Internal, "an answer is not JSON", error))?;
                for stage in STAGES {
                    let value = answer["timings_ms"][stage].as_f64().unwrap_or(f64::NAN);
                    stages.entry(stage).or_default().push(value);
                }
            }
        }
        stop.stop();
        let _ = server.join();
        let model: Vec<f64> = stages.get("model").cloned().unwrap_or_default();
        let mut rest: Vec<f64> = client.iter().zip(&model).map(|(all, model)| all - model).collect();
        let rest = median(&mut rest);
        let not_model_share = rest / median(&mut client.clone());
        Ok(QueryReport {
            queries: client.len(),
            stages: stages
                .into_iter()
                .map(|(stage, values)| (stage, quantiles(values)))
                .collect(),
            client: quantiles(client),
            not_model_share: round(not_model_share),
            overhead_ratio: round(rest / alone.rest_ms()),
            alone,
            overhead_ratio_by_hand: round(rest / by_hand.rest_ms()),
            by_hand,
        })
    }

    /// The same stages called directly: no queue, no HTTP, no second thread but the model's own.
    fn alone(&self, images: &[Vec<u8>], settings: &Settings, with_model: bool) -> Result<Alone> {
        let version = super::block_on(async {
            let archive = Archive::open(&settings.archive, settings.secret.clone()).await?;
            Ok(Served::open(archive, IndexSettings::default()).await?.current())
        })?;
        let input = ModelCard::load(&self.model)?.input();
        let mut backend = if with_model {
            let mut backend = load_backend(Some(self.model.as_path()), &settings.device)?;
            backend.warm_up()?;
            Some(backend)
        } else {
            None
        };
        let decoder = Decoder::new(decoder_settings(settings));
        let ids: Vec<ImageId> = version.state.live().map(|spot| version.state.at(spot).id).collect();
        let (mut decode, mut resize, mut model, mut search) = (vec![], vec![], vec![], vec![]);
        for turn in 0..self.queries + WARM_UP {
            let image = &images[turn % images.len()];
            let begun = Instant::now();
            let decoded = decoder.decode(image)?;
            let (raster8, _) = to_eight_bit(&decoded.raster)?;
            decode.push(begun.elapsed().as_secs_f64() * 1000.0);
            let begun = Instant::now();
            let model_input = std::hint::black_box(preprocess(&raster8, &input, None)?);
            resize.push(begun.elapsed().as_secs_f64() * 1000.0);
            if let Some(backend) = &mut backend {
                let begun = Instant::now();
                std::hint::black_box(backend.embed(&[model_input])?);
                model.push(begun.elapsed().as_secs_f64() * 1000.0);
            }
            let found = version.snapshot.get(ids[turn % ids.len()]);
            let (_, embedding) = found.ok_or_else(|| Error::internal("an id of the version is not in its index"))?;
            let query = Query::of(embedding);
            let ask = Ask {
                exact: true,
                ..Ask::default()
            };
            let begun = Instant::now();
            std::hint::black_box(search::local::search(&version.snapshot, &query, &ask)?);
            search.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(Alone {
            decode_ms: round(median(&mut decode)),
            preprocess_ms: round(median(&mut resize)),
            model_ms: with_model.then(|| round(median(&mut model))),
            exact_search_ms: round(median(&mut search)),
        })
    }
}

/// Queries before counting begins.
const WARM_UP: usize = 20;
const STAGES: [&str; 6] = ["decode", "preprocess", "queue", "model", "search", "total"];

/// An HTTP client that costs next to nothing: one connection, requests written beforehand, answers not read beyond their length.
struct Connection {
    address: SocketAddr,
    stream: TcpStream,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(failed)?;
        Ok(Self { address, stream })
    }

    /// `POST /v1/search` with one image, head and body.
    fn search_request(&self, image: &[u8]) -> Vec<u8> {
        let before = "--medsearch\r\nContent-Disposition: form-data; name=\"image\"; filename=\"q\"\r\n\r\n";
        let after = "\r\n--medsearch--\r\n";
        let head = format!(
            "POST /v1/search HTTP/1.1\r\nHost: {}\r\nContent-Type: multipart/form-data; boundary=medsearch\r\nContent-Length: {}\r\n\r\n",
            self.address,
            before.len() + image.len() + after.len()
        );
        [head.as_bytes(), before.as_bytes(), image, after.as_bytes()].concat()
    }

    /// The body of the answer, which has to be a 200 of known length.
    fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        self.stream.write_all(request).map_err(failed)?;
        let mut answer = Vec::with_capacity(1 << 16);
        let mut piece = [0; 1 << 14];
        let (body_at, length) = loop {
            match self.stream.read(&mut piece).map_err(failed)? {
                0 => return Err(Error::new(ErrorKind::Unavailable, "the server hung up")),
                read => answer.extend_from_slice(&piece[..read]),
            }
            if let Some(head_end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                break (head_end + 4, body_length(&answer[..head_end])?);
            }
        };
        let already = answer.len();
        answer.resize(body_at + length, 0);
        if already < answer.len() {
            self.stream.read_exact(&mut answer[already..]).map_err(failed)?;
        }
        Ok(answer.split_off(body_at))
    }
}

fn body_length(head: &[u8]) -> Result<usize> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    if !head.starts_with("http/1.1 200 ") {
        return Err(Error::new(ErrorKind::Unavailable, "a query was not answered with 200"));
    }
    head.lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .ok_or_else(|| Error::internal("an answer of unknown length"))
}

fn failed(error: std::io::Error) -> Error {
    Error::with_source(ErrorKind::Unavailable, "a query failed", error)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn quantiles(mut values: Vec<f64>) -> Quantiles {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        values
            .get(((values.len() - 1) as f64 * share).round() as usize)
            .copied()
            .unwrap_or(f64::NAN)
    };
    Quantiles {
        p50_ms: round(at(0.5)),
        p99_ms: round(at(0.99)),
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
