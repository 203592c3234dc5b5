//! `medsearch bench`: both ways of embedding, every stage of a query, and each stage alone, in one run on one machine.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::settings::ArchiveArgs;
use crate::app::{App, Settings, decoder_settings};
use crate::archive::Archive;
use crate::domain::{Ask, ImageId, Query};
use crate::embed::{Backend, ModelCard, load_backend};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{Decoder, InputSpec, preprocess, to_eight_bit};
use crate::index::IndexSettings;
use crate::ingest::Dataset;
use crate::search::{self, Served, Version};

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
    /// Share of the server's time that is not spent in the model.
    not_model_share: f64,
    /// Medians of the same work done alone, in a loop on one thread, everything it needs in the cache.
    alone: StagesReport,
    /// (server - model) / (decode + preprocess + exact search alone), of each turn.
    overhead_ratio: Spread,
    /// What we hold it to.
    overhead_ratio_max: f64,
    /// The same by the client's clock: to send, to be woken and to receive comes on top. On two cores it is often above that bound.
    overhead_ratio_client: Spread,
    /// Medians of the same work done by hand, one image after the other on one thread, the model in between: what a script without a server would
    /// take. The model leaves nothing in the cache.
    by_hand: StagesReport,
    /// The ratio to that.
    overhead_ratio_by_hand: f64,
}

/// Normalisation is part of the exported network and so of the model's time. What was not measured is null.
#[derive(Serialize)]
struct StagesReport {
    decode_ms: f64,
    preprocess_ms: f64,
    model_ms: f64,
    exact_search_ms: f64,
}

/// Of the figures of all turns.
#[derive(Serialize)]
struct Spread {
    p50: f64,
    p10: f64,
    p90: f64,
}

impl Spread {
    fn of(values: Vec<f64>) -> Self {
        let at = |share| round(quantile(&values, share));
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

    /// The server and the stages alone take turns, so that a slow minute of the machine hits both. The stages by hand come before: of two threads that
    /// call a model libtorch makes one slow.
    fn query(&self, images: &[Vec<u8>]) -> Result<QueryReport> {
        let settings = Settings {
            model: Some(self.model.clone()),
            ..Settings::local(&self.archive.archive, self.archive.secret()?)
        };
        let mut by_hand = ByHand::new(images, &settings, &self.model)?;
        let turns = self.queries.div_ceil(QUERIES_PER_TURN);
        // On a thread that ends: libtorch's helpers stay with the thread that called the model and would take the server's processors.
        let between =
            std::thread::scope(|scope| scope.spawn(|| self.with_model(&mut by_hand, &settings, turns)).join())
                .map_err(|_| Error::internal("the stages by hand panicked"))??;
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
        let (mut asked, mut alone) = (Asked::default(), Stages::default());
        let (mut ratios, mut client_ratios) = (Vec::new(), Vec::new());
        for _ in 0..turns {
            let (turn, turn_alone) = (client.turn()?, by_hand.turn(None)?);
            ratios.push(median(&turn.rest) / turn_alone.rest_ms());
            client_ratios.push(median(&turn.client_rest) / turn_alone.rest_ms());
            asked.extend(turn);
            alone.extend(turn_alone);
        }
        stop.stop();
        let _ = server.join();
        Ok(QueryReport {
            queries: asked.client.len(),
            not_model_share: round(median(&asked.rest) / median(&asked.server)),
            overhead_ratio_by_hand: round(median(&asked.rest) / between.rest_ms()),
            stages: asked
                .stages
                .into_iter()
                .map(|(stage, values)| (stage, quantiles(values)))
                .collect(),
            server: quantiles(asked.server),
            client: quantiles(asked.client),
            alone: alone.report(),
            overhead_ratio: Spread::of(ratios),
            overhead_ratio_max: OVERHEAD_RATIO_MAX,
            overhead_ratio_client: Spread::of(client_ratios),
            by_hand: between.report(),
        })
    }

    fn with_model(&self, by_hand: &mut ByHand, settings: &Settings, turns: usize) -> Result<Stages> {
        let mut backend = load_backend(Some(self.model.as_path()), &settings.device)?;
        backend.warm_up()?;
        let mut stages = Stages::default();
        for _ in 0..turns {
            stages.extend(by_hand.turn(Some(backend.as_mut()))?);
        }
        Ok(stages)
    }
}

/// Everything but the model may cost half as much again as the same stages alone.
const OVERHEAD_RATIO_MAX: f64 = 1.5;
/// Queries in one turn of the server, images in one turn of the stages called directly.
const QUERIES_PER_TURN: usize = 50;
/// How many come before the counting, in every turn: whoever's turn it is has the caches for itself.
const WARM_UP: usize = 5;

/// The stages of a query called directly: no queue, no HTTP, no second thread but the model's own.
struct ByHand<'a> {
    images: &'a [Vec<u8>],
    version: Arc<Version>,
    ids: Vec<ImageId>,
    decoder: Decoder,
    input: InputSpec,
    next: usize,
}

