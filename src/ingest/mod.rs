//! Images in: whole data sets (`dataset`, `metadata`, `bulk`, then `build`), or one at a time (`image`); `copies` finds
//! those that are there already in another form, `reembed` moves all of them to another model.

pub mod build;
pub mod bulk;
mod class_files;
pub mod copies;
pub mod dataset;
mod files;
mod image;
pub mod metadata;
mod parts;
pub(crate) mod progress;
pub mod reembed;

pub use dataset::Dataset;
pub use image::{Ingest, Labels, Receipt};
