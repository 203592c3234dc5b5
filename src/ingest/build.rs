//! Vectors of a data set to an archive: one version, with pictures when the images are at hand, with graphs where they pay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::copies::{self, Compared, near};
use super::dataset::Dataset;
use super::image::pictures;
use super::progress::Progress;
use crate::archive::{
    Archive, ArchiveInfo, Bulk, CacheSettings, ClassData, GraphBuilder, GraphParameters, IdentityMode, Manifest,
    NewArchive, NewGraph, NewImage, NewModel, Outcome, Retention, RowsObject, Scope, Secret, Shown, load_folder,
};
use crate::domain::{ClassLabel, Embedding, ImageId, Metric};
use crate::embed::{ModelCard, Network};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{Decoder, Fit, InputSpec, NEAR_DUPLICATE, Pipeline};
use crate::index::{self, IndexSettings, build_graph, compared_row};
use crate::search::prepare;

/// Images decoded together: bounds memory, keeps every thread busy.
const CHUNK: usize = 64;
/// Time between lines of progress where there is no terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Images that are compared with each other for copies: time grows with the square of their number.
pub const COMPARED_MAX: usize = 50_000;

/// What to build, out of what.
pub struct BuildSettings {
    /// Folder of `.npy` and `.json`.
    pub embeddings: PathBuf,
    /// The images they were made of.
    pub data: Option<PathBuf>,
    /// The model they were made with: a folder, or `thumbnail`.
    pub model: Option<PathBuf>,
    /// What the archive is, as far as somebody said so.
    pub wanted: Wanted,
    /// Which classes get a graph.
    pub index: IndexSettings,
    /// Threads that decode.
    pub threads: usize,
    /// Whether copies of a picture are looked for.
    pub near_identical: bool,
    /// Where what is read from a bucket is kept.
    pub cache: Option<CacheSettings>,
}

/// What an archive is to be. Of a new one the rest has defaults; an archive that exists has to be so already.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Shown to people; default: the name of the folder of vectors.
    pub name: Option<String>,
    /// Licence of the images.
    pub licence: Option<String>,
    /// Made for showing the product.
    pub demo: bool,
    /// Made by a program.
    pub synthetic: bool,
    /// What is kept of who an image belongs to; default: linked.
    pub identity: Option<IdentityMode>,
    /// Which pixels are kept; default: view.
    pub retention: Option<Retention>,
    /// Shards; default: one.
    pub shards: Option<u32>,
    /// What stands in open records beside what always does.
    pub shown: Shown,
    /// Which DICOM objects are taken when they are sent; default: all.
    pub scope: Scope,
}

