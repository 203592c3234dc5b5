//! `medsearch evaluate`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use tempfile::TempDir;

use super::say::say;
use super::search::{LEARNED_K, LEARNED_VOTE, Vote};
use super::settings::{ArchiveArgs, CacheArgs};
use crate::archive::{Archive, Retention, Secret, Shown};
use crate::embed::{Backend, load_backend};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::Decoder;
use crate::index::IndexSettings;
use crate::ingest::Dataset;
use crate::ingest::build::{self, BuildSettings, Wanted};
use crate::ingest::progress::Progress;
use crate::quality::card::to_keep;
use crate::quality::cases::Cases;
use crate::quality::evaluate::{Settings, Subject, evaluate, steps};
use crate::quality::evaluation::{Available, Evaluation, Interval};
use crate::quality::explained::{check_model, explained};
use crate::quality::learned::Candidate;
use crate::quality::masked::{self, Masked};
use crate::quality::subject::{Opened, Pictures};
use crate::quality::views::Split;

/// Time between lines of progress where there is no terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Measure how good an archive's answers are, beside what a shortcut would reach.
///
/// Every image is asked about among those that are not of its group: its patient, and copies of its picture. What has to be fitted is fitted on
/// other groups than it is measured on. Beside each figure stand the floors: the most frequent class, random neighbors, 32x32 grey thumbnails, and who
/// knows only the source. Intervals are bootstraps by group.
#[derive(Args)]
pub struct Evaluate {
    /// The archive: a folder, or a URL with `file://`, `s3://`, `gs://` or `az://`.
    #[arg(
        long,
        value_name = "URL",
        env = "MEDSEARCH_ARCHIVE",
        required_unless_present = "embeddings"
    )]
    archive: Option<String>,
    /// File with the archive's secret. Default: beside the archive's folder, with `.secret` at the end of its name; for a bucket none.
    #[arg(long, value_name = "FILE", env = "MEDSEARCH_SECRET_FILE")]
    secret_file: Option<PathBuf>,
    #[command(flatten)]
    cache: CacheArgs,
    /// Evaluate a folder of `.npy` and `.json` instead of an archive.
    #[arg(long, value_name = "DIR")]
    embeddings: Option<PathBuf>,
    /// The images that those vectors were made of: for the thumbnail floor, equal pixels, and the pictures in the report.
    #[arg(long, value_name = "DIR", requires = "embeddings")]
    data: Option<PathBuf>,
    /// Ask about the images of this folder of `.npy` and `.json` instead of the archive's own.
    #[arg(long, value_name = "DIR")]
    queries: Option<PathBuf>,
    /// The images that the queries' vectors were made of.
    #[arg(long, value_name = "DIR", requires = "queries")]
    queries_data: Option<PathBuf>,
    /// Vectors of images that do not belong here, a family a class: how well they are told apart.
    #[arg(long, value_name = "DIR")]
    outside: Option<PathBuf>,
    /// Ask each of so many folds among the others. Default: each image among all others but its group.
    #[arg(long, conflicts_with = "queries", value_parser = clap::value_parser!(u16).range(2..=20))]
    folds: Option<u16>,
    /// Learn a metric, for each test from other groups: within-class whitening. What it brings stands beside what the vectors give as they are.
    #[arg(long)]
    learn: bool,
    /// The same images embedded by another model: which of the spaces is better is decided within what is learned from. Repeat it for more.
    #[arg(long, value_name = "DIR", requires_all = ["learn", "embeddings"], conflicts_with = "queries")]
    candidate: Vec<PathBuf>,
    /// Ask again with the middle of each picture blacked out, 60 % and 80 % of width and height: a class that is told all the same is told by something else than a finding there.
    #[arg(long, requires_all = ["data", "model"])]
    controls: bool,
    /// The model that made the vectors, for `--controls` and `--explain`: a folder, or `thumbnail`. Default, for `--explain`: the one that the archive holds.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Where that runs: `auto`, `cpu` or `cuda:N`.
    #[arg(long, default_value = "auto", env = "MEDSEARCH_DEVICE")]
    device: String,
    /// Seeds 0 to one less than this, for folds and calibration; figures are means over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=20))]
    seeds: u16,
    /// Neighbors that vote, 1 to 100; as `medsearch fit` has it.
    #[arg(short, default_value_t = LEARNED_K, value_parser = clap::value_parser!(u16).range(1..=100))]
    k: u16,
    /// How the neighbors' labels become a suggestion; as `medsearch fit` has it.
    #[arg(long, value_enum, default_value_t = LEARNED_VOTE)]
    vote: Vote,
    /// Resamples behind every interval.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    resamples: u32,
    /// Explain so many images, as many of each class, and measure the heat maps by insertion and deletion beside random and uniform ones. Needs the model, and
    /// pictures larger than thumbnails: an archive that keeps them, or --data.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    explain: Option<u32>,
    /// Write every figure to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report with its plots and pictures to this file: one page that needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Keep the figures in the archive, in place of those before: for its model card. No pictures, no ids, no names of files.
    #[arg(long, conflicts_with = "embeddings")]
    keep: bool,
}

