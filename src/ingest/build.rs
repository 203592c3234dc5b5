//! Vectors of a data set to an archive: one version, with pictures when the images are at hand, with graphs where they pay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::dataset::Dataset;
use super::image::pictures;
use super::progress::Progress;
use crate::archive::{
    Archive, ClassData, GraphBuilder, GraphParameters, IdentityMode, NewArchive, NewGraph, NewImage, NewModel,
    Retention, RowsObject, Scope, Secret, load_folder,
};
use crate::domain::{ClassLabel, Embedding};
use crate::embed::ModelCard;
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::Decoder;
use crate::index::{self, IndexSettings, build_graph};
use crate::search::prepare;

/// Images decoded together: bounds memory, keeps every thread busy.
const CHUNK: usize = 64;
/// Time between lines of progress where there is no terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// What to build, out of what.
pub struct BuildSettings {
    /// Folder of `.npy` and `.json`.
    pub embeddings: PathBuf,
    /// The images they were made of.
    pub data: Option<PathBuf>,
    /// The model they were made with: a folder, or `thumbnail`.
    pub model: Option<PathBuf>,
    /// Shown to people.
    pub name: String,
    /// Licence of the images.
    pub licence: Option<String>,
    /// Made for showing the product.
    pub demo: bool,
    /// Made by a program.
    pub synthetic: bool,
    /// What is kept of who an image belongs to.
    pub identity: IdentityMode,
    /// Which pixels are kept.
    pub retention: Retention,
    /// Shards of a new archive.
    pub shards: u32,
    /// Which classes get a graph.
    pub index: IndexSettings,
    /// Threads that decode.
    pub threads: usize,
}

/// What was done.
#[derive(Debug, Default)]
pub struct BuildReport {
    /// The version that holds it.
    pub version: u64,
    /// New images.
    pub inserted: usize,
    /// Files that were known.
    pub duplicates: usize,
    /// Files that are known under another class.
    pub conflicts: usize,
    /// Graphs in that version.
    pub graphs: usize,
    /// Files that were left out, and why.
    pub left_out: Vec<(String, String)>,
}

/// Makes an archive, or adds to one, in one version. Killed before its end it leaves the archive as it was.
///
/// # Errors
/// `InvalidRequest`, `NotFound` for vectors or images that can't be used; `SpaceMismatch` when the model or the archive is of another space;
/// `StorageFull`, `Unavailable` when it can't be written.
pub async fn build(
    url: &str,
    secret: impl FnOnce() -> Result<Secret>,
    decoder: &Decoder,
    settings: &BuildSettings,
) -> Result<BuildReport> {
    let classes = load_folder(&settings.embeddings)?;
    let Some(first) = classes.first() else {
        return Err(Error::new(ErrorKind::NotFound, "the folder of vectors is empty"));
    };
    let space = first.file.space.clone();
    let model = settings.model.as_deref().map(read_model).transpose()?;
    if let Some((card, _)) = &model
        && card.space() != space
    {
        return Err(Error::new(
            ErrorKind::SpaceMismatch,
            format!(
                "the model `{}` is of space `{}`, the vectors are of `{}`",
                card.name,
                card.space().id(),
                space.id()
            ),
        ));
    }
    let input = model.as_ref().map(|(card, _)| card.input());
    let new = NewArchive {
        name: settings.name.clone(),
        demo: settings.demo,
        synthetic: settings.synthetic,
        licence: settings.licence.clone(),
        identity: settings.identity,
        retention: settings.retention,
        scope: Scope::default(),
        precisions: precisions(&classes),
        space,
        shards: settings.shards,
        model: model.map(|(_, model)| model),
    };
    let archive = open_or_create(url, new, secret()?).await?;
    let images = settings.data.as_deref().map(Dataset::open).transpose()?;
    let source = Source {
        archive: &archive,
        decoder,
        input,
        images: images.as_ref(),
        retention: settings.retention,
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(settings.threads.max(1))
        .build()
        .map_err(|error| Error::with_source(ErrorKind::Unavailable, "no threads to decode with", error))?;

    let mut report = BuildReport::default();
    let mut bulk = archive.bulk().await?;
    let mut progress = Progress::new(classes.iter().map(|class| class.vectors.rows).sum(), PROGRESS_EVERY);
    let now = Timestamp::now().to_string();
    for class in &classes {
        let rows: Vec<usize> = (0..class.vectors.rows).collect();
        for chunk in rows.chunks(CHUNK) {
            let made: Vec<_> = tokio::task::block_in_place(|| {
                pool.install(|| chunk.par_iter().map(|&row| source.image(class, row, &now)).collect())
            });
            for (&row, image) in chunk.iter().zip(made) {
                match image {
                    Ok(image) => {
                        bulk.push(image).await?;
                    }
                    Err(error) => report.left_out.push((name_of(class, row), error.to_string())),
                }
            }
            progress.done(chunk.len());
        }
    }
    progress.finish();
    let appended = bulk.commit(Some(graph_builder(settings.index.clone()))).await?;
    report.version = appended.version;
    report.inserted = appended.inserted;
    report.duplicates = appended.duplicates;
    report.conflicts = appended.conflicts;
    report.graphs = archive.latest().await?.graphs.len();
    Ok(report)
}

async fn open_or_create(url: &str, new: NewArchive, secret: Secret) -> Result<Archive> {
    let space = new.space.clone();
    match Archive::create(url, new, secret.clone()).await {
        Err(error) if error.kind() == ErrorKind::Conflict => {}
        made => return made,
    }
    let archive = Archive::open(url, secret).await?;
    archive.latest().await?.require_space(&space)?;
    Ok(archive)
}

/// Where the pictures of an image come from.
struct Source<'a> {
    archive: &'a Archive,
    decoder: &'a Decoder,
    input: Option<crate::imaging::InputSpec>,
    images: Option<&'a Dataset>,
    retention: Retention,
}

