//! Compaction: rows and pictures merged, all of them or what is due, then what no version needs deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::audit::AUDIT;
use super::bookmark::BOOKMARKS;
use super::bulk::AGE_MAX;
use super::commit::{Propose, Proposed, base, commit};
use super::feedback::FEEDBACK;
use super::graphs::{Rebuild, unreadable};
use super::manifest::MANIFESTS;
use super::merge::{Merge, Scale};
use super::origins::ORIGINS;
use super::store::{Listed, Store, is_object_name};
use super::{Archive, BASE_AGE_MAX, GraphBuilder, Manifest, State, inbox, read_manifest};
use crate::error::{Error, ErrorKind, Result};

/// Manifests read at a time.
const READS_MAX: usize = 8;
/// The folders of what manifests name and versions supersede.
pub(super) const FOLDERS: [&str; 7] = [
    "rows",
    "graphs",
    "metrics",
    "calibrations",
    "evaluations",
    "thumbnails",
    "pixels",
];
/// Below this age of manifests a writer could take a number again that was collected while it held the version before: twice the age of a
/// base, and time for a commit that is being tried.
const MANIFEST_AGE_MIN: Duration = Duration::from_secs(2 * BASE_AGE_MAX.as_secs() + 60);
/// Below this age of objects a writer's upload could be collected before it is named.
const OBJECT_AGE_MIN: Duration = Duration::from_secs(AGE_MAX.as_secs() + 3600);
/// The age of objects that is usual.
pub const OBJECT_AGE: Duration = Duration::from_secs(20 * 3600);
/// Time in which the bytes of a deleted image have to be gone.
pub(super) const ERASE_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// How an archive is compacted.
#[derive(Clone)]
pub struct CompactSettings {
    /// Age, from the moment it was superseded, at which a manifest is deleted and with it what only it named. At least the time for which
    /// a reader may stay on an old version.
    pub manifest_age_min: Duration,
    /// Age, from the moment it was written, at which an object is deleted that no known version names or superseded. At least the time from the
    /// first upload of a writer to its commit; with the hour between two collections less than the time in which deleted bytes have to be gone.
    pub object_age_min: Duration,
    /// Builds graphs for merged rows, and in place of those that can't be read.
    pub graphs: Option<GraphBuilder>,
    /// Graphs that are known to be unreadable. [`compact`] looks for them itself.
    pub lost_graphs: BTreeSet<String>,
    /// Nobody else writes or reads: ages may be lower than what keeps others safe.
    pub offline: bool,
}

impl Default for CompactSettings {
    fn default() -> Self {
        Self {
            manifest_age_min: Duration::from_secs(3600),
            object_age_min: OBJECT_AGE,
            graphs: None,
            lost_graphs: BTreeSet::new(),
            offline: false,
        }
    }
}

impl CompactSettings {
    fn check(&self) -> Result<()> {
        if self.offline || self.manifest_age_min >= MANIFEST_AGE_MIN && self.object_age_min >= OBJECT_AGE_MIN {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidRequest,
            format!(
                "beside a program that writes, versions are kept for at least {} seconds and objects for {}: less needs `--offline`, with nobody else at the archive",
                MANIFEST_AGE_MIN.as_secs(),
                OBJECT_AGE_MIN.as_secs()
            ),
        ))
    }
}

/// What compaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The newest version.
    pub version: u64,
    /// Superseded manifests deleted.
    pub manifests_deleted: usize,
    /// Objects and leftovers of interrupted writes deleted.
    pub objects_deleted: usize,
    /// Their bytes.
    pub bytes_deleted: u64,
}

impl Collected {
    async fn delete(&mut self, store: &Store, object: &Listed) -> Result<()> {
        store.delete(&object.name).await?;
        self.objects_deleted += 1;
        self.bytes_deleted += object.bytes;
        Ok(())
    }
}

