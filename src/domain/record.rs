//! What the archive knows about an image, apart from its vector.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ClassLabel, ImageId, Key, LabelSource};

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
    /// Pseudonym of (issuer, patient id); absent: unknown patient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient: Option<Key>,
    /// Pseudonym of the Study Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub study: Option<Key>,
    /// Pseudonym of the Series Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Key>,
    /// Pseudonym of the SOP Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sop: Option<Key>,
    /// Pseudonym of the file's bytes.
    pub file_key: Key,
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
    pub window: Option<Window>,
    /// The small picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thumbnail: Option<PackRef>,
    /// The picture to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixels: Option<PixelsRef>,
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
}

impl Record {
    /// The same pixels were handed in under another class: neither label votes until a PATCH settles it.
    pub fn label_conflict(&self) -> bool {
        self.aliases
            .iter()
            .any(|alias| alias.class.is_some() && alias.class != self.class)
    }

    /// Whether the label takes part in votes (a conflict with another record is found by the index).
    pub fn votes(&self) -> bool {
        self.class.is_some() && !self.label_conflict()
    }
}

/// A second file with the same pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alias {
    /// The class it was handed in under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassLabel>,
    /// Path within its data set, in an archive that shows names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Pseudonym of that path, in mode `linked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_key: Option<Key>,
    /// Pseudonym of its bytes.
    pub file_key: Key,
    /// Its interchange record, encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
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
}

/// How stored values became 8 bit: recorded, so that a person can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// A byte range of a pack object.
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
}
