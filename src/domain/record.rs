//! What the archive knows about an image, apart from its vector.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ClassLabel, FrameNumber, ImageId, Key, Label, LabelSource, LabelledBy};

/// Earlier labels that a record keeps: the first one and the latest.
const HISTORY_MAX: usize = 100;

/// Fields that a later program of the same format wrote: carried along wherever the value goes.
pub type Unknown = Map<String, Value>;

/// One image of the archive, in served form: pseudonyms only. One JSON line in a rows object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Name of the image in this archive.
    pub id: ImageId,
    /// Its class; without one it is found but never votes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassLabel>,
    /// How the class was proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_source: Option<LabelSource>,
    /// What gave it its class, or took it; absent: it came with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labelled_by: Option<LabelledBy>,
    /// Pseudonym of (issuer, patient id); absent: unknown patient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient: Option<Key>,
    /// Pseudonym of the patient id alone, whoever issued it; absent when nobody is named as its issuer: then `patient` is just that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient_id_key: Option<Key>,
    /// Pseudonym of the Study Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub study: Option<Key>,
    /// Pseudonym of the Series Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Key>,
    /// Pseudonym of the SOP Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sop: Option<Key>,
    /// Pseudonym of the file's bytes, of any frame but the first of those and its number.
    pub file_key: Key,
    /// Which frame of the file it is; absent: the first.
    #[serde(default, skip_serializing_if = "FrameNumber::is_first")]
    pub frame: FrameNumber,
    /// Pseudonym of the decoded pixels; absent when indexed from vectors alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_key: Option<Key>,
    /// Path within the data set it came from, in an archive that shows names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Pseudonym of that path, in mode `linked`: two files of equal bytes are told apart by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_key: Option<Key>,
    /// Where the data set says the image comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Projection, for example `PA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// Age in years, as the data set gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<String>,
    /// Sex as the data set gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sex: Option<String>,
    /// Of what else is known, the tags that the archive shows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// How stored values became 8 bit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<StoredWindow>,
    /// The small picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thumbnail: Option<PackRef>,
    /// The picture to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixels: Option<PixelsRef>,
    /// The image of the archive that it is a copy of: the same picture but for encoding, size, borders, exposure or a small crop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near_identical_to: Option<ImageId>,
    /// Further files with the same pixels and the same patient.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Alias>,
    /// Earlier labels, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<LabelChange>,
    /// RFC 3339 time of acceptance.
    pub ingested_at: String,
    /// The interchange record as it came, encrypted (identity mode `linked`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// What a later program added.
    #[serde(flatten)]
    pub other: Unknown,
}

impl Record {
    /// A record of which nothing is known but its name, its file and when it came.
    pub fn bare(id: ImageId, file_key: Key, ingested_at: impl Into<String>) -> Self {
        Self {
            id,
            class: None,
            label_source: None,
            labelled_by: None,
            patient: None,
            patient_id_key: None,
            study: None,
            series: None,
            sop: None,
            file_key,
            frame: FrameNumber::FIRST,
            pixel_key: None,
            file: None,
            name_key: None,
            source: None,
            view: None,
            age: None,
            sex: None,
            tags: BTreeMap::new(),
            window: None,
            thumbnail: None,
            pixels: None,
            near_identical_to: None,
            aliases: vec![],
            history: vec![],
            ingested_at: ingested_at.into(),
            sealed: None,
            other: Unknown::new(),
        }
    }

    /// Gives it another label, or none. Whatever other files said before is settled by that.
    pub fn relabel(&mut self, label: Label, at: &str) {
        if self.history.len() >= HISTORY_MAX {
            self.history.remove(1);
        }
        self.history.push(LabelChange {
            at: at.to_owned(),
            class: std::mem::replace(&mut self.class, label.class),
            label_source: std::mem::replace(&mut self.label_source, label.label_source),
            labelled_by: std::mem::replace(&mut self.labelled_by, label.labelled_by),
            other: Unknown::new(),
        });
        self.aliases.iter_mut().for_each(|alias| alias.settled = true);
    }

    /// Its label.
    pub fn label(&self) -> Label {
        Label {
            class: self.class.clone(),
            label_source: self.label_source.clone(),
            labelled_by: self.labelled_by.clone(),
        }
    }

    /// The frames of a SOP instance that it holds, by itself and by its further files.
    pub fn frames_of(&self, sop: Key) -> impl Iterator<Item = FrameNumber> {
        let own = std::iter::once((self.sop, self.frame));
        let further = self.aliases.iter().map(|alias| (alias.sop, alias.frame));
        let of = own.chain(further).filter(move |(of, _)| *of == Some(sop));
        of.map(|(_, frame)| frame)
    }

    /// The classes that its further files give it, without those that a relabel has settled.
    pub fn alias_classes(&self) -> impl Iterator<Item = &ClassLabel> {
        let disputing = self.aliases.iter().filter(|alias| !alias.settled);
        disputing.filter_map(|alias| alias.class.as_ref())
    }

