//! Fewer, larger objects, or objects of other shards: rows that live are copied, dead ones and their pictures are left behind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::bulk::AGE_MAX;
use super::commit::{Propose, Proposed, base, commit};
use super::draft::{encode, shards_of};
use super::gc::ERASE_WITHIN;
use super::graphs::Graphs;
use super::manifest::{check_shard_count, even_shards};
use super::pack::{self, Kind, PackBuilder};
use super::rows::Rows;
use super::store::blocking;
use super::{
    Archive, GraphBuilder, GraphEntry, Manifest, MetricEntry, Moment, PackEntry, RowsEntry, RowsObject, RowsProvenance,
    Shard, State, Tombstones,
};
use crate::domain::{PackRef, Record};
use crate::error::{ErrorKind, Result};

/// A merged object with this many rows is no delta any more: copying it again and again would cost more than it helps.
const DELTA_ROWS_MAX: u64 = 8192;
/// Packs below this size are merged along with deltas.
const PACK_SMALL_BYTES: u64 = 16 << 20;
/// A large object or a pack is rewritten when more than one part in this many is dead.
const DEAD_PART_MAX: u64 = 10;
/// It is rewritten, however little of it is dead, when that died so long ago: half of the time is left for the collection after it.
const DEAD_AGE_MAX: Duration = Duration::from_secs(ERASE_WITHIN.as_secs() / 2);
/// A rows object is closed before its vectors are larger than this.
pub(super) const ROWS_BYTES_MAX: usize = 1 << 30;

/// What is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// Some of the small objects, so that each row is copied a logarithmic number of times; none where there are fewer than this: another writer merged them.
    Deltas(usize),
    /// The same, and large objects and packs as far as they have to be rewritten.
    Due,
    /// Everything, when anything can be gained.
    All,
    /// All large objects, into so many shards, when there are others.
    Shards(u32),
}

impl Scale {
    /// The shards that rows are copied into.
    fn shards(self, manifest: &Manifest) -> Vec<Shard> {
        match self {
            Self::Shards(count) => even_shards(count),
            _ => manifest.shards.clone(),
        }
    }
}

impl Archive {
    /// Cuts the archive into `count` shards of equal shares of the slots, in one version, beside whoever writes. `graphs` is asked for every new rows object.
    /// Gives the version that has them; the one that is there when it has.
    ///
    /// # Errors
    /// `InvalidRequest` for a number of shards that can't be; `StorageFull`, `Unavailable`, `Damaged`: then nothing has changed.
    pub async fn reshard(&self, count: u32, graphs: Option<GraphBuilder>) -> Result<u64> {
        check_shard_count(count)?;
        let base = base(self).await?;
        let resharded = commit(self, &base, &mut Merge::new(Scale::Shards(count), graphs)).await?;
        Ok(resharded.manifest.version)
    }
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
    /// The metric that they are for.
    metric: Option<MetricEntry>,
    /// The shards that the rows lie in.
    shards: Vec<Shard>,
    packs: Vec<PackEntry>,
    /// Packs that could not be read.
    damaged: BTreeSet<String>,
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
        let shards = self.scale.shards(&base.manifest);
        let cuts = shards != base.manifest.shards;
        // What belongs to one shard of the old ones has to be copied; a delta is anybody's.
        let reaches = |sources: &BTreeSet<String>| {
            let large = base.manifest.rows.iter().filter(|entry| !entry.delta);
            !cuts || large.into_iter().all(|entry| sources.contains(&entry.object))
        };
        let safe = |written: &Written| {
            let young = written.began.age(archive.moment()) <= AGE_MAX;
            let fits = written.metric == base.manifest.metric && written.shards == shards;
            young && fits && named(&written.sources) && reaches(&written.sources)
        };
        if !self.written.as_ref().is_some_and(safe) {
            let sources = sources(base, self.scale, archive.now());
            self.written = match sources.rows.is_empty() && !cuts {
                true => None,
                false => Some(write(archive, base, &sources, self.scale, self.graphs.as_ref(), commit).await?),
            };
        }
        let Some(written) = &self.written else { return Ok(None) };
        let mut manifest = base.manifest.as_ref().clone();
        if cuts {
            manifest.shards = shards;
            let cut = manifest.clone();
            for (entry, object) in manifest.rows.iter_mut().zip(&base.rows) {
                entry.shards = shards_of(object, &cut);
            }
        }
        manifest.mark_dead_pictures(&written.sources);
        let packs: Vec<_> = written.packs.iter().chain(&manifest.packs).cloned().collect();
        manifest.remove_rows(&written.sources);
        for (entry, _) in &written.rows {
            manifest.add_rows(entry.clone(), &packs);
        }
        for pack in &mut manifest.packs {
            pack.damaged |= written.damaged.contains(&pack.object);
        }
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
                    manifest.add_tombstones(&written.rows[object].1.name, [row], dead.since);
                }
            }
        }
        let rows = written.rows.iter().map(|(_, object)| Arc::clone(object)).collect();
        Ok(Some(Proposed { manifest, rows }))
    }
}