/// Merges everything, so that no object holds a row or picture that is dead, and deletes what no version needs any more.
///
/// # Errors
/// `InvalidRequest` for ages that are not safe; `StorageFull`, `Unavailable`, `Damaged`: what was done up to then stays done and harmless.
pub async fn compact(archive: &Archive, settings: CompactSettings) -> Result<Collected> {
    run(archive, Scale::All, settings).await
}

/// What a server does every hour: merges small objects, rewrites a large one or a pack only when a tenth of it is dead or when the erasure
/// of something in it is due, and deletes what no version needs any more. With nothing to do it writes nothing.
///
/// # Errors
/// As [`compact`].
pub async fn maintain(archive: &Archive, settings: CompactSettings) -> Result<Collected> {
    run(archive, Scale::Due, settings).await
}

async fn run(archive: &Archive, scale: Scale, settings: CompactSettings) -> Result<Collected> {
    settings.check()?;
    // First, since it needs no room: what a merge can't write on a full disk must not keep what somebody wrote.
    archive.erase_reports().await?;
    let mut base = base(archive).await?;
    let mended = mended(archive, &base.manifest).await?;
    if !mended.is_empty() {
        base = commit(archive, &base, &mut Mended(mended)).await?;
    }
    let mut state = commit(archive, &base, &mut Merge::new(scale, settings.graphs.clone())).await?;
    if settings.graphs.is_some() {
        let mut lost = settings.lost_graphs.clone();
        if scale == Scale::All {
            lost.extend(unreadable(archive, &state.manifest).await?);
        }
        let mut rebuild = Rebuild::new(lost, settings.graphs.clone(), archive.moment());
        state = commit(archive, &state, &mut rebuild).await?;
    }
    collect(archive, &state, &settings).await
}

/// Packs that a merge found damaged and left, and that are whole again.
async fn mended(archive: &Archive, manifest: &Manifest) -> Result<BTreeSet<String>> {
    let mut mended = BTreeSet::new();
    for pack in manifest.packs.iter().filter(|pack| pack.damaged) {
        match archive.store().get_object(&pack.object).await {
            Ok(_) => drop(mended.insert(pack.object.clone())),
            Err(error) if error.kind() == ErrorKind::Damaged || archive.store().is_missing(&pack.object).await => {}
            Err(error) => return Err(error),
        }
    }
    Ok(mended)
}

/// They are merged, and rid of what is dead in them, as any other.
struct Mended(BTreeSet<String>);

impl Propose for Mended {
    async fn propose(&mut self, _: &Archive, base: &Arc<State>, _: &str) -> Result<Option<Proposed>> {
        let mut manifest = base.manifest.as_ref().clone();
        let mended = manifest
            .packs
            .iter_mut()
            .filter(|pack| pack.damaged && self.0.contains(&pack.object));
        let mended = mended.map(|pack| pack.damaged = false).count();
        Ok((mended > 0).then_some(Proposed { manifest, rows: vec![] }))
    }
}

/// The next version with nothing changed. Whoever fell asleep with a version to name that was begun before finds its number taken.
struct Fence;

impl Propose for Fence {
    async fn propose(&mut self, _: &Archive, base: &Arc<State>, _: &str) -> Result<Option<Proposed>> {
        let manifest = base.manifest.as_ref().clone();
        Ok(Some(Proposed { manifest, rows: vec![] }))
    }
}

