//! The space an embedding lives in: vectors of different spaces are never compared.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// Everything that decides what a vector means. Precision, device and engine are provenance, not space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// SHA-256 over the network's tensors (see `scripts/medsearch_py/card.py`), 64 hex digits.
    pub weights_sha256: String,
    /// The layers whose activations are pooled.
    pub layers: Vec<String>,
    /// How they are pooled, for example `avg`.
    pub pooling: String,
    /// Which views of an image are averaged or joined, `whole` alone by default.
    pub views: Vec<String>,
    /// Components of a vector.
    pub dimension: usize,
    /// Identifier of the pixel pipeline with its parameters.
    pub pixel_pipeline: String,
}

impl Space {
    /// The id: first 32 hex digits of SHA-256 over one `key=value` line a field. The Python scripts compute the same.
    pub fn id(&self) -> SpaceId {
        let text = format!(
            "weights_sha256={}\nlayers={}\npooling={}\nviews={}\ndimension={}\npixel_pipeline={}\n",
            self.weights_sha256,
            self.layers.join(","),
            self.pooling,
            self.views.join(","),
            self.dimension,
            self.pixel_pipeline
        );
        let digest = Sha256::digest(text.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        SpaceId(id)
    }
}

/// Short name of a [`Space`]: 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpaceId([u8; 16]);

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SpaceId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| Error::new(ErrorKind::InvalidRequest, "a space id is 32 hex digits"))?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for SpaceId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SpaceId> for String {
    fn from(id: SpaceId) -> Self {
        id.to_string()
    }
}
