//! `medsearch feedback`.

use std::process::ExitCode;

use clap::Args;

use super::EXIT_PARTIAL;
use super::say::say;
use super::settings::ArchiveArgs;
use crate::archive::{Archive, FeedbackId};
use crate::error::{Error, ErrorKind, Result};

/// Reports read at a time.
const PAGE: usize = 1000;

/// List the reports about labels, those of one image together, and close them.
///
/// What they wrote may name a patient: it is kept encrypted, shown here and to whoever may change the archive, and goes with the image.
#[derive(Args)]
pub struct Feedback {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
    /// Delete this report instead; repeat it for more.
    #[arg(long, value_name = "ID", conflicts_with = "json")]
    resolve: Vec<FeedbackId>,
}

impl Feedback {
    /// Exit code 3 when a report can't be read.
    pub fn run(self) -> Result<ExitCode> {
        let secret = self.archive.secret()?;
        super::block_on(async {
            let archive = self.archive.open(secret).await?;
            if self.resolve.is_empty() {
                return self.list(&archive).await;
            }
            for id in &self.resolve {
                archive.resolve(*id).await?;
                say!("resolved {id}");
            }
            Ok(ExitCode::SUCCESS)
        })
    }

    async fn list(&self, archive: &Archive) -> Result<ExitCode> {
        let (mut after, mut open, mut unreadable) = (None, 0, 0);
        loop {
            let page = archive.reports(after, PAGE).await?;
            for report in &page.open {
                say!("{}", self.line(report)?);
            }
            for id in &page.unreadable {
                eprintln!("can't be read: {id}");
            }
            open += page.open.len();
            unreadable += page.unreadable.len();
            after = page.last;
            if !page.more {
                break;
            }
        }
        if !self.json {
            say!("{open} open, {unreadable} that can't be read");
        }
        Ok(if unreadable == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_PARTIAL)
        })
    }

    fn line(&self, report: &crate::archive::Report) -> Result<String> {
        let class = |class: &Option<crate::domain::ClassLabel>| class.as_ref().map(ToString::to_string);
        if self.json {
            let line = serde_json::json!({
                "id": report.id.to_string(),
                "image": report.id.image.to_string(),
                "class": class(&report.class),
                "suggested": class(&report.suggested),
                "reason": report.reason,
                "reported_at": report.reported_at.to_string(),
            });
            return serde_json::to_string(&line)
                .map_err(|error| Error::with_source(ErrorKind::Internal, "a report can't be written as JSON", error));
        }
        // What was written can't move the cursor or begin a line of its own.
        let reason: String = report
            .reason
            .chars()
            .map(|c| if c.is_control() || turns_text(c) { ' ' } else { c })
            .collect();
        Ok(format!(
            "{}  {}  {} -> {}  {reason}",
            report.id,
            report.reported_at,
            class(&report.class).unwrap_or_else(|| "no class".to_owned()),
            class(&report.suggested).unwrap_or_else(|| "not sure".to_owned()),
        ))
    }
}

/// Characters that change the direction of what stands around them (Unicode Standard Annex 9).
fn turns_text(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
