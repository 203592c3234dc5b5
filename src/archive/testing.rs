//! What the tests of this folder share: records, archives in temporary folders, and a storage that fails on command.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use super::manifest::MANIFESTS;
use super::store::Store;
use super::*;
use crate::domain::{ClassLabel, ImageId, Key, LabelSource, Record};

pub const DIMENSION: usize = 4;

pub fn class(name: &str) -> ClassLabel {
    ClassLabel::parse(name).unwrap()
}

/// A record for codecs, with keys that need no identity.
pub fn record(number: u32) -> Record {
    let key = |kind: u8| {
        let mut bytes = [kind; 16];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        Key(bytes)
    };
    let id = ImageId::new(crate::domain::Slot(number as u16), key(0));
    Record {
        class: Some(class("COVID")),
        label_source: Some(LabelSource::Folder),
        patient: Some(key(1)),
        pixel_key: Some(key(3)),
        source: Some("s".into()),
        ..Record::bare(id, key(2), "2026-01-01T00:00:00Z")
    }
}

/// Image `number` as it would be uploaded.
pub fn image(archive: &Archive, number: u32, label: Option<&str>) -> NewImage {
    let identity = archive.identity();
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&number.to_le_bytes());
    let patient = identity.patient_key(None, &format!("patient {number}"));
    let mut record = record(number);
    record.id = identity.image_id(patient, &digest);
    record.patient = patient;
    record.file_key = identity.file_key(&digest);
    record.pixel_key = Some(identity.pixel_key(&digest));
    record.class = label.map(class);
    record.file = Some(format!("{number}.png"));
    let original = serde_json::json!({"id": number, "file": record.file});
    record.sealed = identity.seal(&original, record.file_key).unwrap();
    NewImage {
        record,
        vector: (0..DIMENSION).map(|i| number as f32 + i as f32 + 0.5).collect(),
        space: manifest::tests::space(DIMENSION).id(),
        thumbnail: Some(format!("thumbnail {number}").into_bytes()),
        pixels: Some(NewPixels {
            png: format!("pixels {number}").into_bytes(),
            width: 3,
            height: 2,
            inverted: false,
            offset_levels: 0,
        }),
        provenance: RowsProvenance {
            precision: "f32".into(),
            device: "cpu".into(),
            engine: "test".into(),
        },
    }
}

pub fn insert(archive: &Archive, number: u32, label: Option<&str>) -> Change {
    Change::Insert(Box::new(image(archive, number, label)))
}

pub fn new_archive(identity: IdentityMode) -> NewArchive {
    NewArchive {
        name: "test".into(),
        demo: false,
        synthetic: false,
        licence: None,
        identity,
        retention: Retention::View,
        scope: Scope::default(),
        shown: Default::default(),
        space: manifest::tests::space(DIMENSION),
        precisions: vec!["f32".into()],
        shards: 1,
        model: None,
    }
}

/// An archive in a folder of its own.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub archive: Archive,
}

impl Place {
    pub async fn new(identity: IdentityMode) -> Self {
        // In memory where there is such a folder: these tests sync thousands of times, to try the order and not the disk.
        let memory = std::path::Path::new("/dev/shm");
        let dir = match memory.is_dir() && std::env::var_os("TMPDIR").is_none() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let dir = dir.unwrap();
        let url = dir.path().join("archive");
        let url = url.to_str().unwrap();
        let store = Store::create(url).unwrap();
        let archive = Archive::create_in(store, url, new_archive(identity), secret(), tuning())
            .await
            .unwrap();
        Self { dir, archive }
    }

    pub fn url(&self) -> String {
        self.dir.path().join("archive").to_str().unwrap().to_owned()
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("archive")
    }

    /// A handle of another process.
    pub async fn again(&self) -> Archive {
        Archive::open_in(Store::open(&self.url()).unwrap(), &self.url(), secret(), tuning())
            .await
            .unwrap()
    }

    /// A handle whose storage fails as `faults` says, and which gives up soon.
    pub async fn faulty(&self, faults: &Arc<Faults>) -> crate::error::Result<Archive> {
        self.faulty_at(faults, Arc::new(Timestamp::now)).await
    }

