//! Which studies, series or instances of a version a search finds: pure.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Instant;

use super::attributes::{self, Counts};
use super::json::DataSet;
use super::place;
use super::query::{Attribute, Query};
use super::shown::Shown;
use crate::archive::State;
use crate::domain::{ImageId, PseudonymousUid, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::pacs::BaseUrl;
use crate::search::{Hierarchy, Instance, Level};

/// Images held against a query between two looks at the clock.
const LOOK_EVERY: u32 = 1024;

/// What was found, and whether there is more than that.
#[derive(Debug)]
pub struct Found {
    /// In the order of the pseudonymous UIDs, which is the same in every version.
    pub results: Vec<DataSet>,
    /// An image of each.
    pub images: Vec<ImageId>,
    /// More matched than the limit let through.
    pub more: bool,
}

/// UIDs of the request as the archive knows them; none: any.
struct Wanted {
    studies: Option<BTreeSet<PseudonymousUid>>,
    series: Option<BTreeSet<PseudonymousUid>>,
    instances: Option<BTreeSet<PseudonymousUid>>,
}

impl Wanted {
    fn includes(&self, one: &Instance) -> bool {
        let has = |uids: &Option<BTreeSet<PseudonymousUid>>, uid| uids.as_ref().is_none_or(|uids| uids.contains(&uid));
        has(&self.studies, one.study) && has(&self.series, one.series) && has(&self.instances, one.sop)
    }
}

/// How many patients and images that a query names by what they were called before they came here are not there.
pub fn missing(state: &State, hierarchy: &Hierarchy, query: &Query, shown: &mut Shown) -> usize {
    let patient = shown.patient_keys();
    let patient_missing = patient.is_some_and(|keys| state.by_patient(keys).next().is_none());
    let mut uids_missing = 0;
    for (level, texts) in query.uids() {
        for text in texts {
            let is_missing = |shown: &mut Shown| {
                let uids = shown.uids(level, text);
                uids.iter().all(|uid| hierarchy.under(*uid, level).is_empty())
            };
            uids_missing += usize::from(shown.is_original(level, text) && is_missing(shown));
        }
    }
    uids_missing + usize::from(patient_missing)
}

/// Looks for what a query asks for on a level, until `deadline`. `shown` knows the patient that it names, `base` is what RetrieveURLs are made of.
///
/// # Errors
/// `Damaged` when a sealed record can't be opened; `Deadline`.
pub fn search(
    state: &State,
    hierarchy: &Hierarchy,
    level: Level,
    query: &Query,
    mut shown: Shown,
    base: Option<&BaseUrl>,
    deadline: Instant,
) -> Result<Found> {
    let mut uids = |level, texts: &Option<Vec<String>>| {
        let texts = texts.as_ref()?;
        Some(texts.iter().flat_map(|text| shown.uids(level, text)).collect())
    };
    let wanted = Wanted {
        studies: uids(Level::Study, &query.studies),
        series: uids(Level::Series, &query.series),
        instances: uids(Level::Instance, &query.instances),
    };
    let search = Search {
        state,
        hierarchy,
        level,
        query,
        wanted,
        shown,
        base,
        deadline,
        looked: Cell::new(0),
        study: RefCell::default(),
    };
    search.run()
}

struct Search<'a> {
    state: &'a State,
    hierarchy: &'a Hierarchy,
    level: Level,
    query: &'a Query,
    wanted: Wanted,
    shown: Shown,
    base: Option<&'a BaseUrl>,
    deadline: Instant,
    looked: Cell<u32>,
    /// The last study that was held against what is asked of studies, and whether it is one: images come study by study.
    study: RefCell<Option<(Range<usize>, bool)>>,
}

