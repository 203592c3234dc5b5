//! What the embedder needs of the imaging vocabulary.

/// How an image is brought to the model's aspect ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The whole image, its aspect ratio given up.
    Squeeze,
    /// A centred black square around it.
    Pad,
    /// The centred square within it.
    Crop,
}

/// What a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputSpec {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// How the image gets there.
    pub fit: Fit,
}

/// An image as a model takes it: H×W×3 bytes, RGB, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInput {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Samples.
    pub pixels: Vec<u8>,
}
