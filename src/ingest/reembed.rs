//! An archive's images embedded by another model: from the files they came from where these are at hand, else from the pictures that the archive keeps.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use rayon::prelude::*;

use super::build::{graph_builder, read_model};
use super::dataset::Dataset;
use super::file_keys::file_keys;
use super::progress::Progress;
use crate::archive::{Archive, Identity, NewSpace, Reembed, Reembedded, State};
use crate::domain::{Excerpt, Key, Record};
use crate::embed::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{Decoder, Pipeline, render};
use crate::index::IndexSettings;
use crate::search::prepare;

/// Images in one call of the model.
const BATCH: usize = 32;
/// Pictures that are read at a time.
const READS_MAX: usize = 8;
/// Time between lines of progress where there is no terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// Images that are named when they can't be embedded.
const NAMED_MAX: usize = 5;

/// By what an archive is embedded, and out of what.
pub struct ReembedSettings {
    /// The model: a folder, or `thumbnail`.
    pub model: PathBuf,
    /// The files that the images came from.
    pub data: Option<PathBuf>,
    /// Which classes get a graph.
    pub index: IndexSettings,
    /// Threads that read and decode.
    pub threads: usize,
}

/// Moves an archive to the space of another model, beside whoever reads and writes it.
///
/// # Errors
/// `PixelsNotKept` when the picture of an image is nowhere, before anything is embedded; what decoding a picture refuses, with the image's id; otherwise as [`Archive::reembed`].
pub async fn reembed(
    archive: &Archive,
    backend: Box<dyn Backend>,
    decoder: &Decoder,
    settings: &ReembedSettings,
) -> Result<Reembedded> {
    let (card, model) = read_model(&settings.model)?;
    // Windows are the archive's, whatever its model.
    let windows = archive.latest().await?.space.windows()?;
    let new = NewSpace {
        space: card.space().with_windows(&windows),
        model,
        provenance: backend.provenance(),
    };
    let state = State::load(archive).await?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(settings.threads.max(1))
        .build()
        .map_err(|error| Error::with_source(ErrorKind::Unavailable, "no threads to decode with", error))?;
    let files = match &settings.data {
        Some(data) => Some(tokio::task::block_in_place(|| {
            let data = Dataset::open(data)?;
            pool.install(|| Files::of(data, archive.identity(), decoder))
        })?),
        None => None,
    };
    let images = state.live().count();
    if state.manifest.space != new.space {
        let has = |record: &Record| record.pixels.is_some() || files.as_ref().is_some_and(|files| files.has(record));
        all_have_pictures(state.live().map(|spot| state.at(spot).as_ref()), images, has)?;
    }
    drop(state);
    let mut model = Model {
        pictures: Pictures {
            pipeline: Pipeline {
                input: card.input(),
                windows,
            },
            decoder,
            files,
        },
        backend,
        pool,
        progress: Progress::new(images, PROGRESS_EVERY),
    };
    let done = archive
        .reembed(new, &mut model, Some(graph_builder(settings.index.clone())))
        .await?;
    model.progress.finish();
    Ok(done)
}

fn all_have_pictures<'a>(
    records: impl Iterator<Item = &'a Record>,
    images: usize,
    has: impl Fn(&Record) -> bool,
) -> Result<()> {
    let without: Vec<String> = records
        .filter(|record| !has(record))
        .map(|record| record.id.to_string())
        .collect();
    if without.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the picture of {} of {images} images is not kept, among them {}: give the files that they came from with --data, or delete these images",
        without.len(),
        without[..without.len().min(NAMED_MAX)].join(", ")
    );
    Err(Error::new(ErrorKind::PixelsNotKept, message))
}

/// Files of a data set by the pseudonyms of their frames.
struct Files {
    data: Dataset,
    names: HashMap<Key, String>,
}

impl Files {
    fn of(data: Dataset, identity: &Identity, decoder: &Decoder) -> Result<Self> {
        let named = |name: &str| -> Result<Vec<(Key, String)>> {
            let keys = file_keys(&data.read(name)?, identity, decoder);
            Ok(keys.into_iter().map(|key| (key, name.to_owned())).collect())
        };
        let names = data.entries().par_iter().map(|entry| named(&entry.file));
        let names: Vec<_> = names.collect::<Result<_>>()?;
        let names = names.into_iter().flatten().collect();
        Ok(Self { data, names })
    }

    fn has(&self, record: &Record) -> bool {
        self.names.contains_key(&record.file_key)
    }

    fn read(&self, record: &Record) -> Result<Option<Vec<u8>>> {
        let name = self.names.get(&record.file_key);
        name.map(|name| self.data.read(name)).transpose()
    }
}

/// Makes vectors of pictures.
struct Model<'a> {
    pictures: Pictures<'a>,
    backend: Box<dyn Backend>,
    pool: rayon::ThreadPool,
    progress: Progress,
}

impl Reembed for Model<'_> {
    async fn vectors(&mut self, archive: &Archive, records: &[Arc<Record>]) -> Result<Vec<Vec<f32>>> {
        let pictures = &self.pictures;
        let reads: Vec<_> = (records.iter()).map(|record| pictures.kept(archive, record)).collect();
        let kept: Vec<Option<Bytes>> = stream::iter(reads).buffered(READS_MAX).try_collect().await?;
        let vectors = tokio::task::block_in_place(|| {
            let inputs = self.pool.install(|| {
                let pairs = records.par_iter().zip(kept);
                let inputs = pairs.map(|(record, kept)| {
                    let input = pictures.input(record, kept);
                    input.map_err(|error| error.context(format!("image `{}`", record.id)))
                });
                inputs.collect::<Result<Vec<_>>>()
            })?;
            let mut vectors = Vec::with_capacity(inputs.len());
            for batch in inputs.chunks(BATCH) {
                vectors.extend(self.backend.embed(batch)?);
            }
            Ok(vectors)
        });
        self.progress.done(records.len());
        vectors
    }
}

/// Where pictures come from.
struct Pictures<'a> {
    pipeline: Pipeline,
    decoder: &'a Decoder,
    files: Option<Files>,
}

impl Pictures<'_> {
    /// The picture that the archive keeps, unless there is the file itself.
    async fn kept(&self, archive: &Archive, record: &Record) -> Result<Option<Bytes>> {
        match &record.pixels {
            Some(pixels) if !self.files.as_ref().is_some_and(|files| files.has(record)) => {
                archive.read_pack(&pixels.pack).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// What the model is given of an image.
    fn input(&self, record: &Record, kept: Option<Bytes>) -> Result<crate::imaging::ModelInput> {
        if let (Some(pixels), Some(png)) = (&record.pixels, kept) {
            // In the window that was embedded.
            let shown = render(&png, pixels, None, record.window(), None)?;
            return Ok(prepare(self.decoder, &self.pipeline, &shown, Excerpt::default())?.input);
        }
        let bytes = self.files.as_ref().map(|files| files.read(record)).transpose()?;
        let bytes = bytes.flatten().ok_or_else(|| {
            let message = "its picture is not kept: give the file that it came from with --data, or delete it";
            Error::new(ErrorKind::PixelsNotKept, message)
        })?;
        Ok(prepare(self.decoder, &self.pipeline, &bytes, record.frame.into())?.input)
    }
}