impl<'a> ByHand<'a> {
    fn new(images: &'a [Vec<u8>], settings: &Settings, model: &Path) -> Result<Self> {
        let version = super::block_on(async {
            let archive = Archive::open(&settings.archive, settings.secret.clone()).await?;
            Ok(Served::open(archive, IndexSettings::default()).await?.current())
        })?;
        Ok(Self {
            images,
            ids: version.state.live().map(|spot| version.state.at(spot).id).collect(),
            version,
            decoder: Decoder::new(decoder_settings(settings)),
            input: ModelCard::load(model)?.input(),
            next: 0,
        })
    }

    fn turn(&mut self, mut model: Option<&mut (dyn Backend + 'static)>) -> Result<Stages> {
        let mut stages = Stages::default();
        for count in 0..QUERIES_PER_TURN + WARM_UP {
            let times = self.image(model.as_deref_mut())?;
            if count >= WARM_UP {
                stages.push(times);
            }
        }
        Ok(stages)
    }

    /// One image: milliseconds to decode, preprocess, embed (NaN without a model) and search.
    fn image(&mut self, model: Option<&mut (dyn Backend + 'static)>) -> Result<[f64; 4]> {
        let image = &self.images[self.next % self.images.len()];
        let id = self.ids[self.next % self.ids.len()];
        self.next += 1;
        let begun = Instant::now();
        let decoded = self.decoder.decode(image)?;
        let (raster8, _) = to_eight_bit(&decoded.raster)?;
        let decode = ms(begun);
        let begun = Instant::now();
        let model_input = std::hint::black_box(preprocess(&raster8, &self.input, None)?);
        let resize = ms(begun);
        let mut embed = f64::NAN;
        if let Some(model) = model {
            let begun = Instant::now();
            std::hint::black_box(model.embed(&[model_input])?);
            embed = ms(begun);
        }
        let found = self.version.snapshot.get(id);
        let (_, embedding) = found.ok_or_else(|| Error::internal("an id of the version is not in its index"))?;
        let query = Query::of(embedding);
        let ask = Ask {
            exact: true,
            ..Ask::default()
        };
        let begun = Instant::now();
        std::hint::black_box(search::local::search(&self.version.snapshot, &query, &ask)?);
        Ok([decode, resize, embed, ms(begun)])
    }
}

/// Milliseconds of each image in each stage: decode, preprocess, model, search.
#[derive(Default)]
struct Stages([Vec<f64>; 4]);

impl Stages {
    fn push(&mut self, times: [f64; 4]) {
        for (values, time) in self.0.iter_mut().zip(times) {
            values.push(time);
        }
    }

    fn extend(&mut self, other: Self) {
        for (values, more) in self.0.iter_mut().zip(other.0) {
            values.extend(more);
        }
    }

    /// Everything but the model.
    fn rest_ms(&self) -> f64 {
        let [decode, preprocess, _, search] = &self.0;
        median(decode) + median(preprocess) + median(search)
    }

    fn report(&self) -> StagesReport {
        let [decode_ms, preprocess_ms, model_ms, exact_search_ms] =
            self.0.each_ref().map(|values| round(median(values)));
        StagesReport {
            decode_ms,
            preprocess_ms,
            model_ms,
            exact_search_ms,
        }
    }
}

/// One client that asks the server, image after image.
struct Client<'a> {
    connection: Connection,
    images: &'a [Vec<u8>],
    next: usize,
}

/// What a client saw, query by query, in milliseconds.
#[derive(Default)]
struct Asked {
    client: Vec<f64>,
    server: Vec<f64>,
    /// Everything but the model, by the server's clock and by the client's.
    rest: Vec<f64>,
    client_rest: Vec<f64>,
    stages: BTreeMap<&'static str, Vec<f64>>,
}

impl Asked {
    fn extend(&mut self, other: Self) {
        self.client.extend(other.client);
        self.server.extend(other.server);
        self.rest.extend(other.rest);
        self.client_rest.extend(other.client_rest);
        for (stage, values) in other.stages {
            self.stages.entry(stage).or_default().extend(values);
        }
    }
}

impl<'a> Client<'a> {
    fn open(address: SocketAddr, images: &'a [Vec<u8>]) -> Result<Self> {
        Ok(Self {
            connection: Connection::open(address)?,
            images,
            next: 0,
        })
    }

