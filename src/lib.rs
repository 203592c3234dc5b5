#![doc = "placeholder tour"]
pub mod domain;
pub mod error;
pub mod index;
pub mod search;
