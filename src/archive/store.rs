//! The object store shell: put-if-absent, verified reads, and errors that say what the caller can do.
//!
//! A local folder writes through `fsync` of file and folder. Other schemes come with their own build features.

use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use crate::error::{Error, ErrorKind, Result};

/// Hashing more than this is handed to a blocking thread.
const INLINE_BYTES_MAX: usize = 1 << 20;

/// What became of a put-if-absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// Written, durably.
    Done,
    /// The name was taken.
    Exists,
}

/// One object as a listing shows it.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub name: String,
    pub bytes: u64,
    pub modified: Timestamp,
}

/// A place that holds an archive.
#[derive(Debug, Clone)]
pub(super) struct Store {
    objects: Arc<dyn ObjectStore>,
    /// The folder behind it, when it is one: only there can a folder be synced.
    folder: Option<Arc<FsPath>>,
}

impl Store {
    /// Opens a place that exists.
    ///
    /// # Errors
    /// `InvalidRequest` for a URL of another kind; `NotFound` when there is nothing.
    pub fn open(url: &str) -> Result<Self> {
        let folder = local_folder(url)?;
        if !folder.is_dir() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("there is no archive at `{url}`"),
            ));
        }
        Self::local(&folder)
    }

    /// Opens a place, made when it does not exist.
    ///
    /// # Errors
    /// `InvalidRequest` for a URL of another kind; `StorageFull`, `Unavailable` when the folder can't be made.
    pub fn create(url: &str) -> Result<Self> {
        let folder = local_folder(url)?;
        create_folder(&folder)
            .map_err(|error| failed_io(&format!("the archive's folder `{url}` can't be made"), error))?;
        Self::local(&folder)
    }

    fn local(folder: &FsPath) -> Result<Self> {
        let folder = folder.canonicalize().map_err(|error| {
            failed_io(
                &format!("the archive's folder `{}` can't be read", folder.display()),
                error,
            )
        })?;
        let objects =
            LocalFileSystem::new_with_prefix(&folder).map_err(|error| failed("the archive's folder", error))?;
        Ok(Self {
            objects: Arc::new(objects.with_fsync(true)),
            folder: Some(folder.into()),
        })
    }

    /// The same place with every operation going through another store, for fault injection.
    #[cfg(test)]
    pub fn wrapped(&self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        Self {
            objects: wrap(Arc::clone(&self.objects)),
            folder: self.folder.clone(),
        }
    }

    /// Creates `name`, never replaces it.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`: then it may or may not have been written.
    pub async fn put_if_absent(&self, name: &str, bytes: Bytes) -> Result<Put> {
        let payload = PutPayload::from_bytes(bytes);
        match self
            .objects
            .put_opts(&Path::from(name), payload, PutMode::Create.into())
            .await
        {
            Ok(_) => Ok(Put::Done),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Put::Exists),
            Err(error) => Err(failed(name, error)),
        }
    }

    /// Writes an immutable object under the name that [`object_name`] gave it. Writing it again changes nothing.
    ///
    /// # Errors
    /// As [`Store::put_if_absent`].
    pub async fn put_object(&self, name: &str, bytes: Bytes) -> Result<()> {
        match self.put_if_absent(name, bytes).await? {
            Put::Done => Ok(()),
            // Whoever wrote it may not have synced the folder yet.
            Put::Exists => self.settle(name).await,
        }
    }

    /// Reads a whole object.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn get(&self, name: &str) -> Result<Bytes> {
        let got = self
            .objects
            .get(&Path::from(name))
            .await
            .map_err(|error| failed(name, error))?;
        got.bytes().await.map_err(|error| failed(name, error))
    }

    /// Reads an immutable object and compares it with the digest in its name.
    ///
    /// # Errors
    /// `Unavailable` when it is missing or can't be read, `Damaged` when its bytes are not what the name says.
    pub async fn get_object(&self, name: &str) -> Result<Bytes> {
        let bytes = self.get(name).await.map_err(missing_is_unavailable)?;
        let kind = name.split('/').next().unwrap_or_default();
        let (found, bytes) = object_name(kind, bytes).await?;
        if found == name {
            Ok(bytes)
        } else {
            Err(Error::new(
                ErrorKind::Damaged,
                format!("`{name}` is damaged: its bytes have another digest"),
            ))
        }
    }

    /// Whether an object is certainly not there.
    pub async fn is_missing(&self, name: &str) -> bool {
        let found = self.objects.head(&Path::from(name)).await;
        matches!(found, Err(object_store::Error::NotFound { .. }))
    }

    /// Reads a part of an object, shorter where the object ends.
    ///
    /// # Errors
    /// `Unavailable` when it is missing or can't be read.
    pub async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let got = self.objects.get_range(&Path::from(name), range).await;
        got.map_err(|error| missing_is_unavailable(failed(name, error)))
    }

    /// Everything below a prefix, sorted by name.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let found: Vec<_> = self
            .objects
            .list(Some(&Path::from(prefix)))
            .try_collect()
            .await
            .map_err(|error| failed(prefix, error))?;
        let mut listed = Vec::with_capacity(found.len());
        for meta in found {
            let modified = Timestamp::from_microsecond(meta.last_modified.timestamp_micros()).map_err(|error| {
                Error::with_source(ErrorKind::Unavailable, "the storage gives no usable time", error)
            })?;
            listed.push(Listed {
                name: meta.location.to_string(),
                bytes: meta.size,
                modified,
            });
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// Deletes an object. One that is gone already is fine.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn delete(&self, name: &str) -> Result<()> {
        match self.objects.delete(&Path::from(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(name, error)),
        }
    }

    /// Makes what is seen at `name` durable although another process put it there: a reader may see a file before its folder is synced.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`.
    pub async fn settle(&self, name: &str) -> Result<()> {
        let Some(root) = &self.folder else { return Ok(()) };
        let path = root.join(name);
        let folder = path.parent().unwrap_or(root).to_owned();
        blocking(move || std::fs::File::open(&folder)?.sync_all())
            .await?
            .map_err(|error| failed_io("the archive's folder can't be synced", error))
    }

    /// Deletes what interrupted writes left behind in a local folder (`name#1`), which no listing shows. Returns how many.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn sweep_interrupted(&self, prefix: &str, before: Timestamp) -> Result<usize> {
        let Some(root) = &self.folder else { return Ok(0) };
        let folder = root.join(prefix);
        blocking(move || sweep(&folder, before))
            .await?
            .map_err(|error| failed_io("the archive's folder can't be swept", error))
    }
}