    fn turn(&mut self) -> Result<Asked> {
        let mut asked = Asked::default();
        for count in 0..QUERIES_PER_TURN + WARM_UP {
            let request = self
                .connection
                .search_request(&self.images[self.next % self.images.len()]);
            self.next += 1;
            let begun = Instant::now();
            let (server, answer) = self.connection.ask(&request)?;
            let elapsed = ms(begun);
            if count < WARM_UP {
                continue;
            }
            let answer: Value = serde_json::from_slice(&answer)
                .map_err(|error| Error::with_source(ErrorKind::Internal, "an answer is not JSON", error))?;
            let time = |stage| answer["timings_ms"][stage].as_f64().unwrap_or(f64::NAN);
            for stage in STAGES {
                asked.stages.entry(stage).or_default().push(time(stage));
            }
            asked.client.push(elapsed);
            asked.server.push(server);
            asked.rest.push(server - time("model"));
            asked.client_rest.push(elapsed - time("model"));
        }
        Ok(asked)
    }
}

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

    /// The server's time in milliseconds and the body of the answer, which has to be a 200 of known length.
    fn ask(&mut self, request: &[u8]) -> Result<(f64, Vec<u8>)> {
        self.stream.write_all(request).map_err(failed)?;
        let mut answer = Vec::with_capacity(1 << 16);
        let mut piece = [0; 1 << 14];
        let (body_at, server, length) = loop {
            match self.stream.read(&mut piece).map_err(failed)? {
                0 => return Err(Error::new(ErrorKind::Unavailable, "the server hung up")),
                read => answer.extend_from_slice(&piece[..read]),
            }
            if let Some(head_end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&answer[..head_end]).to_ascii_lowercase();
                break (head_end + 4, server_time(&head)?, body_length(&head)?);
            }
        };
        let already = answer.len();
        answer.resize(body_at + length, 0);
        if already < answer.len() {
            self.stream.read_exact(&mut answer[already..]).map_err(failed)?;
        }
        Ok((server, answer.split_off(body_at)))
    }
}

fn server_time(head: &str) -> Result<f64> {
    head.lines()
        .find_map(|line| line.strip_prefix("server-timing: total;dur=")?.trim().parse().ok())
        .ok_or_else(|| Error::internal("an answer without the server's time"))
}

fn body_length(head: &str) -> Result<usize> {
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