impl Evaluate {
    /// Prints the main figures.
    pub fn run(self) -> Result<ExitCode> {
        for path in self.json.iter().chain(&self.html) {
            super::check_report(path)?;
        }
        let decoder = super::index::decoder(super::processors());
        // The archives made of folders live as long as they are read.
        let mut folders = Vec::new();
        let subject = super::block_on(self.subject(&decoder, &mut folders))?;
        // A model that does not fit is said before hours are spent.
        let explaining = match self.explain {
            Some(images) => Some((images as usize, super::block_on(self.explaining(&subject))?)),
            None => None,
        };
        let settings = Settings {
            split: self
                .folds
                .map_or(Split::LeaveGroupOut, |folds| Split::Folds(folds.into())),
            seeds: self.seeds.into(),
            k: self.k.into(),
            vote: self.vote.into(),
            resamples: self.resamples as usize,
            learn: self.learn,
        };
        let progress = Mutex::new(Progress::of("steps", steps(&subject, &settings), PROGRESS_EVERY));
        let locked = || progress.lock().unwrap_or_else(PoisonError::into_inner);
        let mut evaluation = evaluate(&subject, &settings, || locked().done(1))?;
        locked().finish();
        if let Some((images, mut backend)) = explaining {
            let archives: Vec<&Opened> = [Some(&subject.archive), subject.queries.as_ref()]
                .into_iter()
                .flatten()
                .collect();
            let resamples = self.resamples as usize;
            let images = images.min(subject.cases.asked().count());
            let progress = Mutex::new(Progress::of("explanations", images, PROGRESS_EVERY));
            let locked = || progress.lock().unwrap_or_else(PoisonError::into_inner);
            let (cases, backend) = (&subject.cases, backend.as_mut());
            let figures = explained(cases, &archives, backend, &decoder, images, resamples, || {
                locked().done(1)
            });
            evaluation.explanations = Some(super::block_on(figures)?);
            locked().finish();
        }
        say!("{}", summary(&evaluation).trim_end());
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&evaluation)
                .map_err(|error| Error::with_source(ErrorKind::Internal, "the figures can't be written", error))?;
            super::write_report(path, &(text + "\n"))?;
        }
        if let Some(path) = &self.html {
            super::write_report(path, &crate::quality::report::html(&evaluation))?;
        }
        if self.keep {
            let opened = &subject.archive;
            let new = to_keep(&evaluation, &opened.version.state.manifest)?;
            let version = super::block_on(opened.archive.keep_evaluation(new))?;
            say!("version {version} keeps this evaluation");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The model whose heat maps are measured: the one that made the vectors.
    async fn explaining(&self, subject: &Subject) -> Result<Box<dyn Backend>> {
        let opened = &subject.archive;
        let mut backend = match &self.model {
            Some(dir) => load_backend(super::embed::model_dir(dir), &self.device)?,
            None => crate::app::stored_model(&opened.archive, &opened.version.state.manifest, &self.device).await?,
        };
        check_model(opened, backend.card())?;
        backend.warm_up()?;
        Ok(backend)
    }

    /// What is kept of the images of a folder while it is evaluated.
    fn retention(&self) -> Retention {
        // An explanation is of what the model saw.
        if self.explain.is_some() {
            Retention::View
        } else {
            Retention::Thumbnail
        }
    }

    async fn subject(&self, decoder: &Decoder, folders: &mut Vec<TempDir>) -> Result<Subject> {
        let (archive, secret) = match &self.embeddings {
            Some(folder) => {
                let secret = secret_of(folder)?;
                let opened = opened(
                    folder,
                    self.data.as_deref(),
                    self.retention(),
                    &secret,
                    decoder,
                    folders,
                )
                .await?;
                (opened, secret)
            }
            None => {
                let place = ArchiveArgs {
                    archive: self.archive.clone().unwrap_or_default(),
                    secret_file: self.secret_file.clone(),
                    cache: self.cache.clone(),
                };
                let secret = place.secret()?;
                (Opened::of(place.open(secret.clone()).await?).await?, secret)
            }
        };
        // With the archive's secret, so that a patient of both has one pseudonym.
        let queries = match &self.queries {
            Some(folder) => Some(
                opened(
                    folder,
                    self.queries_data.as_deref(),
                    self.retention(),
                    &secret,
                    decoder,
                    folders,
                )
                .await?,
            ),
            None => None,
        };
        let outside = match &self.outside {
            Some(folder) => opened(folder, None, Retention::Thumbnail, &secret, decoder, folders)
                .await?
                .families(&archive)?,
            None => BTreeMap::new(),
        };
        let mut cases = Cases::of(&archive.version, queries.as_ref().map(|queries| &*queries.version))?;
        let archives: Vec<&Opened> = [Some(&archive), queries.as_ref()].into_iter().flatten().collect();
        let pictures = Pictures::read(cases.items.iter().map(|case| &case.record), &archives).await?;
        let near_duplicates = pictures.join_copies(&mut cases, decoder, || {});
        let mut candidates = vec![Candidate {
            name: self.embeddings.as_deref().map_or("the archive".into(), folder_name),
            cases: cases.clone(),
        }];
        for folder in &self.candidate {
            let name = folder_name(folder);
            if candidates.iter().any(|other| other.name == name) {
                let message =
                    format!("two spaces to choose from are called `{name}`: the report could not tell them apart");
                return Err(Error::new(ErrorKind::InvalidRequest, message));
            }
            let opened = opened(
                folder,
                self.data.as_deref(),
                self.retention(),
                &secret,
                decoder,
                folders,
            )
            .await?;
            candidates.push(Candidate {
                name,
                cases: opened.as_space(&cases)?,
            });
        }
        Ok(Subject {
            candidates,
            near_duplicates,
            thumbnails: pictures.as_space(&cases, decoder),
            masked: self.masked(&cases, &archive, decoder)?,
            archive,
            queries,
            outside,
            cases,
            pictures,
        })
    }

    /// Queries with a part blacked out, or why there are none.
    fn masked(
        &self,
        cases: &Cases,
        archive: &Opened,
        decoder: &Decoder,
    ) -> Result<std::result::Result<Vec<Masked>, String>> {
        let Some(model) = self.model.as_deref().filter(|_| self.controls) else {
            return Ok(Err("not asked for (--controls, with --data and --model)".to_owned()));
        };
        let folders = [self.queries_data.as_deref(), self.data.as_deref()];
        let datasets: Vec<Dataset> = folders
            .into_iter()
            .flatten()
            .map(Dataset::open)
            .collect::<Result<_>>()?;
        let mut backend = load_backend(super::embed::model_dir(model), &self.device)?;
        let progress = Mutex::new(Progress::of("images", cases.asked().count(), PROGRESS_EVERY));
        let locked = || progress.lock().unwrap_or_else(PoisonError::into_inner);
        let (space, identity) = (&archive.version.state.manifest.space, archive.archive.identity());
        let masked = masked::embed(cases, space, identity, &datasets, backend.as_mut(), decoder, || {
            locked().done(1)
        })?;
        locked().finish();
        Ok(Ok(masked))
    }
}

