//! Another space: every image embedded by another model, and all of it taken into use in one version.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::bulk::AGE_MAX;
use super::commit::{Propose, Proposed, base, commit};
use super::draft::{encode, shards_of};
use super::graphs::Graphs;
use super::merge::rows_max;
use super::rows::Rows;
use super::{
    Archive, GraphBuilder, GraphEntry, Identity, Manifest, ModelRef, Moment, NewModel, RowsEntry, RowsObject,
    RowsProvenance, State, put_model,
};
use crate::domain::{ImageId, Record, Space};
use crate::error::{Error, ErrorKind, Result};

/// Images that are embedded together.
const TOGETHER: usize = 64;
/// Images that may be left when writers are asked to wait; where more came meanwhile, it goes round once more.
const LEFT_MAX: usize = 64;
/// Most rounds before that.
const ROUNDS_MAX: usize = 8;
/// Writers take no new images for so long at most, while the last ones are embedded.
const PAUSE_MAX: SignedDuration = SignedDuration::from_secs(60);

/// The space that an archive moves to.
pub struct NewSpace {
    /// The space.
    pub space: Space,
    /// The model that makes such vectors.
    pub model: NewModel,
    /// How they are computed.
    pub provenance: RowsProvenance,
}

/// Whoever makes the vectors.
pub trait Reembed: Send {
    /// The raw vectors of images in the new space, in their order. Images that came meanwhile are asked for at the end.
    ///
    /// # Errors
    /// Any: then nothing changes.
    fn vectors(
        &mut self,
        archive: &Archive,
        records: &[Arc<Record>],
    ) -> impl Future<Output = Result<Vec<Vec<f32>>>> + Send;
}

/// What that did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reembedded {
    /// The version in the new space; the one that is there when that is in it already.
    pub version: u64,
    /// Images that were embedded.
    pub images: usize,
}

impl Archive {
    /// Moves the archive to another space, beside whoever writes: nothing is visible before the one version in which every row is of it. What was learned and
    /// measured in the old space goes with it. `graphs` is asked for every new rows object.
    ///
    /// # Errors
    /// What `by` refuses; `WrongDimension`, `InvalidRequest` for vectors that can't be of the space; `StorageFull`, `Unavailable`, `Damaged`: then nothing has changed.
    pub async fn reembed(
        &self,
        new: NewSpace,
        by: &mut impl Reembed,
        graphs: Option<GraphBuilder>,
    ) -> Result<Reembedded> {
        let base = base(self).await?;
        let (version, images) = (base.manifest.version, 0);
        if base.manifest.space == new.space {
            return Ok(Reembedded { version, images });
        }
        let mut work = Move {
            model: put_model(self.store(), new.model).await?,
            space: new.space,
            provenance: new.provenance,
            by,
            graphs,
            began: self.moment(),
            copies: BTreeMap::new(),
            embedded: HashMap::new(),
            images,
        };
        // The long part: a version to build on must be young.
        let mut base = base;
        for _ in 0..ROUNDS_MAX {
            let before = work.images;
            work.catch_up(self, &base).await?;
            if let Some(newer) = self.after(base.manifest.version).await? {
                base = Arc::new(base.advance(self, newer).await?);
            }
            if work.images - before <= LEFT_MAX {
                break;
            }
        }
        // Embedding takes longer than others take to write: they would always come first.
        let base = commit(self, &base, &mut Pause(Some(self.now() + PAUSE_MAX))).await?;
        let moved = commit(self, &base, &mut work).await;
        if moved.is_err() {
            // What fails here too ends by itself.
            let _ = commit(self, &base, &mut Pause(None)).await;
        }
        let version = moved?.manifest.version;
        Ok(Reembedded {
            version,
            images: work.images,
        })
    }
}

/// Until when no new images are taken.
pub(super) struct Pause(pub Option<Timestamp>);

impl Propose for Pause {
    async fn propose(&mut self, _: &Archive, base: &Arc<State>, _: &str) -> Result<Option<Proposed>> {
        let mut manifest = base.manifest.as_ref().clone();
        manifest.moving_until = self.0;
        Ok(Some(Proposed { manifest, rows: vec![] }))
    }
}

struct Move<'a, R> {
    space: Space,
    model: ModelRef,
    provenance: RowsProvenance,
    by: &'a mut R,
    graphs: Option<GraphBuilder>,
    began: Moment,
    /// By the name of what they are copies of.
    copies: BTreeMap<String, Copied>,
    /// Where the vector of an image is that was embedded: what a merge moves is not embedded again.
    embedded: HashMap<ImageId, (Arc<RowsObject>, u32)>,
    images: usize,
}

/// The rows of one object that lived, in the new space.
struct Copied {
    rows: Vec<(RowsEntry, Arc<RowsObject>)>,
    graphs: Vec<GraphEntry>,
    /// Row of the source -> object in `rows`, row in it.
    moved: HashMap<u32, (usize, u32)>,
}

