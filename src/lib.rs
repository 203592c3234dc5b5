#![doc = "placeholder tour"]
pub mod error;
pub mod domain;
