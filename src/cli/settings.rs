//! Settings: flag, then environment, then file, then the built-in default. This folder alone reads the environment.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Command};

use crate::archive::{Archive, CacheSettings, Place, Secret};
use crate::error::{Error, ErrorKind, Result};

/// What a cache may take: four million vectors of 1280 components.
const CACHE_BYTES_MAX: u64 = 20 << 30;

/// Which archive, and the secret that makes its pseudonyms.
#[derive(Args, Clone)]
pub struct ArchiveArgs {
    /// The archive: a folder, or a URL with `file://`, `s3://`, `gs://` or `az://` (`s3://BUCKET/PREFIX`). Credentials and endpoint of a bucket come from the
    /// environment as its provider's own tools read them (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`…).
    #[arg(long, value_name = "URL", env = "MEDSEARCH_ARCHIVE")]
    pub archive: String,
    /// File with the archive's secret (made with mode 0600 when an archive is made).
    /// Default: beside the archive's folder, with `.secret` at the end of its name. An archive in a bucket has no default.
    #[arg(long, value_name = "FILE", env = "MEDSEARCH_SECRET_FILE")]
    pub secret_file: Option<PathBuf>,
    #[command(flatten)]
    pub cache: CacheArgs,
}

/// Where what is read from a bucket is kept on this machine.
#[derive(Args, Clone)]
pub struct CacheArgs {
    /// Folder that keeps rows and graphs of an archive in a bucket, so that they are fetched once and vectors need no memory. One folder for one archive,
    /// on a disk where patient data may lie: its files are for their owner alone, and what the archive erases is deleted there too.
    #[arg(long, value_name = "DIR", env = "MEDSEARCH_CACHE")]
    pub cache: Option<PathBuf>,
    /// Largest size of that folder, in bytes. What was used longest ago goes first; a file that is in use takes its space until it is no more.
    #[arg(long, value_name = "BYTES", default_value_t = CACHE_BYTES_MAX, env = "MEDSEARCH_CACHE_BYTES_MAX")]
    pub cache_bytes_max: u64,
}

impl CacheArgs {
    /// The cache that is wanted, if any.
    pub fn settings(&self) -> Option<CacheSettings> {
        let folder = self.cache.clone()?;
        let bytes_max = self.cache_bytes_max;
        Some(CacheSettings { folder, bytes_max })
    }
}

impl ArchiveArgs {
    /// Opens an archive that exists.
    pub async fn open(&self, secret: Secret) -> Result<Archive> {
        Archive::open_cached(&self.archive, secret, self.cache.settings().as_ref()).await
    }

    /// The secret of an archive that exists.
    pub fn secret(&self) -> Result<Secret> {
        let path = self.secret_path()?;
        // A mistyped archive shall not be told as a lost secret.
        if !path.exists() {
            require_archive(&self.archive)?;
        }
        warn_if_others_read(&path);
        Secret::load(&path)
    }

    /// The secret of an archive that may be new.
    pub fn secret_or_new(&self) -> Result<Secret> {
        let path = self.secret_path()?;
        warn_if_others_read(&path);
        Secret::load_or_create(&path)
    }

    fn secret_path(&self) -> Result<PathBuf> {
        match &self.secret_file {
            Some(path) => Ok(path.clone()),
            None => Secret::default_path(&self.archive),
        }
    }
}

/// Whether there is an archive at all; only its secret opens it. A bucket is not asked: its secret's file was named by whoever misses it.
fn require_archive(url: &str) -> Result<()> {
    match Place::parse(url)? {
        Place::Folder(folder) if !folder.join("manifest").is_dir() => Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no archive at `{url}`"),
        )),
        _ => Ok(()),
    }
}

/// Makes the values of the configuration file the defaults of the command line, so that a flag or variable wins over them.
///
/// # Errors
/// `InvalidRequest` when the file can't be read or names a command or setting that does not exist.
pub fn with_file(command: Command, arguments: &[OsString]) -> Result<Command> {
    match config_path(arguments) {
        Some(path) => apply(command, &path),
        None => Ok(command),
    }
}

/// `--config` has to be found before the command line is parsed, since the file decides its defaults.
fn config_path(arguments: &[OsString]) -> Option<PathBuf> {
    let mut words = arguments.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        if word == "--config" {
            return words.next().map(|path| path.into_owned().into());
        }
        if let Some(path) = word.strip_prefix("--config=") {
            return Some(path.into());
        }
    }
    std::env::var_os("MEDSEARCH_CONFIG").map(PathBuf::from)
}

