//! Bytes to model input, off the async threads and never more of them at once than there are permits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;
use tracing::field::Empty;

use super::answer::ImageFacts;
use crate::domain::{Excerpt, FrameNumber, FrameOf, Window};
use crate::embed::{Announced, Pending};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{Decoder, Format, ModelInput, Pipeline, Provenance, Raster, Raster8, preprocess};
use crate::telemetry::{SPANS, run_blocking, run_here};

/// A decoded image, ready for the model.
pub struct Prepared {
    /// What the model takes.
    pub input: ModelInput,
    /// Everything else that is known by now.
    pub picture: Picture,
    /// Time to decode and window.
    pub decode: Duration,
    /// Time to resize.
    pub preprocess: Duration,
}

/// A decoded image.
pub struct Picture {
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

/// An image that waits for the model, or is in it.
pub struct InModel {
    /// The image.
    pub image: PreparedImage,
    /// What the model will say.
    pub pending: Pending,
    /// Time to decode and window.
    pub decode: Duration,
    /// Time to resize.
    pub preprocess: Duration,
}

/// A decoded image that is known by its digests.
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
    /// Its share of the memory for pictures, given back when it is dropped; none for a batch job, which has its own bound.
    _memory: Option<OwnedSemaphorePermit>,
}

impl PreparedImage {
    /// Which frame of the file it is.
    pub fn frame(&self) -> FrameNumber {
        self.facts.frame.map(FrameOf::number).unwrap_or_default()
    }

    /// What stands for that frame of that file.
    pub fn file_digest(&self) -> [u8; 32] {
        self.frame().digest(&self.sha256)
    }
}

impl Picture {
    /// Names the picture and the file that it came in.
    pub fn digest(self, bytes: &[u8]) -> PreparedImage {
        let Self {
            facts,
            provenance,
            raster,
            raster8,
            window,
        } = self;
        PreparedImage {
            sha256: Sha256::digest(bytes).into(),
            pixels: raster.digest(),
            facts,
            provenance,
            raster,
            raster8,
            window,
            _memory: None,
        }
    }
}

/// Decodes and preprocesses images on a bounded number of threads, in bounded memory.
#[derive(Clone)]
pub struct Preparer {
    decoder: Arc<Decoder>,
    pipeline: Pipeline,
    permits: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    memory_units: u32,
}

/// Unit in which memory for pictures is counted.
const MEMORY_UNIT_BYTES: u64 = 4096;
/// Memory for pictures that are decoded or wait for the model, if the largest picture does not need more.
const MEMORY_BYTES: u64 = 1 << 30;
/// Measured: 16-bit RGB with alpha, the hungriest, takes 16 bytes a pixel while it is decoded.
const BYTES_PER_PIXEL: u64 = 16;

impl Preparer {
    /// `threads` images at a time, of at most `pixels_max` pixels each.
    pub fn new(decoder: Arc<Decoder>, pipeline: Pipeline, threads: usize, pixels_max: u64) -> Self {
        let units = MEMORY_BYTES.max(pixels_max.saturating_mul(BYTES_PER_PIXEL)) / MEMORY_UNIT_BYTES;
        let memory_units = u32::try_from(units).unwrap_or(u32::MAX >> 3);
        Self {
            decoder,
            pipeline,
            permits: Arc::new(Semaphore::new(threads.max(1))),
            memory: Arc::new(Semaphore::new(memory_units as usize)),
            memory_units,
        }
    }

    /// The same for another model: threads and memory are those of both together.
    pub fn with(&self, pipeline: Pipeline) -> Self {
        Self {
            pipeline,
            ..self.clone()
        }
    }

    /// What reads pictures.
    pub fn decoder(&self) -> Arc<Decoder> {
        Arc::clone(&self.decoder)
    }

    /// Room in memory for a picture of so many pixels. Waits for it no longer than `deadline`.
    ///
    /// # Errors
    /// `Overloaded` when others need it until then.
    pub async fn room(&self, pixels: u64, deadline: Instant) -> Result<OwnedSemaphorePermit> {
        let units = pixels.saturating_mul(BYTES_PER_PIXEL) / MEMORY_UNIT_BYTES + 1;
        let units = u32::try_from(units).unwrap_or(u32::MAX).min(self.memory_units);
        let room = Arc::clone(&self.memory).acquire_many_owned(units);
        tokio::time::timeout_at(deadline.into(), room)
            .await
            .map_err(|_| Error::new(ErrorKind::Overloaded, "too many large pictures at the same time"))?
            .map_err(|_| Error::new(ErrorKind::Unavailable, "the server is stopping"))
    }

    /// The longer side of a picture, in pixels, as its file announces it.
    ///
    /// # Errors
    /// `Damaged` when it announces none.
    pub fn long_side(&self, bytes: &[u8]) -> Result<u32> {
        let size = self.decoder.announced_size(bytes);
        let (width, height) = size.ok_or_else(|| Error::new(ErrorKind::Damaged, "a kept picture is damaged"))?;
        Ok(width.max(height))
    }

