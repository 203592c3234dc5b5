//! From an image to an answer. `engine` is the tour; `plan`, `merge`, `vote` and `warn` are pure.

mod answer;
mod engine;
pub mod local;
mod mapping;
pub mod merge;
pub mod plan;
mod prepare;
mod served;
pub mod vote;
mod warn;

pub use answer::{Answer, AskedQuery, EmbeddedImage, ImageFacts, Overview, Saturation, Timings, Upload};
pub(crate) use engine::Whose;
pub use engine::{Engine, Parts, QUERY_IDS_MAX};
pub use prepare::{Picture, Prepared, PreparedImage, Preparer, prepare};
pub use served::{Served, Version};
pub use warn::Warning;
