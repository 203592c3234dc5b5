//! `medsearch export`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::settings::ArchiveArgs;
use crate::archive::export;
use crate::error::Result;

/// Give an archive back as `.npy` and `.json`.
///
/// An archive of identity mode `linked` gives back exactly the vectors and records that came in; one of mode `anonymous` has pseudonyms in place of ids.
#[derive(Args)]
pub struct Export {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Folder to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Export {
    /// Writes one `.npy` and one `.json` a class.
    pub fn run(self) -> Result<ExitCode> {
        let secret = self.archive.secret()?;
        let report = super::block_on(async {
            let archive = self.archive.open(secret).await?;
            export(&archive, &self.out).await
        })?;
        eprintln!(
            "wrote {} records of {} classes to {}",
            report.records,
            report.classes,
            self.out.display()
        );
        Ok(ExitCode::SUCCESS)
    }
}
