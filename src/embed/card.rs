//! The model card `model.json`: what a network is, what it takes, and the space its vectors live in.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::CellsCard;
use crate::domain::{Space, SpaceId};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{Fit, InputSpec};

/// The network beside the card.
pub const SCRIPT_FILE: &str = "model.pt";
/// The card's file name.
const CARD_FILE: &str = "model.json";
/// The card format that is read here.
const FORMAT: u32 = 1;
/// The pixel pipeline that is built here; a card's pipeline begins with it.
const PIXEL_PIPELINE: &str = "medsearch-pixels/1";
/// Longest side of a model's input, in pixels.
const INPUT_SIDE_MAX: u32 = 4096;
/// Most components of a vector.
const DIMENSION_MAX: usize = 65_536;
/// Longest card, in bytes.
const CARD_BYTES_MAX: u64 = 1 << 20;
/// Side of the thumbnail embedder's input.
const THUMBNAIL_SIDE: u32 = 32;

/// A checked model card. Normalisation, layout and precision are inside the TorchScript; the fields here only tell about them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// Format of the card, 1.
    pub format: u32,
    /// Short name, for example `efficientnet_lite0`.
    pub name: String,
    /// Name for people.
    pub architecture: String,
    /// Where the weights come from.
    pub weights: Weights,
    /// The layers whose activations are pooled.
    pub layers: Vec<String>,
    /// How they are pooled.
    pub pooling: String,
    /// How the vector is made of cells, where the network gives them; absent in cards of networks that don't, and in older ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cells: Option<CellsCard>,
    /// Which views of an image are embedded: `whole` alone.
    pub views: Vec<String>,
    /// Components of a vector.
    pub dimension: usize,
    #[serde(with = "InputDef")]
    input: InputSpec,
    /// Mean per channel on 0..1 values.
    pub mean: Vec<f64>,
    /// Standard deviation per channel on 0..1 values.
    pub std: Vec<f64>,
    /// Identifier of the pixel pipeline with its parameters.
    pub pixel_pipeline: String,
    /// Arithmetic inside the network: `f32`, `bf16`.
    pub precision: String,
    /// SHA-256 of `model.pt`, 64 hex digits; empty for the thumbnail embedder.
    pub torchscript_sha256: String,
    /// Program that exported the network.
    pub exported_with: String,
    /// The id of [`ModelCard::space`].
    #[serde(rename = "space")]
    pub space_id: SpaceId,
    /// The seed of random weights, which are good for tests only.
    pub seeded: Option<u64>,
}

/// Where a network's weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// Package, file or address.
    pub origin: String,
    /// Under which licence.
    pub licence: String,
    /// SHA-256 over the tensors, 64 hex digits.
    pub sha256: String,
}

