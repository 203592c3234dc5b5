//! Images in: whole data sets (`dataset`, `metadata`, `bulk`, then `build`), or one at a time (`image`), or taken
//! over at once and embedded behind it (`receive`, `inbox`); `copies` finds
//! those that are there already in another form, `labelling` and `labels_file` say what they show, `reembed` moves all of them to another model.

pub mod build;
pub mod bulk;
mod burned_in;
mod class_files;
pub mod copies;
pub mod dataset;
mod file_keys;
mod files;
mod holdings;
mod image;
mod inbox;
mod labelling;
mod labels_file;
pub mod metadata;
mod parts;
pub(crate) mod progress;
mod receive;
pub mod reembed;

pub use burned_in::BurnedInRule;
pub use dataset::Dataset;
pub use file_keys::file_keys;
pub use holdings::Holdings;
pub use image::{Ingest, Labels, Receipt};
pub use inbox::{InboxSettings, open_inbox};
pub use labelling::Labelling;
pub use labels_file::{LabelsFile, Meant, UidKeys};
pub use receive::{Received, Reception, Refusal, Verdict};