/// Deletes, oldest first, what the version after an old one superseded, then the old one itself: what is interrupted is begun again. What no
/// version knows of goes by its own age.
async fn collect(archive: &Archive, state: &Arc<State>, settings: &CompactSettings) -> Result<Collected> {
    let store = archive.store();
    let now = archive.now();
    let superseded_before = before(now, settings.manifest_age_min)?;
    let written_before = before(now, settings.object_age_min)?;
    // Listed before the manifest is read: an object that is named meanwhile is not in the list.
    let mut objects: BTreeMap<String, Listed> = BTreeMap::new();
    for folder in FOLDERS {
        let listed = store.list(folder).await?;
        let ours = listed.into_iter().filter(|object| is_object_name(&object.name, folder));
        objects.extend(ours.map(|object| (object.name.clone(), object)));
    }
    let manifests: BTreeMap<u64, Listed> = store
        .list(MANIFESTS)
        .await?
        .into_iter()
        .filter_map(|manifest| Some((Manifest::version_of(&manifest.name)?, manifest)))
        .collect();
    let newest = archive.latest().await?;
    for (name, _) in newest.objects() {
        objects.remove(name);
    }

    let mut collected = Collected {
        version: newest.version,
        manifests_deleted: 0,
        objects_deleted: 0,
        bytes_deleted: 0,
    };
    let (all, versions): (Vec<&Listed>, Vec<u64>) =
        manifests.iter().map(|(&version, listed)| (listed, version)).unzip();
    let old = old_versions(&all, &versions, newest.version, superseded_before);
    let read = |version: u64| read_manifest(store, version);
    let successors: Vec<u64> = versions.iter().copied().skip(1).take(old).collect();
    let mut successors = stream::iter(successors.into_iter().map(read)).buffered(READS_MAX);
    for manifest in &all[..old] {
        let next = match successors.next().await {
            Some(Ok(next)) => next,
            // What it knew goes by age then: one bad file must not keep everything else.
            Some(Err(error)) if error.kind() == ErrorKind::Damaged => {
                tracing::warn!(error = %error, "an old version can't be read");
                None
            }
            Some(Err(error)) => return Err(error),
            None => None,
        };
        for name in next.iter().flat_map(|next| &next.superseded) {
            if let Some(object) = objects.remove(name) {
                collected.delete(store, &object).await?;
            }
        }
        store.delete(&manifest.name).await?;
        collected.manifests_deleted += 1;
        collected.bytes_deleted += manifest.bytes;
    }

    objects.retain(|_, object| object.modified <= written_before);
    if !objects.is_empty() {
        let kept: Vec<u64> = versions[old..].to_vec();
        let mut kept = stream::iter(kept.into_iter().map(read)).buffered(READS_MAX);
        while let Some(manifest) = kept.try_next().await? {
            for (name, _) in manifest.iter().flat_map(Manifest::objects) {
                objects.remove(name);
            }
        }
    }
    if !objects.is_empty() && !settings.offline {
        // A writer may have been frozen since it wrote them, however long ago, and name them when it wakes: in the version after the one that it knew.
        // That number is taken now, or was before, or this is where it is seen.
        let fence = commit(archive, state, &mut Fence).await?.manifest.version;
        for version in newest.version + 1..=fence {
            for (name, _) in read(version).await?.iter().flat_map(Manifest::objects) {
                objects.remove(name);
            }
        }
        collected.version = fence;
    }
    for object in objects.values() {
        collected.delete(store, object).await?;
    }
    for folder in FOLDERS.iter().chain(&[MANIFESTS, FEEDBACK, AUDIT, BOOKMARKS, ORIGINS]) {
        collected.objects_deleted += store.sweep_interrupted(folder, written_before).await?;
    }
    collected.objects_deleted += inbox::tidy(archive, written_before).await?;
    Ok(collected)
}

/// How many of the oldest versions were superseded by then. A version is old by the age of the next, or of any later one whose clock says less.
fn old_versions(all: &[&Listed], versions: &[u64], newest: u64, superseded_before: Timestamp) -> usize {
    let mut superseded_at: Vec<Timestamp> = all.iter().skip(1).map(|next| next.modified).collect();
    for at in (1..superseded_at.len()).rev() {
        superseded_at[at - 1] = superseded_at[at - 1].min(superseded_at[at]);
    }
    let is_old = |&(&at, &version): &(&Timestamp, &u64)| version < newest && at <= superseded_before;
    superseded_at.iter().zip(versions).take_while(is_old).count()
}

/// The time that was `age` ago.
pub(super) fn before(now: Timestamp, age: Duration) -> Result<Timestamp> {
    now.checked_sub(age)
        .map_err(|error| Error::with_source(ErrorKind::InvalidRequest, "an age reaches back beyond all time", error))
}
