//! A class with where it comes from.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ClassLabel, LabelSource};

/// What an image is said to show, how that was proven, and what said it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Label {
    /// The class; none: without one it is found but never votes.
    pub class: Option<ClassLabel>,
    /// How it was proven.
    pub label_source: Option<LabelSource>,
    /// What gave it; none: the image came with it.
    pub labelled_by: Option<LabelledBy>,
}

/// What gave an image its class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum LabelledBy {
    /// Somebody who looked at it: a change of its label by the API.
    Api,
    /// A rule of the archive about the tags of its file.
    Tags,
    /// The labels file.
    File,
    /// What a later program calls it.
    Other(Arc<str>),
}

impl LabelledBy {
    /// As it is stored and shown.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Api => "api",
            Self::Tags => "tags",
            Self::File => "file",
            Self::Other(text) => text,
        }
    }

    /// Whether nobody looked at the image: such a label disputes none of somebody who did.
    pub fn is_by_rule(&self) -> bool {
        matches!(self, Self::Tags | Self::File)
    }
}

impl fmt::Display for LabelledBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<String> for LabelledBy {
    fn from(text: String) -> Self {
        match text.as_str() {
            "api" => Self::Api,
            "tags" => Self::Tags,
            "file" => Self::File,
            _ => Self::Other(text.into()),
        }
    }
}

impl From<LabelledBy> for String {
    fn from(by: LabelledBy) -> Self {
        by.as_str().to_owned()
    }
}
