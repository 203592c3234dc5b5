//! Fewer, larger objects: rows that live are copied, dead ones and their pictures are left behind.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::bulk::{AGE_MAX, GraphBuilder, write_graphs};
use super::commit::{Propose, Proposed};
use super::draft::encode;
use super::pack::{self, Kind, PackBuilder};
use super::rows::Rows;
use super::store::blocking;
use super::{Archive, GraphEntry, Moment, PackEntry, RowsEntry, RowsObject, RowsProvenance, State};
use crate::domain::{PackRef, Record};
use crate::error::{ErrorKind, Result};

/// A merged object with this many rows is no delta any more: copying it again and again would cost more than it helps.
const DELTA_ROWS_MAX: u64 = 8192;
/// Packs below this size are merged along with deltas.
const PACK_SMALL_BYTES: u64 = 16 << 20;
/// A rows object is closed before its vectors are larger than this.
pub(super) const ROWS_BYTES_MAX: usize = 1 << 30;

/// What is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// Some of the small objects, so that each row is copied a logarithmic number of times.
    Deltas,
    /// Everything, when anything can be gained.
    All,
}

/// A merge on its way to be committed. Objects are written once; a newer base only changes which of the copied rows are dead.
pub(super) struct Merge {
    scale: Scale,
    graphs: Option<GraphBuilder>,
    written: Option<Written>,
}

struct Written {
    began: Moment,
    sources: BTreeSet<String>,
    rows: Vec<(RowsEntry, Arc<RowsObject>)>,
    graphs: Vec<GraphEntry>,
    packs: Vec<PackEntry>,
    /// Row of a source -> object in `rows`, row in it.
    moved: HashMap<(String, u32), (usize, u32)>,
}

impl Merge {
    pub fn new(scale: Scale, graphs: Option<GraphBuilder>) -> Self {
        Self {
            scale,
            graphs,
            written: None,
        }
    }
}

impl Propose for Merge {
    async fn propose(&mut self, archive: &Archive, base: &Arc<State>, commit: &str) -> Result<Option<Proposed>> {
        let named = |sources: &BTreeSet<String>| {
            sources
                .iter()
                .all(|name| base.manifest.rows.iter().any(|entry| entry.object == *name))
        };
        let safe = |written: &Written| written.began.age(archive.moment()) <= AGE_MAX && named(&written.sources);
        if !self.written.as_ref().is_some_and(safe) {
            let sources = sources(base, self.scale);
            self.written = match sources.is_empty() {
                true => None,
                false => Some(write(archive, base, &sources, self.scale, self.graphs.as_ref(), commit).await?),
            };
        }
        let Some(written) = &self.written else { return Ok(None) };
        let mut manifest = base.manifest.as_ref().clone();
        manifest.remove_rows(&written.sources, archive.now());
        for (entry, _) in &written.rows {
            let packs: Vec<_> = written.packs.iter().chain(&base.manifest.packs).cloned().collect();
            manifest.add_rows(entry.clone(), &packs);
        }
        // A pack that the merged rows still need was taken out with its last source.
        let named: BTreeSet<&String> = manifest.packs.iter().map(|pack| &pack.object).collect();
        manifest.superseded.retain(|old| !named.contains(&old.object));
        manifest.graphs.extend(written.graphs.iter().cloned());
        for dead in base
            .manifest
            .tombstones
            .iter()
            .filter(|dead| written.sources.contains(&dead.rows_object))
        {
            for &row in &dead.rows {
                // Rows that were dead at the time of copying were not copied.
                if let Some(&(object, row)) = written.moved.get(&(dead.rows_object.clone(), row)) {
                    manifest.add_tombstones(&written.rows[object].1.name, [row]);
                }
            }
        }
        let rows = written.rows.iter().map(|(_, object)| Arc::clone(object)).collect();
        Ok(Some(Proposed { manifest, rows }))
    }
}

