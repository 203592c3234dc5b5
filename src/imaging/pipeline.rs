//! What is done to every picture of an archive before its model.

use super::decoder::Decoded;
use super::eight_bit::{Raster8, to_eight_bit_in};
use super::preprocess::InputSpec;
use super::sniff::Format;
use super::voi::ruled_window;
use crate::domain::{Window, WindowTable};
use crate::error::Result;

/// The parameters of the pixel pipeline: what the model takes, and the windows of DICOM images.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// What the model takes.
    pub input: InputSpec,
    /// Which window a DICOM image gets.
    pub windows: WindowTable,
}

/// Every window by percentile.
impl From<InputSpec> for Pipeline {
    fn from(input: InputSpec) -> Self {
        Self {
            input,
            windows: WindowTable::default(),
        }
    }
}

impl Pipeline {
    /// The 8-bit picture and the window that made it. A table of windows is for grey pictures of DICOM files; others have no modality.
    ///
    /// # Errors
    /// As [`to_eight_bit_in`].
    pub fn eight_bit(&self, decoded: &Decoded) -> Result<(Raster8, Window)> {
        let said = &decoded.provenance;
        let is_ruled = decoded.format == Format::Dicom && decoded.raster.samples().channels() == 1;
        let window = is_ruled
            .then(|| {
                let (modality, body_part) = (said.modality.as_deref(), said.body_part.as_deref());
                ruled_window(&self.windows, modality, body_part, decoded.grey_scale)
            })
            .flatten();
        to_eight_bit_in(&decoded.raster, window)
    }
}
