//! `medsearch labels`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::say::say;
use super::settings::{ArchiveArgs, warn_if_others_read};
use crate::archive::{Archive, LabelRules, Manifest, State};
use crate::domain::ClassLabel;
use crate::error::{Error, ErrorKind, Result};
use crate::ingest::LabelsFile;

/// Largest file of rules, in bytes.
const RULES_BYTES_MAX: u64 = 256 << 10;

/// Say which class the tags of a pushed DICOM file mean, or label images that are there by a file.
///
/// Without options it shows the rules of the archive, in the form in which they are given. Rules look at what is embedded from then on; what is there stays as it is.
/// The labels file names studies, series or instances (CSV with `study_uid`, `series_uid` or `sop_uid`, `class`, `label_source`): here it labels images that are there, with
/// `medsearch serve --labels-file` those that come. A label that somebody gave by the API stays.
#[derive(Args)]
pub struct Labels {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Take the rules of this file (TOML, a `[[rule]]` each; the first that a file meets counts) in the place of those that there are.
    #[arg(long, value_name = "FILE", group = "does")]
    rules: Option<PathBuf>,
    /// Drop all rules.
    #[arg(long, group = "does")]
    remove_rules: bool,
    /// Label the images that are there by this labels file.
    #[arg(long, value_name = "FILE", group = "does")]
    apply: Option<PathBuf>,
    /// Only say what that would change.
    #[arg(long, requires = "apply")]
    dry_run: bool,
}

impl Labels {
    /// Does what it is told, or shows the rules.
    pub fn run(self) -> Result<ExitCode> {
        let secret = self.archive.secret()?;
        let rules = match &self.rules {
            Some(path) => Some(read_rules(path)?),
            None => self.remove_rules.then(LabelRules::default),
        };
        super::block_on(async {
            let archive = self.archive.open(secret).await?;
            match (rules, &self.apply) {
                (Some(rules), _) => {
                    let manifest = archive.set_label_rules(rules.clone()).await?;
                    say!("rules: {}", rules.len());
                    say_new(&manifest, rules.classes());
                }
                (None, Some(path)) => apply(&archive, path, self.dry_run).await?,
                (None, None) => say!("{}", archive.latest().await?.archive.label_rules.to_toml()?.trim_end()),
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// A class that no image has may be meant, or mistyped.
fn say_new(manifest: &Manifest, named: BTreeSet<&ClassLabel>) {
    for class in named.into_iter().filter(|class| !manifest.classes.contains(class)) {
        say!("new here: no image has the class `{class}`");
    }
}

fn read_rules(path: &Path) -> Result<LabelRules> {
    let context = |error: Error| error.context(format!("the rules in `{}`", path.display()));
    let unread = |message: String, error: std::io::Error| Error::with_source(ErrorKind::InvalidRequest, message, error);
    let bytes = std::fs::metadata(path).map(|file| file.len());
    if bytes.is_ok_and(|bytes| bytes > RULES_BYTES_MAX) {
        let message = format!("they take more than `{RULES_BYTES_MAX}` bytes");
        return Err(context(Error::new(ErrorKind::InvalidRequest, message)));
    }
    let text = std::fs::read_to_string(path).map_err(|error| context(unread("can't be read".to_owned(), error)))?;
    LabelRules::parse(&text).map_err(context)
}

async fn apply(archive: &Archive, path: &Path, dry_run: bool) -> Result<()> {
    warn_if_others_read(path);
    let file = LabelsFile::open(path, archive.identity())?;
    let state = State::load(archive).await?;
    say_new(&state.manifest, file.classes());
    let meant = file.meant(&state);
    let done = archive.label(&meant.images, dry_run).await?;
    let would = if dry_run { "would be " } else { "" };
    say!(
        "{} images matched: {} {would}changed, {} had that label, {} keep what somebody gave them by the API; {} of {} UIDs name nothing here",
        meant.images.len(),
        done.changed,
        done.same,
        done.kept,
        meant.unknown,
        file.len()
    );
    Ok(())
}