/// What is copied.
struct Sources {
    /// Rows objects, all their living rows.
    rows: BTreeSet<String>,
    /// Packs whose pictures move, as far as these rows show them.
    packs: BTreeSet<String>,
}

fn sources(base: &State, scale: Scale, now: Timestamp) -> Sources {
    let manifest = &base.manifest;
    let used = || used_packs(base.live().map(|at| base.at(at).as_ref()));
    let mut rows: BTreeSet<String> = BTreeSet::new();
    let mut packs: BTreeSet<String> = BTreeSet::new();
    match scale {
        Scale::Deltas(at_least) if manifest.deltas() < at_least => {}
        Scale::Deltas(_) => rows.extend(some_deltas(manifest)),
        Scale::All if is_compact(base) => {}
        Scale::Shards(_) if scale.shards(manifest) == manifest.shards => {}
        // A delta is anybody's, and merged away by others all the time.
        Scale::Shards(_) => {
            let large = manifest.rows.iter().filter(|entry| !entry.delta);
            rows.extend(large.map(|entry| entry.object.clone()));
        }
        Scale::All => {
            let used = used();
            rows.extend(manifest.rows.iter().map(|entry| entry.object.clone()));
            packs.extend(
                manifest
                    .packs
                    .iter()
                    .filter(|pack| !is_trim(pack, &used))
                    .map(|pack| pack.object.clone()),
            );
        }
        Scale::Due => {
            rows.extend(some_deltas(manifest));
            rows.extend(large_deltas(manifest));
            rows.extend(uneven(base));
            rows.extend(dying(manifest, now));
            packs.extend(dying_packs(manifest, &used(), now));
            let shown = |entry: &&RowsEntry| entry.packs.iter().any(|pack| packs.contains(pack));
            rows.extend(manifest.rows.iter().filter(shown).map(|entry| entry.object.clone()));
        }
    }
    let small = manifest
        .packs
        .iter()
        .filter(|pack| pack.bytes < PACK_SMALL_BYTES && !pack.damaged);
    packs.extend(small.map(|pack| pack.object.clone()));
    Sources { rows, packs }
}

/// The smaller half of the deltas, and on as long as the next is no larger than what is merged with it: sizes about double each time.
fn some_deltas(manifest: &Manifest) -> impl Iterator<Item = String> {
    let deltas: Vec<_> = manifest.rows.iter().filter(|entry| entry.delta).collect();
    let half = deltas.len().div_ceil(2);
    run_of_small(deltas, half)
}

/// Deltas so large that every query would scan them for long: one is enough, it becomes rows of its shards with graphs of their own.
fn large_deltas(manifest: &Manifest) -> impl Iterator<Item = String> {
    let large = manifest
        .rows
        .iter()
        .filter(|entry| entry.delta && entry.rows >= DELTA_ROWS_MAX);
    large.map(|entry| entry.object.clone())
}

/// Large objects that are few rows each, or rows of several shards: what merging deltas ends in. As rarely as deltas.
fn uneven(base: &State) -> impl Iterator<Item = String> {
    let manifest = &base.manifest;
    let fits = rows_max(manifest.space.dimension) as u64;
    let mut groups: BTreeMap<(&[u32], &RowsProvenance), Vec<&RowsEntry>> = BTreeMap::new();
    for (entry, object) in manifest.rows.iter().zip(&base.rows) {
        if !entry.delta && entry.rows < fits {
            let group = groups.entry((&entry.shards, &object.header.provenance)).or_default();
            group.push(entry);
        }
    }
    groups
        .into_iter()
        .flat_map(|((shards, _), entries)| match shards.len() {
            1 => run_of_small(entries, 1).collect::<Vec<_>>(),
            _ => entries.into_iter().map(|entry| entry.object.clone()).collect(),
        })
}

