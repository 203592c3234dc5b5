//! One version of the archive in memory.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::room::Room;
use super::{Archive, Manifest, RowsObject};
use crate::domain::{ImageId, Key, PatientKeys, Record};
use crate::error::{Error, ErrorKind, Result};

/// Rows objects read at a time.
const READS_MAX: usize = 4;
/// Their bytes at a time, in MiB: they are read and hashed whole.
const READ_MIB_MAX: u32 = 2048;

/// A version with all its rows objects. Lookups walk the objects (at most some hundred), each of which knows its own keys, so that the
/// next version costs what it adds and not what there is.
#[derive(Debug, Clone)]
pub struct State {
    /// The version.
    pub manifest: Arc<Manifest>,
    /// Its rows objects, in the order of the manifest.
    pub rows: Vec<Arc<RowsObject>>,
    /// Dead rows of each, ascending.
    dead: Vec<Arc<[u32]>>,
}

impl State {
    /// Loads the newest version.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    pub async fn load(archive: &Archive) -> Result<Self> {
        let mut manifest = archive.latest().await?;
        loop {
            match Self::build(archive, Arc::clone(&manifest), &[]).await {
                Ok(state) => return Ok(state),
                // What it names may have been merged and collected meanwhile.
                Err(error) => match archive.after(manifest.version).await? {
                    Some(newer) => manifest = newer,
                    None => return Err(error),
                },
            }
        }
    }

    /// The state of `manifest`, a later version of the same archive. Loads only what is new.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    pub async fn advance(&self, archive: &Archive, manifest: Arc<Manifest>) -> Result<Self> {
        Self::build(archive, manifest, &self.rows).await
    }

    /// The state of a manifest whose objects are at hand.
    pub(super) fn from_parts(manifest: Arc<Manifest>, objects: &[Arc<RowsObject>]) -> Result<Self> {
        let held: HashMap<&str, &Arc<RowsObject>> =
            objects.iter().map(|object| (object.name.as_str(), object)).collect();
        let found = manifest
            .rows
            .iter()
            .map(|entry| held.get(entry.object.as_str()).map(|object| Arc::clone(object)));
        let rows: Option<Vec<_>> = found.collect();
        let rows = rows.ok_or_else(|| Error::internal("a rows object that was written is not at hand"))?;
        Ok(Self::assemble(manifest, rows))
    }

    async fn build(archive: &Archive, manifest: Arc<Manifest>, held: &[Arc<RowsObject>]) -> Result<Self> {
        let held: HashMap<&str, &Arc<RowsObject>> = held.iter().map(|object| (object.name.as_str(), object)).collect();
        let (space, dimension) = (manifest.space.id(), manifest.space.dimension);
        let room = &Room::of_mib(READ_MIB_MAX);
        let reads = manifest.rows.iter().map(|entry| {
            let held = held.get(entry.object.as_str()).map(|object| Arc::clone(object));
            async move {
                let object = match held {
                    Some(object) => object,
                    None => {
                        let _held = room.take(entry.bytes).await?;
                        archive.read_rows(entry).await?
                    }
                };
                if object.header.space != space || object.header.dimension != dimension {
                    return Err(Error::new(
                        ErrorKind::Damaged,
                        format!("`{}` is of another space", entry.object),
                    ));
                }
                Ok(object)
            }
        });
        // Collected first: a lazy iterator of borrowing futures inside a stream is more than the compiler can prove `Send`.
        let reads: Vec<_> = reads.collect();
        let rows = stream::iter(reads).buffered(READS_MAX).try_collect().await?;
        Ok(Self::assemble(manifest, rows))
    }

    fn assemble(manifest: Arc<Manifest>, rows: Vec<Arc<RowsObject>>) -> Self {
        let mut dead: HashMap<&str, Arc<[u32]>> = manifest
            .tombstones
            .iter()
            .map(|tombstones| (tombstones.rows_object.as_str(), tombstones.rows.as_slice().into()))
            .collect();
        let dead = rows
            .iter()
            .map(|object| dead.remove(object.name.as_str()).unwrap_or_default())
            .collect();
        Self { manifest, rows, dead }
    }

    /// Whether a row counts. `object` is the position in [`State::rows`].
    pub fn is_live(&self, object: usize, row: u32) -> bool {
        self.dead[object].binary_search(&row).is_err()
    }

    /// Dead rows of an object, ascending.
    pub fn tombstones(&self, object: usize) -> &[u32] {
        &self.dead[object]
    }

    /// Where an image is: object and row.
    pub fn find(&self, id: ImageId) -> Option<(usize, u32)> {
        // The newest object first: what was written last is asked for most.
        (0..self.rows.len()).rev().find_map(|object| {
            let row = self.rows[object].find(id)?;
            self.is_live(object, row).then_some((object, row))
        })
    }

    /// What is known of an image.
    pub fn record(&self, id: ImageId) -> Option<&Arc<Record>> {
        self.find(id).map(|at| self.at(at))
    }

    /// The record of a row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn at(&self, (object, row): (usize, u32)) -> &Arc<Record> {
        &self.rows[object].records[row as usize]
    }

    /// The raw model vectors of rows, one after the other in this order. Each object is read in its own order, which blocks.
    ///
    /// # Errors
    /// As [`RowsObject::vector`].
    ///
    /// # Panics
    /// When there is no such row.
    pub fn vectors(&self, spots: &[(usize, u32)]) -> Result<Vec<f32>> {
        let dimension = self.manifest.space.dimension;
        let mut order: Vec<usize> = (0..spots.len()).collect();
        order.sort_unstable_by_key(|&at| spots[at]);
        let mut vectors = vec![0.0; spots.len() * dimension];
        for of_one in order.chunk_by(|&a, &b| spots[a].0 == spots[b].0) {
            let object = &self.rows[spots[of_one[0]].0];
            let mut places = of_one.iter();
            object.each_vector(of_one.iter().map(|&at| spots[at].1), |vector| {
                if let Some(at) = places.next() {
                    vectors[at * dimension..(at + 1) * dimension].copy_from_slice(vector);
                }
                Ok(())
            })?;
        }
        Ok(vectors)
    }

    /// Live rows that hold a file, as themselves or as an alias.
    pub fn by_file_key(&self, key: Key) -> impl Iterator<Item = (usize, u32)> {
        self.filtered(move |object| object.with_file(key))
    }

    /// Live rows with these pixels.
    pub fn by_pixel_key(&self, key: Key) -> impl Iterator<Item = (usize, u32)> {
        self.filtered(move |object| object.with_pixels(key))
    }

    /// Live rows that hold a SOP instance, as themselves or as an alias.
    pub fn by_sop_key(&self, key: Key) -> impl Iterator<Item = (usize, u32)> {
        self.filtered(move |object| object.with_sop(key))
    }

    /// Live rows that may be a patient's.
    pub fn by_patient(&self, patient: PatientKeys) -> impl Iterator<Item = (usize, u32)> {
        self.filtered(move |object| object.of_patient(patient))
    }

    /// Live rows that say they are copies of an image.
    pub fn linked_to(&self, id: ImageId) -> impl Iterator<Item = (usize, u32)> {
        self.filtered(move |object| object.linked_to(id))
    }

    /// Every live row, in order.
    pub fn live(&self) -> impl Iterator<Item = (usize, u32)> {
        self.filtered(|object| 0..object.rows())
    }

    fn filtered<'a, R: Iterator<Item = u32> + 'a>(
        &'a self,
        rows: impl Fn(&'a RowsObject) -> R + 'a,
    ) -> impl Iterator<Item = (usize, u32)> + 'a {
        self.rows.iter().enumerate().flat_map(move |(index, object)| {
            rows(object)
                .map(move |row| (index, row))
                .filter(|&(index, row)| self.is_live(index, row))
        })
    }
}