/// The name of an immutable object: `kind/<BLAKE3 of its bytes>`. Gives the bytes back.
pub(super) async fn object_name(kind: &str, bytes: Bytes) -> Result<(String, Bytes)> {
    let (digest, bytes) = if bytes.len() > INLINE_BYTES_MAX {
        blocking(move || (blake3::hash(&bytes), bytes)).await?
    } else {
        (blake3::hash(&bytes), bytes)
    };
    Ok((format!("{kind}/{}", digest.to_hex()), bytes))
}

/// Whether `name` is `kind/<64 hex digits>`.
pub(super) fn is_object_name(name: &str, kind: &str) -> bool {
    name.strip_prefix(kind)
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|digest| {
            digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
        })
}

/// The folder that an archive's URL names.
///
/// # Errors
/// `InvalidRequest` for anything but a path or a `file://` URL.
pub fn local_folder(url: &str) -> Result<PathBuf> {
    let refuse = |message: String| Err(Error::new(ErrorKind::InvalidRequest, message));
    if let Some(rest) = url.strip_prefix("file://") {
        let path = rest.strip_prefix("localhost").unwrap_or(rest);
        return match percent_decoded(path) {
            Some(path) if path.starts_with('/') => Ok(path.into()),
            _ => refuse(format!(
                "`{url}` is not an absolute file URL such as `file:///srv/archive`"
            )),
        };
    }
    match url.split_once("://") {
        Some((scheme, _)) => refuse(format!(
            "an archive at `{scheme}://` is not supported by this build: give a folder or a `file://` URL"
        )),
        None if url.is_empty() || url.starts_with("file:") => {
            refuse(format!("`{url}` is neither a folder nor a `file://` URL"))
        }
        None => Ok(url.into()),
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.extend(hex::decode(digits).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Makes a folder with its parents so that a power cut does not undo it.
fn create_folder(folder: &FsPath) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_folder(parent)?;
    }
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let parent = folder
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(FsPath::new("."));
    std::fs::File::open(parent)?.sync_all()
}

fn sweep(folder: &FsPath, before: Timestamp) -> std::io::Result<usize> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut swept = 0;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let staged = name
            .to_str()
            .and_then(|name| name.rsplit_once('#'))
            .is_some_and(|(_, suffix)| !suffix.is_empty() && suffix.bytes().all(|b| b.is_ascii_digit()));
        if !staged {
            continue;
        }
        // Its writer may be done with it at any moment, and then it is gone.
        let old =
            |metadata: std::fs::Metadata| Ok(Timestamp::try_from(metadata.modified()?).is_ok_and(|at| at <= before));
        let removed = match entry.metadata().and_then(old) {
            Ok(true) => std::fs::remove_file(entry.path()).map(|()| 1),
            Ok(false) => Ok(0),
            Err(error) => Err(error),
        };
        swept += match removed {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            removed => removed?,
        };
    }
    Ok(swept)
}

