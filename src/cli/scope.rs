//! `medsearch scope`.

use std::process::ExitCode;

use clap::Args;

use super::say::say;
use super::settings::ArchiveArgs;
use crate::archive;
use crate::error::Result;

/// Which DICOM objects an archive takes.
#[derive(Args)]
pub struct ScopeArgs {
    /// Take DICOM objects of this modality only (`CR`, `DX`, …); repeat it for more. `UNSTATED`, here and below, admits those that don't say.
    #[arg(long = "modality", value_name = "CODE", help_heading = "Scope")]
    modality: Vec<String>,
    /// Take DICOM objects of this body part only (`CHEST`, …); repeat it for more.
    #[arg(long = "body-part", value_name = "CODE", help_heading = "Scope")]
    body_part: Vec<String>,
    /// Take DICOM objects of this projection only (`PA`, `AP`, …); repeat it for more.
    #[arg(long = "view", value_name = "CODE", help_heading = "Scope")]
    view: Vec<String>,
    /// Take DICOM objects of this SOP class only (a UID); repeat it for more.
    #[arg(long = "sop-class", value_name = "UID", help_heading = "Scope")]
    sop_class: Vec<String>,
}

impl ScopeArgs {
    /// As an archive has it.
    ///
    /// # Errors
    /// `InvalidRequest` for values that no header has.
    pub fn scope(self) -> Result<archive::Scope> {
        archive::Scope::new(self.sop_class, self.modality, self.body_part, self.view)
    }

    fn is_empty(&self) -> bool {
        [&self.modality, &self.body_part, &self.view, &self.sop_class]
            .iter()
            .all(|list| list.is_empty())
    }
}

/// Show what an archive takes, or say what it shall take from now on.
///
/// A DICOM object of another kind that is sent is answered as received, with a warning, counted, and not kept. What is in the archive stays. Files that are no DICOM,
/// and `medsearch index`, are not restricted.
#[derive(Args)]
pub struct Scope {
    #[command(flatten)]
    archive: ArchiveArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Take everything.
    #[arg(long, conflicts_with_all = ["modality", "body_part", "view", "sop_class"], help_heading = "Scope")]
    everything: bool,
}

impl Scope {
    /// Prints the scope, after it was changed if it was.
    pub fn run(self) -> Result<ExitCode> {
        let secret = self.archive.secret()?;
        let changes = self.everything || !self.scope.is_empty();
        let scope = self.scope.scope()?;
        let manifest = super::block_on(async {
            let archive = self.archive.open(secret).await?;
            match changes {
                true => archive.set_scope(scope).await,
                false => archive.latest().await,
            }
        })?;
        let scope = &manifest.archive.scope;
        for (name, list) in [
            ("modality", &scope.modality),
            ("body part", &scope.body_part),
            ("view", &scope.view),
            ("SOP class", &scope.sop_classes),
        ] {
            let shown = if list.is_empty() {
                "any".to_owned()
            } else {
                list.join(", ")
            };
            say!("{name}: {shown}");
        }
        Ok(ExitCode::SUCCESS)
    }
}
