//! Why a query and a neighbor are similar: a heat map of each, made when somebody asks.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::engine::{Engine, not_found, not_kept};
use super::model::Model;
use super::occlusion::{Windows, mean_colour};
use super::prepare::Prepared;
use super::served::Version;
use super::shares::{Grid, shares};
use crate::domain::{Embedding, Excerpt, ImageId, Record, SpaceId, similarity};
use crate::embed::Embedded;
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{ModelInput, seen};

/// Covered images of one explanation that are in the model's queue at the same time.
const COVERED_AT_ONCE: usize = 16;
/// A thumbnail shows enough where its long side has at least this part of the model input's.
const THUMBNAIL_PART_MIN: f64 = 0.5;

/// How a map came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The similarity split into what the network sees in each cell: exact.
    Cells,
    /// By how much the similarity falls when a window is covered.
    Occlusion,
}

impl Method {
    /// As API and metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cells => "cells",
            Self::Occlusion => "occlusion",
        }
    }
}

/// Where one image looks like another.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    /// The share of each cell.
    pub grid: Grid,
    /// x, y, width, height of the grid as fractions of the picture; beyond 0..1 where the model is given a black frame.
    pub area: [f64; 4],
}

/// The map of a neighbor, from what the archive keeps of it.
#[derive(Debug, Clone, PartialEq)]
pub struct NeighborMap {
    /// The map.
    pub map: HeatMap,
    /// It was made of the thumbnail, which is not what was embedded.
    pub from_thumbnail: bool,
}

/// Why two images are similar.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The image of the archive.
    pub neighbor: ImageId,
    /// The similarity that is explained, as a search measures it.
    pub similarity: f32,
    /// How the maps came about.
    pub method: Method,
    /// Where the query looks like the neighbor.
    pub query: HeatMap,
    /// Where the neighbor looks like the query, or why there is no map.
    pub neighbor_map: std::result::Result<NeighborMap, String>,
    /// Version of the archive.
    pub version: u64,
    /// Its images.
    pub images: usize,
    /// Space of the vectors.
    pub space: SpaceId,
    /// The learned metric by which they were compared.
    pub metric: Option<String>,
}

/// An image as the model saw it.
struct Looked {
    input: ModelInput,
    area: [f64; 4],
    embedded: Embedded,
}

/// Decodes, embeds and asks for the cells.
async fn look(model: &Model, image: Bytes, excerpt: Excerpt, deadline: Instant) -> Result<Looked> {
    let coming = model.embedder.announce();
    let Prepared { input, picture, .. } = model.preparer.prepare(image, excerpt, deadline).await?;
    let size = (picture.facts.width, picture.facts.height);
    // Nothing large waits for the model.
    drop(picture);
    let area = seen(size, &model.embedder.card().input(), excerpt.region);
    let embedded = coming.send_for_cells(input.clone(), deadline)?.wait().await?;
    Ok(Looked { input, area, embedded })
}

impl Engine {
    /// Where an image, or an excerpt of it, and one of the archive look alike. `space`: what the client takes for the archive's.
    ///
    /// # Errors
    /// `NotFound` for an id that is not there, or no longer when all is done; `SpaceMismatch`; `Overloaded` when too many wait; what decoding and
    /// embedding refuse; `Deadline` when time is up.
    pub async fn explain(
        &self,
        image: Bytes,
        neighbor: ImageId,
        excerpt: Excerpt,
        space: Option<SpaceId>,
        deadline: Instant,
    ) -> Result<Explanation> {
        let version = self.answering(deadline).await?;
        let manifest = &version.state.manifest;
        let own = manifest.space.id();
        if space.is_some_and(|space| space != own) {
            let message =
                format!("the archive's vectors are of space `{own}`: search again, the answer was another archive's");
            return Err(Error::new(ErrorKind::SpaceMismatch, message));
        }
        let spot = version.state.find(neighbor).ok_or_else(|| not_found(neighbor))?;
        let record = Arc::clone(version.state.at(spot));
        let known = version.snapshot.compared(version.unit_at(spot)?)?;
        let _turn = self.explanation_turn(deadline).await?;
        let looked = look(version.model()?, image, excerpt, deadline).await?;
        let query = version.compared(&looked.embedded.raw)?;
        let similarity = similarity(query.as_slice(), known.as_slice());
        let (map, method) = self.map(&version, looked, &known, deadline).await?;
        let neighbor_map = match self.neighbor_map(&version, &record, &query, deadline).await {
            // The query is not to blame for the picture that was kept.
            Err(error) if !matches!(error.kind(), ErrorKind::Deadline | ErrorKind::Overloaded) => {
                tracing::warn!(error = %error, "a kept picture can't be explained");
                Err("the picture that this archive keeps of it can't be looked at".to_owned())
            }
            other => other?,
        };
        // Deleted meanwhile: what was just made shows where it looked alike.
        if self.record(neighbor).is_none() {
            return Err(not_found(neighbor));
        }
        Ok(Explanation {
            neighbor,
            similarity,
            method,
            query: map,
            neighbor_map,
            version: manifest.version,
            images: version.snapshot.images(),
            space: own,
            metric: manifest.metric.as_ref().map(|metric| metric.id().to_owned()),
        })
    }