    /// The same pixels were handed in under another class: neither label votes until a PATCH settles it.
    pub fn label_conflict(&self) -> bool {
        self.alias_classes().any(|class| Some(class) != self.class.as_ref())
    }

    /// How stored values became 8 bit, if that is a way that is known here.
    pub fn window(&self) -> Option<Window> {
        match self.window {
            Some(StoredWindow::Known(window)) => Some(window),
            _ => None,
        }
    }

    /// Pseudonyms of its own file, pixels and further files: what leaves out these is without this image.
    pub fn own_keys(&self) -> impl Iterator<Item = Key> {
        let files = self.aliases.iter().map(|alias| alias.file_key);
        [self.file_key].into_iter().chain(self.pixel_key).chain(files)
    }

    /// Whether the label takes part in votes (a conflict with another record is found by the index).
    pub fn votes(&self) -> bool {
        self.class.is_some() && !self.label_conflict()
    }
}

/// A second file with the same pixels: what was handed in with it, as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alias {
    /// The class it was handed in under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassLabel>,
    /// How that had been proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_source: Option<LabelSource>,
    /// What gave it that class; absent: it came with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labelled_by: Option<LabelledBy>,
    /// A later relabelling of the image went over this class: it disputes nothing any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settled: bool,
    /// Pseudonym of its Study Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub study: Option<Key>,
    /// Pseudonym of its Series Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Key>,
    /// Pseudonym of its SOP Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sop: Option<Key>,
    /// Path within its data set, in an archive that shows names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Pseudonym of that path, in mode `linked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_key: Option<Key>,
    /// Pseudonym of its bytes, of any frame but the first of those and its number.
    pub file_key: Key,
    /// Which frame of the file it is; absent: the first.
    #[serde(default, skip_serializing_if = "FrameNumber::is_first")]
    pub frame: FrameNumber,
    /// RFC 3339 time of acceptance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingested_at: Option<String>,
    /// Its interchange record, encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// What a later program added.
    #[serde(flatten)]
    pub other: Unknown,
}

impl Alias {
    /// A file of which nothing is known but its bytes.
    pub fn bare(file_key: Key) -> Self {
        Self {
            class: None,
            label_source: None,
            labelled_by: None,
            settled: false,
            study: None,
            series: None,
            sop: None,
            file: None,
            name_key: None,
            file_key,
            frame: FrameNumber::FIRST,
            ingested_at: None,
            sealed: None,
            other: Unknown::new(),
        }
    }
}

/// A label that was replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelChange {
    /// RFC 3339 time of the change.
    pub at: String,
    /// The class before.
    pub class: Option<ClassLabel>,
    /// How it had been proven.
    pub label_source: Option<LabelSource>,
    /// What had given it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labelled_by: Option<LabelledBy>,
    /// What a later program added.
    #[serde(flatten)]
    pub other: Unknown,
}

/// A patient in pseudonyms: the id with its issuer, and the id alone. The same when nobody is named as the issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatientKeys {
    /// Pseudonym of issuer and id.
    pub patient: Key,
    /// Pseudonym of the id alone.
    pub id: Key,
}

impl PatientKeys {
    /// The patient of a record.
    pub fn of(record: &Record) -> Option<Self> {
        let patient = record.patient?;
        Some(Self {
            patient,
            id: record.patient_id_key.unwrap_or(patient),
        })
    }

    /// Whether it is known who issued the id.
    pub fn has_issuer(self) -> bool {
        self.patient != self.id
    }

    /// Whether both may be the same person: equal ids of one issuer, or of an unknown one on either side.
    pub fn may_be(self, other: Self) -> bool {
        self.id == other.id && (self.patient == other.patient || !self.has_issuer() || !other.has_issuer())
    }
}

/// What is meant of a SOP instance, in pseudonyms: one of its files, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKeys {
    /// Pseudonym of its SOP Instance UID.
    pub sop: Key,
    /// Pseudonym of the file's bytes; none: every file of it.
    pub file: Option<Key>,
}

impl InstanceKeys {
    /// Whether a file with these pseudonyms is meant.
    pub fn covers(self, sop: Option<Key>, file: Key) -> bool {
        sop == Some(self.sop) && self.file.is_none_or(|own| own == file)
    }
}

/// A [`Window`] as it is stored. One of a later program is kept as it is, and shown as unknown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StoredWindow {
    /// One that is known here.
    Known(Window),
    /// Any other.
    Other(Value),
}

impl From<Window> for StoredWindow {
    fn from(window: Window) -> Self {
        Self::Known(window)
    }
}

