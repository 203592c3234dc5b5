//! The stages of a query without a server: what a script would take.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::{QUERIES_PER_TURN, StagesReport, WARM_UP, median, ms, round};
use crate::app::{Settings, decoder_settings};
use crate::archive::Archive;
use crate::cli;
use crate::domain::{Ask, FrameNumber, ImageId, Query};
use crate::embed::{Backend, ModelCard};
use crate::error::{Error, Result};
use crate::imaging::{Decoder, InputSpec, preprocess, to_eight_bit};
use crate::index::IndexSettings;
use crate::search::{self, Holding, Served, Version};

/// The stages of a query called directly: no queue, no HTTP, no second thread but the model's own.
pub struct Alone<'a> {
    images: &'a [Vec<u8>],
    version: Arc<Version>,
    ids: Vec<ImageId>,
    decoder: Decoder,
    input: InputSpec,
    next: usize,
}

impl<'a> Alone<'a> {
    pub fn new(images: &'a [Vec<u8>], settings: &Settings, model: &Path) -> Result<Self> {
        let version = cli::block_on(async {
            let archive =
                Archive::open_cached(&settings.archive, settings.secret.clone(), settings.cache.as_ref()).await?;
            Ok(Served::open(archive, IndexSettings::default(), Holding::All, None)
                .await?
                .current())
        })?;
        Ok(Self {
            images,
            ids: version.state.live().map(|spot| version.state.at(spot).id).collect(),
            version,
            decoder: Decoder::new(decoder_settings(settings)),
            input: ModelCard::load(model)?.input(),
            next: 0,
        })
    }

    /// So many images that follow each other; without a model its time is NaN.
    pub fn turn(&mut self, mut model: Option<&mut (dyn Backend + 'static)>) -> Result<Stages> {
        let mut stages = Stages::default();
        for count in 0..QUERIES_PER_TURN + WARM_UP {
            let times = self.image(model.as_deref_mut())?;
            if count >= WARM_UP {
                stages.push(times);
            }
        }
        Ok(stages)
    }

    /// One image: milliseconds to decode, preprocess, embed (NaN without a model) and search.
    fn image(&mut self, model: Option<&mut (dyn Backend + 'static)>) -> Result<[f64; 4]> {
        let image = &self.images[self.next % self.images.len()];
        let id = self.ids[self.next % self.ids.len()];
        self.next += 1;
        let begun = Instant::now();
        let decoded = self.decoder.decode(image, FrameNumber::FIRST)?;
        let (raster8, _) = to_eight_bit(&decoded.raster)?;
        let decode = ms(begun);
        let begun = Instant::now();
        let model_input = std::hint::black_box(preprocess(&raster8, &self.input, None)?);
        let resize = ms(begun);
        let mut embed = f64::NAN;
        if let Some(model) = model {
            let begun = Instant::now();
            std::hint::black_box(model.embed(&[model_input])?);
            embed = ms(begun);
        }
        let spot = self.version.state.find(id);
        let spot = spot.ok_or_else(|| Error::internal("an id of the version is not in its index"))?;
        let query = Query::of(self.version.snapshot.compared(self.version.unit_at(spot)?)?);
        let ask = Ask {
            exact: true,
            ..Ask::default()
        };
        let begun = Instant::now();
        std::hint::black_box(search::local::search(&self.version.snapshot, &query, &ask)?);
        Ok([decode, resize, embed, ms(begun)])
    }
}

/// Milliseconds of each image in each stage: decode, preprocess, model, search.
#[derive(Default)]
pub struct Stages([Vec<f64>; 4]);

impl Stages {
    fn push(&mut self, times: [f64; 4]) {
        for (values, time) in self.0.iter_mut().zip(times) {
            values.push(time);
        }
    }

    pub fn extend(&mut self, other: Self) {
        for (values, more) in self.0.iter_mut().zip(other.0) {
            values.extend(more);
        }
    }

    pub fn joined(turns: Vec<Self>) -> Self {
        let mut all = Self::default();
        turns.into_iter().for_each(|turn| all.extend(turn));
        all
    }

    /// Everything but the model, of medians.
    pub fn rest_ms(&self) -> f64 {
        let [decode, preprocess, _, search] = &self.0;
        median(decode) + median(preprocess) + median(search)
    }

    /// Medians.
    pub fn report(&self) -> StagesReport {
        let [decode_ms, preprocess_ms, model_ms, exact_search_ms] =
            self.0.each_ref().map(|values| round(median(values)));
        StagesReport {
            decode_ms,
            preprocess_ms,
            model_ms,
            exact_search_ms,
        }
    }
}
