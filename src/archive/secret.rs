//! The archive's secret: the key behind every pseudonym. It lies outside the archive.

use std::fmt;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::store::Place;
use crate::error::{Error, ErrorKind, Result};

/// 256 random bits. Whoever has them can test guesses at patient ids and open sealed records; without them nobody can.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// `Internal` when the system has no randomness.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::with_source(ErrorKind::Internal, "the system gives no random bytes", error))?;
        Ok(Self(bytes))
    }

    /// One from given bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads a secret file: 64 hex digits.
    ///
    /// # Errors
    /// `NotFound` when there is none, `InvalidRequest` when it holds something else, `Unavailable` when it can't be read.
    pub fn load(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::with_source(
                ErrorKind::NotFound,
                format!("the archive's secret `{shown}` is missing: without it no patient can be recognised again"),
                error,
            ),
            std::io::ErrorKind::InvalidData => not_a_secret(path),
            _ => Error::with_source(
                ErrorKind::Unavailable,
                format!("the archive's secret `{shown}` can't be read"),
                error,
            ),
        })?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| not_a_secret(path))?;
        Ok(Self(bytes))
    }

    /// Reads a secret file, made with mode 0600 when there is none.
    ///
    /// # Errors
    /// As [`Secret::load`]; `StorageFull`, `Unavailable` when it can't be made.
    pub fn load_or_create(path: &Path) -> Result<Self> {
        match Self::load(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            found => return found,
        }
        let secret = Self::random()?;
        match secret.write_new(path) {
            // Another process was faster: its secret counts.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Self::load(path),
            Err(error) => {
                let kind = match error.kind() {
                    std::io::ErrorKind::StorageFull => ErrorKind::StorageFull,
                    _ => ErrorKind::Unavailable,
                };
                Err(Error::with_source(
                    kind,
                    format!("the archive's secret `{}` can't be written", path.display()),
                    error,
                ))
            }
            Ok(()) => Ok(secret),
        }
    }

    /// Where the secret of a local archive lies unless said otherwise: beside its folder, `<archive>.secret`.
    ///
    /// # Errors
    /// `InvalidRequest` for an archive in a bucket, which has nothing beside it that is not the bucket's, and for what is no place.
    pub fn default_path(url: &str) -> Result<PathBuf> {
        let folder = match Place::parse(url)? {
            Place::Folder(folder) => folder,
            Place::Bucket(bucket) => {
                return Err(Error::new(
                    ErrorKind::InvalidRequest,
                    format!(
                        "the secret of `{bucket}` does not lie in the bucket: name its file with `--secret-file` or `MEDSEARCH_SECRET_FILE`, the same on every machine"
                    ),
                ));
            }
        };
        // `components` drops a slash at the end, which would put the file inside.
        let mut path = folder.components().collect::<PathBuf>().into_os_string();
        path.push(".secret");
        Ok(path.into())
    }

    /// Written beside its place first, then linked there: a reader never sees half of it.
    fn write_new(&self, path: &Path) -> std::io::Result<()> {
        let folder = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut staged = path.as_os_str().to_owned();
        staged.push(format!(".{}", uuid::Uuid::new_v4()));
        let staged = PathBuf::from(staged);
        let linked = (|| {
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&staged)?;
            writeln!(file, "{}", hex::encode(self.0))?;
            file.sync_all()?;
            std::fs::hard_link(&staged, path)
        })();
        // Nothing to do when it fails: the link is what counts.
        let _ = std::fs::remove_file(&staged);
        linked?;
        std::fs::File::open(folder)?.sync_all()
    }

    /// A key for something else than the archive itself, named by `purpose`: nothing can be told from it about the secret, or about another such key.
    pub fn derived(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, &self.0)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Never the bytes.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

fn not_a_secret(path: &Path) -> Error {
    Error::new(
        ErrorKind::InvalidRequest,
        format!("`{}` is not a secret file: it has no 64 hex digits", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn made_once_and_only_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.secret");
        assert_eq!(Secret::load(&path).unwrap_err().kind(), ErrorKind::NotFound);
        let made = Secret::load_or_create(&path).unwrap();
        let again = Secret::load_or_create(&path).unwrap();
        assert_eq!(made.bytes(), again.bytes());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(format!("{made:?}"), "Secret(..)");
        std::fs::write(&path, "not hex").unwrap();
        assert_eq!(
            Secret::load_or_create(&path).unwrap_err().kind(),
            ErrorKind::InvalidRequest
        );
    }

    #[test]
    fn lies_beside_the_archive() {
        assert_eq!(
            Secret::default_path("/srv/archive/").unwrap(),
            Path::new("/srv/archive.secret")
        );
        assert_eq!(Secret::default_path("archive").unwrap(), Path::new("archive.secret"));
        assert_eq!(
            Secret::default_path("file:///srv/a%20b").unwrap(),
            Path::new("/srv/a b.secret")
        );
        let refused = Secret::default_path("s3://bucket/archive").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
        assert!(refused.message().contains("--secret-file"), "{refused}");
    }
}
