//! DICOMweb (PS3.18): STOW-RS, and the two endpoints by which Orthanc takes this server for a peer of its own kind.
//!
//! `store` and `peer` are the endpoints. `related` reads `multipart/related`, `stored` says what became of each object, `form` in which form that is said.

mod form;
pub mod peer;
mod related;
pub mod store;
mod stored;
