//! Medical image similarity search: embed an X-ray or MRI, find the most similar known cases, let them vote.
//!
//! The modules are the stages of a query. Read them in this order:
//!
//! 1. [`domain`] – the vocabulary: ids, embeddings, records, hits, verdicts. No I/O.
//! 2. [`imaging`] – bytes to raster to model input. Hostile files are expected.
//! 3. [`embed`] – model input to vector: one thread owns the model and forms batches.
//! 4. [`archive`] – the durable truth: immutable objects and numbered manifests.
//! 5. [`index`] – vector to nearest rows: exact scan and HNSW over one version of the archive.
//! 6. [`cluster`] – several replicas: who is there, who holds which shard, how to ask them.
//! 7. [`search`] – plan, search, merge, vote; [`search::Engine`] is the whole query.
//! 8. [`ingest`] – images in, one at a time or a data set at once.
//! 9. [`quality`] – how good the answers are, beside what a shortcut would reach.
//! 10. [`pacs`] – the hospital's image stores that may be asked for a query's image, or followed.
//! 11. [`http`] – the API and the page.
//! 12. [`app`] – settings and parts become a server; [`cli`] is the command line.
//!
//! [`error`], [`metrics`], [`telemetry`], [`tls`] and [`audit`] belong to everyone. ARCHITECTURE.md walks one query and one ingest through these files.

pub mod app;
pub mod archive;
pub mod audit;
pub mod bounded;
pub mod cli;
pub mod cluster;
pub mod domain;
pub mod embed;
pub mod error;
pub mod http;
pub mod imaging;
pub mod index;
pub mod ingest;
pub mod metrics;
pub mod pacs;
pub mod quality;
pub mod search;
pub mod telemetry;
pub mod tls;
