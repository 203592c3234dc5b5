//! The vocabulary: values that can't be wrong once built. No I/O, no async, no framework.

mod ask;
mod embedding;
mod ids;
mod metric;
mod ranking;
mod record;
mod space;
mod verdict;

pub use ask::{Ask, Exclude, K_MAX, Query, Region, VoteMethod};
pub(crate) use embedding::sum;
pub use embedding::{Embedding, similarity};
pub use ids::{ClassLabel, ImageId, Key, LabelSource, Slot, UNLABELLED};
pub use metric::Metric;
pub use ranking::{Coverage, Group, Hit, PathTaken, Ranking};
pub use record::{Alias, LabelChange, PackRef, PatientKeys, PixelsRef, Record, StoredWindow, Unknown, Window};
pub use space::{Space, SpaceId};
pub use verdict::{CalibrationNote, Status, Verdict};
