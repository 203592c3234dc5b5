//! `medsearch verify`, `medsearch compact`, `medsearch reshard` and `medsearch erased`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::EXIT_PARTIAL;
use super::say::say;
use super::settings::ArchiveArgs;
use crate::archive::{CompactSettings, OBJECT_AGE, compact, remains, verify};
use crate::domain::ImageId;
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
            say!("damaged: {damage}");
        }
        say!(
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
    /// Classes with more rows than this get a graph. Default: 2000.
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
                ..CompactSettings::default()
            };
            compact(&archive, settings).await
        })?;
        say!(
            "version {}: {} manifests and {} objects deleted",
            report.version,
            report.manifests_deleted,
            report.objects_deleted
        );
        Ok(ExitCode::SUCCESS)
    }
}

/// Cut an archive into another number of shards, in one version and beside servers that read and write it.
///
/// Every row is copied and every graph built again, so that the place needs room for both until the old ones are collected. Replicas load the new shards while they answer
/// by the old ones, which takes up to twice the memory.
#[derive(Args)]
pub struct Reshard {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Shards from now on, each with an equal share of the images of every class. One for a single machine; for a cluster several times the number of replicas.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    shards: u32,
    /// Classes with more rows than this in a shard get a graph. Default: 2000.
    #[arg(long, env = "MEDSEARCH_EXACT_ROWS_MAX")]
    exact_rows_max: Option<usize>,
}

impl Reshard {
    /// Prints the version that has them.
    pub fn run(self) -> Result<ExitCode> {
        let secret = self.archive.secret()?;
        let graphs = graph_builder(IndexSettings::default().with_exact_rows_max(self.exact_rows_max));
        let version = super::block_on(async {
            let archive = self.archive.open(secret).await?;
            archive.reshard(self.shards, Some(graphs)).await
        })?;
        say!("version {version}: {} shards", self.shards);
        Ok(ExitCode::SUCCESS)
    }
}

/// Prove that what was deleted is gone: read every object and account for every row and picture in it.
///
/// A deleted image is invisible at once. Its bytes are gone within 24 hours where a server writes or `compact` runs every day, or at once by `compact --offline
/// --manifest-seconds 0 --object-seconds 0` with nobody else at the archive. Backups and what was exported are places of their own.
#[derive(Args)]
pub struct Erased {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// An image that was deleted; repeat it for more.
    #[arg(long, value_name = "IMAGE")]
    id: Vec<ImageId>,
}

impl Erased {
    /// Exit code 3 when anything of a deleted image is left.
    pub fn run(self) -> Result<ExitCode> {
        let secret = self.archive.secret()?;
        let report = super::block_on(async {
            let archive = self.archive.open(secret).await?;
            remains(&archive, &self.id).await
        })?;
        for (id, object) in &report.found {
            say!("left: image {id} in {object}");
        }
        for id in &report.living {
            say!("not deleted: image {id}");
        }
        for object in &report.unnamed {
            say!("left: {object}, which version {} does not name", report.version);
        }
        for object in &report.unread {
            say!("can't be read: {object}");
        }
        if report.waiting > 0 {
            say!("{} files wait in the inbox or failed there", report.waiting);
        }
        let since = report
            .since
            .map_or(String::new(), |since| format!(", the first deleted at {since}"));
        say!(
            "version {}: {} rows and {} bytes of pictures of deleted images left{since}; {} earlier versions, {} objects read",
            report.version,
            report.dead_rows,
            report.dead_picture_bytes,
            report.versions,
            report.objects
        );
        Ok(if report.is_clean() && report.living.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_PARTIAL)
        })
    }
}
