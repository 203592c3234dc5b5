//! Studies, series and instances of a version: images in the order in which DICOM asks for them.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use crate::archive::State;
use crate::domain::{Alias, Key, PseudonymousUid, Record};

/// A level of DICOM's hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// All that was imaged at one occasion.
    Study,
    /// What came from one device in one go.
    Series,
    /// One file.
    Instance,
}

/// A picture of an instance: 72 bytes. Most instances have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instance {
    /// Its study.
    pub study: PseudonymousUid,
    /// Its series.
    pub series: PseudonymousUid,
    /// Itself.
    pub sop: PseudonymousUid,
    /// Which frame of its file it was.
    frame: u32,
    object: u32,
    row: u32,
    /// Counted from 1: it is a further file of the same picture and patient; 0: it is the record's own.
    alias: u32,
}

impl Instance {
    /// Its record.
    ///
    /// # Panics
    /// When it is of another version.
    pub fn record<'a>(&self, state: &'a State) -> &'a Arc<Record> {
        state.at((self.object as usize, self.row))
    }

    /// Which frame of its file it was, from 1.
    pub fn frame(&self) -> u32 {
        self.frame
    }

    /// Which further file of the record it is, if it is one.
    pub fn alias<'a>(&self, record: &'a Record) -> Option<&'a Alias> {
        record.aliases.get((self.alias as usize).checked_sub(1)?)
    }

    /// What it is called on a level.
    pub fn uid(&self, level: Level) -> PseudonymousUid {
        match level {
            Level::Study => self.study,
            Level::Series => self.series,
            Level::Instance => self.sop,
        }
    }

    fn compare(&self, other: &Self, level: Level) -> Ordering {
        let upper = self.study.cmp(&other.study);
        match level {
            Level::Study => upper,
            Level::Series => upper.then(self.series.cmp(&other.series)),
            Level::Instance => upper
                .then(self.series.cmp(&other.series))
                .then(self.sop.cmp(&other.sop)),
        }
    }
}

/// The images of a version that have all three UIDs, 80 bytes each. What has no UID has no place in DICOM.
#[derive(Debug, Default)]
pub struct Hierarchy {
    /// By study, series, instance and frame.
    instances: Vec<Instance>,
    /// Positions by series.
    by_series: Vec<u32>,
    /// Positions by instance.
    by_sop: Vec<u32>,
}

impl Hierarchy {
    /// Puts a version in order.
    pub fn of(state: &State) -> Self {
        let mut instances: Vec<Instance> = state.live().flat_map(|spot| instances_at(state, spot)).collect();
        // Of several pictures of one frame the one that came first.
        instances.sort_unstable_by(|a, b| {
            let place = |one: &Instance| (one.frame, one.alias, one.object, one.row);
            a.compare(b, Level::Instance).then(place(a).cmp(&place(b)))
        });
        instances.dedup_by(|a, b| a.frame == b.frame && a.compare(b, Level::Instance).is_eq());
        instances.shrink_to_fit();
        Self::ordered(instances)
    }

    fn ordered(instances: Vec<Instance>) -> Self {
        let by = |level: Level| {
            let mut positions: Vec<u32> = (0..instances.len() as u32).collect();
            positions.sort_unstable_by_key(|&at| (instances[at as usize].uid(level), at));
            positions
        };
        Self {
            by_series: by(Level::Series),
            by_sop: by(Level::Instance),
            instances,
        }
    }

    /// Every picture, by study, series, instance and frame.
    pub fn all(&self) -> &[Instance] {
        &self.instances
    }

    /// The pictures under a UID, as ranges of [`Hierarchy::all`] that are one study, series or instance each. A UID names one thing; files that say
    /// otherwise are shown as they are.
    pub fn under(&self, uid: PseudonymousUid, level: Level) -> Vec<Range<usize>> {
        let positions = match level {
            Level::Study => {
                let start = self.instances.partition_point(|one| one.study < uid);
                let found = self.instances.get(start).is_some_and(|one| one.study == uid);
                return found.then(|| self.around(start, level)).into_iter().collect();
            }
            Level::Series => &self.by_series,
            Level::Instance => &self.by_sop,
        };
        let of = |at: &u32| self.instances[*at as usize].uid(level);
        let start = positions.partition_point(|at| of(at) < uid);
        let same = positions[start..].iter().take_while(|at| of(at) == uid);
        self.groups(same.map(|&at| at as usize), level)
    }

