//! What an image that arrives in the inbox is said to show: the labels file first, then the archive's rules about the tags of its file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::labels_file::{LabelsFile, UidKeys, read};
use super::receive::scope_facts;
use crate::archive::{Identity, LabelFacts, LabelRules};
use crate::domain::{ClassLabel, Label};
use crate::error::{Error, Result};
use crate::imaging::{DicomFacts, DicomTexts};
use crate::metrics::Metrics;
use crate::telemetry::run_blocking;

/// Time between two looks at the labels file. All of it is read, some milliseconds for the largest: a time of change may be the same after two changes.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Says what images show, by a labels file that is followed, if there is one, and rules.
pub struct Labelling {
    identity: Identity,
    file: Option<PathBuf>,
    labels: ArcSwap<Known>,
}

/// The labels file as it was when it was last as it should be.
#[derive(Default)]
struct Known {
    labels: LabelsFile,
    /// BLAKE3 of its bytes.
    digest: Option<blake3::Hash>,
}

impl Known {
    fn open(path: &Path, identity: &Identity) -> Result<Self> {
        let bytes = read(path)?;
        Self::of(&bytes, identity).map_err(|error| in_file(error, path))
    }

    fn of(bytes: &[u8], identity: &Identity) -> Result<Self> {
        Ok(Self {
            labels: LabelsFile::parse(bytes, identity)?,
            digest: Some(blake3::hash(bytes)),
        })
    }
}

fn in_file(error: Error, path: &Path) -> Error {
    error.context(format!("the labels file `{}`", path.display()))
}

impl Labelling {
    /// By the labels file at `file`, and by rules alone where there is none.
    ///
    /// # Errors
    /// As [`LabelsFile::open`].
    pub fn open(file: Option<PathBuf>, identity: Identity) -> Result<Arc<Self>> {
        let labels = match &file {
            Some(path) => Known::open(path, &identity)?,
            None => Known::default(),
        };
        Ok(Arc::new(Self {
            identity,
            file,
            labels: ArcSwap::from_pointee(labels),
        }))
    }

    /// The classes that the labels file names, each once.
    pub fn classes(&self) -> BTreeSet<ClassLabel> {
        self.labels.load().labels.classes().into_iter().cloned().collect()
    }

    /// Takes over what changes in the labels file, for as long as the server runs. One that is not as it should be changes nothing.
    pub async fn follow(self: Arc<Self>, metrics: Arc<Metrics>) {
        let mut said = None;
        while self.file.is_some() {
            tokio::time::sleep(LOOK_EVERY).await;
            let of = Arc::clone(&self);
            let looked = run_blocking(move || of.look()).await;
            metrics.labels_file_broken(looked.is_err());
            said = match looked {
                Ok(Some(uids)) => {
                    tracing::info!(uids, "the labels file has changed");
                    None
                }
                Ok(None) => None,
                Err(error) => Some(say(&error, said)),
            };
        }
    }

    /// Reads the file, and takes it over if it is another one: then says how many UIDs it names.
    fn look(&self) -> Result<Option<usize>> {
        let Some(path) = &self.file else { return Ok(None) };
        let bytes = read(path)?;
        if self.labels.load().digest == Some(blake3::hash(&bytes)) {
            return Ok(None);
        }
        let known = Known::of(&bytes, &self.identity).map_err(|error| in_file(error, path))?;
        let uids = known.labels.len();
        self.labels.store(Arc::new(known));
        Ok(Some(uids))
    }

    /// Whether anything is said without looking at a file's header.
    pub fn is_silent(&self, rules: &LabelRules) -> bool {
        rules.is_empty() && self.labels.load().labels.is_empty()
    }

