//! Bytes to model input, off the async threads and never more of them at once than there are permits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::answer::ImageFacts;
use crate::domain::{Region, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{Decoder, InputSpec, ModelInput, Provenance, Raster, Raster8, preprocess, to_eight_bit};
use crate::telemetry::run_blocking;

/// A decoded image, ready for the model.
pub struct Prepared {
    /// What the model takes.
    pub input: ModelInput,
    /// Everything else that is known by now.
    pub image: PreparedImage,
    /// Time to decode and window.
    pub decode: Duration,
    /// Time to resize.
    pub preprocess: Duration,
}

/// A decoded image.
pub struct PreparedImage {
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
    /// Digest of the decoded pixels.
    pub pixels: [u8; 32],
    /// What is said about the image.
    pub facts: ImageFacts,
    /// What a DICOM file says about itself.
    pub provenance: Provenance,
    /// Pixels at native depth.
    pub raster: Raster,
    /// Pixels at 8 bit.
    pub raster8: Raster8,
    /// How they became 8 bit.
    pub window: Window,
}

/// Decodes and preprocesses images on a bounded number of threads.
#[derive(Clone)]
pub struct Preparer {
    decoder: Arc<Decoder>,
    input: InputSpec,
    permits: Arc<Semaphore>,
}

impl Preparer {
    /// `threads` images at a time.
    pub fn new(decoder: Arc<Decoder>, input: InputSpec, threads: usize) -> Self {
        Self {
            decoder,
            input,
            permits: Arc::new(Semaphore::new(threads.max(1))),
        }
    }

    /// One image, on a blocking thread. Waits for its turn no longer than `deadline`.
    ///
    /// # Errors
    /// `Deadline` when no thread came free in time; whatever [`prepare`] refuses.
    ///
    /// # Cancel safety
    /// A dropped future gives its place up; a decode that has begun runs to its end and keeps its permit until then.
    pub async fn run(&self, bytes: Bytes, region: Option<Region>, deadline: Instant) -> Result<Prepared> {
        let turn = tokio::time::timeout_at(deadline.into(), Arc::clone(&self.permits).acquire_owned()).await;
        let permit = turn
            .map_err(|_| Error::new(ErrorKind::Deadline, "no decoder came free in time"))?
            .map_err(|_| Error::new(ErrorKind::Unavailable, "the server is stopping"))?;
        let (decoder, input) = (Arc::clone(&self.decoder), self.input);
        run_blocking(move || {
            let _permit = permit;
            prepare(&decoder, &input, &bytes, region)
        })
        .await
    }
}

/// Bytes to model input: the one way in, for queries, uploads and folders.
///
/// # Errors
/// What [`Decoder::decode`], [`to_eight_bit`] and [`preprocess`] refuse.
pub fn prepare(decoder: &Decoder, input: &InputSpec, bytes: &[u8], region: Option<Region>) -> Result<Prepared> {
    let started = Instant::now();
    let decoded = decoder.decode(bytes)?;
    let (raster8, window) = to_eight_bit(&decoded.raster)?;
    let decode = started.elapsed();
    let started = Instant::now();
    let model_input = preprocess(&raster8, input, region)?;
    let preprocess = started.elapsed();
    let image = PreparedImage {
        sha256: Sha256::digest(bytes).into(),
        pixels: decoded.raster.digest(),
        facts: ImageFacts {
            width: decoded.raster.width(),
            height: decoded.raster.height(),
            format: decoded.format.name(),
            window: Some(window),
        },
        provenance: decoded.provenance,
        raster: decoded.raster,
        raster8,
        window,
    };
    Ok(Prepared {
        input: model_input,
        image,
        decode,
        preprocess,
    })
}
