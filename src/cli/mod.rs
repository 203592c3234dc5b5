//! The command line: one file a command, settings by flag, environment or file.

mod backup;
mod bench;
mod card;
mod deletions;
mod duplicates;
mod embed;
mod evaluate;
mod export;
mod feedback;
mod fit;
mod inbox;
mod index;
mod key;
mod labels;
mod maintain;
mod oidc;
mod openapi;
mod reembed;
mod say;
mod scope;
mod search;
mod serve;
mod settings;
mod verify_audit;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::imaging;
use crate::telemetry;

/// Exit code of a command that did its work but met images or objects it had to leave out.
pub const EXIT_PARTIAL: u8 = 3;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 wrong command line; 3 done, but what is broken was left out or found, and is named.";

/// Medical image similarity search: find the most similar known cases to an X-ray or MRI.
///
/// Research use only, not for diagnosis.
#[derive(Parser)]
#[command(
    name = "medsearch",
    version,
    max_term_width = 110,
    after_help = EXIT_CODES,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    /// TOML file with one table a command, for example `[serve]` with `listen = "127.0.0.1:8000"`; flags and environment win over it.
    #[arg(long, global = true, value_name = "FILE", env = "MEDSEARCH_CONFIG")]
    config: Option<PathBuf>,
    /// What is logged, for example `info` or `medsearch=debug,warn`.
    #[arg(
        long,
        global = true,
        default_value = "info",
        value_name = "LEVEL",
        env = "MEDSEARCH_LOG"
    )]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Turn a folder (or zip) of images into vectors: one `.npy` and one `.json` a class
    Embed(embed::Embed),
    /// Make an archive from such vectors
    Index(index::Index),
    /// Answer queries over an archive: the page, the API, metrics
    Serve(Box<serve::Serve>),
    /// Make, list and revoke the keys by which a server knows who may do what
    Key(key::Key),
    /// Search an archive for one image
    Search(search::Search),
    /// Give an archive back as `.npy` and `.json`
    Export(export::Export),
    /// Measure how good an archive's answers are, beside what a shortcut would reach: figures as JSON and as a page
    Evaluate(evaluate::Evaluate),
    /// Write an archive's MODEL_CARD.md and DATASHEET.md
    Card(card::Card),
    /// List the reports about labels, and close them
    Feedback(feedback::Feedback),
    /// Say what belongs into an archive: which DICOM objects are taken
    Scope(scope::Scope),
    /// Say which class pushed images have, by the tags of their files or by a file of UIDs
    Labels(labels::Labels),
    /// List the files that wait to be embedded or can't be, and try these again
    Inbox(inbox::Inbox),
    /// Say which deletions of a followed Orthanc wait for somebody to confirm them, and confirm them
    Deletions(deletions::Deletions),
    /// Learn from an archive's labels what counts as similar and what a vote is worth
    Fit(fit::Fit),
    /// Find pictures that are in an archive twice
    Duplicates(duplicates::Duplicates),
    /// Read everything in an archive and name what is damaged
    Verify(maintain::Verify),
    /// Read an audit and name what is not as it was written
    VerifyAudit(verify_audit::VerifyAudit),
    /// Merge small objects and delete what nothing refers to any more
    Compact(maintain::Compact),
    Reshard(maintain::Reshard),
    Reembed(reembed::Reembed),
    Erased(maintain::Erased),
    /// Copy an archive to another place, or bring its copy up to date
    Backup(backup::Backup),
    /// Make an archive from its backup
    Restore(backup::Restore),
    /// Put what an archive has lost back from its backup
    Heal(backup::Heal),
    /// Measure embedding and searching, stage by stage
    Bench(bench::Bench),
    /// Print the description of the HTTP API
    Openapi,
    /// Decode DICOM files sent on standard input (started by the other commands)
    #[command(hide = true)]
    DecodeWorker,
}

