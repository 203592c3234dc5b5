//! `medsearch duplicates`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;

use super::say::say;
use super::settings::ArchiveArgs;
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::NEAR_DUPLICATE;
use crate::ingest::progress::Progress;
use crate::quality::report::duplicates_html;
use crate::quality::subject::{Opened, duplicates};

/// Time between lines of progress where there is no terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Find pictures that are in an archive twice: equal pixels, and near duplicates by their kept pictures.
///
/// Near duplicates are one picture but for encoding, size, borders, exposure or a small crop. Every two images are compared, so that time grows with the
/// square of their number. What is found is for a person to look at, above all the pictures under different classes. Nothing is changed, unless
/// `--collapse` is given: then a search shows and counts the images of each group once from now on.
#[derive(Args)]
pub struct Duplicates {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Least similarity of a near duplicate, 0 to 1. Lower finds stronger crops, and other exposures of the same patient.
    #[arg(long, default_value_t = NEAR_DUPLICATE)]
    similarity_min: f32,
    /// Remember in the archive what is found, in place of what it knew of these images: copies count once, and those under different classes don't vote.
    #[arg(long)]
    collapse: bool,
    /// Write all of it to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with the pictures side by side.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Duplicates {
    /// Prints a line for each group of images.
    pub fn run(self) -> Result<ExitCode> {
        if !(0.0..=1.0).contains(&self.similarity_min) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "--similarity-min needs a number from 0 to 1",
            ));
        }
        for path in self.json.iter().chain(&self.html) {
            super::check_report(path)?;
        }
        let secret = self.archive.secret()?;
        let opened = super::block_on(async {
            let archive = self.archive.open(secret).await?;
            Opened::of(archive).await
        })?;
        let progress = Mutex::new(Progress::new(opened.version.snapshot.images(), PROGRESS_EVERY));
        let locked = || progress.lock().unwrap_or_else(PoisonError::into_inner);
        let decoder = super::index::decoder(super::processors());
        let found = super::block_on(duplicates(&opened, &decoder, self.similarity_min, || locked().done(1)))?;
        locked().finish();
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&found)
                .map_err(|error| Error::with_source(ErrorKind::Internal, "the list can't be written", error))?;
            super::write_report(path, &(text + "\n"))?;
        }
        if let Some(path) = &self.html {
            super::write_report(path, &duplicates_html(&found))?;
        }
        for cluster in &found.clusters {
            let what = match (cluster.label_conflict, cluster.equal_pixels) {
                (true, _) => "DIFFERENT CLASSES",
                (false, true) => "equal pixels",
                (false, false) => "near",
            };
            let images: Vec<String> = (cluster.images.iter())
                .map(|image| format!("{} {} ({:.3})", image.id, image.class, image.similarity))
                .collect();
            say!("{what}: {}", images.join("  "));
        }
        if self.collapse {
            let version = super::block_on(opened.archive.link(found.compared.clone(), found.pictures()?))?;
            say!("version {version} of the archive remembers these groups");
        }
        say!(
            "{} images: {} groups of pictures that are one, {} of them under different classes; {} further files of known images; {} could not be \
             compared",
            found.images,
            found.clusters.len(),
            found.clusters.iter().filter(|cluster| cluster.label_conflict).count(),
            found.further_files,
            found.without_picture
        );
        Ok(ExitCode::SUCCESS)
    }
}
