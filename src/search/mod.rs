//! From an image to an answer. `engine` is the tour, `explain` says afterwards why; `plan`, `merge`, `vote`, `warn`, `shares` and `occlusion` are pure.

mod answer;
pub mod calibrate;
mod engine;
mod explain;
pub mod local;
mod mapping;
pub mod merge;
pub mod occlusion;
pub mod plan;
mod prepare;
mod served;
pub mod shares;
pub mod vote;
mod warn;

pub use answer::{Answer, AskedQuery, EmbeddedImage, ImageFacts, Overview, Saturation, Timings, Upload};
pub(crate) use engine::Whose;
pub use engine::{Engine, Parts, QUERY_IDS_MAX};
pub use explain::{Explanation, HeatMap, Method, NeighborMap};
pub use prepare::{Picture, Prepared, PreparedImage, Preparer, prepare};
pub use served::{Served, Version};
pub use warn::Warning;
