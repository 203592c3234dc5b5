#![doc = "placeholder tour"]
pub mod domain;
pub mod error;
pub mod imaging;
