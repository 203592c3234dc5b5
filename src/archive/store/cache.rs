//! A bounded folder of this machine with what was read from a bucket, so that it is read from there once.
//!
//! It holds objects under `rows/` and `graphs/`, a file each (`rows-<digest>`), for their owner only: they are patient data. Every load compares the
//! digest, so that nothing is synced and a file that a crash cut off heals: it is deleted and fetched again. What the newest version does not name is
//! deleted as soon as that version is known; of the rest the least recently used goes first. Several processes may share a folder: files come
//! whole by rename, stay readable for whoever has them open, and one that is gone is fetched again. A folder is for one archive: a second one's sweep would
//! delete what the first one has, and it would come back.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind as Io, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::counts::{Counts, Holder};
use super::failure::failed_io;
use super::local::{Loaded, Local};
use super::{is_object_name, read_whole};
use crate::archive::lock;
use crate::error::Result;

/// What is kept.
const KINDS: [&str; 2] = ["rows", "graphs"];
/// Beginning of the names of files that are being written.
const PARTIAL: &str = ".partial-";
/// A file that is being written grows all the time: one that has not for so long was left by a crash.
const PARTIAL_AGE_MAX: Duration = Duration::from_secs(60);

/// Where what was read from a bucket is kept, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// A folder for one archive; made where there is none.
    pub folder: PathBuf,
    /// What its files may take. One that a reader has open takes its space until it is closed, also when it is deleted before.
    pub bytes_max: u64,
}

/// The folder.
pub(in crate::archive) struct Cache {
    settings: CacheSettings,
    counts: Arc<Counts>,
    named: Mutex<Named>,
    /// As of the last look.
    bytes: AtomicU64,
}

/// What the newest version names.
#[derive(Default)]
struct Named {
    version: u64,
    objects: BTreeSet<String>,
}

struct Entry {
    object: String,
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl Cache {
    /// Makes the folder, and tries whether files can be made there.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`.
    pub fn open(settings: &CacheSettings, counts: &Arc<Counts>) -> Result<Self> {
        let folder = &settings.folder;
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(folder);
        made.and_then(|()| partial(folder)).map_err(|error| {
            let what = format!("the cache can't be written: `{}`", folder.display());
            failed_io(&what, error)
        })?;
        Ok(Self {
            settings: settings.clone(),
            counts: Arc::clone(counts),
            named: Mutex::default(),
            bytes: AtomicU64::new(0),
        })
    }

    /// Bytes of its files, as of the last look.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The version of the last sweep; 0 before the first.
    pub fn swept(&self) -> u64 {
        lock(&self.named).version
    }

    /// Whether the newest version names an object: no other is worth keeping.
    fn is_named(&self, object: &str) -> bool {
        lock(&self.named).objects.contains(object)
    }

    /// An object, if it is held and whole. One that is damaged is deleted.
    pub fn read(&self, object: &str) -> Option<Loaded> {
        let path = self.path(object);
        let read = File::open(&path).and_then(read_whole);
        let (file, bytes) = match read {
            Ok(read) => read,
            Err(error) => {
                if error.kind() != Io::NotFound {
                    tracing::warn!(object, %error, "a file of the cache can't be read");
                }
                return None;
            }
        };
        if !object.ends_with(blake3::hash(&bytes).to_hex().as_str()) {
            self.counts.damage(Holder::Cache);
            tracing::warn!(object, "a file of the cache is damaged, the object is fetched again");
            self.delete(&path, object);
            return None;
        }
        // What can't be marked as used is only evicted sooner.
        let _ = file.set_modified(SystemTime::now());
        Some(Loaded {
            bytes: bytes.into(),
            local: Some(Local::new(file, Holder::Cache, &self.counts)),
        })
    }

    /// Keeps what was read, if the newest version names it. Gives the file; none where it is not kept.
    pub fn keep_read(&self, object: &str, bytes: &[u8]) -> Option<Local> {
        if !self.is_named(object) {
            return None;
        }
        let local = self.keep(object, bytes);
        // Swept while it was written: whichever came second sees the other.
        if !self.is_named(object) {
            self.delete(&self.path(object), object);
        }
        local
    }

    /// Keeps an object, also one that a version is yet to name. Gives the file; none where there is no room or it can't be written.
    pub fn keep(&self, object: &str, bytes: &[u8]) -> Option<Local> {
        if bytes.len() as u64 > self.settings.bytes_max {
            return None;
        }
        let written = partial(&self.settings.folder).and_then(|mut file| {
            file.write_all(bytes)?;
            file.persist(self.path(object)).map_err(|error| error.error)
        });
        let file = written
            .inspect_err(|error| tracing::warn!(object, %error, "the cache can't be written"))
            .ok()?;
        self.evict();
        Some(Local::new(file, Holder::Cache, &self.counts))
    }

    /// Deletes what a version, the newest, does not name, and what crashes left behind.
    pub fn sweep(&self, version: u64, objects: BTreeSet<String>) {
        {
            let mut named = lock(&self.named);
            if version < named.version {
                return;
            }
            *named = Named { version, objects };
        }
        self.clear_partial();
        for entry in self.entries() {
            if !self.is_named(&entry.object) {
                self.delete(&entry.path, &entry.object);
            }
        }
        self.evict();
    }

    /// Deletes what is over the bound: what no version needs, then what was used longest ago.
    fn evict(&self) {
        let mut entries = self.entries();
        let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        entries.sort_by_cached_key(|entry| (self.is_named(&entry.object), entry.used));
        for entry in entries {
            if bytes <= self.settings.bytes_max {
                break;
            }
            self.delete(&entry.path, &entry.object);
            bytes -= entry.bytes;
        }
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    fn path(&self, object: &str) -> PathBuf {
        self.settings.folder.join(object.replacen('/', "-", 1))
    }

    /// The objects that are held. Whatever else lies there is somebody else's and stays.
    fn entries(&self) -> Vec<Entry> {
        self.files(|name, path, metadata| {
            let (kind, digest) = name.split_once('-')?;
            let object = format!("{kind}/{digest}");
            let ours = KINDS.contains(&kind) && is_object_name(&object, kind);
            ours.then_some(Entry {
                object,
                path,
                bytes: metadata.len(),
                used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            })
        })
    }

    fn clear_partial(&self) {
        let left = self.files(|name, path, metadata| {
            let age = metadata.modified().ok()?.elapsed().unwrap_or_default();
            (name.starts_with(PARTIAL) && age > PARTIAL_AGE_MAX).then_some(path)
        });
        left.iter().for_each(|path| self.delete(path, "partial"));
    }

    /// What `of` makes of the files. One that goes away meanwhile is not there.
    fn files<T>(&self, of: impl Fn(&str, PathBuf, std::fs::Metadata) -> Option<T>) -> Vec<T> {
        let listed = std::fs::read_dir(&self.settings.folder);
        let listed = listed.inspect_err(|error| tracing::warn!(%error, "the cache can't be listed"));
        let entries = listed.into_iter().flatten().flatten();
        entries
            .filter_map(|entry| of(entry.file_name().to_str()?, entry.path(), entry.metadata().ok()?))
            .collect()
    }

    fn delete(&self, path: &Path, object: &str) {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != Io::NotFound => {
                tracing::error!(object, %error, "a file of the cache can't be deleted");
            }
            _ => {}
        }
    }
}

/// A new file for its owner alone, deleted unless it gets a name.
fn partial(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PARTIAL).tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(content: &[u8]) -> String {
        format!("graphs/{}", blake3::hash(content).to_hex())
    }