/// Runs one command; the exit code is 0, [`EXIT_PARTIAL`], 2 for a wrong command line, 1 for anything else.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // SAFETY: this is the program's first thread, and it has started no other.
    unsafe { settings::use_huge_pages() };
    settings::share_heaps();
    settings::write_for_oneself();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match settings::with_file(Cli::command(), &arguments).and_then(|command| {
        let matches = command.get_matches_from(&arguments);
        Cli::from_arg_matches(&matches).map_err(|error| error.exit())
    }) {
        Ok(cli) => cli,
        Err(error) => return fail(&error),
    };
    // The worker speaks its protocol on the standard streams and nothing else.
    if matches!(cli.command, Command::DecodeWorker) {
        return imaging::decode_worker_main();
    }
    let logging = match &cli.command {
        Command::Bench(_) => telemetry::start_unseen(&cli.log).map(|()| None),
        Command::Serve(command) => command.traces().and_then(|traces| match traces {
            Some(traces) => telemetry::start_traced(&cli.log, traces).map(Some),
            None => telemetry::start(&cli.log).map(|()| None),
        }),
        _ => telemetry::start(&cli.log).map(|()| None),
    };
    let spans = match logging {
        Ok(spans) => spans,
        Err(error) => return fail(&error),
    };
    let outcome = match cli.command {
        Command::Embed(command) => command.run(),
        Command::Index(command) => command.run(),
        Command::Serve(command) => command.run(spans),
        Command::Key(command) => command.run(),
        Command::Search(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Evaluate(command) => command.run(),
        Command::Card(command) => command.run(),
        Command::Feedback(command) => command.run(),
        Command::Scope(command) => command.run(),
        Command::Labels(command) => command.run(),
        Command::Inbox(command) => command.run(),
        Command::Deletions(command) => command.run(),
        Command::Fit(command) => command.run(),
        Command::Duplicates(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::VerifyAudit(command) => command.run(),
        Command::Compact(command) => command.run(),
        Command::Reshard(command) => command.run(),
        Command::Reembed(command) => command.run(),
        Command::Erased(command) => command.run(),
        Command::Backup(command) => command.run(),
        Command::Restore(command) => command.run(),
        Command::Heal(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Openapi => openapi::run(),
        Command::DecodeWorker => return ExitCode::SUCCESS,
    };
    outcome.unwrap_or_else(|error| fail(&error))
}

fn fail(error: &crate::error::Error) -> ExitCode {
    eprintln!("medsearch: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        eprintln!("  because: {inner}");
        cause = inner.source();
    }
    ExitCode::FAILURE
}

/// Processors that this process may use.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A runtime for commands that talk to the archive.
fn block_on<T>(future: impl Future<Output = crate::error::Result<T>>) -> crate::error::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            crate::error::Error::with_source(crate::error::ErrorKind::Internal, "no async runtime", error)
        })?
        .block_on(future)
}

/// Refuses a report's path before the work begins, not after.
fn check_report(path: &std::path::Path) -> crate::error::Result<()> {
    if report_folder(path).is_dir() && !path.is_dir() {
        return Ok(());
    }
    let message = format!("`{}` can't be written: there is no such folder", path.display());
    Err(crate::error::Error::new(
        crate::error::ErrorKind::InvalidRequest,
        message,
    ))
}

/// A file for its owner, written whole or not at all.
fn write_report(path: &std::path::Path, text: &str) -> crate::error::Result<()> {
    use std::io::Write as _;
    let written = tempfile::NamedTempFile::new_in(report_folder(path)).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.persist(path).map_err(|error| error.error)
    });
    written.map(drop).map_err(|error| {
        crate::error::Error::with_source(
            crate::error::ErrorKind::Unavailable,
            format!("`{}` can't be written", path.display()),
            error,
        )
    })
}

fn report_folder(path: &std::path::Path) -> &std::path::Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(std::path::Path::new("."))
}
