//! Many images at once: packs are written while images come in, rows and graphs at the end, all of it visible in one manifest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::commit::{Propose, Proposed, base, commit};
use super::draft::{Draft, Meeting, admit, alias_of, check_image, encode, keep_vector};
use super::graphs::Graphs;
use super::links::star;
use super::merge::ROWS_BYTES_MAX;
use super::pack::{Kind, PackBuilder, Slice};
use super::rows::Rows;
use super::{
    Archive, GraphBuilder, GraphEntry, Identity, Manifest, MetricEntry, Moment, NewImage, NewPixels, Outcome,
    PackEntry, Retention, RowsEntry, RowsObject, RowsProvenance, Shard, State,
};
use crate::domain::{Alias, ClassLabel, ImageId, Key, Record, Space};
use crate::error::{Error, ErrorKind, Result};

/// Rows objects that are written at a time: a class of very many rows has some to itself, and one graph is the work of one thread. No more, since each is
/// in memory several times while its graphs are built: as it came, as it is written, as it is compared, and in the graph.
const OBJECTS_AT_ONCE: usize = 2;

/// Packs that are not named yet are safe from collection for 13 hours at least; the last of them is left for the commit.
pub(super) const AGE_MAX: Duration = Duration::from_secs(12 * 3600);

/// What adding many images did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The version that holds all of them.
    pub version: u64,
    /// Images that are new.
    pub inserted: usize,
    /// Files that are a known image once more, under its class or none, or that give it its first class.
    pub duplicates: usize,
    /// Files that are a known image under another class: neither label votes until a relabel settles it.
    pub conflicts: usize,
}

impl Archive {
    /// Adds images in one version. See [`Archive::bulk`] for more than memory holds.
    ///
    /// # Errors
    /// As [`Bulk::push`] and [`Bulk::commit`].
    pub async fn append(&self, images: Vec<NewImage>, graphs: Option<GraphBuilder>) -> Result<Appended> {
        let mut bulk = self.bulk().await?;
        for image in images {
            bulk.push(image).await?;
        }
        bulk.commit(graphs).await
    }

    /// Begins to add many images. Nothing is visible before [`Bulk::commit`].
    ///
    /// # Errors
    /// `Unavailable`, `Damaged` when the archive can't be loaded.
    pub async fn bulk(&self) -> Result<Bulk> {
        Ok(Bulk {
            archive: self.clone(),
            base: base(self).await?,
            began: self.moment(),
            staged: vec![],
            keys: HashMap::new(),
            thumbnails: PackBuilder::new(Kind::Thumbnails),
            pixels: PackBuilder::new(Kind::Pixels),
            open_thumbnails: vec![],
            open_pixels: vec![],
            packs: vec![],
            classes: BTreeSet::new(),
            pictures: vec![],
        })
    }
}

/// Many images on their way in. Holds records and vectors; pictures go to the archive as they come.
pub struct Bulk {
    archive: Archive,
    base: Arc<State>,
    began: Moment,
    staged: Vec<Staged>,
    /// Patient and file or pixels -> position in `staged`.
    keys: HashMap<(Option<Key>, Key), usize>,
    thumbnails: PackBuilder,
    pixels: PackBuilder,
    open_thumbnails: Vec<(usize, Slice)>,
    open_pixels: Vec<(usize, Slice, NewPixels)>,
    packs: Vec<PackEntry>,
    /// Classes that the base does not have.
    classes: BTreeSet<ClassLabel>,
    pictures: Vec<Vec<ImageId>>,
}

struct Staged {
    record: Record,
    vector: Vec<f32>,
    provenance: RowsProvenance,
    /// Further files of it that were pushed, and how many of them are in conflict with it.
    files: usize,
    conflicts: usize,
}