fn apply(mut command: Command, path: &Path) -> Result<Command> {
    let refuse = |why: String| {
        Error::new(
            ErrorKind::InvalidRequest,
            format!("configuration `{}`: {why}", path.display()),
        )
    };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let tables: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| refuse(error.message().to_owned()))?;
    for (name, settings) in tables {
        let toml::Value::Table(settings) = settings else {
            return Err(refuse(format!(
                "`{name}` is not a table: settings stand under `[serve]`, `[index]` and so on"
            )));
        };
        let Some(subcommand) = command.find_subcommand(&name).cloned() else {
            return Err(refuse(format!("there is no command `{name}`")));
        };
        for (key, value) in settings {
            let id = key.replace('-', "_");
            if !subcommand
                .get_arguments()
                .any(|argument| argument.get_id() == id.as_str())
            {
                return Err(refuse(format!("`{name}` has no setting `{key}`")));
            }
            let value = match value {
                toml::Value::String(text) => text,
                other => other.to_string(),
            };
            command = command.mut_subcommand(&name, |sub| {
                sub.mut_arg(&id, |argument| argument.required(false).default_value(value))
            });
        }
    }
    Ok(command)
}

/// Lets libtorch use huge pages for what passes between layers, unless `THP_MEM_ALLOC_ENABLE` says otherwise. A batch allocates and frees hundreds
/// of megabytes, and with small pages the kernel takes a third of the time (batch of 32, EfficientNet-Lite0: 10.6 instead of 7.0 ms an image).
///
/// # Safety
/// No other thread may run yet: the environment is changed.
pub unsafe fn use_huge_pages() {
    const SWITCH: &str = "THP_MEM_ALLOC_ENABLE";
    if std::env::var_os(SWITCH).is_none() {
        // SAFETY: the caller promises that no other thread reads the environment meanwhile.
        unsafe { std::env::set_var(SWITCH, "1") };
    }
}

/// Two heaps for all threads, unless `MALLOC_ARENA_MAX` or `GLIBC_TUNABLES` is set. Images come and go by the megabyte on dozens of threads, and glibc keeps what
/// each heap once held: with its sixteen (on two processors) a server under load had 100 MB in use and held 500 after four minutes, growing; with
/// two it is as fast and levels off (`scripts/soak load`).
pub fn share_heaps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"].map(std::env::var_os) == [None, None] {
        // SAFETY: `mallopt` takes any number and changes the allocator under its own lock.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    }
}

/// Archives and vectors say things about patients: what this program writes is for the user who runs it. A group gets in by `chmod`.
pub fn write_for_oneself() {
    // SAFETY: `umask` takes any mode and can't fail.
    unsafe { libc::umask(0o077) };
}

/// Says so when others may read a file that is nobody else's business.
pub fn warn_if_others_read(path: &Path) {
    if let Some(mode) = others_read(path) {
        let path = path.display();
        eprintln!("medsearch: `{path}` can be read by other users of this machine (mode {mode:o}): chmod 600 it");
    }
}

fn others_read(path: &Path) -> Option<u32> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    // A group that may read was let in by whoever made the file, as Kubernetes does with a secret for a pod.
    (mode & 0o037 != 0).then_some(mode)
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn parsed(file: &str, line: &[&str]) -> Result<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("medsearch.toml");
        std::fs::write(&path, file).unwrap();
        let command = Command::new("medsearch")
            .subcommand(Command::new("serve").arg(Arg::new("listen_on").long("listen-on").required(true)));
        let matches = apply(command, &path)?.get_matches_from(line);
        let (_, serve) = matches.subcommand().unwrap();
        Ok(serve.get_one::<String>("listen_on").unwrap().clone())
    }

    #[test]
    fn file_gives_defaults_and_flags_win() {
        let file = "[serve]\nlisten-on = \"127.0.0.1:9\"\n";
        assert_eq!(parsed(file, &["medsearch", "serve"]).unwrap(), "127.0.0.1:9");
        assert_eq!(
            parsed(file, &["medsearch", "serve", "--listen-on", "x:1"]).unwrap(),
            "x:1"
        );
    }

    #[test]
    fn a_mistyped_archive_is_no_lost_secret() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str| ArchiveArgs {
            archive: dir.path().join(name).to_str().unwrap().to_owned(),
            secret_file: None,
            cache: CacheArgs {
                cache: None,
                cache_bytes_max: CACHE_BYTES_MAX,
            },
        };
        std::fs::create_dir_all(dir.path().join("archive/manifest")).unwrap();
        let missing = |name: &str| of(name).secret().err().unwrap().to_string();
        assert!(missing("nowhere").contains("there is no archive at"));
        assert!(missing("archive").contains("secret"));
    }

    #[test]
    fn files_that_others_read_are_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, found) in [(0o600, None), (0o440, None), (0o660, Some(0o660)), (0o604, Some(0o604))] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(others_read(file.path()), found);
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        for file in ["[server]\na = 1\n", "[serve]\nlisten = 1\n", "listen = 1\n", "[serve\n"] {
            assert_eq!(
                parsed(file, &["medsearch", "serve"]).unwrap_err().kind(),
                ErrorKind::InvalidRequest,
                "{file}"
            );
        }
    }
}