/// Which rows objects to merge.
fn sources(base: &State, scale: Scale) -> BTreeSet<String> {
    let manifest = &base.manifest;
    match scale {
        Scale::Deltas => {
            let mut deltas: Vec<_> = manifest.rows.iter().filter(|entry| entry.delta).collect();
            deltas.sort_by_key(|entry| entry.rows);
            // The smaller half, and on as long as the next is no larger than what is merged with it: sizes about double each time.
            let half = deltas.len().div_ceil(2);
            let mut sum = 0;
            let merged = deltas.iter().enumerate().take_while(|(index, entry)| {
                let taken = *index < half || entry.rows <= sum;
                sum += entry.rows;
                taken
            });
            let merged: BTreeSet<_> = merged.map(|(_, entry)| entry.object.clone()).collect();
            if merged.len() >= 2 { merged } else { BTreeSet::new() }
        }
        Scale::All => {
            let sources = || manifest.rows.iter().map(|entry| entry.object.clone()).collect();
            if is_compact(base) { BTreeSet::new() } else { sources() }
        }
    }
}

/// Nothing dead, no picture that nobody needs, no more objects than there have to be.
fn is_compact(base: &State) -> bool {
    let manifest = &base.manifest;
    let mut groups: BTreeMap<(&[u32], &RowsProvenance), Vec<u64>> = BTreeMap::new();
    for (entry, object) in manifest.rows.iter().zip(&base.rows) {
        groups
            .entry((&entry.shards, &object.header.provenance))
            .or_default()
            .push(entry.rows);
    }
    let row_bytes = manifest.space.dimension * 4;
    let fits = (ROWS_BYTES_MAX / row_bytes).max(1) as u64;
    let tight = groups
        .iter()
        .all(|((shards, _), rows)| shards.len() == 1 && rows.len() as u64 == rows.iter().sum::<u64>().div_ceil(fits));
    let used = used_packs(base.live().map(|at| base.at(at).as_ref()));
    let trim = manifest.packs.iter().all(|pack| is_trim(pack, &used));
    tight && trim && manifest.tombstones.is_empty() && manifest.deltas() == 0
}

/// Offsets that are referred to, with their lengths, by pack.
fn used_packs<'a>(records: impl Iterator<Item = &'a Record>) -> HashMap<&'a str, BTreeMap<u64, u64>> {
    let mut used: HashMap<&str, BTreeMap<u64, u64>> = HashMap::new();
    for slice in records.flat_map(pictures) {
        used.entry(&slice.object)
            .or_default()
            .insert(slice.offset, slice.length);
    }
    used
}

fn pictures(record: &Record) -> impl Iterator<Item = &PackRef> {
    record
        .thumbnail
        .iter()
        .chain(record.pixels.iter().map(|pixels| &pixels.pack))
}

fn is_trim(pack: &PackEntry, used: &HashMap<&str, BTreeMap<u64, u64>>) -> bool {
    let needed: u64 = used.get(pack.object.as_str()).map_or(0, |slices| slices.values().sum());
    needed + pack::HEADER_BYTES == pack.bytes
}

