//! `medsearch card`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::say::say;
use super::settings::ArchiveArgs;
use crate::embed::ModelCard;
use crate::error::{Error, ErrorKind, Result};
use crate::quality::card::{Facts, Kept, Subject, datasheet, model_card};
use crate::quality::subject::Opened;

/// Write an archive's papers: MODEL_CARD.md (Mitchell et al. 2019, HTI-1) and DATASHEET.md (Gebru et al. 2021).
///
/// They are made of counts of the archive, its model, its calibration and the evaluation that `evaluate --keep` put there. What nobody told the archive
/// is "not known". No ids, and fewer than five people of an age or a sex are written `<5`.
#[derive(Args)]
pub struct Card {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// The folder to write to; files of these names are replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Card {
    /// Prints the names of the files.
    pub fn run(self) -> Result<ExitCode> {
        let secret = self.archive.secret()?;
        let documents = super::block_on(async {
            let opened = Opened::of(self.archive.open(secret).await?).await?;
            let manifest = &opened.version.state.manifest;
            let calibration = match &manifest.calibration {
                Some(entry) => opened.archive.read_calibration(entry).await.ok(),
                None => None,
            };
            let kept = match &manifest.evaluation {
                Some(entry) => Kept::read(entry, opened.archive.read_evaluation(entry).await),
                None => Kept::No,
            };
            let model = (manifest.model.as_ref())
                .and_then(|model| ModelCard::from_json(model.card.to_string().as_bytes()).ok());
            let facts = Facts::of(&opened.version);
            let subject = Subject {
                manifest,
                facts: &facts,
                model: model.as_ref(),
                calibration: calibration.as_ref(),
                kept: &kept,
            };
            Ok([
                ("MODEL_CARD.md", model_card(&subject)),
                ("DATASHEET.md", datasheet(&subject)),
            ])
        })?;
        std::fs::create_dir_all(&self.out).map_err(|error| {
            let message = format!("the folder `{}` can't be made", self.out.display());
            Error::with_source(ErrorKind::Unavailable, message, error)
        })?;
        for (name, document) in documents {
            let path = self.out.join(name);
            super::write_report(&path, &document.markdown())?;
            say!("{}", path.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}
