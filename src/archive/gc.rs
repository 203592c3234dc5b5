//! Compaction: rows and pictures merged, all of them or what is due, then what no version needs deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::commit::{base, commit};
use super::manifest::MANIFESTS;
use super::merge::{Merge, Scale};
use super::store::is_object_name;
use super::{Archive, BASE_AGE_MAX, GraphBuilder, Manifest, read_manifest};
use crate::error::{Error, ErrorKind, Result};

/// Manifests read at a time.
const READS_MAX: usize = 8;
const FOLDERS: [&str; 4] = ["rows", "graphs", "thumbnails", "pixels"];
/// Below this age of manifests a writer could take a number again that was collected while it held the version before: twice the age of a
/// base, and time for a commit that is being tried.
const MANIFEST_AGE_MIN: Duration = Duration::from_secs(2 * BASE_AGE_MAX.as_secs() + 60);
/// Below this age of objects a writer's upload could be collected before it is named.
const OBJECT_AGE_MIN: Duration = Duration::from_secs(3600);
/// Time in which the bytes of a deleted image have to be gone.
pub(super) const ERASE_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// How an archive is compacted.
#[derive(Clone)]
pub struct CompactSettings {
    /// Age, from the moment it was superseded, at which a manifest is deleted and with it what only it named. At least the time for which
    /// a reader may stay on an old version.
    pub manifest_age_min: Duration,
    /// Age, from the moment it was written, at which an object is deleted that no known version ever named. At least the time from the
    /// first upload of a writer to its commit.
    pub object_age_min: Duration,
    /// Builds graphs for merged rows.
    pub graphs: Option<GraphBuilder>,
    /// Nobody else writes or reads: ages may be lower than what keeps others safe.
    pub offline: bool,
}

impl Default for CompactSettings {
    fn default() -> Self {
        Self {
            manifest_age_min: Duration::from_secs(3600),
            object_age_min: Duration::from_secs(24 * 3600),
            graphs: None,
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
    let base = base(archive).await?;
    commit(archive, &base, &mut Merge::new(scale, settings.graphs)).await?;
    collect(archive, settings.manifest_age_min, settings.object_age_min).await
}

/// Deletes old manifests first, then what none of the rest names: every manifest that is there names only objects that are there.
async fn collect(archive: &Archive, manifest_age_min: Duration, object_age_min: Duration) -> Result<Collected> {
    let store = archive.store();
    let now = archive.now();
    let superseded_before = before(now, manifest_age_min)?;
    let written_before = before(now, object_age_min)?;
    // Listed before the manifest is read: an object that is named meanwhile is not in the list.
    let mut objects = Vec::new();
    for folder in FOLDERS {
        let listed = store.list(folder).await?;
        objects.extend(listed.into_iter().filter(|object| is_object_name(&object.name, folder)));
    }
    let manifests: BTreeMap<u64, _> = store
        .list(MANIFESTS)
        .await?
        .into_iter()
        .filter_map(|m| Some((Manifest::version_of(&m.name)?, m)))
        .collect();
    let newest = archive.latest().await?;

    let mut collected = Collected {
        version: newest.version,
        manifests_deleted: 0,
        objects_deleted: 0,
        bytes_deleted: 0,
    };
    let mut kept = Vec::new();
    let successors = manifests.values().skip(1).map(|next| next.modified);
    for ((&version, manifest), superseded_at) in manifests.iter().zip(successors) {
        if version >= newest.version || superseded_at > superseded_before {
            kept.push(version);
            continue;
        }
        store.delete(&manifest.name).await?;
        collected.manifests_deleted += 1;
        collected.bytes_deleted += manifest.bytes;
    }

    let mut named: BTreeSet<String> = newest.objects().map(|(name, _)| name.to_owned()).collect();
    let mut reads = stream::iter(kept.into_iter().map(|version| read_manifest(store, version))).buffered(READS_MAX);
    while let Some(manifest) = reads.try_next().await? {
        named.extend(
            manifest
                .iter()
                .flat_map(Manifest::objects)
                .map(|(name, _)| name.to_owned()),
        );
    }
    let superseded: BTreeMap<&str, Timestamp> = newest
        .superseded
        .iter()
        .map(|old| (old.object.as_str(), old.at))
        .collect();
    for object in objects.iter().filter(|object| !named.contains(&object.name)) {
        // What was named once needs no time for its commit, only for readers of the version that named it.
        let expired = match superseded.get(object.name.as_str()) {
            Some(&at) => at <= superseded_before,
            None => object.modified <= written_before,
        };
        if expired {
            store.delete(&object.name).await?;
            collected.objects_deleted += 1;
            collected.bytes_deleted += object.bytes;
        }
    }
    for folder in FOLDERS.iter().chain(&[MANIFESTS]) {
        collected.objects_deleted += store.sweep_interrupted(folder, written_before).await?;
    }
    Ok(collected)
}

fn before(now: Timestamp, age: Duration) -> Result<Timestamp> {
    now.checked_sub(age)
        .map_err(|error| Error::with_source(ErrorKind::InvalidRequest, "an age reaches back beyond all time", error))
}
