#![doc = "placeholder tour"]
pub mod archive;
pub mod domain;
pub mod embed;
pub mod error;
pub mod imaging;
pub mod ingest;