impl ModelCard {
    /// Reads and checks `dir/model.json`. The digest of `model.pt` is checked when that file is loaded.
    ///
    /// # Errors
    /// `NotFound` without a card; `Damaged` when it contradicts itself; `UnsupportedMedia` when it asks for what this program doesn't do.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(CARD_FILE);
        let shown = path.display();
        let size = std::fs::metadata(&path).map(|file| file.len()).map_err(|error| {
            Error::with_source(
                ErrorKind::NotFound,
                format!("no model card at `{shown}`: export a model first"),
                error,
            )
        })?;
        if size > CARD_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::Damaged,
                format!("`{shown}` has {size} bytes, which no card has"),
            ));
        }
        let bytes = std::fs::read(&path)
            .map_err(|error| Error::with_source(ErrorKind::NotFound, format!("`{shown}` can't be read"), error))?;
        Self::from_json(&bytes).map_err(|error| error.context(shown))
    }

    /// Parses and checks a card.
    ///
    /// # Errors
    /// `Damaged` when it is no card or contradicts itself; `UnsupportedMedia` when it asks for what this program doesn't do.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        // The format first, alone: a later one may lack any other field.
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let broken = |error| Error::with_source(ErrorKind::Damaged, "the model card is not a card", error);
        let Versioned { format } = serde_json::from_slice(bytes).map_err(broken)?;
        if format != FORMAT {
            let message = format!("the model card has format `{format}`, this program reads {FORMAT}");
            return Err(Error::new(ErrorKind::UnsupportedMedia, message));
        }
        let card: Self = serde_json::from_slice(bytes).map_err(|error| {
            Error::with_source(
                ErrorKind::Damaged,
                format!("the model card is incomplete: {error}"),
                error,
            )
        })?;
        card.check()?;
        Ok(card)
    }

    /// The card of the 32×32 grey thumbnail embedder, which is built in.
    pub fn thumbnail() -> Self {
        let space = Space {
            weights_sha256: "0".repeat(64),
            layers: vec!["grey32".into()],
            pooling: "none".into(),
            views: vec!["whole".into()],
            dimension: (THUMBNAIL_SIDE * THUMBNAIL_SIDE) as usize,
            pixel_pipeline: format!("{PIXEL_PIPELINE} squeeze 32x32 bilinear grey minus-mean"),
        };
        Self {
            format: FORMAT,
            name: "thumbnail".into(),
            architecture: "32x32 grey values minus their mean".into(),
            space_id: space.id(),
            weights: Weights {
                origin: "none".into(),
                licence: "MIT".into(),
                sha256: space.weights_sha256,
            },
            layers: space.layers,
            pooling: space.pooling,
            cells: None,
            views: space.views,
            dimension: space.dimension,
            input: InputSpec {
                width: THUMBNAIL_SIDE,
                height: THUMBNAIL_SIDE,
                fit: Fit::Squeeze,
            },
            mean: Vec::new(),
            std: Vec::new(),
            pixel_pipeline: space.pixel_pipeline,
            precision: "f32".into(),
            torchscript_sha256: String::new(),
            exported_with: concat!("medsearch ", env!("CARGO_PKG_VERSION")).into(),
            seeded: None,
        }
    }

    /// Everything that decides what a vector of this model means.
    pub fn space(&self) -> Space {
        Space {
            weights_sha256: self.weights.sha256.clone(),
            layers: self.layers.clone(),
            pooling: self.pooling.clone(),
            views: self.views.clone(),
            dimension: self.dimension,
            pixel_pipeline: self.pixel_pipeline.clone(),
        }
    }

    /// What the model takes.
    pub fn input(&self) -> InputSpec {
        self.input
    }

    /// Whether these are the bytes of the network that the card describes.
    ///
    /// # Errors
    /// `Damaged` when they are not.
    pub fn check_script(&self, script: &[u8]) -> Result<()> {
        let digest = hex::encode(Sha256::digest(script));
        if digest == self.torchscript_sha256 {
            return Ok(());
        }
        let message = format!(
            "`{SCRIPT_FILE}` is not the file that the card of `{}` describes",
            self.name
        );
        Err(Error::new(ErrorKind::Damaged, message))
    }

    fn check(&self) -> Result<()> {
        let damaged = |message: String| Err(Error::new(ErrorKind::Damaged, message));
        let unsupported = |message: String| Err(Error::new(ErrorKind::UnsupportedMedia, message));
        let computed = self.space().id();
        if computed != self.space_id {
            return damaged(format!(
                "the card says space `{}`, its fields give `{computed}`",
                self.space_id
            ));
        }
        if !is_sha256(&self.weights.sha256) || !is_sha256(&self.torchscript_sha256) {
            return damaged("`weights.sha256` and `torchscript_sha256` are 64 lowercase hex digits".into());
        }
        if self.name.is_empty() || self.layers.is_empty() || !(1..=DIMENSION_MAX).contains(&self.dimension) {
            return damaged(format!(
                "a card needs a name, a layer and 1 to {DIMENSION_MAX} dimensions"
            ));
        }
        if self.cells.as_ref().is_some_and(|cells| !cells.fits(self.dimension)) {
            return damaged("the parts of the cells are not those of the vector".into());
        }
        let InputSpec { width, height, .. } = self.input;
        if !(1..=INPUT_SIDE_MAX).contains(&width) || !(1..=INPUT_SIDE_MAX).contains(&height) {
            return damaged(format!(
                "an input of {width}x{height} pixels, 1 to {INPUT_SIDE_MAX} are allowed"
            ));
        }
        // The pipeline's name is part of the space; what is built here must be what it says.
        let begin = format!(
            "{PIXEL_PIPELINE} {} {width}x{height} bilinear ",
            fit_name(self.input.fit)
        );
        if !self.pixel_pipeline.starts_with(&begin) {
            let pipeline = &self.pixel_pipeline;
            return unsupported(format!(
                "pixel pipeline `{pipeline}`, this program does `{begin}…` for such an input"
            ));
        }
        if self.space().of_model() != self.space() {
            return unsupported("a card has no windows: an archive has, for whatever model".into());
        }
        if self.views != ["whole"] {
            return unsupported(format!("views `{}`, this program embeds `whole`", self.views.join(",")));
        }
        Ok(())
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn fit_name(fit: Fit) -> &'static str {
    match fit {
        Fit::Squeeze => "squeeze",
        Fit::Pad => "pad",
        Fit::Crop => "crop",
    }
}

