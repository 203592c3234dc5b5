//! `medsearch fit`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::say::say;
use super::search::{LEARNED_K, LEARNED_VOTE, Vote};
use super::settings::ArchiveArgs;
use crate::archive::{self, Archive, Fitted, HeldOut, NewCalibration};
use crate::domain::Calibration;
use crate::error::{Error, ErrorKind, Result};
use crate::index::IndexSettings;
use crate::ingest::build::graph_builder;
use crate::ingest::progress::Progress;
use crate::quality::asked::Asking;
use crate::quality::calibrated::{self, Calibrated, calibrate};
use crate::quality::cases::Cases;
use crate::quality::learned::{LEARN_STEPS, Learned, PARTS, SHRINKAGES, learn};
use crate::quality::metric::{FitSettings, MIN_SHRINKAGE};
use crate::quality::subject::{Opened, Pictures};

/// Time between lines of progress where there is no terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// Share of images without a suggestion beyond which the vectors are worth a second thought.
const DOUBTFUL_MAX: f64 = 0.2;

/// Learn from an archive's labels what counts as similar and what a vote is worth, and answer by it from now on.
///
/// The metric (within-class whitening) makes count less what varies within a class; one that finds the class no more often on patients that were left
/// out is not taken. The calibration says how likely the suggested class is right, which classes can't be ruled out at 90 and 95 %, and whether an image
/// is unlike the archive. Both hold for the votes named by `-k` and `--vote`. Servers take them over within seconds. Nothing is lost: `--remove` goes
/// back. `evaluate --learn` gives the honest figures, with intervals.
#[derive(Args)]
pub struct Fit {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// The share of the identity in the scatter within classes, above 0 to 1. Default: the best of 0.8, 0.5 and 0.3 on patients left out.
    #[arg(long)]
    shrinkage: Option<f64>,
    /// Most components of the vectors that are compared: fewer are faster to search.
    #[arg(long, default_value_t = FitSettings::default().components)]
    components: usize,
    /// Neighbors that vote, 1 to 100: what is calibrated holds for this number only, and is what a search takes that names none.
    #[arg(short, default_value_t = LEARNED_K, value_parser = clap::value_parser!(u16).range(1..=100))]
    k: u16,
    /// How they vote: what is calibrated holds for this way only, and is what a search takes that names none.
    #[arg(long, value_enum, default_value_t = LEARNED_VOTE)]
    vote: Vote,
    /// Take the metric even if it finds the class no more often than the vectors as they are.
    #[arg(long)]
    force: bool,
    /// Calibrate only: search by the vectors as they are.
    #[arg(long, conflicts_with_all = ["shrinkage", "components", "force"])]
    no_metric: bool,
    /// Search by the vectors as they are again.
    #[arg(long, conflicts_with_all = ["shrinkage", "components", "k", "vote", "force", "no_metric"])]
    remove: bool,
    /// Classes with more rows than this get a graph. Default: 2000.
    #[arg(long, env = "MEDSEARCH_EXACT_ROWS_MAX")]
    exact_rows_max: Option<usize>,
}