impl Wanted {
    /// Refuses an archive that is not what is wanted.
    fn check(&self, manifest: &Manifest, model: Option<&NewModel>) -> Result<()> {
        let info = &manifest.archive;
        let differs = |flag: &str, there: &dyn std::fmt::Display| {
            let message = format!(
                "--{flag} can't be changed: the archive was made with {there}; leave the flag out, or make another archive"
            );
            Err(Error::new(ErrorKind::InvalidRequest, message))
        };
        let other = |wanted: &Option<String>, there: &str| wanted.as_ref().is_some_and(|wanted| wanted != there);
        if other(&self.name, &info.name) {
            return differs("name", &info.name);
        }
        let licence = info.licence.as_deref().unwrap_or("none");
        if other(&self.licence, licence) {
            return differs("licence", &licence);
        }
        if self.demo && !info.demo {
            return differs("demo", &"no such mark");
        }
        if self.synthetic && !info.synthetic {
            return differs("synthetic", &"no such mark");
        }
        if self.identity.is_some_and(|wanted| wanted != info.identity) {
            return differs("identity", &info.identity);
        }
        if self.retention.is_some_and(|wanted| wanted != info.retention) {
            return differs("retention", &info.retention);
        }
        if self
            .shards
            .is_some_and(|wanted| wanted as usize != manifest.shards.len())
        {
            let message = format!(
                "--shards can't be changed here: the archive has {}; `medsearch reshard` changes that, or leave the flag out",
                manifest.shards.len()
            );
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        if self.scope != Scope::default() && self.scope != info.scope {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "the archive takes other objects: `medsearch scope` changes that",
            ));
        }
        if self.shown.file_names && !info.shown.file_names {
            return differs("show-file-names", &"hidden names");
        }
        if self.shown.tags.iter().any(|tag| !info.shown.tag(tag)) {
            return differs("tag", &"fewer tags");
        }
        let digest = |model: &NewModel| hex::encode(Sha256::digest(model.torchscript.as_deref().unwrap_or_default()));
        if let Some(wanted) = model
            && manifest
                .model
                .as_ref()
                .is_none_or(|there| there.digest != digest(wanted))
        {
            return differs("model", &"another model, or none");
        }
        Ok(())
    }
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
    /// New images that are copies of another one, new or known; none where nobody looked for copies.
    pub near_identical: Option<usize>,
    /// Files that were left out, and why.
    pub left_out: Vec<(String, String)>,
    /// Tags that are not shown, and how many records have them.
    pub hidden_tags: BTreeMap<String, usize>,
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
        && card.space() != space.of_model()
    {
        return Err(Error::new(
            ErrorKind::SpaceMismatch,
            format!(
                "the model `{}` is of space `{}`, the vectors are of `{}`",
                card.name,
                card.space().id(),
                space.of_model().id()
            ),
        ));
    }
    let pipeline = Pipeline {
        // The input size does not matter here: only the picture is kept.
        input: InputSpec {
            width: 1,
            height: 1,
            fit: Fit::Squeeze,
        },
        windows: space.windows()?,
    };
    let wanted = &settings.wanted;
    let identity = wanted.identity.unwrap_or(IdentityMode::Linked);
    if identity == IdentityMode::Anonymous && wanted.shown.file_names {
        let message = "an anonymous archive keeps no names of files: leave --show-file-names out";
        return Err(Error::new(ErrorKind::InvalidRequest, message));
    }
    let new = NewArchive {
        name: wanted.name.clone().unwrap_or_else(|| {
            let folder = settings.embeddings.file_name();
            folder.map_or_else(|| "archive".to_owned(), |name| name.to_string_lossy().into_owned())
        }),
        demo: wanted.demo,
        synthetic: wanted.synthetic,
        licence: wanted.licence.clone(),
        identity,
        retention: wanted.retention.unwrap_or(Retention::View),
        scope: wanted.scope.clone(),
        shown: wanted.shown.clone(),
        precisions: precisions(&classes),
        space,
        shards: wanted.shards.unwrap_or(1),
        model: model.map(|(_, model)| model),
    };
    let archive = open_or_create(url, new, settings, secret()?).await?;
    let info = archive.latest().await?.archive.clone();
    let images = settings.data.as_deref().map(Dataset::open).transpose()?;
    let source = Source {
        archive: &archive,
        decoder,
        pipeline: &pipeline,
        images: images.as_ref(),
        info: &info,
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(settings.threads.max(1))
        .build()
        .map_err(|error| Error::with_source(ErrorKind::Unavailable, "no threads to decode with", error))?;

    let mut report = BuildReport {
        hidden_tags: hidden_tags(&classes, &info.shown),
        ..BuildReport::default()
    };
    let mut bulk = archive.bulk().await?;
    let mut looked_at = LookedAt::default();
    // What one program drew is alike in what tells films apart.
    let total: usize = classes.iter().map(|class| class.vectors.rows).sum();
    let look = settings.near_identical && images.is_some() && !info.synthetic && total <= COMPARED_MAX;
    // Vectors alone are taken in at once; only pictures take time.
    let mut progress = images.as_ref().map(|_| Progress::new(total, PROGRESS_EVERY));
    let now = Timestamp::now().to_string();
    // One after the other: what was taken in is not held twice.
    for class in classes {
        let rows: Vec<usize> = (0..class.vectors.rows).collect();
        for chunk in rows.chunks(CHUNK) {
            let made: Vec<_> = tokio::task::block_in_place(|| {
                pool.install(|| {
                    chunk
                        .par_iter()
                        .map(|&row| source.image(&class, row, &now, look))
                        .collect()
                })
            });
            for (&row, image) in chunk.iter().zip(made) {
                match image {
                    Ok((image, compared)) => {
                        let (id, vector) = (image.record.id, image.vector.clone());
                        if bulk.push(image).await? == Outcome::Inserted && look {
                            looked_at.push(id, &vector, compared)?;
                        }
                    }
                    Err(error) => report.left_out.push((name_of(&class, row), error.to_string())),
                }
            }
            if let Some(progress) = &mut progress {
                progress.done(chunk.len());
            }
        }
    }
    if let Some(progress) = &progress {
        progress.finish();
    }
    if look {
        let total = looked_at.ids.len() + bulk.base().live().count();
        if total <= COMPARED_MAX {
            report.near_identical = Some(link(&archive, &mut bulk, looked_at, decoder, &pool).await?);
        }
    }
    let appended = bulk.commit(Some(graph_builder(settings.index.clone()))).await?;
    report.version = appended.version;
    report.inserted = appended.inserted;
    report.duplicates = appended.duplicates;
    report.conflicts = appended.conflicts;
    report.graphs = archive.latest().await?.graphs.len();
    Ok(report)
}