impl Bulk {
    /// Takes one image. One that was pushed before becomes an alias, and gives the first its class when that has none.
    ///
    /// # Errors
    /// `WrongDimension`, `InvalidRequest`, `SpaceMismatch` for a vector that can't be stored, `Conflict` for one class too many: then nothing
    /// was taken. `StorageFull`,
    /// `Unavailable` when a full pack can't be written.
    pub async fn push(&mut self, image: NewImage) -> Result<Outcome> {
        check_image(&image, &self.base, &self.archive)?;
        admit(image.record.class.as_ref(), &self.base, &mut self.classes)?;
        let NewImage {
            mut record,
            vector,
            thumbnail,
            pixels,
            provenance,
            ..
        } = image;
        record.thumbnail = None;
        record.pixels = None;
        let keys: Vec<_> = std::iter::once(record.file_key)
            .chain(record.pixel_key)
            .map(|key| (record.patient, key))
            .collect();
        if let Some(&index) = keys.iter().find_map(|key| self.keys.get(key)) {
            self.keys.extend(keys.into_iter().map(|key| (key, index)));
            let other = Staged {
                record,
                vector,
                provenance,
                files: 0,
                conflicts: 0,
            };
            return join(&mut self.staged[index], other, self.archive.identity());
        }
        let index = self.staged.len();
        self.keys.extend(keys.into_iter().map(|key| (key, index)));
        self.staged.push(Staged {
            record,
            vector,
            provenance,
            files: 0,
            conflicts: 0,
        });
        if let Some(png) = thumbnail {
            self.open_thumbnails.push((index, self.thumbnails.push(&png)));
        }
        if let Some(mut new) = pixels.filter(|_| self.base.manifest.archive.retention != Retention::Thumbnail) {
            let slice = self.pixels.push(&std::mem::take(&mut new.png));
            self.open_pixels.push((index, slice, new));
        }
        if self.thumbnails.is_full() {
            self.close_thumbnails().await?;
        }
        if self.pixels.is_full() {
            self.close_pixels().await?;
        }
        Ok(Outcome::Inserted)
    }

    /// The version that the images are added to, as it was when that began.
    pub fn base(&self) -> &Arc<State> {
        &self.base
    }

    /// Takes the images of each of `pictures`, pushed or there before, for copies of one.
    pub fn link(&mut self, pictures: Vec<Vec<ImageId>>) {
        self.pictures = pictures;
    }

    /// Makes all of it visible in one version, durable when this returns. `graphs` is asked for every new rows object.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`: then nothing was added. What `graphs` fails with.
    pub async fn commit(mut self, graphs: Option<GraphBuilder>) -> Result<Appended> {
        self.close_thumbnails().await?;
        self.close_pixels().await?;
        let Self {
            archive,
            base,
            began,
            staged,
            packs,
            pictures,
            ..
        } = self;
        let mut work = Append {
            space: base.manifest.space.clone(),
            staged,
            packs,
            pictures,
            graphs,
            began,
            written: None,
            inserted: 0,
            duplicates: 0,
            conflicts: 0,
        };
        let state = commit(&archive, &base, &mut work).await?;
        Ok(Appended {
            version: state.manifest.version,
            inserted: work.inserted,
            duplicates: work.duplicates,
            conflicts: work.conflicts,
        })
    }

    async fn close_thumbnails(&mut self) -> Result<()> {
        let Some(name) = close(&self.archive, &mut self.thumbnails, &mut self.packs).await? else {
            return Ok(());
        };
        for (index, slice) in self.open_thumbnails.drain(..) {
            self.staged[index].record.thumbnail = Some(slice.of(&name));
        }
        Ok(())
    }

    async fn close_pixels(&mut self) -> Result<()> {
        let Some(name) = close(&self.archive, &mut self.pixels, &mut self.packs).await? else {
            return Ok(());
        };
        for (index, slice, new) in self.open_pixels.drain(..) {
            self.staged[index].record.pixels = Some(new.at(slice.of(&name)));
        }
        Ok(())
    }
}