/// How stored values became 8 bit: recorded, so that a person can tell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Window {
    /// 8-bit values taken as they are.
    Identity,
    /// Linear between the 0.5 % and the 99.5 % percentile of the stored values.
    Percentile {
        /// Stored value shown black.
        low: i32,
        /// Stored value shown white.
        high: i32,
    },
    /// Linear in a window that the archive has for its modality.
    Fixed {
        /// Stored value up to which all is black.
        low: f64,
        /// Stored value from which on all is white; black and white change places with a negative rescale slope.
        high: f64,
    },
    /// In the window that the file itself gives.
    File {
        /// Stored value up to which all is black.
        low: f64,
        /// Stored value from which on all is white; black and white change places with a negative rescale slope.
        high: f64,
        /// By the sigmoid whose middle lies between the two and whose slope there is that of a line through them (PS3.3, C.11.2.1.3.1).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        sigmoid: bool,
    },
}

/// A byte range of a pack object. It is made anew when the picture moves: what a later program knows of a picture it has to write beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PackRef {
    /// The object, for example `thumbnails/<blake3>`.
    pub object: String,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// First 16 bytes of the BLAKE3 digest of this range, 32 hex digits: a part read from a pack is verified without the rest.
    pub blake3: String,
}

/// A picture in a pack with what is needed to show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PixelsRef {
    /// Where the bytes are (a PNG of 8 or 16 bit).
    #[serde(flatten)]
    pub pack: PackRef,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Smaller values are brighter (DICOM MONOCHROME1).
    #[serde(default)]
    pub inverted: bool,
    /// Stored values in the PNG are shifted by this many grey levels (signed data).
    #[serde(default)]
    pub offset_levels: i32,
    /// What a later program added.
    #[serde(flatten)]
    pub other: Unknown,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Slot;
    use super::*;

    fn bare() -> Record {
        Record::bare(
            ImageId::new(Slot(1), Key([1; 16])),
            Key([2; 16]),
            "2026-01-01T00:00:00Z",
        )
    }

    #[test]
    fn what_a_later_program_wrote_comes_back() {
        let mut record = serde_json::to_value(bare()).unwrap();
        record["label_source"] = "autopsy".into();
        record["window"] = json!({"kind": "sigmoid", "centre": 7});
        record["laterality"] = "L".into();
        record["pixels"] = json!({"object": "pixels/x", "offset": 32, "length": 4, "blake3": "00", "width": 2, "height": 1,
            "inverted": false, "offset_levels": 0, "frames": 3});
        record["aliases"] = json!([{"file_key": "03".repeat(16), "label_source": "guess", "tool": [1]}]);
        record["history"] = json!([{"at": "t", "class": null, "label_source": "autopsy", "by": "n"}]);
        let read: Record = serde_json::from_value(record.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), record);
        assert_eq!(read.label_source.as_ref().unwrap().as_str(), "autopsy");
        assert_eq!((read.window(), &read.other["laterality"]), (None, &json!("L")));
        let pixels = read.pixels.as_ref().unwrap();
        assert_eq!((pixels.pack.length, pixels.other.len()), (4, 1));
        assert!("autopsy".parse::<LabelSource>().is_err(), "nobody says it in a request");

        for (written, window) in [
            (
                json!({"kind": "percentile", "low": -3, "high": 9}),
                Window::Percentile { low: -3, high: 9 },
            ),
            (
                json!({"kind": "fixed", "low": -0.1, "high": 9.0}),
                Window::Fixed { low: -0.1, high: 9.0 },
            ),
            (
                json!({"kind": "file", "low": 1.0, "high": 2.5}),
                Window::File {
                    low: 1.0,
                    high: 2.5,
                    sigmoid: false,
                },
            ),
        ] {
            record["window"] = written;
            let read: Record = serde_json::from_value(record.clone()).unwrap();
            assert_eq!(read.window(), Some(window));
            assert_eq!(serde_json::to_value(&read).unwrap(), record);
        }
    }

    #[test]
    fn the_history_keeps_the_first_label_and_the_latest() {
        let mut record = bare();
        for number in 0..250 {
            let class = ClassLabel::parse(&format!("c{number}")).unwrap();
            let label = Label {
                class: Some(class),
                ..Label::default()
            };
            record.relabel(label, "t");
        }
        let classes: Vec<_> = record
            .history
            .iter()
            .map(|change| change.class.as_ref().map(ClassLabel::as_str))
            .collect();
        assert_eq!(classes.len(), HISTORY_MAX);
        assert_eq!(
            (classes[0], classes[1], classes[99]),
            (None, Some("c150"), Some("c248"))
        );
    }

    #[test]
    fn a_patient_without_an_issuer_may_be_anybody_of_that_id() {
        let key = |byte| Key([byte; 16]);
        let keys = |patient, id| PatientKeys {
            patient: key(patient),
            id: key(id),
        };
        let (unknown, of_a, of_b, other) = (keys(1, 1), keys(2, 1), keys(3, 1), keys(2, 4));
        assert!(unknown.may_be(of_a) && of_a.may_be(unknown) && of_a.may_be(of_a));
        assert!(!of_a.may_be(of_b) && !of_a.may_be(other) && !unknown.may_be(keys(5, 5)));
    }
}
