//! `medsearch verify-audit`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::EXIT_PARTIAL;
use super::say::say;
use super::settings::ArchiveArgs;
use crate::audit::{AuditFile, Report, Verifier, audit_files};
use crate::error::{Error, ErrorKind, Result};

/// Read an audit and name what is not as it was written.
///
/// Every line is held against its hash and the line before, every file against the one before, and every process against the heads that the archive has of it: what was changed, deleted, moved, put in, made up or cut off is named with file and line.
/// Processes that were killed, and events that have no line since the audit could not be written, are told of and are no fault. Servers may go on writing meanwhile.
#[derive(Args)]
pub struct VerifyAudit {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// A folder with files of the audit; repeat it where several servers of the archive have one each.
    #[arg(long, required = true, value_name = "DIR", env = "MEDSEARCH_AUDIT_DIR")]
    audit_dir: Vec<PathBuf>,
    /// Only servers of this name, as lines have it in `replica`; repeat it for more. The files of others are not missed.
    #[arg(long, value_name = "NAME")]
    replica: Vec<String>,
    /// Files of before this time may have been moved elsewhere, for example `2027-01-31T00:00:00Z`.
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl VerifyAudit {
    /// Exit code 3 when something is not as it was written.
    pub fn run(self) -> Result<ExitCode> {
        let secret = self.archive.secret()?;
        // Heads first: what is written meanwhile is behind them.
        let known = super::block_on(async { self.archive.open(secret).await?.audit_heads().await })?;
        let ours = |name: &str| self.replica.is_empty() || self.replica.iter().any(|replica| replica == name);
        let all = known.heads.clone();
        let heads: Vec<_> = known.heads.into_iter().filter(|head| ours(&head.replica)).collect();
        let mut verifier = Verifier::new(&heads, self.since).vouched(&all, &self.replica);
        known.unread.iter().for_each(|name| verifier.unread_head(name));
        let report = verifier.read(&self.files()?)?;
        if self.json {
            let text = serde_json::to_string_pretty(&report)
                .map_err(|error| Error::with_source(ErrorKind::Internal, "a report can't be written as JSON", error))?;
            say!("{text}");
        } else {
            print(&report, heads.len());
        }
        Ok(if report.is_whole() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_PARTIAL)
        })
    }

    /// The files of all folders, by name, so that those of a process stand in their order.
    fn files(&self) -> Result<Vec<AuditFile>> {
        let mut files = Vec::new();
        for folder in &self.audit_dir {
            files.extend(audit_files(folder)?);
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }
}

fn print(report: &Report, heads: usize) {
    for finding in &report.findings {
        say!("{finding}");
    }
    if report.more_findings > 0 {
        say!("and {} more", report.more_findings);
    }
    for note in &report.notes {
        say!("note: {note}");
    }
    let (files, lines, processes) = (report.files, report.lines, report.processes);
    let found = report.findings.len() as u64 + report.more_findings;
    say!("{lines} lines in {files} files of {processes} processes, {heads} heads in the archive, {found} faults");
}
