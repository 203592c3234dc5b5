//! What changes do to a version: pure, on top of a [`State`], so that they can be applied again when another writer came first.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::future::try_join_all;

use super::pack::{Kind, PackBuilder};
use super::rows::Rows;
use super::store::{blocking, object_name};
use super::{
    Archive, Identity, IdentityMode, Manifest, PackEntry, Retention, RowsEntry, RowsObject, RowsProvenance, State,
};
use crate::domain::{Alias, ClassLabel, Embedding, ImageId, Key, LabelChange, LabelSource, PixelsRef, Record};
use crate::error::{Error, ErrorKind, Result};

/// One change to the archive.
#[derive(Clone)]
pub enum Change {
    /// Add an image.
    Insert(Box<NewImage>),
    /// Give an image another class, which settles a conflict of labels.
    Relabel {
        /// The image.
        id: ImageId,
        /// Its class from now on.
        class: Option<ClassLabel>,
        /// How that was proven.
        label_source: Option<LabelSource>,
    },
    /// Take an image out.
    Delete {
        /// The image.
        id: ImageId,
    },
    /// Take out every image of a patient.
    DeletePatient {
        /// The patient.
        key: Key,
    },
}

/// An image to add.
#[derive(Clone)]
pub struct NewImage {
    /// What is known of it. `thumbnail` and `pixels` are filled in by the archive.
    pub record: Record,
    /// The model's raw output.
    pub vector: Vec<f32>,
    /// The small picture, PNG.
    pub thumbnail: Option<Vec<u8>>,
    /// The picture to read.
    pub pixels: Option<NewPixels>,
    /// How the vector was computed.
    pub provenance: RowsProvenance,
}

/// A picture to read, PNG of 8 or 16 bit, with what [`PixelsRef`] says of it.
#[derive(Clone)]
pub struct NewPixels {
    /// The file.
    pub png: Vec<u8>,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Smaller values are brighter.
    pub inverted: bool,
    /// Stored values are shifted by this many grey levels.
    pub offset_levels: i32,
}

impl NewPixels {
    pub(super) fn at(&self, pack: crate::domain::PackRef) -> PixelsRef {
        PixelsRef {
            pack,
            width: self.width,
            height: self.height,
            inverted: self.inverted,
            offset_levels: self.offset_levels,
        }
    }
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The image is new.
    Inserted,
    /// The image was there, under the same class or none was given: nothing was written.
    Duplicate,
    /// The image was there under another class: both are recorded and neither votes until a relabel settles it.
    Conflict,
    /// The label is as wanted.
    Relabelled,
    /// Images were taken out.
    Deleted {
        /// How many.
        images: usize,
    },
}

/// An image that would be a second row of a known one: what makes it an alias.
pub(super) fn alias_of(record: &Record) -> Alias {
    Alias {
        class: record.class.clone(),
        file: record.file.clone(),
        name_key: record.name_key,
        file_key: record.file_key,
        sealed: record.sealed.clone(),
    }
}

/// Seals the vector of a file with its record where that is not, bit for bit, the vector it will stand behind: so that an export gives
/// back what came in. Without a sealed record (mode `anonymous`) it is let go.
pub(super) fn keep_vector(alias: &mut Alias, own: &[f32], kept: &[f32], identity: &Identity) -> Result<()> {
    let same = own.len() == kept.len() && own.iter().zip(kept).all(|(own, kept)| own.to_bits() == kept.to_bits());
    if let Some(sealed) = alias.sealed.as_deref().filter(|_| !same)
        && let (record, None) = identity.open_with_vector(sealed)?
    {
        alias.sealed = Some(identity.seal_with_vector(&record, own)?);
    }
    Ok(())
}

/// A place in the draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spot {
    /// A row of the base.
    Base(usize, u32),
    /// A row to be written.
    New(usize),
}

struct NewRow<'a> {
    record: Record,
    vector: Cow<'a, [f32]>,
    provenance: &'a RowsProvenance,
    pictures: Option<&'a NewImage>,
}

/// The next version in the making.
pub(super) struct Draft<'a> {
    base: &'a State,
    now: String,
    rows: Vec<Option<NewRow<'a>>>,
    ids: HashMap<ImageId, usize>,
    keys: HashMap<Key, Vec<usize>>,
    dead: BTreeSet<(usize, u32)>,
}

impl<'a> Draft<'a> {
    pub fn new(base: &'a State, now: String) -> Self {
        Self {
            base,
            now,
            rows: vec![],
            ids: HashMap::new(),
            keys: HashMap::new(),
            dead: BTreeSet::new(),
        }
    }

