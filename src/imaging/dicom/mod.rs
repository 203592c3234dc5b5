//! DICOM Part 10 files: one frame of stored values and what the header says about it.
//!
//! The files are hostile until proven otherwise, and parsers of DICOM have been brought down by a few kilobytes. So:
//! 1. [`precheck`] walks every element header of the bytes without recursion and refuses nesting, lengths, frames and
//!    pixels beyond their bounds; nothing else looks at the bytes before. What it has found is a [`layout`], which knows
//!    where each frame lies; [`facts`] are what its header says where nobody needs the pixels: who it belongs to, and whether it is an image at all.
//! 2. [`pool`] hands the file to a [`worker`] process that has little memory, little time and nothing to lose.
//! 3. There [`attributes`] gives dicom-rs only the flat elements that matter, and [`decode`] makes the raster with
//!    arithmetic of ours: stored values, never a rendering.

pub mod attributes;
mod burned_in;
pub mod decode;
pub mod elements;
pub mod facts;
mod frame;
mod jpeg2000;
pub mod layout;
mod lut_descriptor;
mod modality_lut;
mod palette;
pub mod pool;
pub mod precheck;
pub mod protocol;
mod rle;
pub mod syntax;
#[cfg(test)]
pub(super) mod testing;
pub mod worker;

pub use burned_in::BurnedIn;

use crate::error::{Error, ErrorKind};

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidImage, format!("broken DICOM: {what}"))
}

fn unsupported(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::UnsupportedMedia, what)
}
