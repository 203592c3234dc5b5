//! `medsearch inbox`.

use std::process::ExitCode;

use clap::Args;

use super::say::say;
use super::settings::ArchiveArgs;
use crate::archive::InboxId;
use crate::error::Result;

/// Failed files that are listed.
const LISTED_MAX: usize = 1_000;

/// Say how many files wait to be embedded, and list those that can't be, with the reason.
///
/// Files are named by pseudonyms, kept encrypted, and go with their patient. Any server that writes embeds what waits.
#[derive(Args)]
pub struct Inbox {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Let this file that failed wait again; repeat it for more.
    #[arg(long, value_name = "NAME")]
    retry: Vec<InboxId>,
    /// Let all that failed wait again, for example after an upgrade.
    #[arg(long, conflicts_with = "retry")]
    retry_all: bool,
    /// Drop this file that failed; repeat it for more.
    #[arg(long, value_name = "NAME")]
    forget: Vec<InboxId>,
}

impl Inbox {
    /// Lists, or does what it is told.
    pub fn run(self) -> Result<ExitCode> {
        let secret = self.archive.secret()?;
        super::block_on(async {
            let inbox = self.archive.open(secret).await?.inbox();
            let mut retry = self.retry;
            if self.retry_all {
                retry = (inbox.failed(LISTED_MAX).await?.into_iter())
                    .map(|failed| failed.id)
                    .collect();
            }
            for id in &retry {
                inbox.retry(*id).await?;
            }
            for id in &self.forget {
                inbox.forget(*id).await?;
            }
            for failed in inbox.failed(LISTED_MAX).await? {
                let reason = &failed.reason;
                say!("{}  {}  {}: {}", failed.id, failed.since, reason.kind, reason.message);
            }
            let (waiting, failed) = (inbox.list().await?, inbox.failed_count().await?);
            let since = waiting
                .first()
                .map_or(String::new(), |first| format!(", the oldest since {}", first.since));
            say!("{} files wait{since}; {failed} could not be embedded", waiting.len());
            Ok(ExitCode::SUCCESS)
        })
    }
}