async fn open_or_create(url: &str, new: NewArchive, settings: &BuildSettings, secret: Secret) -> Result<Archive> {
    let (space, model) = (new.space.clone(), new.model.clone());
    match Archive::create(url, new, secret.clone()).await {
        Err(error) if error.kind() == ErrorKind::Conflict => {}
        made => return made,
    }
    let archive = Archive::open_cached(url, secret, settings.cache.as_ref()).await?;
    let manifest = archive.latest().await?;
    manifest.require_space(&space)?;
    settings.wanted.check(&manifest, model.as_ref())?;
    Ok(archive)
}

/// Images that are compared with each other, one after the other.
#[derive(Default)]
struct LookedAt {
    ids: Vec<ImageId>,
    vectors: Vec<f32>,
    compared: Vec<Option<Compared>>,
}

impl LookedAt {
    fn push(&mut self, id: ImageId, raw: &[f32], compared: Option<Compared>) -> Result<()> {
        self.vectors
            .extend_from_slice(Embedding::from_raw(raw, raw.len())?.as_slice());
        self.ids.push(id);
        self.compared.push(compared);
        Ok(())
    }
}

/// Finds which of the new images are copies of another one, new or there before, and says so to `bulk`. Gives their number.
async fn link(
    archive: &Archive,
    bulk: &mut Bulk,
    new: LookedAt,
    decoder: &Decoder,
    pool: &rayon::ThreadPool,
) -> Result<usize> {
    let state = Arc::clone(bulk.base());
    let spots: Vec<(usize, u32)> = state.live().collect();
    let known = copies::compared(archive, &state, &spots, decoder).await;
    let mut all = LookedAt::default();
    let dimension = state.manifest.space.dimension;
    let mut known = known.into_iter();
    for spots in spots.chunks(CHUNK) {
        let vectors = state.vectors(spots)?;
        for ((&spot, raw), compared) in spots.iter().zip(vectors.chunks_exact(dimension)).zip(known.by_ref()) {
            all.push(state.at(spot).id, raw, compared)?;
        }
    }
    let from = all.ids.len();
    // A known image that came again is absorbed, and stays what it was.
    let known: BTreeMap<ImageId, usize> = all.ids.iter().copied().zip(0..).collect();
    for (at, (id, compared)) in new.ids.into_iter().zip(new.compared).enumerate() {
        if !known.contains_key(&id) {
            all.push(id, &new.vectors[at * dimension..(at + 1) * dimension], compared)?;
        }
    }
    let pairs = tokio::task::block_in_place(|| {
        pool.install(|| near(&all.compared, &all.vectors, dimension, from, NEAR_DUPLICATE, || {}))
    });
    let links = spots.iter().enumerate().filter_map(|(at, &spot)| {
        let of = state.at(spot).near_identical_to?;
        Some((at, *known.get(&of)?))
    });
    let pairs = links.chain(pairs.iter().map(|pair| (pair.a, pair.b)));
    let mut clusters = copies::clusters(all.ids.len(), pairs);
    // Those without a new image are as they were.
    clusters.retain(|items| items.iter().any(|&item| item >= from));
    let found = clusters.iter().flatten().filter(|&&item| item >= from).count();
    let ids = |items: Vec<usize>| items.into_iter().map(|item| all.ids[item]).collect();
    bulk.link(clusters.into_iter().map(ids).collect());
    Ok(found)
}

