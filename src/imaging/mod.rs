//! File bytes to what the model is given: the pixel pipeline `medsearch-pixels/1`.
//!
//! In reading order: [`sniff`] tells the format by content; [`decoder`] turns bytes into a [`Raster`] of native depth,
//! PNG and JPEG here, DICOM in a worker process ([`dicom`]); [`to_eight_bit`] applies the window, which a table of rules may name (`voi`); [`preprocess`] crops,
//! fits and resizes; [`render`] makes the pictures that people see, `kept` gives back the stored values, [`Fingerprint`] tells changed copies of one, [`appearance`] looks at one at a glance. Nothing here is async, nothing touches a disk.

mod appearance;
pub mod decoder;
pub mod dicom;
pub mod eight_bit;
mod fingerprint;
pub mod jpeg;
mod jpeg_ls;
mod kept;
pub mod limits;
mod pipeline;
pub mod png;
pub mod preprocess;
pub mod raster;
pub mod render;
pub mod resize;
pub mod sniff;
#[cfg(test)]
pub(crate) mod testing;
mod voi;

pub use appearance::appearance;
pub use decoder::{Decoded, Decoder, DecoderSettings, Provenance};
pub use dicom::BurnedIn;
pub use dicom::attributes::DicomTexts;
pub use dicom::facts::DicomFacts;
pub use dicom::worker::decode_worker_main;
pub use eight_bit::{Raster8, luma, to_eight_bit, to_eight_bit_in};
pub use fingerprint::{COSINE_CANDIDATE, Fingerprint, NEAR_DUPLICATE, OUTLINE_CANDIDATE, Outline};
pub use kept::{PixelLayout, native_frame};
pub use limits::Limits;
pub use pipeline::Pipeline;
pub use preprocess::{Fit, InputSpec, ModelInput, preprocess, seen};
pub use raster::{Levels, Raster, Samples};
pub use render::{View, render, thumbnail_png, view_png};
pub use sniff::Format;
pub use voi::{Function, GreyScale, Rescale, Voi};