    /// The map of an image of the archive, of its similarity to `query`; or why there is none.
    async fn neighbor_map(
        &self,
        version: &Version,
        record: &Record,
        query: &Embedding,
        deadline: Instant,
    ) -> Result<std::result::Result<NeighborMap, String>> {
        let (picture, from_thumbnail) = match self.kept(version.model()?, record).await? {
            Ok(kept) => kept,
            Err(why) => return Ok(Err(why)),
        };
        let looked = look(version.model()?, picture, Excerpt::default(), deadline).await?;
        let (map, _) = self.map(version, looked, query, deadline).await?;
        Ok(Ok(NeighborMap { map, from_thumbnail }))
    }

    /// The best picture that the archive keeps of an image, as a file, and whether it is the thumbnail; or why there is none.
    async fn kept(&self, model: &Model, record: &Record) -> Result<std::result::Result<(Bytes, bool), String>> {
        if record.pixels.is_some() {
            // In the window that was embedded, so that it is what the model saw, unless the archive keeps it smaller.
            return Ok(Ok((self.rendered(record.id, None, None).await?, false)));
        }
        let Some(thumbnail) = &record.thumbnail else {
            return Ok(Err(not_kept().message().to_owned()));
        };
        let png = self.parts().archive.read_pack(thumbnail).await?;
        let spec = model.embedder.card().input();
        let wanted = f64::from(spec.width.max(spec.height)) * THUMBNAIL_PART_MIN;
        Ok(if f64::from(model.preparer.long_side(&png)?) < wanted {
            Err("this archive keeps a thumbnail of this image only, which is too small for the model".to_owned())
        } else {
            Ok((png, true))
        })
    }

    /// The map of an image, of its similarity to `other`, a vector as it is compared.
    async fn map(
        &self,
        version: &Version,
        looked: Looked,
        other: &Embedding,
        deadline: Instant,
    ) -> Result<(HeatMap, Method)> {
        let Looked { input, area, embedded } = looked;
        let (grid, method) = match &embedded.cells {
            Some(cells) => {
                let grid = shares(cells, version.snapshot.metric(), other.as_slice());
                let grid = grid.ok_or_else(|| Error::internal("the cells can't be compared in the archive's space"))?;
                (grid, Method::Cells)
            }
            None => {
                let compared = version.compared(&embedded.raw)?;
                let whole = similarity(compared.as_slice(), other.as_slice());
                (
                    self.drops(version, &input, whole, other, deadline).await?,
                    Method::Occlusion,
                )
            }
        };
        Ok((HeatMap { grid, area }, method))
    }

    /// By how much `whole`, the similarity to `other`, falls with each window covered.
    async fn drops(
        &self,
        version: &Version,
        input: &ModelInput,
        whole: f32,
        other: &Embedding,
        deadline: Instant,
    ) -> Result<Grid> {
        let embedder = &version.model()?.embedder;
        let (windows, mean) = (Windows::of(input), mean_colour(input));
        let mut cells = Vec::with_capacity(windows.count());
        let all: Vec<usize> = (0..windows.count()).collect();
        for some in all.chunks(COVERED_AT_ONCE) {
            let sent: Result<Vec<_>> = some
                .iter()
                .map(|&at| embedder.announce().send(windows.covered(input, at, mean), deadline))
                .collect();
            for pending in sent? {
                let raw = pending.wait().await?.raw;
                // An image that is nothing without this window has no direction, and no similarity.
                let left = version
                    .compared(&raw)
                    .map_or(0.0, |covered| similarity(covered.as_slice(), other.as_slice()));
                cells.push(f64::from(whole) - f64::from(left));
            }
        }
        let (rows, columns) = windows.grid();
        Ok(Grid { rows, columns, cells })
    }
}
