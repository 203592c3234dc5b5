//! Names of things: classes, images, keyed pseudonyms, slots.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Stands where a class would for images without one, in names of files and labels of metrics. No class begins with `_`.
pub const UNLABELLED: &str = "_unlabelled";

/// The name of a class as people wrote it, for example `Viral Pneumonia`.
///
/// 1 to 64 bytes of UTF-8, no control characters, no `/` or `\`, no leading or trailing space, not starting with `.` or `_`:
/// safe as a file name, a URL segment (percent-encoded) and a metric label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClassLabel(Arc<str>);

impl ClassLabel {
    /// Parses a class name.
    ///
    /// # Errors
    /// `InvalidRequest` for a name outside the rules above.
    pub fn parse(name: &str) -> Result<Self> {
        let refuse = |why: &str| Err(Error::new(ErrorKind::InvalidRequest, format!("class name {why}")));
        if name.is_empty() || name.len() > 64 {
            return refuse("needs 1 to 64 bytes");
        }
        if name.trim() != name {
            return refuse("begins or ends with a space");
        }
        if name.starts_with(['.', '_']) {
            return refuse("begins with `.` or `_`");
        }
        if name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\')) {
            return refuse("has a control character or a slash");
        }
        Ok(Self(name.into()))
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClassLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClassLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl TryFrom<String> for ClassLabel {
    type Error = Error;
    fn try_from(name: String) -> Result<Self> {
        Self::parse(&name)
    }
}

impl From<ClassLabel> for String {
    fn from(label: ClassLabel) -> Self {
        label.0.as_ref().to_owned()
    }
}

impl FromStr for ClassLabel {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        Self::parse(name)
    }
}

/// How a label was established.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum LabelSource {
    /// The name of the folder the image lay in: nobody says how it was proven.
    Folder,
    /// A radiology report.
    Report,
    /// Polymerase chain reaction.
    Pcr,
    /// Histology.
    Biopsy,
    /// The later course.
    FollowUp,
    /// One or more readers of the image.
    Reader,
    /// What a later program calls it: stored and shown as it is, never taken from a request.
    Other(Arc<str>),
}

impl LabelSource {
    /// As it is stored and shown.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Folder => "folder",
            Self::Report => "report",
            Self::Pcr => "PCR",
            Self::Biopsy => "biopsy",
            Self::FollowUp => "follow-up",
            Self::Reader => "reader",
            Self::Other(text) => text,
        }
    }

    fn known(text: &str) -> Option<Self> {
        Some(match text {
            "folder" => Self::Folder,
            "report" => Self::Report,
            "PCR" | "pcr" => Self::Pcr,
            "biopsy" => Self::Biopsy,
            "follow-up" => Self::FollowUp,
            "reader" => Self::Reader,
            _ => return None,
        })
    }
}

impl fmt::Display for LabelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a person says: one of those that are known here.
impl FromStr for LabelSource {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::known(text).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidRequest,
                "`label_source` is one of folder, report, PCR, biopsy, follow-up, reader",
            )
        })
    }
}

/// What is stored: whatever a program wrote.
impl From<String> for LabelSource {
    fn from(text: String) -> Self {
        Self::known(&text).unwrap_or_else(|| Self::Other(text.into()))
    }
}

impl From<LabelSource> for String {
    fn from(source: LabelSource) -> Self {
        source.as_str().to_owned()
    }
}

/// The upper 16 bits of an image id; a shard owns a contiguous range of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u16);

/// A keyed 128-bit pseudonym (of a patient, a study, a file or pixels): equal keys mean equal things, and nothing more can be learned without the archive's secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(pub [u8; 16]);

/// The name of an image in an archive: slot ‖ keyed 128-bit digest, 36 hex digits. Image id -> shard needs no table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId([u8; 18]);

impl ImageId {
    /// Joins a slot and a keyed digest.
    pub fn new(slot: Slot, digest: Key) -> Self {
        let mut bytes = [0; 18];
        bytes[..2].copy_from_slice(&slot.0.to_be_bytes());
        bytes[2..].copy_from_slice(&digest.0);
        Self(bytes)
    }

    /// The slot that decides the shard.
    pub fn slot(self) -> Slot {
        Slot(u16::from_be_bytes([self.0[0], self.0[1]]))
    }

    /// The bytes in the order that ranks equal similarities.
    pub fn as_bytes(&self) -> &[u8; 18] {
        &self.0
    }
}

macro_rules! hex_text {
    ($name:ident, $len:literal, $field:tt, $what:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.$field))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| Error::new(ErrorKind::InvalidRequest, $what))?;
                Ok(Self(bytes))
            }
        }
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}
hex_text!(Key, 16, 0, "a key is 32 hex digits");
hex_text!(ImageId, 18, 0, "an image id is 36 hex digits");
