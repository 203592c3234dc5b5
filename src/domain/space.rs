//! The space an embedding lives in: vectors of different spaces are never compared.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::WindowTable;
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
    /// The space of the same model with the windows of a table, which its pixel pipeline spells out.
    pub fn with_windows(&self, windows: &WindowTable) -> Self {
        let mut space = self.of_model();
        if !windows.is_empty() {
            space.pixel_pipeline = format!("{}{WINDOWS}{windows}", space.pixel_pipeline);
        }
        space
    }

    /// The space of its model alone, with every window by percentile.
    pub fn of_model(&self) -> Self {
        let pipeline = self.pixel_pipeline.split_once(WINDOWS);
        Self {
            pixel_pipeline: pipeline
                .map_or(self.pixel_pipeline.as_str(), |(model, _)| model)
                .to_owned(),
            ..self.clone()
        }
    }

    /// The windows of its images.
    ///
    /// # Errors
    /// `InvalidRequest` for a table that this program does not understand.
    pub fn windows(&self) -> Result<WindowTable> {
        let table = self.pixel_pipeline.split_once(WINDOWS);
        table.map_or_else(|| Ok(WindowTable::default()), |(_, line)| line.parse())
    }

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

/// What stands before the table of windows at the end of a pixel pipeline; without a table neither is there.
const WINDOWS: &str = " windows=";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_windows_makes_another_space() {
        let model = Space {
            weights_sha256: "00".into(),
            layers: vec!["a".into()],
            pooling: "avg".into(),
            views: vec!["whole".into()],
            dimension: 2,
            pixel_pipeline: "medsearch-pixels/1 squeeze".into(),
        };
        let table = |json: &[u8]| WindowTable::from_json(json).unwrap();
        let lung = table(br#"[{"modality": "CT", "body_part": "CHEST", "center": -600, "width": 1500}]"#);
        let space = model.with_windows(&lung);
        assert_eq!(
            space.pixel_pipeline,
            "medsearch-pixels/1 squeeze windows=CT/CHEST:-600,1500"
        );
        assert_eq!((space.windows().unwrap(), space.of_model()), (lung, model.clone()));
        assert_ne!(space.id(), model.id());
        let other = space.with_windows(&table(br#"[{"modality": "CR", "use": "file"}]"#));
        assert_eq!(other.pixel_pipeline, "medsearch-pixels/1 squeeze windows=CR:file");
        // No table, or one that says nothing, is what there was before there were tables.
        assert_eq!(other.with_windows(&WindowTable::default()), model);
        assert_eq!(model.windows().unwrap(), WindowTable::default());
        let later = Space {
            pixel_pipeline: "p windows=CT:gamma".into(),
            ..model
        };
        assert!(later.windows().unwrap_err().message().contains("newer medsearch"));
    }
}
