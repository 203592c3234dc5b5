//! `medsearch search`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::say::say;
use super::settings::ArchiveArgs;
use crate::app::{Settings, open_engine};
use crate::domain::{Ask, ClassLabel, Exclude, FrameNumber, Hit, VoteMethod, Wanted};
use crate::error::{Error, ErrorKind, Result};
use crate::http::answer_json;
use crate::metrics::Metrics;
use crate::search::{Answer, Upload};

/// Search an archive for one image.
#[derive(Args)]
pub struct Search {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// PNG, JPEG or DICOM file.
    image: PathBuf,
    /// Which frame of a DICOM file, counted from 1.
    #[arg(long, value_name = "N", default_value_t)]
    frame: FrameNumber,
    /// Neighbors wanted, 1 to 100. Default: as many as the archive is calibrated for, or 10.
    #[arg(short, value_parser = clap::value_parser!(u16).range(1..=100))]
    k: Option<u16>,
    /// How the neighbors' labels become a suggestion. Default: as the archive is calibrated, or by majority.
    #[arg(long, value_enum)]
    vote: Option<Vote>,
    /// Search this class only; repeat it for more.
    #[arg(long = "class", value_name = "NAME")]
    classes: Vec<ClassLabel>,
    /// Print the whole answer as the HTTP API gives it.
    #[arg(long)]
    json: bool,
    /// Scan every row instead of walking a graph.
    #[arg(long)]
    exact: bool,
    /// Also return images with the same pixels, study or patient.
    #[arg(long)]
    include_same: bool,
    /// Folder of the model. Default: the model that the archive holds.
    #[arg(long, value_name = "DIR", env = "MEDSEARCH_MODEL")]
    model: Option<PathBuf>,
    /// Where the model runs: `auto`, `cpu` or `cuda:N`.
    #[arg(long, default_value = "auto", env = "MEDSEARCH_DEVICE")]
    device: String,
}

/// What `fit` and `evaluate` ask with: the more vote, the finer a confidence can be, and no class wins for being frequent.
pub(super) const LEARNED_K: u16 = 15;
pub(super) const LEARNED_VOTE: Vote = Vote::Prior;

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Vote {
    /// One neighbor, one vote.
    Majority,
    /// Votes weigh their similarity.
    Distance,
    /// Votes of rare classes weigh more.
    Prior,
}

impl From<Vote> for VoteMethod {
    fn from(vote: Vote) -> Self {
        match vote {
            Vote::Majority => Self::Majority,
            Vote::Distance => Self::Distance,
            Vote::Prior => Self::Prior,
        }
    }
}

impl Search {
    /// Prints a table, or JSON.
    pub fn run(self) -> Result<ExitCode> {
        let bytes = std::fs::read(&self.image).map_err(|error| {
            Error::with_source(
                ErrorKind::InvalidRequest,
                format!("`{}` can't be read", self.image.display()),
                error,
            )
        })?;
        let secret = self.archive.secret()?;
        let settings = Settings {
            model: self.model.clone(),
            device: self.device.clone(),
            cache: self.archive.cache.settings(),
            ..Settings::local(&self.archive.archive, secret.clone())
        };
        let exclude = if self.include_same {
            Exclude {
                patient: false,
                study: false,
                pixels: false,
            }
        } else {
            Exclude::default()
        };
        let wanted = Wanted {
            k: self.k.map(Into::into),
            vote: self.vote.map(Into::into),
            other: Ask {
                classes: (!self.classes.is_empty()).then_some(self.classes),
                exact: self.exact,
                exclude,
                ..Ask::default()
            },
        };
        let upload = Upload {
            bytes: bytes.into(),
            frame: self.frame,
            patient_id: None,
            issuer: None,
            study_uid: None,
            preview: false,
        };
        let (engine, answer) = super::block_on(async {
            let archive = self.archive.open(secret).await?;
            let (engine, _) = open_engine(&archive, &settings, &Arc::new(Metrics::new()?)).await?;
            let deadline = Instant::now() + Duration::from_secs(settings.request_seconds_max);
            let answer = engine.search_image(upload, wanted, None, deadline).await?;
            Ok((engine, answer))
        })?;
        if self.json {
            say!("{}", answer_json(&engine, &answer)?);
        } else {
            print_table(&answer);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print_table(answer: &Answer) {
    let frame = answer.query.image.as_ref().and_then(|image| image.frame);
    if let Some(frame) = frame.filter(|frame| frame.frames() > 1) {
        say!("frame {} of {}\n", frame.number(), frame.frames());
    }
    say!("rank  similarity  class                file or id");
    for (rank, hit) in answer.ranking.hits.iter().enumerate() {
        print_hit(&(rank + 1).to_string(), hit);
    }
    say!("\nnearest of each class");
    for hit in &answer.ranking.nearest_per_class {
        print_hit("", hit);
    }
    for warning in &answer.warnings {
        say!("\nwarning: {}", warning.message());
    }
    let verdict = &answer.verdict;
    say!("\n{}. Research use only, not for diagnosis.", verdict.reason);
    if let Some(confidence) = verdict.confidence {
        say!("right in {:.0} of 100 such cases", 100.0 * confidence);
    }
    for set in &verdict.prediction_sets {
        let classes: Vec<&str> = set.classes.iter().map(ClassLabel::as_str).collect();
        let classes = if classes.is_empty() {
            "no class".to_owned()
        } else {
            classes.join(", ")
        };
        say!("not ruled out at {:.0} %: {classes}", 100.0 * set.level);
    }
    if let Some(why_not) = &verdict.calibration.why_not {
        say!("not calibrated: {why_not}");
    }
}

fn print_hit(rank: &str, hit: &Hit) {
    let class = hit.class().map_or("(no label)", |class| class.as_str());
    let record = &hit.record;
    let file = record.file.as_deref().map(|file| record.frame.named(file));
    let name = file.unwrap_or_else(|| hit.id().to_string());
    say!("{rank:>4}  {:>10.4}  {class:<20} {name}", hit.similarity);
}
