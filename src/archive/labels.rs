//! Labels for images that are there already: as a labels file has them, in as few versions as memory allows.

use std::sync::Arc;

use super::commit::{Propose, Proposed, base, commit};
use super::draft::Draft;
use super::{Archive, State};
use crate::domain::{ImageId, Label, Record};
use crate::error::Result;

/// Images of one version: their vectors are in memory while it is written.
const IMAGES_MAX: usize = 5_000;

/// What a labels file says of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileLabels {
    /// Of its own file.
    pub own: Option<Label>,
    /// Of each of its further files, in the order of the record.
    pub further: Vec<Option<Label>>,
}

impl FileLabels {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.own.is_none() && self.further.iter().all(Option::is_none)
    }

    /// Changes a record to what is said. One that says so already stays as it is.
    pub(super) fn apply(&self, record: &mut Record, now: &str) {
        // An image without a label takes that of whichever of its files has one, as when that file is handed in.
        let of_further = || self.further.iter().flatten().next().filter(|_| record.class.is_none());
        if let Some(label) = self.own.as_ref().or_else(of_further).cloned()
            && (&record.class, &record.label_source) != (&label.class, &label.label_source)
        {
            let settled: Vec<bool> = record.aliases.iter().map(|alias| alias.settled).collect();
            record.relabel(label, now);
            // Nobody has looked at what the other files say.
            for (alias, settled) in record.aliases.iter_mut().zip(settled) {
                alias.settled = settled;
            }
        }
        for (alias, label) in record.aliases.iter_mut().zip(&self.further) {
            if let Some(label) = label
                && (&alias.class, &alias.label_source) != (&label.class, &label.label_source)
            {
                alias.class.clone_from(&label.class);
                alias.label_source.clone_from(&label.label_source);
                alias.labelled_by.clone_from(&label.labelled_by);
                alias.settled = false;
            }
        }
    }
}

/// What became of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Labelled {
    /// Its label is another one.
    Changed,
    /// It had that label.
    Same,
    /// Somebody has looked at it: it keeps what it was given then.
    Kept,
    /// It was deleted meanwhile.
    Gone,
}

/// What labelling many images did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LabelledImages {
    /// The version that says so.
    pub version: u64,
    /// Images with another label than before.
    pub changed: usize,
    /// Images that had that label.
    pub same: usize,
    /// Images that keep the label that somebody gave them by the API.
    pub kept: usize,
}

impl Archive {
    /// Gives images the labels that a labels file has for them. With `dry_run` it only says what that would do. `Ok` means that it is durable.
    ///
    /// # Errors
    /// `Conflict` for one class too many; `StorageFull`, `Unavailable`, `Damaged`: then the first of several versions may be there, and the same once more goes on.
    pub async fn label(&self, wanted: &[(ImageId, FileLabels)], dry_run: bool) -> Result<LabelledImages> {
        let mut state = base(self).await?;
        let mut done = LabelledImages::default();
        for images in wanted.chunks(IMAGES_MAX) {
            let mut work = Labelling {
                images,
                dry_run,
                done: LabelledImages::default(),
            };
            state = commit(self, &state, &mut work).await?;
            done.changed += work.done.changed;
            done.same += work.done.same;
            done.kept += work.done.kept;
        }
        done.version = state.manifest.version;
        Ok(done)
    }
}

struct Labelling<'a> {
    images: &'a [(ImageId, FileLabels)],
    dry_run: bool,
    done: LabelledImages,
}

impl Propose for Labelling<'_> {
    async fn propose(&mut self, archive: &Archive, base: &Arc<State>, commit: &str) -> Result<Option<Proposed>> {
        let mut draft = Draft::new(base, archive.now().to_string());
        self.done = LabelledImages::default();
        for (id, labels) in self.images {
            match draft.label_by_file(*id, labels)? {
                Labelled::Changed => self.done.changed += 1,
                Labelled::Same => self.done.same += 1,
                Labelled::Kept => self.done.kept += 1,
                Labelled::Gone => {}
            }
        }
        if self.dry_run || draft.is_empty() {
            return Ok(None);
        }
        let mut manifest = base.manifest.as_ref().clone();
        let rows = draft.write(&mut manifest, archive, commit).await?;
        Ok(Some(Proposed { manifest, rows }))
    }
}