    /// The same with another time.
    pub async fn faulty_at(
        &self,
        faults: &Arc<Faults>,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> crate::error::Result<Archive> {
        let store = Store::open(&self.url()).unwrap();
        let store = faulty(&store, faults);
        let tuning = Tuning {
            patience: Duration::from_millis(20),
            clock,
            ..tuning()
        };
        Archive::open_in(store, &self.url(), secret(), tuning).await
    }

    /// A handle with another time.
    pub async fn at(&self, later: jiff::SignedDuration) -> Archive {
        let tuning = Tuning {
            clock: Arc::new(move || Timestamp::now() + later),
            ..tuning()
        };
        Archive::open_in(Store::open(&self.url()).unwrap(), &self.url(), secret(), tuning)
            .await
            .unwrap()
    }
}

/// Rows of tests are few, and nevertheless left to files.
pub fn tuning() -> Tuning {
    Tuning {
        memory_bytes_max: 0,
        ..Tuning::default()
    }
}

/// The same place, which fails as `faults` says.
pub fn faulty(store: &Store, faults: &Arc<Faults>) -> Store {
    faulty_at(store, faults, MANIFESTS)
}

/// The same, where what happens meanwhile happens at the first put of another name.
pub fn faulty_at(store: &Store, faults: &Arc<Faults>, meanwhile_at: &'static str) -> Store {
    store.wrapped(|inner| {
        Arc::new(Faulty {
            inner,
            faults: Arc::clone(faults),
            meanwhile_at,
        })
    })
}

pub fn secret() -> Secret {
    Secret::from_bytes([5; 32])
}

pub async fn writer(archive: &Archive) -> Writer {
    Writer::spawn(
        archive.clone(),
        WriterSettings::default(),
        unread_metrics(),
        tokio::sync::watch::channel(0).0,
    )
    .await
    .unwrap()
}

/// Writes as nobody does who has no time to lose.
pub trait Write {
    async fn write(&self, change: Change) -> crate::error::Result<Committed>;
}

impl Write for Writer {
    async fn write(&self, change: Change) -> crate::error::Result<Committed> {
        self.submit(change, Instant::now() + Duration::from_secs(600)).await
    }
}

/// When a storage fails. Operations are counted from 0.
#[derive(Default)]
pub struct Faults {
    /// From this operation on nothing works: the process was killed, or the network is gone.
    pub stop_at: Option<usize>,
    /// This operation works, and its caller is told that it did not.
    pub lie_at: Option<usize>,
    /// This put, and those behind it up to the second number, find the disk full.
    pub full_at: Option<(usize, usize)>,
    /// This put panics.
    pub panic_at: Option<usize>,
    /// Happens while the first manifest (or another name, see [`faulty_at`]) is put, before it is there: its writer is asleep.
    pub meanwhile: Mutex<Option<futures_util::future::BoxFuture<'static, ()>>>,
    pub operations: AtomicUsize,
    pub puts: AtomicUsize,
}

impl Faults {
    pub fn operations(&self) -> usize {
        self.operations.load(Ordering::SeqCst)
    }

    pub fn puts(&self) -> usize {
        self.puts.load(Ordering::SeqCst)
    }

    /// Refuses, or says whether to lie afterwards.
    fn next(&self) -> Result<bool> {
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        if self.stop_at.is_some_and(|stop| number >= stop) {
            return Err(broken());
        }
        Ok(self.lie_at == Some(number))
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic {
        store: "faulty",
        source: "out of order".into(),
    }
}

/// A storage that fails on command.
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    faults: Arc<Faults>,
    meanwhile_at: &'static str,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let lie = self.faults.next()?;
        let number = self.faults.puts.fetch_add(1, Ordering::SeqCst);
        assert_ne!(self.faults.panic_at, Some(number), "as asked for");
        if location.as_ref().starts_with(self.meanwhile_at) {
            let meanwhile = lock(&self.faults.meanwhile).take();
            if let Some(meanwhile) = meanwhile {
                meanwhile.await;
            }
        }
        if self
            .faults
            .full_at
            .is_some_and(|(first, last)| (first..=last).contains(&number))
        {
            let source = Box::new(std::io::Error::from_raw_os_error(libc::ENOSPC));
            return Err(object_store::Error::Generic {
                store: "faulty",
                source,
            });
        }
        let put = self.inner.put_opts(location, payload, opts).await?;
        if lie { Err(broken()) } else { Ok(put) }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(broken())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let lie = self.faults.next()?;
        let got = self.inner.get_opts(location, options).await?;
        if lie { Err(broken()) } else { Ok(got) }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Metrics for tests that don't look at them.
pub fn unread_metrics() -> std::sync::Arc<crate::metrics::Metrics> {
    crate::metrics::Metrics::new().unwrap().into()
}