async fn close(archive: &Archive, builder: &mut PackBuilder, packs: &mut Vec<PackEntry>) -> Result<Option<String>> {
    if builder.is_empty() {
        return Ok(None);
    }
    let (name, bytes) = builder.finish().await?;
    packs.push(PackEntry::new(name.clone(), bytes.len() as u64));
    archive.store().put_object(&name, bytes).await?;
    Ok(Some(name))
}

/// Takes `other` in as one more file of `first`.
fn join(first: &mut Staged, other: Staged, identity: &Identity) -> Result<Outcome> {
    let mut file = alias_of(&other.record);
    let meeting = Meeting::of(&first.record, &file);
    let outcome = meeting.outcome;
    if meeting.changes() {
        keep_vector(&mut file, &other.vector, &first.vector, identity)?;
        meeting.apply(&mut first.record, file, &other.record.ingested_at);
    }
    first.files += 1;
    first.conflicts += usize::from(outcome == Outcome::Conflict);
    Ok(outcome)
}

/// The file that a staged image came with first: what it said before another one gave it a label.
fn first_file(record: &Record) -> Alias {
    let mut file = alias_of(record);
    if let Some(before) = record.history.first() {
        file.class.clone_from(&before.class);
        file.label_source.clone_from(&before.label_source);
        file.labelled_by.clone_from(&before.labelled_by);
    }
    file
}

struct Append {
    /// Of their vectors.
    space: Space,
    staged: Vec<Staged>,
    packs: Vec<PackEntry>,
    pictures: Vec<Vec<ImageId>>,
    graphs: Option<GraphBuilder>,
    began: Moment,
    written: Option<Written>,
    inserted: usize,
    duplicates: usize,
    conflicts: usize,
}

/// Objects of the images that the base did not have.
struct Written {
    fresh: Vec<usize>,
    /// What they are copies of, by id.
    links: BTreeMap<ImageId, Option<ImageId>>,
    rows: Vec<(RowsEntry, Arc<RowsObject>)>,
    graphs: Vec<GraphEntry>,
    /// The metric that they are for.
    metric: Option<MetricEntry>,
    /// The shards that they lie in.
    shards: Vec<Shard>,
}

impl Propose for Append {
    async fn propose(&mut self, archive: &Archive, base: &Arc<State>, commit: &str) -> Result<Option<Proposed>> {
        if self.began.age(archive.moment()) > AGE_MAX {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "adding these images took so long that their pictures may be gone",
            ));
        }
        base.manifest.require_space(&self.space)?;
        let mut draft = Draft::new(base, archive.now().to_string());
        let mut fresh = Vec::new();
        (self.duplicates, self.conflicts) = (0, 0);
        for (index, staged) in self.staged.iter().enumerate() {
            let Some(spot) = draft.same(&staged.record) else {
                fresh.push(index);
                self.duplicates += staged.files - staged.conflicts;
                self.conflicts += staged.conflicts;
                continue;
            };
            // What is in conflict within the set may be settled in the archive.
            let mut conflicts = 0;
            let files = std::iter::once(first_file(&staged.record)).chain(staged.record.aliases.iter().cloned());
            for file in files {
                // An absorbed file moves the row.
                let spot = draft.same(&staged.record).unwrap_or(spot);
                let outcome = draft.absorb(spot, file, &staged.vector, archive.identity())?;
                conflicts += usize::from(outcome == Outcome::Conflict);
            }
            self.duplicates += 1 + staged.files - conflicts;
            self.conflicts += conflicts;
        }
        self.inserted = fresh.len();
        let mut links: BTreeMap<ImageId, Option<ImageId>> = (fresh.iter())
            .map(|&index| (self.staged[index].record.id, None))
            .collect();
        for copies in &self.pictures {
            for (id, to) in star(copies, |id| links.contains_key(&id) || draft.has(id)) {
                match links.get_mut(&id) {
                    Some(link) => *link = to,
                    None => draft.link(id, to),
                }
            }
        }
        if fresh.is_empty() && draft.is_empty() {
            return Ok(None);
        }
        // Another writer seldom adds one of these images: then what was written on the older base is still right.
        let fits = |written: &Written| {
            let as_before = written.metric == base.manifest.metric && written.shards == base.manifest.shards;
            as_before && written.fresh == fresh && written.links == links
        };
        if !self.written.as_ref().is_some_and(fits) {
            self.written = Some(self.write(archive, base, fresh, links, commit).await?);
        }
        let mut manifest = base.manifest.as_ref().clone();
        let mut rows = draft.write(&mut manifest, archive, commit).await?;
        if let Some(written) = &self.written {
            for (entry, object) in &written.rows {
                manifest.add_rows(entry.clone(), &self.packs);
                rows.push(Arc::clone(object));
            }
            manifest.graphs.extend(written.graphs.iter().cloned());
        }
        Ok(Some(Proposed { manifest, rows }))
    }
}

