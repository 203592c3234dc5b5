//! `medsearch fit`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::search::Vote;
use super::settings::ArchiveArgs;
use crate::archive::{Archive, Fitted, HeldOut};
use crate::domain::Metric;
use crate::error::{Error, ErrorKind, Result};
use crate::index::IndexSettings;
use crate::ingest::build::graph_builder;
use crate::ingest::progress::Progress;
use crate::quality::asked::Asking;
use crate::quality::cases::Cases;
use crate::quality::learned::{LEARN_STEPS, Learned, PARTS, SHRINKAGES, learn};
use crate::quality::metric::{FitSettings, MIN_SHRINKAGE};
use crate::quality::subject::{Opened, Pictures};

/// Time between lines of progress where there is no terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Learn from an archive's labels what counts as similar, and search by it from now on.
///
/// The metric (within-class whitening) makes count less what varies within a class. It is learned from all labelled images and judged on patients that
/// were left out; one that does not find the class more often there than the vectors as they are is refused. Servers take it over within seconds. Nothing is
/// lost: `--remove` goes back. `evaluate --learn` gives the honest figures, with intervals.
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
    /// Neighbors that vote when it is judged, 1 to 100.
    #[arg(short, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=100))]
    k: u16,
    /// How they vote when it is judged.
    #[arg(long, value_enum, default_value_t = Vote::Majority)]
    vote: Vote,
    /// Take it even if it finds the class less often than the vectors as they are.
    #[arg(long)]
    force: bool,
    /// Search by the vectors as they are again.
    #[arg(long, conflicts_with_all = ["shrinkage", "components", "k", "vote", "force"])]
    remove: bool,
    /// Classes with more rows than this get a graph.
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
            let archive = Archive::open(&self.archive.archive, secret).await?;
            if self.remove {
                self.remove(&archive).await
            } else {
                self.learn(archive).await
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }

    async fn remove(&self, archive: &Archive) -> Result<()> {
        let had = archive.latest().await?.metric.is_some();
        let version = self.switch(archive, None).await?;
        match had {
            true => println!("version {version} is searched by the vectors as they are"),
            false => println!("version {version} has no learned metric: nothing was changed"),
        }
        Ok(())
    }

    async fn learn(&self, archive: Archive) -> Result<()> {
        let opened = Opened::of(archive).await?;
        let mut cases = Cases::of(&opened.version, None)?;
        let pictures = Pictures::read(cases.items.iter().map(|case| &case.record), &[&opened]).await?;
        pictures.join_copies(&mut cases, &super::index::decoder(super::processors()), || {});
        let progress = Mutex::new(Progress::of("steps", LEARN_STEPS, PROGRESS_EVERY));
        let locked = || progress.lock().unwrap_or_else(PoisonError::into_inner);
        let asking = Asking {
            k: self.k.into(),
            method: self.vote.into(),
            extra: false,
        };
        let shrinkages = self.shrinkage.map_or(SHRINKAGES.to_vec(), |shrinkage| vec![shrinkage]);
        let learned = learn(&cases, asking, &shrinkages, self.components, || locked().done(1))?;
        locked().finish();
        let manifest = &opened.version.state.manifest;
        let fitted = fitted(&cases, &learned, manifest.version);
        println!(
            "learned from {} images of {} groups in {} classes, version {}",
            cases.items.len(),
            fitted.groups,
            cases.classes.len(),
            manifest.version
        );
        println!(
            "balanced accuracy on groups that were left out: {:.3} with the vectors as they are, {:.3} with the metric (shrinkage {}, {} of {} components; \
             {} images asked about)",
            learned.without,
            learned.with,
            learned.shrinkage,
            learned.metric.components(),
            learned.metric.dimension(),
            learned.judged
        );
        if shrinkages.len() > 1 {
            println!(
                "note: the shrinkage was chosen by those figures, which flatters a little; `medsearch evaluate --learn` does not"
            );
        }
        if learned.with <= learned.without && !self.force {
            return Err(Error::new(
                ErrorKind::Conflict,
                "the metric finds the class no more often than the vectors as they are: nothing was changed (--force takes it all the same)",
            ));
        }
        let version = self
            .switch(&opened.archive, Some((Arc::new(learned.metric), fitted)))
            .await?;
        let graphs = opened.archive.latest().await?.graphs.len();
        println!("version {version} is searched by it, with {graphs} graphs");
        Ok(())
    }

    async fn switch(&self, archive: &Archive, metric: Option<(Arc<Metric>, Fitted)>) -> Result<u64> {
        let settings = IndexSettings::default().with_exact_rows_max(self.exact_rows_max);
        archive.switch_metric(metric, Some(graph_builder(settings))).await
    }
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
