//! Graph objects: an HNSW graph over the rows of one class of one rows object, as the index wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bulk::AGE_MAX;
use super::commit::{Propose, Proposed};
use super::store::{blocking, object_name};
use super::{Archive, GraphEntry, GraphParameters, Manifest, MetricEntry, Moment, RowsEntry, RowsObject, State, frame};
use crate::domain::{ClassLabel, Metric, Unknown};
use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"MSGRAPH1";
const FORMAT: u32 = 1;

/// Builds the graphs of a rows object, as the metric sees its rows if there is one. Runs on a thread where it may compute.
pub type GraphBuilder = Arc<dyn Fn(&RowsObject, Option<&Metric>) -> Result<Vec<NewGraph>> + Send + Sync>;

/// A graph over the rows of one class of a rows object, all of which are in one shard.
pub struct NewGraph {
    /// The class; none: the rows without one.
    pub class: Option<ClassLabel>,
    /// Rows in the graph; its keys are row numbers in the object.
    pub rows: u64,
    /// How it was built.
    pub parameters: GraphParameters,
    /// As the index wrote it.
    pub bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    rows_object: String,
    shard: u32,
    class: Option<ClassLabel>,
    rows: u64,
    metric: Option<String>,
    parameters: GraphParameters,
    /// The commit that wrote it. Makes every object new: the same graph may be built again after it was collected.
    #[serde(default)]
    commit: String,
}

/// Builds graphs for one version's metric, and writes them.
pub(super) struct Graphs<'a> {
    archive: &'a Archive,
    build: &'a GraphBuilder,
    metric: Option<(String, Arc<Metric>)>,
    commit: &'a str,
}

impl<'a> Graphs<'a> {
    /// For the metric that `manifest` names. None when nobody builds, and when the metric is damaged: graphs are a cache, and without them rows must
    /// still be merged and erased.
    ///
    /// # Errors
    /// `Unavailable` when it can't be read at the moment.
    pub async fn of(
        archive: &'a Archive,
        build: Option<&'a GraphBuilder>,
        manifest: &Manifest,
        commit: &'a str,
    ) -> Result<Option<Self>> {
        let Some(build) = build else { return Ok(None) };
        let metric = match &manifest.metric {
            None => None,
            Some(entry) => match archive.read_metric(entry).await {
                Ok(metric) => Some((entry.object.clone(), metric)),
                Err(error) if error.kind() == ErrorKind::Damaged || archive.store().is_missing(&entry.object).await => {
                    tracing::error!(error = %error, "no graphs are built: `medsearch fit` makes another metric");
                    return Ok(None);
                }
                Err(error) => return Err(error),
            },
        };
        Ok(Some(Self {
            archive,
            build,
            metric,
            commit,
        }))
    }

    /// The graphs of one rows object, written.
    ///
    /// # Errors
    /// What building fails with; `StorageFull`, `Unavailable`.
    pub async fn write(&self, object: &Arc<RowsObject>, entry: &RowsEntry) -> Result<Vec<GraphEntry>> {
        let (build, of) = (Arc::clone(self.build), Arc::clone(object));
        let (metric, map) = self.metric.clone().unzip();
        let mut entries = Vec::new();
        for graph in blocking(move || build(&of, map.as_deref())).await?? {
            let &[shard] = entry.shards.as_slice() else {
                return Err(Error::internal("a graph needs rows of one shard"));
            };
            let header = Header {
                format: FORMAT,
                rows_object: object.name.clone(),
                shard,
                class: graph.class,
                rows: graph.rows,
                metric: metric.clone(),
                parameters: graph.parameters,
                commit: self.commit.to_owned(),
            };
            let mut bytes = frame::begin(MAGIC, &header, graph.bytes.len())?;
            bytes.extend(graph.bytes);
            let (name, bytes) = object_name("graphs", bytes.into()).await?;
            let size = bytes.len() as u64;
            self.archive.store().put_object(&name, bytes).await?;
            entries.push(GraphEntry {
                object: name,
                bytes: size,
                rows_object: header.rows_object,
                shard,
                class: header.class,
                rows: header.rows,
                metric: header.metric,
                parameters: header.parameters,
                other: Unknown::new(),
            });
        }
        Ok(entries)
    }
}

/// The graphs of a version that are damaged or missing.
///
/// # Errors
/// `Unavailable` when one that is there can't be read at the moment.
pub(super) async fn unreadable(archive: &Archive, manifest: &Manifest) -> Result<BTreeSet<String>> {
    let mut lost = BTreeSet::new();
    for entry in &manifest.graphs {
        let bytes = archive.store().get_object(&entry.object).await;
        match bytes.and_then(|bytes| payload(entry, bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Damaged || archive.store().is_missing(&entry.object).await => {
                tracing::warn!(object = entry.object, error = %error, "a graph that can't be read is built again");
                lost.insert(entry.object.clone());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(lost)
}

/// Builds graphs again that can't be read, from the rows that they are over: in place of all graphs of such a rows object.
pub(super) struct Rebuild {
    lost: BTreeSet<String>,
    graphs: Option<GraphBuilder>,
    began: Moment,
    /// By rows object, for this metric: another writer that comes first changes neither, as a rule.
    built: BTreeMap<String, Vec<GraphEntry>>,
    metric: Option<MetricEntry>,
}

impl Rebuild {
    pub fn new(lost: BTreeSet<String>, graphs: Option<GraphBuilder>, began: Moment) -> Self {
        Self {
            lost,
            graphs,
            began,
            built: BTreeMap::new(),
            metric: None,
        }
    }
}

impl Propose for Rebuild {
    async fn propose(&mut self, archive: &Archive, base: &Arc<State>, commit: &str) -> Result<Option<Proposed>> {
        let lost = base
            .manifest
            .graphs
            .iter()
            .filter(|entry| self.lost.contains(&entry.object));
        let of: BTreeSet<&str> = lost.map(|entry| entry.rows_object.as_str()).collect();
        if of.is_empty() {
            return Ok(None);
        }
        let Some(graphs) = Graphs::of(archive, self.graphs.as_ref(), &base.manifest, commit).await? else {
            return Ok(None);
        };
        if self.metric != base.manifest.metric || self.began.age(archive.moment()) > AGE_MAX {
            self.began = archive.moment();
            self.built.clear();
            self.metric.clone_from(&base.manifest.metric);
        }
        let mut manifest = base.manifest.as_ref().clone();
        manifest.graphs.retain(|entry| !of.contains(entry.rows_object.as_str()));
        for (entry, object) in base.manifest.rows.iter().zip(&base.rows) {
            if !of.contains(entry.object.as_str()) {
                continue;
            }
            if !self.built.contains_key(&entry.object) {
                let built = graphs.write(object, entry).await?;
                self.built.insert(entry.object.clone(), built);
            }
            manifest.graphs.extend(self.built[&entry.object].iter().cloned());
        }
        Ok(Some(Proposed { manifest, rows: vec![] }))
    }
}

/// The index's own bytes of a graph object.
///
/// # Errors
/// `Damaged` when it is not the graph that the manifest means; `Unavailable` for the format of a later program.
pub(super) fn payload(entry: &GraphEntry, bytes: Bytes) -> Result<Bytes> {
    let (header, start): (Header, usize) = frame::read(&entry.object, MAGIC, FORMAT, &bytes)?;
    if header.rows_object != entry.rows_object || header.class != entry.class || header.metric != entry.metric {
        return Err(Error::new(
            ErrorKind::Damaged,
            format!("`{}` is not the graph that it should be", entry.object),
        ));
    }
    Ok(bytes.slice(start..))
}
