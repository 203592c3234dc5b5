//! The images of an evaluation: who they are, what they are said to be, which of them belong together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::domain::{ClassLabel, Group, Key, OnePer, PatientKeys, Record, Union};
use crate::error::{Error, ErrorKind, Result};
use crate::index;
use crate::search::Version;

/// One labelled image.
#[derive(Debug, Clone)]
pub struct Case {
    /// All that is known about it.
    pub record: Arc<Record>,
    /// Index into [`Cases::classes`].
    pub class: usize,
    /// What is kept together: the patient, the study, and copies of a picture.
    pub group: usize,
    /// The patient, as a number; absent when unknown.
    pub patient: Option<usize>,
    /// The picture, as a number: equal pixels, links of the archive, and near duplicates once they are known, are one.
    pub picture: usize,
    /// Who it stands for in an answer.
    pub stands_for: Group,
    /// Index into [`Cases::sources`].
    pub source: Option<usize>,
    /// It can be found.
    pub indexed: bool,
    /// It is asked about.
    pub asked: bool,
}

/// Labelled images in the order of their ids, with their unit vectors as the model gives them: a learned metric has seen the images that it was
/// fitted on, and would flatter.
#[derive(Debug, Clone)]
pub struct Cases {
    /// Classes by name.
    pub classes: Vec<ClassLabel>,
    /// Sources by name.
    pub sources: Vec<String>,
    /// The images.
    pub items: Vec<Case>,
    /// Images that were left out: no label, or one in dispute.
    pub without_label: usize,
    dimension: usize,
    /// Row-major, a row an item.
    vectors: Vec<f32>,
}

impl Cases {
    /// The labelled images of an archive, each of them asked about among the others; or, with `queries`, those asked about among the archive's.
    ///
    /// # Errors
    /// `InvalidRequest` without two classes or a labelled query, `SpaceMismatch` for queries of another space.
    pub fn of(archive: &Version, queries: Option<&Version>) -> Result<Self> {
        let space = &archive.state.manifest.space;
        if let Some(queries) = queries
            && queries.state.manifest.space.id() != space.id()
        {
            return Err(Error::new(
                ErrorKind::SpaceMismatch,
                "the queries' vectors are of another space than the archive's: embed both with one model",
            ));
        }
        let mut without_label = 0;
        let mut found: Vec<(Arc<Record>, Vec<f32>, bool, Group)> = Vec::new();
        for (version, indexed) in [(Some(archive), true), (queries, false)] {
            let Some(version) = version else { continue };
            let votes = |&spot: &(usize, u32)| version.snapshot.votes(version.state.at(spot));
            let (spots, others): (Vec<_>, Vec<_>) = version.state.live().partition(votes);
            without_label += others.len();
            let mut records = spots.iter().map(|&spot| version.state.at(spot));
            version.each_unit(&spots, |unit| {
                if let Some(record) = records.next() {
                    let stands_for = version.snapshot.group(record, OnePer::Picture);
                    found.push((Arc::clone(record), unit.as_slice().to_vec(), indexed, stands_for));
                }
            })?;
        }
        // So that an item's number stands for the bytes of its id in the order of hits.
        found.sort_by(|a, b| (a.0.id.cmp(&b.0.id)).then(b.2.cmp(&a.2)));
        let class_of = |record: &Record| record.class.clone();
        let classes: BTreeSet<ClassLabel> = found.iter().filter_map(|(record, ..)| class_of(record)).collect();
        let classes: Vec<ClassLabel> = classes.into_iter().collect();
        let sources: BTreeSet<String> = found.iter().filter_map(|(record, ..)| record.source.clone()).collect();
        let sources: Vec<String> = sources.into_iter().collect();
        let records: Vec<&Record> = found.iter().map(|(record, ..)| record.as_ref()).collect();
        let (patients, pictures) = (
            numbered(records.iter().map(|record| patient(record))),
            equal_pictures(&records),
        );
        let groups = groups(&patients, &records, &pictures);
        let mut cases = Self {
            sources,
            items: Vec::with_capacity(found.len()),
            without_label,
            dimension: space.dimension,
            vectors: Vec::with_capacity(found.len() * space.dimension),
            classes,
        };
        for (at, (record, vector, indexed, stands_for)) in found.into_iter().enumerate() {
            let class = record
                .class
                .as_ref()
                .and_then(|class| cases.classes.binary_search(class).ok());
            let source = record
                .source
                .as_ref()
                .and_then(|source| cases.sources.binary_search(source).ok());
            cases.vectors.extend_from_slice(&vector);
            cases.items.push(Case {
                class: class.ok_or_else(|| Error::internal("a voting image without a class"))?,
                source,
                group: groups[at],
                patient: patients[at],
                picture: pictures[at],
                stands_for,
                indexed,
                asked: queries.is_none() || !indexed,
                record,
            });
        }
        cases.check()
    }