impl<R: Reembed> Propose for Move<'_, R> {
    async fn propose(&mut self, archive: &Archive, base: &Arc<State>, _: &str) -> Result<Option<Proposed>> {
        if base.manifest.space == self.space {
            return Ok(None);
        }
        self.catch_up(archive, base).await?;
        let mut manifest = self.moved_to(&base.manifest);
        let sources: BTreeSet<String> = manifest.rows.iter().map(|entry| entry.object.clone()).collect();
        let dead = manifest.tombstones.clone();
        manifest.mark_dead_pictures(&sources);
        let packs = manifest.packs.clone();
        manifest.remove_rows(&sources);
        let shards = manifest.clone();
        let mut rows = Vec::new();
        for copied in sources.iter().filter_map(|source| self.copies.get(source)) {
            for (entry, object) in &copied.rows {
                let entry = RowsEntry {
                    // It may have been copied when the shards were others.
                    shards: shards_of(object, &shards),
                    ..entry.clone()
                };
                manifest.add_rows(entry, &packs);
                rows.push(Arc::clone(object));
            }
            manifest.graphs.extend(copied.graphs.iter().cloned());
        }
        for dead in &dead {
            let Some(copied) = self.copies.get(&dead.rows_object) else {
                continue;
            };
            for row in &dead.rows {
                // What was dead at the time of copying was not copied.
                if let Some(&(object, row)) = copied.moved.get(row) {
                    manifest.add_tombstones(&copied.rows[object].1.name, [row], dead.since);
                }
            }
        }
        Ok(Some(Proposed { manifest, rows }))
    }
}

impl<R: Reembed> Move<'_, R> {
    /// A manifest in the new space. What was learned and measured in the old one says nothing about it.
    fn moved_to(&self, manifest: &Manifest) -> Manifest {
        Manifest {
            space: self.space.clone(),
            model: Some(self.model.clone()),
            precisions: vec![self.provenance.precision.clone()],
            metric: None,
            calibration: None,
            evaluation: None,
            moving_until: None,
            ..manifest.clone()
        }
    }

    /// Copies what `base` has and was not copied yet.
    async fn catch_up(&mut self, archive: &Archive, base: &Arc<State>) -> Result<()> {
        let target = self.moved_to(&base.manifest);
        for (index, entry) in base.manifest.rows.iter().enumerate() {
            if self.began.age(archive.moment()) > AGE_MAX {
                let message =
                    "embedding took so long that what was written first may be gone: use a faster device or model";
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            if !self.copies.contains_key(&entry.object) {
                let copied = self.copy(archive, base, index, &target).await?;
                self.copies.insert(entry.object.clone(), copied);
            }
        }
        Ok(())
    }

    async fn copy(&mut self, archive: &Archive, base: &State, index: usize, target: &Manifest) -> Result<Copied> {
        let (entry, object) = (&base.manifest.rows[index], &base.rows[index]);
        let rows: Vec<u32> = (0..object.rows()).filter(|&row| base.is_live(index, row)).collect();
        // No commit yet: any name that is new will do.
        let commit = uuid::Uuid::new_v4().to_string();
        let graphs = self.graphs.clone();
        let builder = Graphs::of(archive, graphs.as_ref(), target, &commit).await?;
        let mut copied = Copied {
            rows: vec![],
            graphs: vec![],
            moved: HashMap::new(),
        };
        for rows in rows.chunks(rows_max(target.space.dimension)) {
            let records: Vec<Arc<Record>> = (rows.iter())
                .map(|&row| Arc::clone(&object.records[row as usize]))
                .collect();
            let content = Rows {
                space: target.space.id(),
                dimension: target.space.dimension,
                provenance: self.provenance.clone(),
                commit: commit.clone(),
                vectors: self.vectors(archive, &records).await?,
                records: (records.iter())
                    .map(|record| without_vectors(record, archive.identity()))
                    .collect::<Result<_>>()?,
            };
            let (new_entry, new, bytes) = encode(content, target, entry.delta).await?;
            let new = archive.put_rows(new, bytes).await?;
            if let Some(builder) = builder.as_ref().filter(|_| new_entry.shard().is_some()) {
                copied.graphs.extend(builder.write(&new, &new_entry).await?);
            }
            let at = copied.rows.len();
            for (to, &from) in (0..).zip(rows) {
                copied.moved.insert(from, (at, to));
                self.embedded
                    .insert(new.records[to as usize].id, (Arc::clone(&new), to));
            }
            copied.rows.push((new_entry, new));
        }
        Ok(copied)
    }

    /// The vectors of images, one after the other; those that were embedded before are read.
    async fn vectors(&mut self, archive: &Archive, records: &[Arc<Record>]) -> Result<Vec<f32>> {
        let dimension = self.space.dimension;
        let mut vectors = vec![0.0; records.len() * dimension];
        let mut unknown = Vec::new();
        for (at, record) in records.iter().enumerate() {
            match self.embedded.get(&record.id) {
                Some((object, row)) => {
                    vectors[at * dimension..(at + 1) * dimension].copy_from_slice(&object.vector(*row)?);
                }
                None => unknown.push(at),
            }
        }
        for together in unknown.chunks(TOGETHER) {
            let asked: Vec<Arc<Record>> = together.iter().map(|&at| Arc::clone(&records[at])).collect();
            let made = self.by.vectors(archive, &asked).await?;
            if made.len() != asked.len() {
                return Err(Error::internal("not every image was embedded"));
            }
            for (&at, vector) in together.iter().zip(&made) {
                // Refuses what can't be compared.
                crate::domain::Embedding::from_raw(vector, dimension)?;
                vectors[at * dimension..(at + 1) * dimension].copy_from_slice(vector);
            }
            self.images += asked.len();
        }
        Ok(vectors)
    }
}

/// A record whose further files keep no vector of their own: those were of the old space.
fn without_vectors(record: &Arc<Record>, identity: &Identity) -> Result<Arc<Record>> {
    let mut changed = Record::clone(record);
    let mut has_changed = false;
    for alias in &mut changed.aliases {
        let Some(sealed) = &alias.sealed else { continue };
        if let (open, Some(_)) = identity.open_with_vector(sealed, alias.file_key)? {
            alias.sealed = identity.seal(&open, alias.file_key)?;
            has_changed = true;
        }
    }
    Ok(if has_changed {
        Arc::new(changed)
    } else {
        Arc::clone(record)
    })
}