/// The key of the archive that a folder becomes: from what the folder says of its images, so that they have the same ids and stand in the same folds
/// whenever it is evaluated, and nobody who lacks the folder has the key.
fn secret_of(folder: &Path) -> Result<Secret> {
    let unreadable = |error| {
        let message = format!("`{}` can't be read", folder.display());
        Error::with_source(ErrorKind::NotFound, message, error)
    };
    let entries: std::io::Result<Vec<_>> = std::fs::read_dir(folder).map_err(unreadable)?.collect();
    let mut files: Vec<PathBuf> = (entries.map_err(unreadable)?.iter().map(std::fs::DirEntry::path))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let mut hasher = blake3::Hasher::new_derive_key("medsearch evaluate, the key of a folder's archive, 1");
    for file in files {
        hasher.update(&std::fs::read(file).map_err(unreadable)?);
    }
    Ok(Secret::from_bytes(*hasher.finalize().as_bytes()))
}

/// A folder's own name.
fn folder_name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or(folder.as_os_str());
    name.to_string_lossy().into_owned()
}

/// An archive of a folder, for as long as it is evaluated.
async fn opened(
    folder: &Path,
    data: Option<&Path>,
    retention: Retention,
    secret: &Secret,
    decoder: &Decoder,
    folders: &mut Vec<TempDir>,
) -> Result<Opened> {
    let place = tempfile::tempdir()
        .map_err(|error| Error::with_source(ErrorKind::Unavailable, "no temporary folder can be made", error))?;
    let url = place.path().join("archive").display().to_string();
    folders.push(place);
    let settings = BuildSettings {
        embeddings: folder.to_owned(),
        data: data.map(Path::to_owned),
        model: None,
        wanted: Wanted {
            retention: Some(retention),
            shown: Shown {
                file_names: false,
                tags: vec![],
            },
            ..Wanted::default()
        },
        // Graphs are built for the figures of the index, not for this.
        index: IndexSettings::default().with_exact_rows_max(Some(usize::MAX)),
        threads: super::processors(),
        near_identical: true,
        cache: None,
    };
    let report = build::build(&url, || Ok(secret.clone()), decoder, &settings).await?;
    for (file, why) in &report.left_out {
        eprintln!("left out: {file}: {why}");
    }
    Opened::of(Archive::open(&url, secret.clone()).await?).await
}

