#![doc = "placeholder tour"]
pub mod archive;
pub mod domain;
pub mod error;