    /// The whole study, series or instance that a picture belongs to.
    ///
    /// # Panics
    /// When there is no such position.
    pub fn around(&self, at: usize, level: Level) -> Range<usize> {
        let one = self.instances[at];
        let start = self.instances[..at].partition_point(|other| other.compare(&one, level).is_lt());
        let end = self.instances[at..].partition_point(|other| other.compare(&one, level).is_eq());
        start..at + end
    }

    /// The studies, series or instances that pictures belong to, each once and in order.
    pub fn groups(&self, positions: impl Iterator<Item = usize>, level: Level) -> Vec<Range<usize>> {
        let mut groups: Vec<Range<usize>> = Vec::new();
        for at in positions {
            if !groups.last().is_some_and(|group| group.contains(&at)) {
                groups.push(self.around(at, level));
            }
        }
        groups.sort_unstable_by_key(|group| group.start);
        groups.dedup();
        groups
    }

    /// The parts of a range, one for each study, series or instance.
    pub fn parts(&self, range: Range<usize>, level: Level) -> impl Iterator<Item = Range<usize>> {
        let mut start = range.start;
        self.instances[range]
            .chunk_by(move |a, b| a.compare(b, level).is_eq())
            .map(move |part| {
                let part = start..start + part.len();
                start = part.end;
                part
            })
    }
}

fn instances_at(state: &State, (object, row): (usize, u32)) -> impl Iterator<Item = Instance> {
    let record = state.at((object, row));
    let own = std::iter::once((record.study, record.series, record.sop, record.frame));
    let further = record.aliases.iter();
    let further = further.map(|alias| (alias.study, alias.series, alias.sop, alias.frame));
    let all = own.chain(further).zip(0..);
    all.filter_map(move |((study, series, sop, frame), alias)| {
        let uid = |key: Option<Key>| key.map(PseudonymousUid::from);
        Some(Instance {
            study: uid(study)?,
            series: uid(series)?,
            sop: uid(sop)?,
            frame: frame.get(),
            object: object as u32,
            row,
            alias,
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hierarchy(uids: &[(u8, u8, u8)]) -> Hierarchy {
        let uid = |byte: u8| PseudonymousUid::from(Key([byte; 16]));
        let mut instances: Vec<Instance> = (0..)
            .zip(uids)
            .map(|(row, &(study, series, sop))| Instance {
                study: uid(study),
                series: uid(series),
                sop: uid(sop),
                frame: 1,
                object: 0,
                row,
                alias: 0,
            })
            .collect();
        instances.sort_unstable_by(|a, b| a.compare(b, Level::Instance));
        Hierarchy::ordered(instances)
    }

    #[test]
    fn a_series_uid_in_two_studies_is_two_series() {
        let hierarchy = hierarchy(&[(1, 9, 1), (2, 9, 2), (2, 9, 3), (2, 8, 4)]);
        let uid = |byte: u8| PseudonymousUid::from(Key([byte; 16]));
        assert_eq!(hierarchy.under(uid(2), Level::Study), vec![Range { start: 1, end: 4 }]);
        assert_eq!(hierarchy.under(uid(9), Level::Series), [0..1, 2..4]);
        assert_eq!(hierarchy.under(uid(3), Level::Instance).len(), 1);
        assert!(hierarchy.under(uid(7), Level::Study).is_empty() && hierarchy.under(uid(1), Level::Series).is_empty());
    }

    proptest! {
        #[test]
        fn whatever_is_there_is_found_on_every_level(uids in prop::collection::vec((0..4_u8, 0..4_u8, 0..6_u8), 0..40)) {
            let hierarchy = hierarchy(&uids);
            for level in [Level::Study, Level::Series, Level::Instance] {
                let parts: Vec<_> = hierarchy.parts(0..hierarchy.all().len(), level).collect();
                // They follow each other without a gap, and each is found by its UID.
                prop_assert_eq!(parts.iter().map(ExactSizeIterator::len).sum::<usize>(), hierarchy.all().len());
                for part in &parts {
                    let one = hierarchy.all()[part.start];
                    prop_assert!(hierarchy.under(one.uid(level), level).contains(part));
                    prop_assert_eq!(&hierarchy.around(part.end - 1, level), part);
                }
                prop_assert_eq!(hierarchy.groups(0..hierarchy.all().len(), level), parts);
            }
        }
    }
}
