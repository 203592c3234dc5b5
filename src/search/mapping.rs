//! From what the archive holds to what the index takes.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::holding::Holding;
use crate::archive::{GraphEntry, RowsObject, State};
use crate::domain::Metric;
use crate::error::Result;
use crate::index::{
    GivenGraph, Graph, GraphInput, GraphParameters, RawVectors, SegmentInput, Snapshot, SnapshotInput, VectorSource,
};

/// The input of a snapshot of `state` that searches what is held. Rows that `previous` has are only named, not copied; a graph of which nothing is given is one
/// that it has.
pub fn snapshot_input(
    state: &State,
    holding: &Holding,
    metric: Option<Arc<Metric>>,
    graphs: Vec<(GraphEntry, Option<Arc<Graph>>)>,
    previous: Option<&Snapshot>,
) -> SnapshotInput {
    let manifest = &state.manifest;
    // By another metric its rows are other rows.
    let previous = previous.filter(|snapshot| snapshot.is_by(metric.as_ref()));
    let segments = state.rows.iter().enumerate().map(|(at, rows)| {
        let known = previous.is_some_and(|snapshot| snapshot.has_segment(&rows.name));
        let shard = manifest.rows[at].shard();
        let searched = shard.is_none_or(|shard| holding.has(shard));
        let given = searched && !previous.is_some_and(|snapshot| snapshot.searches(&rows.name));
        let segment = SegmentInput {
            name: rows.name.clone(),
            dimension: manifest.space.dimension,
            shard,
            searched,
            records: if known { vec![] } else { rows.records.clone() },
            vectors: match given {
                true => RawVectors::Source(Arc::new(Stored(Arc::clone(rows)))),
                false => vec![].into(),
            },
        };
        (Arc::new(segment), state.tombstones(at).to_vec())
    });
    let named: HashSet<&str> = state.rows.iter().map(|rows| rows.name.as_str()).collect();
    let graphs = graphs
        .into_iter()
        .filter(|(entry, _)| named.contains(entry.rows_object.as_str()));
    SnapshotInput {
        version: manifest.version,
        dimension: manifest.space.dimension,
        metric,
        classes: manifest.classes.clone(),
        segments: segments.collect(),
        graphs: graphs.filter_map(|(entry, graph)| graph_input(entry, graph)).collect(),
    }
}

/// How the index builds and walks a graph of the archive.
pub fn parameters_of(entry: &GraphEntry) -> GraphParameters {
    GraphParameters {
        connectivity: entry.parameters.connectivity,
        expansion_add: entry.parameters.expansion_add,
        expansion_search: entry.parameters.expansion_search,
    }
}

/// The vectors of a rows object, read as they are asked for.
#[derive(Debug)]
struct Stored(Arc<RowsObject>);

impl VectorSource for Stored {
    fn rows(&self) -> usize {
        self.0.rows() as usize
    }

    fn each(&self, rows: Range<u32>, take: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        self.0.each_vector(rows, take)
    }
}

/// Rows without a class have no graph: they are few, and scanned.
fn graph_input(entry: GraphEntry, graph: Option<Arc<Graph>>) -> Option<GraphInput> {
    let parameters = parameters_of(&entry);
    Some(GraphInput {
        name: entry.object,
        segment: entry.rows_object,
        class: entry.class?,
        parameters,
        given: graph.map(GivenGraph::Loaded),
    })
}
