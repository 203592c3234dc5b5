//! From an image to an answer. `engine` is the tour, `spread` asks all shards wherever they are held, `placing` holds what this replica should, `sampled` looks at how good answers are,
//! `explain` says afterwards why; `plan`, `merge`, `vote`, `warn`, `shares` and `occlusion` are pure.

mod answer;
pub mod calibrate;
mod engine;
mod explain;
mod hierarchy;
mod holding;
pub mod local;
mod mapping;
pub mod merge;
mod model;
pub mod occlusion;
mod placing;
pub mod plan;
mod prepare;
mod sampled;
mod served;
pub mod shares;
mod spread;
pub mod vote;
mod warn;

pub use answer::{Answer, AskedQuery, EmbeddedImage, ImageFacts, Overview, Saturation, Timings, Upload};
pub(crate) use engine::Whose;
pub use engine::{Engine, Parts, QUERY_IDS_MAX};
pub use explain::{Explanation, HeatMap, Method, NeighborMap};
pub use hierarchy::{Hierarchy, Instance, Level};
pub use holding::Holding;
pub use model::{LoadModel, Model};
pub use placing::{first_assigned, keep_placed};
pub use prepare::{Picture, Prepared, PreparedImage, Preparer, prepare};
pub use sampled::Sampler;
pub use served::{Served, Version};
pub use warn::Warning;