impl Fit {
    /// Prints what was learned and what it brings.
    pub fn run(self) -> Result<ExitCode> {
        if self
            .shrinkage
            .is_some_and(|shrinkage| !(MIN_SHRINKAGE..=1.0).contains(&shrinkage))
        {
            let message = format!("--shrinkage needs a number from {MIN_SHRINKAGE} to 1");
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        // Along a single direction everything is equal or opposite.
        if self.components < 2 {
            return Err(Error::new(ErrorKind::InvalidRequest, "--components needs at least 2"));
        }
        let secret = self.archive.secret()?;
        super::block_on(async {
            let archive = self.archive.open(secret).await?;
            if self.remove {
                self.remove(&archive).await
            } else {
                self.learn(archive).await
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }

    async fn remove(&self, archive: &Archive) -> Result<()> {
        let manifest = archive.latest().await?;
        let had = manifest.metric.is_some() || manifest.calibration.is_some();
        let version = self.switch(archive, archive::Learned::default()).await?;
        match had {
            true => say!("version {version} is searched by the vectors as they are, without calibration"),
            false => say!("version {version} has nothing learned: nothing was changed"),
        }
        Ok(())
    }

    async fn learn(&self, archive: Archive) -> Result<()> {
        let opened = Opened::of(archive).await?;
        let mut cases = Cases::of(&opened.version, None)?;
        let pictures = Pictures::read(cases.items.iter().map(|case| &case.record), &[&opened]).await?;
        let decoder = super::index::decoder(super::processors());
        pictures.join_copies(&mut cases, &decoder, || {});
        let steps = calibrated::STEPS + if self.no_metric { 0 } else { LEARN_STEPS };
        let progress = Mutex::new(Progress::of("steps", steps, PROGRESS_EVERY));
        let locked = || progress.lock().unwrap_or_else(PoisonError::into_inner);
        let asking = Asking {
            k: self.k.into(),
            method: self.vote.into(),
            extra: false,
        };
        let version = opened.version.state.manifest.version;
        let shrinkages = self.shrinkage.map_or(SHRINKAGES.to_vec(), |shrinkage| vec![shrinkage]);
        let learned = match self.no_metric {
            true => None,
            false => Some(learn(&cases, asking, &shrinkages, self.components, || {
                locked().done(1)
            })?),
        };
        let taken = learned
            .as_ref()
            .filter(|learned| self.force || learned.with > learned.without);
        let settings = taken.map(|learned| FitSettings {
            shrinkage: learned.shrinkage,
            components: self.components,
        });
        let calibrated = match calibrate(&cases, asking, settings, || locked().done(1)) {
            Err(error) if error.kind() == ErrorKind::InvalidRequest => Err(error),
            other => Ok(other?),
        };
        locked().finish();

        say!(
            "learned from {} images of {} groups in {} classes, version {version}",
            cases.items.len(),
            cases.groups(|_| true),
            cases.classes.len(),
        );
        if let Some(learned) = &learned {
            say!("{}", brings(learned));
            if shrinkages.len() > 1 {
                say!(
                    "note: the shrinkage was chosen by those figures, which flatters a little; `medsearch evaluate --learn` does not"
                );
            }
            if taken.is_none() {
                say!(
                    "the metric finds the class no more often: the vectors stay as they are (--force takes it all the same)"
                );
            }
        }
        let calibration = match &calibrated {
            Ok(calibrated) => {
                say!("{}", promises(calibrated));
                Some(NewCalibration {
                    calibration: Calibration {
                        appearances: pictures.appearances(&decoder),
                        ..calibrated.calibration.clone()
                    },
                    fitted_on: version,
                    fitted_at: Timestamp::now(),
                    groups: calibrated.groups.clone(),
                })
            }
            Err(error) => {
                say!("no calibration: {error}");
                None
            }
        };
        if cases.without_label > 0 {
            say!(
                "note: {} images have no settled label; an answer with one of them among its {} neighbors has no confidence",
                cases.without_label,
                self.k
            );
        }
        let used = &opened.version.state.manifest;
        if used.metric.is_some() && taken.is_none() {
            say!("the metric that was in use is no longer used");
        }
        if used.calibration.is_some() && calibration.is_none() {
            say!("the calibration that was in use is no longer used");
        }
        let metric = taken.map(|learned| (Arc::new(learned.metric.clone()), fitted(&cases, learned, version)));
        let searched_by = if metric.is_some() {
            "the metric"
        } else {
            "the vectors as they are"
        };
        let graded = if calibration.is_some() { "with" } else { "without" };
        let learned = archive::Learned { metric, calibration };
        let version = self.switch(&opened.archive, learned).await?;
        let graphs = opened.archive.latest().await?.graphs.len();
        say!("version {version} is searched by {searched_by}, {graded} calibration, with {graphs} graphs");
        Ok(())
    }

    async fn switch(&self, archive: &Archive, learned: archive::Learned) -> Result<u64> {
        let settings = IndexSettings::default().with_exact_rows_max(self.exact_rows_max);
        archive.switch(learned, Some(graph_builder(settings))).await
    }
}

fn brings(learned: &Learned) -> String {
    format!(
        "balanced accuracy on groups that were left out: {:.3} with the vectors as they are, {:.3} with the metric (shrinkage {}, {} of {} components; \
         {} images asked about)",
        learned.without,
        learned.with,
        learned.shrinkage,
        learned.metric.components(),
        learned.metric.dimension(),
        learned.judged
    )
}

fn promises(calibrated: &Calibrated) -> String {
    let [with, without] = calibrated.brier;
    let mut lines = vec![format!(
        "confidence, by fits without the groups that are judged: off by {:.3} (by chance alone up to {:.3}), Brier score {with:.3} ({without:.3} by the \
         votes' shares)",
        calibrated.ece, calibrated.ece_by_chance
    )];
    for sets in &calibrated.sets {
        let few: Vec<&str> = sets.not_available.iter().map(|class| class.as_str()).collect();
        let few = match few[..] {
            [] => String::new(),
            _ => format!("; not available for {}: too few cases", few.join(", ")),
        };
        lines.push(format!(
            "prediction sets at {:.0} %: {:.1} % of each class's images have it in theirs, {:.2} classes in a set{few}",
            100.0 * sets.level,
            100.0 * sets.coverage,
            sets.size
        ));
    }
    let doubtful = 1.0 - calibrated.suggested;
    lines.push(format!(
        "a new image like these gets a suggestion in {:.0} of 100 cases",
        100.0 * calibrated.suggested
    ));
    if doubtful > DOUBTFUL_MAX {
        lines.push(
            "note: the other classes can't be ruled out as often as a reader would wish; vectors of more layers or pixels may tell them apart \
             (`scripts/export_model.py --recipe layers`), `medsearch evaluate --learn --candidate` says how much better"
                .to_owned(),
        );
    }
    lines.join("\n")
}

fn fitted(cases: &Cases, learned: &Learned, version: u64) -> Fitted {
    let counts = cases.count(|_| true);
    let images: BTreeMap<_, _> = (cases.classes.iter().cloned())
        .zip(counts.into_iter().map(|count| count as u64))
        .collect();
    Fitted {
        method: "within-class whitening".to_owned(),
        shrinkage: learned.shrinkage,
        fitted_at: Timestamp::now(),
        fitted_on: version,
        images,
        groups: cases.groups(|_| true) as u64,
        held_out: HeldOut {
            without: learned.without,
            with: learned.with,
            parts: PARTS as u64,
        },
    }
}
