//! The file in which the keys of a server are kept.

use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::Keys;
use super::keys::BYTES_MAX;
use crate::error::{Error, ErrorKind, Result};

/// A keys file: read by servers, changed by `medsearch key`.
#[derive(Debug, Clone)]
pub struct KeysFile(PathBuf);

impl KeysFile {
    /// The one at `path`, which need not be there yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// What it holds.
    ///
    /// # Errors
    /// `NotFound` when there is none, `Unavailable` when it can't be read, `InvalidRequest` when it is not as it should be.
    pub fn read(&self) -> Result<Keys> {
        let mut bytes = Vec::new();
        let read = File::open(&self.0).and_then(|file| file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
        read.map_err(|error| {
            let (kind, what) = match error.kind() {
                IoErrorKind::NotFound => (ErrorKind::NotFound, "is not there"),
                _ => (ErrorKind::Unavailable, "can't be read"),
            };
            Error::with_source(kind, format!("the keys file `{}` {what}", self.0.display()), error)
        })?;
        let text = String::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::InvalidRequest, "it is not text"));
        let keys = text.and_then(|text| Keys::parse(&text));
        keys.map_err(|error| error.context(format!("the keys file `{}`", self.0.display())))
    }

    /// Changes what it holds, for its owner alone (mode 0600) and in one step: whoever reads it sees the one or the other. Where there is none, one is made.
    ///
    /// # Errors
    /// Those of `change`; `Unavailable` when it can't be read or written, `InvalidRequest` when it is not as it should be.
    pub fn change(&self, change: impl FnOnce(&mut Keys) -> Result<()>) -> Result<()> {
        let unwritten = |error: std::io::Error| {
            let message = format!("the keys file `{}` can't be written", self.0.display());
            Error::with_source(ErrorKind::Unavailable, message, error)
        };
        let folder = File::open(self.folder()).map_err(unwritten)?;
        // Of two changes at a time one waits, or a key would be lost. Where a file system knows no locks for folders, the later one wins.
        let _ = folder.lock();
        let mut keys = match self.read() {
            Err(error) if error.kind() == ErrorKind::NotFound => Keys::default(),
            read => read?,
        };
        change(&mut keys)?;
        let written = tempfile::NamedTempFile::new_in(self.folder()).and_then(|mut file| {
            file.write_all(keys.to_json().as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&self.0).map_err(|error| error.error)?;
            folder.sync_all()
        });
        written.map_err(unwritten)
    }

    fn folder(&self) -> &Path {
        let parent = self.0.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or(Path::new("."))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use jiff::Timestamp;

    use super::*;
    use crate::http::access::{ApiKey, Key, Scopes};

    fn key(name: &str) -> Key {
        let key = ApiKey::random().unwrap().1;
        Key::new(name.parse().unwrap(), key, Scopes::ADMIN, Timestamp::now(), None).unwrap()
    }

    #[test]
    fn it_is_made_for_its_owner_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let file = KeysFile::at(&path);
        assert_eq!(file.read().unwrap_err().kind(), ErrorKind::NotFound);
        file.change(|keys| keys.add(key("a"))).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        file.change(|keys| keys.add(key("b"))).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let before = std::fs::read(&path).unwrap();
        assert!(file.change(|keys| keys.add(key("b"))).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), before);
        file.change(|keys| keys.revoke(&"a".parse().unwrap())).unwrap();
        let names: Vec<String> = file.read().unwrap().iter().map(|key| key.name().to_string()).collect();
        assert_eq!(names, ["b"]);
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn many_changes_at_a_time_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeysFile::at(folder.path().join("keys.json"));
        std::thread::scope(|scope| {
            for at in 0..8 {
                let file = &file;
                scope.spawn(move || file.change(|keys| keys.add(key(&format!("k{at}")))).unwrap());
            }
        });
        assert_eq!(file.read().unwrap().iter().len(), 8);
    }

    #[test]
    fn what_is_no_keys_file_is_neither_taken_nor_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let file = KeysFile::at(&path);
        for content in [b"[serve]\n".as_slice(), b"\xff\xfe", &vec![b' '; BYTES_MAX + 10]] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(file.read().unwrap_err().kind(), ErrorKind::InvalidRequest);
            assert!(file.change(|keys| keys.add(key("a"))).is_err());
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
    }
}
