//! Taking a learned metric into use, or out of it: the metric and its graphs in one manifest, so that no version has one without the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bulk::AGE_MAX;
use super::commit::{Propose, Proposed, base, commit};
use super::graphs::Graphs;
use super::{Archive, Fitted, GraphBuilder, GraphEntry, MetricEntry, Moment, State, metric};
use crate::domain::Metric;
use crate::error::{Error, ErrorKind, Result};

impl Archive {
    /// Searches by `metric` from now on, or, without one, by the vectors as they are. `graphs` is asked for every rows object. Gives the version that
    /// says so; the same as before when nothing changes.
    ///
    /// # Errors
    /// `WrongDimension` for a metric of other vectors; `StorageFull`, `Unavailable`: then nothing has changed. What `graphs` fails with.
    pub async fn switch_metric(
        &self,
        metric: Option<(Arc<Metric>, Fitted)>,
        graphs: Option<GraphBuilder>,
    ) -> Result<u64> {
        let base = base(self).await?;
        let dimension = base.manifest.space.dimension;
        if let Some((metric, _)) = &metric
            && metric.dimension() != dimension
        {
            let message = format!(
                "the metric is of vectors with {} components, this archive's have {dimension}",
                metric.dimension()
            );
            return Err(Error::new(ErrorKind::WrongDimension, message));
        }
        let mut work = Switch {
            metric,
            graphs,
            began: self.moment(),
            entry: None,
            built: BTreeMap::new(),
        };
        Ok(commit(self, &base, &mut work).await?.manifest.version)
    }
}

struct Switch {
    metric: Option<(Arc<Metric>, Fitted)>,
    graphs: Option<GraphBuilder>,
    began: Moment,
    entry: Option<MetricEntry>,
    /// Graphs by rows object: a newer base asks only for those of its new rows.
    built: BTreeMap<String, Vec<GraphEntry>>,
}

impl Propose for Switch {
    async fn propose(&mut self, archive: &Archive, base: &Arc<State>, commit: &str) -> Result<Option<Proposed>> {
        if self.metric.is_none() && base.manifest.metric.is_none() {
            return Ok(None);
        }
        if self.began.age(archive.moment()) > AGE_MAX {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "building the graphs took so long that the metric may be gone",
            ));
        }
        let mut manifest = base.manifest.as_ref().clone();
        if let (Some((metric, fitted)), None) = (&self.metric, &self.entry) {
            self.entry = Some(metric::put(archive, &manifest, metric, fitted, commit).await?);
        }
        manifest.metric.clone_from(&self.entry);
        manifest.graphs.clear();
        if let Some(graphs) = Graphs::of(archive, self.graphs.as_ref(), &manifest, commit).await? {
            for (entry, object) in manifest.rows.iter().zip(&base.rows) {
                // Deltas are scanned; what is of several shards is on its way to be merged.
                if entry.delta || entry.shards.len() != 1 {
                    continue;
                }
                if !self.built.contains_key(&entry.object) {
                    self.built
                        .insert(entry.object.clone(), graphs.write(object, entry).await?);
                }
                manifest.graphs.extend(self.built[&entry.object].iter().cloned());
            }
        }
        Ok(Some(Proposed { manifest, rows: vec![] }))
    }
}
