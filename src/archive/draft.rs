//! What changes do to a version: pure, on top of a [`State`], so that they can be applied again when another writer came first.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::future::{try_join, try_join_all};

use super::labels::{FileLabels, Labelled};
use super::merge::rows_max;
use super::pack::{Kind, PackBuilder};
use super::rows::Rows;
use super::store::{blocking, object_name};
use super::{
    Archive, Identity, IdentityMode, InboxId, Manifest, PackEntry, Retention, RowsEntry, RowsObject, RowsProvenance,
    State,
};
use crate::domain::{
    Alias, ClassLabel, Embedding, ImageId, InstanceKeys, Key, Label, LabelSource, LabelledBy, PatientKeys, PixelsRef,
    Record, SpaceId, Unknown,
};
use crate::error::{Error, ErrorKind, Result};

/// Classes that an archive may have: each is a list to search and a label of metrics.
pub(super) const CLASSES_MAX: usize = 1000;

/// Copies of a picture that are looked at to tell whether its label is in dispute when a change is answered.
const COPIES_MAX: usize = 1000;

/// One change to the archive.
#[derive(Clone)]
pub enum Change {
    /// Add an image. Where the archive has its SOP instance with other pixels, nothing is added.
    Insert(Box<NewImage>),
    /// The same of a file of the inbox: where it waits no more, nothing is added either.
    InsertInstance {
        /// The image.
        image: Box<NewImage>,
        /// Its file.
        waiting: InboxId,
    },
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
    /// Take out every image that may be a patient's: of an id without issuer those of every issuer.
    DeletePatient {
        /// The patient.
        patient: PatientKeys,
        /// Files of theirs waited, and one of them may be being embedded: a version is made in any case, which that image is in before, or refused after.
        waited: bool,
    },
    /// Take out files of SOP instances. An image of which another file is left stays, without these.
    DeleteInstances {
        /// Which.
        instances: Vec<InstanceKeys>,
        /// As for a patient.
        waited: bool,
    },
}

/// An image to add.
#[derive(Clone)]
pub struct NewImage {
    /// What is known of it. `thumbnail` and `pixels` are filled in by the archive.
    pub record: Record,
    /// The model's raw output.
    pub vector: Vec<f32>,
    /// The space that it is of.
    pub space: SpaceId,
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
            other: Unknown::new(),
        }
    }
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The image is new.
    Inserted,
    /// The image was there, under the same class or one that was settled since, or none was given. Its label is what it was; a file that
    /// was not known is noted as one more of the image.
    Duplicate,
    /// The image was there under another class: both are recorded and neither votes until a relabel settles it.
    Conflict,
    /// The label is as wanted: by a relabel, or since the image was there without one.
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
        label_source: record.label_source.clone(),
        labelled_by: record.labelled_by.clone(),
        settled: false,
        study: record.study,
        series: record.series,
        sop: record.sop,
        file: record.file.clone(),
        name_key: record.name_key,
        file_key: record.file_key,
        frame: record.frame,
        ingested_at: Some(record.ingested_at.clone()),
        sealed: record.sealed.clone(),
        other: record.other.clone(),
    }
}

/// What one more file of a known image means for it.
pub(super) struct Meeting {
    pub outcome: Outcome,
    /// The file is to be noted as an alias.
    adds: bool,
    /// Its class disputes nothing: it was replaced by a relabel.
    settled: bool,
}