/// The wire form of [`InputSpec`].
#[derive(Serialize, Deserialize)]
#[serde(remote = "InputSpec")]
struct InputDef {
    width: u32,
    height: u32,
    fit: Fit,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card_json() -> serde_json::Value {
        let mut card = serde_json::json!({
            "format": 1, "name": "tiny", "architecture": "Tiny", "weights": {"origin": "test", "licence": "MIT", "sha256": "ab".repeat(32)},
            "layers": ["pool"], "pooling": "avg", "cells": {"parts": [2, 4], "normalise_parts": true}, "views": ["whole"], "dimension": 6,
            "input": {"width": 8, "height": 6, "fit": "pad"}, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
            "pixel_pipeline": "medsearch-pixels/1 pad 8x6 bilinear rgb mean=0.50000000,0.50000000,0.50000000 std=0.50000000,0.50000000,0.50000000",
            "precision": "f32", "torchscript_sha256": hex::encode(Sha256::digest(b"script")), "exported_with": "torch 2.13.0", "seeded": null,
        });
        reseal(&mut card);
        card
    }

    /// Makes the card's `space` follow its fields.
    fn reseal(card: &mut serde_json::Value) {
        card["space"] = "00".repeat(16).into();
        let parsed: ModelCard = serde_json::from_value(card.clone()).unwrap();
        card["space"] = parsed.space().id().to_string().into();
    }

    fn parse(card: &serde_json::Value) -> Result<ModelCard> {
        ModelCard::from_json(&serde_json::to_vec(card).unwrap())
    }

    #[test]
    fn a_card_survives_the_way_there_and_back() {
        let json = card_json();
        let card = parse(&json).unwrap();
        assert_eq!(
            (card.input().width, card.input().height, card.input().fit),
            (8, 6, Fit::Pad)
        );
        assert_eq!(serde_json::to_value(&card).unwrap(), json);
        card.check_script(b"script").unwrap();
        assert_eq!(card.check_script(b"other").unwrap_err().kind(), ErrorKind::Damaged);
        let mut older = json.clone();
        older.as_object_mut().unwrap().remove("cells");
        assert_eq!(parse(&older).unwrap().cells, None);
        assert_eq!(serde_json::to_value(parse(&older).unwrap()).unwrap(), older);
    }

    #[test]
    fn a_card_that_contradicts_itself_is_refused() {
        let cases: [(&str, serde_json::Value, bool, &str); 11] = [
            ("/format", 2.into(), false, "format `2`"),
            ("/layers/0", "other".into(), false, "its fields give"),
            ("/weights/sha256", "ABC".into(), true, "64 lowercase hex"),
            ("/dimension", 0.into(), true, "1 to 65536 dimensions"),
            ("/name", "".into(), true, "needs a name"),
            ("/cells/parts/0", 5.into(), true, "parts of the cells"),
            ("/input/width", 9.into(), true, "9x6 bilinear"),
            ("/input/fit", "crop".into(), true, "crop 8x6 bilinear"),
            ("/views/0", "left".into(), true, "embeds `whole`"),
            (
                "/pixel_pipeline",
                "medsearch-pixels/1 pad 8x6 bilinear rgb windows=CT:file".into(),
                true,
                "no windows",
            ),
            ("/input/fit", "stretch".into(), false, "incomplete"),
        ];
        for (field, value, sealed, expected) in cases {
            let mut json = card_json();
            *json.pointer_mut(field).unwrap() = value;
            if sealed {
                reseal(&mut json);
            }
            let message = parse(&json).unwrap_err().to_string();
            assert!(message.contains(expected), "{field}: {message}");
        }
        assert!(ModelCard::from_json(b"[]").is_err());
    }

    #[test]
    fn a_missing_folder_is_said() {
        let error = ModelCard::load(Path::new("no/such/model")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("no/such/model"));
    }

    #[test]
    fn the_thumbnail_space_is_the_one_python_computes() {
        let card = ModelCard::thumbnail();
        assert_eq!(card.dimension, 1024);
        assert_eq!(card.space_id.to_string(), "8d308aac400ab9677027ff17c338f98a");
    }
}
