//! What is here of SOP instances: images, and files that wait to be one or could be none.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::archive::{InboxId, State};
use crate::domain::{ImageId, InstanceKeys, Key};

/// A file of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct HeldFile {
    /// Its pseudonym, or that of one of its frames.
    file: Key,
    /// The image that it was made into; none: it waits, or failed.
    image: Option<ImageId>,
}

/// Files by the pseudonym of their SOP instance.
#[derive(Debug, Default)]
pub struct Holdings(HashMap<Key, Vec<HeldFile>>);

impl Holdings {
    /// Of these instances: what `state` has, and which of the `waiting` files.
    pub(super) fn of(instances: &HashSet<Key>, state: &State, waiting: &[InboxId]) -> Self {
        let mut held = Self::default();
        for &sop in instances {
            for record in state.by_sop_key(sop).map(|at| state.at(at)) {
                let own = std::iter::once((record.sop, record.file_key));
                let further = record.aliases.iter().map(|alias| (alias.sop, alias.file_key));
                for (_, file) in own.chain(further).filter(|(of, _)| *of == Some(sop)) {
                    held.add(sop, file, Some(record.id));
                }
            }
        }
        for id in waiting {
            if let Some(sop) = id.sop().filter(|sop| instances.contains(sop)) {
                held.add(sop, id.file, None);
            }
        }
        held
    }

    fn add(&mut self, sop: Key, file: Key, image: Option<ImageId>) {
        self.0.entry(sop).or_default().push(HeldFile { file, image });
    }

    /// Whether any of it is here.
    pub fn has(&self, keys: InstanceKeys) -> bool {
        self.covered(&keys).next().is_some()
    }

    /// Images that have a file among these, ascending.
    pub fn images(&self, instances: &HashSet<InstanceKeys>) -> Vec<ImageId> {
        let files = instances.iter().flat_map(|keys| self.covered(keys));
        let images: BTreeSet<ImageId> = files.filter_map(|held| held.image).collect();
        images.into_iter().collect()
    }

    /// How many of these files are no image yet.
    pub fn waiting(&self, instances: &HashSet<InstanceKeys>) -> usize {
        let files = instances.iter().flat_map(|keys| self.covered(keys));
        let waiting: HashSet<Key> = files
            .filter(|held| held.image.is_none())
            .map(|held| held.file)
            .collect();
        waiting.len()
    }

    fn covered<'a>(&'a self, keys: &InstanceKeys) -> impl Iterator<Item = &'a HeldFile> + use<'a> {
        let keys = *keys;
        let held = self.0.get(&keys.sop).into_iter().flatten();
        held.filter(move |held| keys.covers(Some(keys.sop), held.file))
    }
}

#[cfg(test)]
impl Holdings {
    /// Images by instance and file.
    pub fn of_images(images: impl IntoIterator<Item = (InstanceKeys, ImageId)>) -> Self {
        let mut held = Self::default();
        for (keys, image) in images {
            held.add(keys.sop, keys.file.unwrap_or(Key([0; 16])), Some(image));
        }
        held
    }

    /// The same of files that wait.
    pub fn of_waiting(files: impl IntoIterator<Item = InstanceKeys>) -> Self {
        let mut held = Self::default();
        for keys in files {
            held.add(keys.sop, keys.file.unwrap_or(Key([0; 16])), None);
        }
        held
    }
}
