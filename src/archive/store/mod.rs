//! The object store shell: put-if-absent, verified reads, and errors that say what the caller can do.
//!
//! - `place` the URL; `folder`, `bucket` what is particular to either; `failure` what errors mean.
//! - `local` objects that lie on this machine, `cache` those of a bucket; `counts` what is counted.
//!
//! A local folder writes through `fsync` of file and folder. A bucket is durable when it answers, and may lose the answer.

mod bucket;
mod cache;
mod counts;
mod failure;
mod folder;
mod local;
mod place;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetResult, GetResultPayload, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use crate::error::{Error, ErrorKind, Result};
#[cfg(test)]
pub(super) use bucket::{Limits, PART_BYTES};
use cache::Cache;
pub use cache::CacheSettings;
pub use counts::StorageFigures;
use counts::{Counts, Holder, Operation};
use failure::{failed, failed_io, failed_there, missing_is_unavailable};
pub(super) use local::{Loaded, Local};
pub use place::{Bucket, Place};

/// Hashing more than this is handed to a blocking thread.
const INLINE_BYTES_MAX: usize = 1 << 20;
/// Times that a put-if-absent is tried whose name is taken according to the storage, and can't be seen.
const CONFLICT_TRIES_MAX: u32 = 4;
/// Pause before the second try; before each further one it is as much longer.
const CONFLICT_PAUSE: Duration = Duration::from_millis(50);
/// An object that every bucket with an archive has, whatever is in it: see [`Store::prove_put_if_absent`].
const PROOF: &str = "put-if-absent";

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

/// A place that holds an archive. Cheap to clone.
#[derive(Clone)]
pub(super) struct Store {
    objects: Arc<dyn ObjectStore>,
    backing: Backing,
    cache: Option<Arc<Cache>>,
    counts: Arc<Counts>,
}

/// What is behind a [`Store`].
#[derive(Clone)]
enum Backing {
    /// A folder: only there can a folder be synced and swept.
    Folder(Arc<FsPath>),
    /// A bucket: only there can an answer be lost, and a write meet itself when it is tried again.
    Bucket(Arc<Bucket>),
}

impl Store {
    /// Opens a place that exists. A bucket is not asked yet.
    ///
    /// # Errors
    /// `InvalidRequest` for what is no place, and settings that can't be used; `NotFound` when there is no such folder.
    pub fn open(url: &str) -> Result<Self> {
        match Place::parse(url)? {
            Place::Folder(path) if path.is_dir() => Self::local(&path),
            Place::Folder(_) => Err(Error::new(
                ErrorKind::NotFound,
                format!("there is no archive at `{url}`"),
            )),
            Place::Bucket(bucket) => Self::remote(bucket),
        }
    }

    /// Opens a place; a folder is made when it does not exist, a bucket is not.
    ///
    /// # Errors
    /// `InvalidRequest` for what is no place, and settings that can't be used; `StorageFull`, `Unavailable` when the folder can't be made.
    pub fn create(url: &str) -> Result<Self> {
        match Place::parse(url)? {
            Place::Folder(path) => {
                folder::create(&path)
                    .map_err(|error| failed_io(&format!("the archive's folder `{url}` can't be made"), error))?;
                Self::local(&path)
            }
            Place::Bucket(bucket) => Self::remote(bucket),
        }
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
        let backing = Backing::Folder(folder.into());
        Ok(Self::of(Arc::new(objects.with_fsync(true)), backing))
    }

    fn remote(bucket: Bucket) -> Result<Self> {
        Ok(Self::of(bucket::open(&bucket)?, Backing::Bucket(bucket.into())))
    }

    fn of(objects: Arc<dyn ObjectStore>, backing: Backing) -> Self {
        Self {
            objects,
            backing,
            cache: None,
            counts: Arc::default(),
        }
    }

    /// Keeps what is loaded from a bucket in a folder of this machine. An archive in a folder is there already.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable` when the cache can't be written.
    pub fn cached(mut self, settings: &CacheSettings) -> Result<Self> {
        if let Backing::Bucket(_) = &self.backing {
            self.cache = Some(Arc::new(Cache::open(settings, &self.counts)?));
        }
        Ok(self)
    }

    /// Whether it is a folder, whose disk may fail at one file and not at the next.
    pub fn is_folder(&self) -> bool {
        matches!(self.backing, Backing::Folder(_))
    }