    fn check(self) -> Result<Self> {
        let indexed: BTreeSet<usize> = self
            .items
            .iter()
            .filter(|case| case.indexed)
            .map(|case| case.class)
            .collect();
        let why = if indexed.len() < 2 {
            "there are not labelled images of two classes"
        } else if self.groups(|_| true) < 2 {
            "all images are of one patient or one picture: there is nobody else to find"
        } else if self.asked().next().is_none() {
            "there is no labelled image to ask about"
        } else {
            return Ok(self);
        };
        Err(Error::new(ErrorKind::InvalidRequest, why))
    }

    /// Takes these pairs of items for one picture each, and keeps their groups together from now on.
    pub fn join(&mut self, pairs: impl Iterator<Item = (usize, usize)>) {
        let mut union = Union::new(self.items.len());
        let mut first = BTreeMap::new();
        for (at, case) in self.items.iter().enumerate() {
            union.join(*first.entry(case.picture).or_insert(at), at);
        }
        pairs.for_each(|(a, b)| union.join(a, b));
        let pictures = union.sets();
        let patients: Vec<Option<usize>> = self.items.iter().map(|case| case.patient).collect();
        let records: Vec<&Record> = self.items.iter().map(|case| case.record.as_ref()).collect();
        let groups = groups(&patients, &records, &pictures);
        for (case, (picture, group)) in self.items.iter_mut().zip(pictures.into_iter().zip(groups)) {
            (case.picture, case.group) = (picture, group);
        }
    }

    /// The vectors of all images, row-major.
    pub fn vectors(&self) -> &[f32] {
        &self.vectors
    }

    /// Number of the images that are asked about, ascending.
    pub fn asked(&self) -> impl Iterator<Item = usize> {
        (0..self.items.len()).filter(|&at| self.items[at].asked)
    }

    /// The unit vector of an image.
    pub fn vector(&self, item: usize) -> &[f32] {
        &self.vectors[item * self.dimension..(item + 1) * self.dimension]
    }

    /// Components of a vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The same images in another space: `vectors` are unit vectors, a row an item.
    pub fn in_space(&self, dimension: usize, vectors: Vec<f32>) -> Self {
        Self {
            dimension,
            vectors,
            ..self.clone()
        }
    }

    /// Everything that can be found, most similar first, equal similarities by id: the order of hits.
    pub fn ranked(&self, query: &[f32]) -> Vec<(f32, u32)> {
        let indexed = (0u32..).zip(&self.items).filter(|(_, case)| case.indexed);
        let mut ranked = Vec::with_capacity(self.items.len());
        index::similarities(query, &self.vectors, indexed.map(|(at, _)| at), |at, similarity| {
            ranked.push((similarity, at));
        });
        ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        ranked
    }

    /// Images of each class among those that `wanted` names.
    pub fn count(&self, wanted: impl Fn(&Case) -> bool) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for case in self.items.iter().filter(|case| wanted(case)) {
            counts[case.class] += 1;
        }
        counts
    }

    /// How many different groups they are of.
    pub fn groups(&self, wanted: impl Fn(&Case) -> bool) -> usize {
        let groups: BTreeSet<usize> = self
            .items
            .iter()
            .filter(|case| wanted(case))
            .map(|case| case.group)
            .collect();
        groups.len()
    }
}

/// The patient's id, whoever issued it: two that may be one person stay together.
fn patient(record: &Record) -> Option<[u8; 16]> {
    PatientKeys::of(record).map(|keys| keys.id.0)
}

/// Images of equal pixels, of one file, or that the archive knows as copies, as numbers: what was indexed without its pictures is known by its files
/// alone.
fn equal_pictures(records: &[&Record]) -> Vec<usize> {
    let mut union = Union::new(records.len());
    let (mut first, mut by_id) = (BTreeMap::new(), BTreeMap::new());
    for (at, record) in records.iter().enumerate() {
        let files = record.aliases.iter().map(|alias| alias.file_key);
        for key in files.chain([record.file_key]).chain(record.pixel_key) {
            union.join(*first.entry(key.0).or_insert(at), at);
        }
        for id in record.near_identical_to.into_iter().chain([record.id]) {
            union.join(*by_id.entry(id).or_insert(at), at);
        }
    }
    union.sets()
}

/// Equal keys get equal numbers.
fn numbered(keys: impl Iterator<Item = Option<[u8; 16]>>) -> Vec<Option<usize>> {
    let mut numbers = BTreeMap::new();
    keys.map(|key| {
        let next = numbers.len();
        key.map(|key| *numbers.entry(key).or_insert(next))
    })
    .collect()
}

/// Studies of an image and of its further files.
pub(super) fn studies(record: &Record) -> impl Iterator<Item = Key> {
    let aliases = record.aliases.iter().filter_map(|alias| alias.study);
    aliases.chain(record.study)
}

