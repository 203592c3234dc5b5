//! Data sets in: which images there are, what is known about them, their vectors.

pub mod bulk;
mod class_files;
pub mod dataset;
mod files;
pub mod metadata;
mod parts;
mod progress;
