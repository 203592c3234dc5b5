//! Embedding -> nearest images. Synchronous; immutable once built.
//!
//! Reading order: [`segment`] (the rows of one object, unit vectors, who is where), [`snapshot`] (the segments of one version of the
//! archive and the search over them), [`scope`] (which rows may be returned to this query), [`exact`] over a [`Matrix`] and
//! [`hnsw`] (the two ways to find them), [`copies`] (which images are one picture), [`top`] (the best groups seen so far).

mod bitmap;
mod copies;
pub mod exact;
pub mod hnsw;
mod matrix;
pub mod scope;
pub mod segment;
pub mod snapshot;
pub mod top;

pub use bitmap::Bitmap;
pub use copies::{Joined, Pictures};
pub use exact::{Sieve, scan, similarities};
pub use hnsw::{Graph, GraphParameters, build_graph};
pub use matrix::Matrix;
pub use scope::{Leg, Scope, Step};
pub use segment::{RawVectors, Segment, SegmentInput, VectorSource, compared_row};
pub use snapshot::{GivenGraph, GraphInput, Snapshot, SnapshotInput, load_graph};

use crate::error::{Error, ErrorKind};

/// What is refused because it has not as many components as the vectors.
fn wrong_dimension(is: usize, wanted: usize) -> Error {
    let message = format!("the vector has {is} components, this space has {wanted}");
    Error::new(ErrorKind::WrongDimension, message)
}

/// Where a scan and a walk through a graph (ef 128) cost the same: `cargo bench --bench hnsw -- --sweep`. At 1280 dimensions the scan of
/// 2,000 rows took 0.30 ms of one core and a walk 0.20 ms on clustered data, where the two meet at 1,000 rows; the rest is room for data that
/// clusters less.
const EXACT_ROWS_MAX: usize = 2_000;

/// Settings of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexSettings {
    /// Up to this many rows a scan is at least as fast as a walk through a graph: classes get a graph only above it. 0 forces graphs.
    pub exact_rows_max: usize,
    /// How graphs are built and walked.
    pub graph: GraphParameters,
    /// Walks through one graph at the same time; more wait.
    pub search_threads: usize,
    /// Threads that share the scan of one query (1: the caller's alone). The answer is the same.
    pub scan_threads: usize,
}

impl Default for IndexSettings {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            exact_rows_max: EXACT_ROWS_MAX,
            graph: GraphParameters::default(),
            search_threads: threads,
            scan_threads: 1,
        }
    }
}

impl IndexSettings {
    /// The same with another threshold, if one is given.
    pub fn with_exact_rows_max(self, exact_rows_max: Option<usize>) -> Self {
        Self {
            exact_rows_max: exact_rows_max.unwrap_or(self.exact_rows_max),
            ..self
        }
    }
}
