//! How often one may ask: so many requests a minute for each caller, so many wrong keys for each address, and so many an hour that name somebody who is not there.
//!
//! `bucket` is the arithmetic, `recent` a map that never grows beyond its bound, `limits` what a running server keeps. `guard.rs` asks them. Each replica
//! counts for itself.

mod bucket;
mod limits;
mod recent;

pub use bucket::{Left, Rate, WINDOW};
pub use limits::{Limits, Misses, NamedBy, RateSettings, Spent};