async fn write(
    archive: &Archive,
    base: &Arc<State>,
    sources: &BTreeSet<String>,
    scale: Scale,
    graphs: Option<&GraphBuilder>,
    commit: &str,
) -> Result<Written> {
    let began = archive.moment();
    let manifest = &base.manifest;
    let rows: Vec<(usize, u32)> = base
        .live()
        .filter(|&(object, _)| sources.contains(&base.rows[object].name))
        .collect();
    let records: Vec<&Record> = rows.iter().map(|&at| base.at(at).as_ref()).collect();
    let used = used_packs(records.iter().copied());
    let again: HashSet<&str> = manifest
        .packs
        .iter()
        .filter(|pack| match scale {
            Scale::Deltas => pack.bytes < PACK_SMALL_BYTES,
            Scale::All => pack.bytes < PACK_SMALL_BYTES || !is_trim(pack, &used),
        })
        .map(|pack| pack.object.as_str())
        .collect();
    let mut packs = Vec::new();
    let mut places = HashMap::new();
    for kind in [Kind::Thumbnails, Kind::Pixels] {
        let wanted: Vec<&PackRef> = records
            .iter()
            .flat_map(|record| pictures(record))
            .filter(|slice| slice.object.starts_with(kind.folder()) && again.contains(slice.object.as_str()))
            .collect();
        copy_pictures(archive, kind, &wanted, &mut places, &mut packs).await?;
    }
    drop(used);
    let places = Arc::new(places);

    let mut groups: BTreeMap<(u32, RowsProvenance), Vec<(usize, u32)>> = BTreeMap::new();
    for &at in &rows {
        let shard = if scale == Scale::All {
            manifest.shard(base.at(at).id.slot())
        } else {
            0
        };
        groups
            .entry((shard, base.rows[at.0].header.provenance.clone()))
            .or_default()
            .push(at);
    }
    let mut written = Written {
        began,
        sources: sources.clone(),
        rows: vec![],
        graphs: vec![],
        packs: packs.clone(),
        moved: HashMap::new(),
    };
    let chunk = (ROWS_BYTES_MAX / (manifest.space.dimension * 4)).max(1);
    for ((_, provenance), rows) in groups {
        for rows in rows.chunks(chunk) {
            let (state, places, provenance, commit) = (
                Arc::clone(base),
                Arc::clone(&places),
                provenance.clone(),
                commit.to_owned(),
            );
            let copied = rows.to_vec();
            let content = blocking(move || Rows {
                space: state.manifest.space.id(),
                dimension: state.manifest.space.dimension,
                provenance,
                commit,
                records: copied
                    .iter()
                    .map(|&at| Arc::new(moved(state.at(at), &places)))
                    .collect(),
                vectors: copied
                    .iter()
                    .flat_map(|&(object, row)| state.rows[object].vector(row))
                    .copied()
                    .collect(),
            });
            let content = content.await?;
            let delta = scale == Scale::Deltas && (rows.len() as u64) < DELTA_ROWS_MAX;
            let (entry, object, bytes) = encode(content, manifest, delta).await?;
            archive.store().put_object(&entry.object, bytes).await?;
            if let Some(build) = graphs {
                written
                    .graphs
                    .extend(write_graphs(archive, build, &object, &entry).await?);
            }
            let index = written.rows.len();
            let from = |&(object, row): &(usize, u32)| (base.rows[object].name.clone(), row);
            written
                .moved
                .extend(rows.iter().map(from).zip((0..).map(|row| (index, row))));
            written.rows.push((entry, object));
        }
    }
    Ok(written)
}

fn moved(record: &Record, places: &HashMap<(String, u64), PackRef>) -> Record {
    let place = |slice: &mut PackRef| {
        if let Some(place) = places.get(&(slice.object.clone(), slice.offset)) {
            *slice = place.clone();
        }
    };
    let mut record = record.clone();
    record.thumbnail.iter_mut().for_each(place);
    record.pixels.iter_mut().for_each(|pixels| place(&mut pixels.pack));
    record
}

/// Copies pictures into new packs, one old pack in memory at a time. A damaged one stays where it is: it must not keep the rest from merging.
async fn copy_pictures(
    archive: &Archive,
    kind: Kind,
    wanted: &[&PackRef],
    places: &mut HashMap<(String, u64), PackRef>,
    packs: &mut Vec<PackEntry>,
) -> Result<()> {
    let mut by_pack: BTreeMap<&str, BTreeMap<u64, &PackRef>> = BTreeMap::new();
    for slice in wanted {
        by_pack.entry(&slice.object).or_default().insert(slice.offset, slice);
    }
    let mut builder = PackBuilder::new(kind);
    let mut open = Vec::new();
    for (name, slices) in by_pack {
        let pack = match archive.store().get_object(name).await {
            Ok(pack) => pack,
            Err(error) if error.kind() == ErrorKind::Damaged => {
                tracing::warn!(object = name, "a damaged pack was left as it is");
                continue;
            }
            Err(error) => return Err(error),
        };
        for slice in slices.into_values() {
            open.push((slice, builder.push(&pack::slice(&pack, slice)?)));
            if builder.is_full() {
                close(archive, &mut builder, &mut open, places, packs).await?;
            }
        }
    }
    if !builder.is_empty() {
        close(archive, &mut builder, &mut open, places, packs).await?;
    }
    Ok(())
}

async fn close(
    archive: &Archive,
    builder: &mut PackBuilder,
    open: &mut Vec<(&PackRef, pack::Slice)>,
    places: &mut HashMap<(String, u64), PackRef>,
    packs: &mut Vec<PackEntry>,
) -> Result<()> {
    let (name, bytes) = builder.finish().await?;
    packs.push(PackEntry {
        object: name.clone(),
        bytes: bytes.len() as u64,
    });
    archive.store().put_object(&name, bytes).await?;
    places.extend(
        open.drain(..)
            .map(|(old, new)| ((old.object.clone(), old.offset), new.of(&name))),
    );
    Ok(())
}