    /// Applies one change. One that is refused leaves the draft as it was.
    ///
    /// # Errors
    /// `NotFound` for an unknown image; `WrongDimension`, `InvalidRequest`, `SpaceMismatch` for a vector that can't be stored.
    pub fn apply(&mut self, change: &'a Change, archive: &Archive) -> Result<(Outcome, Option<ImageId>)> {
        match change {
            Change::Insert(image) => {
                check_image(image, self.base, archive)?;
                let (outcome, id) = self.insert(image, archive.identity())?;
                Ok((outcome, Some(id)))
            }
            Change::Relabel {
                id,
                class,
                label_source,
            } => {
                self.relabel(*id, class.as_ref(), *label_source)?;
                Ok((Outcome::Relabelled, Some(*id)))
            }
            Change::Delete { id } => {
                let spot = self.find(*id).ok_or_else(|| not_found(*id))?;
                self.delete(spot);
                Ok((Outcome::Deleted { images: 1 }, Some(*id)))
            }
            Change::DeletePatient { key } => {
                let images = self.delete_patient(*key);
                Ok((Outcome::Deleted { images }, None))
            }
        }
    }

    fn insert(&mut self, image: &'a NewImage, identity: &Identity) -> Result<(Outcome, ImageId)> {
        let record = &image.record;
        let Some(spot) = self.same(record) else {
            let id = record.id;
            let mut record = record.clone();
            record.thumbnail = None;
            record.pixels = None;
            let vector = Cow::Borrowed(image.vector.as_slice());
            self.add(NewRow {
                record,
                vector,
                provenance: &image.provenance,
                pictures: Some(image),
            });
            return Ok((Outcome::Inserted, id));
        };
        let known = self.record(spot);
        let id = known.id;
        if record.class.is_none() || record.class == known.class {
            return Ok((Outcome::Duplicate, id));
        }
        let mut alias = alias_of(record);
        if !known
            .aliases
            .iter()
            .any(|known| known.file_key == alias.file_key && known.class == alias.class)
        {
            keep_vector(&mut alias, &image.vector, self.vector(spot), identity)?;
            self.add_alias(spot, alias);
        }
        Ok((Outcome::Conflict, id))
    }

    /// Takes in an image of a data set that is known already: every file of the set comes back from an export. Says what that meant.
    pub fn absorb(&mut self, spot: Spot, alias: Alias) -> Outcome {
        let known = self.record(spot);
        let listed = |file_key: Key, name: (Option<Key>, &Option<String>), class: &Option<ClassLabel>| {
            file_key == alias.file_key
                && name == (alias.name_key, &alias.file)
                && (alias.class.is_none() || *class == alias.class)
        };
        let conflict = alias.class.is_some() && alias.class != known.class;
        if !listed(known.file_key, (known.name_key, &known.file), &known.class)
            && !known
                .aliases
                .iter()
                .any(|known| listed(known.file_key, (known.name_key, &known.file), &known.class))
        {
            self.add_alias(spot, alias);
        }
        if conflict {
            Outcome::Conflict
        } else {
            Outcome::Duplicate
        }
    }

    /// The live row of the same patient with the same file or the same pixels.
    pub fn same(&self, record: &Record) -> Option<Spot> {
        if let Some(spot) = self.find(record.id) {
            return Some(spot);
        }
        let of_patient = |spot: &Spot| self.record(*spot).patient == record.patient;
        let keys = std::iter::once(record.file_key).chain(record.pixel_key);
        let new = keys.flat_map(|key| self.keys.get(&key).into_iter().flatten());
        if let Some(spot) = new.map(|&index| Spot::New(index)).find(of_patient) {
            return Some(spot);
        }
        let files = self.base.by_file_key(record.file_key);
        let pixels = record.pixel_key.into_iter().flat_map(|key| self.base.by_pixel_key(key));
        let old = files.chain(pixels).filter(|at| !self.dead.contains(at));
        old.map(|(object, row)| Spot::Base(object, row)).find(of_patient)
    }

    fn relabel(&mut self, id: ImageId, class: Option<&ClassLabel>, label_source: Option<LabelSource>) -> Result<()> {
        let spot = self.find(id).ok_or_else(|| not_found(id))?;
        let known = self.record(spot);
        if known.class.as_ref() == class && known.label_source == label_source && !known.label_conflict() {
            return Ok(());
        }
        let index = self.make_new(spot);
        let at = self.now.clone();
        let record = &mut self.rows[index].as_mut().expect("`make_new` gives a row").record;
        record.history.push(LabelChange {
            at,
            class: record.class.take(),
            label_source: record.label_source.take(),
        });
        record.class = class.cloned();
        record.label_source = label_source;
        for alias in &mut record.aliases {
            alias.class = class.cloned();
        }
        Ok(())
    }