    /// What an image shows, if somebody or something says so.
    pub fn label(&self, facts: &DicomFacts, texts: &DicomTexts, rules: &LabelRules) -> Label {
        let said = &facts.provenance;
        let uids = UidKeys {
            study: said.study_uid.as_deref().and_then(|uid| self.identity.study_key(uid)),
            series: said.series_uid.as_deref().and_then(|uid| self.identity.series_key(uid)),
            sop: said.sop_uid.as_deref().and_then(|uid| self.identity.sop_key(uid)),
        };
        if let Some(label) = self.labels.load().labels.label(uids) {
            return label.clone();
        }
        let facts = LabelFacts {
            codes: scope_facts(facts),
            study_description: texts.study_description.as_deref(),
            series_description: texts.series_description.as_deref(),
            protocol_name: texts.protocol_name.as_deref(),
            image_comments: texts.image_comments.as_deref(),
        };
        rules.label(facts).unwrap_or_default()
    }
}

/// Says what is wrong with the file, unless that was said last.
fn say(error: &Error, said: Option<String>) -> String {
    let message = error.to_string();
    if said.as_ref() != Some(&message) {
        tracing::warn!(
            error = message,
            "the labels file can't be taken over: what it said before stays"
        );
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{IdentityMode, Secret};
    use crate::domain::{ClassLabel, LabelledBy};
    use crate::error::ErrorKind;
    use crate::imaging::{Limits, testing::Dicom};

    fn identity() -> Identity {
        Identity::new(Secret::from_bytes([7; 32]), IdentityMode::Anonymous)
    }

    fn facts(study: &str) -> (DicomFacts, DicomTexts) {
        let file = Dicom::gray8(1, 1, &[1])
            .text((0x08, 0x60), b"CS", "CR")
            .text((0x08, 0x103e), b"LO", "a b")
            .text((0x20, 0x0d), b"UI", study);
        DicomFacts::read_texts(&file.file(), &Limits::default(), true).unwrap()
    }

    fn class(label: &Label) -> Option<&str> {
        label.class.as_ref().map(ClassLabel::as_str)
    }

    #[test]
    fn the_file_wins_over_the_rules_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.csv");
        let rules = LabelRules::parse("[[rule]]\nclass = \"ByTag\"\nseries_description = [\"a *\"]\n").unwrap();
        let missing = Labelling::open(Some(path.clone()), identity());
        assert_eq!(missing.err().map(|error| error.kind()), Some(ErrorKind::NotFound));
        std::fs::write(&path, "study_uid,class\n1.2,ByFile\n").unwrap();
        let labelling = Labelling::open(Some(path.clone()), identity()).unwrap();
        let label = |study: &str, rules: &LabelRules| {
            let (facts, texts) = facts(study);
            labelling.label(&facts, &texts, rules)
        };
        let by_file = label("1.2", &rules);
        assert_eq!(
            (class(&by_file), by_file.labelled_by.clone()),
            (Some("ByFile"), Some(LabelledBy::File))
        );
        let by_tag = label("1.3", &rules);
        assert_eq!(
            (class(&by_tag), by_tag.labelled_by.clone()),
            (Some("ByTag"), Some(LabelledBy::Tags))
        );
        assert_eq!(label("1.3", &LabelRules::default()), Label::default());
        assert_eq!(labelling.look().unwrap(), None, "it is the same");

        std::fs::write(&path, "study_uid,class\n1.3,\n").unwrap();
        let error = labelling.look().unwrap_err().to_string();
        assert!(error.contains("labels.csv") && error.contains("line 2"), "{error}");
        assert_eq!(class(&label("1.2", &rules)), Some("ByFile"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(labelling.look().unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(class(&label("1.2", &rules)), Some("ByFile"));
        std::fs::write(&path, "study_uid,class\n1.3,ByFile\n1.4,ByFile\n").unwrap();
        assert_eq!(labelling.look().unwrap(), Some(2));
        assert_eq!(
            (class(&label("1.2", &rules)), class(&label("1.3", &rules))),
            (Some("ByTag"), Some("ByFile"))
        );
        assert!(!labelling.is_silent(&LabelRules::default()));
        let silent = Labelling::open(None, identity()).unwrap();
        assert!(silent.is_silent(&LabelRules::default()) && !silent.is_silent(&rules));
    }
}
