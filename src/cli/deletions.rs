//! `medsearch deletions`.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::say::say;
use super::settings::ArchiveArgs;
use crate::archive::ConfirmedSweep;
use crate::error::{Error, ErrorKind, Result};
use crate::pacs::PacsName;

/// Say which deletions of a followed Orthanc wait for somebody to confirm them, and confirm them.
///
/// Where the instances of so many images are gone from an Orthanc that its disk may be missing, or its database new, nothing is deleted here until somebody has looked.
#[derive(Args)]
pub struct Deletions {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Let what is gone from the Orthanc of this name go here too, within the next day. Whichever server follows it does so within seconds, and looks again before.
    #[arg(long, value_name = "NAME", requires = "images")]
    confirm: Option<String>,
    /// As many images as this at most: the number that was said, or more.
    #[arg(long, value_name = "N", requires = "confirm")]
    images: Option<usize>,
}

impl Deletions {
    /// Lists, or confirms.
    pub fn run(self) -> Result<ExitCode> {
        let secret = self.archive.secret()?;
        super::block_on(async {
            let archive = self.archive.open(secret).await?;
            let refused = archive.refused_sweeps().await?;
            if let (Some(name), Some(images)) = (&self.confirm, self.images) {
                let name = PacsName::parse(name)?;
                let Some((_, sweep)) = refused.iter().find(|(of, _)| of == name.as_str()) else {
                    let message = format!("no deletions of `{name}` wait to be confirmed");
                    return Err(Error::new(ErrorKind::NotFound, message));
                };
                if images < sweep.images {
                    let message = format!(
                        "images of `{name}` that would go: {}, all or none: nothing is confirmed by --images {images}",
                        sweep.images
                    );
                    return Err(Error::new(ErrorKind::InvalidRequest, message));
                }
                let since = Timestamp::now();
                let confirmed = ConfirmedSweep { images, since };
                archive.origins(name.as_str()).confirm(Some(&confirmed)).await?;
                say!("confirmed: images of `{name}` that may go: {images} at most");
                return Ok(ExitCode::SUCCESS);
            }
            for (name, sweep) in &refused {
                say!(
                    "{name}: the instances of {} of {} images are gone since {}: --confirm {name} --images {}",
                    sweep.images,
                    sweep.of,
                    sweep.since,
                    sweep.images
                );
            }
            if refused.is_empty() {
                say!("no deletions wait to be confirmed");
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}