impl Meeting {
    pub fn of(known: &Record, file: &Alias) -> Self {
        // Bytes without a name are whichever file has them.
        let named = |key: Option<Key>, name: &Option<String>| match (key, file.name_key) {
            (Some(key), Some(of_file)) => key == of_file,
            _ => name.is_none() || file.file.is_none() || *name == file.file,
        };
        let of_bytes = || known.aliases.iter().filter(|alias| alias.file_key == file.file_key);
        let own_bytes = known.file_key == file.file_key;
        let noted = own_bytes && named(known.name_key, &known.file)
            || of_bytes().any(|alias| named(alias.name_key, &alias.file));
        let meeting = |outcome, adds, settled| Self { outcome, adds, settled };
        if file.class.is_none() || file.class == known.class {
            return meeting(Outcome::Duplicate, !noted, false);
        }
        // Who looked at it knows better than a rule.
        if known.labelled_by == Some(LabelledBy::Api) && file.labelled_by.as_ref().is_some_and(LabelledBy::is_by_rule) {
            return meeting(Outcome::Duplicate, !noted, true);
        }
        let disputing = || of_bytes().filter(|alias| alias.class == file.class && !alias.settled);
        if disputing().next().is_some() {
            return meeting(
                Outcome::Conflict,
                !disputing().any(|alias| named(alias.name_key, &alias.file)),
                false,
            );
        }
        // What these bytes were called before somebody knew better.
        let replaced = known.history.iter().any(|change| change.class == file.class)
            && (own_bytes || of_bytes().next().is_some())
            || of_bytes().any(|alias| alias.class == file.class);
        if replaced {
            return meeting(Outcome::Duplicate, !noted, true);
        }
        match known.class {
            None => meeting(Outcome::Relabelled, !noted, false),
            Some(_) => meeting(Outcome::Conflict, true, false),
        }
    }

    /// Whether the record changes.
    pub fn changes(&self) -> bool {
        self.adds || self.outcome == Outcome::Relabelled
    }

    pub fn apply(self, known: &mut Record, mut file: Alias, now: &str) {
        if self.outcome == Outcome::Relabelled {
            let label = Label {
                class: file.class.clone(),
                label_source: file.label_source.clone(),
                labelled_by: file.labelled_by.clone(),
            };
            known.relabel(label, now);
        }
        if self.adds {
            file.settled = self.settled;
            known.aliases.push(file);
        }
    }
}

/// Seals the vector of a file with its record where that is not, bit for bit, the vector it will stand behind: so that an export gives
/// back what came in. Without a sealed record (mode `anonymous`) it is let go.
pub(super) fn keep_vector(alias: &mut Alias, own: &[f32], kept: &[f32], identity: &Identity) -> Result<()> {
    let same = own.len() == kept.len() && own.iter().zip(kept).all(|(own, kept)| own.to_bits() == kept.to_bits());
    if let Some(sealed) = alias.sealed.as_deref().filter(|_| !same)
        && let (record, None) = identity.open_with_vector(sealed, alias.file_key)?
    {
        alias.sealed = Some(identity.seal_with_vector(&record, alias.file_key, own)?);
    }
    Ok(())
}

/// What is left of a record when files of it go: where its own file is among these, the first of the others takes its place, with the label that it was handed in
/// under unless a relabel went over that. None: no file is left.
fn without(record: &Record, gone: InstanceKeys, identity: &Identity) -> Result<Option<Record>> {
    let mut left = record.clone();
    left.aliases.retain(|alias| !gone.covers(alias.sop, alias.file_key));
    if !gone.covers(record.sop, record.file_key) {
        return Ok(Some(left));
    }
    if left.aliases.is_empty() {
        return Ok(None);
    }
    let heir = left.aliases.remove(0);
    if heir.class.is_some() && !heir.settled {
        left.class = heir.class;
        left.label_source = heir.label_source;
        left.labelled_by = heir.labelled_by;
    }
    left.study = heir.study;
    left.series = heir.series;
    left.sop = heir.sop;
    left.file = heir.file;
    left.name_key = heir.name_key;
    left.file_key = heir.file_key;
    left.frame = heir.frame;
    left.ingested_at = heir.ingested_at.unwrap_or(left.ingested_at);
    left.other = heir.other;
    // It stands before the row's vector from now on, and not behind it with one of its own.
    left.sealed = match heir.sealed {
        Some(sealed) => identity.seal(&identity.open(&sealed, heir.file_key)?, heir.file_key)?,
        None => None,
    };
    Ok(Some(left))
}

