//! `medsearch verify` and `medsearch compact`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::EXIT_PARTIAL;
use super::settings::ArchiveArgs;
use crate::archive::{CompactSettings, OBJECT_AGE, compact, verify};
use crate::error::Result;
use crate::index::IndexSettings;
use crate::ingest::build::graph_builder;

/// Read everything in an archive and name what is damaged.
#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    archive: ArchiveArgs,
}

impl Verify {
    /// Exit code 3 when something is damaged.
    pub fn run(self) -> Result<ExitCode> {
        let secret = self.archive.secret()?;
        let report = super::block_on(async {
            let archive = self.archive.open(secret).await?;
            verify(&archive).await
        })?;
        for damage in &report.damaged {
            println!("damaged: {damage}");
        }
        println!(
            "version {}: {} objects, {} images, {} damaged",
            report.version,
            report.objects,
            report.images,
            report.damaged.len()
        );
        Ok(if report.damaged.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_PARTIAL)
        })
    }
}

/// Merge small objects and delete what nothing refers to any more.
#[derive(Args)]
pub struct Compact {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Age at which a superseded version is deleted, in seconds; less than 180 only with `--offline`.
    #[arg(long, default_value_t = 3600)]
    manifest_seconds: u64,
    /// Age at which an object that no version names is deleted, in seconds; less than 46800 only with `--offline`: a writer may take so long to name what it wrote.
    #[arg(long, default_value_t = OBJECT_AGE.as_secs())]
    object_seconds: u64,
    /// No other program reads or writes this archive: take any age.
    #[arg(long)]
    offline: bool,
    /// Classes with more rows than this get a graph.
    #[arg(long, env = "MEDSEARCH_EXACT_ROWS_MAX")]
    exact_rows_max: Option<usize>,
}

impl Compact {
    /// Prints what was merged and deleted.
    pub fn run(self) -> Result<ExitCode> {
        let secret = self.archive.secret()?;
        let report = super::block_on(async {
            let archive = self.archive.open(secret).await?;
            let settings = CompactSettings {
                manifest_age_min: Duration::from_secs(self.manifest_seconds),
                object_age_min: Duration::from_secs(self.object_seconds),
                graphs: Some(graph_builder(
                    IndexSettings::default().with_exact_rows_max(self.exact_rows_max),
                )),
                offline: self.offline,
            };
            compact(&archive, settings).await
        })?;
        println!(
            "version {}: {} manifests and {} objects deleted",
            report.version, report.manifests_deleted, report.objects_deleted
        );
        Ok(ExitCode::SUCCESS)
    }
}