fn hidden_tags(classes: &[ClassData], shown: &Shown) -> BTreeMap<String, usize> {
    let mut hidden = BTreeMap::new();
    let tags = classes
        .iter()
        .flat_map(|class| &class.file.records)
        .filter_map(|record| record.get("tags")?.as_object());
    for name in tags.flat_map(|tags| tags.keys()).filter(|name| !shown.tag(name)) {
        *hidden.entry(name.clone()).or_default() += 1;
    }
    hidden
}

/// Where the pictures of an image come from.
struct Source<'a> {
    archive: &'a Archive,
    decoder: &'a Decoder,
    pipeline: &'a Pipeline,
    images: Option<&'a Dataset>,
    info: &'a ArchiveInfo,
}

impl Source<'_> {
    /// An image, with what it is compared by if copies are looked for.
    fn image(&self, class: &ClassData, row: usize, now: &str, look: bool) -> Result<(NewImage, Option<Compared>)> {
        let identity = self.archive.identity();
        let mut record = class.file.record(row, identity, &self.info.shown, now)?;
        let described = class.file.described(row)?;
        let (mut thumbnail, mut pixels) = (None, None);
        if let (Some(images), Some(file)) = (self.images, described.file) {
            let sha256 = described.sha256.ok_or_else(|| {
                let why = "its record has no `sha256`: nothing proves that the file is the one that was embedded";
                Error::new(ErrorKind::InvalidRequest, why)
            })?;
            let bytes = images.read(&file)?;
            if sha256 != hex::encode(Sha256::digest(&bytes)) {
                let why = "the file is not the one that was embedded: embed the data again";
                return Err(Error::new(ErrorKind::InvalidImage, why));
            }
            let image = prepare(self.decoder, self.pipeline, &bytes, described.frame.into())?
                .picture
                .digest(&bytes);
            record.id = identity.image_id(record.patient, &image.pixels);
            record.pixel_key = Some(identity.pixel_key(&image.pixels));
            record.window = Some(image.window.into());
            (thumbnail, pixels) = pictures(&image, self.info.retention)?;
        }
        let compared =
            (thumbnail.as_deref().filter(|_| look)).and_then(|png| Compared::of_thumbnail(png, self.decoder));
        let image = NewImage {
            record,
            vector: class.vectors.row(row).to_vec(),
            space: class.file.space.id(),
            thumbnail,
            pixels,
            provenance: class.file.provenance.rows(),
        };
        Ok((image, compared))
    }
}