    /// Whether both are certainly one place. An alias, such as a second endpoint of one bucket, is not known.
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (&self.backing, &other.backing) {
            (Backing::Folder(one), Backing::Folder(two)) => one == two,
            (Backing::Bucket(one), Backing::Bucket(two)) => one == two,
            _ => false,
        }
    }

    /// Opens a bucket of S3 with other settings than the environment's.
    #[cfg(test)]
    pub fn s3(url: &str, settings: object_store::aws::AmazonS3Builder, limits: Limits) -> Result<Self> {
        let Place::Bucket(bucket) = Place::parse(url)? else {
            return Err(Error::new(ErrorKind::InvalidRequest, format!("`{url}` is no bucket")));
        };
        let objects = bucket::s3(settings, &bucket, limits)?;
        Ok(Self::of(objects, Backing::Bucket(bucket.into())))
    }

    /// The same place with every operation going through another store, for fault injection.
    #[cfg(test)]
    pub fn wrapped(&self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        Self {
            objects: wrap(Arc::clone(&self.objects)),
            ..self.clone()
        }
    }

    /// Waits for an answer and counts it.
    async fn counted<T>(
        &self,
        operation: Operation,
        answer: impl Future<Output = object_store::Result<T>>,
    ) -> object_store::Result<T> {
        let answer = answer.await;
        self.counts.request(operation, &answer);
        answer
    }

    /// Creates `name`, never replaces it. In a bucket `Exists` may be one's own write, tried again after its answer was lost.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`: then it may or may not have been written.
    pub async fn put_if_absent(&self, name: &str, bytes: Bytes) -> Result<Put> {
        let path = Path::from(name);
        let mut tries = 0;
        loop {
            let payload = PutPayload::from_bytes(bytes.clone());
            let put = self.objects.put_opts(&path, payload, PutMode::Create.into());
            let taken = match self.counted(Operation::Put, put).await {
                Ok(_) => return Ok(Put::Done),
                Err(error @ object_store::Error::AlreadyExists { .. }) => error,
                Err(error) => return Err(failed_there(name, error)),
            };
            if matches!(self.backing, Backing::Folder(_)) {
                return Ok(Put::Exists);
            }
            // S3 says the same (409) while another write or deletion of the name is under way, which may come to nothing: what counts is what is there.
            match self.counted(Operation::Head, self.objects.head(&path)).await {
                Ok(_) => return Ok(Put::Exists),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed_there(name, error)),
            }
            tries += 1;
            if tries == CONFLICT_TRIES_MAX {
                return Err(failed_there(name, taken));
            }
            tokio::time::sleep(CONFLICT_PAUSE * tries).await;
        }
    }

    /// Writes an object under a name that nobody gives to other bytes: by its digest, or random. Writing it again changes nothing,
    /// so that a bucket may simply be asked again when its answer is lost.
    ///
    /// # Errors
    /// As [`Store::put_if_absent`].
    pub async fn put_object(&self, name: &str, bytes: Bytes) -> Result<()> {
        match &self.backing {
            Backing::Folder(_) => match self.put_if_absent(name, bytes).await? {
                Put::Done => Ok(()),
                // Whoever wrote it may not have synced the folder yet.
                Put::Exists => self.settle(name).await,
            },
            Backing::Bucket(_) => {
                let path = Path::from(name);
                let put = bucket::put(&*self.objects, &path, bytes);
                let put = self.counted(Operation::Put, put).await;
                put.map_err(|error| failed_there(name, error))
            }
        }
    }

    /// Writes an object again that is damaged or gone. In a folder the file stays the same one, so that whoever has it open reads it whole from then on; each byte that
    /// is written is right, so that an interruption leaves it no worse. A bucket replaces it at once. Read it again: some servers take a failed upload for a done one.
    ///
    /// # Errors
    /// As [`Store::put_if_absent`].
    pub async fn mend_object(&self, name: &str, bytes: Bytes) -> Result<()> {
        if let Backing::Folder(root) = &self.backing {
            let (path, content) = (root.join(name), bytes.clone());
            let mended = blocking(move || folder::mend(&path, &content)).await?;
            if mended.map_err(|error| failed_io(&format!("`{name}` can't be written again"), error))? {
                return Ok(());
            }
        }
        self.put_object(name, bytes).await
    }

    /// Makes sure that a name which is taken stays taken. Servers that speak S3 and ignore `If-None-Match` would let a writer replace another's version.
    ///
    /// # Errors
    /// `Conflict` when the storage replaced what it should not have; `StorageFull`, `Unavailable` when it can't be said.
    pub async fn prove_put_if_absent(&self) -> Result<()> {
        let Backing::Bucket(bucket) = &self.backing else {
            return Ok(());
        };
        // The first archive there makes it.
        for _ in 0..2 {
            if self.put_if_absent(PROOF, Bytes::from_static(b"stays\n")).await? == Put::Exists {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "the storage of `{bucket}` replaces objects that it is asked not to (`If-None-Match: *`): an archive there would lose versions"
            ),
        ))
    }

    /// Reads a whole object.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn get(&self, name: &str) -> Result<Bytes> {
        let path = Path::from(name);
        let got = async { self.objects.get(&path).await?.bytes().await };
        let got = self.counted(Operation::Get, got).await;
        got.map_err(|error| failed(name, error))
    }

    /// Reads an immutable object and compares it with the digest in its name.
    ///
    /// # Errors
    /// `Unavailable` when it is missing or can't be read, `Damaged` when its bytes are not what the name says.
    pub async fn get_object(&self, name: &str) -> Result<Bytes> {
        let bytes = self.get(name).await.map_err(missing_is_unavailable)?;
        self.verified(name, bytes).await
    }

    async fn verified(&self, name: &str, bytes: Bytes) -> Result<Bytes> {
        let kind = name.split('/').next().unwrap_or_default();
        let (found, bytes) = object_name(kind, bytes).await?;
        if found == name {
            return Ok(bytes);
        }
        Err(self.damaged(Error::new(
            ErrorKind::Damaged,
            format!("`{name}` is damaged: its bytes have another digest"),
        )))
    }

    /// Counts what something was found to be that was read from the storage, if it is damage, and gives it back.
    pub fn damaged(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Damaged {
            self.counts.damage(Holder::Storage);
        }
        error
    }

    /// Reads an immutable object as [`Store::get_object`] does, or finds it in the cache, and gives along where it stays readable on this machine.
    ///
    /// # Errors
    /// As [`Store::get_object`].
    pub async fn load_object(&self, name: &str) -> Result<Loaded> {
        let Some(cache) = &self.cache else {
            return self.load_file(name).await;
        };
        let (held, wanted) = (Arc::clone(cache), name.to_owned());
        if let Some(loaded) = blocking(move || held.read(&wanted)).await? {
            return Ok(loaded);
        }
        let bytes = self.get_object(name).await?;
        let (cache, name, read) = (Arc::clone(cache), name.to_owned(), bytes.clone());
        let local = blocking(move || cache.keep_read(&name, &read)).await?;
        Ok(Loaded { bytes, local })
    }

    /// The archive's own file, where it is in a folder, is opened once: what was verified is what is read later.
    async fn load_file(&self, name: &str) -> Result<Loaded> {
        let path = Path::from(name);
        let got = self.counted(Operation::Get, async {
            let got = self.objects.get(&path).await?;
            match got.payload {
                GetResultPayload::File(file, _) => Ok((Some(file), Bytes::new())),
                payload => Ok((None, GetResult { payload, ..got }.bytes().await?)),
            }
        });
        let (file, bytes) = got.await.map_err(|error| failed_there(name, error))?;
        let Some(file) = file else {
            let bytes = self.verified(name, bytes).await?;
            return Ok(Loaded { bytes, local: None });
        };
        let (file, bytes) = blocking(move || read_whole(file))
            .await?
            .map_err(|error| failed_io(&format!("`{name}` can't be read"), error))?;
        let bytes = self.verified(name, bytes.into()).await?;
        let local = Some(Local::new(file, Holder::Storage, &self.counts));
        Ok(Loaded { bytes, local })
    }

    /// Where an object that was just written stays readable on this machine; none where that is nowhere.
    pub async fn kept(&self, name: &str, bytes: &Bytes) -> Option<Local> {
        let kept = match (&self.backing, &self.cache) {
            (Backing::Folder(root), _) => {
                let path = root.join(name);
                let counts = Arc::clone(&self.counts);
                let open = move || Some(Local::new(File::open(path).ok()?, Holder::Storage, &counts));
                blocking(open).await
            }
            (Backing::Bucket(_), Some(cache)) => {
                let (cache, name, bytes) = (Arc::clone(cache), name.to_owned(), bytes.clone());
                blocking(move || cache.keep(&name, &bytes)).await
            }
            (Backing::Bucket(_), None) => Ok(None),
        };
        kept.ok().flatten()
    }

    /// Lets the cache go of what `version`, the newest, does not name. `named` is asked when that was not done yet.
    pub async fn sweep_cache(&self, version: u64, named: impl FnOnce() -> BTreeSet<String>) -> Result<()> {
        match &self.cache {
            Some(cache) if cache.swept() < version => {
                let (cache, named) = (Arc::clone(cache), named());
                blocking(move || cache.sweep(version, named)).await
            }
            _ => Ok(()),
        }
    }

    /// What was asked of it and found, as plain numbers.
    pub fn figures(&self) -> StorageFigures {
        self.counts
            .figures(self.cache.as_ref().map_or(0, |cache| cache.bytes()))
    }

    /// Whether there is an object.
    ///
    /// # Errors
    /// `Unavailable`: nobody knows.
    pub async fn exists(&self, name: &str) -> Result<bool> {
        let path = Path::from(name);
        match self.counted(Operation::Head, self.objects.head(&path)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed(name, error)),
        }
    }

    /// Whether an object is certainly not there.
    pub async fn is_missing(&self, name: &str) -> bool {
        matches!(self.exists(name).await, Ok(false))
    }

    /// Reads a part of an object, shorter where the object ends.
    ///
    /// # Errors
    /// `Unavailable` when it is missing or can't be read.
    pub async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let path = Path::from(name);
        let got = self.counted(Operation::Get, self.objects.get_range(&path, range)).await;
        got.map_err(|error| failed_there(name, error))
    }

    /// Everything below a prefix, sorted by name.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let listing = self.objects.list(Some(&Path::from(prefix))).try_collect();
        let found: object_store::Result<Vec<_>> = self.counted(Operation::List, listing).await;
        let found = found.map_err(|error| failed_there(prefix, error))?;
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

    /// Names below a prefix, and whether these are all: of a bucket the first `count`; a folder, which is read in one go and in no order, gives all.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn list_first(&self, prefix: &str, count: usize) -> Result<(Vec<String>, bool)> {
        let count = if self.is_folder() { usize::MAX } else { count };
        let listing = self.objects.list(Some(&Path::from(prefix)));
        let names = listing.take(count).map_ok(|meta| meta.location.to_string());
        let names: object_store::Result<Vec<_>> = self.counted(Operation::List, names.try_collect()).await;
        let names = names.map_err(|error| failed_there(prefix, error))?;
        let all = names.len() < count;
        Ok((names, all))
    }

    /// Deletes an object. One that is gone already is fine.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let path = Path::from(name);
        match self.counted(Operation::Delete, self.objects.delete(&path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(name, error)),
        }
    }

    /// Makes what is seen at `name` durable although another process put it there: in a folder a reader may see a file before the folder is synced.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`.
    pub async fn settle(&self, name: &str) -> Result<()> {
        let Backing::Folder(root) = &self.backing else {
            return Ok(());
        };
        let path = root.join(name);
        let parent = path.parent().unwrap_or(root).to_owned();
        blocking(move || folder::sync(&parent))
            .await?
            .map_err(|error| failed_io("the archive's folder can't be synced", error))
    }

    /// Deletes what interrupted writes left behind in a local folder (`name#1`), which no listing shows. Returns how many. In a bucket a
    /// lifecycle rule has to do it.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn sweep_interrupted(&self, prefix: &str, before: Timestamp) -> Result<usize> {
        let Backing::Folder(root) = &self.backing else {
            return Ok(0);
        };
        let swept = root.join(prefix);
        blocking(move || folder::sweep(&swept, before))
            .await?
            .map_err(|error| failed_io("the archive's folder can't be swept", error))
    }
}

/// The place; nothing of what opens it.
impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.backing {
            Backing::Folder(path) => write!(f, "{}", path.display()),
            Backing::Bucket(bucket) => write!(f, "{bucket}"),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({self})")
    }
}

fn read_whole(mut file: File) -> std::io::Result<(File, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(file.metadata()?.len() as usize);
    file.read_to_end(&mut bytes)?;
    Ok((file, bytes))
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

#[cfg(test)]
mod tests {
    use super::*;

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
