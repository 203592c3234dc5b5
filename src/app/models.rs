//! Which model a version is searched with, loaded when the first version of its space is.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::{Settings, decoder_settings, stored_model};
use crate::archive::{Archive, Manifest};
use crate::embed::{BatchSettings, Embedder, ModelCard, load_backend};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{Decoder, Pipeline};
use crate::metrics::Metrics;
use crate::search::{LoadModel, Model, Preparer};
use crate::telemetry::run_blocking;

/// Loads models, each the way the settings say.
pub(super) struct Models {
    archive: Archive,
    /// The folder that somebody chose.
    chosen: Option<PathBuf>,
    device: String,
    batch: BatchSettings,
    decoder: Arc<Decoder>,
    threads: usize,
    pixels_max: u64,
    metrics: Arc<Metrics>,
    /// Whose threads and memory all models share.
    preparer: OnceLock<Preparer>,
}

impl Models {
    pub fn new(archive: &Archive, settings: &Settings, metrics: &Arc<Metrics>) -> Self {
        Self {
            archive: archive.clone(),
            chosen: settings.model.clone(),
            device: settings.device.clone(),
            batch: BatchSettings {
                batch_max: settings.batch_max,
                queue_max: settings.queue_max,
                ..BatchSettings::default()
            },
            decoder: Arc::new(Decoder::new(decoder_settings(settings))),
            threads: settings.threads,
            pixels_max: settings.pixels_max,
            metrics: Arc::clone(metrics),
            preparer: OnceLock::new(),
        }
    }

    /// Refuses a chosen model that is not the archive's.
    ///
    /// # Errors
    /// `SpaceMismatch`; `NotFound`, `Damaged` when there is none in its folder.
    pub fn check(&self, manifest: &Manifest) -> Result<()> {
        let Some(dir) = &self.chosen else { return Ok(()) };
        let card = card(dir)?;
        let (wanted, made) = (manifest.space.of_model().id(), card.space().id());
        if wanted == made {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::SpaceMismatch,
            format!(
                "the archive's vectors are of space `{wanted}`, the model `{}` makes vectors of space `{made}`: give the archive's model, or move the archive to this one with `medsearch reembed`",
                card.name
            ),
        ))
    }

    /// As [`Served`](crate::search::Served) asks for them.
    pub fn loader(self) -> LoadModel {
        let models = Arc::new(self);
        Arc::new(move |manifest| {
            let models = Arc::clone(&models);
            Box::pin(async move { models.load(&manifest).await.map(Arc::new) })
        })
    }

    /// The chosen model where it is of the version's space, as it is until the archive moves to another; otherwise the one that the archive holds.
    async fn load(&self, manifest: &Manifest) -> Result<Model> {
        let is_of_it = |dir: &&Path| card(dir).is_ok_and(|card| card.space() == manifest.space.of_model());
        let backend = match self.chosen.as_deref().filter(is_of_it) {
            Some(dir) => {
                let dir = (dir.as_os_str() != "thumbnail").then(|| dir.to_owned());
                let device = self.device.clone();
                run_blocking(move || load_backend(dir.as_deref(), &device)).await?
            }
            None => stored_model(&self.archive, manifest, &self.device).await?,
        };
        let (batch, metrics) = (self.batch, Arc::clone(&self.metrics));
        let embedder = run_blocking(move || Embedder::spawn(backend, batch, metrics)).await?;
        let pipeline = Pipeline {
            input: embedder.card().input(),
            windows: manifest.space.windows()?,
        };
        let new = || {
            Preparer::new(
                Arc::clone(&self.decoder),
                pipeline.clone(),
                self.threads,
                self.pixels_max,
            )
        };
        Ok(Model {
            preparer: self.preparer.get_or_init(new).with(pipeline.clone()),
            embedder,
        })
    }
}

fn card(dir: &Path) -> Result<ModelCard> {
    match dir.as_os_str() == "thumbnail" {
        true => Ok(ModelCard::thumbnail()),
        false => ModelCard::load(dir),
    }
}
