//! `medsearch backup`, `medsearch restore` and `medsearch heal`.

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;

use super::EXIT_PARTIAL;
use super::say::say;
use crate::archive::{Copied, CopyStep, backup, heal, restore};
use crate::error::Result;
use crate::ingest::progress::Progress;

/// Time between two lines of progress where there is no terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

const BACKUP_NOTES: &str = "\
Every object is held against its digest. What is there already is not copied again, and what the newest version does not need is removed. A backup that is interrupted is never taken for a whole one: run it again.

The archive's secret is neither needed nor part of it: keep a copy of its file elsewhere. Nothing opens a restored archive without it, not even to search.

What is deleted from the archive lives on in its backups until the next run after the archive has written anew what held it: within 24 hours, or at once by `compact`.";

const RESTORE_NOTES: &str = "\
Every object is held against its digest. The archive is what it was when the backup was made, and opens with the secret that it had then, which is no part of the backup: put its file beside the archive's folder, or name it with `--secret-file`.

Stop every program that still has the lost archive open before you restore to its place.";

/// Copy the newest version of an archive to another place, or bring such a copy up to date.
#[derive(Args)]
#[command(after_long_help = BACKUP_NOTES)]
pub struct Backup {
    /// The archive: a folder, or a URL with `file://`, `s3://`, `gs://` or `az://`. Credentials and endpoint of buckets come from the environment, the same for both.
    #[arg(long, value_name = "URL", env = "MEDSEARCH_ARCHIVE")]
    archive: String,
    /// Where the backup is to be: an empty place, or this archive's backup.
    #[arg(long, value_name = "URL")]
    to: String,
    /// Read what is there already too, and copy again what is damaged.
    #[arg(long)]
    verify: bool,
}

impl Backup {
    /// Prints what was copied and removed.
    pub fn run(self) -> Result<ExitCode> {
        shown(async |step| backup(&self.archive, &self.to, self.verify, step).await)
    }
}

/// Make an archive from its backup, in an empty place or where a restore was interrupted.
#[derive(Args)]
#[command(after_long_help = RESTORE_NOTES)]
pub struct Restore {
    /// The backup: a folder, or a URL with `file://`, `s3://`, `gs://` or `az://`. Credentials and endpoint of buckets come from the environment, the same for both.
    #[arg(long, value_name = "URL")]
    from: String,
    /// Where the archive is to be.
    #[arg(long, value_name = "URL", env = "MEDSEARCH_ARCHIVE")]
    archive: String,
    /// Read what an interrupted restore left too, and copy again what is damaged.
    #[arg(long)]
    verify: bool,
}

impl Restore {
    /// Prints what was copied.
    pub fn run(self) -> Result<ExitCode> {
        shown(async |step| restore(&self.from, &self.archive, self.verify, step).await)
    }
}

const HEAL_NOTES: &str = "\
Every object of the archive's newest version is read and held against its digest. Nothing that is whole is touched, so servers may have the archive open, and those that wait for a version go on as soon as it is whole. The backup may be older: what the archive has written since can't come from it.

Not healed by this: graphs, which a server that writes builds again within the hour, and `compact` at once; a newest manifest that can't be read, which the next write of a server that runs replaces; and reports about labels.

The exit code is 0 when the version is whole now, 3 when something still is damaged.";

/// Put what is damaged or missing in an archive back from its backup, in place.
#[derive(Args)]
#[command(after_long_help = HEAL_NOTES)]
pub struct Heal {
    /// The archive: a folder, or a URL with `file://`, `s3://`, `gs://` or `az://`. Credentials and endpoint of buckets come from the environment, the same for both.
    #[arg(long, value_name = "URL", env = "MEDSEARCH_ARCHIVE")]
    archive: String,
    /// Its backup.
    #[arg(long, value_name = "URL")]
    from: String,
}

impl Heal {
    /// Prints what was healed, and what still is damaged.
    pub fn run(self) -> Result<ExitCode> {
        let healed = with_progress(async |step| heal(&self.archive, &self.from, step).await)?;
        for name in &healed.healed {
            say!("healed: `{name}`");
        }
        for why in &healed.damaged {
            say!("damaged: {why}");
        }
        say!(
            "version {}: {} objects read, {} healed, {} damaged",
            healed.version,
            healed.objects,
            healed.healed.len(),
            healed.damaged.len()
        );
        match healed.damaged.is_empty() {
            true => Ok(ExitCode::SUCCESS),
            false => Ok(ExitCode::from(EXIT_PARTIAL)),
        }
    }
}

/// Runs a copy, and prints what it did.
fn shown(copy: impl AsyncFnOnce(&(dyn Fn(CopyStep) + Sync)) -> Result<Copied>) -> Result<ExitCode> {
    let copied = with_progress(copy)?;
    say!(
        "version {}: {} objects ({} bytes) copied, {} there already, {} ({} bytes) removed",
        copied.version,
        copied.objects_copied,
        copied.bytes_copied,
        copied.objects_present,
        copied.objects_removed,
        copied.bytes_removed
    );
    Ok(ExitCode::SUCCESS)
}

/// Runs what goes object by object with its progress on stderr.
fn with_progress<T>(work: impl AsyncFnOnce(&(dyn Fn(CopyStep) + Sync)) -> Result<T>) -> Result<T> {
    let progress: Mutex<Option<Progress>> = Mutex::default();
    let locked = || progress.lock().unwrap_or_else(PoisonError::into_inner);
    let step = |step| match step {
        CopyStep::Planned { objects } => *locked() = Some(Progress::of("objects", objects, PROGRESS_EVERY)),
        CopyStep::Done => {
            if let Some(progress) = locked().as_mut() {
                progress.done(1);
            }
        }
    };
    let done = super::block_on(work(&step))?;
    if let Some(progress) = locked().as_ref() {
        progress.finish();
    }
    Ok(done)
}
