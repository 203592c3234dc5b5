//! `medsearch index`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::EXIT_PARTIAL;
use super::scope::ScopeArgs;
use super::settings::ArchiveArgs;
use crate::app::own_program;
use crate::archive::{IdentityMode, Retention, Shown};
use crate::error::Result;
use crate::imaging::{Decoder, DecoderSettings, Limits};
use crate::index::IndexSettings;
use crate::ingest::build::{self, BuildSettings, Wanted};

/// Make an archive from vectors: `.npy` and `.json` of `medsearch embed`, of the Python script or of other origin.
///
/// With `--data` the images are read too: the archive keeps thumbnails and pictures and knows equal pixels. An archive that exists gets the images that it
/// lacks; it stays what it was made, and flags that say otherwise are refused.
///
/// Ids of patients and studies become pseudonyms. Sex, age, projection, source and label stand in the open, and no other text of the data set does
/// unless `--tag` or `--show-file-names` says that it identifies nobody.
#[derive(Args)]
#[command(after_help = super::EXIT_CODES)]
pub struct Index {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Folder with one `.npy` and one `.json` a class.
    #[arg(long, value_name = "DIR")]
    embeddings: PathBuf,
    /// The images that the vectors were made of: folder or zip.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder of the model that made the vectors: kept in the archive, so that a server needs nothing else. `thumbnail` for the 32x32 grey embedder.
    #[arg(long, value_name = "DIR", env = "MEDSEARCH_MODEL")]
    model: Option<PathBuf>,
    /// Name shown to people. Default: the name of the folder of vectors.
    #[arg(long)]
    name: Option<String>,
    /// Licence of the images, shown to people.
    #[arg(long)]
    licence: Option<String>,
    /// Made for showing the product: offers sample queries.
    #[arg(long)]
    demo: bool,
    /// The images were made by a program: said wherever they are shown.
    #[arg(long)]
    synthetic: bool,
    /// What is kept of who an image belongs to. Default: linked.
    #[arg(long, value_enum)]
    identity: Option<Identity>,
    /// Which pixels are kept. Default: view.
    #[arg(long, value_enum)]
    retention: Option<Keep>,
    /// A tag (a column of `metadata.csv` that is no known field) that is not identifying and may be shown; repeat it for more. `split`, `modality`,
    /// `body_part` and `burned_in` always are, all others are left out of what is shown.
    #[arg(long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// Show the names of files: for public data, where they name nobody. Otherwise they are left out of what is shown.
    #[arg(long)]
    show_file_names: bool,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Don't look for copies of a picture among the images: saves time that grows with the square of their number. `medsearch duplicates --collapse` finds them
    /// later. More than 50,000 images, and those of a synthetic archive, are not looked through either.
    #[arg(long)]
    no_near_identical: bool,
    /// Shards; more than one is for a cluster. Default: 1.
    #[arg(long)]
    shards: Option<u32>,
    /// Classes with more rows than this get a graph. Default: 2000.
    #[arg(long, env = "MEDSEARCH_EXACT_ROWS_MAX")]
    exact_rows_max: Option<usize>,
    /// Threads that read and decode. Default: the number of processors.
    #[arg(long, env = "MEDSEARCH_DECODE_THREADS")]
    decode_threads: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Identity {
    /// Pseudonyms, and beside them each record as it came (ids, file name, all tags), encrypted with the archive's secret: `export` gives everything back.
    Linked,
    /// Pseudonyms only; ids, file names and unlisted tags are not kept, and nobody can get them back.
    Anonymous,
}

#[derive(Clone, Copy, ValueEnum)]
enum Keep {
    /// Every pixel at its original depth.
    Original,
    /// At most 1536 pixels on the long side, original depth, lossless.
    View,
    /// Thumbnails only.
    Thumbnail,
}

impl Index {
    /// Exit code 3 when images were left out.
    pub fn run(self) -> Result<ExitCode> {
        let threads = self.decode_threads.unwrap_or_else(super::processors);
        let settings = BuildSettings {
            embeddings: self.embeddings,
            data: self.data,
            model: self.model,
            wanted: Wanted {
                name: self.name,
                licence: self.licence,
                demo: self.demo,
                synthetic: self.synthetic,
                identity: self.identity.map(|identity| match identity {
                    Identity::Linked => IdentityMode::Linked,
                    Identity::Anonymous => IdentityMode::Anonymous,
                }),
                retention: self.retention.map(|keep| match keep {
                    Keep::Original => Retention::Original,
                    Keep::View => Retention::View,
                    Keep::Thumbnail => Retention::Thumbnail,
                }),
                shards: self.shards,
                scope: self.scope.scope()?,
                shown: Shown {
                    file_names: self.show_file_names,
                    tags: self.tags,
                },
            },
            index: IndexSettings::default().with_exact_rows_max(self.exact_rows_max),
            threads,
            near_identical: !self.no_near_identical,
            cache: self.archive.cache.settings(),
        };
        let decoder = decoder(threads);
        let report = super::block_on(build::build(
            &self.archive.archive,
            || self.archive.secret_or_new(),
            &decoder,
            &settings,
        ))?;
        eprintln!(
            "{} new images, {} further copies of known images, {} of them under another class, {} left out; {} graphs; version {} of the archive",
            report.inserted,
            report.duplicates + report.conflicts,
            report.conflicts,
            report.left_out.len(),
            report.graphs,
            report.version
        );
        match report.near_identical {
            Some(images) => eprintln!("{images} new images are near-identical to another one and count once with it"),
            None if settings.data.is_some() && settings.near_identical => eprintln!(
                "near-identical images were not looked for, since the archive is synthetic or has more than {} images: `medsearch duplicates --collapse` does",
                build::COMPARED_MAX
            ),
            None => {}
        }
        if settings.data.is_none() {
            eprintln!("without --data no pictures are kept: the archive is searched, but its images can't be shown");
        }
        for (tag, records) in &report.hidden_tags {
            eprintln!(
                "tag `{tag}` of {records} records is not shown, since it may name somebody; `--tag {tag}` shows it in a new archive"
            );
        }
        for (file, why) in &report.left_out {
            eprintln!("left out: {file}: {why}");
        }
        Ok(if report.left_out.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_PARTIAL)
        })
    }
}

/// A decoder for commands that read many files.
pub(super) fn decoder(threads: usize) -> Decoder {
    Decoder::new(DecoderSettings {
        limits: Limits::default(),
        workers: threads,
        worker_memory_bytes_max: 2 << 30,
        worker_seconds_max: 60,
        program: own_program(),
    })
}
