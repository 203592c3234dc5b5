//! Pixels to vectors: a model behind a card, one thread that owns it, batches formed from concurrent requests.

mod batcher;
mod card;
mod cells;
mod thumbnail;
#[cfg(feature = "torch")]
mod torch;
mod worker;

use std::path::Path;

use bytes::Bytes;

pub use card::{ModelCard, SCRIPT_FILE, Weights};
pub use cells::{Cells, CellsCard, CellsPart};
pub use thumbnail::ThumbnailBackend;
pub use worker::{Announced, BatchSettings, Embedded, Embedder, Pending};

use crate::archive::RowsProvenance;
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::ModelInput;

/// Something that turns prepared images into vectors. It is used by one thread at a time.
pub trait Backend: Send {
    /// What it is and what it takes.
    fn card(&self) -> &ModelCard;

    /// One raw vector (not normalised) of `card().dimension` components for each input, in order.
    ///
    /// # Errors
    /// `Internal` for inputs of another size than the card's; `Unavailable` when the model can't be run.
    fn embed(&mut self, inputs: &[ModelInput]) -> Result<Vec<Vec<f32>>>;

    /// The cells of each input, in order, with the vectors that they make as [`Backend::embed`] gives them. Only of a network whose card says that it has
    /// cells.
    ///
    /// # Errors
    /// As [`Backend::embed`]; `Damaged` when the cells are not what the card says; `Internal` for a network without cells.
    fn cells(&mut self, _inputs: &[ModelInput]) -> Result<Vec<(Vec<f32>, Cells)>> {
        cells::card_of(self.card()).and_then(|_| Err(Error::internal("this backend gives no cells")))
    }

    /// Gets ready on the thread that will call [`Backend::embed`]: a network is slow the first times, and its helper threads belong to the thread
    /// that ran it first (two sets of them on the same cores halve the speed).
    ///
    /// # Errors
    /// Those of [`Backend::embed`]; here a network of the wrong shape is found.
    fn warm_up(&mut self) -> Result<()> {
        Ok(())
    }

    /// How its vectors come about.
    fn provenance(&self) -> RowsProvenance;
}

/// A network before it is loaded: its card and the TorchScript that the card describes.
pub struct Network {
    /// What it is and what it takes.
    pub card: ModelCard,
    /// The bytes of `model.pt`.
    pub script: Bytes,
}

impl Network {
    /// Takes what the card describes and nothing else.
    ///
    /// # Errors
    /// `Damaged` when `script` is another network.
    pub fn new(card: ModelCard, script: Bytes) -> Result<Self> {
        card.check_script(&script)?;
        Ok(Self { card, script })
    }

    /// Reads `model.json` and `model.pt` of a folder.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, `UnsupportedMedia` for a folder without a usable model.
    pub fn read(dir: &Path) -> Result<Self> {
        let card = ModelCard::load(dir)?;
        let path = dir.join(SCRIPT_FILE);
        let script = std::fs::read(&path).map_err(|error| {
            let message = format!("`{}` can't be read", path.display());
            Error::with_source(ErrorKind::NotFound, message, error)
        })?;
        Self::new(card, script.into())
    }
}

/// Loads the model in `dir` (`model.json`, `model.pt`) onto `device` (`auto`, `cpu`, `cuda` or `cuda:N`); without a folder the 32×32 grey
/// thumbnail embedder, which needs no network and ignores `device`.
///
/// # Errors
/// `NotFound` or `Damaged` for a folder that holds no usable model; `InvalidRequest` for a device that is not there.
pub fn load_backend(dir: Option<&Path>, device: &str) -> Result<Box<dyn Backend>> {
    match dir {
        None => Ok(Box::new(ThumbnailBackend::default())),
        Some(dir) => load_network(Network::read(dir)?, device),
    }
}

/// Loads a network onto `device`, from memory: nothing is written anywhere.
///
/// # Errors
/// `Damaged` when it is no TorchScript; `InvalidRequest` for a device that is not there.
#[cfg(feature = "torch")]
pub fn load_network(network: Network, device: &str) -> Result<Box<dyn Backend>> {
    Ok(Box::new(torch::TorchBackend::load(network, device)?))
}

/// Refuses: this build has no libtorch.
///
/// # Errors
/// `InvalidRequest`.
#[cfg(not(feature = "torch"))]
pub fn load_network(_network: Network, _device: &str) -> Result<Box<dyn Backend>> {
    Err(Error::new(
        ErrorKind::InvalidRequest,
        "this build has no libtorch: build it with the feature `torch`, or leave the model out for the thumbnail embedder",
    ))
}

/// The size of every input, which the model's shape is made from.
fn check_sizes(card: &ModelCard, inputs: &[ModelInput]) -> Result<()> {
    let spec = card.input();
    let bytes = spec.width as usize * spec.height as usize * 3;
    for input in inputs {
        if (input.width, input.height, input.pixels.len()) != (spec.width, spec.height, bytes) {
            return Err(Error::internal(format!(
                "the model takes {}x{} pixels, the input has {}x{} in {} bytes",
                spec.width,
                spec.height,
                input.width,
                input.height,
                input.pixels.len()
            )));
        }
    }
    Ok(())
}