fn run_of_small(mut entries: Vec<&RowsEntry>, at_least: usize) -> impl Iterator<Item = String> {
    entries.sort_by_key(|entry| entry.rows);
    let mut sum = 0;
    let mut names = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        if index >= at_least && entry.rows > sum {
            break;
        }
        sum += entry.rows;
        names.push(entry.object.clone());
    }
    // One alone has nothing to be merged with.
    let enough = names.len() >= 2;
    names.into_iter().filter(move |_| enough)
}

/// Rows objects of which too much is dead, or something for too long.
fn dying(manifest: &Manifest, now: Timestamp) -> impl Iterator<Item = String> {
    let due = move |dead: &&Tombstones| {
        let of = manifest.rows.iter().find(|entry| entry.object == dead.rows_object);
        of.is_some_and(|entry| dead.rows.len() as u64 * DEAD_PART_MAX > entry.rows) || is_old(dead.since, now)
    };
    manifest
        .tombstones
        .iter()
        .filter(due)
        .map(|dead| dead.rows_object.clone())
}

/// Packs of which too much is dead, or something for too long.
fn dying_packs(
    manifest: &Manifest,
    used: &HashMap<&str, BTreeMap<u64, u64>>,
    now: Timestamp,
) -> impl Iterator<Item = String> {
    let mut old: BTreeSet<&str> = BTreeSet::new();
    for dead in manifest.tombstones.iter().filter(|dead| is_old(dead.since, now)) {
        let of = manifest.rows.iter().filter(|entry| entry.object == dead.rows_object);
        old.extend(of.flat_map(|entry| &entry.packs).map(String::as_str));
    }
    let due = move |pack: &&PackEntry| {
        let dead = pack.bytes.saturating_sub(needed(pack, used) + pack::HEADER_BYTES);
        let is_old = old.contains(pack.object.as_str()) || pack.dead_since.is_some_and(|at| is_old(Some(at), now));
        !pack.damaged && !is_trim(pack, used) && (dead * DEAD_PART_MAX > pack.bytes || is_old)
    };
    manifest.packs.iter().filter(due).map(|pack| pack.object.clone())
}

fn is_old(since: Option<Timestamp>, now: Timestamp) -> bool {
    since.is_none_or(|since| now.duration_since(since).unsigned_abs() >= DEAD_AGE_MAX)
}