/// What one wants to know first, as text.
fn summary(evaluation: &Evaluation) -> String {
    let protocol = &evaluation.protocol;
    let mut lines = vec![
        format!(
            "{} queries, {} images, {} groups. {} Seeds 0 to {}.",
            protocol.queries,
            protocol.images,
            protocol.groups,
            protocol.split,
            protocol.seeds.iter().max().unwrap_or(&0)
        ),
        format!(
            "{:<26} {:>22} {:>22} {:>22}",
            "", "balanced accuracy", "accuracy", "P@10"
        ),
    ];
    let row = |name: &str, figures: [Option<Interval>; 3]| {
        let [balanced, accuracy, precision] = figures.map(interval);
        format!("{name:<26} {balanced:>22} {accuracy:>22} {precision:>22}")
    };
    let decisions = &evaluation.decisions;
    let precision = evaluation
        .retrieval
        .iter()
        .find(|figure| figure.name == "P@10")
        .and_then(|figure| figure.micro);
    lines.push(row(
        "neighbors and their vote",
        [decisions.balanced_accuracy, decisions.accuracy, precision],
    ));
    for floor in evaluation.floors.iter().chain(&evaluation.less_learned) {
        lines.push(match &floor.figures {
            Available::Yes(of) => row(&floor.name, [of.balanced_accuracy, of.accuracy, of.precision_at_10]),
            Available::No { not_available } => format!("{:<26} not available: {not_available}", floor.name),
        });
    }
    match &evaluation.explanations {
        Some(Available::Yes(explanations)) => {
            lines.push(format!(
                "{:<26} {:>22} {:>22} {:>22} {:>22}",
                format!("heat maps of {} images", explanations.images),
                "insertion (larger)",
                "ahead by",
                "deletion (smaller)",
                "ahead by"
            ));
            lines.extend(explanations.maps.iter().map(|map| {
                let [inserted, ahead] = [map.insertion, map.insertion_below_explanation].map(interval);
                let [deleted, ahead_too] = [map.deletion, map.deletion_above_explanation].map(interval);
                format!(
                    "{:<26} {inserted:>22} {ahead:>22} {deleted:>22} {ahead_too:>22}",
                    map.name
                )
            }));
        }
        Some(Available::No { not_available }) => lines.push(format!("heat maps: not available: {not_available}")),
        None => {}
    }
    if let Available::Yes(controls) = &evaluation.controls {
        for control in &controls.rows[1..] {
            lines.push(row(&control.name, [control.balanced_accuracy, control.accuracy, None]));
        }
    }
    lines.extend(evaluation.notes.iter().map(|note| format!("note: {note}")));
    lines.push("Research use only, not for diagnosis.".to_owned());
    lines.join("\n") + "\n"
}

fn interval(interval: Option<Interval>) -> String {
    interval.map_or_else(
        || "–".to_owned(),
        |Interval { value, low, high }| format!("{value:.3} ({low:.3}–{high:.3})"),
    )
}