/// Runs `work` on a thread where it may block or compute.
///
/// # Errors
/// `Internal` when it panicked.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .map_err(|error| Error::with_source(ErrorKind::Internal, "a task of the archive failed", error))
}

fn missing_is_unavailable(error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound {
        let message = error.message().to_owned();
        return Error::with_source(ErrorKind::Unavailable, message, error);
    }
    error
}

fn failed(name: &str, error: object_store::Error) -> Error {
    match error {
        object_store::Error::NotFound { .. } => Error::with_source(
            ErrorKind::NotFound,
            format!("`{name}` is missing from the archive"),
            error,
        ),
        error if is_full(&error) => Error::with_source(ErrorKind::StorageFull, "the archive's storage is full", error),
        error => Error::with_source(
            ErrorKind::Unavailable,
            format!("the archive's storage failed at `{name}`"),
            error,
        ),
    }
}

fn failed_io(what: &str, error: std::io::Error) -> Error {
    let kind = if is_full(&error) {
        ErrorKind::StorageFull
    } else {
        ErrorKind::Unavailable
    };
    Error::with_source(kind, what, error)
}

fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let mut next = Some(error);
    while let Some(error) = next {
        if error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| matches!(io.kind(), StorageFull | QuotaExceeded))
        {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_folders() {
        let check = |url: &str, expected: Option<&str>| {
            assert_eq!(local_folder(url).ok(), expected.map(PathBuf::from), "{url}");
        };
        check("archive", Some("archive"));
        check("/srv/an archive", Some("/srv/an archive"));
        check("file:///srv/an%20archive", Some("/srv/an archive"));
        check("file://localhost/srv/a", Some("/srv/a"));
        check("file://host/srv/a", None);
        check("file://relative", None);
        check("file:///srv/%zz", None);
        check("file:/srv", None);
        check("", None);
        let error = local_folder("s3://bucket/archive").expect_err("no such feature");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.message().contains("`s3://`"), "{error}");
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let full = object_store::Error::Generic {
            store: "test",
            source: Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull)),
        };
        assert_eq!(failed("x", full).kind(), ErrorKind::StorageFull);
        let raw = object_store::Error::Generic {
            store: "test",
            source: Box::new(std::io::Error::from_raw_os_error(libc::ENOSPC)),
        };
        assert_eq!(failed("x", raw).kind(), ErrorKind::StorageFull);
        let other = object_store::Error::Generic {
            store: "test",
            source: "broken".into(),
        };
        assert_eq!(failed("x", other).kind(), ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn objects_are_verified_on_every_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path().join("a/b").to_str().unwrap()).unwrap();
        let (name, bytes) = object_name("rows", Bytes::from_static(b"content")).await.unwrap();
        assert!(is_object_name(&name, "rows"));
        assert!(!is_object_name(&name, "graphs"));
        store.put_object(&name, bytes.clone()).await.unwrap();
        store.put_object(&name, bytes.clone()).await.unwrap();
        assert_eq!(store.get_object(&name).await.unwrap(), bytes);
        assert_eq!(store.get_range(&name, 3..5).await.unwrap(), "te");

        std::fs::write(dir.path().join("a/b").join(&name), b"contenT").unwrap();
        assert_eq!(store.get_object(&name).await.unwrap_err().kind(), ErrorKind::Damaged);
        store.delete(&name).await.unwrap();
        store.delete(&name).await.unwrap();
        assert_eq!(
            store.get_object(&name).await.unwrap_err().kind(),
            ErrorKind::Unavailable
        );
    }

    #[tokio::test]
    async fn leftovers_of_interrupted_writes_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path().to_str().unwrap()).unwrap();
        std::fs::create_dir(dir.path().join("rows")).unwrap();
        std::fs::write(dir.path().join("rows/abc#1"), b"half").unwrap();
        std::fs::write(dir.path().join("rows/abc"), b"whole").unwrap();
        let now = Timestamp::now();
        let hour = jiff::SignedDuration::from_hours(1);
        assert_eq!(store.sweep_interrupted("rows", now - hour).await.unwrap(), 0);
        assert_eq!(store.sweep_interrupted("rows", now + hour).await.unwrap(), 1);
        assert!(dir.path().join("rows/abc").exists());
        assert_eq!(store.sweep_interrupted("pixels", now).await.unwrap(), 0);
    }
}