/// What a row is looked up by.
fn keys_of(record: &Record) -> Vec<Key> {
    let aliases = record.aliases.iter();
    let aliases = aliases.flat_map(|alias| [alias.file_key].into_iter().chain(alias.sop));
    let keys = std::iter::once(record.file_key).chain(record.pixel_key).chain(aliases);
    keys.chain(record.sop).collect()
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
    vector: VectorOf<'a>,
    provenance: &'a RowsProvenance,
    pictures: Option<&'a NewImage>,
}

/// Where a row's vector comes from.
#[derive(Clone, Copy)]
enum VectorOf<'a> {
    Given(&'a [f32]),
    /// A row of the base, which is read when the version is written.
    Base(usize, u32),
}

/// The next version in the making.
pub(super) struct Draft<'a> {
    base: &'a Arc<State>,
    now: String,
    rows: Vec<Option<NewRow<'a>>>,
    ids: HashMap<ImageId, usize>,
    keys: HashMap<Key, Vec<usize>>,
    dead: BTreeSet<(usize, u32)>,
    /// Classes that the base does not have.
    classes: BTreeSet<ClassLabel>,
    /// A version is wanted although nothing may change.
    fence: bool,
}

impl<'a> Draft<'a> {
    pub fn new(base: &'a Arc<State>, now: String) -> Self {
        Self {
            base,
            now,
            rows: vec![],
            ids: HashMap::new(),
            keys: HashMap::new(),
            dead: BTreeSet::new(),
            classes: BTreeSet::new(),
            fence: false,
        }
    }

    /// Applies one change. One that is refused leaves the draft as it was.
    ///
    /// # Errors
    /// `NotFound` for an unknown image; `WrongDimension`, `InvalidRequest`, `SpaceMismatch` for a vector that can't be stored; `Conflict` for
    /// one class too many; `Damaged`, `Unavailable` when the vector of a row that is written again can't be read.
    pub fn apply(&mut self, change: &'a Change, archive: &Archive) -> Result<(Outcome, Option<ImageId>)> {
        match change {
            Change::Insert(image) | Change::InsertInstance { image, .. } => {
                self.check_instance(&image.record)?;
                check_image(image, self.base, archive)?;
                admit(image.record.class.as_ref(), self.base, &mut self.classes)?;
                let (outcome, id) = self.insert(image, archive.identity())?;
                Ok((outcome, Some(id)))
            }
            Change::Relabel {
                id,
                class,
                label_source,
            } => {
                if self.find(*id).is_some() {
                    admit(class.as_ref(), self.base, &mut self.classes)?;
                }
                let label = Label {
                    class: class.clone(),
                    label_source: label_source.clone(),
                    labelled_by: Some(LabelledBy::Api),
                };
                self.relabel(*id, label)?;
                Ok((Outcome::Relabelled, Some(*id)))
            }
            Change::Delete { id } => {
                let spot = self.find(*id).ok_or_else(|| not_found(*id))?;
                self.delete(spot);
                Ok((Outcome::Deleted { images: 1 }, Some(*id)))
            }
            Change::DeletePatient { patient, waited } => {
                self.fence |= waited;
                let images = self.delete_patient(*patient);
                Ok((Outcome::Deleted { images }, None))
            }
            Change::DeleteInstances { instances, waited } => {
                self.fence |= waited;
                let mut images = 0;
                for instance in instances {
                    images += self.delete_instance(*instance, archive.identity())?;
                }
                Ok((Outcome::Deleted { images }, None))
            }
        }
    }

