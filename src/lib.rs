#![doc = "placeholder tour"]
pub mod domain;
pub mod error;
pub mod http;
pub mod ingest;
pub mod metrics;
pub mod search;
pub mod telemetry;