/// Images of one patient, of one study, and copies of one picture, in one group; closed over all three.
fn groups(patients: &[Option<usize>], records: &[&Record], pictures: &[usize]) -> Vec<usize> {
    let mut union = Union::new(pictures.len());
    let (mut by_patient, mut by_study, mut by_picture) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (at, (patient, picture)) in patients.iter().zip(pictures).enumerate() {
        if let Some(patient) = patient {
            union.join(*by_patient.entry(patient).or_insert(at), at);
        }
        for study in studies(records[at]) {
            union.join(*by_study.entry(study).or_insert(at), at);
        }
        union.join(*by_picture.entry(picture).or_insert(at), at);
    }
    union.sets()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::{Embedding, ImageId, Key, Slot};

    /// Items of (class, patient, source, vector); a patient of 0 is unknown.
    pub fn cases(items: &[(usize, u8, usize, Vec<f32>)]) -> Cases {
        let dimension = items[0].3.len();
        let patients: Vec<Option<usize>> = items.iter().map(|item| (item.1 > 0).then_some(item.1.into())).collect();
        let pictures: Vec<usize> = (0..items.len()).collect();
        let nothing = Record::bare(
            ImageId::new(Slot(0), Key([0; 16])),
            Key([0; 16]),
            "2026-01-01T00:00:00Z",
        );
        let groups = groups(&patients, &vec![&nothing; items.len()], &pictures);
        let class = |at: usize| ClassLabel::parse(&format!("class {at}")).unwrap();
        let classes = items.iter().map(|item| item.0).max().unwrap() + 1;
        let sources = items.iter().map(|item| item.2).max().unwrap() + 1;
        let case = |(at, item): (usize, &(usize, u8, usize, Vec<f32>))| {
            let mut key = [0; 16];
            key[..8].copy_from_slice(&(at as u64).to_be_bytes());
            let id = ImageId::new(Slot(0), Key(key));
            let mut record = Record::bare(id, Key(key), "2026-01-01T00:00:00Z");
            record.class = Some(class(item.0));
            record.patient = (item.1 > 0).then_some(Key([item.1; 16]));
            Case {
                stands_for: Group::of(&record),
                record: Arc::new(record),
                class: item.0,
                group: groups[at],
                patient: patients[at],
                picture: at,
                source: Some(item.2),
                indexed: true,
                asked: true,
            }
        };
        Cases {
            classes: (0..classes).map(class).collect(),
            sources: (0..sources).map(|at| format!("source {at}")).collect(),
            items: items.iter().enumerate().map(case).collect(),
            without_label: 0,
            dimension,
            vectors: (items.iter())
                .flat_map(|item| Embedding::from_raw(&item.3, dimension).unwrap().as_slice().to_vec())
                .collect(),
        }
    }

    #[test]
    fn patients_studies_and_equal_pixels_make_groups_together() {
        let record = |study: Option<u8>| {
            let mut record = Record::bare(
                ImageId::new(Slot(0), Key([0; 16])),
                Key([0; 16]),
                "2026-01-01T00:00:00Z",
            );
            record.study = study.map(|study| Key([study; 16]));
            record
        };
        let patients = [Some(0), Some(0), None, Some(1), None, None];
        let of = |studies: [Option<u8>; 6]| {
            let records = studies.map(record);
            groups(&patients, &records.each_ref(), &[0, 1, 1, 2, 3, 4])
        };
        assert_eq!(of([None; 6]), [0, 0, 0, 3, 4, 5]);
        assert_eq!(of([None, None, Some(7), None, Some(8), Some(7)]), [0, 0, 0, 3, 4, 0]);
    }

    #[test]
    fn near_duplicates_join_their_patients() {
        let vector = || vec![1.0, 0.0];
        let mut cases = cases(&[
            (0, 1, 0, vector()),
            (0, 2, 0, vector()),
            (1, 2, 0, vector()),
            (1, 0, 0, vector()),
        ]);
        let groups = |cases: &Cases| cases.items.iter().map(|case| case.group).collect::<Vec<_>>();
        assert_eq!(groups(&cases), [0, 1, 1, 3]);
        cases.join([(0, 1)].into_iter());
        assert_eq!(groups(&cases), [0, 0, 0, 3]);
        assert_eq!(
            cases.items.iter().map(|case| case.picture).collect::<Vec<_>>(),
            [0, 0, 2, 3]
        );
    }

    #[test]
    fn ranks_by_similarity_then_id() {
        let cases = cases(&[
            (0, 0, 0, vec![1.0, 0.0]),
            (0, 0, 0, vec![0.0, 1.0]),
            (1, 0, 0, vec![0.0, 2.0]),
        ]);
        let order: Vec<u32> = cases.ranked(&[0.0, 1.0]).into_iter().map(|(_, at)| at).collect();
        assert_eq!(order, [1, 2, 0]);
    }
}