    /// One image, on a blocking thread unless that takes longer than the image itself, up to the model's queue. Waits for its turn no longer than `deadline`.
    ///
    /// # Errors
    /// `Overloaded` when there is no memory for it in time, `Deadline` when no thread came free in time; whatever [`prepare`] refuses.
    ///
    /// # Cancel safety
    /// A dropped future gives its place up; a decode that has begun runs to its end and keeps its permit until then.
    pub async fn run(&self, bytes: Bytes, excerpt: Excerpt, coming: Announced, deadline: Instant) -> Result<InModel> {
        let work = move |prepared: Prepared, bytes: &Bytes, memory| {
            let Prepared {
                input,
                picture,
                decode,
                preprocess,
            } = prepared;
            let pending = coming.send(input, deadline)?;
            // The model has it and goes first where both share a processor: what only the search needs is computed beside it.
            std::thread::yield_now();
            let mut image = picture.digest(bytes);
            image._memory = Some(memory);
            Ok(InModel {
                image,
                pending,
                decode,
                preprocess,
            })
        };
        self.in_turn(bytes, excerpt, deadline, work).await
    }

    /// One image, in the same way, for a caller that goes to the model itself.
    ///
    /// # Errors
    /// As [`Preparer::run`].
    ///
    /// # Cancel safety
    /// As [`Preparer::run`].
    pub async fn prepare(&self, bytes: Bytes, excerpt: Excerpt, deadline: Instant) -> Result<Prepared> {
        self.in_turn(bytes, excerpt, deadline, |prepared, _, _| Ok(prepared))
            .await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        bytes: Bytes,
        excerpt: Excerpt,
        deadline: Instant,
        then: impl FnOnce(Prepared, &Bytes, OwnedSemaphorePermit) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let span = tracing::debug_span!(
            target: SPANS,
            "prepare",
            medsearch.decode_ms = Empty,
            medsearch.preprocess_ms = Empty
        );
        let timed = {
            let span = span.clone();
            move |prepared: Prepared, bytes: &Bytes, memory| {
                span.record("medsearch.decode_ms", prepared.decode.as_secs_f64() * 1000.0);
                span.record("medsearch.preprocess_ms", prepared.preprocess.as_secs_f64() * 1000.0);
                then(prepared, bytes, memory)
            }
        };
        self.wait_and_run(bytes, excerpt, deadline, timed)
            .instrument(span)
            .await
    }

    async fn wait_and_run<T: Send + 'static>(
        &self,
        bytes: Bytes,
        excerpt: Excerpt,
        deadline: Instant,
        then: impl FnOnce(Prepared, &Bytes, OwnedSemaphorePermit) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let memory = self.room(self.decoder.announced_pixels(&bytes), deadline).await?;
        let turn = tokio::time::timeout_at(deadline.into(), Arc::clone(&self.permits).acquire_owned()).await;
        let permit = turn
            .map_err(|_| Error::new(ErrorKind::Deadline, "no decoder came free in time"))?
            .map_err(|_| Error::new(ErrorKind::Unavailable, "the server is stopping"))?;
        let (decoder, pipeline) = (Arc::clone(&self.decoder), self.pipeline.clone());
        let at_once = decoder.is_quick(&bytes);
        let work = move || {
            let _permit = permit;
            then(prepare(&decoder, &pipeline, &bytes, excerpt)?, &bytes, memory)
        };
        // A small picture is not worth another thread, nor its bytes the way to another core.
        if at_once {
            run_here(work)
        } else {
            run_blocking(work).await
        }
    }
}

/// Bytes to model input: the one way in, for queries, uploads and folders.
///
/// # Errors
/// What [`Decoder::decode`], [`Pipeline::eight_bit`] and [`preprocess`] refuse.
pub fn prepare(decoder: &Decoder, pipeline: &Pipeline, bytes: &[u8], excerpt: Excerpt) -> Result<Prepared> {
    let started = Instant::now();
    let decoded = decoder.decode(bytes, excerpt.frame)?;
    let (raster8, window) = pipeline.eight_bit(&decoded)?;
    let decode = started.elapsed();
    let started = Instant::now();
    let model_input = preprocess(&raster8, &pipeline.input, excerpt.region)?;
    let preprocess = started.elapsed();
    let picture = Picture {
        facts: ImageFacts {
            width: decoded.raster.width(),
            height: decoded.raster.height(),
            format: decoded.format.name(),
            frame: (decoded.format == Format::Dicom).then_some(decoded.frame),
            window: Some(window),
        },
        provenance: decoded.provenance,
        raster: decoded.raster,
        raster8,
        window,
    };
    Ok(Prepared {
        input: model_input,
        picture,
        decode,
        preprocess,
    })
}
