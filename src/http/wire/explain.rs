//! What explanations are asked with and what they answer.

use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::Served;
use super::ask::{frame, invalid, parse_region};
use super::{INTENDED_USE, ImageFile};
use crate::domain::{Excerpt, ImageId, SpaceId};
use crate::error::{Error, Result};
use crate::http::upload::{FromParts, Parts};
use crate::search::{Explanation, HeatMap, Method, NeighborMap};

/// An image and the neighbor that it is compared with.
pub struct ExplanationForm {
    /// The file.
    pub image: Bytes,
    /// The image of the archive.
    pub neighbor: ImageId,
    /// What of the file is compared.
    pub excerpt: Excerpt,
    /// The space of the answer that is explained.
    pub space: Option<SpaceId>,
}

impl FromParts for ExplanationForm {
    const FIELDS: &'static [&'static str] = &["neighbor", "frame", "region", "space"];

    fn from_parts(mut parts: Parts) -> Result<Self> {
        let neighbor = parts.text("neighbor")?;
        let neighbor = neighbor.ok_or_else(|| invalid("missing field `neighbor`"))?;
        let space = parts.text("space")?.map(|text| text.parse()).transpose();
        Ok(Self {
            neighbor: neighbor.parse().map_err(|error: Error| error.context("`neighbor`"))?,
            excerpt: Excerpt {
                frame: frame(&mut parts)?,
                region: parts.text("region")?.map(|text| parse_region(&text)).transpose()?,
            },
            space: space.map_err(|error: Error| error.context("`space`"))?,
            image: parts.image()?,
        })
    }
}

// How the API describes `ExplanationForm`.
/// An image and the neighbor that it is compared with.
#[derive(ToSchema)]
#[schema(as = ExplanationForm)]
#[expect(dead_code, reason = "a description, never a value")]
pub struct ExplanationFormFields {
    /// PNG, JPEG or DICOM, told apart by content.
    #[schema(value_type = ImageFile)]
    image: (),
    /// An image of the archive, mostly one that a search answered.
    #[schema(example = "0123456789abcdef0123456789abcdef0123")]
    neighbor: String,
    /// The frame of a DICOM file that was searched by, counted from 1.
    #[schema(default = 1, minimum = 1, maximum = 10000)]
    frame: Option<u32>,
    /// The part of the image that was searched by, as `x,y,width,height`, fractions of its width and height.
    #[schema(example = "0.25,0.25,0.5,0.5")]
    region: Option<String>,
    /// The `space` of the answer that is to be explained: refused if the archive's is another one by now.
    #[schema(example = "0123456789abcdef0123456789abcdef")]
    space: Option<String>,
}

/// Where a query and a neighbor look alike.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplanationResponse {
    /// The image of the archive.
    #[schema(example = "0123456789abcdef0123456789abcdef0123")]
    pub neighbor: String,
    /// Cosine similarity of the two, as a search answers it.
    pub similarity: f32,
    /// How the maps came about.
    pub method: ExplanationMethod,
    /// Where the query looks like the neighbor.
    pub query: Map,
    /// Where the neighbor looks like the query; null: not known.
    #[schema(required)]
    pub neighbor_map: Option<MapOfNeighbor>,
    /// Why there is no map of the neighbor.
    #[schema(required)]
    pub why_not: Option<String>,
    /// The archive that answered.
    pub archive: Served,
    /// The space in which similarity was measured.
    #[schema(example = "0123456789abcdef0123456789abcdef")]
    pub space: String,
    /// The learned metric by which similarity was measured, as `/v1/archive` describes it; null: cosine.
    #[schema(required, example = "fedcba9876543210fedcba9876543210")]
    pub metric: Option<String>,
    /// What this answer may be used for.
    #[schema(example = "research use only, not for diagnosis")]
    pub intended_use: &'static str,
}

/// How a map came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExplanationMethod {
    /// The similarity split into what the network sees in each cell: the cells add up to it.
    Cells,
    /// By how much the similarity falls when the cell is covered with the image's mean colour.
    Occlusion,
}

/// Shares of the similarity, on a grid over the picture.
#[derive(Debug, Serialize, ToSchema)]
pub struct Map {
    /// Rows of the grid.
    pub rows: usize,
    /// Columns of the grid.
    pub columns: usize,
    /// The share of each cell, row by row; negative where the images differ.
    pub cells: Vec<Vec<f64>>,
    /// All shares together: with `cells` the similarity.
    pub sum: f64,
    /// x, y, width, height of the grid as fractions of the picture: what the network was given. Beyond 0 to 1 where that has a black frame.
    pub area: [f64; 4],
}

/// Where the neighbor looks like the query.
#[derive(Debug, Serialize, ToSchema)]
pub struct MapOfNeighbor {
    /// The map.
    #[serde(flatten)]
    pub map: Map,
    /// It was made of the thumbnail, which is all that the archive keeps, and not of what was embedded: it sums up to another similarity.
    pub from_thumbnail: bool,
}

impl From<Explanation> for ExplanationResponse {
    fn from(explanation: Explanation) -> Self {
        let (neighbor_map, why_not) = match explanation.neighbor_map {
            Ok(NeighborMap { map, from_thumbnail }) => {
                let map = map.into();
                (Some(MapOfNeighbor { map, from_thumbnail }), None)
            }
            Err(why) => (None, Some(why)),
        };
        Self {
            neighbor: explanation.neighbor.to_string(),
            similarity: explanation.similarity,
            method: match explanation.method {
                Method::Cells => ExplanationMethod::Cells,
                Method::Occlusion => ExplanationMethod::Occlusion,
            },
            query: explanation.query.into(),
            neighbor_map,
            why_not,
            archive: Served {
                version: explanation.version,
                images: explanation.images,
            },
            space: explanation.space.to_string(),
            metric: explanation.metric,
            intended_use: INTENDED_USE,
        }
    }
}

impl From<HeatMap> for Map {
    fn from(map: HeatMap) -> Self {
        let grid = map.grid;
        Self {
            rows: grid.rows,
            columns: grid.columns,
            sum: grid.sum(),
            cells: grid.cells.chunks(grid.columns).map(<[f64]>::to_vec).collect(),
            area: map.area,
        }
    }
}