    /// Refuses other pixels of an instance that is known: of the same frame of it.
    fn check_instance(&self, record: &Record) -> Result<()> {
        let Some(sop) = record.sop else { return Ok(()) };
        let new = self.keys.get(&sop).into_iter().flatten().copied();
        let new = new.filter(|&index| self.rows[index].is_some()).map(Spot::New);
        let old = self.base.by_sop_key(sop).filter(|at| !self.dead.contains(at));
        let mut known = new
            .chain(old.map(|(object, row)| Spot::Base(object, row)))
            .map(|spot| self.record(spot))
            .filter(|known| known.frames_of(sop).any(|frame| frame == record.frame))
            .map(|known| known.pixel_key)
            .peekable();
        // What was indexed without its pixels can't be compared.
        let differs = |key: Option<Key>| key.is_some() && key != record.pixel_key;
        if known.peek().is_some() && known.all(differs) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "its SOP instance is in the archive with other pixels",
            ));
        }
        Ok(())
    }

    fn insert(&mut self, image: &'a NewImage, identity: &Identity) -> Result<(Outcome, ImageId)> {
        let record = &image.record;
        let Some(spot) = self.same(record) else {
            let id = record.id;
            let mut record = record.clone();
            record.thumbnail = None;
            record.pixels = None;
            // What it was found to be a copy of may have been deleted since.
            record.near_identical_to = record.near_identical_to.filter(|&of| self.find(of).is_some());
            self.add(NewRow {
                record,
                vector: VectorOf::Given(&image.vector),
                provenance: &image.provenance,
                pictures: Some(image),
            });
            return Ok((Outcome::Inserted, id));
        };
        let id = self.record(spot).id;
        let outcome = self.absorb(spot, alias_of(record), &image.vector, identity)?;
        Ok((outcome, id))
    }

    /// Takes in one more file of an image that is known already. Says what that meant.
    ///
    /// # Errors
    /// `Damaged` when its sealed record can't be opened, or the image's vector is spoilt; `Unavailable` when that can't be read.
    pub fn absorb(&mut self, spot: Spot, mut file: Alias, vector: &[f32], identity: &Identity) -> Result<Outcome> {
        let meeting = Meeting::of(self.record(spot), &file);
        let outcome = meeting.outcome;
        if meeting.changes() {
            keep_vector(&mut file, vector, &self.vector(spot)?, identity)?;
            let index = self.make_new(spot);
            for key in [file.file_key].into_iter().chain(file.sop) {
                self.keys.entry(key).or_default().push(index);
            }
            let row = self.rows[index].as_mut().expect("`make_new` gives a row");
            meeting.apply(&mut row.record, file, &self.now);
        }
        Ok(outcome)
    }

    /// An image's class, and whether it is disputed: by another file of the image, or by another copy of its picture.
    pub fn label(&self, id: ImageId) -> Option<(Option<ClassLabel>, bool)> {
        let record = self.record(self.find(id)?);
        let disputes = |other: &Record| {
            let mut classes = other.class.iter().chain(other.alias_classes());
            classes.any(|class| Some(class) != record.class.as_ref())
        };
        let disputed = record.class.is_some() && self.copies(id).any(disputes);
        Some((record.class.clone(), disputed))
    }

    /// What an image is linked to.
    pub fn link_of(&self, id: ImageId) -> Option<ImageId> {
        self.record(self.find(id)?).near_identical_to
    }

    /// Gives an image another link, or none; an image that is not there, or that has it already, stays as it is.
    pub fn link(&mut self, id: ImageId, to: Option<ImageId>) {
        let Some(spot) = self.find(id) else { return };
        if self.record(spot).near_identical_to != to {
            let index = self.make_new(spot);
            let row = self.rows[index].as_mut().expect("`make_new` gives a row");
            row.record.near_identical_to = to;
        }
    }

    /// Whether an image is there.
    pub fn has(&self, id: ImageId) -> bool {
        self.find(id).is_some()
    }

    /// The copies of an image's picture, itself first, each once: as many as [`COPIES_MAX`].
    fn copies(&self, id: ImageId) -> impl Iterator<Item = &Record> {
        let mut found = vec![id];
        let mut known = BTreeSet::from([id]);
        let mut at = 0;
        std::iter::from_fn(move || {
            let record = self.record(self.find(*found.get(at)?)?);
            at += 1;
            let equal = record.pixel_key.into_iter().flat_map(|key| self.with_key(key));
            let equal = equal
                .filter(|other| other.pixel_key == record.pixel_key)
                .map(|other| other.id);
            let near = record.near_identical_to.filter(|&id| self.has(id)).into_iter();
            for id in near.chain(self.linked_to(record.id)).chain(equal) {
                if known.len() < COPIES_MAX && known.insert(id) {
                    found.push(id);
                }
            }
            Some(record)
        })
    }

    fn with_key(&self, key: Key) -> impl Iterator<Item = &Record> {
        let new = self.keys.get(&key).into_iter().flatten().map(|&index| Spot::New(index));
        let old = self.base.by_pixel_key(key).filter(|at| !self.dead.contains(at));
        let spots = new.chain(old.map(|(object, row)| Spot::Base(object, row)));
        spots.map(|spot| self.record(spot))
    }

    fn linked_to(&self, id: ImageId) -> impl Iterator<Item = ImageId> {
        let new = self.rows.iter().flatten().map(|row| &row.record);
        let new = new.filter(move |record| record.near_identical_to == Some(id));
        let old = self.base.linked_to(id).filter(|at| !self.dead.contains(at));
        new.map(|record| record.id).chain(old.map(|at| self.base.at(at).id))
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

    fn relabel(&mut self, id: ImageId, label: Label) -> Result<()> {
        let spot = self.find(id).ok_or_else(|| not_found(id))?;
        let known = self.record(spot);
        if known.label() == label && !known.label_conflict() {
            return Ok(());
        }
        // A spoilt vector is met here, where it costs this change alone, and not when all of them are written.
        self.vector(spot)?;
        let now = self.now.clone();
        self.change(spot, |record| record.relabel(label, &now));
        Ok(())
    }

    /// Gives an image and its further files the labels that a labels file has for them, unless somebody has looked at it since. An image of which two files are
    /// said to show different things is in conflict, as it would be had they come so. Files that it says nothing of keep what they say.
    ///
    /// # Errors
    /// `Conflict` for one class too many; `Damaged`, `Unavailable` when the vector of its row can't be read.
    pub fn label_by_file(&mut self, id: ImageId, wanted: &FileLabels) -> Result<Labelled> {
        let Some(spot) = self.find(id) else {
            return Ok(Labelled::Gone);
        };
        let known = self.record(spot);
        if known.labelled_by == Some(LabelledBy::Api) {
            return Ok(Labelled::Kept);
        }
        let now = self.now.clone();
        let mut record = known.clone();
        wanted.apply(&mut record, &now);
        if record == *known {
            return Ok(Labelled::Same);
        }
        for class in record.class.iter().chain(record.alias_classes()) {
            admit(Some(class), self.base, &mut self.classes)?;
        }
        self.vector(spot)?;
        self.change(spot, |row| *row = record);
        Ok(Labelled::Changed)
    }

    fn change(&mut self, spot: Spot, change: impl FnOnce(&mut Record)) {
        let index = self.make_new(spot);
        let row = self.rows[index].as_mut().expect("`make_new` gives a row");
        change(&mut row.record);
    }

    /// Takes an image out. Its copies stay one picture, and nothing names it any more.
    fn delete(&mut self, spot: Spot) {
        let record = self.record(spot);
        let (id, of) = (record.id, record.near_identical_to);
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
        let mut copies: Vec<ImageId> = self.linked_to(id).collect();
        copies.sort_unstable();
        let root = of.filter(|&of| self.has(of)).or_else(|| copies.first().copied());
        for copy in copies {
            self.link(copy, root.filter(|&root| root != copy));
        }
    }

    fn delete_patient(&mut self, patient: PatientKeys) -> usize {
        let may_be = |row: &Option<NewRow<'_>>| {
            let own = row.as_ref().and_then(|row| PatientKeys::of(&row.record));
            own.is_some_and(|own| own.may_be(patient))
        };
        let new = (0..self.rows.len())
            .filter(|&index| may_be(&self.rows[index]))
            .map(Spot::New);
        let old = self.base.by_patient(patient).filter(|at| !self.dead.contains(at));
        let spots = new.chain(old.map(|(object, row)| Spot::Base(object, row)));
        // By name: an image whose copy goes first may get another row.
        let ids: Vec<ImageId> = spots.map(|spot| self.record(spot).id).collect();
        for &id in &ids {
            if let Some(spot) = self.find(id) {
                self.delete(spot);
            }
        }
        ids.len()
    }

    /// Takes files of an instance out. Gives how many images had no other.
    fn delete_instance(&mut self, instance: InstanceKeys, identity: &Identity) -> Result<usize> {
        let holds = |record: &Record| {
            let files = record.aliases.iter().map(|alias| (alias.sop, alias.file_key));
            let mut files = [(record.sop, record.file_key)].into_iter().chain(files);
            files.any(|(sop, file)| instance.covers(sop, file))
        };
        // Few are new in one commit.
        let new = self.rows.iter().flatten().map(|row| &row.record);
        let old = self.base.by_sop_key(instance.sop).filter(|at| !self.dead.contains(at));
        let old = old.map(|at| self.base.at(at).as_ref());
        // By name: an image whose copy goes first may get another row.
        let ids: BTreeSet<ImageId> = new
            .chain(old)
            .filter(|record| holds(record))
            .map(|record| record.id)
            .collect();
        let mut images = 0;
        for id in ids {
            let Some(spot) = self.find(id) else { continue };
            match without(self.record(spot), instance, identity)? {
                None => {
                    self.delete(spot);
                    images += 1;
                }
                Some(left) => {
                    // A spoilt vector is met here, where it costs this change alone.
                    self.vector(spot)?;
                    let index = self.make_new(spot);
                    let row = self.rows[index].as_mut().expect("`make_new` gives a row");
                    row.record = left;
                    self.index_anew(index);
                }
            }
        }
        Ok(images)
    }

    /// Makes a row be found by what its record says now.
    fn index_anew(&mut self, index: usize) {
        self.keys.values_mut().for_each(|rows| rows.retain(|&row| row != index));
        let Some(row) = &self.rows[index] else { return };
        for key in keys_of(&row.record) {
            self.keys.entry(key).or_default().push(index);
        }
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

    fn vector(&self, spot: Spot) -> Result<Cow<'_, [f32]>> {
        let of = match spot {
            Spot::Base(object, row) => VectorOf::Base(object, row),
            Spot::New(index) => self.rows[index].as_ref().expect("deleted rows are in no lookup").vector,
        };
        match of {
            VectorOf::Given(vector) => Ok(Cow::Borrowed(vector)),
            VectorOf::Base(object, row) => self.base.rows[object].vector(row),
        }
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
                    vector: VectorOf::Base(object, row),
                    provenance: &rows.header.provenance,
                    pictures: None,
                })
            }
        }
    }

    fn add(&mut self, row: NewRow<'a>) -> usize {
        let index = self.rows.len();
        self.ids.insert(row.record.id, index);
        for key in keys_of(&row.record) {
            self.keys.entry(key).or_default().push(index);
        }
        self.rows.push(Some(row));
        index
    }

    /// Whether there is anything to write.
    pub fn is_empty(&self) -> bool {
        !self.fence && self.dead.is_empty() && self.rows.iter().all(Option::is_none)
    }

    /// The new rows, without their pictures, when there is nothing else: they are the same on any base on which the draft comes out the same.
    pub fn additions(&self) -> Option<Vec<Record>> {
        let only_added = self.dead.is_empty();
        only_added.then(|| self.rows.iter().flatten().map(|row| row.record.clone()).collect())
    }

    /// Writes the objects of the next version and puts their names into `manifest`, a copy of the base's. Everything is durable when this
    /// returns, and nothing of it is visible.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`, `Internal`; `Damaged` when a vector of the base is spoilt.
    pub async fn write(self, manifest: &mut Manifest, archive: &Archive, commit: &str) -> Result<Vec<Arc<RowsObject>>> {
        let store = archive.store();
        for (object, row) in self.dead {
            manifest.add_tombstones(&self.base.rows[object].name, [row], Some(archive.now()));
        }
        let moved = moved_vectors(self.base, &self.rows).await?;
        let mut rows: Vec<NewRow<'_>> = self.rows.into_iter().flatten().collect();
        let mut moved = moved.chunks_exact(manifest.space.dimension);
        for row in &mut rows {
            if let VectorOf::Base(..) = row.vector {
                let vector = moved.next().ok_or_else(|| Error::internal("a vector was not read"))?;
                row.vector = VectorOf::Given(vector);
            }
        }
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
                packs.push(PackEntry::new(name.clone(), bytes.len() as u64));
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
            packs.push(PackEntry::new(name.clone(), bytes.len() as u64));
            uploads.push((name, bytes));
        }

        packs.extend(manifest.packs.iter().cloned());
        let mut written = Vec::new();
        let fits = rows_max(manifest.space.dimension);
        let mut groups: Vec<(RowsProvenance, Vec<NewRow<'_>>)> = Vec::new();
        for (provenance, mut rows) in by_provenance(rows) {
            while rows.len() > fits {
                let rest = rows.split_off(fits);
                groups.push((provenance.clone(), std::mem::replace(&mut rows, rest)));
            }
            groups.push((provenance, rows));
        }
        for (provenance, rows) in groups {
            let records = rows.iter().map(|row| Arc::new(row.record.clone())).collect();
            let vectors = rows.iter().filter_map(|row| match row.vector {
                VectorOf::Given(vector) => Some(vector),
                VectorOf::Base(..) => None,
            });
            let vectors = vectors.flatten().copied().collect();
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
            manifest.add_rows(entry, &packs);
            written.push(archive.put_rows(object, bytes));
        }
        let uploads = uploads
            .into_iter()
            .map(|(name, bytes)| async move { store.put_object(&name, bytes).await });
        // Side by side: three syncs cost little more than one.
        let (_, written) = try_join(try_join_all(uploads), try_join_all(written)).await?;
        Ok(written)
    }
}