    fn delete(&mut self, spot: Spot) {
        match spot {
            Spot::Base(object, row) => {
                self.dead.insert((object, row));
            }
            Spot::New(index) => {
                if let Some(row) = self.rows[index].take() {
                    self.ids.remove(&row.record.id);
                    self.keys.values_mut().for_each(|rows| rows.retain(|&row| row != index));
                }
            }
        }
    }

    fn delete_patient(&mut self, key: Key) -> usize {
        let of_patient = |row: &Option<NewRow<'_>>| row.as_ref().is_some_and(|row| row.record.patient == Some(key));
        let new = (0..self.rows.len())
            .filter(|&index| of_patient(&self.rows[index]))
            .map(Spot::New);
        let old = self.base.by_patient(key).filter(|at| !self.dead.contains(at));
        let spots: Vec<_> = new.chain(old.map(|(object, row)| Spot::Base(object, row))).collect();
        let images = spots.len();
        spots.into_iter().for_each(|spot| self.delete(spot));
        images
    }

    fn find(&self, id: ImageId) -> Option<Spot> {
        if let Some(&index) = self.ids.get(&id) {
            return Some(Spot::New(index));
        }
        let (object, row) = self.base.find(id).filter(|at| !self.dead.contains(at))?;
        Some(Spot::Base(object, row))
    }

    pub fn record(&self, spot: Spot) -> &Record {
        match spot {
            Spot::Base(object, row) => self.base.at((object, row)),
            Spot::New(index) => &self.rows[index].as_ref().expect("deleted rows are in no lookup").record,
        }
    }

    /// The vector at a place.
    pub fn vector(&self, spot: Spot) -> &[f32] {
        match spot {
            Spot::Base(object, row) => self.base.rows[object].vector(row),
            Spot::New(index) => &self.rows[index].as_ref().expect("deleted rows are in no lookup").vector,
        }
    }

    fn add_alias(&mut self, spot: Spot, alias: Alias) {
        let index = self.make_new(spot);
        self.keys.entry(alias.file_key).or_default().push(index);
        self.rows[index]
            .as_mut()
            .expect("`make_new` gives a row")
            .record
            .aliases
            .push(alias);
    }

    /// A row that can be changed: a row of the base is replaced by a new one with the same vector and pictures.
    fn make_new(&mut self, spot: Spot) -> usize {
        match spot {
            Spot::New(index) => index,
            Spot::Base(object, row) => {
                self.dead.insert((object, row));
                let base = self.base;
                let rows = &base.rows[object];
                self.add(NewRow {
                    record: Record::clone(base.at((object, row))),
                    vector: Cow::Borrowed(rows.vector(row)),
                    provenance: &rows.header.provenance,
                    pictures: None,
                })
            }
        }
    }

    fn add(&mut self, row: NewRow<'a>) -> usize {
        let index = self.rows.len();
        self.ids.insert(row.record.id, index);
        let record = &row.record;
        let aliases = record.aliases.iter().map(|alias| alias.file_key);
        for key in std::iter::once(record.file_key).chain(record.pixel_key).chain(aliases) {
            self.keys.entry(key).or_default().push(index);
        }
        self.rows.push(Some(row));
        index
    }

    /// Whether there is anything to write.
    pub fn is_empty(&self) -> bool {
        self.dead.is_empty() && self.rows.iter().all(Option::is_none)
    }

