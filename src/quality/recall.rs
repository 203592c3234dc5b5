//! The graphs against the exact scan, over the images of an evaluation.

use std::sync::Arc;

use rayon::prelude::*;

use super::cases::Cases;
use super::evaluation::{Available, IndexReport};
use crate::domain::{Ask, Embedding, PatientKeys, Query, Ranking, VoteMethod};
use crate::error::Result;
use crate::index::{
    GivenGraph, GraphInput, GraphParameters, IndexSettings, SegmentInput, Snapshot, SnapshotInput, build_graph,
};
use crate::search::{local, vote::vote};

/// Queries that are tried, evenly over all.
const QUERIES_MAX: usize = 1000;
const NEIGHBORS: usize = 10;

/// Builds a graph of every class, whatever its size, and asks both ways.
///
/// # Errors
/// What building a graph or searching refuses.
pub fn recall(cases: &Cases, method: VoteMethod) -> Result<Available<IndexReport>> {
    let parameters = GraphParameters::default();
    let indexed: Vec<usize> = (0..cases.items.len())
        .filter(|&item| cases.items[item].indexed)
        .collect();
    let graph = |class: usize| {
        let rows = (0u32..)
            .zip(&indexed)
            .filter(|&(_, &item)| cases.items[item].class == class);
        let (keys, vectors): (Vec<u32>, Vec<&[f32]>) = rows.map(|(row, &item)| (row, cases.vector(item))).unzip();
        (!keys.is_empty()).then(|| {
            Ok(GraphInput {
                name: format!("graph {class}"),
                segment: SEGMENT.to_owned(),
                class: cases.classes[class].clone(),
                parameters,
                given: Some(GivenGraph::Stored(build_graph(&vectors, &keys, &parameters)?.into())),
            })
        })
    };
    let graphs = (0..cases.classes.len())
        .into_par_iter()
        .filter_map(graph)
        .collect::<Result<Vec<_>>>()?;
    let segment = SegmentInput {
        name: SEGMENT.to_owned(),
        dimension: cases.dimension(),
        shard: None,
        searched: true,
        records: indexed
            .iter()
            .map(|&item| Arc::clone(&cases.items[item].record))
            .collect(),
        vectors: indexed
            .iter()
            .flat_map(|&item| cases.vector(item))
            .copied()
            .collect::<Vec<_>>()
            .into(),
    };
    let input = SnapshotInput {
        version: 1,
        dimension: cases.dimension(),
        metric: None,
        classes: cases.classes.clone(),
        segments: vec![(Arc::new(segment), vec![])],
        graphs,
    };
    let settings = IndexSettings::default().with_exact_rows_max(Some(0));
    let snapshot = Snapshot::build(&input, None, &settings)?;
    let queries: Vec<usize> = cases.asked().collect();
    let step = queries.len().div_ceil(QUERIES_MAX).max(1);
    let queries: Vec<usize> = queries.into_iter().step_by(step).collect();
    let outcomes = queries.par_iter().map(|&item| {
        // As the product asks: without the image itself, its patient and its pixels.
        let record = &cases.items[item].record;
        let query = Query {
            patients: PatientKeys::of(record).into_iter().collect(),
            same_pixels: record.pixel_key.into_iter().chain([record.file_key]).collect(),
            ..Query::of(Embedding::from_unit(cases.vector(item).to_vec()))
        };
        let ask = |exact| Ask {
            k: NEIGHBORS,
            exact,
            ..Ask::default()
        };
        let exact = local::search(&snapshot, &query, &ask(true))?;
        let graphs = local::search(&snapshot, &query, &ask(false))?;
        let class = |ranking: &Ranking| vote(ranking, method, NEIGHBORS).class;
        let found = exact
            .hits
            .iter()
            .filter(|hit| graphs.hits.iter().any(|other| other.id() == hit.id()));
        Ok((found.count(), exact.hits.len(), class(&exact) == class(&graphs)))
    });
    let outcomes = outcomes.collect::<Result<Vec<_>>>()?;
    let all: usize = outcomes.iter().map(|outcome| outcome.1).sum();
    Ok(Available::Yes(IndexReport {
        recall_at_10: outcomes.iter().map(|outcome| outcome.0).sum::<usize>() as f64 / all.max(1) as f64,
        same_vote: outcomes.iter().filter(|outcome| outcome.2).count() as f64 / outcomes.len().max(1) as f64,
        queries: outcomes.len(),
        graphs: format!(
            "HNSW, one graph a class: M {}, ef construction {}, ef {}",
            parameters.connectivity, parameters.expansion_add, parameters.expansion_search
        ),
    }))
}

const SEGMENT: &str = "rows of the evaluation";
