//! From what the archive holds to what the index takes.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::holding::Holding;
use crate::archive::{GraphEntry, State};
use crate::domain::Metric;
use crate::error::Result;
use crate::index::{GraphInput, GraphParameters, SegmentInput, Snapshot, SnapshotInput};

/// The input of a snapshot of `state` that searches what is held. Rows that `previous` has are only named, not copied; a graph without bytes is one
/// that it has.
///
/// # Errors
/// `Unavailable`, `Damaged` when vectors can't be read.
pub fn snapshot_input(
    state: &State,
    holding: &Holding,
    metric: Option<Arc<Metric>>,
    graphs: Vec<(GraphEntry, Option<Bytes>)>,
    previous: Option<&Snapshot>,
) -> Result<SnapshotInput> {
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
            vectors: if given {
                rows.vectors(0..rows.rows())?.into_owned()
            } else {
                vec![]
            },
        };
        Ok((Arc::new(segment), state.tombstones(at).to_vec()))
    });
    let named: HashSet<&str> = state.rows.iter().map(|rows| rows.name.as_str()).collect();
    let graphs = graphs
        .into_iter()
        .filter(|(entry, _)| named.contains(entry.rows_object.as_str()));
    Ok(SnapshotInput {
        version: manifest.version,
        dimension: manifest.space.dimension,
        metric,
        classes: manifest.classes.clone(),
        segments: segments.collect::<Result<_>>()?,
        graphs: graphs.filter_map(|(entry, bytes)| graph_input(entry, bytes)).collect(),
    })
}

/// Rows without a class have no graph: they are few, and scanned.
fn graph_input(entry: GraphEntry, bytes: Option<Bytes>) -> Option<GraphInput> {
    Some(GraphInput {
        name: entry.object,
        segment: entry.rows_object,
        class: entry.class?,
        parameters: GraphParameters {
            connectivity: entry.parameters.connectivity,
            expansion_add: entry.parameters.expansion_add,
            expansion_search: entry.parameters.expansion_search,
        },
        bytes,
    })
}