fn name_of(class: &ClassData, row: usize) -> String {
    let described = class.file.described(row).ok();
    described
        .and_then(|described| Some(described.frame.named(&described.file?)))
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

/// The card of a model in a folder, or of the built-in one, and what an archive keeps of it.
///
/// # Errors
/// As [`Network::read`].
pub(super) fn read_model(dir: &Path) -> Result<(ModelCard, NewModel)> {
    let unwritable = |error| Error::with_source(ErrorKind::Internal, "the model card can't be written as JSON", error);
    if dir.as_os_str() == "thumbnail" {
        let card = ModelCard::thumbnail();
        let model = NewModel {
            card: serde_json::to_value(&card).map_err(unwritable)?,
            torchscript: None,
        };
        return Ok((card, model));
    }
    let Network { card, script } = Network::read(dir)?;
    let model = NewModel {
        card: serde_json::to_value(&card).map_err(unwritable)?,
        torchscript: Some(script),
    };
    Ok((card, model))
}

/// A graph for each class with more rows than the threshold, built in parallel, one thread each.
pub fn graph_builder(settings: IndexSettings) -> GraphBuilder {
    Arc::new(move |rows: &RowsObject, metric: Option<&Metric>| {
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
            .map(|(class, keys)| graph(rows, metric, class, &keys, &settings.graph))
            .collect()
    })
}

fn graph(
    rows: &RowsObject,
    metric: Option<&Metric>,
    class: &ClassLabel,
    keys: &[u32],
    parameters: &index::GraphParameters,
) -> Result<NewGraph> {
    let dimension = rows.header.dimension;
    let mut units = Vec::with_capacity(keys.len());
    rows.each_vector(keys.iter().copied(), |raw| {
        units.push(compared_row(raw, dimension, metric)?);
        Ok(())
    })?;
    let vectors: Vec<&[f32]> = units.iter().map(Vec::as_slice).collect();
    Ok(NewGraph {
        class: Some(class.clone()),
        rows: keys.len() as u64,
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

#[cfg(test)]
mod tests {
    use super::super::bulk::{self, BulkSettings, Decode};
    use super::*;
    use crate::archive::export;
    use crate::domain::FrameNumber;
    use crate::embed::ThumbnailBackend;
    use crate::imaging::testing::png_of;
    use crate::imaging::{DecoderSettings, Limits, ModelInput, Provenance};

    fn decoder() -> Decoder {
        Decoder::new(DecoderSettings {
            limits: Limits::default(),
            workers: 1,
            worker_memory_bytes_max: 1 << 30,
            worker_seconds_max: 10,
            program: "none".into(),
        })
    }

    fn png(seed: u8) -> Vec<u8> {
        let pixels: Vec<u8> = (0..64u8).map(|i| i.wrapping_mul(seed)).collect();
        png_of(
            8,
            8,
            png::ColorType::Grayscale,
            png::BitDepth::Eight,
            &pixels,
            None,
            None,
        )
    }

    /// Pictures as the thumbnail embedder takes them.
    struct Pictures;

    impl Decode for Pictures {
        fn frames(&self, bytes: &[u8]) -> Result<u32> {
            decoder().frames(bytes)
        }

        fn decode(&self, bytes: &[u8], frame: FrameNumber) -> Result<(ModelInput, Provenance)> {
            let prepared = prepare(&decoder(), &ModelCard::thumbnail().input().into(), bytes, frame.into())?;
            Ok((prepared.input, prepared.picture.provenance))
        }
    }

    /// A data set whose names of files and columns name patients, embedded.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            std::fs::create_dir_all(place.path("data/COVID")).unwrap();
            std::fs::write(place.path("data/COVID/Mueller_Anna.png"), png(3)).unwrap();
            std::fs::write(place.path("data/COVID/Mueller_Anna copy.png"), png(3)).unwrap();
            std::fs::write(place.path("data/COVID/Schmidt.png"), png(5)).unwrap();
            let csv = "file,patient_id,PatientName,split,site\n\
                COVID/Mueller_Anna.png,M-4711,Anna Mueller,train,north\nCOVID/Mueller_Anna copy.png,M-4711,,train,north\n\
                COVID/Schmidt.png,S-1,,test,\n";
            std::fs::write(place.path("data/metadata.csv"), csv).unwrap();
            place.embed();
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn embed(&self) {
            let mut backend = ThumbnailBackend::default();
            let dataset = Dataset::open(&self.path("data")).unwrap();
            bulk::run(
                &dataset,
                &mut backend,
                &Pictures,
                &BulkSettings::new(self.path("embeddings")),
            )
            .unwrap();
        }

        async fn build(&self, archive: &str, wanted: Wanted) -> Result<BuildReport> {
            let settings = BuildSettings {
                embeddings: self.path("embeddings"),
                data: Some(self.path("data")),
                model: Some("thumbnail".into()),
                wanted,
                index: IndexSettings::default(),
                threads: 2,
                near_identical: true,
                cache: None,
            };
            let url = self.path(archive);
            let secret = || Ok(Secret::from_bytes([7; 32]));
            build(url.to_str().unwrap(), secret, &decoder(), &settings).await
        }

        /// Every byte of an archive.
        fn bytes(&self, archive: &str) -> Vec<u8> {
            let mut folders = vec![self.path(archive)];
            let mut bytes = Vec::new();
            while let Some(folder) = folders.pop() {
                for item in std::fs::read_dir(folder).unwrap() {
                    let path = item.unwrap().path();
                    if path.is_dir() {
                        folders.push(path);
                    } else {
                        bytes.extend(std::fs::read(path).unwrap());
                    }
                }
            }
            bytes
        }
    }

    fn holds(bytes: &[u8], text: &str) -> bool {
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_name_stands_in_the_clear() {
        let place = Place::new();
        for identity in [IdentityMode::Linked, IdentityMode::Anonymous] {
            let archive = identity.to_string();
            let wanted = Wanted {
                identity: Some(identity),
                shown: Shown {
                    tags: vec!["site".into()],
                    ..Shown::default()
                },
                ..Wanted::default()
            };
            let report = place.build(&archive, wanted).await.unwrap();
            assert_eq!((report.inserted, report.duplicates), (2, 1));
            assert_eq!(report.hidden_tags, BTreeMap::from([("PatientName".into(), 1)]));
            let bytes = place.bytes(&archive);
            // Long enough not to stand in a hex digest by chance.
            for name in ["Mueller", "Schmidt", "PatientName", "M-4711"] {
                assert!(!holds(&bytes, name), "{name} in {identity}");
            }
            assert!(holds(&bytes, "north") && holds(&bytes, "train"));

            let url = place.path(&archive);
            let opened = Archive::open(url.to_str().unwrap(), Secret::from_bytes([7; 32]));
            let out = place.path(&format!("{identity} again"));
            export(&opened.await.unwrap(), &out).await.unwrap();
            let text = |folder: &Path| std::fs::read_to_string(folder.join("COVID.json")).unwrap();
            match identity {
                IdentityMode::Linked => assert_eq!(text(&out), text(&place.path("embeddings"))),
                IdentityMode::Anonymous => assert!(!text(&out).contains("Mueller")),
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn names_are_shown_where_that_was_asked_for() {
        let place = Place::new();
        let shown = Wanted {
            shown: Shown {
                file_names: true,
                tags: vec![],
            },
            ..Wanted::default()
        };
        place.build("public", shown.clone()).await.unwrap();
        assert!(holds(&place.bytes("public"), "COVID/Schmidt.png"));
        let anonymous = Wanted {
            identity: Some(IdentityMode::Anonymous),
            ..shown
        };
        let error = place.build("none", anonymous).await.unwrap_err();
        assert!(error.to_string().contains("--show-file-names"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_archive_stays_what_it_was_made() {
        let place = Place::new();
        let small = Wanted {
            retention: Some(Retention::Thumbnail),
            name: Some("X-rays".into()),
            ..Wanted::default()
        };
        place.build("archive", small.clone()).await.unwrap();
        for same in [small, Wanted::default()] {
            assert_eq!(place.build("archive", same).await.unwrap().duplicates, 3);
        }
        let other: [(&str, Wanted); 5] = [
            (
                "retention",
                Wanted {
                    retention: Some(Retention::Original),
                    ..Wanted::default()
                },
            ),
            (
                "identity",
                Wanted {
                    identity: Some(IdentityMode::Anonymous),
                    ..Wanted::default()
                },
            ),
            (
                "shards",
                Wanted {
                    shards: Some(2),
                    ..Wanted::default()
                },
            ),
            (
                "name",
                Wanted {
                    name: Some("CTs".into()),
                    ..Wanted::default()
                },
            ),
            (
                "synthetic",
                Wanted {
                    synthetic: true,
                    ..Wanted::default()
                },
            ),
        ];
        for (flag, wanted) in other {
            let error = place.build("archive", wanted).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            assert!(
                error.to_string().contains(&format!("--{flag} can't be changed")),
                "{error}"
            );
        }
        // New pictures are kept as the archive says, not as a new archive would.
        std::fs::write(place.path("data/COVID/new.png"), png(9)).unwrap();
        place.embed();
        assert_eq!(place.build("archive", Wanted::default()).await.unwrap().inserted, 1);
        assert!(
            !place.path("archive/pixels").exists()
                || std::fs::read_dir(place.path("archive/pixels"))
                    .unwrap()
                    .next()
                    .is_none()
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_files_of_the_data_are_read_and_only_proven_ones() {
        let place = Place::new();
        let outside = place.path("private.png");
        std::fs::write(&outside, png(11)).unwrap();
        let json = place.path("embeddings/COVID.json");
        let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        let digest = hex::encode(Sha256::digest(png(11)));
        for (row, name) in ["../private.png", outside.to_str().unwrap()].into_iter().enumerate() {
            file["records"][row]["file"] = name.into();
            file["records"][row]["sha256"] = digest.clone().into();
        }
        let record = file["records"][2].as_object_mut().unwrap();
        record.remove("sha256");
        record.insert("file_key".into(), "ab".repeat(16).into());
        std::fs::write(&json, file.to_string()).unwrap();
        let report = place.build("archive", Wanted::default()).await.unwrap();
        assert_eq!(report.inserted, 0);
        let why: Vec<_> = report.left_out.iter().map(|(_, why)| why.as_str()).collect();
        assert!(
            why[0].contains("not of this data set") && why[1] == why[0] && why[2].contains("has no `sha256`"),
            "{why:?}"
        );
    }
}