impl Append {
    async fn write(
        &self,
        archive: &Archive,
        base: &State,
        fresh: Vec<usize>,
        links: BTreeMap<ImageId, Option<ImageId>>,
        commit: &str,
    ) -> Result<Written> {
        let manifest = &base.manifest;
        let mut groups: BTreeMap<(u32, &RowsProvenance), Vec<usize>> = BTreeMap::new();
        for &index in &fresh {
            let staged = &self.staged[index];
            groups
                .entry((manifest.shard(staged.record.id.slot()), &staged.provenance))
                .or_default()
                .push(index);
        }
        let builder = Graphs::of(archive, self.graphs.as_ref(), manifest, commit).await?;
        let chunk = (ROWS_BYTES_MAX / (manifest.space.dimension * 4)).max(1);
        let mut objects = Vec::new();
        for ((_, provenance), indexes) in &groups {
            for indexes in indexes.chunks(chunk) {
                objects.push(async {
                    let content = self.rows(manifest, provenance, indexes, &links, commit);
                    write_object(archive, manifest, builder.as_ref(), content).await
                });
            }
        }
        let objects: Vec<WrittenObject> = stream::iter(objects).buffered(OBJECTS_AT_ONCE).try_collect().await?;
        let (rows, graphs): (Vec<_>, Vec<_>) = objects.into_iter().unzip();
        Ok(Written {
            fresh,
            links,
            rows,
            graphs: graphs.concat(),
            metric: manifest.metric.clone(),
            shards: manifest.shards.clone(),
        })
    }

    fn rows(
        &self,
        manifest: &Manifest,
        provenance: &RowsProvenance,
        indexes: &[usize],
        links: &BTreeMap<ImageId, Option<ImageId>>,
        commit: &str,
    ) -> Rows {
        let staged = || indexes.iter().map(|&index| &self.staged[index]);
        Rows {
            space: manifest.space.id(),
            dimension: manifest.space.dimension,
            provenance: provenance.clone(),
            commit: commit.to_owned(),
            records: staged().map(|staged| Arc::new(linked(&staged.record, links))).collect(),
            vectors: staged().flat_map(|staged| &staged.vector).copied().collect(),
        }
    }
}

/// A rows object and its graphs, as they are named in the manifest.
type WrittenObject = ((RowsEntry, Arc<RowsObject>), Vec<GraphEntry>);

async fn write_object(
    archive: &Archive,
    manifest: &Manifest,
    builder: Option<&Graphs<'_>>,
    content: Rows,
) -> Result<WrittenObject> {
    let (entry, object, bytes) = encode(content, manifest, false).await?;
    let object = archive.put_rows(object, bytes).await?;
    let graphs = match builder {
        Some(builder) => builder.write(&object, &entry).await?,
        None => vec![],
    };
    Ok(((entry, object), graphs))
}

fn linked(record: &Record, links: &BTreeMap<ImageId, Option<ImageId>>) -> Record {
    Record {
        near_identical_to: links.get(&record.id).copied().flatten(),
        ..record.clone()
    }
}
