//! `medsearch reembed`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::embed::model_dir;
use super::index::decoder;
use super::say::say;
use super::settings::ArchiveArgs;
use crate::embed::load_backend;
use crate::error::Result;
use crate::index::IndexSettings;
use crate::ingest::reembed::{ReembedSettings, reembed};

/// Move an archive to another model: every image is embedded by it, and one version takes all of that into use.
///
/// Servers go on by the old model until then, and load the new one before they answer by it; what is uploaded meanwhile is embedded too. Pictures are those that the
/// archive keeps, or the files that they came from. What was learned and measured with the old model (`fit`, `evaluate --keep`) goes with it.
#[derive(Args)]
pub struct Reembed {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Folder of the new model, which the archive keeps; `thumbnail` for the 32x32 grey embedder.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder or zip with the files that the images came from, told by their bytes. Needed for images of which a thumbnail is kept at most; otherwise a gain where large
    /// pictures were kept smaller.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where the model runs: `auto`, `cpu` or `cuda:N`.
    #[arg(long, default_value = "auto", env = "MEDSEARCH_DEVICE")]
    device: String,
    /// Classes with more rows than this get a graph. Default: 2000.
    #[arg(long, env = "MEDSEARCH_EXACT_ROWS_MAX")]
    exact_rows_max: Option<usize>,
    /// Threads that read and decode. Default: the number of processors.
    #[arg(long, env = "MEDSEARCH_DECODE_THREADS")]
    decode_threads: Option<usize>,
}

impl Reembed {
    /// Prints the version that is of the new model.
    pub fn run(self) -> Result<ExitCode> {
        let secret = self.archive.secret()?;
        let threads = self.decode_threads.unwrap_or_else(super::processors);
        let mut backend = load_backend(model_dir(&self.model), &self.device)?;
        backend.warm_up()?;
        let settings = ReembedSettings {
            model: self.model,
            data: self.data,
            index: IndexSettings::default().with_exact_rows_max(self.exact_rows_max),
            threads,
        };
        let done = super::block_on(async {
            let archive = self.archive.open(secret).await?;
            reembed(&archive, backend, &decoder(threads), &settings).await
        })?;
        say!("version {}: {} images embedded", done.version, done.images);
        Ok(ExitCode::SUCCESS)
    }
}
