//! What the embedder needs of the archive's vocabulary.

use serde::{Deserialize, Serialize};

/// How vectors came about: part of neither space nor identity, kept so that a person can tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsProvenance {
    /// `f32`, `bf16` or `f16`.
    pub precision: String,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Program and version that ran the network.
    pub engine: String,
}