/// The vectors of rows that are written again, in turn.
async fn moved_vectors(base: &Arc<State>, rows: &[Option<NewRow<'_>>]) -> Result<Vec<f32>> {
    let of_base = rows.iter().flatten().filter_map(|row| match row.vector {
        VectorOf::Base(object, row) => Some((object, row)),
        VectorOf::Given(_) => None,
    });
    let spots: Vec<(usize, u32)> = of_base.collect();
    if spots.is_empty() {
        return Ok(vec![]);
    }
    let base = Arc::clone(base);
    blocking(move || base.vectors(&spots)).await?
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
    let mut classes: BTreeMap<ClassLabel, u64> = BTreeMap::new();
    let mut packs = BTreeSet::new();
    for record in &object.records {
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
        shards: shards_of(&object, manifest),
        classes,
        packs: packs.into_iter().collect(),
        other: Unknown::new(),
    };
    Ok((entry, object, bytes))
}

/// The shards of `manifest` that an object has rows of, ascending.
pub(super) fn shards_of(object: &RowsObject, manifest: &Manifest) -> Vec<u32> {
    let shards: BTreeSet<u32> = (object.records.iter())
        .map(|record| manifest.shard(record.id.slot()))
        .collect();
    shards.into_iter().collect()
}

/// Whether there is room for a class. `new` holds those that the base does not have.
///
/// # Errors
/// `Conflict` when it is one too many.
pub(super) fn admit(class: Option<&ClassLabel>, base: &State, new: &mut BTreeSet<ClassLabel>) -> Result<()> {
    let known = &base.manifest.classes;
    let Some(class) = class.filter(|class| known.binary_search(class).is_err() && !new.contains(class)) else {
        return Ok(());
    };
    if known.len() + new.len() >= CLASSES_MAX {
        let message = format!("this archive has {CLASSES_MAX} classes, more it can't have: `{class}` would be another");
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    new.insert(class.clone());
    Ok(())
}

/// Whether an image can be stored here.
pub(super) fn check_image(image: &NewImage, base: &State, archive: &Archive) -> Result<()> {
    let manifest = &base.manifest;
    if manifest.moving_until.is_some_and(|until| archive.now() < until) {
        let message = "the archive moves to another model and takes no new images for a moment: send it again";
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    let space = manifest.space.id();
    if image.space != space {
        let message = format!("the vector is of space `{}`, the archive's is `{space}`", image.space);
        return Err(Error::new(ErrorKind::SpaceMismatch, message));
    }
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
