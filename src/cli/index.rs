//! `medsearch index`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::EXIT_PARTIAL;
use super::settings::ArchiveArgs;
use crate::app::own_program;
use crate::archive::{IdentityMode, Retention};
use crate::error::Result;
use crate::imaging::{Decoder, DecoderSettings, Limits};
use crate::index::IndexSettings;
use crate::ingest::build::{self, BuildSettings};

/// Make an archive from vectors: `.npy` and `.json` of `medsearch embed`, of the Python script or of other origin.
///
/// With `--data` the images are read too: the archive keeps thumbnails and pictures and knows equal pixels. An archive that exists gets the images that it lacks.
#[derive(Args)]
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
    /// What is kept of who an image belongs to.
    #[arg(long, value_enum, default_value_t = Identity::Linked)]
    identity: Identity,
    /// Which pixels are kept.
    #[arg(long, value_enum, default_value_t = Keep::View)]
    retention: Keep,
    /// Shards; more than one is for a cluster.
    #[arg(long, default_value_t = 1)]
    shards: u32,
    /// Classes with more rows than this get a graph.
    #[arg(long, env = "MEDSEARCH_EXACT_ROWS_MAX")]
    exact_rows_max: Option<usize>,
    /// Threads that read and decode. Default: the number of processors.
    #[arg(long, env = "MEDSEARCH_DECODE_THREADS")]
    decode_threads: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Identity {
    /// Pseudonyms, and beside them the ids encrypted with the archive's secret: `export` gives everything back.
    Linked,
    /// Pseudonyms only: nobody can get an id back.
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
        let name = self.name.clone().unwrap_or_else(|| {
            self.embeddings.file_name().map_or_else(|| "archive".to_owned(), |name| name.to_string_lossy().into_owned())
        });
        let settings = BuildSettings {
            embeddings: self.embeddings,
            data: self.data,
            model: self.model,
            name,
            licence: self.licence,
            demo: self.demo,
            synthetic: self.synthetic,
            identity: match self.identity {
                Identity::Linked => IdentityMode::Linked,
                Identity::Anonymous => IdentityMode::Anonymous,
            },
            retention: match self.retention {
                Keep::Original => Retention::Original,
                Keep::View => Retention::View,
                Keep::Thumbnail => Retention::Thumbnail,
            },
            shards: self.shards,
            index: IndexSettings::default().with_exact_rows_max(self.exact_rows_max),
            threads,
        };
        let decoder = decoder(threads);
        let report = super::block_on(build::build(&self.archive.archive, || self.archive.secret_or_new(), &decoder, &settings))?;
        eprintln!(
            "version {}: {} new images, {} files known already, {} under another class than before, {} left out; {} graphs",
            report.version,
            report.inserted,
            report.duplicates,
            report.conflicts,
            report.left_out.len(),
            report.graphs
        );
        for (file, why) in &report.left_out {
            eprintln!("left out: {file}: {why}");
        }
        Ok(if report.left_out.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_PARTIAL) })
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
