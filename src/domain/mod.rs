//! The vocabulary: values that can't be wrong once built. No I/O, no async, no framework.

mod appearance;
mod ask;
mod calibration;
mod distribution;
mod embedding;
mod frame;
mod ids;
mod label;
pub mod media_type;
mod metric;
mod pseudonym;
mod ranking;
mod record;
mod space;
mod uid;
mod union;
mod verdict;
mod windows;

pub use appearance::{Appearance, Appearances};
pub use ask::{Ask, EXAMPLES_MAX, Excerpt, Exclude, K_MAX, OnePer, Query, Region, VoteMethod, Wanted};
pub use calibration::{
    Calibration, Doubt, Level, SET_SIZE_MAX, ShareCalibration, prediction_set, softmax, strangeness,
};
pub use distribution::{DIRECTIONS_MAX, Distribution};
pub(crate) use embedding::sum;
pub use embedding::{Embedding, similarity};
pub use frame::{FRAMES_MAX, FrameNumber, FrameOf, Frames};
pub use ids::{ClassLabel, ImageId, Key, LabelSource, Slot, UNLABELLED};
pub use label::{Label, LabelledBy};
pub use media_type::MediaType;
pub use metric::Metric;
pub use pseudonym::PatientPseudonym;
pub use ranking::{Copies, Coverage, Group, Hit, PathTaken, Ranking};
pub use record::{
    Alias, InstanceKeys, LabelChange, PackRef, PatientKeys, PixelsRef, Record, StoredWindow, Unknown, Window,
};
pub use space::{Space, SpaceId};
pub use uid::{PseudonymousUid, Uid};
pub use union::Union;
pub use verdict::{CalibrationNote, Mahalanobis, PredictionSet, Status, Verdict};
pub use windows::{WindowRule, WindowTable, WindowUse};
