//! What a path names: a study, a series or an instance of the version that is served.

use std::ops::Range;
use std::sync::Arc;

use actix_web::HttpRequest;

use super::shown::{Names, Shown};
use crate::archive;
use crate::domain::Record;
use crate::error::{Error, ErrorKind, Result};
use crate::http::access::sees_links;
use crate::http::rate::NamedBy;
use crate::http::{State, audited};
use crate::search::{Hierarchy, Level, Version};
use crate::telemetry::run_blocking;

/// Most images that the audit names one by one; it has the number of all.
const AUDITED_MAX: usize = 1000;

/// A study, a series or an instance.
pub struct Place {
    version: Arc<Version>,
    shown: Shown,
    /// Its pictures.
    range: Range<usize>,
}

impl Place {
    /// Finds what UIDs name, from the study down.
    ///
    /// # Errors
    /// `NotFound`, which does not repeat them.
    pub async fn find(state: &State, request: &HttpRequest, uids: &[&str]) -> Result<Self> {
        let (version, identity) = state.engine.identified();
        let mut shown = Shown::new(identity, sees_links(request));
        let levels = [
            (Level::Study, "study"),
            (Level::Series, "series"),
            (Level::Instance, "instance"),
        ];
        let named: Vec<_> = levels.into_iter().zip(uids).collect();
        let wanted: Vec<_> = named
            .iter()
            .map(|((level, _), text)| (*level, shown.uids(*level, text)))
            .collect();
        let names: Vec<_> = named
            .iter()
            .map(|((level, _), text)| (audited::level_name(*level), **text))
            .collect();
        let naming = match named.iter().any(|((level, _), text)| shown.is_original(*level, text)) {
            true => {
                audited::query_by_names(&names);
                Some(state.naming(request, NamedBy::Request, 1)?)
            }
            false => None,
        };
        let name = named.last().map_or("study", |((_, name), _)| *name);
        let not_found = move || Error::new(ErrorKind::NotFound, format!("this archive has no such {name}"));
        let found = run_blocking(move || {
            let hierarchy = version.hierarchy();
            let (level, lowest) = wanted.last().ok_or_else(not_found)?;
            let is_there = |range: &Range<usize>| {
                let one = &hierarchy.all()[range.start];
                wanted.iter().all(|(level, uids)| uids.contains(&one.uid(*level)))
            };
            let ranges = lowest.iter().flat_map(|uid| hierarchy.under(*uid, *level));
            let range = ranges.into_iter().find(is_there).ok_or_else(not_found)?;
            Ok(Self { version, shown, range })
        })
        .await;
        if let Some(naming) = naming {
            let is_missing = found.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
            naming.missed(is_missing.into());
        }
        let place = found?;
        audited::count(place.range.len());
        let named = place.range.clone().take(AUDITED_MAX);
        audited::images(named.map(|at| place.record(at).id));
        Ok(place)
    }

    /// Its instances, in their order.
    pub fn instances(&self) -> Vec<Range<usize>> {
        let hierarchy = self.version.hierarchy();
        hierarchy.parts(self.range.clone(), Level::Instance).collect()
    }

    /// The record of its middle picture: what stands for all of it.
    pub fn middle(&self) -> &Arc<Record> {
        self.record(self.range.start + (self.range.len() - 1) / 2)
    }

    /// The frames of an instance: its pictures, in the order of the file that they came from. All are of one size.
    pub fn frames(&self, instance: &Range<usize>) -> Vec<&Arc<Record>> {
        let frames = frames(&self.version.state, self.version.hierarchy(), instance);
        frames.map(|(_, record)| record).collect()
    }

    /// The numbers that these have in the file.
    pub fn numbers(&self, instance: &Range<usize>) -> Vec<u32> {
        let frames = frames(&self.version.state, self.version.hierarchy(), instance);
        frames.map(|(number, _)| number).collect()
    }

    /// How an instance is called.
    ///
    /// # Errors
    /// `Damaged` when a sealed record can't be opened.
    pub fn names(&self, instance: &Range<usize>) -> Result<Names> {
        let one = &self.version.hierarchy().all()[instance.start];
        self.shown.names(one, one.record(&self.version.state))
    }

    fn record(&self, at: usize) -> &Arc<Record> {
        self.version.hierarchy().all()[at].record(&self.version.state)
    }
}

/// The frames of an instance by their numbers in its file.
pub fn frames<'a>(
    state: &'a archive::State,
    hierarchy: &'a Hierarchy,
    instance: &Range<usize>,
) -> impl Iterator<Item = (u32, &'a Arc<Record>)> + use<'a> {
    let size = |record: &Record| record.pixels.as_ref().map(|pixels| (pixels.width, pixels.height));
    let all = &hierarchy.all()[instance.clone()];
    let first = all.first().and_then(|one| size(one.record(state)));
    let all = all.iter().map(|one| (one.frame(), one.record(state)));
    all.filter(move |(_, record)| size(record) == first)
}
