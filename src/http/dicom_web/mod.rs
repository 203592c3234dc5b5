//! DICOMweb (PS3.18): STOW-RS, QIDO-RS and WADO-RS over what the archive keeps, and the two endpoints by which Orthanc takes this server for a peer of its own kind.
//!
//! What comes in: `store` and `peer` are the endpoints. `related` reads `multipart/related`, `stored` says what became of each object, `form` in which form that is said.
//!
//! What goes out: `search`, `retrieve` and `rendered` are the endpoints. `query` reads what a search asks for, `matching` finds it, `place` finds what a path names, `shown` stands between the names in
//! requests and answers and the pseudonyms of the archive, `attributes` says what is told of an image, `json` and `part10` write it down, `accept`
//! and `parts` are about the form of answers, `tags` has the numbers.

mod accept;
mod attributes;
mod form;
mod json;
mod matching;
mod part10;
mod parts;
pub mod peer;
mod place;
mod query;
mod related;
pub mod rendered;
pub mod retrieve;
pub mod search;
mod shown;
pub mod store;
mod stored;
mod tags;

pub use related::{Part, Related};