impl Source<'_> {
    fn image(&self, class: &ClassData, row: usize, now: &str) -> Result<NewImage> {
        let identity = self.archive.identity();
        let mut record = class.file.record(row, identity, now)?;
        let (mut thumbnail, mut pixels) = (None, None);
        if let (Some(images), Some(file)) = (self.images, record.file.clone()) {
            let bytes = images.read(&file)?;
            let described = class.file.described(row)?;
            if described
                .sha256
                .is_some_and(|sha256| sha256 != hex::encode(Sha256::digest(&bytes)))
            {
                let why = "the file is not the one that was embedded: embed the data again";
                return Err(Error::new(ErrorKind::InvalidImage, why));
            }
            // The input size does not matter here: only the picture is kept.
            let input = self.input.unwrap_or(crate::imaging::InputSpec {
                width: 1,
                height: 1,
                fit: crate::imaging::Fit::Squeeze,
            });
            let image = prepare(self.decoder, &input, &bytes, None)?.image;
            record.id = identity.image_id(record.patient, &image.pixels);
            record.pixel_key = Some(identity.pixel_key(&image.pixels));
            record.window = Some(image.window.into());
            (thumbnail, pixels) = pictures(&image, self.retention)?;
        }
        Ok(NewImage {
            record,
            vector: class.vectors.row(row).to_vec(),
            thumbnail,
            pixels,
            provenance: class.file.provenance.rows(),
        })
    }
}

fn name_of(class: &ClassData, row: usize) -> String {
    let described = class.file.described(row).ok();
    described
        .and_then(|described| described.file)
        .unwrap_or_else(|| format!("{}, row {row}", class.file.stem()))
}

fn precisions(classes: &[ClassData]) -> Vec<String> {
    let mut precisions: Vec<String> = classes
        .iter()
        .map(|class| class.file.provenance.precision.clone())
        .collect();
    precisions.sort();
    precisions.dedup();
    precisions
}

fn read_model(dir: &Path) -> Result<(ModelCard, NewModel)> {
    let unwritable = |error| Error::with_source(ErrorKind::Internal, "the model card can't be written as JSON", error);
    if dir.as_os_str() == "thumbnail" {
        let card = ModelCard::thumbnail();
        let model = NewModel {
            card: serde_json::to_value(&card).map_err(unwritable)?,
            torchscript: None,
        };
        return Ok((card, model));
    }
    let card = ModelCard::load(dir)?;
    let script = std::fs::read(dir.join("model.pt")).map_err(|error| {
        Error::with_source(
            ErrorKind::NotFound,
            format!("`{}` can't be read", dir.join("model.pt").display()),
            error,
        )
    })?;
    card.check_script(&script)?;
    let model = NewModel {
        card: serde_json::to_value(&card).map_err(unwritable)?,
        torchscript: Some(script.into()),
    };
    Ok((card, model))
}

/// A graph for each class with more rows than the threshold, built in parallel, one thread each.
pub fn graph_builder(settings: IndexSettings) -> GraphBuilder {
    Arc::new(move |rows: &RowsObject| {
        let mut by_class: BTreeMap<&ClassLabel, Vec<u32>> = BTreeMap::new();
        for (row, record) in (0..rows.rows()).zip(&rows.records) {
            if let Some(class) = &record.class {
                by_class.entry(class).or_default().push(row);
            }
        }
        let large: Vec<_> = by_class
            .into_iter()
            .filter(|(_, keys)| keys.len() > settings.exact_rows_max)
            .collect();
        large
            .into_par_iter()
            .map(|(class, keys)| graph(rows, class, &keys, &settings.graph))
            .collect()
    })
}

fn graph(rows: &RowsObject, class: &ClassLabel, keys: &[u32], parameters: &index::GraphParameters) -> Result<NewGraph> {
    let dimension = rows.header.dimension;
    let units = keys
        .iter()
        .map(|&row| Embedding::from_raw(rows.vector(row), dimension))
        .collect::<Result<Vec<_>>>()?;
    let vectors: Vec<&[f32]> = units.iter().map(Embedding::as_slice).collect();
    Ok(NewGraph {
        class: Some(class.clone()),
        rows: keys.len() as u64,
        metric: None,
        parameters: GraphParameters {
            connectivity: parameters.connectivity,
            expansion_add: parameters.expansion_add,
            expansion_search: parameters.expansion_search,
            scalar: index::GraphParameters::SCALAR.to_owned(),
            other: Default::default(),
        },
        bytes: build_graph(&vectors, keys, parameters)?,
    })
}
