//! `medsearch key`: who may do what at a server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::say::say;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{ApiKey, Key as Listed, KeyName, KeysFile, Scope, Scopes};

/// Make, list and revoke keys.
///
/// A server started with `--keys-file FILE` takes the keys of the file, each for what its scopes say, and follows every change of it within seconds: `search` (searches and whatever
/// they show), `vectors` (vectors of images), `ingest` (images come in, get another label, go), `metrics`, `link` (with `search`: whose images these are, where the archive keeps that) and `admin` (everything).
#[derive(Args)]
pub struct Key {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    New(New),
    List(List),
    Revoke(Revoke),
}

/// Make a key and print it: this once, since only its digest is kept.
#[derive(Args)]
struct New {
    /// What the key is called in logs and traces. It shall say whose it is.
    #[arg(long, value_name = "NAME")]
    name: KeyName,
    /// What it may do: `search`, `vectors`, `ingest`, `link`, `metrics` or `admin`. Repeat it for more.
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    scopes: Vec<Scope>,
    /// When it ends: at the beginning of a day (`2027-01-31`, UTC), or at an RFC 3339 time. Default: when it is revoked.
    #[arg(long, value_name = "DATE", value_parser = end)]
    expires: Option<Timestamp>,
    #[command(flatten)]
    file: FileArgs,
}

/// List the keys, each with what it may do, since when and until when.
#[derive(Args)]
struct List {
    #[command(flatten)]
    file: FileArgs,
}

/// Take a key off the list: servers that follow the file no longer take it within seconds.
#[derive(Args)]
struct Revoke {
    /// What the key is called.
    #[arg(value_name = "NAME")]
    name: KeyName,
    #[command(flatten)]
    file: FileArgs,
}

/// Where the keys are.
#[derive(Args)]
struct FileArgs {
    /// File with the keys. `new` makes it, with mode 0600, where there is none.
    #[arg(long, value_name = "FILE", env = "MEDSEARCH_KEYS_FILE")]
    file: PathBuf,
}

impl Key {
    /// Makes, lists or revokes.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::New(new) => new.run(Timestamp::now())?,
            Command::List(list) => list.run(Timestamp::now())?,
            Command::Revoke(revoke) => revoke.run()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl New {
    /// The key alone goes to standard output, so that it can be handed on without being seen.
    fn run(self, now: Timestamp) -> Result<()> {
        let (text, key) = ApiKey::random()?;
        let scopes = Scopes::new(self.scopes)?;
        let listed = Listed::new(self.name.clone(), key, scopes, whole_second(now), self.expires)?;
        let file = KeysFile::at(&self.file.file);
        file.change(|keys| keys.add(listed))?;
        say!("{text}");
        eprintln!(
            "medsearch: this is the key `{}` ({scopes}); it is shown this once, `{}` has only its digest",
            self.name,
            self.file.file.display()
        );
        Ok(())
    }
}

impl List {
    fn run(self, now: Timestamp) -> Result<()> {
        let keys = KeysFile::at(self.file.file).read()?;
        let width = keys.iter().map(|key| key.name().as_str().len()).max().unwrap_or(0);
        for key in keys.iter() {
            let end = match key.expires() {
                Some(expires) if key.is_expired(now) => format!("expired {expires}"),
                Some(expires) => format!("until {expires}"),
                None => "until it is revoked".to_owned(),
            };
            say!(
                "{:width$}  {}  since {}, {end}",
                key.name(),
                key.scopes(),
                key.created()
            );
        }
        Ok(())
    }
}

impl Revoke {
    fn run(self) -> Result<()> {
        let file = KeysFile::at(&self.file.file);
        // A mistyped file is not one without the key.
        file.read()?;
        file.change(|keys| keys.revoke(&self.name))?;
        say!("revoked {}", self.name);
        Ok(())
    }
}

/// Fractions of a second say nothing to whoever reads the file.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The end of a key, by day or by time.
fn end(text: &str) -> Result<Timestamp> {
    let wrong = |error: jiff::Error| {
        let message = "a key ends on a day, `2027-01-31`, or at a time, `2027-01-31T12:00:00Z`";
        Error::with_source(ErrorKind::InvalidRequest, message, error)
    };
    // A date is also read from the beginning of a longer text.
    if text.len() == "2027-01-31".len() {
        let day: Date = text.parse().map_err(wrong)?;
        return Ok(day.to_zoned(TimeZone::UTC).map_err(wrong)?.timestamp());
    }
    text.parse().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_when_its_day_begins_or_at_its_time() {
        for (text, expected) in [
            ("2027-01-31", "2027-01-31T00:00:00Z"),
            ("2027-01-31T12:30:00Z", "2027-01-31T12:30:00Z"),
            ("2027-01-31T12:30:00+02:00", "2027-01-31T10:30:00Z"),
        ] {
            assert_eq!(end(text).unwrap().to_string(), expected);
        }
        for text in ["", "tomorrow", "2027-02-30", "31.01.2027", "2027-01-31T12:30"] {
            assert_eq!(end(text).unwrap_err().kind(), ErrorKind::InvalidRequest, "{text}");
        }
    }

    #[test]
    fn a_key_that_is_over_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let new = |expires: &str| New {
            name: "guest".parse().unwrap(),
            scopes: vec![Scope::Search],
            expires: Some(end(expires).unwrap()),
            file: FileArgs {
                file: folder.path().join("keys.json"),
            },
        };
        let now = "2026-06-01T12:00:00.123Z".parse().unwrap();
        assert_eq!(
            new("2026-06-01").run(now).unwrap_err().kind(),
            ErrorKind::InvalidRequest
        );
        assert!(!folder.path().join("keys.json").exists());
        new("2026-06-02").run(now).unwrap();
        let keys = KeysFile::at(folder.path().join("keys.json")).read().unwrap();
        let made = keys.iter().next().unwrap();
        assert_eq!(made.created().to_string(), "2026-06-01T12:00:00Z");
    }
}