    /// Writes the objects of the next version and puts their names into `manifest`, a copy of the base's. Everything is durable when this
    /// returns, and nothing of it is visible.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`, `Internal`.
    pub async fn write(self, manifest: &mut Manifest, archive: &Archive, commit: &str) -> Result<Vec<Arc<RowsObject>>> {
        let store = archive.store();
        for (object, row) in self.dead {
            manifest.add_tombstones(&self.base.rows[object].name, [row]);
        }
        let mut rows: Vec<NewRow<'_>> = self.rows.into_iter().flatten().collect();
        let mut uploads = Vec::new();
        let mut packs = Vec::new();
        if manifest.archive.retention != Retention::Thumbnail {
            let mut pack = PackBuilder::new(Kind::Pixels);
            let slices: Vec<_> = rows
                .iter()
                .map(|row| row.pictures?.pixels.as_ref().map(|new| (pack.push(&new.png), new)))
                .collect();
            if !pack.is_empty() {
                let (name, bytes) = pack.finish().await?;
                for (row, slice) in rows.iter_mut().zip(slices) {
                    if let Some((slice, new)) = slice {
                        row.record.pixels = Some(new.at(slice.of(&name)));
                    }
                }
                packs.push(PackEntry {
                    object: name.clone(),
                    bytes: bytes.len() as u64,
                });
                uploads.push((name, bytes));
            }
        }
        let mut pack = PackBuilder::new(Kind::Thumbnails);
        let slices: Vec<_> = rows
            .iter()
            .map(|row| row.pictures?.thumbnail.as_ref().map(|png| pack.push(png)))
            .collect();
        if !pack.is_empty() {
            let (name, bytes) = pack.finish().await?;
            for (row, slice) in rows.iter_mut().zip(slices) {
                if let Some(slice) = slice {
                    row.record.thumbnail = Some(slice.of(&name));
                }
            }
            packs.push(PackEntry {
                object: name.clone(),
                bytes: bytes.len() as u64,
            });
            uploads.push((name, bytes));
        }

        packs.extend(manifest.packs.iter().cloned());
        let mut written = Vec::new();
        for (provenance, rows) in by_provenance(rows) {
            let records = rows.iter().map(|row| Arc::new(row.record.clone())).collect();
            let vectors = rows.iter().flat_map(|row| row.vector.iter().copied()).collect();
            let space = manifest.space.id();
            let dimension = manifest.space.dimension;
            let rows = Rows {
                space,
                dimension,
                provenance,
                commit: commit.to_owned(),
                records,
                vectors,
            };
            let (entry, object, bytes) = encode(rows, manifest, true).await?;
            uploads.push((entry.object.clone(), bytes));
            manifest.add_rows(entry, &packs);
            written.push(object);
        }
        // Side by side: three syncs cost little more than one.
        try_join_all(
            uploads
                .into_iter()
                .map(|(name, bytes)| async move { store.put_object(&name, bytes).await }),
        )
        .await?;
        Ok(written)
    }
}

fn by_provenance<'a>(rows: Vec<NewRow<'a>>) -> BTreeMap<RowsProvenance, Vec<NewRow<'a>>> {
    let mut groups: BTreeMap<RowsProvenance, Vec<NewRow<'_>>> = BTreeMap::new();
    for row in rows {
        groups.entry(row.provenance.clone()).or_default().push(row);
    }
    groups
}

/// Encodes a rows object: its entry in the manifest, itself, its bytes.
pub(super) async fn encode(
    rows: Rows,
    manifest: &Manifest,
    delta: bool,
) -> Result<(RowsEntry, Arc<RowsObject>, bytes::Bytes)> {
    const INLINE_COMPONENTS_MAX: usize = 1 << 16;
    let small = rows.vectors.len() <= INLINE_COMPONENTS_MAX;
    let (bytes, object) = if small {
        rows.encode()?
    } else {
        blocking(move || rows.encode()).await??
    };
    let (name, bytes) = object_name("rows", bytes.into()).await?;
    let object = Arc::new(object(name));
    let mut shards = BTreeSet::new();
    let mut classes: BTreeMap<ClassLabel, u64> = BTreeMap::new();
    let mut packs = BTreeSet::new();
    for record in &object.records {
        shards.insert(manifest.shard(record.id.slot()));
        if let Some(class) = &record.class {
            *classes.entry(class.clone()).or_default() += 1;
        }
        packs.extend(record.thumbnail.iter().map(|slice| slice.object.clone()));
        packs.extend(record.pixels.iter().map(|pixels| pixels.pack.object.clone()));
    }
    let entry = RowsEntry {
        object: object.name.clone(),
        bytes: bytes.len() as u64,
        rows: u64::from(object.rows()),
        delta,
        shards: shards.into_iter().collect(),
        classes,
        packs: packs.into_iter().collect(),
    };
    Ok((entry, object, bytes))
}

/// Whether an image can be stored here.
pub(super) fn check_image(image: &NewImage, base: &State, archive: &Archive) -> Result<()> {
    let manifest = &base.manifest;
    Embedding::from_raw(&image.vector, manifest.space.dimension)?;
    if !manifest.precisions.contains(&image.provenance.precision) {
        return Err(Error::new(
            ErrorKind::SpaceMismatch,
            format!(
                "vectors of precision `{}` were not measured as interchangeable with this archive's: {}",
                image.provenance.precision,
                manifest.precisions.join(", ")
            ),
        ));
    }
    let record = &image.record;
    if record
        .patient
        .is_some_and(|patient| archive.identity().slot(patient) != record.id.slot())
    {
        return Err(Error::internal("an image id is not in its patient's slot"));
    }
    if (manifest.archive.identity == IdentityMode::Linked) != record.sealed.is_some() {
        return Err(Error::internal("records are sealed in mode `linked` and in no other"));
    }
    Ok(())
}

fn not_found(id: ImageId) -> Error {
    Error::new(ErrorKind::NotFound, format!("this archive has no image `{id}`"))
}
