//! Taking what was learned into use, or out of it: a metric with its graphs and a calibration in one manifest, so that no version has one without the
//! others.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bulk::AGE_MAX;
use super::commit::{Propose, Proposed, base, commit};
use super::graphs::Graphs;
use super::{
    Archive, CalibrationEntry, Fitted, GraphBuilder, GraphEntry, MetricEntry, Moment, NewCalibration, State,
    calibration, metric,
};
use crate::domain::{Metric, Space};
use crate::error::{Error, ErrorKind, Result};

/// What an archive is served with; nothing by default.
#[derive(Debug, Clone, Default)]
pub struct Learned {
    /// The metric that it is searched by; none: the vectors as they are.
    pub metric: Option<(Arc<Metric>, Fitted)>,
    /// What its votes are worth, under that metric.
    pub calibration: Option<NewCalibration>,
}

impl Archive {
    /// Serves the archive with what was learned from now on, and with nothing that was learned before. `graphs` is asked for every rows object. Gives
    /// the version that says so; the same as before when nothing changes.
    ///
    /// # Errors
    /// `WrongDimension` for a metric of other vectors; `StorageFull`, `Unavailable`: then nothing has changed. What `graphs` fails with.
    pub async fn switch(&self, learned: Learned, graphs: Option<GraphBuilder>) -> Result<u64> {
        let base = base(self).await?;
        let dimension = base.manifest.space.dimension;
        if let Some((metric, _)) = &learned.metric
            && metric.dimension() != dimension
        {
            let message = format!(
                "the metric is of vectors with {} components, this archive's have {dimension}",
                metric.dimension()
            );
            return Err(Error::new(ErrorKind::WrongDimension, message));
        }
        let mut work = Switch {
            space: base.manifest.space.clone(),
            learned,
            graphs,
            began: self.moment(),
            written: None,
            built: BTreeMap::new(),
        };
        Ok(commit(self, &base, &mut work).await?.manifest.version)
    }
}

struct Switch {
    /// That it was learned in.
    space: Space,
    learned: Learned,
    graphs: Option<GraphBuilder>,
    began: Moment,
    written: Option<(Option<MetricEntry>, Option<CalibrationEntry>)>,
    /// Graphs by rows object: a newer base asks only for those of its new rows.
    built: BTreeMap<String, Vec<GraphEntry>>,
}

impl Propose for Switch {
    async fn propose(&mut self, archive: &Archive, base: &Arc<State>, commit: &str) -> Result<Option<Proposed>> {
        base.manifest.require_space(&self.space)?;
        let has_nothing = base.manifest.metric.is_none() && base.manifest.calibration.is_none();
        if has_nothing && self.learned.metric.is_none() && self.learned.calibration.is_none() {
            return Ok(None);
        }
        if self.began.age(archive.moment()) > AGE_MAX {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "building the graphs took so long that what was written before may be gone",
            ));
        }
        let mut manifest = base.manifest.as_ref().clone();
        if self.written.is_none() {
            let metric = match &self.learned.metric {
                Some((metric, fitted)) => Some(metric::put(archive, &manifest, metric, fitted, commit).await?),
                None => None,
            };
            let name = metric.as_ref().map(|metric| metric.object.clone());
            let calibration = match &self.learned.calibration {
                Some(new) => Some(calibration::put(archive, &manifest, new, name, commit).await?),
                None => None,
            };
            self.written = Some((metric, calibration));
        }
        (manifest.metric, manifest.calibration) = self.written.clone().unwrap_or_default();
        // By the same measure as before, the graphs are as good as before.
        let same = manifest.metric.is_none() && base.manifest.metric.is_none();
        if !same {
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
        }
        Ok(Some(Proposed { manifest, rows: vec![] }))
    }
}