    #[test]
    fn what_no_version_names_goes_before_what_was_used_longer_ago() {
        let dir = tempfile::tempdir().unwrap();
        let settings = CacheSettings {
            folder: dir.path().to_owned(),
            bytes_max: 30,
        };
        let counts = Arc::default();
        let cache = Cache::open(&settings, &counts).unwrap();
        let contents: Vec<[u8; 10]> = (0..5).map(|number| [number; 10]).collect();
        let objects: Vec<String> = contents.iter().map(|content| object(content)).collect();
        let held = || {
            objects
                .iter()
                .map(|object| cache.path(object).exists())
                .collect::<Vec<_>>()
        };
        let keep = |at: usize, seconds: u64| {
            let local = cache.keep(&objects[at], &contents[at]);
            let file = File::open(cache.path(&objects[at]));
            if let Ok(file) = file {
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
                    .unwrap();
            }
            local
        };
        // All but number 2, which is on its way to be named and is used later than the others.
        cache.sweep(1, [0, 1, 3, 4].map(|at| objects[at].clone()).into());
        for (at, seconds) in [(0, 20), (1, 10), (2, 30)] {
            assert!(keep(at, seconds).is_some());
        }
        assert_eq!((held(), cache.bytes()), (vec![true, true, true, false, false], 30));
        assert!(keep(3, 40).is_some());
        assert_eq!((held(), cache.bytes()), (vec![true, true, false, true, false], 30));
        assert!(keep(4, 50).is_some());
        assert_eq!((held(), cache.bytes()), (vec![true, false, false, true, true], 30));
        // Asked for, and so used last.
        assert!(cache.read(&objects[0]).is_some());
        cache.sweep(2, objects.iter().cloned().collect());
        assert!(keep(1, 60).is_some());
        assert_eq!((held(), cache.bytes()), (vec![true, true, false, false, true], 30));

        // An older version that comes late changes nothing; a newer one that names nothing leaves nothing.
        cache.sweep(1, BTreeSet::new());
        assert_eq!((held().iter().filter(|held| **held).count(), cache.swept()), (3, 2));
        cache.sweep(3, BTreeSet::new());
        assert_eq!((held(), cache.bytes()), (vec![false; 5], 0));
        assert!(cache.keep_read(&objects[0], &contents[0]).is_none(), "it is not named");
        assert_eq!(held(), [false; 5]);
    }
}
