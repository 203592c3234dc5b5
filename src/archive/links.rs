//! Which images are copies of one picture: each copy names another one, the smallest id of them where all are known at once.
//!
//! A link names an image that is there: who deletes an image gives its copies another name in the same version (`draft`), so that with the rows that named
//! it the id goes as the image's bytes do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::commit::{Propose, Proposed, base, commit};
use super::draft::Draft;
use super::{Archive, State};
use crate::domain::{ImageId, Union};
use crate::error::Result;

/// The links of one picture's copies: each with the smallest of those that are `there`, which has none itself.
pub(super) fn star(copies: &[ImageId], there: impl Fn(ImageId) -> bool) -> Vec<(ImageId, Option<ImageId>)> {
    let there: BTreeSet<ImageId> = copies.iter().copied().filter(|&id| there(id)).collect();
    let first = there.first().copied();
    let link = |id| (id, first.filter(|&first| first != id));
    there.into_iter().map(link).collect()
}

/// `pictures`, each with the images that `links` join to its own, by any chain.
fn closed(pictures: &[Vec<ImageId>], links: impl Iterator<Item = [ImageId; 2]>) -> Vec<Vec<ImageId>> {
    let (mut union, mut numbers) = (Union::new(0), BTreeMap::new());
    let mut join = |ids: &[ImageId]| {
        let all: Vec<usize> = (ids.iter())
            .map(|&id| *numbers.entry(id).or_insert_with(|| union.add()))
            .collect();
        all.windows(2).for_each(|pair| union.join(pair[0], pair[1]));
    };
    pictures.iter().for_each(|copies| join(copies));
    links.for_each(|ends| join(&ends));
    let sets = union.sets();
    let mut members: BTreeMap<usize, Vec<ImageId>> = BTreeMap::new();
    for (&id, &number) in &numbers {
        members.entry(sets[number]).or_default().push(id);
    }
    let wanted: BTreeSet<usize> = (pictures.iter().flatten()).map(|id| sets[numbers[id]]).collect();
    wanted.iter().filter_map(|set| members.remove(set)).collect()
}

impl Archive {
    /// Remembers `pictures`, each the copies of one, as what there is to know about the images `seen`: what else linked them to each other is forgotten.
    /// Images that are not seen keep their links, and those to them are kept. Gives the version that says so, the same as before when nothing changes.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`: then nothing has changed.
    pub async fn link(&self, seen: Vec<ImageId>, pictures: Vec<Vec<ImageId>>) -> Result<u64> {
        let mut work = Link { seen, pictures };
        Ok(commit(self, &base(self).await?, &mut work).await?.manifest.version)
    }
}

struct Link {
    seen: Vec<ImageId>,
    pictures: Vec<Vec<ImageId>>,
}

impl Propose for Link {
    async fn propose(&mut self, archive: &Archive, base: &Arc<State>, commit: &str) -> Result<Option<Proposed>> {
        let mut draft = Draft::new(base, archive.now().to_string());
        let joined: BTreeSet<ImageId> = self.pictures.iter().flatten().copied().collect();
        let seen: BTreeSet<ImageId> = self.seen.iter().copied().collect();
        for &id in seen.difference(&joined) {
            if draft.link_of(id).is_some_and(|to| seen.contains(&to)) {
                draft.link(id, None);
            }
        }
        // What was not seen is a copy of what it was one of.
        let links = base.live().filter_map(|spot| {
            let record = base.at(spot);
            Some([record.id, record.near_identical_to?])
        });
        let kept = links.filter(|ends| !ends.iter().all(|end| seen.contains(end)));
        for copies in closed(&self.pictures, kept) {
            for (id, to) in star(&copies, |id| draft.has(id)) {
                draft.link(id, to);
            }
        }
        if draft.is_empty() {
            return Ok(None);
        }
        let mut manifest = base.manifest.as_ref().clone();
        let rows = draft.write(&mut manifest, archive, commit).await?;
        Ok(Some(Proposed { manifest, rows }))
    }
}