impl Search<'_> {
    fn run(&self) -> Result<Found> {
        self.look_at_the_clock()?;
        let mut matches = self.candidates().filter_map(|group| self.first(group).transpose());
        let (mut results, mut images) = (Vec::new(), Vec::new());
        for _ in 0..self.query.offset {
            if matches.next().transpose()?.is_none() {
                break;
            }
        }
        for first in matches.by_ref().take(self.query.limit) {
            let first = first?;
            results.push(self.describe(first)?);
            images.push(self.hierarchy.all()[first].record(self.state).id);
        }
        let more = matches.next().transpose()?.is_some();
        Ok(Found { results, images, more })
    }

    /// Every study, series or instance that may match: those under the UIDs or of the patient that are asked for, else all.
    fn candidates(&self) -> Box<dyn Iterator<Item = Range<usize>> + '_> {
        let under = |uids: &BTreeSet<PseudonymousUid>, of: Level| {
            let ranges: Vec<Range<usize>> = uids.iter().flat_map(|uid| self.hierarchy.under(*uid, of)).collect();
            self.hierarchy.groups(ranges.into_iter().flatten(), self.level)
        };
        let found = match &self.wanted {
            Wanted {
                instances: Some(uids), ..
            } => under(uids, Level::Instance),
            Wanted { series: Some(uids), .. } => under(uids, Level::Series),
            Wanted {
                studies: Some(uids), ..
            } => under(uids, Level::Study),
            _ => match self.shown.patient_keys() {
                Some(keys) => {
                    let rows = self.state.by_patient(keys).map(|spot| self.state.at(spot));
                    under(&rows.flat_map(|record| studies_of(record)).collect(), Level::Study)
                }
                None => {
                    let all = 0..self.hierarchy.all().len();
                    return Box::new(self.hierarchy.parts(all, self.level));
                }
            },
        };
        Box::new(found.into_iter())
    }

    /// The first image of a study, series or instance that is what is asked for, if one is.
    fn first(&self, group: Range<usize>) -> Result<Option<usize>> {
        for at in group {
            self.look_at_the_clock()?;
            if self.matches(&self.hierarchy.all()[at]) {
                return Ok(self.study_matches(at).then_some(at));
            }
        }
        Ok(None)
    }

    fn look_at_the_clock(&self) -> Result<()> {
        let looked = self.looked.replace(self.looked.get().wrapping_add(1));
        match looked.is_multiple_of(LOOK_EVERY) && Instant::now() >= self.deadline {
            true => Err(Error::new(
                ErrorKind::Deadline,
                "the search takes too long: ask for less",
            )),
            false => Ok(()),
        }
    }

    fn matches(&self, one: &Instance) -> bool {
        if !self.wanted.includes(one) {
            return false;
        }
        let record = one.record(self.state);
        let code = |attribute| match attribute {
            Attribute::Modality => Some(attributes::modality(record)),
            Attribute::BodyPartExamined => attributes::body_part(record),
            Attribute::PatientSex => attributes::sex(record).map(str::to_owned),
            Attribute::ViewPosition => attributes::view(record),
            _ => None,
        };
        let mut codes = self.query.codes.iter();
        codes.all(|(attribute, codes)| codes.match_any(code(*attribute).as_deref())) && self.shown.is_of_patient(record)
    }

    /// Whether what is asked of the study as a whole is in it.
    fn study_matches(&self, at: usize) -> bool {
        let Some(wanted) = &self.query.modalities_in_study else {
            return true;
        };
        if let Some((study, does)) = &*self.study.borrow()
            && study.contains(&at)
        {
            return *does;
        }
        let study = self.hierarchy.around(at, Level::Study);
        let mut records = self.hierarchy.all()[study.clone()]
            .iter()
            .map(|one| one.record(self.state));
        let does = records.any(|record| wanted.match_any(Some(&attributes::modality(record))));
        self.study.replace(Some((study, does)));
        does
    }

    fn describe(&self, at: usize) -> Result<DataSet> {
        let one = &self.hierarchy.all()[at];
        let record = one.record(self.state);
        let study = self.hierarchy.around(at, Level::Study);
        let series = self.hierarchy.around(at, Level::Series);
        let count = |range: &Range<usize>, level| self.hierarchy.parts(range.clone(), level).count() as u32;
        let counts = Counts {
            study_series: count(&study, Level::Series),
            study_instances: count(&study, Level::Instance),
            series_instances: count(&series, Level::Instance),
            frames: match self.level {
                Level::Instance => {
                    place::frames(self.state, self.hierarchy, &self.hierarchy.around(at, Level::Instance)).count()
                        as u32
                }
                _ => 0,
            },
        };
        let of_study = self.hierarchy.all()[study].iter();
        let modalities: BTreeSet<String> = of_study
            .map(|one| attributes::modality(one.record(self.state)))
            .collect();
        let names = self.shown.names(one, record)?;
        Ok(attributes::found(
            self.level,
            &names,
            record,
            modalities.into_iter().collect(),
            counts,
            self.base,
        ))
    }
}

/// The studies that a record and its further files stand in.
fn studies_of(record: &Record) -> impl Iterator<Item = PseudonymousUid> {
    let further = record.aliases.iter().filter_map(|alias| alias.study);
    record.study.into_iter().chain(further).map(PseudonymousUid::from)
}