/// Rows of one object.
pub(super) fn rows_max(dimension: usize) -> usize {
    (ROWS_BYTES_MAX / (dimension * 4)).max(1)
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
    let fits = rows_max(manifest.space.dimension) as u64;
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

/// Bytes of pictures that somebody shows.
fn needed(pack: &PackEntry, used: &HashMap<&str, BTreeMap<u64, u64>>) -> u64 {
    used.get(pack.object.as_str()).map_or(0, |slices| slices.values().sum())
}

/// Nothing in it is dead. What can't be read can't be made smaller either.
fn is_trim(pack: &PackEntry, used: &HashMap<&str, BTreeMap<u64, u64>>) -> bool {
    pack.damaged || needed(pack, used) + pack::HEADER_BYTES == pack.bytes
}

async fn write(
    archive: &Archive,
    base: &Arc<State>,
    sources: &Sources,
    scale: Scale,
    graphs: Option<&GraphBuilder>,
    commit: &str,
) -> Result<Written> {
    let began = archive.moment();
    let mut manifest = base.manifest.as_ref().clone();
    manifest.shards = scale.shards(&manifest);
    let manifest = &manifest;
    let rows: Vec<(usize, u32)> = base
        .live()
        .filter(|&(object, _)| sources.rows.contains(&base.rows[object].name))
        .collect();
    let records: Vec<&Record> = rows.iter().map(|&at| base.at(at).as_ref()).collect();
    let mut packs = Vec::new();
    let mut places = HashMap::new();
    let mut damaged = BTreeSet::new();
    for kind in [Kind::Thumbnails, Kind::Pixels] {
        let wanted: Vec<&PackRef> = records
            .iter()
            .flat_map(|record| pictures(record))
            .filter(|slice| slice.object.starts_with(kind.folder()) && sources.packs.contains(&slice.object))
            .collect();
        damaged.extend(copy_pictures(archive, kind, &wanted, &mut places, &mut packs).await?);
    }
    let places = Arc::new(places);

    // Deltas stay together until they are many; what is large is of one shard each, and has graphs.
    let is_small = |object: usize| manifest.rows[object].delta;
    let small = rows.iter().filter(|at| is_small(at.0)).count() as u64;
    let stays_small = match scale {
        Scale::Deltas(_) => true,
        Scale::Due => small < DELTA_ROWS_MAX,
        Scale::All | Scale::Shards(_) => false,
    };
    // By shard, or none for those that stay a delta, and by how the vectors came about.
    type Group = (Option<u32>, RowsProvenance);
    let mut groups: BTreeMap<Group, Vec<(usize, u32)>> = BTreeMap::new();
    for &at in &rows {
        let shard = (!(stays_small && is_small(at.0))).then(|| manifest.shard(base.at(at).id.slot()));
        let group = groups.entry((shard, base.rows[at.0].header.provenance.clone()));
        group.or_default().push(at);
    }
    let mut written = Written {
        began,
        sources: sources.rows.clone(),
        rows: vec![],
        graphs: vec![],
        metric: manifest.metric.clone(),
        shards: manifest.shards.clone(),
        packs: packs.clone(),
        damaged,
        moved: HashMap::new(),
    };
    let builder = Graphs::of(archive, graphs, manifest, commit).await?;
    let chunk = rows_max(manifest.space.dimension);
    for ((shard, provenance), rows) in groups {
        for rows in rows.chunks(chunk) {
            let (state, places, provenance, commit) = (
                Arc::clone(base),
                Arc::clone(&places),
                provenance.clone(),
                commit.to_owned(),
            );
            let copied = rows.to_vec();
            let content = blocking(move || {
                Ok(Rows {
                    space: state.manifest.space.id(),
                    dimension: state.manifest.space.dimension,
                    provenance,
                    commit,
                    records: copied
                        .iter()
                        .map(|&at| Arc::new(moved(state.at(at), &state, &places)))
                        .collect(),
                    vectors: state.vectors(&copied)?,
                })
            });
            let content = content.await??;
            let delta = shard.is_none() && (rows.len() as u64) < DELTA_ROWS_MAX;
            let (entry, object, bytes) = encode(content, manifest, delta).await?;
            let object = archive.put_rows(object, bytes).await?;
            if let Some(builder) = builder.as_ref().filter(|_| shard.is_some()) {
                written.graphs.extend(builder.write(&object, &entry).await?);
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

fn moved(record: &Record, state: &State, places: &HashMap<(String, u64), PackRef>) -> Record {
    let place = |slice: &mut PackRef| {
        if let Some(place) = places.get(&(slice.object.clone(), slice.offset)) {
            *slice = place.clone();
        }
    };
    let mut record = record.clone();
    record.thumbnail.iter_mut().for_each(place);
    record.pixels.iter_mut().for_each(|pixels| place(&mut pixels.pack));
    // A program that knows no links deletes an image and leaves its name.
    record.near_identical_to = record.near_identical_to.filter(|&of| state.find(of).is_some());
    record
}

/// Copies pictures into new packs, one old pack in memory at a time. A pack that is damaged or missing stays where it is, and is named in
/// the answer: it must not keep the rest from merging.
async fn copy_pictures(
    archive: &Archive,
    kind: Kind,
    wanted: &[&PackRef],
    places: &mut HashMap<(String, u64), PackRef>,
    packs: &mut Vec<PackEntry>,
) -> Result<Vec<String>> {
    let mut by_pack: BTreeMap<&str, BTreeMap<u64, &PackRef>> = BTreeMap::new();
    for slice in wanted {
        by_pack.entry(&slice.object).or_default().insert(slice.offset, slice);
    }
    let mut builder = PackBuilder::new(kind);
    let mut open = Vec::new();
    let mut damaged = Vec::new();
    for (name, slices) in by_pack {
        let pack = match archive.store().get_object(name).await {
            Ok(pack) => pack,
            Err(error) if error.kind() == ErrorKind::Damaged || archive.store().is_missing(name).await => {
                tracing::warn!(object = name, error = %error, "a pack that can't be read was left as it is");
                damaged.push(name.to_owned());
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
    Ok(damaged)
}

async fn close(
    archive: &Archive,
    builder: &mut PackBuilder,
    open: &mut Vec<(&PackRef, pack::Slice)>,
    places: &mut HashMap<(String, u64), PackRef>,
    packs: &mut Vec<PackEntry>,
) -> Result<()> {
    let (name, bytes) = builder.finish().await?;
    packs.push(PackEntry::new(name.clone(), bytes.len() as u64));
    archive.store().put_object(&name, bytes).await?;
    places.extend(
        open.drain(..)
            .map(|(old, new)| ((old.object.clone(), old.offset), new.of(&name))),
    );
    Ok(())
}
