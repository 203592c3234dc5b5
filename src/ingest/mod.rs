//! Stand-in with the signatures that `http` calls.

use std::time::Instant;

use crate::domain::{ClassLabel, ImageId, LabelSource};
use crate::error::{Error, ErrorKind, Result};
use crate::search::Upload;

/// What the caller says about an image.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    pub class: Option<ClassLabel>,
    pub label_source: Option<LabelSource>,
    pub source: Option<String>,
    pub view: Option<String>,
    pub age: Option<String>,
    pub sex: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct Receipt {
    pub id: ImageId,
    pub version: u64,
    pub duplicate: bool,
    pub class: Option<ClassLabel>,
    pub label_conflict: bool,
}

#[derive(Clone)]
pub struct Ingest;

fn nothing<T>() -> Result<T> {
    Err(Error::new(
        ErrorKind::Unavailable,
        "this is a stand-in without an archive",
    ))
}

impl Ingest {
    pub async fn add(&self, _: Upload, _: Labels, _: Instant) -> Result<Receipt> {
        nothing()
    }
    pub async fn relabel(&self, _: ImageId, _: Option<ClassLabel>, _: Option<LabelSource>) -> Result<Receipt> {
        nothing()
    }
    pub async fn delete(&self, _: ImageId) -> Result<u64> {
        nothing()
    }
    pub async fn delete_patient(&self, _: &str, _: Option<&str>) -> Result<(usize, u64)> {
        nothing()
    }
}
