//! `medsearch deletions`.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::settings::ArchiveArgs;
use crate::archive::ConfirmedSweep;
use crate::error::{Error, ErrorKind, Result};
use crate::pacs::PacsName;

/// Say which deletions of a followed Orthanc wait for somebody to confirm them, and confirm them.
///
/// Where so many instances are gone from an Orthanc that its disk may be missing, or its database new, nothing is deleted here until somebody has looked.
#[derive(Args)]
pub struct Deletions {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Let what is gone from the Orthanc of this name go here too, within the next day. Whichever server follows it does so within seconds, and looks again before.
    #[arg(long, value_name = "NAME", requires = "instances")]
    confirm: Option<String>,
    /// As many instances as this at most: the number that was said.
    #[arg(long, value_name = "N", requires = "confirm")]
    instances: Option<usize>,
}

impl Deletions {
    /// Lists, or confirms.
    pub fn run(self) -> Result<ExitCode> {
        let secret = self.archive.secret()?;
        super::block_on(async {
            let archive = self.archive.open(secret).await?;
            let refused = archive.refused_sweeps().await?;
            if let (Some(name), Some(instances)) = (&self.confirm, self.instances) {
                let name = PacsName::parse(name)?;
                if !refused.iter().any(|(of, _)| of == name.as_str()) {
                    let message = format!("no deletions of `{name}` wait to be confirmed");
                    return Err(Error::new(ErrorKind::NotFound, message));
                }
                let since = Timestamp::now();
                let confirmed = ConfirmedSweep { instances, since };
                archive.origins(name.as_str()).confirm(Some(&confirmed)).await?;
                println!("confirmed: up to {instances} instances of `{name}` may go");
                return Ok(ExitCode::SUCCESS);
            }
            for (name, sweep) in &refused {
                println!(
                    "{name}: {} of {} instances with an image are gone since {}: --confirm {name} --instances {}",
                    sweep.instances, sweep.of, sweep.since, sweep.instances
                );
            }
            if refused.is_empty() {
                println!("no deletions wait to be confirmed");
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}
