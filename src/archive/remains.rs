//! What is left of deleted images: every object in the place is read, and each row and each picture in it is accounted for.
//!
//! A row that no longer counts is in its rows object, with its vector, until that is rewritten or collected, and in a graph of these rows; a picture is in its
//! pack. Nothing else holds either: manifests name rows by number, evaluations have no ids, and reports are encrypted and go with their image. So an archive
//! in which every row of every object is alive, every pack holds what living rows show, and nothing lies beside the newest version, has nothing left of
//! anybody who was deleted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use super::gc::FOLDERS;
use super::inbox::{INBOX, whose};
use super::manifest::MANIFESTS;
use super::store::Loaded;
use super::{Archive, Manifest, pack, rows};
use crate::domain::{ImageId, Record};
use crate::error::Result;

/// What is still there of what is not there any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    /// The newest version.
    pub version: u64,
    /// Objects that were read.
    pub objects: usize,
    /// Of the images asked for, those that an object still holds, with the object.
    pub found: Vec<(ImageId, String)>,
    /// Of the images asked for, those that were not deleted.
    pub living: Vec<ImageId>,
    /// Rows, each with its vector, that no longer count.
    pub dead_rows: u64,
    /// Bytes of pictures that no living image shows.
    pub dead_picture_bytes: u64,
    /// Objects beside those of the newest version: of earlier ones, or of a write that came to nothing.
    pub unnamed: Vec<String>,
    /// Versions before the newest.
    pub versions: usize,
    /// Objects that can't be read: nobody knows what they hold.
    pub unread: Vec<String>,
    /// Files that wait in the inbox, or failed there: not looked into, since what waits of a patient goes when the patient is deleted.
    pub waiting: usize,
    /// Since when the first of the dead rows is dead; none: there is none, or nobody remembers.
    pub since: Option<Timestamp>,
}

impl Remains {
    /// Nothing is left of anybody who was deleted.
    pub fn is_clean(&self) -> bool {
        let nothing = self.dead_rows == 0 && self.dead_picture_bytes == 0;
        nothing && self.unnamed.is_empty() && self.unread.is_empty() && self.found.is_empty()
    }
}

/// Reads every object in the archive's place, those that no version names too, and says what is left of deleted images; of `ids` by name.
///
/// # Errors
/// `Unavailable`; `Damaged` when the manifest itself can't be read.
pub async fn remains(archive: &Archive, ids: &[ImageId]) -> Result<Remains> {
    let store = archive.store();
    let mut listed: BTreeMap<String, u64> = BTreeMap::new();
    for folder in FOLDERS {
        listed.extend(
            store
                .list(folder)
                .await?
                .into_iter()
                .map(|object| (object.name, object.bytes)),
        );
    }
    // Read after the list: what is named meanwhile is not in it.
    let manifest = archive.latest().await?;
    let named = manifest.names();
    let versions = store.list(MANIFESTS).await?;
    let earlier = versions.iter().filter_map(|object| Manifest::version_of(&object.name));
    let mut remains = Remains {
        version: manifest.version,
        versions: earlier.filter(|&version| version < manifest.version).count(),
        unnamed: listed.keys().filter(|name| !named.contains(*name)).cloned().collect(),
        since: manifest.tombstones.iter().filter_map(|dead| dead.since).min(),
        waiting: (store.list(INBOX).await?.iter())
            .filter(|object| whose(&object.name).is_some())
            .count(),
        ..Remains::default()
    };
    let dead: HashMap<&str, BTreeSet<u32>> = (manifest.tombstones.iter())
        .map(|dead| (dead.rows_object.as_str(), dead.rows.iter().copied().collect()))
        .collect();
    let wanted: BTreeSet<ImageId> = ids.iter().copied().collect();
    let mut living: BTreeSet<ImageId> = BTreeSet::new();
    // What living rows show of each pack, by where it begins.
    let mut shown: HashMap<String, BTreeMap<u64, u64>> = HashMap::new();
    for name in listed.keys().filter(|name| name.starts_with("rows/")) {
        let read = async {
            let bytes = store.get_object(name).await?;
            rows::decode(name, Loaded { bytes, local: None }, usize::MAX)
        };
        remains.objects += 1;
        let Ok(object) = read.await else {
            remains.unread.push(name.clone());
            continue;
        };
        for (row, record) in (0u32..).zip(&object.records) {
            let is_dead = !named.contains(name) || dead.get(name.as_str()).is_some_and(|dead| dead.contains(&row));
            if is_dead {
                remains.dead_rows += 1;
                if wanted.contains(&record.id) {
                    remains.found.push((record.id, name.clone()));
                }
            } else {
                if wanted.contains(&record.id) {
                    living.insert(record.id);
                }
                show(&mut shown, record);
            }
        }
    }
    for entry in &manifest.packs {
        remains.objects += 1;
        let bytes: u64 = shown.get(&entry.object).map_or(0, |slices| slices.values().sum());
        remains.dead_picture_bytes += entry.bytes.saturating_sub(bytes + pack::HEADER_BYTES);
    }
    // Whoever was taken out and put in again lives; the old row is still the old row.
    remains.living = living.into_iter().collect();
    remains.found.sort();
    Ok(remains)
}

fn show(shown: &mut HashMap<String, BTreeMap<u64, u64>>, record: &Record) {
    let pixels = record.pixels.iter().map(|pixels| &pixels.pack);
    for slice in record.thumbnail.iter().chain(pixels) {
        let slices = shown.entry(slice.object.clone()).or_default();
        slices.insert(slice.offset, slice.length);
    }
}
