//! A query's way through the index: plan, search, merge, vote.

pub mod local;
pub mod merge;
pub mod plan;
pub mod vote;
